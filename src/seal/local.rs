//! A set in a local directory: written as `.<id>.partial`, synced, renamed.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use rustix::fs::RenameFlags;

use super::{SetWriter, Written};
use crate::codec::manifest::{MANIFEST, SIGNATURE};

/// Writes a set below a directory. Dropped before it is committed, it takes back what it wrote.
#[derive(Debug)]
pub struct LocalSetWriter {
    parent: PathBuf,
    partial: PathBuf,
    done: PathBuf,
    open: Option<(PathBuf, File, u64)>,
    committed: bool,
}

impl LocalSetWriter {
    /// Makes the partial directory. `parent` is made too if it is not there.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] where a set of this id is there, whole or half; or the file system's.
    pub fn new(parent: &Path, id: &str) -> io::Result<Self> {
        let done = parent.join(id);
        if done.symlink_metadata().is_ok() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, "a set of this id is there already"));
        }
        fs::create_dir_all(parent)?;
        let partial = parent.join(format!(".{id}.partial"));
        fs::create_dir(&partial)?;
        Ok(Self { parent: parent.to_owned(), partial, done, open: None, committed: false })
    }

    fn put(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = File::create_new(self.partial.join(name))?;
        file.write_all(bytes)?;
        file.sync_all()
    }
}

impl SetWriter for LocalSetWriter {
    fn create(&mut self, name: &str) -> io::Result<()> {
        let path = self.partial.join(name);
        let file = File::create_new(&path)?;
        self.open = Some((path, file, 0));
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let (_, file, size) = self.open.as_mut().ok_or_else(|| io::Error::other("no object is open"))?;
        file.write_all(bytes)?;
        *size += bytes.len() as u64;
        Ok(())
    }

    fn finish(&mut self, written: &Written) -> io::Result<()> {
        let (_, file, size) = self.open.take().ok_or_else(|| io::Error::other("no object is open"))?;
        file.sync_all()?;
        if size != written.size || file.metadata()?.len() != size {
            return Err(io::Error::other("the file has another size than was written"));
        }
        Ok(())
    }

    fn commit(&mut self, manifest: &[u8], signature: Option<&[u8]>) -> io::Result<()> {
        if let Some(signature) = signature {
            self.put(SIGNATURE, signature)?;
        }
        self.put(MANIFEST, manifest)?;
        File::open(&self.partial)?.sync_all()?;
        // never over a set that somebody else made meanwhile
        rustix::fs::renameat_with(rustix::fs::CWD, &self.partial, rustix::fs::CWD, &self.done, RenameFlags::NOREPLACE)?;
        self.committed = true;
        File::open(&self.parent)?.sync_all()
    }

    fn abort(&mut self) {
        self.open = None;
        if !self.committed {
            // nothing better can be done with an error here; the name says that it is partial
            let _ = fs::remove_dir_all(&self.partial);
        }
    }
}

impl Drop for LocalSetWriter {
    fn drop(&mut self) {
        self.abort();
    }
}
