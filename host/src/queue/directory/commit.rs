//! Commits: what becomes of an alert is put where it belongs and is on the disk before its file in `pending` goes.
//!
//! One batch goes through in steps, so that the disk is asked to wait once for all: write, sync, place, sync the folders,
//! remove. Every alert's own [`Phase`] says how far it came, so that a commit that failed half-way is simply done again.

use std::io::{self, Read};
use std::path::Path;
use std::sync::{Arc, MutexGuard};

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::super::{Committed, Outcome, QueueError, Replaces, Settled};
use super::again::Standing;
use super::files::{self, Unfinished};
use super::folders::Folders;
use super::numbered;
use super::taken::{Phase, Taken};
use crate::alert;
use crate::dead_letter::DeadLetter;
use crate::record::Record;

/// One alert to commit: cheap to clone out of a [`Settled`], so that it can go to another thread.
pub(super) struct Job {
    taken: Arc<Taken>,
    /// The alert's bytes, when they were read.
    bytes: Option<Bytes>,
    outcome: Outcome,
    /// The record that it is to take the place of, if it was sent to be enriched anew.
    replaces: Option<Replaces>,
}

impl Job {
    /// A job; none when the delivery is another queue's.
    pub(super) fn new(settled: &Settled) -> Option<Self> {
        let taken = Arc::clone(settled.delivery.receipt.downcast_ref::<Arc<Taken>>()?);
        let bytes = match &settled.delivery.body {
            super::super::Body::Alert(bytes) => Some(bytes.clone()),
            super::super::Body::Refused { .. } => None,
        };
        let outcome = match &settled.outcome {
            Outcome::Store(record) => Outcome::Store(record.clone()),
            Outcome::Dead(letter) => Outcome::Dead(letter.clone()),
        };
        Some(Self { taken, bytes, outcome, replaces: settled.delivery.replaces.clone() })
    }
}

/// Where an alert's file in `pending` stands.
#[derive(PartialEq, Eq)]
enum Input {
    /// As it was read.
    Same,
    /// Somebody wrote another one under its name: that is another alert, and stays.
    Changed,
    /// Gone, or another host has it.
    Lost,
}

/// The first error of a batch; the others go on.
#[derive(Default)]
struct Trouble(Option<QueueError>);

impl Trouble {
    fn note<T>(&mut self, doing: &str, path: &Path, result: io::Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                self.0.get_or_insert_with(|| files::unavailable(doing, path, &error));
                None
            }
        }
    }
}

/// Commits a batch.
pub(super) fn commit(folders: &Folders, jobs: &[Job]) -> Result<Vec<Committed>, QueueError> {
    let mut trouble = Trouble::default();
    // Dead letters that cannot be written hold up no records.
    let mut burying = Trouble::default();
    let mut phases: Vec<_> = jobs.iter().map(|job| job.taken.phase()).collect();
    store(folders, jobs, &mut phases, &mut trouble);
    bury(folders, jobs, &mut phases, &mut burying);
    finish(folders, jobs, &mut phases, &mut trouble);
    let done = phases.iter().zip(jobs).map(|(phase, job)| match (&**phase, &job.outcome, &burying.0) {
        (Phase::Over(committed), ..) => Some(committed.clone()),
        (Phase::Held(_), Outcome::Dead(_), Some(error)) => Some(Committed::Refused(error.to_string())),
        (Phase::Held(_) | Phase::Placed { .. }, ..) => None,
    });
    match (trouble.0, done.collect()) {
        (None, Some(committed)) => Ok(committed),
        (trouble, _) => Err(trouble.unwrap_or_else(|| QueueError::Unavailable("a commit was not finished".to_owned()))),
    }
}

/// Whether the alert still is this host's, and its file what it was. What is lost is over.
fn input(folders: &Folders, taken: &Taken, phase: &mut Phase) -> io::Result<Input> {
    let Phase::Held(lock) = phase else { return Ok(Input::Lost) };
    let mine = lock.holds()?;
    let input = match files::stamp(&folders.pending.join(&taken.name))? {
        Some(stamp) if mine && stamp == taken.stamp => Input::Same,
        Some(_) if mine => Input::Changed,
        _ => Input::Lost,
    };
    if input == Input::Lost {
        lock.remove()?;
        *phase = Phase::Over(Committed::Lost);
    }
    Ok(input)
}

/// Puts the alert into the next phase.
fn placed(phase: &mut Phase, committed: Committed, input: bool, reason: Option<String>) {
    *phase = match std::mem::replace(phase, Phase::Over(Committed::Lost)) {
        Phase::Held(lock) => Phase::Placed { lock, committed, input, reason },
        other => other,
    };
}

