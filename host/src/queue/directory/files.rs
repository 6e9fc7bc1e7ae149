//! Files that appear whole or not at all, and never over another one. Knows nothing of alerts.

use std::ffi::OsStr;
use std::fs::{self, DirEntry, File, Metadata, OpenOptions, ReadDir};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::fs::{Advice, CWD, OFlags, RenameFlags};

use super::super::QueueError;

/// How our own unfinished files begin. Other programs' dot files (rsync makes some) are theirs.
const UNFINISHED: &str = ".dossier-";

/// How old an unfinished file is before it is taken for a dead host's.
const STALE: Duration = Duration::from_secs(60);

/// How many files are waited for at the same time.
const SYNC_THREADS: usize = 16;

/// A file that is written, but has no name yet that anybody looks at.
#[derive(Debug)]
pub(super) struct Unfinished {
    path: Option<PathBuf>,
    file: File,
}

impl Unfinished {
    /// Writes a dot file in a folder; it is not yet on the disk.
    pub(super) fn write(folder: &Path, bytes: &[&[u8]]) -> io::Result<Self> {
        let path = folder.join(format!("{UNFINISHED}{:032x}", fastrand::u128(..)));
        let file = OpenOptions::new().write(true).create_new(true).open(&path)?;
        // Made first, so that a disk that is full half-way leaves nothing behind.
        let mut unfinished = Self { path: Some(path), file };
        failpoint!("file-made", about(unfinished.path.as_deref()));
        for part in bytes {
            unfinished.file.write_all(part)?;
            failpoint!("file-written", about(unfinished.path.as_deref()));
        }
        // Asks for write-back now, so that the disk is at work before a batch is waited for (10,000 files a second in place
        // of 2,500 on an idle ext4). It is a hint, so it cannot fail in a way that matters.
        let _ = rustix::fs::fadvise(&unfinished.file, 0, None, Advice::DontNeed);
        Ok(unfinished)
    }

    /// Makes the file look as if it was last written then.
    pub(super) fn set_modified(&self, then: SystemTime) -> io::Result<()> {
        self.file.set_modified(then)
    }

    /// Waits until the bytes are on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()?;
        failpoint!("file-synced", about(self.path.as_deref()));
        Ok(())
    }

    /// Gives it its name, unless that is taken; true when it got it.
    pub(super) fn place(&mut self, path: &Path) -> io::Result<bool> {
        let Some(from) = &self.path else { return Ok(true) };
        let placed = rename_new(from, path)?;
        if placed {
            self.path = None;
        }
        Ok(placed)
    }

    /// Gives it its name, in the place of whatever has it.
    pub(super) fn replace(mut self, path: &Path) -> io::Result<()> {
        if let Some(from) = self.path.take() {
            fs::rename(&from, path)?;
            failpoint!("file-replaced", &[about(Some(&from)), about(Some(path))].join(&b' '));
        }
        Ok(())
    }
}

/// Waits until all of them are on the disk. Each waits in a thread of its own, up to a number, because the disk then does one
/// flush for many: 10 to 30 times as fast as one by one on a busy ext4 (measured), and no slower on an idle one.
pub(super) fn sync_all(files: &[&Unfinished]) -> Vec<io::Result<()>> {
    let next = AtomicUsize::new(0);
    let results: Vec<_> = files.iter().map(|_| OnceLock::new()).collect();
    let work = || {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let (Some(file), Some(result)) = (files.get(index), results.get(index)) else { return };
            // Nobody else has this index.
            let _ = result.set(file.sync());
        }
    };
    thread::scope(|scope| {
        for _ in 1..files.len().min(SYNC_THREADS) {
            // Without more threads it only takes longer.
            if thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    let unknown = || Err(io::Error::other("a file was not synced"));
    results.into_iter().map(|result| result.into_inner().unwrap_or_else(unknown)).collect()
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // What cannot be removed now is removed as stale at the next start.
            let _ = fs::remove_file(path);
        }
    }
}

/// What a failpoint is about.
#[cfg(feature = "failpoints")]
fn about(path: Option<&Path>) -> &[u8] {
    path.map_or(b"", |path| path.as_os_str().as_bytes())
}

/// Renames a file unless the new name is taken; true when it was renamed.
pub(super) fn rename_new(from: &Path, to: &Path) -> io::Result<bool> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        Ok(()) => {
            failpoint!("file-renamed", &[about(Some(from)), about(Some(to))].join(&b' '));
            Ok(true)
        }
        Err(rustix::io::Errno::EXIST) => Ok(false),
        // File systems without it (NFS) can still do it in two steps: both names are the same file in between.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => match fs::hard_link(from, to) {
            Ok(()) => fs::remove_file(from).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        },
        Err(error) => Err(error.into()),
    }
}

