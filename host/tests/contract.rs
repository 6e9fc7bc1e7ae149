//! The released contracts: their text never changes.

use std::fs;

use sha2::{Digest, Sha256};

/// Every file of a released version of the contract, with its SHA-256. A host serves it for ever, so a change here is not to be
/// repaired by another digest: take the change to `wit/next`.
const FROZEN: [(&str, &str); 1] =
    [("../wit/v1/plugin.wit", "075e782f56c7219cf4eabe88616750252ecaa01730cc0043f64eb8b00880b86f")];

#[test]
fn a_released_contract_does_not_change() {
    for (file, digest) in FROZEN {
        let text = fs::read(file).unwrap_or_else(|error| panic!("{file}: {error}"));
        let found = hex::encode(Sha256::digest(&text));
        assert_eq!(found, digest, "{file} is frozen: restore it and make the change in wit/next");
    }
}
