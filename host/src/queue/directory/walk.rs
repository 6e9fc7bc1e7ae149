//! The way through a folder, a page at a time: read as it is listed, so that a folder of millions takes no more memory than a
//! small one.

use std::fs::DirEntry;
use std::io;
use std::path::PathBuf;

use async_trait::async_trait;
use bytes::Bytes;

use super::super::{Held, Place, QueueError, Walk, is_beside};
use super::folders::Folders;
use super::{blocking, files};

/// How many files a page holds at most, and how many bytes, but for the last file.
const PAGE: usize = 1_000;
const PAGE_BYTES: usize = 8 << 20;

type Listing = Box<dyn Iterator<Item = io::Result<DirEntry>> + Send>;

pub(super) struct FolderWalk {
    folder: PathBuf,
    place: Place,
    state: State,
}

enum State {
    Before,
    Within(Listing),
    After,
}

impl FolderWalk {
    pub(super) fn new(folders: &Folders, place: Place) -> Self {
        let folder = match place {
            Place::Queue => &folders.pending,
            Place::Store => &folders.processed,
            Place::Dead => &folders.errors,
        };
        Self { folder: folder.clone(), place, state: State::Before }
    }
}

#[async_trait]
impl Walk for FolderWalk {
    async fn next(&mut self) -> Result<Vec<Held>, QueueError> {
        let (folder, place) = (self.folder.clone(), self.place);
        let before = std::mem::replace(&mut self.state, State::After);
        let (state, page) = blocking(move || {
            page(&folder, place, before).map_err(|error| files::unavailable("look through", &folder, &error))
        })
        .await?;
        self.state = state;
        Ok(page)
    }
}

fn page(folder: &std::path::Path, place: Place, state: State) -> io::Result<(State, Vec<Held>)> {
    let mut listing: Listing = match state {
        State::Before => Box::new(files::visible(folder)?),
        State::Within(listing) => listing,
        State::After => return Ok((State::After, Vec::new())),
    };
    let (mut page, mut bytes) = (Vec::new(), 0);
    while page.len() < PAGE && bytes < PAGE_BYTES {
        let Some(entry) = listing.next() else { return Ok((State::After, page)) };
        let name = entry?.file_name();
        // Beside dead letters lie their reasons; what else was put among records and dead letters by hand is neither.
        if place != Place::Queue && !name.as_encoded_bytes().ends_with(b".json") {
            continue;
        }
        // Gone meanwhile: whoever looks where it went finds it there.
        let Some(read) = files::read_plain(&folder.join(&name), u64::MAX)? else { continue };
        bytes += read.len();
        page.push(Held { key: name.to_string_lossy().into_owned(), bytes: Some(Bytes::from(read)) });
    }
    Ok((State::Within(listing), page))
}

/// The record whose file has this name.
pub(super) fn named(folders: &Folders, name: &str) -> io::Result<Option<Held>> {
    // A name and no path.
    let is_name = name.ends_with(".json") && !name.starts_with('.') && !name.contains(['/', '\0']) && name.len() <= 255;
    if !is_name {
        return Ok(None);
    }
    let bytes = files::read_plain(&folders.processed.join(name), u64::MAX)?;
    Ok(bytes.map(|bytes| Held { key: name.to_owned(), bytes: Some(Bytes::from(bytes)) }))
}

/// The records under an id whose file is named by it, and beside it. Only names are looked at but for those.
pub(super) fn beside(folders: &Folders, stem: &str, id: &str) -> io::Result<Vec<Held>> {
    let mut found = Vec::new();
    for entry in files::visible(&folders.processed)? {
        let name = entry?.file_name();
        let rest = name.to_str().and_then(|name| name.strip_suffix(".json")?.strip_prefix(stem));
        if !rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('~')) {
            continue;
        }
        let Some(bytes) = files::read_plain(&folders.processed.join(&name), u64::MAX)? else { continue };
        // Where a file system takes upper and lower case for the same, the file may be another alert's.
        if is_beside(&bytes, id) {
            found.push(Held { key: name.to_string_lossy().into_owned(), bytes: Some(Bytes::from(bytes)) });
        }
    }
    found.sort_unstable_by(|one, other| one.key.cmp(&other.key));
    Ok(found)
}
