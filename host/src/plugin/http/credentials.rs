//! The headers that the host adds, and how they are kept from plugins.

use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use memchr::memmem;
use reqwest::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue};
use reqwest::header::{RANGE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};

/// A shorter value is no secret, and would be found everywhere.
const SHORTEST_SECRET: usize = 8;

/// The headers of one interface.
pub(super) struct Credentials {
    headers: HeaderMap,
    /// What no response may show, in whatever way it is escaped.
    secrets: Vec<Vec<u8>>,
    /// The same in other alphabets.
    encoded: Vec<Encoded>,
}

/// A secret in the middle of something that was encoded as a whole.
struct Encoded {
    text: Vec<u8>,
    /// Whether the characters before and after hold some bits of it.
    before: bool,
    after: bool,
}

impl Credentials {
    /// Checks the headers of a configuration. What is wrong is said without any value.
    pub(super) fn new(configured: &[(String, String)]) -> Result<Self, Vec<String>> {
        let mut headers = HeaderMap::new();
        let mut secrets = Vec::new();
        let mut problems = Vec::new();
        for (name, text) in configured {
            let Ok(parsed) = HeaderName::from_bytes(name.as_bytes()) else {
                problems.push(format!("{name:?} is an invalid header name; use letters, digits and '-'"));
                continue;
            };
            if is_reserved(&parsed) {
                problems.push(format!("the header {parsed} is set by the connection; leave it out"));
                continue;
            }
            match HeaderValue::from_str(text) {
                Ok(_) if text.trim().is_empty() => {
                    problems.push(format!("the header {parsed} is empty; is its variable set?"));
                }
                Ok(mut value) => {
                    value.set_sensitive(true);
                    headers.insert(parsed, value);
                    secrets.extend(parts(text));
                }
                Err(_) => problems.push(format!(
                    "the header {parsed} has a value that HTTP does not allow; is there a line break in its variable?"
                )),
            }
        }
        secrets.sort_unstable();
        secrets.dedup();
        let encoded = secrets.iter().flat_map(|secret| encodings(secret)).collect();
        if problems.is_empty() { Ok(Self { headers, secrets, encoded }) } else { Err(problems) }
    }

    /// Whether the host sets this header, or keeps it from plugins because it would hide a secret in what comes back: in
    /// something compressed, or in pieces.
    pub(super) fn sets(&self, name: &HeaderName) -> bool {
        self.headers.contains_key(name) || !self.secrets.is_empty() && [ACCEPT_ENCODING, RANGE].contains(name)
    }

    /// Adds them to a request.
    pub(super) fn add_to(&self, headers: &mut HeaderMap) {
        headers.extend(self.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    }

    /// Writes asterisks over every secret: a server may echo what it was sent. The length stays.
    pub(super) fn hide_in(&self, bytes: &mut [u8]) {
        let mut found: Vec<Range<usize>> = Vec::new();
        for secret in &self.secrets {
            found.extend((0..bytes.len()).filter_map(|at| Some(at..at + spelled(&bytes[at..], secret)?)));
        }
        let is_digit =
            |at: usize| bytes.get(at).is_some_and(|byte| byte.is_ascii_alphanumeric() || b"+/-_".contains(byte));
        for Encoded { text, before, after } in &self.encoded {
            found.extend(memmem::find_iter(bytes, text).map(|at| {
                let end = at + text.len();
                let start = if *before && at > 0 && is_digit(at - 1) { at - 1 } else { at };
                start..if *after && is_digit(end) { end + 1 } else { end }
            }));
        }
        found.into_iter().for_each(|range| bytes[range].fill(b'*'));
    }
}

/// How much of a text's beginning is a secret: byte by byte, in upper or lower case, each as it is, as in a URL (`%2F`, `+`),
/// or as in JSON (`\\/`, `\\u002f`).
fn spelled(text: &[u8], secret: &[u8]) -> Option<usize> {
    let starts = |byte: u8| byte.eq_ignore_ascii_case(&secret[0]) || b"%\\+".contains(&byte);
    if !text.first().copied().is_some_and(starts) {
        return None;
    }
    // A `%` may stand for itself or begin an escape, so there may be two ways on.
    let mut ends = vec![0];
    for byte in secret {
        let mut next = Vec::new();
        for end in ends {
            let rest = &text[end..];
            let hex = |digits: &[u8]| {
                let mut value = [0];
                hex::decode_to_slice(digits, &mut value).is_ok_and(|()| value[0].eq_ignore_ascii_case(byte))
            };
            next.extend(match rest {
                [first, ..] if first.eq_ignore_ascii_case(byte) => Some(end + 1),
                [b'+', ..] if *byte == b' ' => Some(end + 1),
                _ => None,
            });
            next.extend(match rest {
                [b'%', high, low, ..] if hex(&[*high, *low]) => Some(end + 3),
                [b'\\', b'u', b'0', b'0', high, low, ..] if hex(&[*high, *low]) => Some(end + 6),
                [b'\\', second, ..] if second == byte && b"\"\\/".contains(byte) => Some(end + 2),
                _ => None,
            });
        }
        ends = next;
        if ends.is_empty() {
            return None;
        }
    }
    ends.into_iter().max()
}

/// A secret as hexadecimal digits, and as what Base64 makes of it, in both alphabets, wherever it stands in what is encoded.
fn encodings(secret: &[u8]) -> Vec<Encoded> {
    let whole = |text: String| Encoded { text: text.into_bytes(), before: false, after: false };
    let mut encodings = vec![whole(hex::encode(secret)), whole(hex::encode_upper(secret))];
    for offset in 0..3 {
        let bytes = [&[0; 2][..offset.min(2)], secret].concat();
        // Six bits a character: those that hold bits of the secret only.
        let (first, end) = ((8 * offset).div_ceil(6), 8 * bytes.len() / 6);
        let (before, after) = (offset > 0, 8 * bytes.len() % 6 > 0);
        for text in [STANDARD_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)] {
            encodings.push(Encoded { text: text.as_bytes()[first..end].to_vec(), before, after });
        }
    }
    encodings
}

