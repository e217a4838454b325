//! The one place where errors become findings. Who is to blame was decided by the room that knows; here it is only said.

use crate::codec::Limit;
use crate::domain::{Cause, Finding, FindingKind, Period, Pseudonym, Scenario, SelectError};
use crate::restore::tool::ToolError;
use crate::restore::{EntryName, Member, RestoreError};
use crate::sandbox::SandboxError;
use crate::vault::VaultError;

use super::KeyError;

/// Why a drill could not go on: findings, at least one of which fails it.
#[derive(Debug)]
pub struct Stop(Vec<Finding>);

impl Stop {
    /// The findings.
    pub fn into_findings(self) -> Vec<Finding> {
        self.0
    }
    pub(super) fn one(finding: Finding) -> Self {
        Self(vec![finding])
    }
    pub(super) fn several(findings: Vec<Finding>) -> Self {
        Self(findings)
    }
    pub(super) fn interrupted() -> Self {
        Self::one(Finding::runner("drill", FindingKind::Interrupted { how: "ended by whoever started it".into() }))
    }
    pub(super) fn out_of_time(step: &str, limit: Period) -> Self {
        Self::one(Finding::runner(step, FindingKind::SandboxLimit { limit: "time".into(), value: limit.to_string() }))
    }
    pub(super) fn crashed(step: &str) -> Self {
        Self::one(Finding::runner(
            step,
            FindingKind::CouldNotRun { reason: "this step broke down inside firedrill; please report it".into() },
        ))
    }
    pub(super) fn missing(object: Pseudonym, role: &str) -> Self {
        Self::one(Finding::backup("manifest", FindingKind::ObjectMissing { object, role: role.to_owned() }))
    }
    pub(super) fn damaged(object: Pseudonym, layer: &str, detail: String) -> Self {
        Self::one(Finding::backup("manifest", FindingKind::ObjectDamaged { object, layer: layer.to_owned(), detail }))
    }
    pub(super) fn differs(object: Pseudonym, detail: &str) -> Self {
        Self::one(Finding::backup("manifest", FindingKind::ObjectDiffers { object, detail: detail.to_owned() }))
    }
    pub(super) fn untrusted(detail: String) -> Self {
        Self::one(Finding::backup("manifest", FindingKind::UntrustedProducer { detail }))
    }

    /// A failure to read the storage while doing `step`.
    pub(super) fn vault(step: &str, error: &VaultError, object: Pseudonym) -> Self {
        let kind = error.finding(&object);
        Self::one(match error.blame() {
            Cause::Backup => Finding::backup(step, kind),
            Cause::Runner => Finding::runner(step, kind),
        })
    }

    /// A foreign tool, while doing `step`. `output` stands for what it printed.
    pub(super) fn tool(step: &str, tool: &str, error: &ToolError, output: Option<Pseudonym>) -> Self {
        if let ToolError::Sandbox(error) = error {
            // the sandbox knows which bound was hit
            return Self::one(Finding::runner(step, error.finding()));
        }
        let tool = tool.to_owned();
        Self::one(match error.blame() {
            Cause::Backup => Finding::backup(step, FindingKind::ToolFailed { tool, how: error.to_string(), output }),
            Cause::Runner => {
                let reason = format!("{error}; {}", error.advice());
                Finding::runner(step, FindingKind::ToolCouldNotRun { tool, reason, output })
            }
        })
    }

    /// The gateway could not be started.
    pub(super) fn no_gateway(error: std::io::Error) -> Self {
        let reason = format!("the gateway for the scenario's tools could not be started: {error}");
        Self::one(Finding::runner("gateway", FindingKind::CouldNotRun { reason }))
    }

