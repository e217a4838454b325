//! Hashes of the tree and where entries end: all that follows from the entries, kept so that nobody has to read them all.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use tlog_tiles::tlog::{
    Error, HASH_SIZE, Hash, HashReader, record_hash, split_stored_hash_index, stored_hash_count, stored_hash_index, stored_hashes,
    tree_hash,
};

/// Bytes that say where an entry ends; the hashes that it completes follow them.
const OFFSET: u64 = 8;

/// The tree on disk. What it has of an entry is appended with it and never changed.
pub(super) struct TreeFile(pub(super) File);

impl TreeFile {
    /// Bytes of the tree of `size` entries.
    pub(super) fn length(size: u64) -> u64 {
        size * OFFSET + stored_hash_count(size) * HASH_SIZE as u64
    }

    /// Where the first `size` entries end in their file.
    pub(super) fn end(&self, size: u64) -> io::Result<u64> {
        let Some(last) = size.checked_sub(1) else { return Ok(0) };
        let mut bytes = [0; OFFSET as usize];
        self.0.read_exact_at(&mut bytes, Self::length(last))?;
        Ok(u64::from_le_bytes(bytes))
    }

    /// Whether entry `index` is this one.
    pub(super) fn has(&self, index: u64, entry: &[u8]) -> io::Result<bool> {
        let found = self.read_hashes(&[stored_hash_index(0, index)]).map_err(io::Error::other)?;
        Ok(found == [record_hash(entry)])
    }

    /// What is appended for entry `index`, which ends at `end`.
    pub(super) fn record(&self, index: u64, entry: &[u8], end: u64) -> io::Result<Vec<u8>> {
        let mut bytes = end.to_le_bytes().to_vec();
        for hash in stored_hashes(index, entry, self).map_err(io::Error::other)? {
            bytes.extend_from_slice(&hash.0);
        }
        Ok(bytes)
    }

    /// The root over `size` entries.
    pub(super) fn root(&self, size: u64) -> io::Result<Hash> {
        tree_hash(size, self).map_err(io::Error::other)
    }
}

impl HashReader for TreeFile {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, Error> {
        let read = |index: &u64| {
            let (level, n) = split_stored_hash_index(*index);
            let completed_by = (n + 1) << level;
            let mut hash = Hash::default();
            self.0.read_exact_at(&mut hash.0, completed_by * OFFSET + index * HASH_SIZE as u64)?;
            Ok(hash)
        };
        indexes.iter().map(|index| read(index).map_err(|e: io::Error| Error::InvalidInput(e.to_string()))).collect()
    }
}

/// The tree in memory, for reading a ledger from end to end.
#[derive(Default)]
pub(super) struct TreeMemory(Vec<Hash>);

impl TreeMemory {
    /// Takes the next entry up.
    pub(super) fn push(&mut self, index: u64, entry: &[u8]) -> io::Result<()> {
        let new = stored_hashes(index, entry, self).map_err(io::Error::other)?;
        self.0.extend(new);
        Ok(())
    }

    /// The root over the first `size` entries.
    pub(super) fn root(&self, size: u64) -> io::Result<Hash> {
        tree_hash(size, self).map_err(io::Error::other)
    }
}

impl HashReader for TreeMemory {
    fn read_hashes(&self, indexes: &[u64]) -> Result<Vec<Hash>, Error> {
        let at = |index: &u64| usize::try_from(*index).ok().and_then(|index| self.0.get(index)).copied();
        indexes.iter().map(|index| at(index).ok_or(Error::IndexesNotInTree)).collect()
    }
}
