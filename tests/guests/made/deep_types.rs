//! Types that are made of two of the one before, so that the last is larger than the world.

use std::fmt::Write as _;

pub fn component() -> Vec<u8> {
    let mut text = "(component (type $t0 (tuple u8 u8))".to_owned();
    for level in 1..90 {
        write!(text, "(type $t{level} (tuple $t{0} $t{0}))", level - 1).expect("a text can be written to");
    }
    wat::parse_str(text + ")").expect("a text of types")
}
