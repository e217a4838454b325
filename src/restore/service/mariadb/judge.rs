//! What the server said of what was loaded into it or applied to it.

use super::super::meaning::{Meaning, tally, worst};
use super::super::{ServiceError, Shop, how};
use super::server::Server;
use super::words::{self, Skew, ToldError};
use crate::domain::ServiceProblem;
use crate::sandbox::Exit;

/// What to do where users are missing.
pub(super) const USERS: &str = "; back up the users as well (mariadb-dump --system=users), and name them: users = …";

/// Whether all of it was taken; `what` is said first of what was not.
pub(super) fn judge(shop: &Shop<'_>, server: &Server, skew: Skew, exit: &Exit, what: &str) -> Result<(), ServiceError> {
    if let Some(full) = shop.sandbox.scratch_is_full() {
        return Err(full.into());
    }
    let errors = words::errors(&exit.stderr);
    let output = || [server.log(shop), crate::restore::tool::last_words(exit)].concat();
    if errors.iter().any(|e| words::LOST.contains(&e.number)) {
        return Err(ServiceError::backup(ServiceProblem::Crashed, "it ended while it was loaded", output()));
    }
    let judged: Vec<(Meaning, &ToldError)> =
        errors.iter().map(|e| (words::meaning(e, skew), e)).filter(|(m, _)| *m != Meaning::Nothing).collect();
    let worst = worst(&judged.iter().map(|(m, _)| *m).collect::<Vec<_>>(), &output)?;
    match worst {
        Some(problem) => {
            let told = tally(judged.iter().map(|(_, e)| words::name(e.number)));
            let advice = match problem {
                ServiceProblem::RolesMissing => USERS,
                ServiceProblem::RoutinesMissing => "; back up the routines as well (mariadb-dump --routines)",
                _ => "",
            };
            let more = if exit.stderr_dropped > 0 { "more than " } else { "" };
            Err(ServiceError::backup(problem, format!("{what}{more}{} errors ({told}){advice}", judged.len()), output()))
        }
        None if exit.success() || !errors.is_empty() => Ok(()),
        None => Err(ServiceError::backup(ServiceProblem::LoadRefused, format!("{what}mariadb {}", how(exit)), output())),
    }
}
