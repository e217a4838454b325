//! What waits to be archived, and what is: in the state directory, so that no crash forgets it.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::{ArchiveError, Archived, Why};
use crate::domain::{DrillId, Timestamp};

/// Evidence that waits to be archived.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queued {
    /// Which drill's.
    pub drill: DrillId,
    /// Where it is.
    pub directory: PathBuf,
    /// Since when.
    pub queued_at: Timestamp,
    /// The last try; none where there was none yet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Attempt>,
}

/// A try that came to nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// When.
    pub at: Timestamp,
    /// Why.
    pub why: String,
}

impl Queued {
    pub(super) fn failed(self, at: Timestamp, error: &ArchiveError) -> Self {
        Self { last: Some(Attempt { at, why: Why(error).to_string() }), ..self }
    }
}

/// A file for each drill whose evidence waits.
#[derive(Debug, Clone)]
pub(super) struct Outbox {
    directory: PathBuf,
}

impl Outbox {
    pub(super) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    pub(super) fn put(&self, entry: &Queued) -> Result<(), ArchiveError> {
        let bytes = serde_json::to_vec_pretty(entry).expect("an entry is plain data");
        write_durably(&self.path(&entry.drill), &bytes)
    }

    /// Oldest first.
    pub(super) fn all(&self) -> Result<Vec<Queued>, ArchiveError> {
        let local = |path: &Path| local(path.to_owned());
        let mut entries = Vec::new();
        let found = match fs::read_dir(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(entries),
            other => other.map_err(local(&self.directory))?,
        };
        for found in found {
            let path = found.map_err(local(&self.directory))?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                let bytes = fs::read(&path).map_err(local(&path))?;
                entries.push(serde_json::from_slice::<Queued>(&bytes).map_err(|e| local(&path)(e.into()))?);
            }
        }
        entries.sort_by(|one, other| one.drill.0.cmp(&other.drill.0));
        Ok(entries)
    }

    pub(super) fn remove(&self, drill: &DrillId) -> Result<(), ArchiveError> {
        let path = self.path(drill);
        fs::remove_file(&path).map_err(local(path))
    }

    fn path(&self, drill: &DrillId) -> PathBuf {
        self.directory.join(format!("{drill}.json"))
    }
}

/// A line for each drill whose evidence is archived, with where each version of it is.
#[derive(Debug, Clone)]
pub struct Register {
    path: PathBuf,
}

impl Register {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Every line. One that was cut short by a crash is none: its evidence is still queued.
    ///
    /// # Errors
    /// [`ArchiveError::Local`].
    pub fn all(&self) -> Result<Vec<Archived>, ArchiveError> {
        let text = match fs::read_to_string(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            other => other.map_err(local(self.path.clone()))?,
        };
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let read = |line: &str| serde_json::from_str(line).map_err(|e| local(self.path.clone())(e.into()));
        whole.lines().map(read).collect()
    }

    /// Drills that are in the bucket `place`.
    pub(super) fn drills(&self, place: &str) -> Result<BTreeSet<DrillId>, ArchiveError> {
        Ok(self.all()?.into_iter().filter(|line| line.place == place).map(|line| line.drill).collect())
    }

    pub(super) fn append(&self, archived: &Archived) -> Result<(), ArchiveError> {
        let mut line = serde_json::to_vec(archived).expect("a line is plain data");
        line.push(b'\n');
        let append = || {
            private_directory(self.path.parent().unwrap_or(Path::new(".")))?;
            let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&self.path)?;
            let text = fs::read(&self.path)?;
            // what a crash cut short is taken away
            let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            file.set_len(whole as u64)?;
            file.write_all(&line)?;
            file.sync_all()
        };
        append().map_err(local(self.path.clone()))
    }
}

fn local(path: PathBuf) -> impl FnOnce(io::Error) -> ArchiveError {
    move |source| ArchiveError::Local { path, source }
}

pub(super) fn private_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Writes a file whole or not at all; when this returns, it outlives the power.
pub(super) fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), ArchiveError> {
    let directory = path.parent().unwrap_or(Path::new("."));
    let aside = path.with_extension("partial");
    let write = || {
        private_directory(directory)?;
        let mut file = File::create(&aside)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(local(path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archived(drill: &str) -> Archived {
        Archived {
            drill: DrillId(drill.to_owned()),
            scenario: "ehr".parse().unwrap(),
            at: Timestamp::from_unix(0),
            place: "s3://safe/".to_owned(),
            keep_until: Timestamp::from_unix(9),
            sums_sha256: crate::domain::Sha256([7; 32]),
            files: Vec::new(),
        }
    }

    #[test]
    fn a_line_that_a_crash_cut_short_is_none_and_the_next_one_stands_alone() {
        let dir = tempfile::tempdir().unwrap();
        let register = Register::new(dir.path().join("state/archived.jsonl"));
        assert!(register.all().unwrap().is_empty());
        register.append(&archived("a")).unwrap();
        let whole = fs::read_to_string(&register.path).unwrap();
        fs::write(&register.path, format!("{whole}{}", &whole[..40])).unwrap();
        assert_eq!(register.all().unwrap(), [archived("a")]);
        register.append(&archived("b")).unwrap();
        assert_eq!(register.all().unwrap(), [archived("a"), archived("b")]);
        assert_eq!(register.drills("s3://safe/").unwrap().len(), 2);
        assert!(register.drills("s3://another/").unwrap().is_empty(), "another bucket has nothing yet");
        fs::write(&register.path, "nonsense\n").unwrap();
        assert!(matches!(register.all(), Err(ArchiveError::Local { .. })));
    }

    #[test]
    fn what_is_queued_is_there_once_and_until_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let outbox = Outbox::new(dir.path().join("queue"));
        let entry = |drill: &str| Queued {
            drill: DrillId(drill.to_owned()),
            directory: PathBuf::from("/evidence").join(drill),
            queued_at: Timestamp::from_unix(5),
            last: None,
        };
        for drill in ["b", "a", "b"] {
            outbox.put(&entry(drill)).unwrap();
        }
        // of a process that was killed while it wrote
        fs::write(dir.path().join("queue/c.partial"), "{").unwrap();
        assert_eq!(outbox.all().unwrap(), [entry("a"), entry("b")]);
        outbox.remove(&DrillId("a".to_owned())).unwrap();
        assert_eq!(outbox.all().unwrap(), [entry("b")]);
    }
}