/// Headers that belong to a connection and not to what it carries (RFC 9110, section 7.6.1), and those that say where a
/// message goes and where it ends.
pub(super) fn is_reserved(name: &HeaderName) -> bool {
    [CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE].contains(name)
        || matches!(name.as_str(), "keep-alive" | "http2-settings")
        || name.as_str().starts_with("proxy-")
}

/// What of a header's value is secret: the whole, its parts (`Bearer` and the token), and user and password of `Basic`.
fn parts(value: &str) -> Vec<Vec<u8>> {
    let mut parts: Vec<Vec<u8>> =
        std::iter::once(value).chain(value.split_ascii_whitespace()).map(|part| part.as_bytes().to_vec()).collect();
    if let Some((scheme, token)) = value.trim().split_once(' ')
        && scheme.eq_ignore_ascii_case("basic")
        && let Ok(pair) = STANDARD.decode(token.trim())
    {
        parts.extend(pair.splitn(2, |byte| *byte == b':').nth(1).map(<[u8]>::to_vec));
        parts.push(pair);
    }
    parts.retain(|part| part.len() >= SHORTEST_SECRET);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(headers: &[(&str, &str)]) -> Result<Credentials, Vec<String>> {
        Credentials::new(&headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>())
    }

    fn hidden(credentials: &Credentials, text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        credentials.hide_in(&mut bytes);
        assert_eq!(bytes.len(), text.len(), "the length stays");
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_secret_is_hidden_whole_in_parts_and_however_it_is_escaped() {
        let credentials =
            credentials(&[("Key", "s3cret-\"key\"/%+ x"), ("Authorization", "Bearer token-token"), ("Accept", "a/b")])
                .unwrap();
        for text in [
            "s3cret-\"key\"/%+ x",
            "S3CRET-\"KEY\"/%+ X",
            "s3cret-\\\"key\\\"\\/%+ x",
            "s3cret-\\u0022key\\u0022\\u002f\\u0025\\u002B\\u0020x",
            "s3cret-%22key%22%2F%25%2B+x",
            "%73%33cret%2d%22key%22%2f%25%2B%20x",
            "7333637265742d226b6579222f252b2078",
            "7333637265742D226B6579222F252B2078",
        ] {
            let shown = hidden(&credentials, &format!("<{text}>"));
            assert!(shown[1..shown.len() - 1].bytes().all(|byte| byte == b'*'), "{text}: {shown}");
            assert!(shown.starts_with('<') && shown.ends_with('>'), "{shown}");
        }
        let text = hidden(&credentials, "token-token Bearer token-token Bearer%20token%2Dtoken a/b 100% token-");
        assert_eq!(text, "*********** ****************** ********************** a/b 100% token-");
    }

    #[test]
    fn a_secret_is_hidden_wherever_it_stands_in_base64() {
        let secret = "p\u{e4}ss>>>w\u{f6}rd???";
        let credentials = Credentials::new(&[("Key".to_owned(), secret.to_owned())]).unwrap();
        for before in 0..7 {
            for after in 0..4 {
                let echo = [&vec![b'x'; before], secret.as_bytes(), &vec![b'y'; after]].concat();
                for text in [STANDARD.encode(&echo), STANDARD_NO_PAD.encode(&echo), URL_SAFE_NO_PAD.encode(&echo)] {
                    let shown = hidden(&credentials, &text);
                    // Nothing of it is left to decode: what is shown holds bits of its neighbours only.
                    let shown_bits = shown.bytes().filter(|byte| !b"*=".contains(byte)).count() * 6;
                    assert!(shown_bits <= (before + after) * 8, "{before} {after} {shown}");
                    assert!(shown.contains(&"*".repeat(secret.len() * 8 / 6)), "{before} {after} {shown}");
                }
            }
        }
    }

    #[test]
    fn user_and_password_are_hidden_though_they_are_sent_encoded() {
        let value = format!("Basic {}", STANDARD.encode("robot:hunter2-hunter2"));
        let credentials = credentials(&[("Authorization", &value)]).unwrap();
        assert_eq!(hidden(&credentials, "you are robot:hunter2-hunter2"), "you are *********************");
        assert_eq!(hidden(&credentials, "password=hunter2-hunter2"), "password=***************");
        assert!(!hidden(&credentials, &value).contains("cm9ib3Q6"));
    }

    #[test]
    fn what_would_hide_a_secret_in_a_response_cannot_be_asked_for() {
        let with = credentials(&[("Key", "hunter2-hunter2")]).unwrap();
        let without = credentials(&[("Accept", "a/b")]).unwrap();
        for name in [ACCEPT_ENCODING, RANGE] {
            assert!(with.sets(&name) && !without.sets(&name));
        }
    }

    #[test]
    fn headers_that_cannot_be_sent_are_named_without_their_values() {
        let problems = credentials(&[
            ("two words", "hunter2-hunter2"),
            ("Key", "hunter2\nhunter2"),
            ("Host", "hunter2-hunter2"),
            ("Empty", " "),
        ])
        .err()
        .unwrap();
        assert_eq!(problems.len(), 4);
        assert!(problems.iter().all(|problem| !problem.contains("hunter2")), "{problems:?}");
        assert!(problems[0].contains("two words") && problems[3].contains("is its variable set?"), "{problems:?}");
    }
}