/// Writes and places the records.
fn store(folders: &Folders, jobs: &[Job], phases: &mut [MutexGuard<'_, Phase>], trouble: &mut Trouble) {
    let mut written = Vec::new();
    for (index, job) in jobs.iter().enumerate() {
        let Outcome::Store(record) = &job.outcome else { continue };
        let Some(input) = trouble.note("look at", &folders.pending, input(folders, &job.taken, &mut phases[index]))
        else {
            continue;
        };
        if input != Input::Lost {
            let head = Record::head(job.replaces.as_ref().map_or(&record.id, |replaces| &replaces.id));
            let file = Unfinished::write(&folders.processed, &[head.as_bytes(), &record.rest]);
            if let Some(file) = trouble.note("write a record in", &folders.processed, file) {
                written.push((index, record, input == Input::Same, file));
            }
        }
    }
    let synced = files::sync_all(&written.iter().map(|(.., file)| file).collect::<Vec<_>>());
    for ((index, record, input, file), synced) in written.into_iter().zip(synced) {
        let result = synced.and_then(|()| match &jobs[index].replaces {
            Some(replaces) => place_again(folders, record, replaces, file),
            None => place_record(folders, record, file),
        });
        if let Some(committed) = trouble.note("store a record in", &folders.processed, result) {
            placed(&mut phases[index], committed, input, jobs[index].taken.was_dead.clone());
        }
    }
}

/// Puts a record into the place of the one that it replaces.
fn place_again(folders: &Folders, record: &Record, replaces: &Replaces, mut file: Unfinished) -> io::Result<Committed> {
    let ours = record.json(&replaces.id);
    let alert = serde_json::from_slice::<Stored<'_>>(&ours).ok().map(|ours| ours.alert.get());
    // Nobody else replaces it meanwhile: there is one alert of this name, and this host has its lock.
    match folders.standing(replaces, alert)? {
        Standing::Same => {
            file.replace(&folders.record(&replaces.id))?;
            Ok(Committed::Replaced)
        }
        Standing::Replaced => Ok(Committed::Duplicate),
        Standing::None => {
            if replaces.id != record.id {
                file = Unfinished::write(&folders.processed, &[&record.json(&record.id)])?;
                file.sync()?;
            }
            place_record(folders, record, file)
        }
    }
}

/// Gives a record its name, or finds that it is there already.
fn place_record(folders: &Folders, record: &Record, mut file: Unfinished) -> io::Result<Committed> {
    let conflict = record.conflict_id();
    for id in std::iter::once(record.id.clone()).chain(numbered(&conflict)) {
        let path = folders.processed.join(format!("{}.json", alert::file_stem(&id)));
        if id != record.id {
            // Looked at first, because a record under another id has to be written anew.
            if files::stamp(&path)?.is_none() {
                file = Unfinished::write(&folders.processed, &[&record.json(&id)])?;
                file.sync()?;
            } else if is_stored(&path, &id, record)? {
                return Ok(Committed::Duplicate);
            } else {
                continue;
            }
        }
        if file.place(&path)? {
            return Ok(if id == record.id { Committed::Stored } else { Committed::Conflict(id) });
        }
        if is_stored(&path, &id, record)? {
            return Ok(Committed::Duplicate);
        }
    }
    Err(io::Error::other("too many alerts have this id"))
}

/// The parts of a stored record that tell whose it is.
#[derive(Deserialize)]
pub(super) struct Stored<'a> {
    pub(super) id: std::borrow::Cow<'a, str>,
    #[serde(borrow)]
    pub(super) alert: &'a RawValue,
}

/// Whether a file holds this alert's record under this id.
fn is_stored(path: &Path, id: &str, record: &Record) -> io::Result<bool> {
    let ours = record.json(id);
    let Ok(ours) = serde_json::from_slice::<Stored>(&ours) else { return Ok(false) };
    holds(path, id, ours.alert)
}

