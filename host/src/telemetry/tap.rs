//! Taps: somebody looks on while alerts are stored, or while a step is called. Whoever looks on is never waited for: what does
//! not fit is left out and counted, and a tap that nobody empties is closed. While nobody looks on, it costs one look at a number.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::record::Label;

/// How many may look on at once.
pub const TAPS: usize = 4;

/// What waits for one of them at most: lines, and bytes.
const LINES: usize = 1024;
const BYTES: usize = 4 << 20;

/// How many lines one of them is given in a second: more than anybody reads, and little to make.
const RATE: u32 = 1000;

/// How long a tap may stay full before it is closed.
const STUCK: Duration = Duration::from_secs(30);

/// How long nothing happens before an empty line tells the other end that somebody is there.
const QUIET: Duration = Duration::from_secs(10);

/// What somebody wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Records as they are stored, or those with this verdict.
    Records(Option<Label>),
    /// What this step is given, and what it gives.
    Step(String),
}

/// Everybody who looks on.
#[derive(Debug, Default)]
pub struct Taps {
    /// How many there are; read before anything else.
    open: AtomicUsize,
    taps: Mutex<Vec<Arc<Tap>>>,
}

/// One who looks on.
#[derive(Debug)]
struct Tap {
    wanted: Wanted,
    waiting: Mutex<Waiting>,
    filled: Notify,
    /// Cancelled when nobody empties it.
    stuck: CancellationToken,
}

/// What waits to be read.
#[derive(Debug)]
struct Waiting {
    lines: VecDeque<Bytes>,
    bytes: usize,
    /// What was left out since the last line.
    lost: u64,
    /// How many more lines are wanted, if that is bounded.
    left: Option<u64>,
    /// The second that is counted, and the lines in it.
    second: (Instant, u32),
    full_since: Option<Instant>,
    closed: bool,
}

/// The reading end; the tap is gone when it is dropped.
#[derive(Debug)]
pub struct Reader {
    taps: Arc<Taps>,
    tap: Arc<Tap>,
}

impl Taps {
    /// Begins to look on; none when [`TAPS`] do already. It ends after `limit` lines.
    pub fn open(self: &Arc<Self>, wanted: Wanted, limit: Option<u64>) -> Option<Reader> {
        let mut taps = self.taps.lock().unwrap_or_else(PoisonError::into_inner);
        if taps.len() >= TAPS {
            return None;
        }
        let waiting = Waiting {
            lines: VecDeque::new(),
            bytes: 0,
            lost: 0,
            left: limit,
            second: (Instant::now(), 0),
            full_since: None,
            closed: limit == Some(0),
        };
        let tap = Arc::new(Tap {
            wanted,
            waiting: Mutex::new(waiting),
            filled: Notify::new(),
            stuck: CancellationToken::new(),
        });
        taps.push(Arc::clone(&tap));
        self.open.store(taps.len(), Ordering::Relaxed);
        Some(Reader { taps: Arc::clone(self), tap })
    }

    /// Whether anybody looks on.
    pub fn any(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    /// Offers a line to all who want it; it is made once, and only when somebody has room for it.
    pub fn offer(&self, wants: impl Fn(&Wanted) -> bool, line: impl FnOnce() -> Vec<u8>) {
        let taps = self.taps.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let takers: Vec<_> = taps.iter().filter(|tap| wants(&tap.wanted) && tap.takes()).collect();
        if takers.is_empty() {
            return;
        }
        let mut line = line();
        // An alert is stored as it came. Between the tokens of JSON a line feed is as good as a space, and within them there is none.
        line.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
        line.push(b'\n');
        let line = Bytes::from(line);
        takers.iter().for_each(|tap| tap.push(line.clone()));
    }

    fn close(&self, tap: &Arc<Tap>) {
        let mut taps = self.taps.lock().unwrap_or_else(PoisonError::into_inner);
        taps.retain(|other| !Arc::ptr_eq(other, tap));
        self.open.store(taps.len(), Ordering::Relaxed);
    }
}

impl Tap {
    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it has room for one more line; counts it as lost where it has not.
    fn takes(&self) -> bool {
        let now = Instant::now();
        let mut waiting = self.waiting();
        if waiting.closed || waiting.left == Some(0) {
            return false;
        }
        if now.duration_since(waiting.second.0) >= Duration::from_secs(1) {
            waiting.second = (now, 0);
        }
        if waiting.lines.len() >= LINES || waiting.bytes >= BYTES {
            self.lose(&mut waiting, now);
            return false;
        }
        if waiting.second.1 >= RATE {
            waiting.lost += 1;
            // Who waits for the next line learns that there are others.
            self.filled.notify_one();
            return false;
        }
        waiting.second.1 += 1;
        true
    }

    /// Leaves a line out for want of room.
    fn lose(&self, waiting: &mut Waiting, now: Instant) {
        waiting.lost += 1;
        // One line that is larger than all the room there is says nothing of the reader.
        let since = *waiting.full_since.get_or_insert(now);
        if now.duration_since(since) >= STUCK && !waiting.lines.is_empty() {
            waiting.closed = true;
            self.stuck.cancel();
        }
        self.filled.notify_one();
    }

