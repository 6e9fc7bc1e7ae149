//! Data segments of 63 MiB in a memory that is as small as it may be.

use wasm_encoder::{ConstExpr, DataSection, MemorySection, MemoryType, Module};

pub fn component() -> Vec<u8> {
    let mut memories = MemorySection::new();
    memories.memory(MemoryType { minimum: 1, maximum: None, memory64: false, shared: false, page_size_log2: None });
    let mut data = DataSection::new();
    for _ in 0..63 {
        data.active(0, &ConstExpr::i32_const(0), std::iter::repeat_n(b'x', 1 << 20));
    }
    let mut module = Module::new();
    module.section(&memories).section(&data);
    dossier_tests::guest::nest(&[module.finish()])
}
