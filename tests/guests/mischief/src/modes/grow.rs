//! Takes memory without end, or `/mebibytes`.

use dossier_sdk::{Answer, Failure};
use serde_json::json;

use crate::Ask;

pub fn enrich(ask: &Ask<'_>) -> Result<Answer, Failure> {
    let mut blocks = Vec::new();
    for _ in 0..ask.count("/mebibytes").unwrap_or(u64::MAX) {
        blocks.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
    Answer::of(&json!({ "mebibytes": blocks.len() }))
}
