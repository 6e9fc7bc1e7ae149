//! Finds alerts in `pending` and takes them. Does not wait: whoever calls decides when to look again.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, ReadDir};
use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use jiff::Timestamp;

use super::super::{Body, Delivery, QueueError};
use super::again::Mark;
use super::files::{self, Stamp};
use super::folders::Folders;
use super::lock::{self, Found, Lock};
use super::taken::AllTaken;
use crate::dead_letter::Reason;
use crate::dead_letter::history::History;
use crate::telemetry::Telemetry;
use crate::telemetry::events::{AlertsClaimed, EntrySkipped, HistoryIgnored};

/// How long a file that is not (yet) an alert may lie there unchanged before it is taken for what it is: people `cp`
/// files in.
const SETTLE: Duration = Duration::from_secs(2);

/// How often to look for what dead hosts left.
const LOOK_FOR_SUSPECTS: Duration = Duration::from_secs(1);

/// How many bytes of alerts one batch holds, but for the last one: it bounds the memory.
const BATCH_BYTES: usize = 16 << 20;

/// How many names are read ahead and shuffled, so that hosts that share a folder do not all try the same file.
const AHEAD: usize = 1024;

/// Where this host is in its way through `pending`.
pub(super) struct Reader {
    folders: Arc<Folders>,
    all: Arc<AllTaken>,
    telemetry: Arc<Telemetry>,
    max_alert_size: u64,
    max_crashes: u32,
    /// A listing that is walked on from batch to batch, so that a large folder is not listed for each.
    listing: Option<ReadDir>,
    ahead: Vec<OsString>,
    suspects: Vec<OsString>,
    looked: Option<Instant>,
    /// Files that are no alerts yet: what they were when they were first seen so, and when.
    unsettled: HashMap<OsString, (Stamp, Instant)>,
    /// Files that were complained about: once is enough.
    skipped: HashSet<OsString>,
}

/// What was found under a name.
enum Seen {
    Delivery(Box<Delivery>, usize),
    Suspect,
    Nothing,
}

impl Reader {
    pub(super) fn new(
        folders: Arc<Folders>,
        all: Arc<AllTaken>,
        telemetry: Arc<Telemetry>,
        max_alert_size: usize,
        max_crashes: u32,
    ) -> Self {
        Self {
            folders,
            all,
            telemetry,
            max_alert_size: max_alert_size as u64,
            max_crashes,
            listing: None,
            ahead: Vec::new(),
            suspects: Vec::new(),
            looked: None,
            unsettled: HashMap::new(),
            skipped: HashSet::new(),
        }
    }

    /// Takes what can be had now: suspects, or else others.
    pub(super) fn take(&mut self, max: usize) -> Result<Vec<Delivery>, QueueError> {
        self.look_for_suspects()?;
        let taken = self.take_suspects(max)?;
        if !taken.is_empty() {
            return Ok(taken);
        }
        let taken = self.take_fresh(max)?;
        if taken.is_empty() { self.take_suspects(max) } else { Ok(taken) }
    }

