//! Closing what a crash cut short: a drill without a verdict becomes `Inconclusive`, with evidence.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{ATTACHED, App, AppError, private_directory};
use crate::domain::{
    Disposal, DrillEvent, DrillEventKind, DrillId, Finding, FindingKind, Probe, SandboxFacts, Sanitization, Timestamp, recount,
};
use crate::drill::RecordError;
use crate::evidence::ledger::EntryKind;
use crate::evidence::{EvidenceError, Journal, attachment};
use crate::sandbox::{Reaped, SandboxError, when_lost};

/// A drill that was cut short, closed.
#[derive(Debug, Clone)]
pub struct Closed {
    /// Which.
    pub drill: DrillId,
    /// Where its evidence is.
    pub directory: PathBuf,
}

/// What `reap` did.
#[derive(Debug, Default)]
pub struct Cleared {
    /// Sandboxes that were destroyed.
    pub reaped: Vec<Reaped>,
    /// Drills that were closed.
    pub closed: Vec<Closed>,
    /// Drills whose evidence could not be closed, and why.
    pub left: Vec<(PathBuf, AppError)>,
}

/// Destroys what crashed drills left and closes their journals. Never touches a drill whose runner lives.
///
/// # Errors
/// Where the state directory cannot be read at all.
pub async fn close_interrupted(app: &App) -> Result<Cleared, SandboxError> {
    let now = app.clock.now();
    let sandboxes = app.sandboxes();
    let reaped = tokio::task::spawn_blocking(move || crate::sandbox::reap(&sandboxes, now))
        .await
        .map_err(|e| SandboxError::Died { how: e.to_string() })??;
    let mut cleared = Cleared { reaped, ..Cleared::default() };
    let directory = app.journals();
    let journals = match fs::read_dir(&directory) {
        Ok(entries) => entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.extension().is_some_and(|x| x == "jsonl")).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(SandboxError::Io { step: "read the journals of drills", source }),
    };
    for journal in journals {
        let lock = journal.with_extension("lock");
        // a lock that is held is a drill that lives
        let Some(_held) = free_lock(&lock) else { continue };
        match close(app, &journal, &cleared.reaped) {
            // one that never recorded its start has nothing to be said of it
            Ok(closed) => {
                for file in ATTACHED.map(|name| attachment(&journal, name)).iter().chain([&journal, &lock]) {
                    let _ = fs::remove_file(file);
                }
                cleared.closed.extend(closed);
            }
            Err(error) => cleared.left.push((journal, error)),
        }
    }
    sweep_locks(&directory);
    if !cleared.reaped.is_empty() {
        let entries = cleared.reaped.iter().map(|reaped| {
            let (gone, left) = (reaped.what.clone(), reaped.left.clone());
            EntryKind::Reaped { drill: reaped.drill.clone(), gone, left }
        });
        let entered = app.book().and_then(|book| Ok(book.enter(entries.collect())?));
        cleared.left.extend(entered.err().map(|error| (app.settings.ledger.0.clone(), error)));
    }
    Ok(cleared)
}

/// Removes locks without a journal: of drills that died just before they had one, or just after it was closed. Young ones may be of a
/// drill that starts this moment.
fn sweep_locks(directory: &Path) {
    for path in fs::read_dir(directory).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path())) {
        let age = fs::metadata(&path).and_then(|m| m.modified()).ok().and_then(|modified| modified.elapsed().ok());
        let old = age.is_some_and(|age| age > Duration::from_secs(3_600));
        if path.extension().is_some_and(|x| x == "lock") && old && !path.with_extension("jsonl").exists() && free_lock(&path).is_some() {
            let _ = fs::remove_file(&path);
        }
    }
}

fn free_lock(path: &Path) -> Option<fs::File> {
    private_directory(path.parent()?).ok()?;
    let file = fs::OpenOptions::new().write(true).create(true).truncate(false).open(path).ok()?;
    file.try_lock().is_ok().then_some(file)
}

