//! Places outside of the runner that keep what they were given: the archive of evidence, and anchors of the ledger.

use std::fmt;
use std::path::PathBuf;

use jiff::civil::Date;
use jiff::{SignedDuration, tz};

use super::{Addressing, LockMode, Period, SecretRef, Timestamp};

/// Six years, as 45 CFR 164.316(b)(2)(i) has it, and what clocks and leap years may be off by.
pub const RETENTION: Period = Period::from_secs(2_200 * 86_400);

/// How often an anchor is due where something was entered.
pub const ANCHORED_EVERY: Period = Period::from_secs(86_400);

/// A bucket in which whatever is written is locked, and written once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedBucket {
    /// Its name.
    pub bucket: String,
    /// Prefix, without leading slash; empty or ending in a slash.
    pub prefix: String,
    /// URL of the server; AWS where absent.
    pub endpoint: Option<String>,
    /// Region.
    pub region: Option<String>,
    /// Whether plain HTTP may be used.
    pub allow_http: bool,
    /// PEM certificates to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// A profile of the shared AWS files.
    pub profile: Option<String>,
    /// Path style or virtual host style.
    pub addressing: Addressing,
    /// A key of its own, other than the one that reads backups.
    pub key: Option<AccessKey>,
    /// How it is locked.
    pub mode: LockMode,
    /// How long.
    pub retention: Period,
}

impl LockedBucket {
    /// As `s3://bucket/prefix/`.
    pub fn url(&self) -> String {
        format!("s3://{}/{}", self.bucket, self.prefix)
    }
}

/// The url, and the server where one is named: the same bucket's name elsewhere is another bucket.
impl fmt::Display for LockedBucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url())?;
        self.endpoint.as_ref().map_or(Ok(()), |endpoint| write!(f, " on {endpoint}"))
    }
}

/// Where id and secret of an access key are found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessKey {
    /// Its id.
    pub id: SecretRef,
    /// Its secret.
    pub secret: SecretRef,
}

/// Until when something must be kept: counted from the later of its creation and the end of the plan that it belongs to.
pub fn keep_until(created: Timestamp, plan_ends: Option<Date>, retention: Period) -> Timestamp {
    let end_of_day = |day: Date| Some(Timestamp(day.tomorrow().ok()?.to_zoned(tz::TimeZone::UTC).ok()?.timestamp()));
    let from = plan_ends.and_then(end_of_day).map_or(created, |ends| ends.max(created));
    let length = SignedDuration::from_secs(i64::try_from(retention.seconds).unwrap_or(i64::MAX));
    // locks know whole seconds: never shorter than asked
    let until = from.0.checked_add(length).unwrap_or(jiff::Timestamp::MAX);
    Timestamp::from_unix(until.as_second().saturating_add(i64::from(until.subsec_nanosecond() > 0)))
}

/// A place to which checkpoints of the ledger are carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnchorPlace {
    /// What it is called in the ledger.
    pub name: String,
    /// What it is.
    pub kind: AnchorKind,
    /// How often one is carried there, where something was entered.
    pub every: Period,
}

/// What keeps a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnchorKind {
    /// A bucket that locks.
    Bucket(Box<LockedBucket>),
    /// An authority that signs when it saw the checkpoint. RFC 3161.
    Timestamp {
        /// Where it is asked.
        url: String,
        /// Certificates of those who vouch for it, PEM.
        ca: PathBuf,
    },
    /// A directory that somebody carries away, or that another host has.
    Directory(PathBuf),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retention_counts_from_the_later_of_creation_and_the_plans_end() {
        let created: Timestamp = "2026-11-20T02:00:00.5Z".parse().unwrap();
        let two_days = Period::from_secs(2 * 86_400);
        let until = |plan: Option<&str>| keep_until(created, plan.map(|day| day.parse().unwrap()), two_days).to_string();
        assert_eq!(until(None), "2026-11-22T02:00:01Z");
        assert_eq!(until(Some("2020-01-01")), "2026-11-22T02:00:01Z", "a plan that ended before");
        assert_eq!(until(Some("2027-12-31")), "2028-01-03T00:00:00Z", "its last day counts");
        assert!(keep_until(created, None, RETENTION).seconds_since(created) > 6 * 366 * 86_400);
        let for_ever = Period::from_secs(u64::MAX);
        assert!(keep_until(created, Some(Date::MAX), for_ever) > created, "the end of time, not a wrap");
    }
}
