//! Proof that one entry is in the log, good without the log. C2SP `tlog-proof`; its extra data is the entry itself.

use std::io;

use data_encoding::BASE64;
use tlog_tiles::tlog::{self, Hash};

use super::super::TrustFile;
use super::checkpoint::Checkpoint;
use super::entry::Entry;
use super::error::LedgerRefusal;
use super::tree::TreeFile;

const HEADER: &str = "c2sp.org/tlog-proof@v1";

/// An entry, and proof that a checkpoint covers it.
#[derive(Debug, Clone)]
pub struct Proof {
    /// The entry.
    pub entry: Entry,
    /// What covers it.
    pub checkpoint: Checkpoint,
    bytes: Vec<u8>,
}

impl Proof {
    pub(super) fn make(tree: &TreeFile, index: u64, line: Vec<u8>, last: &Checkpoint) -> io::Result<Self> {
        let entry = serde_json::from_slice(&line)?;
        let hashes = tlog::prove_record(last.size, index, tree).map_err(io::Error::other)?;
        let mut bytes = format!("{HEADER}\nextra {}\nindex {index}\n", BASE64.encode(&line)).into_bytes();
        for hash in hashes {
            bytes.extend_from_slice(format!("{hash}\n").as_bytes());
        }
        bytes.push(b'\n');
        bytes.extend_from_slice(&last.bytes);
        Ok(Self { entry, checkpoint: last.clone(), bytes })
    }

    /// As it is written to a file: `*.tlog-proof`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Reads a proof and checks it: its checkpoint is signed by a key of `trust`, and covers the entry at its index.
    ///
    /// # Errors
    /// [`LedgerRefusal`].
    pub fn open(bytes: &[u8], trust: &TrustFile) -> Result<Self, LedgerRefusal> {
        let no = |why: &str| LedgerRefusal::NoCheckpoint { what: "the proof".to_owned(), why: why.to_owned() };
        let text = std::str::from_utf8(bytes).map_err(|_| no("not text"))?;
        let (proof, checkpoint) = text.split_once("\n\n").ok_or_else(|| no("it has no checkpoint"))?;
        let mut lines = proof.lines();
        if lines.next() != Some(HEADER) {
            return Err(no("not a C2SP tlog-proof"));
        }
        let extra = lines.next().and_then(|line| line.strip_prefix("extra ")).and_then(|text| BASE64.decode(text.as_bytes()).ok());
        let line = extra.ok_or_else(|| no("it does not have the entry"))?;
        let index = lines.next().and_then(|line| line.strip_prefix("index ")).and_then(|text| text.parse::<u64>().ok());
        let index = index.ok_or_else(|| no("it does not have the entry's place"))?;
        let hashes: Vec<Hash> = lines.map(Hash::parse_hash).collect::<Result<_, _>>().map_err(|_| no("its hashes cannot be read"))?;
        let checkpoint = Checkpoint::open(checkpoint.as_bytes(), trust, "the proof's checkpoint")?;
        let entry: Entry =
            serde_json::from_slice(&line).map_err(|e| LedgerRefusal::Entry { index, what: format!("it is no entry: {e}") })?;
        if index >= checkpoint.size || entry.index != index {
            return Err(LedgerRefusal::Entry { index, what: "it is not in its place".to_owned() });
        }
        tlog::check_record(&hashes, checkpoint.size, checkpoint.root, index, tlog::record_hash(&line))
            .map_err(|_| LedgerRefusal::Root { what: "the proof's checkpoint".to_owned(), covered: checkpoint.size })?;
        trust.judge(&checkpoint.signer, entry.at)?;
        Ok(Self { entry, checkpoint, bytes: bytes.to_vec() })
    }
}
