//! `report.html`: one self-contained page, good to read, to print and to file. No script, nothing fetched.

mod backup;

use askama::Template;

use backup::backup;

use super::phrases::{answer, counted, grouped, objective_name, outcome, restored};
use super::picture::{Gauge, Segment, class, gauge, recovery_ends, segments};
use crate::domain::{Assessment, ByteSize, CheckOutcome, CheckReport, Egress, EgressPolicy, Finding, Held, Met, Severity, Verdict};
use crate::evidence::{ControlOutcome, KeyCustody, ProfileRows, Report, names};

/// Object versions listed on the page; all of them are in the chain's file.
const OBJECTS_SHOWN: usize = 24;
const CHECKS_SHOWN: usize = 60;
const FINDINGS_SHOWN: usize = 20;
const ATTEMPTS_SHOWN: usize = 24;

/// The page, as bytes of a file.
pub fn html(report: &Report) -> Vec<u8> {
    Page::of(report).render().expect("the template writes to memory").into_bytes()
}

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    report: &'a Report,
    tone: &'static str,
    verdict: String,
    answer: String,
    context: Vec<String>,
    tiles: Vec<Row>,
    objectives: Vec<ObjectiveView>,
    segments: Vec<Segment>,
    usable_at: Option<f64>,
    phases: Vec<PhaseView>,
    findings: Vec<FindingView>,
    findings_left: usize,
    checks: Vec<CheckView>,
    checks_left: usize,
    backup: Vec<Row>,
    objects: Vec<ObjectView>,
    objects_left: u64,
    sandbox: Vec<Row>,
    runner: Vec<Row>,
    profiles: Vec<ProfileView<'a>>,
    demo_key: bool,
}

struct Row {
    name: String,
    value: String,
    tone: &'static str,
}

impl Row {
    fn new(name: impl Into<String>, value: impl Into<String>) -> Self {
        Self { name: name.into(), value: value.into(), tone: "" }
    }
    fn toned(name: impl Into<String>, value: impl Into<String>, tone: &'static str) -> Self {
        Self { name: name.into(), value: value.into(), tone }
    }
}

struct ObjectiveView {
    name: String,
    short: String,
    achieved: String,
    target: String,
    verdict: &'static str,
    tone: &'static str,
    gauge: Option<Gauge>,
    how: String,
}

struct PhaseView {
    name: String,
    class: &'static str,
    began: String,
    lasted: String,
    share: String,
    counts: bool,
}

struct FindingView {
    check: String,
    text: String,
    severity: &'static str,
    tone: &'static str,
    cause: &'static str,
}

struct CheckView {
    name: String,
    kind: String,
    expected: String,
    observed: String,
    outcome: &'static str,
    tone: &'static str,
    assertions: u32,
}

struct ObjectView {
    object: String,
    role: String,
    version: Option<String>,
    size: String,
    stored: String,
    lock: String,
    tone: &'static str,
    sha256: String,
}

struct ProfileView<'a> {
    rows: &'a ProfileRows,
    in_force: bool,
    controls: Vec<ControlView<'a>>,
}

struct ControlView<'a> {
    id: &'a str,
    asks: &'a str,
    word: &'static str,
    tone: &'static str,
    because: &'a str,
}

impl<'a> Page<'a> {
    fn of(report: &'a Report) -> Self {
        let segments = segments(report);
        let findings: Vec<FindingView> = findings(report);
        Self {
            report,
            tone: tone_of(report.verdict),
            verdict: report.verdict.to_string(),
            answer: answer(report),
            context: context(report),
            tiles: tiles(report),
            objectives: report.assessments.iter().map(|a| ObjectiveView::of(a, report)).collect(),
            usable_at: recovery_ends(&segments, report),
            segments,
            phases: phases(report),
            findings_left: findings.len().saturating_sub(FINDINGS_SHOWN),
            findings: findings.into_iter().take(FINDINGS_SHOWN).collect(),
            checks: report.checks.iter().take(CHECKS_SHOWN).map(CheckView::of).collect(),
            checks_left: report.checks.len().saturating_sub(CHECKS_SHOWN),
            backup: backup(report),
            objects: report.backup.chain.objects.iter().take(OBJECTS_SHOWN).map(|o| ObjectView::of(o, report)).collect(),
            objects_left: report.backup.chain.count().saturating_sub(OBJECTS_SHOWN as u64),
            sandbox: sandbox(report),
            runner: runner(report),
            profiles: report.controls.iter().map(ProfileView::of).collect(),
            demo_key: report.issuer.custody == KeyCustody::MadeOnTheSpot,
        }
    }

    fn sums(&self) -> &'static str {
        names::SUMS
    }
}

