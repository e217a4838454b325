//! When drills are due, and what became of each time that they were.
//!
//! - [`Crontab`]: five fields, as crontab(5) means them; [`Timetable`]: with a zone, windows and jitter.
//! - [`Memory`]: what the ledger tells of each scenario, a pure fold of its entries.
//! - [`Keeper`]: what is to be done now. No clock, no disk, no threads: whoever drives it has them, and a test drives years in seconds.

mod crontab;
mod keeper;
mod memory;
mod timetable;

pub use crontab::{Crontab, CrontabError};
pub use keeper::{Keeper, Orders};
pub use memory::{Ended, Known, Memory, Pause, Running, Unresolved};
pub use timetable::{Timetable, TimetableError};

#[cfg(test)]
mod years;
