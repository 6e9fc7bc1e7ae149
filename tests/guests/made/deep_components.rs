//! Components within components, a million levels deep.

pub fn component() -> Vec<u8> {
    // From the inside out, written backwards, so that it takes no time that grows with the square.
    let mut backwards: Vec<u8> = Vec::new();
    for _ in 0..1_000_000 {
        backwards.extend(b"\0asm\x0d\0\x01\0".iter().rev());
        let mut length = backwards.len();
        let mut digits = Vec::new();
        while digits.is_empty() || length > 0 {
            let more = if length > 127 { 128 } else { 0 };
            digits.push((length & 127) as u8 | more);
            length >>= 7;
        }
        backwards.extend(digits.iter().rev());
        backwards.push(4);
    }
    backwards.extend(b"\0asm\x0d\0\x01\0".iter().rev());
    backwards.reverse();
    backwards
}