fn tone_of(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "good",
        Verdict::Failed => "bad",
        Verdict::Inconclusive => "unsure",
    }
}

fn context(report: &Report) -> Vec<String> {
    let plan = &report.plan;
    let mut parts = vec![format!("scenario {}", plan.scenario), format!("criticality {}", plan.criticality)];
    parts.extend(plan.plan.as_ref().map(|p| format!("contingency plan {}, version {}", p.id, p.version)));
    parts.extend(plan.plan.as_ref().and_then(|p| p.until).map(|until| format!("in force until {until}")));
    parts.extend(report.issuer.organisation.clone());
    parts
}

fn tiles(report: &Report) -> Vec<Row> {
    let mut tiles = Vec::new();
    let tone = |objective: &str| match report.assessments.iter().find(|a| a.objective == objective).map(|a| &a.met) {
        Some(Met::Met) => "good",
        Some(Met::Missed) => "bad",
        Some(Met::NotMeasured) => "unsure",
        None => "",
    };
    let recovery = report.measurements.recovery.as_ref().map_or("not measured".to_owned(), |r| r.total().to_string());
    tiles.push(Row::toned("Recovery time", recovery, tone("rto")));
    let age = report.measurements.data_age.as_ref().map_or("not measured".to_owned(), |a| a.age.to_string());
    tiles.push(Row::toned("Data age", age, tone("rpo")));
    tiles.push(Row::new("Restored", restored(report).unwrap_or_else(|| "nothing".to_owned())));
    let asked = report.checks.len() as u64;
    let passed = report.checks.iter().filter(|c| matches!(c.outcome, CheckOutcome::Passed | CheckOutcome::Warned)).count() as u64;
    let tone = if asked == 0 {
        "unsure"
    } else if passed == asked {
        "good"
    } else {
        "bad"
    };
    tiles.push(Row::toned("Checks passed", format!("{} of {}", grouped(passed), grouped(asked)), tone));
    tiles
}

impl ObjectiveView {
    fn of(assessment: &Assessment, report: &Report) -> Self {
        let (verdict, tone) = match assessment.met {
            Met::Met => ("met", "good"),
            Met::Missed => ("missed", "bad"),
            Met::NotMeasured => ("not measured", "unsure"),
        };
        let recovery = report.measurements.recovery.as_ref().filter(|_| assessment.objective == "rto");
        let declared = recovery.map_or(0, |r| r.declared.seconds);
        let gauge = assessment.achieved.map(|achieved| {
            let measured = achieved.seconds.saturating_sub(declared);
            gauge(measured as f64, declared as f64, assessment.target.seconds as f64)
        });
        let how = match (recovery, &report.measurements.data_age) {
            (Some(recovery), _) if declared > 0 => {
                format!("{} measured in the drill, and {} that the scenario declares for people", recovery.measured, recovery.declared)
            }
            (Some(recovery), _) => format!("{} measured in the drill; nothing declared for people", recovery.measured),
            (None, Some(age)) if assessment.objective == "rpo" => {
                format!("data as of {}, known from the {}", age.data_as_of.to_human(), age.source)
            }
            (None, _) => "an objective is set, and the drill did not get far enough to measure it".to_owned(),
        };
        Self {
            name: objective_name(&assessment.objective).to_owned(),
            short: assessment.objective.to_uppercase(),
            achieved: assessment.achieved.map_or("–".to_owned(), |a| a.to_string()),
            target: assessment.target.to_string(),
            verdict,
            tone,
            gauge,
            how,
        }
    }
}

fn phases(report: &Report) -> Vec<PhaseView> {
    let total = report.clock.monotonic.nanos.max(1) as f64;
    let view = |phase: &crate::evidence::PhaseTime| PhaseView {
        name: phase.component.as_ref().map_or_else(|| phase.phase.word().to_owned(), |of| format!("{} {of}", phase.phase.word())),
        class: class(phase.phase),
        began: phase.began.to_string(),
        lasted: phase.lasted.to_string(),
        share: format!("{:.1}%", phase.lasted.nanos as f64 / total * 100.0),
        counts: phase.counts,
    };
    report.timeline.iter().map(view).collect()
}

fn findings(report: &Report) -> Vec<FindingView> {
    let view = |finding: &Finding| {
        let (severity, tone) = match finding.severity {
            Severity::Fail => ("fail", "bad"),
            Severity::Warn => ("warning", "unsure"),
            Severity::Note => ("note", ""),
        };
        let cause = match finding.cause {
            crate::domain::Cause::Backup => "the backup",
            crate::domain::Cause::Runner => "the runner or the way to the storage",
        };
        FindingView { check: finding.check.clone(), text: finding.kind.to_string(), severity, tone, cause }
    };
    let of = |severity| report.all_findings().filter(move |f| f.severity == severity).map(view);
    of(Severity::Fail).chain(of(Severity::Warn)).chain(of(Severity::Note)).collect()
}

