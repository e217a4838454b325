//! firedrill proves that backups restore.
//!
//! A *scenario* says which system's backup to test and what "good" means. A *drill* takes one *recovery point* of it
//! through a read-only *vault view*, restores it into a *sandbox*, asks *checks*, measures the *objectives* and ends in
//! a *verdict*; its *evidence* is signed. The rooms below stand on floors and look only downwards; `ARCHITECTURE.md` has
//! the table and `tests/it/floors.rs` holds it.

pub mod domain;
pub mod evidence;

#[cfg(feature = "runner")]
pub mod app;
#[cfg(feature = "runner")]
pub mod archive;
#[cfg(feature = "runner")]
pub mod checks;
#[cfg(feature = "runner")]
pub mod cli;
#[cfg(feature = "runner")]
pub mod clock;
#[cfg(feature = "runner")]
pub mod codec;
#[cfg(feature = "runner")]
pub mod config;
#[cfg(feature = "runner")]
pub mod drill;
#[cfg(feature = "runner")]
pub mod report;
#[cfg(feature = "runner")]
pub mod restore;
#[cfg(feature = "runner")]
pub mod sandbox;
#[cfg(feature = "runner")]
pub mod schedule;
#[cfg(feature = "runner")]
pub mod seal;
#[cfg(feature = "runner")]
pub mod state;
#[cfg(feature = "runner")]
pub mod storage;
#[cfg(feature = "runner")]
pub mod tree;
#[cfg(feature = "runner")]
pub mod vault;
