//! What was restored, against what the last drill that passed restored: a backup that shrinks is one that loses something.

use crate::domain::{
    Cause, DrillEvent, DrillEventKind, Finding, FindingKind, LastDrill, Observations, Period, Regression, Severity, recount,
};

/// Files, bytes and time of a drill that restored.
pub(super) fn of_drill(events: &[DrillEvent], last: &LastDrill, policy: &Regression) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut restored = false;
    for event in events {
        match &event.kind {
            DrillEventKind::Restored { facts } => {
                restored = true;
                if let Some(before) = last.restored.iter().find(|before| before.component == facts.component) {
                    let of = of(facts.component.as_ref());
                    findings.extend(fewer(&format!("files{of}"), before.files, facts.files, last, policy));
                    findings.extend(fewer(&format!("bytes{of}"), before.bytes, facts.bytes, last, policy));
                }
            }
            DrillEventKind::PointSelected { point } => {
                if let Some(before) = last.points.iter().find(|before| before.component == point.component) {
                    let of = of(point.component.as_ref());
                    findings.extend(fewer(&format!("bytes in storage{of}"), before.size, point.size, last, policy));
                    findings.extend(fewer(&format!("objects in storage{of}"), before.objects, point.objects, last, policy));
                }
            }
            _ => {}
        }
    }
    if !restored {
        // whatever it was that kept it from restoring says more
        return Vec::new();
    }
    let took = recount(events).and_then(|outcome| outcome.measurements.recovery).map(|recovery| recovery.measured);
    if let (Some(slower), Some(before), Some(now)) = (policy.slower, last.usable_after, took) {
        // what takes no time at all varies more than it takes
        let much = now.as_secs_f64() > before.as_secs_f64() * (1.0 + slower / 100.0) && now.as_secs_f64() > before.as_secs_f64() + 5.0;
        if much {
            let seconds = |time: crate::domain::Elapsed| time.as_secs_f64().round() as u64;
            let (before, now) = (Period::from_secs(seconds(before)), Period::from_secs(seconds(now)));
            findings.push(finding(Severity::Warn, "seconds until usable", before.seconds, now.seconds, last));
        }
    }
    findings
}

fn of(component: Option<&String>) -> String {
    component.map_or_else(String::new, |name| format!(" of {name}"))
}

/// Rows and objects that checks observed, each check and each table against itself.
pub(super) fn of_observations(now: &Observations, last: &LastDrill, policy: &Regression) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (check, now) in &now.checks {
        let Some(before) = last.observations.checks.get(check) else { continue };
        for (class, objects) in &before.objects {
            let left = now.objects.get(class).map_or(0, std::collections::BTreeMap::len);
            findings.extend(fewer(class.word(), objects.len() as u64, left as u64, last, policy));
        }
        for (table, seen) in &before.tables {
            let left = now.tables.get(table).map_or(0, |table| table.rows);
            findings.extend(fewer(&format!("rows of {table}"), seen.rows, left, last, policy));
        }
    }
    findings
}

/// A finding where something is fewer by more than what policy allows.
fn fewer(what: &str, before: u64, now: u64, last: &LastDrill, policy: &Regression) -> Option<Finding> {
    if before == 0 || now >= before {
        return None;
    }
    let lost = (before - now) as f64 / before as f64 * 100.0;
    let beyond = |limit: Option<f64>| limit.is_some_and(|limit| lost > limit);
    let severity = match (beyond(policy.fail), beyond(policy.warn)) {
        (true, _) => Severity::Fail,
        (false, true) => Severity::Warn,
        (false, false) => return None,
    };
    Some(finding(severity, what, before, now, last))
}

fn finding(severity: Severity, what: &str, before: u64, now: u64, last: &LastDrill) -> Finding {
    let kind = FindingKind::Regressed { what: what.to_owned(), before, now, drill: last.drill.clone() };
    Finding { check: "regression".to_owned(), severity, cause: Cause::Backup, kind }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{DrillId, Elapsed, Observed, TableSeen, Timestamp};
    use crate::evidence::sample;

    fn last(observations: Observations) -> LastDrill {
        LastDrill {
            drill: DrillId("1".into()),
            started_at: Timestamp::from_unix(0),
            restored: Vec::new(),
            usable_after: None,
            points: Vec::new(),
            observations,
        }
    }

    fn policy() -> Regression {
        Regression { warn: Some(5.0), fail: Some(20.0), slower: Some(100.0), accept: None }
    }

    fn severities(findings: &[Finding]) -> Vec<Severity> {
        findings.iter().map(|f| f.severity).collect()
    }

    #[test]
    fn a_shrink_warns_and_fails_by_threshold() {
        let rows = |n: u64| {
            let seen = TableSeen { rows: n, digest: None, per_million: None };
            Observations {
                checks: [("c".to_owned(), Observed { tables: [("name-1".to_owned(), seen)].into(), ..Observed::default() })].into(),
            }
        };
        let found = |now: u64| severities(&of_observations(&rows(now), &last(rows(100)), &policy()));
        assert_eq!([found(100), found(200), found(95)], [const { Vec::new() }; 3]);
        assert_eq!((found(94), found(79)), (vec![Severity::Warn], vec![Severity::Fail]));
        assert!(
            of_observations(&Observations::default(), &last(rows(100)), &policy()).is_empty(),
            "a check that is gone is no loss of rows"
        );
    }

    #[test]
    fn files_bytes_and_time_are_compared_once_something_was_restored() {
        let report = sample::report(&sample::passed());
        let facts = report.restored.clone().unwrap();
        let mut before = last(Observations::default());
        before.restored = vec![crate::domain::RestoredFacts { files: facts.files * 2, ..facts.clone() }];
        before.usable_after = Some(Elapsed { nanos: report.usable_after.unwrap().nanos / 3 });
        let found = of_drill(&sample::passed(), &before, &policy());
        assert_eq!(severities(&found), [Severity::Fail, Severity::Warn], "{found:?}");
        assert!(of_drill(&sample::inconclusive(), &before, &policy()).is_empty());
        before.restored = vec![facts];
        before.usable_after = report.usable_after;
        assert!(of_drill(&sample::passed(), &before, &policy()).is_empty());
    }
}
