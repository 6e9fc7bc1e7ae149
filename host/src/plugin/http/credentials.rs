//! The headers that the host adds, and how they are kept from plugins.

use memchr::memmem;
use reqwest::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue};
use reqwest::header::{TE, TRAILER, TRANSFER_ENCODING, UPGRADE};

/// A shorter value is no secret, and would be found everywhere.
const SHORTEST_SECRET: usize = 8;

/// The headers of one interface.
pub(super) struct Credentials {
    headers: HeaderMap,
    /// What no response may show, the longest first.
    secrets: Vec<Vec<u8>>,
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
                    secrets.extend(spellings(text));
                }
                Err(_) => problems.push(format!(
                    "the header {parsed} has a value that HTTP does not allow; is there a line break in its variable?"
                )),
            }
        }
        secrets.sort_unstable_by_key(|secret: &Vec<u8>| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        if problems.is_empty() { Ok(Self { headers, secrets }) } else { Err(problems) }
    }

    /// Whether the host sets this header.
    pub(super) fn sets(&self, name: &HeaderName) -> bool {
        self.headers.contains_key(name)
    }

    /// Adds them to a request.
    pub(super) fn add_to(&self, headers: &mut HeaderMap) {
        headers.extend(self.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    }

    /// Writes asterisks over every secret: a server may echo what it was sent. The length stays.
    pub(super) fn hide_in(&self, bytes: &mut [u8]) {
        for secret in &self.secrets {
            let found: Vec<usize> = memmem::find_iter(bytes, secret).collect();
            for at in found {
                bytes[at..at + secret.len()].fill(b'*');
            }
        }
    }
}

/// Headers that belong to a connection and not to what it carries (RFC 9110, section 7.6.1), and those that say where a
/// message goes and where it ends.
pub(super) fn is_reserved(name: &HeaderName) -> bool {
    [CONNECTION, CONTENT_LENGTH, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE].contains(name)
        || matches!(name.as_str(), "keep-alive" | "http2-settings")
        || name.as_str().starts_with("proxy-")
}

/// How a value may come back: whole, in its parts (`Bearer` and the token), and each of these as JSON writes it.
fn spellings(value: &str) -> Vec<Vec<u8>> {
    let mut spellings = Vec::new();
    for part in std::iter::once(value).chain(value.split_ascii_whitespace()) {
        let quoted = serde_json::Value::from(part).to_string();
        for text in [part, &quoted[1..quoted.len() - 1]] {
            if text.len() >= SHORTEST_SECRET {
                spellings.push(text.as_bytes().to_vec());
            }
        }
    }
    spellings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(headers: &[(&str, &str)]) -> Result<Credentials, Vec<String>> {
        Credentials::new(&headers.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect::<Vec<_>>())
    }

    #[test]
    fn a_secret_is_hidden_whole_in_parts_and_as_json_writes_it() {
        let credentials =
            credentials(&[("Key", "s3cret-\"key\""), ("Authorization", "Bearer token-token"), ("Accept", "a/b")])
                .unwrap();
        let mut bytes = b"x s3cret-\"key\" y s3cret-\\\"key\\\" z token-token Bearer token-token a/b".to_vec();
        let length = bytes.len();
        credentials.hide_in(&mut bytes);
        assert_eq!(bytes.len(), length);
        let text = String::from_utf8(bytes).unwrap();
        assert!(!text.contains("s3cret") && !text.contains("token"), "{text}");
        assert!(text.ends_with("a/b"), "what is short is no secret: {text}");
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
