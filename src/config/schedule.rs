//! When drills are due.

use schemars::JsonSchema;
use serde::Deserialize;

use super::reader::Reader;
use crate::domain::{MissedPolicy, Retry, Schedule, Window};
use crate::schedule::Crontab;

/// When drills are due.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ScheduleTable {
    /// Five fields as in crontab, as "0 3 1 1,4,7,10 *", or "@quarterly"; or "@every 6h".
    pub cron: String,
    /// IANA time zone, as "America/Chicago".
    #[serde(default = "utc")]
    pub time_zone: String,
    /// A drill starts up to this much later than it is due, as "10m": so that many scenarios of one line do not start at once.
    pub jitter: Option<String>,
    /// Times in which drills may start, as "Mon-Fri 20:00-06:00" or "Sat,Sun"; any where there are none.
    #[serde(default)]
    pub windows: Vec<String>,
    /// What becomes of drills that were due while the runner was down.
    #[serde(default)]
    pub missed: MissedWord,
    /// How long after its time a drill may still start, as "12h"; until the next one is due by default.
    pub late: Option<String>,
    /// What is done after a drill that came to no result.
    pub retry: Option<RetryTable>,
}

fn utc() -> String {
    "UTC".to_owned()
}

/// What becomes of drills that were due while the runner was down.
#[derive(Debug, Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MissedWord {
    /// The last one runs late; those before it are recorded as missed.
    #[default]
    Run,
    /// All of them are recorded as missed.
    Record,
}

/// A drill that came to no result is tried again, each time after twice as long.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RetryTable {
    /// How often; 2 by default, 0 for never.
    pub attempts: Option<u32>,
    /// How long after the first one's end; "15m" by default.
    pub after: Option<String>,
}

impl Reader<'_> {
    pub(super) fn schedule(&mut self, table: &ScheduleTable) -> Option<Schedule> {
        let cron: Option<Crontab> = self.parse("schedule.cron", &table.cron);
        let time_zone = self.zone("schedule.time_zone", &table.time_zone);
        let windows: Vec<Option<Window>> =
            table.windows.iter().enumerate().map(|(n, text)| self.parse(&format!("schedule.windows.{n}"), text)).collect();
        let default = Retry::default();
        let retry = table.retry.as_ref().map_or(default, |retry| Retry {
            attempts: retry.attempts.unwrap_or(default.attempts),
            after: self.maybe("schedule.retry.after", retry.after.as_ref()).unwrap_or(default.after),
        });
        Some(Schedule {
            cron: cron?.to_string(),
            time_zone: time_zone?,
            jitter: self.maybe("schedule.jitter", table.jitter.as_ref()).unwrap_or_default(),
            windows: windows.into_iter().collect::<Option<_>>()?,
            missed: match table.missed {
                MissedWord::Run => MissedPolicy::Run,
                MissedWord::Record => MissedPolicy::Record,
            },
            late: self.maybe("schedule.late", table.late.as_ref()),
            retry,
        })
    }
}