/// Whether a file holds the record of this alert under this id. The alerts are compared as they stand in the records: white
/// space around an alert is not stored and tells no two apart.
fn holds(path: &Path, id: &str, alert: &RawValue) -> io::Result<bool> {
    let there = match files::open_plain(path) {
        Ok((mut file, _)) => {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            bytes
        }
        // Something else has the name: then the record needs another.
        Err(error) if files::is_anothers(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    let Ok(there) = serde_json::from_slice::<Stored>(&there) else { return Ok(false) };
    Ok(there.id == id && there.alert.get() == alert.get())
}

/// Whether this very alert is stored: by a host that died before it could let go of it, perhaps. What is stored stays so,
/// whatever comes of the alert now; were it buried as well, it would be in two places.
fn is_stored_already(folders: &Folders, job: &Job, letter: &DeadLetter) -> io::Result<bool> {
    let (Some(id), Some(bytes)) = (&letter.id, &job.bytes) else { return Ok(false) };
    let Ok(alert) = serde_json::from_slice::<&RawValue>(bytes) else { return Ok(false) };
    let path = |id: &str| folders.processed.join(format!("{}.json", alert::file_stem(id)));
    if files::stamp(&path(id))?.is_none() {
        return Ok(false);
    }
    let conflict = format!("{id}~{}", hash8(Box::new(io::Cursor::new(bytes.clone())))?);
    for id in std::iter::once(id.clone()).chain(numbered(&conflict)) {
        if files::stamp(&path(&id))?.is_none() {
            return Ok(false);
        }
        if holds(&path(&id), &id, alert)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether a record stays that this alert was to take the place of, and failed to.
fn keeps(folders: &Folders, job: &Job) -> io::Result<bool> {
    let Some(replaces) = &job.replaces else { return Ok(false) };
    let alert = job.bytes.as_deref().map(|bytes| std::str::from_utf8(bytes.trim_ascii()).unwrap_or_default());
    Ok(!matches!(folders.standing(replaces, alert)?, Standing::None))
}

/// Puts the dead letters where they belong.
fn bury(folders: &Folders, jobs: &[Job], phases: &mut [MutexGuard<'_, Phase>], trouble: &mut Trouble) {
    let mut drafts = Vec::new();
    for (index, job) in jobs.iter().enumerate() {
        let Outcome::Dead(letter) = &job.outcome else { continue };
        let phase = &mut phases[index];
        let input = input(folders, &job.taken, phase);
        let Some(input) = trouble.note("look at", &folders.pending, input) else { continue };
        if input == Input::Changed && job.bytes.is_none() {
            // It was never read, and what lies there now is another alert.
            if let Phase::Held(lock) = std::mem::replace(&mut **phase, Phase::Over(Committed::Lost)) {
                lock.release();
            }
        } else if input != Input::Lost {
            let kept = keeps(folders, job);
            let Some(kept) = trouble.note("look for a record in", &folders.processed, kept) else { continue };
            if kept {
                placed(phase, Committed::Kept, input == Input::Same, job.taken.was_dead.clone());
                continue;
            }
            let stored = is_stored_already(folders, job, letter);
            let Some(stored) = trouble.note("look for a record in", &folders.processed, stored) else { continue };
            if stored {
                placed(phase, Committed::Duplicate, input == Input::Same, job.taken.was_dead.clone());
                continue;
            }
            let draft = folders.draft_letter(letter);
            if let Some(draft) = trouble.note("put a dead letter into", &folders.errors, draft) {
                drafts.push((index, letter, input == Input::Same, draft));
            }
        }
    }
    if drafts.is_empty() {
        return;
    }
    let synced = files::sync_all(&drafts.iter().map(|(.., draft)| draft).collect::<Vec<_>>());
    let Some(_lock) = trouble.note("lock", &folders.errors, folders.lock_errors()) else { return };
    for ((index, letter, same, draft), synced) in drafts.into_iter().zip(synced) {
        let job = &jobs[index];
        let result = synced.and_then(|()| place_letter(folders, job, letter, same, draft));
        if let Some((key, moved)) = trouble.note("put a dead letter into", &folders.errors, result) {
            let reason = job.taken.was_dead.clone().filter(|earlier| *earlier != key);
            placed(&mut phases[index], Committed::Dead, same && !moved, reason);
        }
    }
}

/// The name that a dead letter should have.
fn dead_key(taken: &Taken, letter: &DeadLetter) -> String {
    if let Some(key) = &taken.was_dead {
        return key.clone();
    }
    if let Some(id) = &letter.id {
        return alert::file_stem(id);
    }
    let name = taken.name.to_str().map(|name| name.strip_suffix(".json").unwrap_or(name));
    match name.map(|name| alert::file_stem(name.strip_prefix("alert-").unwrap_or(name))) {
        Some(stem) => stem,
        None => alert::file_stem(&alert::id_of_bytes(taken.name.as_encoded_bytes())),
    }
}

/// Puts one dead letter where it belongs: gives its key, and whether its file in `pending` was moved there.
fn place_letter(
    folders: &Folders,
    job: &Job,
    letter: &DeadLetter,
    same: bool,
    draft: Unfinished,
) -> io::Result<(String, bool)> {
    let pending = folders.pending.join(&job.taken.name);
    let source = || -> io::Result<Box<dyn Read>> {
        match &job.bytes {
            Some(bytes) => Ok(Box::new(io::Cursor::new(bytes.clone()))),
            None => Ok(Box::new(files::open_plain(&pending)?.0)),
        }
    };
    let first = dead_key(&job.taken, letter);
    // The hash is only made when it is needed: the file may be large.
    let mut others = None;
    let mut next = Some(first.clone());
    while let Some(key) = next.take() {
        let mut other = || -> io::Result<_> {
            if others.is_none() {
                others = Some(numbered(&format!("{first}~{}", hash8(source()?)?)));
            }
            Ok(others.as_mut().and_then(Iterator::next))
        };
        let json = folders.dead_json(&key);
        if files::stamp(&json)?.is_some() {
            if files::same_bytes(&json, &mut source()?)? {
                folders.write_letter(&key, &with_earlier(folders, &key, letter))?;
                return Ok((key, false));
            }
            next = other()?;
            continue;
        }
        if is_anothers(folders, job, &key)? {
            next = other()?;
            continue;
        }
        // The reason first: bytes without a reason are never to be seen.
        draft.replace(&folders.dead_reason(&key))?;
        // Flushing took a while: what has the name now must still be what was read.
        let same = same && files::stamp(&pending)? == Some(job.taken.stamp);
        let moved = match (&job.bytes, same) {
            (_, true) => files::rename_new(&pending, &json)?,
            (Some(bytes), false) => {
                let mut file = Unfinished::write(&folders.errors, &[bytes])?;
                file.sync()?;
                file.place(&json)?
            }
            (None, false) => false,
        };
        if moved {
            return Ok((key, same));
        }
        // Somebody put a file there this very moment: it is done again, and finds it.
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a file appeared under the same name"));
    }
    Err(io::Error::other("too many dead letters have this name"))
}

/// Whether a reason without bytes tells of another alert, which was moved back to `pending` and still lies there.
fn is_anothers(folders: &Folders, job: &Job, key: &str) -> io::Result<bool> {
    let name = format!("{key}.json");
    Ok(job.taken.was_dead.as_deref() != Some(key)
        && job.taken.name.to_str() != Some(&name)
        && files::stamp(&folders.dead_reason(key))?.is_some()
        && files::stamp(&folders.pending.join(&name))?.is_some())
}

/// The letter with the attempts and the history of the same bytes' earlier failures.
fn with_earlier(folders: &Folders, key: &str, letter: &DeadLetter) -> DeadLetter {
    let mut letter = letter.clone();
    if let Ok(earlier) = folders.letter(key) {
        letter.attempts = letter.attempts.saturating_add(earlier.attempts);
        letter.first_seen = letter.first_seen.min(earlier.first_seen);
        letter.history = earlier.told().with(letter.history);
    }
    letter
}

/// The first 8 digits of a SHA-256.
fn hash8(mut bytes: Box<dyn Read>) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match bytes.read(&mut buffer)? {
            0 => break,
            length => hash.update(&buffer[..length]),
        }
    }
    Ok(hex::encode(&hash.finalize()[..4]))
}

/// Makes what was placed durable, and only then lets go of the alerts.
fn finish(folders: &Folders, jobs: &[Job], phases: &mut [MutexGuard<'_, Phase>], trouble: &mut Trouble) {
    let any = |dead: bool, phases: &[MutexGuard<'_, Phase>]| {
        phases
            .iter()
            .any(|phase| matches!(&**phase, Phase::Placed { committed, .. } if (*committed == Committed::Dead) == dead))
    };
    for (dead, folder) in [(false, &folders.processed), (true, &folders.errors)] {
        if any(dead, phases) && trouble.note("sync", folder, files::sync_folder(folder)).is_none() {
            return;
        }
    }
    for (index, job) in jobs.iter().enumerate() {
        let removed = remove_input(folders, &job.taken, &phases[index]);
        if trouble.note("remove an alert from", &folders.pending, removed) != Some(true) {
            continue;
        }
        // That the removal reaches the disk is not waited for, which would cost a third of the speed: an alert that is there
        // again after a power cut is found in the store, or among the dead letters, and is not put there twice.
        let Phase::Placed { lock, committed, .. } = &*phases[index] else { continue };
        if trouble.note("remove a lock from", &folders.state, lock.remove()).is_some() {
            *phases[index] = Phase::Over(committed.clone());
        }
    }
}

/// Removes an alert's file and what its last failure left; true when the alert is ready to be let go of.
fn remove_input(folders: &Folders, taken: &Taken, phase: &Phase) -> io::Result<bool> {
    let Phase::Placed { input, reason, .. } = phase else { return Ok(false) };
    let path = folders.pending.join(&taken.name);
    if *input && files::stamp(&path)? == Some(taken.stamp) {
        files::remove(&path)?;
    }
    folders.forget(&taken.name)?;
    if let Some(key) = reason
        && files::stamp(&folders.dead_json(key))?.is_none()
    {
        files::remove(&folders.dead_reason(key))?;
    }
    Ok(true)
}
