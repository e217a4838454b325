//! What the page says of the backup: where it was, what was read of it, by whom, and under which locks.

use super::super::phrases::{counted, days_left, grouped, locks, worst_gap};
use super::{ObjectView, Row};
use crate::domain::{ByteSize, Caches, ChainSummary, LockPolicyVerdict, LockState, ObjectRead, PointForm, Reader};
use crate::evidence::Report;

pub(super) fn backup(report: &Report) -> Vec<Row> {
    let mut rows = Vec::new();
    for component in &report.components {
        let point = &component.point;
        let restored = component
            .restored
            .as_ref()
            .map_or_else(|| "not restored".to_owned(), |facts| format!("{}, {}", counted(facts.files, "file"), ByteSize(facts.bytes)));
        let text =
            format!("{}, captured {}, known from the {}; {restored}", point.point, point.captured_at.to_human(), point.captured_from);
        rows.push(Row::new(format!("Component {}", component.name), text));
    }
    if let Some(skew) = report.measurements.skew {
        rows.push(Row::new("Skew", format!("{skew} between the captures of oldest and newest component")));
    }
    if let Some(point) = report.backup.point.as_ref().filter(|_| report.components.is_empty()) {
        let form = match point.form {
            PointForm::SealedSet => "sealed set",
            PointForm::BareObject => "bare object",
            PointForm::Snapshot => "snapshot",
            PointForm::Repository => "repository",
        };
        // a tool's snapshot has no objects of its own
        let size =
            if point.objects == 0 { String::new() } else { format!(", {}, {}", counted(point.objects, "object"), ByteSize(point.size)) };
        rows.push(Row::new("Recovery point", format!("{} ({form}{size})", point.point)));
        rows.push(Row::new("Captured", format!("{}, known from the {}", point.captured_at.to_human(), point.captured_from)));
        rows.push(Row::new("Selected", format!("{}, of {} seen", report.plan.selection, counted(point.points_seen, "recovery point"))));
        if let Some((gap, within)) = worst_gap(report) {
            rows.push(Row::toned("Worst gap", gap, if within { "" } else { "unsure" }));
        }
        let tone = if point.producer == "trusted" { "good" } else { "unsure" };
        rows.push(Row::toned("Producer's signature", point.producer.clone(), tone));
    }
    if let Some(transport) = &report.backup.transport {
        let tone = if transport.encrypted == Some(false) { "bad" } else { "" };
        rows.push(Row::toned("Transport", transport.to_string(), tone));
        if let Some(certificate) = &transport.server_certificate {
            rows.push(Row::new("Server certificate", format!("SHA-256 {certificate}")));
        }
        rows.push(Row::new("Credentials from", transport.credentials.clone()));
        let chain = &report.backup.chain;
        rows.push(Row::new("Read", format!("{} in {}", ByteSize(chain.bytes_read()), counted(chain.requests(), "request"))));
        if let Some(summary) = &chain.summary {
            rows.extend(chain_rows(summary));
        }
    }
    if let Some(rights) = &report.backup.rights {
        let excess = rights.excess();
        let asked = rights.asked_at.to_human();
        rows.push(if excess.is_empty() {
            Row::new("Rights beyond reading", format!("none known, asked on {asked}"))
        } else {
            let list: Vec<&str> = excess.iter().map(|right| right.words()).collect();
            Row::toned("Rights beyond reading", format!("{}, asked on {asked}", list.join(", ")), "unsure")
        });
    }
    rows.extend(tools(report));
    rows.extend(services(report));
    if let Some(locks) = locks(report) {
        rows.push(Row::new("Object lock", locks));
    }
    if let Some(facts) = &report.restored {
        rows.push(Row::new("Layers", facts.layers.join(" → ")));
        let rest = format!(
            "{}, {}, {} other; {}",
            counted(facts.files, "file"),
            if facts.directories == 1 { "1 directory".to_owned() } else { format!("{} directories", grouped(facts.directories)) },
            grouped(facts.others),
            ByteSize(facts.bytes)
        );
        rows.push(Row::new("Restored", rest));
        if facts.skipped > 0 {
            rows.push(Row::toned("Not restored", counted(facts.skipped, "archive member"), "unsure"));
        }
    }
    rows
}