fn close(app: &App, path: &Path, reaped: &[Reaped]) -> Result<Option<Closed>, AppError> {
    let (mut journal, read) = Journal::resume(path).map_err(RecordError::from)?;
    let mut events = read.events;
    let book = app.book()?;
    let Some(last) = events.last().cloned() else {
        // it may have been entered, and then nothing more
        let drill = DrillId(path.file_stem().unwrap_or_default().to_string_lossy().into_owned());
        if let (true, false) = book.ledger().drill(book.trust(), &drill)? {
            book.enter(vec![EntryKind::Interrupted { drill }])?;
        }
        return Ok(None);
    };
    if !read.finished {
        let record = |journal: &mut Journal, events: &mut Vec<DrillEvent>, kind: DrillEventKind| -> Result<(), AppError> {
            // monotonic time stood still when the runner died: its last instant is all that is known
            let event =
                DrillEvent { drill: last.drill.clone(), seq: events.len() as u64, at: app.clock.now(), elapsed: last.elapsed, kind };
            journal.append(&event).map_err(RecordError::from)?;
            events.push(event);
            Ok(())
        };
        let reaped = reaped.iter().find(|r| r.drill == last.drill);
        // a runner that was lost while it made the sandbox recorded none, and may have left one
        if journal.state().sandbox_stands() || reaped.is_some() {
            let disposal = disposal_of(reaped, facts_of(&events), app.clock.now());
            let complete = disposal.complete();
            record(&mut journal, &mut events, DrillEventKind::SandboxDestroyed { disposal })?;
            if !complete {
                let finding = Finding::runner("reap", FindingKind::NotDisposed { reason: "see the disposal record".into() });
                record(&mut journal, &mut events, DrillEventKind::Found { finding })?;
            }
        }
        let how = "the runner ended before the drill did; closed at its next start".to_owned();
        let finding = Finding::runner("drill", FindingKind::Interrupted { how });
        record(&mut journal, &mut events, DrillEventKind::Found { finding })?;
        let outcome = recount(&events).expect("the first event is the start: the journal knows the order");
        let finished =
            DrillEventKind::Finished { verdict: outcome.verdict, assessments: outcome.assessments, measurements: outcome.measurements };
        record(&mut journal, &mut events, finished)?;
    }
    // the runner may have been lost after it sealed and before it entered the end
    let directory = match app.seal(&events, &app.signer()?, None, path) {
        Ok(sealed) => sealed.directory,
        Err(AppError::Seal { source: EvidenceError::Exists { path }, .. }) if read.finished => path,
        Err(error) => return Err(error),
    };
    if let (true, false) = book.ledger().drill(book.trust(), &last.drill)? {
        if events.iter().any(is_interruption) {
            book.enter(vec![EntryKind::Interrupted { drill: last.drill.clone() }])?;
        }
        book.drill_ended(&last.drill, &directory)?;
    }
    Ok(Some(Closed { drill: last.drill, directory }))
}

fn is_interruption(event: &DrillEvent) -> bool {
    matches!(&event.kind, DrillEventKind::Found { finding } if matches!(finding.kind, FindingKind::Interrupted { .. }))
}

/// What the lost sandbox was made of, where that was recorded.
fn facts_of(events: &[DrillEvent]) -> Option<&SandboxFacts> {
    events.iter().find_map(|event| match &event.kind {
        DrillEventKind::SandboxProvisioned { facts } => Some(facts),
        _ => None,
    })
}

/// What was there and is gone, what resists, when, and what that amounts to.
fn disposal_of(reaped: Option<&Reaped>, facts: Option<&SandboxFacts>, now: Timestamp) -> Disposal {
    let mut probes = Vec::new();
    match reaped {
        None => probes.push(Probe { what: "no trace of the sandbox was found when the next runner looked".into(), gone: true }),
        Some(reaped) => {
            probes.extend(reaped.what.iter().map(|what| Probe { what: what.clone(), gone: true }));
            probes.extend(reaped.left.iter().map(|what| Probe { what: what.clone(), gone: false }));
        }
    }
    let gone = probes.iter().all(|p| p.gone);
    let (words, sanitization) = match facts {
        Some(facts) if gone => when_lost(facts),
        Some(_) => ("something resists", Sanitization::None),
        None => ("it was lost before it was said what scratch is", Sanitization::None),
    };
    Disposal {
        method: format!("the kernel ended everything inside with the runner; what lay outside was reaped at the next start: {words}"),
        sanitization: Some(sanitization),
        started_at: Some(reaped.map_or(now, |r| r.when)),
        ended_at: Some(now),
        took: None,
        probes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix(seconds)
    }

    fn facts(scratch: &str) -> SandboxFacts {
        SandboxFacts { scratch: scratch.to_owned(), ..SandboxFacts::default() }
    }

    #[test]
    fn the_record_of_a_lost_sandbox_says_what_when_and_what_resisted() {
        let reaped =
            Reaped { drill: DrillId("d".into()), what: vec!["a control group".into()], left: vec!["a directory".into()], when: at(7) };
        let disposal = disposal_of(Some(&reaped), Some(&facts("tmpfs")), at(9));
        assert!(!disposal.complete());
        assert_eq!(disposal.sanitization, Some(Sanitization::None), "what resists is not cleared");
        assert_eq!((disposal.started_at, disposal.ended_at, disposal.took), (Some(at(7)), Some(at(9)), None));
        let told: Vec<(&str, bool)> = disposal.probes.iter().map(|p| (p.what.as_str(), p.gone)).collect();
        assert_eq!(told, [("a control group", true), ("a directory", false)]);
    }

    #[test]
    fn what_is_claimed_of_a_lost_sandbox_follows_its_scratch() {
        let claimed = |facts: Option<&SandboxFacts>| disposal_of(None, facts, at(9)).sanitization.unwrap();
        assert_eq!(claimed(Some(&facts("tmpfs"))), Sanitization::Clear);
        assert_eq!(claimed(Some(&facts("encrypted"))), Sanitization::Purge);
        assert_eq!(claimed(Some(&facts("encrypted volume (whatever it is made of)"))), Sanitization::Purge);
        assert_eq!(claimed(Some(&facts("directory"))), Sanitization::None);
        assert_eq!(claimed(Some(&facts("something new"))), Sanitization::None);
        let swapped = SandboxFacts { remarks: vec!["restored data may reach the swap device".to_owned()], ..facts("tmpfs") };
        assert_eq!(claimed(Some(&swapped)), Sanitization::None);
        assert_eq!(claimed(None), Sanitization::None);
    }
}
