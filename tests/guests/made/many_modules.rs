//! A component of ten thousand modules.

use dossier_tests::guest::{module, nest};

pub fn component() -> Vec<u8> {
    nest(&vec![module(&[]); 10_000])
}
