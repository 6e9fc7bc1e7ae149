//! Functions of nested blocks, each as large as a function may be.

use dossier_tests::guest::around;
use wasm_encoder::{BlockType, Function};

pub fn component() -> Vec<u8> {
    let blocks = 2_500_000;
    let mut function = Function::new([]);
    (0..blocks).for_each(|_| {
        function.instructions().block(BlockType::Empty);
    });
    (0..=blocks).for_each(|_| {
        function.instructions().end();
    });
    around(&[function.clone(), function.clone(), function])
}