impl CheckView {
    fn of(check: &CheckReport) -> Self {
        let tone = match check.outcome {
            CheckOutcome::Passed => "good",
            CheckOutcome::Failed => "bad",
            CheckOutcome::Warned | CheckOutcome::CouldNotRun => "unsure",
        };
        Self {
            name: check.name.clone(),
            kind: check.kind.clone(),
            expected: check.expected.clone(),
            observed: check.observed.clone(),
            outcome: outcome(check.outcome),
            tone,
            assertions: check.assertions,
        }
    }
}

fn sandbox(report: &Report) -> Vec<Row> {
    let Some(facts) = &report.sandbox else { return Vec::new() };
    let isolated = if facts.isolated { ("yes: own processes and mounts", "good") } else { ("no", "unsure") };
    let mut rows = vec![
        Row::new("Kind", facts.kind.clone()),
        Row::toned("Apart from the host", isolated.0, isolated.1),
        Row::new("Network", facts.network.clone()),
        Row::new("Scratch", format!("{}, {}", facts.scratch, ByteSize(facts.scratch_bytes))),
        Row::new("Swap", facts.swap.clone()),
        Row::new("Memory", facts.memory_limit.map_or("no limit".to_owned(), |m| format!("at most {}", ByteSize(m)))),
        Row::new("User", facts.user.clone()),
    ];
    rows.extend(facts.bounds.iter().map(|b| {
        let how = match b.held {
            Held::Together => "together",
            Held::Each => "each for itself",
            Held::Not => "not held",
        };
        Row::new("Bound", format!("{}: {}, {how}, by {}", b.bound, b.value, b.by))
    }));
    rows.extend(facts.remarks.iter().map(|r| Row::new("Remark", r.clone())));
    rows.extend(report.egress.iter().flat_map(egress));
    match &report.disposal {
        Some(disposal) => {
            rows.push(Row::new("Disposal", disposal.method.clone()));
            if let Some(sanitization) = disposal.sanitization {
                rows.push(Row::new("Sanitization", format!("{} (NIST SP 800-88 Rev. 1)", sanitization.words())));
            }
            if let Some(when) = disposal.when() {
                rows.push(Row::new("Disposed", when));
            }
            for probe in &disposal.probes {
                let (word, tone) = if probe.gone { ("gone", "good") } else { ("still there", "bad") };
                rows.push(Row::toned("Looked for", format!("{}: {word}", probe.what), tone));
            }
        }
        None => rows.push(Row::toned("Disposal", "not recorded", "bad")),
    }
    rows
}

fn egress(egress: &Egress) -> Vec<Row> {
    const NAME: &str = "Tried to get out";
    let tone = match egress.policy {
        EgressPolicy::Record => "unsure",
        EgressPolicy::Forbid => "bad",
    };
    let mut rows = vec![match egress.total {
        0 if egress.gaps.is_empty() => Row::toned(NAME, "nothing did", "good"),
        0 => Row::new(NAME, "nothing was seen to"),
        n => Row::toned(NAME, format!("{}, all refused", counted(n, "attempt")), tone),
    }];
    for attempt in egress.attempts.iter().take(ATTEMPTS_SHOWN) {
        rows.push(Row::toned("Attempt", format!("{attempt}; first {} after the start", attempt.elapsed), tone));
    }
    let left = egress.attempts.len().saturating_sub(ATTEMPTS_SHOWN);
    if left > 0 {
        rows.push(Row::new("Attempt", format!("{} more different ones in report.json", grouped(left as u64))));
    }
    if egress.counted_only > 0 {
        rows.push(Row::toned("Attempt", format!("{} of them seen by the kernel's count alone", grouped(egress.counted_only)), tone));
    }
    rows.extend(egress.gaps.iter().map(|gap| Row::toned("Attempts not seen", gap.clone(), tone)));
    rows
}