/// Waits until the names in a folder are on the disk.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()?;
    failpoint!("folder-synced", about(Some(folder)));
    Ok(())
}

/// Removes a file; false when it is gone already.
pub(super) fn remove(path: &Path) -> io::Result<bool> {
    let removed = present(fs::remove_file(path))?.is_some();
    failpoint!("file-removed", about(Some(path)));
    Ok(removed)
}

/// None in the place of "not found".
pub(super) fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What tells whether a file is still what it was when it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    /// The time of the last change of any kind, which no program can set back.
    changed: (i64, i64),
}

impl From<&Metadata> for Stamp {
    fn from(data: &Metadata) -> Self {
        Self { device: data.dev(), inode: data.ino(), size: data.len(), changed: (data.ctime(), data.ctime_nsec()) }
    }
}

/// The stamp of what has this name now; none when nothing has.
pub(super) fn stamp(path: &Path) -> io::Result<Option<Stamp>> {
    Ok(present(fs::symlink_metadata(path))?.map(|data| Stamp::from(&data)))
}

/// Since when a file has been where it is. Its last change of any kind counts, because `mv` and `cp -p` keep the time of
/// the last writing.
pub(super) fn since(data: &Metadata) -> SystemTime {
    let seconds = u64::try_from(data.ctime()).unwrap_or_default();
    let nanoseconds = u32::try_from(data.ctime_nsec()).unwrap_or_default();
    SystemTime::UNIX_EPOCH.checked_add(Duration::new(seconds, nanoseconds)).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Opens a plain file for reading: follows no link, and does not wait for a pipe's other end.
pub(super) fn open_plain(path: &Path) -> io::Result<(File, Metadata)> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits() as i32).open(path)?;
    let data = file.metadata()?;
    if !data.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no plain file"));
    }
    Ok((file, data))
}

/// Reads a plain file; none when it is gone, or larger than the limit.
pub(super) fn read_plain(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let Some((file, data)) = present(open_plain(path))? else { return Ok(None) };
    if data.len() > limit {
        return Ok(None);
    }
    let mut bytes = Vec::with_capacity(usize::try_from(data.len()).unwrap_or_default());
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

/// Whether the file that has this name holds exactly these bytes.
pub(super) fn same_bytes(path: &Path, bytes: &mut impl Read) -> io::Result<bool> {
    let file = match open_plain(path) {
        Ok((file, _)) => file,
        Err(error) if is_anothers(&error) => return Ok(false),
        Err(error) => return Err(error),
    };
    let mut left = io::BufReader::new(file);
    let mut right = io::BufReader::new(bytes);
    loop {
        use io::BufRead;
        let (a, b) = (left.fill_buf()?, right.fill_buf()?);
        let length = a.len().min(b.len());
        if a[..length] != b[..length] || (length == 0 && a.len() != b.len()) {
            return Ok(false);
        }
        if length == 0 {
            return Ok(true);
        }
        left.consume(length);
        right.consume(length);
    }
}

/// Whether something has the name that is not ours: a folder, a link, a file that we may not read. Then another name must do.
pub(super) fn is_anothers(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::IsADirectory | io::ErrorKind::PermissionDenied)
        || rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::LOOP)
}

/// Whether a name is a dot file's.
pub(super) fn hidden(name: &OsStr) -> bool {
    name.as_bytes().first() == Some(&b'.')
}

/// The plain files of a folder that are no dot files.
pub(super) fn visible(folder: &Path) -> io::Result<impl Iterator<Item = io::Result<DirEntry>> + use<>> {
    let list: ReadDir = fs::read_dir(folder)?;
    Ok(list.filter(|entry| match entry {
        Ok(entry) => !hidden(&entry.file_name()) && entry.file_type().is_ok_and(|kind| kind.is_file()),
        Err(_) => true,
    }))
}

/// Removes what a dead host left unfinished in a folder.
pub(super) fn remove_stale(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().as_bytes().starts_with(UNFINISHED.as_bytes()) {
            continue;
        }
        let modified = entry.metadata().and_then(|data| data.modified());
        if modified.is_ok_and(|then| then.elapsed().is_ok_and(|age| age > STALE)) {
            remove(&entry.path())?;
        }
    }
    Ok(())
}

/// A full disk, a missing permission: it may work later, and the message says where.
pub(super) fn unavailable(doing: &str, path: &Path, error: &io::Error) -> QueueError {
    let next = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; make room on this disk",
        io::ErrorKind::PermissionDenied => "; give the host's user the permission to read and write there",
        io::ErrorKind::ReadOnlyFilesystem => "; mount it for writing",
        _ => "",
    };
    QueueError::Unavailable(format!("cannot {doing} {}: {error}{next}", path.display()))
}
