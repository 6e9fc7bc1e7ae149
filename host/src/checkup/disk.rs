//! The disk below a folder: its room, and what kind of file system it is. Changes nothing.

use std::path::Path;

use bytesize::ByteSize;

use super::Observation;

/// Below so much room, in bytes, a disk is nearly full, however large it is.
const LITTLE: u64 = 256 << 20;
/// Below this share of its room, in percent, it is filling up.
const PERCENT: u64 = 10;
/// Below so many free files nothing can be made soon.
const FILES: u64 = 10_000;

/// File systems that promise less, by their numbers in statfs(2), with what to say.
const ODD: [(u64, &str, bool); 7] = [
    (0x0102_1994, "in memory (tmpfs): it is gone when the machine restarts", true),
    (0x794c_7630, "a container's own layer (overlayfs): it is gone with the container", true),
    (0xff53_4d42, "a Windows share (CIFS): atomic renames and locks are not promised there", true),
    (0xfe53_4d42, "a Windows share (SMB): atomic renames and locks are not promised there", true),
    (0x517b, "a Windows share (SMB): atomic renames and locks are not promised there", true),
    (0x6573_5546, "FUSE: whether locks and renames hold depends on what is behind it", false),
    (0x6969, "NFS: locks must reach the server (NFSv4)", false),
];

/// What there is to say of the disk below a folder, or below the nearest one above it that is there; `whose` it is.
pub fn look(folder: &Path, whose: &str) -> Vec<Observation> {
    let nearest = folder.ancestors().map(|path| if path.as_os_str().is_empty() { Path::new(".") } else { path });
    let Some(nearest) = nearest.into_iter().find(|path| path.exists()) else { return Vec::new() };
    let (space, kind) = match (rustix::fs::statvfs(nearest), rustix::fs::statfs(nearest)) {
        (Ok(space), Ok(kind)) => (space, kind),
        (Err(error), _) | (_, Err(error)) => {
            return vec![Observation::note(
                format!("the disk of {whose} ({}) cannot be asked for its room: {error}", nearest.display()),
                "look at it with df",
            )];
        }
    };
    let (free, all) = (space.f_bavail.saturating_mul(space.f_frsize), space.f_blocks.saturating_mul(space.f_frsize));
    let mut observations = vec![room(whose, nearest, free, all)];
    // Some file systems do not count files.
    if space.f_files > 0 && space.f_favail < FILES {
        observations.push(Observation::risk(
            format!("the disk of {whose} ({}) has room for {} more files", nearest.display(), space.f_favail),
            "remove files (old records?), or move it to a disk with more inodes: df -i",
        ));
    }
    #[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "a number of 32 bits, signed or not")]
    let kind = u64::from(kind.f_type as u32);
    if let Some((_, what, is_risk)) = ODD.iter().find(|(number, ..)| *number == kind) {
        let what = format!("{whose} ({}) lies on {what}", nearest.display());
        let next = "choose a path on a local disk (ext4, XFS, btrfs)";
        observations.push(if *is_risk { Observation::risk(what, next) } else { Observation::note(what, next) });
    }
    observations
}

fn room(whose: &str, folder: &Path, free: u64, all: u64) -> Observation {
    let size = |bytes| ByteSize::b(bytes).display().iec().to_string();
    let percent = free.saturating_mul(100).checked_div(all).unwrap_or(100);
    let what = format!("the disk of {whose} ({}) has {} of {} free", folder.display(), size(free), size(all));
    let next = "make room: when it is full, nothing is stored and nothing is taken from the queue";
    match free {
        _ if free < LITTLE.min(all / 4) => Observation::risk(what, next),
        _ if percent < PERCENT => Observation::note(what, next),
        _ => Observation::fine(what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkup::Gravity;

    #[test]
    fn a_disk_is_judged_by_its_room() {
        let gravity = |free, all| room("it", Path::new("/x"), free, all).gravity;
        assert_eq!(gravity(100 << 20, 100 << 30), Gravity::Risk);
        assert_eq!(gravity(5 << 30, 100 << 30), Gravity::Note);
        assert_eq!(gravity(50 << 30, 100 << 30), Gravity::Fine);
        // A small file system that is empty is no danger.
        assert_eq!(gravity(60 << 20, 64 << 20), Gravity::Fine);
    }

    #[test]
    fn a_folder_that_is_not_there_yet_is_judged_by_the_one_above_it() {
        let folder = tempfile::tempdir().unwrap();
        let above = look(folder.path(), "it");
        assert_eq!(look(&folder.path().join("a/b/c"), "it").len(), above.len());
        assert!(above[0].what.contains("free"), "{above:?}");
    }
}
