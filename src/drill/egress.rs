//! Attempts to reach the outside, from the sandbox's own clock to the drill's.

use super::Recorder;
use super::blame::Stop;
use crate::domain::{Egress, EgressAttempt, EgressPolicy, Elapsed, Finding, FindingKind, Scenario};
use crate::sandbox::{Attempts, Sandbox};

/// A drill that forbids attempts is not begun where they could not be seen.
pub(super) fn refused(scenario: &Scenario, sandbox: &Sandbox) -> Option<Stop> {
    match (scenario.egress, sandbox.hears_attempts()) {
        (EgressPolicy::Record, _) | (EgressPolicy::Forbid, Ok(())) => None,
        (EgressPolicy::Forbid, Err(why)) => {
            let reason = format!("this host cannot list them ({why}), and the scenario forbids them; see `firedrill doctor`");
            Some(Stop::one(Finding::runner("egress", FindingKind::EgressNotRecorded { reason })))
        }
    }
}

/// Says when each attempt was made: both clocks were read together, now.
pub(super) fn dated(attempts: Attempts, policy: EgressPolicy, recorder: &Recorder<'_>) -> Egress {
    let (wall, monotonic) = recorder.now();
    let ago = |after: Elapsed| attempts.now.since(after);
    let dated = |a: &crate::sandbox::Attempt| EgressAttempt {
        at: wall.earlier_by(ago(a.after)),
        elapsed: monotonic.since(ago(a.after)),
        protocol: a.what.protocol,
        destination: a.what.destination.map(|ip| ip.to_string()),
        port: a.what.port,
        name: a.what.name.clone(),
        times: a.times,
    };
    Egress {
        policy,
        total: attempts.total,
        attempts: attempts.list.iter().map(dated).collect(),
        counted_only: attempts.counted_only,
        gaps: attempts.gaps.clone(),
    }
}