fn runner(report: &Report) -> Vec<Row> {
    let runner = &report.runner;
    let why = report.plan.trigger.words();
    let drift = report.clock.wall_minus_monotonic;
    let clocks = if drift.unsigned_abs() <= 1 {
        "wall and monotonic agree".to_owned()
    } else {
        format!("wall clock moved {drift:+} s against the monotonic one")
    };
    let mut rows = vec![
        Row::new("Started", format!("{}, {why}", report.started_at.to_human())),
        Row::new("Ended", format!("{}, after {}", report.finished_at.to_human(), report.clock.monotonic)),
        Row::toned("Clocks", clocks, if drift.unsigned_abs() <= 1 { "" } else { "unsure" }),
        Row::new("By", format!("{} on {} ({})", runner.actor, runner.host, runner.system)),
        Row::new("Program", format!("firedrill {}", runner.version)),
    ];
    rows.extend(runner.binary_sha256.map(|digest| Row::new("Program's SHA-256", digest.to_string())));
    rows.push(Row::new("Scenario's SHA-256", report.plan.scenario_sha256.to_string()));
    let key = match report.issuer.custody {
        KeyCustody::Configured => report.issuer.key.clone(),
        KeyCustody::MadeOnTheSpot => format!("{}, made on the spot", report.issuer.key),
    };
    rows.push(Row::new("Signed by", key));
    rows
}

impl<'a> ProfileView<'a> {
    fn of(rows: &'a ProfileRows) -> Self {
        let control = |row: &'a crate::evidence::ControlRow| {
            let (word, tone) = match row.outcome {
                ControlOutcome::Supports => ("supports", "good"),
                ControlOutcome::Contradicts => ("contradicts", "bad"),
                ControlOutcome::NotTested => ("not tested", ""),
            };
            ControlView { id: &row.id, asks: &row.asks, word, tone, because: &row.because }
        };
        Self { rows, in_force: rows.status == "in force", controls: rows.controls.iter().map(control).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::sample;

    fn page(events: &[crate::domain::DrillEvent]) -> String {
        String::from_utf8(html(&sample::report(events))).unwrap()
    }

    #[test]
    fn the_page_stands_alone() {
        for events in [sample::passed(), sample::warned(), sample::failed(), sample::inconclusive()] {
            let page = page(&events);
            assert!(page.contains("default-src 'none'"));
            for reach in ["<script", "<link", "<img", "url(", "@import", "http-equiv=\"refresh\"", "<iframe"] {
                assert!(!page.contains(reach), "{reach}");
            }
            assert!(!page.to_lowercase().contains("compliant"));
        }
    }

    #[test]
    fn the_answer_comes_before_everything_else() {
        let page = page(&sample::failed());
        let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text} is not there"));
        assert!(at("FAILED") < at("Do not rely on this backup"));
        assert!(at("Do not rely on this backup") < at("Objectives"));
        for section in
            ["Objectives", "Timeline", "Checks", "Backup under test", "Sandbox", "Controls", "does not prove", "How to verify", "Review"]
        {
            at(section);
        }
    }

    #[test]
    fn what_comes_from_outside_is_escaped() {
        let mut report = sample::report(&sample::passed());
        report.plan.system = "<b onload=x>\"EHR\"</b>".into();
        report.checks[0].name = "<script>".into();
        let page = String::from_utf8(html(&report)).unwrap();
        assert!(!page.contains("<script>") && !page.contains("<b onload"));
    }

    #[test]
    fn attempts_to_get_out_are_shown_one_by_one() {
        let page = page(&sample::called_home());
        for words in [
            "5 attempts, all refused",
            "DNS asking for updates.vendor.example, 2 times",
            "TCP to 203.0.113.5 port 443",
            "2 of them seen by",
        ] {
            assert!(page.contains(words), "{words}");
        }
    }

    #[test]
    fn long_lists_are_cut_and_counted() {
        let mut report = sample::report(&sample::passed());
        report.backup.chain.objects = vec![report.backup.chain.objects[0].clone(); 500];
        report.checks = vec![report.checks[0].clone(); 500];
        let page = String::from_utf8(html(&report)).unwrap();
        assert!(page.contains("476 more") && page.contains("440 more"));
        assert!(page.len() < 200_000);
    }

    /// `FIREDRILL_SAMPLE_PAGES=dir cargo test --lib sample_pages` leaves pages to look at.
    #[test]
    fn sample_pages_can_be_looked_at() {
        #[expect(clippy::disallowed_methods, reason = "a developer's own switch")]
        let Some(dir) = std::env::var_os("FIREDRILL_SAMPLE_PAGES") else { return };
        let dir = std::path::Path::new(&dir);
        let mut demo = sample::report(&sample::tried_out());
        demo.issuer.custody = KeyCustody::MadeOnTheSpot;
        std::fs::write(dir.join("tried_out.html"), html(&demo)).unwrap();
        for (name, events) in [
            ("passed", sample::passed()),
            ("warned", sample::warned()),
            ("failed", sample::failed()),
            ("called_home", sample::called_home()),
            ("inconclusive", sample::inconclusive()),
        ] {
            std::fs::write(dir.join(format!("{name}.html")), page(&events)).unwrap();
        }
    }
}
