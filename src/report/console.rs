//! The console: a drill as it goes, line by line, and its answer in less than a screen.

use std::fmt::Write as _;

use super::phrases::{answer, counted, grouped, locks, objective_name, outcome, restored, worst_gap};
use crate::domain::{ByteSize, CheckOutcome, DrillEvent, DrillEventKind, Met, Severity, Verdict};
use crate::evidence::{KeyCustody, Report};

/// Whether the listener shows colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// Text alone.
    Plain,
    /// With ANSI colours.
    Coloured,
}

/// Findings shown before the rest is counted.
const FINDINGS_SHOWN: usize = 6;

/// The answer and what it rests on, in less than a screen. Where the evidence lies is the caller's to add.
pub fn summary(report: &Report, paint: Paint) -> String {
    let mut text = String::new();
    let word = paint.verdict(report.verdict);
    let _ = writeln!(text, "{word}  {} (scenario {})", plain(&report.plan.system), report.plan.scenario);
    let _ = writeln!(text, "{}\n", wrapped(&plain(&answer(report)), 2));
    for assessment in &report.assessments {
        let text_of = match (assessment.achieved, &assessment.met) {
            (Some(achieved), Met::Met) => format!("{achieved} of {} promised: {}", assessment.target, paint.good("met")),
            (Some(achieved), Met::Missed) => format!("{achieved} of {} promised: {}", assessment.target, paint.bad("missed")),
            (_, Met::NotMeasured) | (None, _) => format!("{}; {} promised", paint.warn("not measured"), assessment.target),
        };
        row(&mut text, objective_name(&assessment.objective), &text_of);
        if let Some(how) = how_measured(report, &assessment.objective) {
            row(&mut text, "", &paint.dim(&how));
        }
    }
    if let Some((gap, _)) = worst_gap(report) {
        row(&mut text, "Worst gap", &gap);
    }
    if let Some(restored) = restored(report) {
        let layers = report.restored.as_ref().map_or(String::new(), |r| r.layers.join(", "));
        row(&mut text, "Restored", &format!("{restored}{}{layers}", if layers.is_empty() { "" } else { " through " }));
    }
    for component in &report.components {
        row(&mut text, "Component", &format!("{} of {}", component.name, component.point.captured_at.to_human()));
    }
    if let Some(skew) = report.measurements.skew.filter(|_| report.plan.objectives.skew.is_none()) {
        row(&mut text, "Skew", &format!("{skew} between the captures of oldest and newest component"));
    }
    if let Some(transport) = &report.backup.transport {
        let read = ByteSize(report.backup.chain.bytes_read());
        row(&mut text, "Read", &format!("{read} from {}", plain(&transport.to_string())));
    }
    if let Some(locks) = locks(report) {
        row(&mut text, "Locks", &locks);
    }
    row(&mut text, "Checks", &checks(report));
    write_findings(&mut text, report, paint);
    if report.egress.as_ref().is_some_and(|e| e.total == 0 && e.gaps.is_empty()) {
        row(&mut text, "Egress", "nothing inside tried to reach the outside");
    }
    match &report.disposal {
        Some(disposal) if disposal.complete() => {
            let took = disposal.took.map_or(String::new(), |took| format!(" in {took}"));
            let kind = disposal.sanitization.map_or(String::new(), |s| format!("; NIST SP 800-88: {}", s.words()));
            row(&mut text, "Sandbox", &format!("destroyed{took}, and gone when looked for{kind}"));
        }
        Some(_) => row(&mut text, "Sandbox", &paint.bad("could not be shown to be gone")),
        None => {}
    }
    row(&mut text, "Not proven", &format!("{}, listed in the report", counted(report.not_proven.len() as u64, "thing")));
    if report.issuer.custody == KeyCustody::MadeOnTheSpot {
        row(&mut text, "Signed by", "a key made on the spot: good for trying out, and for nothing else");
    }
    text
}

fn how_measured(report: &Report, objective: &str) -> Option<String> {
    let measured = &report.measurements;
    match objective {
        "rto" => {
            let recovery = measured.recovery.as_ref()?;
            let declared = recovery.declared;
            (declared.seconds > 0).then(|| format!("{} measured, {declared} declared for people", recovery.measured))
        }
        "rpo" => measured.data_age.as_ref().map(|age| format!("known from the {}", age.source)),
        _ => None,
    }
}

