//! What the credentials of a drill may do beyond reading. A drill needs nothing of it.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Cause, Finding, FindingKind, Period, Timestamp};

/// A right that no drill needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// Store objects, and so overwrite them.
    Write,
    /// Delete a name; where versions are kept that only hides what it stood for.
    Delete,
    /// Remove a version for good.
    DeleteVersion,
    /// Put retention on a version.
    SetRetention,
    /// Lift retention in governance mode.
    BypassGovernance,
    /// Change what the bucket locks.
    SetLock,
    /// Change whether the bucket keeps versions.
    SetVersioning,
}

impl Right {
    /// As shown to people.
    pub const fn words(self) -> &'static str {
        match self {
            Right::Write => "store objects",
            Right::Delete => "delete objects",
            Right::DeleteVersion => "remove versions for good",
            Right::SetRetention => "set retention",
            Right::BypassGovernance => "bypass governance",
            Right::SetLock => "change the bucket's lock",
            Right::SetVersioning => "change versioning",
        }
    }

    /// What grants it, in S3's words.
    pub const fn action(self) -> &'static str {
        match self {
            Right::Write => "s3:PutObject",
            Right::Delete => "s3:DeleteObject",
            Right::DeleteVersion => "s3:DeleteObjectVersion",
            Right::SetRetention => "s3:PutObjectRetention",
            Right::BypassGovernance => "s3:BypassGovernanceRetention",
            Right::SetLock => "s3:PutBucketObjectLockConfiguration",
            Right::SetVersioning => "s3:PutBucketVersioning",
        }
    }
}

/// Whether somebody may do something. Three-valued: not every question can be asked without doing harm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(tag = "may", rename_all = "snake_case")]
pub enum May {
    /// Yes.
    Yes,
    /// No: the server refused.
    No,
    /// Nobody can say.
    Unknown {
        /// Why.
        why: String,
    },
}

impl fmt::Display for May {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            May::Yes => f.write_str("yes"),
            May::No => f.write_str("no"),
            May::Unknown { why } => write!(f, "unknown: {why}"),
        }
    }
}

/// What was found when it was asked last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct RightsFacts {
    /// When.
    pub asked_at: Timestamp,
    /// Whether the bucket keeps versions, or kept them; `None` where that is not visible.
    pub versioned: Option<bool>,
    /// The answers.
    pub rights: BTreeMap<Right, May>,
    /// Whether nothing was left under the name that was asked with; `None` where that could not be seen.
    pub nothing_left: Option<bool>,
}

/// What a scenario demands of the credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RightsPolicy {
    /// Nothing beyond reading.
    ReadOnly,
}

/// Older answers do not count: rights change.
pub const RIGHTS_AGE: Period = Period::from_secs(100 * 86_400);

impl RightsFacts {
    /// Rights beyond reading that are known to be there.
    pub fn excess(&self) -> Vec<Right> {
        self.rights.iter().filter(|(_, may)| **may == May::Yes).map(|(right, _)| *right).collect()
    }

    /// Rights that would matter and are not known. A delete marker removes nothing where versions are kept; governance is
    /// bypassed by whoever may remove versions; retention only ever keeps, and some servers cannot be asked about it.
    fn undecided(&self) -> Vec<Right> {
        use Right as R;
        [R::Write, R::Delete, R::DeleteVersion, R::SetLock, R::SetVersioning]
            .into_iter()
            .filter(|right| *right != R::Delete || self.versioned != Some(true))
            .filter(|right| !matches!(self.rights.get(right), Some(May::Yes | May::No)))
            .collect()
    }
}

fn list(rights: &[Right]) -> String {
    rights.iter().map(|right| right.words()).collect::<Vec<_>>().join(", ")
}

