//! The sandbox's life from the drill's side: the work in it, bounded by time and by whoever ends it.

use super::blame::Stop;
use super::chain::Views;
use super::foreign::Bench;
use super::leash::{Ended, LAST_WORDS, Leash};
use super::services::bring_up;
use super::steps::{Parts, inspect, locate, preflight, restore, verify};
use super::{Part, Recorder, Services, foreign};
use crate::domain::{DrillEventKind, Phase, Scenario, Selector};
use crate::restore::Restored;
use crate::sandbox::Sandbox;

/// Everything between the sandbox's first and last moment; bounded by the scenario's time and by whoever cancels.
pub(super) async fn in_sandbox(
    scenario: &Scenario,
    parts: &[Part<'_>],
    services: &Services<'_>,
    sandbox: &Sandbox,
    recorder: &mut Recorder<'_>,
) -> Result<(), Ended> {
    let (leash, mut idle) = Leash::new(services.clock, scenario.limits.time);
    let (flag, ended) = (leash.flag.clone(), leash.ended.clone());
    let views = Views::default();
    let outcome = tokio::select! {
        outcome = work(scenario, parts, services, sandbox, &leash, &views, recorder) => outcome,
        () = services.cancel.cancelled() => Err(Stop::interrupted().into()),
        () = tokio::time::sleep(scenario.limits.time.as_duration()) => Err(Stop::out_of_time(&step_of(recorder), scenario.limits.time).into()),
    };
    // blocking threads do not hear of dropped futures: they look at the flag, and hold scratch until they have; those that
    // wait for the storage are woken
    flag.cancel();
    ended.cancel();
    drop(leash);
    let _ = tokio::time::timeout(LAST_WORDS, idle.recv()).await;
    // what was read is evidence, however it ended
    if !matches!(outcome, Err(Ended::Unrecorded(_))) {
        views.record(services, recorder)?;
    }
    outcome
}

/// Restores every part, starts services on what was restored, asks the checks.
async fn work(
    scenario: &Scenario,
    parts: &[Part<'_>],
    services: &Services<'_>,
    sandbox: &Sandbox,
    leash: &Leash,
    views: &Views,
    recorder: &mut Recorder<'_>,
) -> Result<(), Ended> {
    let left = || leash.left(services.clock);
    let mut restored = Parts::new();
    let mut bench = None;
    let mut outcome = Ok(());
    for (number, (part, selector)) in parts.iter().enumerate() {
        // the component before has its tree: its tools are done
        if let Some((bench, part)) = bench.take() {
            close(bench, part, services, recorder).await?;
        }
        recorder.turn_to(part.within.as_deref());
        let tree = if part.tool_steps().is_empty() {
            native(part, selector, services, sandbox, leash, views, recorder).await
        } else {
            recorder.phase(Phase::Locate)?;
            let last = number + 1 == parts.len();
            let opened = foreign::open(part, selector, services, sandbox, views, last).await?;
            let (bench, _) = bench.insert((opened, &**part));
            bench.work(part, selector, services, sandbox, leash, recorder).await // kept: what was read is evidence too
        };
        match tree {
            Ok(tree) => restored.push((part.within.clone(), tree)),
            Err(ended) => {
                outcome = Err(ended);
                break;
            }
        }
    }
    recorder.turn_to(None);
    let up = match &outcome {
        Ok(()) => Some(match inspect(scenario, services, sandbox, &restored, recorder).await {
            Ok(()) => bring_up(scenario, services, sandbox, &left, recorder).await, // kept likewise
            Err(ended) => Err(ended),
        }),
        Err(_) => None,
    };
    if matches!(up, Some(Ok(_))) {
        recorder.phase(Phase::Verify)?;
    }
    let unsettled = match bench {
        Some((bench, part)) => bench.close(part, services, recorder).await?,
        None => None,
    };
    outcome?;
    if let Some(running) = up {
        verify(scenario, services, sandbox, &restored, &running?, recorder).await?;
    }
    unsettled.map_or(Ok(()), |stop| Err(stop.into()))
}

async fn native(
    part: &Scenario,
    selector: &Selector,
    services: &Services<'_>,
    sandbox: &Sandbox,
    leash: &Leash,
    views: &Views,
    recorder: &mut Recorder<'_>,
) -> Result<Restored, Ended> {
    let located = locate(part, selector, services, views, recorder).await?;
    let prepared = preflight(part, services, sandbox, located, recorder).await?;
    restore(part, services, sandbox, prepared, leash, recorder).await
}

async fn close(bench: Bench<'_>, part: &Scenario, services: &Services<'_>, recorder: &mut Recorder<'_>) -> Result<(), Ended> {
    match bench.close(part, services, recorder).await? {
        Some(unsettled) => Err(unsettled.into()),
        None => Ok(()),
    }
}

/// The phase that the drill is in, as a finding names its step.
fn step_of(recorder: &Recorder<'_>) -> String {
    let phase = recorder.events().iter().rev().find_map(|event| match event.kind {
        DrillEventKind::PhaseBegan { phase, .. } => Some(phase.word()),
        _ => None,
    });
    phase.unwrap_or("drill").to_owned()
}
