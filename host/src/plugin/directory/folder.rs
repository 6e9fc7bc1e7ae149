//! What lies in the plugins folder: which files are plugins, in which state each is, and reading one. Loads nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::plugin::MAX_COMPONENT;
use crate::plugin::compiler::read_bounded;

/// What tells one state of a file from another: device time stamps, size and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    size: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &fs::Metadata) -> Self {
        Self {
            size: metadata.len(),
            inode: metadata.ino(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// A file in the folder: one that can be read, or why not.
pub(super) type Found = Result<Stamp, String>;

/// The plugins in a folder, by the stem of their files.
pub(super) fn list(folder: &Path) -> io::Result<BTreeMap<String, Found>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else { continue };
        // Dot files are being written, or nobody's business.
        let Some((stem, extension)) =
            name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty() && !name.starts_with('.'))
        else {
            continue;
        };
        let state = match (extension, fs::symlink_metadata(&path)) {
            ("cwasm", Ok(_)) if !folder.join(format!("{stem}.wasm")).exists() => {
                Err("machine code (.cwasm) is never loaded from here; put the .wasm file here".to_owned())
            }
            ("wasm", Ok(metadata)) if metadata.is_symlink() => {
                Err("it is a symbolic link; put the file itself here".to_owned())
            }
            ("wasm", Ok(metadata)) if !metadata.is_file() => Err("it is no file".to_owned()),
            ("wasm", Ok(_)) if !stem.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte)) => {
                Err("its name may hold letters, digits, '-', '_' and '.' only; rename it".to_owned())
            }
            ("wasm", Ok(metadata)) => Ok(Stamp::of(&metadata)),
            _ => continue,
        };
        found.insert(stem.to_owned(), state);
    }
    Ok(found)
}

/// Reads a file once, unless it changes meanwhile or is gone: none.
///
/// # Errors
/// It cannot be read.
pub(super) fn read(path: &Path, stamp: Stamp) -> io::Result<Option<Vec<u8>>> {
    let read = read_bounded(path, MAX_COMPONENT).and_then(|bytes| Ok((bytes, fs::symlink_metadata(path)?)));
    match read {
        Ok((bytes, after)) => Ok((Stamp::of(&after) == stamp).then_some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
