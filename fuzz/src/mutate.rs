//! Mutations by a seed: what an ordinary test feeds to the targets beside the corpus. No match for libFuzzer, which sees what a run
//! passes, but the same every time, and quick.

use fastrand::Rng;

/// Bytes that mean something in what is fuzzed.
const WORDS: [&[u8]; 16] = [
    b"\0",
    b"\xff\xff\xff\xff",
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b"\n",
    b"\\ud800",
    b"\x7f",
    b"1e999",
    b"null",
    b"\xc3",
    b"18446744073709551616",
];

/// A seed that was changed in a few places; `other` is one to take pieces of.
pub fn mutated(random: &mut Rng, seed: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..random.usize(1..6) {
        let at = random.usize(..=bytes.len());
        match random.u8(..7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
            1 if at < bytes.len() => bytes[at] = random.u8(..),
            2 => drop(bytes.splice(at..at, WORDS[random.usize(..WORDS.len())].iter().copied())),
            3 => drop(bytes.drain(at..(at + random.usize(..16)).min(bytes.len()))),
            4 => bytes.truncate(at),
            5 => {
                let from = random.usize(..=other.len());
                let to = (from + random.usize(..64)).min(other.len());
                drop(bytes.splice(at..at, other[from..to].iter().copied()));
            }
            _ => {
                let to = (at + random.usize(..64)).min(bytes.len());
                let piece = bytes[at..to].to_vec();
                drop(bytes.splice(at..at, piece.repeat(random.usize(1..4))));
            }
        }
    }
    bytes
}