fn checks(report: &Report) -> String {
    let of = |outcome| report.checks.iter().filter(|c| c.outcome == outcome).count();
    let all = [CheckOutcome::Passed, CheckOutcome::Warned, CheckOutcome::Failed, CheckOutcome::CouldNotRun];
    let parts: Vec<String> = all.into_iter().filter(|o| of(*o) > 0).map(|o| format!("{} {}", grouped(of(o) as u64), outcome(o))).collect();
    if parts.is_empty() { "none were asked".to_owned() } else { parts.join(", ") }
}

fn write_findings(text: &mut String, report: &Report, paint: Paint) {
    let weight = |severity: Severity| match severity {
        Severity::Fail => 0,
        Severity::Warn => 1,
        Severity::Note => 2,
    };
    let mut findings: Vec<_> = report.all_findings().filter(|f| f.severity != Severity::Note).collect();
    findings.sort_by_key(|f| weight(f.severity));
    for (at, finding) in findings.iter().take(FINDINGS_SHOWN).enumerate() {
        let mark = match finding.severity {
            Severity::Fail => paint.bad("fail"),
            Severity::Warn | Severity::Note => paint.warn("warn"),
        };
        let what = wrapped(&plain(&format!("{}: {}", finding.check, finding.kind)), 21);
        row(text, if at == 0 { "Found" } else { "" }, &format!("{mark} {}", what.trim_start()));
    }
    if findings.len() > FINDINGS_SHOWN {
        row(text, "", &format!("and {} more", findings.len() - FINDINGS_SHOWN));
    }
}

fn row(text: &mut String, name: &str, value: &str) {
    let _ = writeln!(text, "  {name:<14}{value}");
}

/// One line for an event, without time or colour: those belong to the listener.
pub fn line(event: &DrillEvent) -> String {
    let text = match &event.kind {
        DrillEventKind::Started { plan, .. } => format!("drill {} of {} started", event.drill, plan.scenario),
        DrillEventKind::PhaseBegan { phase, component } => match component {
            Some(component) => format!("{} {component}…", phase.word()),
            None => format!("{}…", phase.word()),
        },
        DrillEventKind::SandboxProvisioned { facts } => {
            format!(
                "sandbox stands: {}, network {}, scratch {} {}",
                facts.kind,
                facts.network,
                facts.scratch,
                ByteSize(facts.scratch_bytes)
            )
        }
        DrillEventKind::PointSelected { point } => {
            let size = match point.objects {
                // a tool's snapshot: what it takes only the tool knows
                0 => String::new(),
                objects => format!(", {} in {}", ByteSize(point.size), counted(objects, "object")),
            };
            format!("recovery point of {} selected{size}", point.captured_at.to_human())
        }
        DrillEventKind::Restored { facts } => format!("restored {}, {}", counted(facts.files, "file"), ByteSize(facts.bytes)),
        DrillEventKind::BecameUsable => format!("usable after {}", event.elapsed),
        DrillEventKind::ChainRecorded { chain, transport } => {
            let objects = counted(chain.count(), "object version");
            format!("read {} of {objects}, {transport}", ByteSize(chain.bytes_read()))
        }
        DrillEventKind::ToolFound { tool } => {
            format!("{} found: {}", tool.tool, if tool.version.is_empty() { &tool.path } else { &tool.version })
        }
        DrillEventKind::GatewayClosed { served } => {
            let requests = counted(served.requests.values().sum(), "request");
            let refused = if served.refused == 0 { String::new() } else { format!(", {} refused", counted(served.refused, "write")) };
            format!("served {} in {requests}{refused}", ByteSize(served.bytes))
        }
        DrillEventKind::ServiceReady { service } => {
            format!("{} {} answers ({})", service.engine.word(), service.version, service.method)
        }
        DrillEventKind::CheckEnded { report } => format!("check {}: {} ({})", report.name, outcome(report.outcome), report.observed),
        DrillEventKind::DataDated { at, source } => format!("data is of {}, known from the {source}", at.to_human()),
        DrillEventKind::Found { finding } => {
            let severity = match finding.severity {
                Severity::Fail => "fail",
                Severity::Warn => "warn",
                Severity::Note => "note",
            };
            format!("{severity}: {}: {}", finding.check, finding.kind)
        }
        DrillEventKind::RightsCited { rights } => match rights.excess().as_slice() {
            [] => format!("credentials: no right beyond reading is known, asked on {}", rights.asked_at.to_human()),
            excess => {
                let list: Vec<&str> = excess.iter().map(|right| right.words()).collect();
                format!("credentials may {}, asked on {}", list.join(", "), rights.asked_at.to_human())
            }
        },
        DrillEventKind::EgressRecorded { egress } => match egress.total {
            0 if egress.gaps.is_empty() => "nothing inside tried to reach the outside".to_owned(),
            0 => "no attempt to reach the outside was seen".to_owned(),
            n => format!("{} to reach the outside, all refused", counted(n, "attempt")),
        },
        DrillEventKind::SandboxDestroyed { disposal } => {
            format!("sandbox destroyed: {}{}", disposal.method, if disposal.complete() { "" } else { "; NOT shown to be gone" })
        }
        DrillEventKind::Finished { verdict, .. } => format!("{verdict} after {}", event.elapsed),
    };
    plain(&text)
}

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        match self {
            Paint::Plain => text.to_owned(),
            Paint::Coloured => format!("\u{1b}[{code}m{text}\u{1b}[0m"),
        }
    }
    fn good(self, text: &str) -> String {
        self.with("32", text)
    }
    fn bad(self, text: &str) -> String {
        self.with("31", text)
    }
    fn warn(self, text: &str) -> String {
        self.with("33", text)
    }
    fn dim(self, text: &str) -> String {
        self.with("2", text)
    }
    /// A verdict in its colour.
    pub fn verdict(self, verdict: Verdict) -> String {
        let code = match verdict {
            Verdict::Passed => "1;32",
            Verdict::Failed => "1;31",
            Verdict::Inconclusive => "1;33",
        };
        self.with(code, &verdict.to_string())
    }
}