    fn push(&self, line: Bytes) {
        let mut waiting = self.waiting();
        // Others may have filled it while the line was made.
        if waiting.left == Some(0) {
            return;
        }
        if waiting.bytes + line.len() > BYTES {
            return self.lose(&mut waiting, Instant::now());
        }
        if waiting.lost > 0 {
            let lost = lost(std::mem::take(&mut waiting.lost));
            waiting.bytes += lost.len();
            waiting.lines.push_back(lost);
        }
        waiting.bytes += line.len();
        waiting.lines.push_back(line);
        if let Some(left) = &mut waiting.left {
            *left -= 1;
            waiting.closed = *left == 0;
        }
        drop(waiting);
        self.filled.notify_one();
    }
}

/// The line that says how many were left out.
pub(crate) fn lost(count: u64) -> Bytes {
    format!("{{\"lost\":{count}}}\n").into()
}

impl Reader {
    /// The next line, with its line feed; an empty one now and then when nothing happens, and none at the end. Cancel safe.
    pub async fn next(&self) -> Option<Bytes> {
        loop {
            {
                let mut waiting = self.tap.waiting();
                waiting.full_since = None;
                if let Some(line) = waiting.lines.pop_front() {
                    waiting.bytes -= line.len();
                    return Some(line);
                }
                if waiting.lost > 0 {
                    return Some(lost(std::mem::take(&mut waiting.lost)));
                }
                if waiting.closed {
                    return None;
                }
            }
            if tokio::time::timeout(QUIET, self.tap.filled.notified()).await.is_err() {
                return Some(Bytes::from_static(b"\n"));
            }
        }
    }

    /// Says when it is closed because nobody empties it.
    pub fn stuck(&self) -> CancellationToken {
        self.tap.stuck.clone()
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.taps.close(&self.tap);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(_: &Wanted) -> bool {
        true
    }

    #[tokio::test]
    async fn a_line_reaches_those_who_want_it_and_nobody_else() {
        let taps = Arc::new(Taps::default());
        assert!(!taps.any());
        let malicious = taps.open(Wanted::Records(Some(Label::Malicious)), None).unwrap();
        let geo = taps.open(Wanted::Step("geo".into()), Some(1)).unwrap();
        assert!(taps.any());
        taps.offer(|wanted| *wanted == Wanted::Step("geo".into()), || b"{}".to_vec());
        taps.offer(all, || b"[]".to_vec());
        assert_eq!(geo.next().await.as_deref(), Some(&b"{}\n"[..]));
        assert_eq!(geo.next().await, None, "one was wanted");
        assert_eq!(malicious.next().await.as_deref(), Some(&b"[]\n"[..]));
        drop((geo, malicious));
        assert!(!taps.any());
    }

    #[tokio::test]
    async fn who_reads_slowly_loses_lines_in_their_place_and_is_told_how_many() {
        let taps = Arc::new(Taps::default());
        let reader = taps.open(Wanted::Records(None), None).unwrap();
        let large = vec![b'x'; BYTES / 4 - 1];
        for _ in 0..10 {
            taps.offer(all, || large.clone());
        }
        for _ in 0..4 {
            assert_eq!(reader.next().await.map(|line| line.len()), Some(BYTES / 4));
        }
        taps.offer(all, || b"after".to_vec());
        assert_eq!(reader.next().await.as_deref(), Some(&b"{\"lost\":6}\n"[..]));
        assert_eq!(reader.next().await.as_deref(), Some(&b"after\n"[..]));
        taps.offer(all, || vec![b'x'; BYTES + 1]);
        assert_eq!(reader.next().await.as_deref(), Some(&b"{\"lost\":1}\n"[..]), "one that never fits");
    }

    #[tokio::test]
    async fn no_more_lines_are_made_in_a_second_than_the_rate_allows() {
        let taps = Arc::new(Taps::default());
        let reader = taps.open(Wanted::Records(None), None).unwrap();
        let mut made = 0;
        let begun = Instant::now();
        for _ in 0..5 * RATE {
            taps.offer(all, || {
                made += 1;
                Vec::new()
            });
            if reader.next().await.is_some_and(|line| line.starts_with(b"{")) {
                break;
            }
        }
        assert!(made == RATE || begun.elapsed() > Duration::from_secs(1), "{made}");
    }

    #[test]
    fn only_so_many_look_on_and_a_tap_that_nobody_empties_is_closed() {
        let taps = Arc::new(Taps::default());
        let readers: Vec<_> = (0..TAPS).map(|_| taps.open(Wanted::Records(None), None).unwrap()).collect();
        assert!(taps.open(Wanted::Records(None), None).is_none());
        for reader in &readers {
            let mut waiting = reader.tap.waiting();
            waiting.lines.push_back(Bytes::new());
            (waiting.bytes, waiting.full_since) = (BYTES, Instant::now().checked_sub(STUCK));
        }
        taps.offer(all, || unreachable!("nobody has room"));
        assert!(readers.iter().all(|reader| reader.stuck().is_cancelled()));
        drop(readers);
        assert!(taps.open(Wanted::Records(None), None).is_some());
    }
}
