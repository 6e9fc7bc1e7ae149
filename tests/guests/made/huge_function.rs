//! One function of 30 MB of nested blocks.

use dossier_tests::guest::around;
use wasm_encoder::{BlockType, Function};

pub fn component() -> Vec<u8> {
    let mut function = Function::new([]);
    let blocks = 10_000_000;
    (0..blocks).for_each(|_| {
        function.instructions().block(BlockType::Empty);
    });
    (0..=blocks).for_each(|_| {
        function.instructions().end();
    });
    around(&[function])
}
