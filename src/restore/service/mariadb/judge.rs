//! What the server said of what was loaded into it or applied to it.

use super::super::meaning::{Meaning, tally, worst};
use super::super::{ServiceError, Shop, how};
use super::server::Server;
use super::words::{self, Skew, ToldError};
use crate::domain::ServiceProblem;
use crate::sandbox::Exit;

/// What to do where users are missing.
pub(super) const USERS: &str = "; back up the users as well (mariadb-dump --system=users), and name them: users = …";

/// What a client of the server is run with, and what its output goes through: dumps ask for no substitutes to be errors, so that the
/// server takes another engine for one that it does not know, and says so in a warning alone (`ER_WARN_USING_OTHER_HANDLER`).
pub(super) const LOADING: [&str; 3] = ["--binary-mode", "--batch", "--show-warnings"];
pub(super) const SUBSTITUTES: &str = "LC_ALL=C grep -a -c '^Warning (Code 1266)'";

/// Whether all of it was taken, by errors and by the count of substitutes in the first line of the output; `what` is said first of what
/// was not.
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
    let substitutes = exit.stdout.split(|b| *b == b'\n').next().is_some_and(|count| count != b"0" && !count.is_empty());
    let mut meanings: Vec<Meaning> = judged.iter().map(|(m, _)| *m).collect();
    meanings.extend(substitutes.then_some(Meaning::Host(words::PLUGIN)));
    let worst = worst(&meanings, &output)?;
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
