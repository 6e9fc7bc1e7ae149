//! A cache that several hosts share: what it must do, and how a response is written there.
//!
//! It holds responses after the credentials were taken out of them, under keys that were made without any. Where it is
//! kept is not known here, and whether it works is no condition for anything: what it does not have is asked for.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Key, Response};

/// The longest entry, in bytes. A larger answer is kept by the host that asked for it.
pub const MAX_ENTRY: usize = 256 << 10;

/// The number of this shape; others are passed over.
const SHAPE: u32 = 1;

/// Where hosts share answers. Both calls come back within a fraction of a second, whatever the server does.
#[async_trait]
pub trait SharedAnswers: Send + Sync {
    /// An entry of at most [`MAX_ENTRY`] bytes and how long it still lives; none where there is none or nobody can say.
    async fn get(&self, key: &Key) -> Option<(Bytes, Duration)>;

    /// Keeps an entry for so long, if that can be done.
    async fn put(&self, key: &Key, entry: Bytes, life: Duration);
}

/// Everything but the body, which follows after a line break.
#[derive(Serialize, Deserialize)]
struct Head {
    shape: u32,
    status: u16,
    headers: Vec<(String, String)>,
}

/// A response as an entry; none when it is too long for one.
pub(super) fn write(response: &Response) -> Option<Bytes> {
    let head = Head { shape: SHAPE, status: response.status, headers: response.headers.clone() };
    let mut entry = serde_json::to_vec(&head).ok()?;
    entry.push(b'\n');
    entry.extend_from_slice(&response.body);
    (entry.len() <= MAX_ENTRY).then(|| entry.into())
}

/// The response of an entry; none when it is not one that this host would have taken from the interface.
pub(super) fn read(entry: &[u8], max_response: usize) -> Option<Response> {
    let end = memchr::memchr(b'\n', entry)?;
    let head: Head = serde_json::from_slice(&entry[..end]).ok()?;
    let body = &entry[end + 1..];
    let bounded = body.len() <= max_response && super::api::headers_fit(&head.headers);
    (head.shape == SHAPE && bounded).then(|| Response {
        status: head.status,
        headers: head.headers,
        body: body.to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(body: Vec<u8>) -> Response {
        Response { status: 200, headers: vec![("etag".into(), "\"a\nb\"".into())], body }
    }

    #[test]
    fn a_response_is_read_as_it_was_written_whatever_bytes_it_has() {
        let response = response(b"\n\xff\0{}\n".to_vec());
        assert_eq!(read(&write(&response).unwrap(), 100), Some(response));
    }

    #[test]
    fn the_length_of_an_entry_is_obeyed_and_violated() {
        let head = write(&response(Vec::new())).unwrap().len();
        assert!(write(&response(vec![0; MAX_ENTRY - head])).is_some());
        assert!(write(&response(vec![0; MAX_ENTRY - head + 1])).is_none());
    }

    #[test]
    fn what_this_host_would_not_have_taken_is_passed_over() {
        let entry = write(&response(vec![0; 100])).unwrap();
        assert!(read(&entry, 100).is_some());
        assert!(read(&entry, 99).is_none());
        let other = String::from_utf8(entry.to_vec()).unwrap().replace("\"shape\":1", "\"shape\":2");
        assert!(read(other.as_bytes(), 100).is_none());
        for nonsense in ["", "\n", "{}\n", "no line break"] {
            assert!(read(nonsense.as_bytes(), 100).is_none(), "{nonsense:?}");
        }
    }
}
