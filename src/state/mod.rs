//! What a daemon remembers between two starts. Everything in it follows from the ledger, and can be made anew from it.
//!
//! - the fold of the ledger's entries ([`Memory`]), so that a start does not read a million of them;
//! - the checkpoint up to which that goes: a log that was replaced or shortened meanwhile does not go on from it.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OpenFlags, OptionalExtension as _, Params, TransactionBehavior, params};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::domain::{DrillId, ScenarioName};
use crate::schedule::Memory;

/// The steps from an empty database to today's, in their order. What was released is never changed: the next step is added.
const STEPS: [&str; 1] = ["
    create table meta (name text primary key, value blob not null) strict, without rowid;
    create table scenarios (name text primary key, known text not null) strict, without rowid;
    create table open_drills (id text primary key, running text not null) strict, without rowid;
"];

/// Today's form.
const NOW: u32 = STEPS.len() as u32;

/// So long others may keep it locked.
const PATIENCE: Duration = Duration::from_secs(10);

/// Its file, in the state directory.
pub const FILE: &str = "state.sqlite";

/// Why what is remembered cannot be used. Nothing is lost: it can be made anew.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// SQLite says no.
    #[error("{path} cannot be used: {source}")]
    Database {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// It cannot be removed.
    #[error("{path} cannot be removed: {source}")]
    Stays {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A newer firedrill wrote it.
    #[error("{path} was written by a newer firedrill (form {found}; this one knows up to {known})")]
    Newer {
        /// Which file.
        path: PathBuf,
        /// Its form.
        found: u32,
        /// The newest form that is known.
        known: u32,
    },
    /// What is in it cannot be understood.
    #[error("{path} is damaged: {what} cannot be read: {source}")]
    Unreadable {
        /// Which file.
        path: PathBuf,
        /// What of it.
        what: &'static str,
        /// Why.
        source: serde_json::Error,
    },
}

/// What is remembered, on disk.
#[derive(Debug)]
pub struct State {
    database: Connection,
    path: PathBuf,
}

impl State {
    /// Opens the one in `directory` to read from, where there is one of today's form.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn look(directory: &Path) -> Result<Option<Self>, StateError> {
        let path = directory.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        let failed = |source| StateError::Database { path: path.clone(), source };
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let database = Connection::open_with_flags(&path, flags).map_err(failed)?;
        database.busy_timeout(PATIENCE).map_err(failed)?;
        let found: u32 = database.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
        // whoever keeps schedules is making it, or will bring it to today's form
        if found < NOW {
            return Ok(None);
        }
        if found > NOW {
            return Err(StateError::Newer { path, found, known: NOW });
        }
        Ok(Some(Self { database, path }))
    }

    /// Removes it, whatever state it is in.
    ///
    /// # Errors
    /// [`StateError::Stays`].
    pub fn remove(directory: &Path) -> Result<(), StateError> {
        for suffix in ["", "-wal", "-shm"] {
            let path = directory.join(format!("{FILE}{suffix}"));
            match fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => return Err(StateError::Stays { path, source }),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Opens or makes it in `directory`, and brings it to today's form.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn open(directory: &Path) -> Result<Self, StateError> {
        let path = directory.join(FILE);
        let failed = |source| StateError::Database { path: path.clone(), source };
        let mut database = Connection::open(&path).map_err(failed)?;
        // of patients there is nothing in it, and it is nobody else's business either
        let _ = fs::set_permissions(&path, fs::Permissions::from_mode(0o600));
        database.busy_timeout(PATIENCE).map_err(failed)?;
        database.pragma_update(None, "journal_mode", "wal").map_err(failed)?;
        database.pragma_update(None, "synchronous", "full").map_err(failed)?;
        let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
        let found: u32 = transaction.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(failed)?;
        if found > NOW {
            return Err(StateError::Newer { path, found, known: NOW });
        }
        for step in &STEPS[found as usize..] {
            transaction.execute_batch(step).map_err(failed)?;
        }
        transaction.pragma_update(None, "user_version", NOW).map_err(failed)?;
        transaction.commit().map_err(failed)?;
        Ok(Self { database, path })
    }

    /// The fold of the entries that were taken up.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn memory(&self) -> Result<Memory, StateError> {
        let entries = self.meta("entries")?.map_or(Ok(0), |bytes| self.read("the count of entries", &bytes))?;
        let settings = self.meta("settings")?.map_or(Ok(None), |bytes| self.read("the settings", &bytes))?;
        let mut memory = Memory { entries, settings, ..Memory::default() };
        for (name, known) in self.pairs("select name, known from scenarios", [])? {
            let name = self.read("a scenario's name", json(&name).as_bytes())?;
            memory.scenarios.insert(name, self.read("a scenario", known.as_bytes())?);
        }
        for (drill, running) in self.pairs("select id, running from open_drills", [])? {
            memory.open.insert(DrillId(drill), self.read("a drill", running.as_bytes())?);
        }
        Ok(memory)
    }

    /// The checkpoint of the log when entries were last taken up.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn checkpoint(&self) -> Result<Option<Vec<u8>>, StateError> {
        self.meta("checkpoint")
    }

    /// Keeps what changed in `memory` of the scenarios that are `touched`, and the checkpoint that covers its entries: all or nothing.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn keep(&mut self, memory: &Memory, touched: &BTreeSet<ScenarioName>, checkpoint: &[u8]) -> Result<(), StateError> {
        let write = |database: &mut Connection| -> rusqlite::Result<()> {
            let transaction = database.transaction()?;
            for name in touched {
                if let Some(known) = memory.scenarios.get(name) {
                    transaction.execute("insert or replace into scenarios values (?, ?)", params![name.to_string(), json(known)])?;
                }
            }
            transaction.execute("delete from open_drills", [])?;
            for (drill, running) in &memory.open {
                transaction.execute("insert into open_drills values (?, ?)", params![drill.0, json(running)])?;
            }
            let meta = "insert or replace into meta values (?, ?)";
            transaction.execute(meta, params!["entries", memory.entries.to_string().as_bytes()])?;
            transaction.execute(meta, params!["settings", json(&memory.settings).as_bytes()])?;
            transaction.execute(meta, params!["checkpoint", checkpoint])?;
            transaction.commit()
        };
        write(&mut self.database).map_err(|source| StateError::Database { path: self.path.clone(), source })
    }

    fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, StateError> {
        let found = self.database.query_row("select value from meta where name = ?", [name], |row| row.get(0));
        found.optional().map_err(|source| self.failed(source))
    }

    fn pairs(&self, query: &str, asked: impl Params) -> Result<Vec<(String, String)>, StateError> {
        let rows = |database: &Connection| -> rusqlite::Result<Vec<(String, String)>> {
            database.prepare(query)?.query_map(asked, |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        };
        rows(&self.database).map_err(|source| self.failed(source))
    }

    fn read<T: DeserializeOwned>(&self, what: &'static str, text: &[u8]) -> Result<T, StateError> {
        serde_json::from_slice(text).map_err(|source| StateError::Unreadable { path: self.path.clone(), what, source })
    }

    fn failed(&self, source: rusqlite::Error) -> StateError {
        StateError::Database { path: self.path.clone(), source }
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("our own types have string keys")
}
