//! A tool's own list of its recovery points.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::ToolError;
use crate::domain::{CaptureSource, PointForm, RecoveryPoint, Snapshots, Timestamp};

/// What a tool lists.
#[derive(Debug, Default)]
pub struct SnapshotList {
    /// Recovery points, oldest capture first.
    pub points: Vec<RecoveryPoint>,
    /// Items without an id, or without a time that can be read.
    pub unreadable: u64,
}

/// Reads what a tool printed.
///
/// # Errors
/// [`ToolError::NoList`].
pub fn list(snapshots: &Snapshots, output: &[u8]) -> Result<SnapshotList, ToolError> {
    let bad = |why: &str| ToolError::NoList { why: why.to_owned() };
    // an error message in it may hold anything
    let document: Value = serde_json::from_str(&String::from_utf8_lossy(output)).map_err(|_| bad("it is no JSON document"))?;
    let zone = match &snapshots.time_zone {
        None => TimeZone::UTC,
        Some(zone) => TimeZone::get(&zone.0).map_err(|_| bad("its time zone is not known here"))?,
    };
    let mut found = SnapshotList::default();
    for item in snapshots.items.find(&document) {
        let first = |path: &crate::domain::ItemPath| path.find(item).first().copied().cloned();
        let id = first(&snapshots.id).and_then(|id| match id {
            Value::String(text) if !text.is_empty() => Some(text),
            Value::Number(number) => Some(number.to_string()),
            _ => None,
        });
        let at = first(&snapshots.time).and_then(|time| instant(&time, &zone));
        match (id, at) {
            (Some(id), Some(captured_at)) => found.points.push(RecoveryPoint {
                id,
                captured_at,
                captured_from: CaptureSource::Tool,
                form: PointForm::Snapshot,
                size: 0,
                objects: Vec::new(),
            }),
            _ => found.unreadable += 1,
        }
    }
    found.points.sort_by(|a, b| (a.captured_at, &a.id).cmp(&(b.captured_at, &b.id)));
    Ok(found)
}

/// Seconds since 1970, an instant as RFC 3339 has it, or a civil time in `zone`.
fn instant(time: &Value, zone: &TimeZone) -> Option<Timestamp> {
    if let Some(seconds) = time.as_i64() {
        return Some(Timestamp::from_unix(seconds));
    }
    if let Some(seconds) = time.as_f64() {
        return Some(Timestamp::from_unix(seconds as i64));
    }
    let text = time.as_str()?.trim();
    if let Ok(at) = text.parse::<jiff::Timestamp>() {
        return Some(Timestamp(at));
    }
    let civil = text.parse::<DateTime>().ok().or_else(|| {
        // as C's asctime writes it, and as file names do
        ["%a %b %d %H:%M:%S %Y", "%Y%m%dT%H%M%S"].iter().find_map(|format| DateTime::strptime(format, text).ok())
    })?;
    Some(Timestamp(civil.to_zoned(zone.clone()).ok()?.timestamp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshots(items: &str, id: &str, time: &str) -> Snapshots {
        Snapshots {
            command: Vec::new(),
            items: items.parse().unwrap(),
            id: id.parse().unwrap(),
            time: time.parse().unwrap(),
            time_zone: Some(crate::domain::TimeZone("America/Chicago".into())),
        }
    }

    #[test]
    fn the_lists_of_real_tools_are_read() {
        let restic = r#"[{"time":"2026-11-20T02:00:01.5+01:00","short_id":"b"},{"time":"2026-11-19T02:00:00Z","short_id":"a"}]"#;
        let list_ = list(&snapshots("[]", "short_id", "time"), restic.as_bytes()).unwrap();
        assert_eq!(list_.points.iter().map(|p| p.id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(list_.points[1].captured_at.to_string(), "2026-11-20T01:00:01.5Z");
        assert_eq!((list_.points[0].captured_from, list_.points[0].form), (CaptureSource::Tool, PointForm::Snapshot));
        let borg = r#"{"archives":[{"name":"ehr-1","time":"2026-11-19T20:00:00.000000"}]}"#;
        let found = list(&snapshots("archives[]", "name", "time"), borg.as_bytes()).unwrap();
        assert_eq!(found.points[0].captured_at.to_string(), "2026-11-20T02:00:00Z");
        let pgbackrest = r#"[{"backup":[{"label":"20261120-020000F","timestamp":{"start":1,"stop":1795312800}}]}]"#;
        let found = list(&snapshots("[].backup[]", "label", "timestamp.stop"), pgbackrest.as_bytes()).unwrap();
        assert_eq!(found.points[0].captured_at, Timestamp::from_unix(1_795_312_800));
        let barman = r#"{"backups_list":[{"backup_id":"20261120T020000","end_time":"Thu Nov 19 20:00:00 2026"}]}"#;
        let found = list(&snapshots("backups_list[]", "backup_id", "end_time"), barman.as_bytes()).unwrap();
        assert_eq!(found.points[0].captured_at.to_string(), "2026-11-20T02:00:00Z");
    }

    #[test]
    fn what_cannot_be_read_is_counted_and_no_list_is_an_error() {
        let odd = r#"[{"short_id":"a"},{"time":"yesterday","short_id":"b"},{"time":"2026-11-19T02:00:00Z","short_id":""},7]"#;
        let found = list(&snapshots("[]", "short_id", "time"), odd.as_bytes()).unwrap();
        assert_eq!((found.points.len(), found.unreadable), (0, 4));
        assert!(matches!(list(&snapshots("[]", "id", "time"), b"no snapshots"), Err(ToolError::NoList { .. })));
        assert_eq!(list(&snapshots("[]", "id", "time"), b"null").unwrap().points.len(), 0);
    }
}
