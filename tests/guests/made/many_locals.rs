//! Functions of 50,000 locals, as many as a function may have, all of them in use at once.

use dossier_tests::guest::around;
use wasm_encoder::{Function, ValType};

pub fn component() -> Vec<u8> {
    let locals = 50_000;
    let mut function = Function::new([(locals, ValType::I64)]);
    let mut code = function.instructions();
    code.loop_(wasm_encoder::BlockType::Empty);
    (0..locals - 1).for_each(|local| {
        code.local_get(local + 1).local_get(local).i64_add().local_set(local);
    });
    code.br(0).end().end();
    around(&vec![function; 20])
}