/// What follows from the answers for a drill that starts at `now`.
pub fn judge_rights(facts: Option<&RightsFacts>, policy: Option<RightsPolicy>, now: Timestamp) -> Vec<Finding> {
    const STEP: &str = "rights";
    let unknown = |reason: String| Finding::runner(STEP, FindingKind::RightsUnknown { reason });
    let advice = "`firedrill doctor SCENARIO` asks without harming anything";
    let Some(facts) = facts else {
        let reason = format!("what these credentials may do beyond reading was never asked; {advice}");
        return vec![match policy {
            Some(RightsPolicy::ReadOnly) => unknown(reason),
            None => Finding::note(STEP, Cause::Runner, FindingKind::Remark { detail: reason }),
        }];
    };
    let mut findings = Vec::new();
    let excess = facts.excess();
    if !excess.is_empty() {
        let kind = FindingKind::ExcessRights { rights: excess, asked_at: facts.asked_at };
        findings.push(match policy {
            Some(RightsPolicy::ReadOnly) => Finding::backup(STEP, kind),
            None => Finding::warning(STEP, Cause::Backup, kind),
        });
    }
    let old = now.seconds_since(facts.asked_at) > RIGHTS_AGE.seconds as i64;
    let undecided = facts.undecided();
    if policy.is_some() && old {
        let asked = facts.asked_at.to_human();
        findings.push(unknown(format!("what these credentials may do was last asked on {asked}, more than {RIGHTS_AGE} ago; {advice}")));
    } else if policy.is_some() && !undecided.is_empty() {
        findings.push(unknown(format!("whether these credentials may {} could not be found out", list(&undecided))));
    }
    findings
}

impl FindingKind {
    /// The text of [`FindingKind::ExcessRights`].
    pub(super) fn excess_words(rights: &[Right], asked_at: Timestamp) -> String {
        let actions: Vec<&str> = rights.iter().map(|right| right.action()).collect();
        format!(
            "these credentials may do more than read: {} (asked on {}); take away {}",
            list(rights),
            asked_at.to_human(),
            actions.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Severity;

    fn facts(write: May, asked_at: i64) -> RightsFacts {
        use Right as R;
        let mut rights: BTreeMap<Right, May> =
            [R::DeleteVersion, R::SetRetention, R::SetLock, R::SetVersioning].into_iter().map(|right| (right, May::No)).collect();
        rights.insert(R::Write, write);
        rights.insert(R::Delete, May::Unknown { why: "a marker".into() });
        RightsFacts { asked_at: Timestamp::from_unix(asked_at), versioned: Some(true), rights, nothing_left: Some(true) }
    }

    #[test]
    fn rights_are_judged_by_policy_and_age() {
        let day = 86_400;
        let now = Timestamp::from_unix(200 * day);
        let unknown = || May::Unknown { why: "x".into() };
        let policy = Some(RightsPolicy::ReadOnly);
        let unversioned = RightsFacts { versioned: Some(false), ..facts(May::No, 199 * day) };
        for (facts, policy, expected) in [
            (None, None, &[(Severity::Note, Cause::Runner)][..]),
            (None, policy, &[(Severity::Fail, Cause::Runner)]),
            (Some(facts(May::No, 199 * day)), None, &[]),
            (Some(facts(May::No, 199 * day)), policy, &[]),
            (Some(facts(May::Yes, 199 * day)), None, &[(Severity::Warn, Cause::Backup)]),
            (Some(facts(May::Yes, 199 * day)), policy, &[(Severity::Fail, Cause::Backup)]),
            (Some(facts(unknown(), 199 * day)), None, &[]),
            (Some(facts(unknown(), 199 * day)), policy, &[(Severity::Fail, Cause::Runner)]),
            (Some(facts(May::No, 99 * day)), policy, &[(Severity::Fail, Cause::Runner)]),
            (Some(facts(May::No, 101 * day)), policy, &[]),
            // where nothing is kept, whether objects can be deleted must be known
            (Some(unversioned), policy, &[(Severity::Fail, Cause::Runner)]),
        ] {
            let found: Vec<_> = judge_rights(facts.as_ref(), policy, now).iter().map(|f| (f.severity, f.cause)).collect();
            assert_eq!(found, expected, "{facts:?} {policy:?}");
        }
    }
}