    /// Nothing was selected. Storage that answers and has nothing is a backup that is not there; an id that nobody has is a
    /// question about nothing. `nothing_yet` says why there was nothing at an earlier instant.
    pub(super) fn selection(error: &SelectError, broken: &[&str], nothing_yet: Option<String>) -> Self {
        if let (SelectError::None | SelectError::NoneBefore(_), Some(detail)) = (error, nothing_yet) {
            return Self::one(Finding::backup("locate", FindingKind::NoRecoveryPoint { detail }));
        }
        match error {
            SelectError::NoSuchId(id) if broken.contains(&id.as_str()) => {
                let detail = "its manifest cannot be read".to_owned();
                Self::one(Finding::backup("locate", FindingKind::NoRecoveryPoint { detail }))
            }
            SelectError::NoSuchId(_) => {
                let detail = "none has the id that was asked for; `firedrill points` lists them".to_owned();
                Self::one(Finding::runner("locate", FindingKind::NoRecoveryPoint { detail }))
            }
            SelectError::None if !broken.is_empty() => {
                let detail = format!("{} sets lie under this prefix, and none has a manifest that can be read", broken.len());
                Self::one(Finding::backup("locate", FindingKind::NoRecoveryPoint { detail }))
            }
            SelectError::None => {
                let detail = "the storage answers, and holds none under this prefix with this name pattern".to_owned();
                Self::one(Finding::backup("locate", FindingKind::NoRecoveryPoint { detail }))
            }
            SelectError::NoneBefore(at) => {
                let detail = format!("none was captured at or before {}", at.to_human());
                Self::one(Finding::backup("locate", FindingKind::NoRecoveryPoint { detail }))
            }
        }
    }

    /// A failed restore. `object` names members, `entry` names entries.
    pub(super) fn restore(
        error: &RestoreError,
        object: &dyn Fn(Member) -> Pseudonym,
        entry: &dyn Fn(&EntryName) -> Pseudonym,
        scenario: &Scenario,
    ) -> Self {
        // a storage error travels through the pipeline as it is
        if let RestoreError::Source { member, source } = error
            && let Some(vault) = source.get_ref().and_then(|inner| inner.downcast_ref::<VaultError>())
        {
            return Self::vault("restore", vault, object(*member));
        }
        let kind = kind_of(error, object, entry, scenario);
        Self::one(match error.blame() {
            Cause::Backup => Finding::backup("restore", kind),
            Cause::Runner => Finding::runner("restore", kind),
        })
    }
}

fn kind_of(
    error: &RestoreError,
    object: &dyn Fn(Member) -> Pseudonym,
    entry: &dyn Fn(&EntryName) -> Pseudonym,
    scenario: &Scenario,
) -> FindingKind {
    use FindingKind as K;
    use RestoreError as E;
    match error {
        E::Damaged { member, layer, detail } => {
            K::ObjectDamaged { object: object(*member), layer: layer.word().to_owned(), detail: detail.clone() }
        }
        E::Truncated { member, layer, detail } => {
            K::ObjectTruncated { object: object(*member), layer: layer.word().to_owned(), detail: detail.clone() }
        }
        E::Differs { member, detail } => K::ObjectDiffers { object: object(*member), detail: detail.clone() },
        E::NoMatchingRecipient { member, .. } | E::PassphraseEncrypted { member } => {
            K::NoMatchingRecipient { object: object(*member), detail: error.to_string() }
        }
        E::NotEncrypted { member } => K::NotEncrypted { object: object(*member) },
        E::Hostile { entry: name, rule } => K::HostileEntry { entry: entry(name), rule: rule.to_string() },
        E::ScratchFull | E::Budget { limit: Limit::Bytes, .. } => K::ScratchFull { limit: scenario.limits.scratch_size },
        E::Budget { limit, allowed } => K::BudgetExceeded { budget: limit.word().to_owned(), limit: *allowed },
        E::Empty { detail } => K::EmptyRestore { detail: (*detail).to_owned() },
        E::Scratch { source, .. } | E::Source { source, .. } => K::CouldNotRun { reason: format!("{error}: {}", source.kind()) },
        E::Unsupported { .. } => K::CouldNotRun { reason: error.to_string() },
        E::Cancelled => K::Interrupted { how: "ended from outside".into() },
    }
}

impl From<SandboxError> for Stop {
    fn from(error: SandboxError) -> Self {
        let mut kind = error.finding();
        if let (FindingKind::SandboxUnavailable { reason }, Some(advice)) = (&mut kind, error.advice()) {
            reason.push_str("; ");
            reason.push_str(advice);
        }
        Self::one(Finding::runner("sandbox", kind))
    }
}

impl From<KeyError> for Stop {
    fn from(error: KeyError) -> Self {
        Self::one(Finding::runner("keys", FindingKind::KeyUnusable { reason: error.to_string() }))
    }
}