fn chain_rows(summary: &ChainSummary) -> Vec<Row> {
    let mut rows = Vec::new();
    for (reader, totals) in &summary.by {
        let name = match reader {
            Reader::Pipeline => "Read by the pipeline",
            Reader::Mirror => "Read by the mirror",
            Reader::Tool => "Read by tools",
        };
        rows.push(Row::new(name, format!("{} of {}", ByteSize(totals.bytes), counted(totals.objects, "object version"))));
    }
    match summary.caches {
        Caches::Cold => rows.push(Row::new("Caches", "cold: every byte came from the storage in this drill")),
    }
    if !summary.locks.examples.is_empty() {
        let names: Vec<String> = summary.locks.examples.iter().map(ToString::to_string).collect();
        rows.push(Row::toned("Not locked", names.join(", "), "bad"));
    }
    if let Some(at) = summary.as_of {
        rows.push(Row::new("As of", format!("{}: the bucket as it stood then", at.to_human())));
    }
    if let Some(policy) = summary.lock_policy {
        let (words, tone) = match policy {
            LockPolicyVerdict::Kept => ("kept by every object version", "good"),
            LockPolicyVerdict::Broken => ("broken", "bad"),
            LockPolicyVerdict::NotVisible => ("not visible for every object version", "unsure"),
        };
        rows.push(Row::toned("Lock policy", words, tone));
    }
    rows
}

fn services(report: &Report) -> Vec<Row> {
    let rows = report.services.iter().flat_map(|service| {
        let digest = service.sha256.as_ref().map(|d| format!(", SHA-256 {d}")).unwrap_or_default();
        let of = service.recorded.as_ref().map(|version| format!(", from a backup of version {version}")).unwrap_or_default();
        let what = format!("{} {} ({}{digest}), {}{of}", service.engine.word(), service.version, service.path, service.method);
        [Row::new("Started on it", what), Row::new("Known by", service.identity.clone())]
    });
    rows.collect()
}

fn tools(report: &Report) -> Vec<Row> {
    let mut rows: Vec<Row> = report
        .tools
        .iter()
        .map(|tool| {
            let version = if tool.version.is_empty() { String::new() } else { format!(", {}", tool.version) };
            Row::new("Restored by", format!("{} ({}{version}, SHA-256 {})", tool.tool, tool.path, tool.sha256))
        })
        .collect();
    if let Some(served) = &report.served {
        let requests = counted(served.requests.values().sum(), "request");
        rows.push(Row::new("Served to it", format!("{} in {requests}", ByteSize(served.bytes))));
        let (words, tone) = match served.refused {
            0 => ("none tried".to_owned(), "good"),
            n => (format!("{}, all refused", counted(n, "attempt")), "unsure"),
        };
        rows.push(Row::toned("Writes to the backup", words, tone));
        if served.overlay_objects > 0 {
            let overlay =
                format!("{} of {}, gone with the drill", counted(served.overlay_objects, "object"), ByteSize(served.overlay_bytes));
            rows.push(Row::new("Written to the overlay", overlay));
        }
    }
    rows
}

impl ObjectView {
    pub(super) fn of(object: &ObjectRead, report: &Report) -> Self {
        let (mut lock, tone) = match &object.lock.state {
            LockState::Locked { mode, until } => {
                let left = days_left(*until, report.finished_at);
                (format!("{mode} until {} ({left} left)", until.0.strftime("%Y-%m-%d")), "good")
            }
            LockState::NotLocked => ("not locked".to_owned(), "bad"),
            LockState::Unknown { reason } => (format!("not visible: {reason}"), "unsure"),
        };
        if object.lock.legal_hold == Some(true) {
            lock += ", legal hold";
        }
        Self {
            object: object.object.to_string(),
            role: object.role.clone(),
            version: object.version.clone(),
            size: ByteSize(object.size).to_string(),
            stored: object.stored_at.0.strftime("%Y-%m-%d %H:%M").to_string(),
            lock,
            tone,
            sha256: object.sha256.map_or("not read in full".to_owned(), |d| d.to_string()),
        }
    }
}
