//! When drills are due. So far: five fields, as crontab(5) means them.

mod crontab;

pub use crontab::{Crontab, CrontabError};
