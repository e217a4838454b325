//! What a server's errors mean while something is loaded, whichever words it has for them.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::ServiceError;
use crate::domain::ServiceProblem;

/// What an error while loading means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Every fresh server says it, and it says nothing.
    Nothing,
    /// This host lacks something that the backup may rightly ask for.
    Host(&'static str),
    /// Scratch ran out.
    Full,
    /// The backup lacks something.
    Backup(ServiceProblem),
}

/// What all errors together say of the backup: the problem that explains most, as a missing user or routine has others after it.
///
/// What the host lacks brings errors of its own after it: nothing is learned of the backup then.
pub(super) fn worst(meanings: &[Meaning], output: &dyn Fn() -> Vec<u8>) -> Result<Option<ServiceProblem>, ServiceError> {
    if meanings.contains(&Meaning::Full) {
        return Err(ServiceError::runner("scratch ran full while it was loaded; give it more: [sandbox] scratch", output()));
    }
    if let Some(lacks) = meanings.iter().find_map(|m| if let Meaning::Host(lacks) = m { Some(*lacks) } else { None }) {
        return Err(ServiceError::runner(lacks, output()));
    }
    Ok(meanings.iter().filter_map(|m| if let Meaning::Backup(problem) = m { Some(*problem) } else { None }).max())
}

/// How many of which, as `undefined_object 3, duplicate_table 1`.
pub(super) fn tally(names: impl IntoIterator<Item = String>) -> String {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| Reverse(*count));
    counts.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
}
