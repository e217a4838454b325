//! The sandbox's life from the drill's side: the work in it, bounded by time and by whoever ends it.

use super::blame::Stop;
use super::leash::{Ended, LAST_WORDS, Leash};
use super::services::{bring_up, time_left};
use super::steps::{inspect, locate, preflight, restore, verify};
use super::{Recorder, Services, foreign};
use crate::domain::{DrillEventKind, Phase, Scenario, Selector};
use crate::sandbox::Sandbox;

/// Everything between the sandbox's first and last moment; bounded by the scenario's time and by whoever cancels.
pub(super) async fn in_sandbox(
    scenario: &Scenario,
    selector: &Selector,
    services: &Services<'_>,
    sandbox: &Sandbox,
    recorder: &mut Recorder<'_>,
) -> Result<(), Ended> {
    let (leash, mut idle) = Leash::new();
    let (flag, ended) = (leash.flag.clone(), leash.ended.clone());
    let left = time_left(services, recorder, scenario);
    let work = async {
        if scenario.tool_steps().is_empty() {
            let located = locate(scenario, selector, services, recorder).await?;
            let prepared = preflight(scenario, services, sandbox, located, recorder).await?;
            let restored = restore(scenario, services, sandbox, prepared, &leash, recorder).await?;
            inspect(scenario, services, sandbox, &restored, recorder).await?;
            let running = bring_up(scenario, services, sandbox, &left, recorder).await?;
            recorder.phase(Phase::Verify)?;
            return verify(scenario, services, sandbox, &restored, &running, recorder).await;
        }
        recorder.phase(Phase::Locate)?;
        let mut bench = foreign::open(scenario, selector, services, sandbox).await?;
        let outcome = bench.work(scenario, selector, services, sandbox, &leash, recorder).await; // kept: what was read is evidence too
        let up = match &outcome {
            Ok(restored) => Some(match inspect(scenario, services, sandbox, restored, recorder).await {
                Ok(()) => bring_up(scenario, services, sandbox, &left, recorder).await, // kept likewise
                Err(ended) => Err(ended),
            }),
            Err(_) => None,
        };
        if matches!(up, Some(Ok(_))) {
            recorder.phase(Phase::Verify)?;
        }
        let unsettled = bench.close(scenario, services, recorder).await?;
        let restored = outcome?;
        if let Some(running) = up {
            verify(scenario, services, sandbox, &restored, &running?, recorder).await?;
        }
        unsettled.map_or(Ok(()), |stop| Err(stop.into()))
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        () = services.cancel.cancelled() => Err(Stop::interrupted().into()),
        () = tokio::time::sleep(scenario.limits.time.as_duration()) => Err(Stop::out_of_time(&step_of(recorder), scenario.limits.time).into()),
    };
    // blocking threads do not hear of dropped futures: they look at the flag, and hold scratch until they have; those that
    // wait for the storage are woken
    flag.cancel();
    ended.cancel();
    drop(leash);
    let _ = tokio::time::timeout(LAST_WORDS, idle.recv()).await;
    outcome
}

/// The phase that the drill is in, as a finding names its step.
fn step_of(recorder: &Recorder<'_>) -> String {
    let phase = recorder.events().iter().rev().find_map(|event| match event.kind {
        DrillEventKind::PhaseBegan { phase } => Some(phase.word()),
        _ => None,
    });
    phase.unwrap_or("drill").to_owned()
}
