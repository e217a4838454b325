//! Evidence on disk: a directory of one drill is whole or absent.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use super::EvidenceError;

/// Whether evidence can be written below `store`, found out by writing. Asked before a drill starts: a drill whose
/// evidence cannot be kept proves nothing.
///
/// # Errors
/// [`EvidenceError::Write`].
pub fn check_writable(store: &Path) -> Result<(), EvidenceError> {
    fs::create_dir_all(store).map_err(EvidenceError::write(store))?;
    // several drills of one process ask at once
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let probe = store.join(format!(".writable-{}-{}", std::process::id(), ASKED.fetch_add(1, Ordering::Relaxed)));
    let written = File::create(&probe).and_then(|mut file| file.write_all(b"?").and_then(|()| file.sync_all()));
    let removed = fs::remove_file(&probe);
    written.and(removed).map_err(EvidenceError::write(store))
}

/// Makes `parent/name` with these files: written aside, synced, then renamed.
pub(super) fn write_whole(parent: &Path, name: &str, files: &[(String, Vec<u8>)]) -> Result<PathBuf, EvidenceError> {
    let target = parent.join(name);
    fs::create_dir_all(parent).map_err(EvidenceError::write(parent))?;
    if target.symlink_metadata().is_ok() {
        return Err(EvidenceError::Exists { path: target });
    }
    let aside = parent.join(format!(".{name}.{}", std::process::id()));
    remove_asides(parent, name)?;
    let made = write_aside(&aside, files).and_then(|()| fs::rename(&aside, &target).map_err(EvidenceError::write(&target)));
    if let Err(error) = made {
        // what stays behind is hidden and never taken for evidence; the first error is the one to tell
        let _ = fs::remove_dir_all(&aside);
        return Err(error);
    }
    sync_dir(parent)?;
    if let Some(above) = parent.parent() {
        sync_dir(above)?;
    }
    Ok(target)
}

/// Removes what a runner that was killed while it wrote the same directory has left.
fn remove_asides(parent: &Path, name: &str) -> Result<(), EvidenceError> {
    for entry in fs::read_dir(parent).map_err(EvidenceError::read(parent))? {
        let path = entry.map_err(EvidenceError::read(parent))?.path();
        let left = path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(&format!(".{name}.")));
        if left {
            fs::remove_dir_all(&path).map_err(EvidenceError::write(&path))?;
        }
    }
    Ok(())
}

fn write_aside(aside: &Path, files: &[(String, Vec<u8>)]) -> Result<(), EvidenceError> {
    fs::create_dir(aside).map_err(EvidenceError::write(aside))?;
    for (name, bytes) in files {
        let path = aside.join(name);
        let mut file = OpenOptions::new().write(true).create_new(true).open(&path).map_err(EvidenceError::write(&path))?;
        file.write_all(bytes).and_then(|()| file.sync_all()).map_err(EvidenceError::write(&path))?;
    }
    sync_dir(aside)
}

/// Makes names in a directory durable.
pub(super) fn sync_dir(dir: &Path) -> Result<(), EvidenceError> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    File::open(dir).and_then(|handle| handle.sync_all()).map_err(EvidenceError::write(dir))
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_whole_or_absent() {
        let dir = tempfile::tempdir().unwrap();
        let files = vec![("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())];
        let killed = dir.path().join("2026/.id.4711");
        fs::create_dir_all(&killed).unwrap();
        let made = write_whole(&dir.path().join("2026"), "id", &files).unwrap();
        assert!(!killed.exists(), "what a killed runner left is gone");
        assert_eq!(fs::read(made.join("b")).unwrap(), b"2");
        assert!(matches!(write_whole(&dir.path().join("2026"), "id", &files), Err(EvidenceError::Exists { .. })));
        let twice = vec![("a".to_owned(), vec![]), ("a".to_owned(), vec![])];
        assert!(write_whole(dir.path(), "other", &twice).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn a_store_that_cannot_be_written_is_told_beforehand() {
        let dir = tempfile::tempdir().unwrap();
        check_writable(&dir.path().join("new/store")).unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(check_writable(&file), Err(EvidenceError::Write { .. })));
        assert!(matches!(check_writable(&file.join("below")), Err(EvidenceError::Write { .. })));
    }

    #[test]
    fn drills_of_one_process_that_ask_at_once_do_not_hinder_each_other() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let asking = |_| scope.spawn(|| (0..100).for_each(|_| check_writable(dir.path()).unwrap()));
            let threads: Vec<_> = (0..8).map(asking).collect();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
    }
}
