//! Functions of branch tables with a million targets each.

use dossier_tests::guest::around;
use wasm_encoder::{BlockType, Function};

pub fn component() -> Vec<u8> {
    let mut function = Function::new([]);
    let mut code = function.instructions();
    (0..100).for_each(|_| {
        code.block(BlockType::Empty);
    });
    (0..6).for_each(|_| {
        code.i32_const(1).br_table((0..1_000_000).map(|target| target % 100), 0);
    });
    (0..=100).for_each(|_| {
        code.end();
    });
    around(&vec![function; 8])
}