    fn take_suspects(&mut self, max: usize) -> Result<Vec<Delivery>, QueueError> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        while taken.len() < max && bytes < BATCH_BYTES {
            let Some(name) = self.suspects.pop() else { break };
            match self.take_one(&name, true) {
                Ok(Seen::Delivery(delivery, size)) => {
                    bytes += size;
                    taken.push(*delivery);
                }
                Ok(_) => {}
                Err(error) => return self.enough(taken, error),
            }
        }
        if !taken.is_empty() {
            self.telemetry.emit(&AlertsClaimed { count: taken.len(), from: "a host that died" });
        }
        Ok(taken)
    }

    fn take_fresh(&mut self, max: usize) -> Result<Vec<Delivery>, QueueError> {
        let mut taken = Vec::new();
        let mut bytes = 0;
        let mut may_list = true;
        while taken.len() < max && bytes < BATCH_BYTES {
            let name = match self.next_name(&mut may_list) {
                Ok(Some(name)) => name,
                Ok(None) => break,
                Err(error) => return self.enough(taken, error),
            };
            match self.take_one(&name, false) {
                Ok(Seen::Delivery(delivery, size)) => {
                    bytes += size;
                    taken.push(*delivery);
                }
                Ok(Seen::Suspect) => self.suspects.push(name),
                Ok(Seen::Nothing) => {}
                Err(error) => return self.enough(taken, error),
            }
        }
        Ok(taken)
    }

    /// An error takes nothing away from what was taken before it; it comes again next time.
    fn enough(&self, taken: Vec<Delivery>, error: io::Error) -> Result<Vec<Delivery>, QueueError> {
        if taken.is_empty() { Err(files::unavailable("take alerts in", &self.folders.root, &error)) } else { Ok(taken) }
    }

    /// The next name in `pending`; none at the end of the second listing that this call began.
    fn next_name(&mut self, may_list: &mut bool) -> io::Result<Option<OsString>> {
        loop {
            if let Some(name) = self.ahead.pop() {
                return Ok(Some(name));
            }
            let Some(listing) = &mut self.listing else {
                if !std::mem::take(may_list) {
                    return Ok(None);
                }
                self.unsettled.retain(|_, (_, since)| since.elapsed() < 10 * SETTLE);
                self.listing = Some(fs::read_dir(&self.folders.pending)?);
                continue;
            };
            let mut at_end = true;
            for entry in listing.take(AHEAD) {
                let entry = entry?;
                at_end = false;
                let name = entry.file_name();
                if files::hidden(&name) {
                    continue;
                }
                let kind = entry.file_type()?;
                if kind.is_file() {
                    self.ahead.push(name);
                } else if !kind.is_dir() {
                    skip(&mut self.skipped, &self.telemetry, &name, "it is no plain file: copy the file itself in");
                }
            }
            if at_end {
                self.listing = None;
            }
            fastrand::shuffle(&mut self.ahead);
        }
    }

    /// Files that were complained about and still lie there.
    pub(super) fn stuck(&self) -> io::Result<Vec<String>> {
        let mut stuck = Vec::new();
        for name in &self.skipped {
            let data = files::present(fs::symlink_metadata(self.folders.pending.join(name)))?;
            if data.is_some_and(|data| data.is_file()) {
                stuck.push(name.to_string_lossy().into_owned());
            }
        }
        stuck.sort();
        Ok(stuck)
    }

    /// Looks for the locks that dead hosts left, now and then.
    fn look_for_suspects(&mut self) -> Result<(), QueueError> {
        if self.looked.is_some_and(|then| then.elapsed() < LOOK_FOR_SUSPECTS) {
            return Ok(());
        }
        self.find_suspects().map_err(|error| files::unavailable("read", &self.folders.state, &error))?;
        self.looked = Some(Instant::now());
        Ok(())
    }

    fn find_suspects(&mut self) -> io::Result<()> {
        self.suspects.clear();
        for entry in files::visible(&self.folders.state)? {
            let entry = entry?;
            let Some(name) = lock::alert_name(&entry.file_name(), &self.folders.pending)? else { continue };
            if lock::look(&entry.path(), &self.folders.pending.join(&name))? == Found::Suspect {
                self.suspects.push(name);
            }
        }
        fastrand::shuffle(&mut self.suspects);
        Ok(())
    }

    /// Takes one alert, if it is there, settled, and nobody has it.
    fn take_one(&mut self, name: &OsStr, suspects: bool) -> io::Result<Seen> {
        let path = self.folders.pending.join(name);
        if let Some((stamp, since)) = self.unsettled.get(name)
            && since.elapsed() < SETTLE
            && files::stamp(&path)?.as_ref() == Some(stamp)
        {
            return Ok(Seen::Nothing);
        }
        let Some(lock) = Lock::take(self.folders.lock(name), Timestamp::now())? else { return Ok(Seen::Nothing) };
        if lock.prior.is_some() && !suspects {
            lock.release();
            return Ok(Seen::Suspect);
        }
        // From here on the lock must not simply be dropped: that would make a suspect of the alert.
        match self.read(name, lock.prior.is_some().then_some(lock.note.accused)) {
            Ok(Some((body, data))) => Ok(self.deliver(name, lock, body, &data)),
            Ok(None) => {
                lock.release();
                Ok(Seen::Nothing)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                lock.remove()?;
                Ok(Seen::Nothing)
            }
            Err(error) => {
                lock.release();
                // One file that cannot be read must not stop the others; a host that has too many open must stop.
                if matches!(
                    rustix::io::Errno::from_io_error(&error),
                    Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE | rustix::io::Errno::NOMEM)
                ) {
                    return Err(error);
                }
                skip(&mut self.skipped, &self.telemetry, name, &format!("it cannot be read: {error}"));
                Ok(Seen::Nothing)
            }
        }
    }

    /// Reads a file; none when it may still grow.
    fn read(&mut self, name: &OsStr, accused: Option<u32>) -> io::Result<Option<(Body, Metadata)>> {
        let (file, data) = files::open_plain(&self.folders.pending.join(name))?;
        let body = self.body(&file, &data, accused)?;
        let old = SystemTime::now().duration_since(data.modified()?).is_ok_and(|age| age >= SETTLE);
        let whole = || match &body {
            Body::Alert(bytes) => serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok(),
            Body::Refused { reason, .. } => *reason != Reason::TooLarge,
        };
        if old || whole() || self.settled(name, &data) {
            self.unsettled.remove(name);
            return Ok(Some((body, data)));
        }
        Ok(None)
    }

    fn body(&self, file: &File, data: &Metadata, accused: Option<u32>) -> io::Result<Body> {
        if let Some(crashes) = accused.filter(|&crashes| crashes >= self.max_crashes.max(1)) {
            let detail = format!("the process that ran nothing but this alert died {crashes} times");
            return Ok(Body::Refused { reason: Reason::HostCrash, detail });
        }
        let limit = self.max_alert_size;
        let mut bytes = Vec::new();
        if data.len() <= limit {
            bytes.reserve_exact(usize::try_from(data.len()).unwrap_or_default());
            file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
        }
        let size = data.len().max(bytes.len() as u64);
        if size > limit {
            let detail = format!("{size} bytes are more than max_alert_size = {limit} in [queue]");
            return Ok(Body::Refused { reason: Reason::TooLarge, detail });
        }
        Ok(Body::Alert(Bytes::from(bytes)))
    }

    /// Whether a file that is no alert has stayed as it is for long enough. Counts how long this host has seen it so,
    /// because its own time may lie in the future.
    fn settled(&mut self, name: &OsStr, data: &Metadata) -> bool {
        let stamp = Stamp::from(data);
        let (seen, since) = self.unsettled.entry(name.to_owned()).or_insert_with(|| (stamp, Instant::now()));
        if *seen != stamp {
            (*seen, *since) = (stamp, Instant::now());
        }
        since.elapsed() >= SETTLE
    }

    fn deliver(&mut self, name: &OsStr, lock: Lock, body: Body, data: &Metadata) -> Seen {
        self.skipped.remove(name);
        let was_dead = self.folders.earlier_letter(name);
        let letter = match &was_dead {
            Some((_, Ok(letter))) => Some(letter),
            Some((key, Err(why))) => {
                let why = format!("{key}.reason cannot be read: {why}");
                self.telemetry.emit(&HistoryIgnored { entry: &name.to_string_lossy(), why: &why });
                None
            }
            None => None,
        };
        let mark = self.folders.replaced_by(name).and_then(|mark| match mark {
            Ok(mark) => Some(mark),
            Err(why) => {
                let why = format!("what it replaces cannot be read: {why}");
                self.telemetry.emit(&HistoryIgnored { entry: &name.to_string_lossy(), why: &why });
                None
            }
        });
        let size = if let Body::Alert(bytes) = &body { bytes.len() } else { 0 };
        let earlier = letter.map(|letter| letter.first_seen).or(mark.as_ref().map(|mark| mark.first_seen));
        let seen = [lock.prior.map(|prior| prior.first_seen), earlier];
        let replaces = mark.as_ref().map(Mark::replaces);
        let (attempts, history) = match (letter, mark) {
            (Some(letter), _) => (letter.attempts, letter.told()),
            (None, Some(mark)) => (mark.attempts, mark.history),
            (None, None) => (0, History::default()),
        };
        let mut delivery = Delivery {
            traceparent: None,
            body,
            entry: name.to_string_lossy().into_owned(),
            deliveries: lock.note.deliveries,
            attempts,
            history,
            replaces,
            first_seen: seen.into_iter().flatten().min(),
            waited: files::since(data).elapsed().unwrap_or_default(),
            suspect: lock.prior.is_some(),
            receipt: Box::new(()),
        };
        let was_dead = was_dead.map(|(key, _)| key);
        delivery.receipt = Box::new(self.all.add(name.to_owned(), Stamp::from(data), was_dead, lock));
        Seen::Delivery(Box::new(delivery), size)
    }
}

/// Complains about a file once.
fn skip(skipped: &mut HashSet<OsString>, telemetry: &Telemetry, name: &OsStr, why: &str) {
    // A bound, so that nobody can fill the memory with names; then a complaint comes twice.
    if skipped.len() >= 10_000 {
        skipped.clear();
    }
    if skipped.insert(name.to_owned()) {
        telemetry.emit(&EntrySkipped { entry: &name.to_string_lossy(), why });
    }
}