/// Text without anything a terminal would obey.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// At most 96 columns, indented.
fn wrapped(text: &str, indent: usize) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let line = lines.last_mut().expect("never empty");
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > 96 - indent {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines.iter().map(|line| format!("{:indent$}{line}", "")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::sample;

    #[test]
    fn the_answer_comes_first_and_fits_a_screen() {
        for (events, word) in [
            (sample::passed(), "PASSED  "),
            (sample::warned(), "PASSED  "),
            (sample::failed(), "FAILED  "),
            (sample::called_home(), "FAILED  "),
            (sample::inconclusive(), "INCONCLUSIVE  "),
        ] {
            let text = summary(&sample::report(&events), Paint::Plain);
            assert!(text.starts_with(word), "{text}");
            assert!(text.lines().count() <= 23, "{text}");
            assert!(!text.contains('\u{1b}'));
        }
    }

    #[test]
    fn many_findings_are_counted_not_listed() {
        let mut report = sample::report(&sample::failed());
        let finding = report.findings[0].clone();
        report.findings = vec![finding; 500];
        let text = summary(&report, Paint::Plain);
        assert!(text.contains("and 495 more") && text.lines().count() <= 24, "{text}");
    }

    #[test]
    fn colours_only_where_asked() {
        let report = sample::report(&sample::failed());
        assert!(summary(&report, Paint::Coloured).starts_with("\u{1b}[1;31mFAILED\u{1b}[0m"));
    }

    #[test]
    fn every_event_has_its_line() {
        for event in sample::passed().iter().chain(&sample::failed()).chain(&sample::called_home()) {
            let line = line(event);
            assert!(!line.is_empty() && !line.contains('\n'));
        }
    }

    #[test]
    fn a_terminal_is_not_commanded_by_a_name() {
        let mut report = sample::report(&sample::passed());
        report.plan.system = "EHR\u{1b}[2J".into();
        assert!(!summary(&report, Paint::Plain).contains('\u{1b}'));
    }
}
