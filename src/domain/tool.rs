//! Foreign restore tools: how a scenario has one restore, and what a drill says of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Pseudonym, SecretRef, Sha256, Template, TimeZone};

/// One run of a foreign tool that restores, or prepares to.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolStep {
    /// The program that the evidence names: a plain name to be found among the sandbox's programs, or an absolute path.
    pub tool: String,
    /// The command that prints its version.
    pub version: Vec<String>,
    /// Program and arguments; no secret in it.
    pub command: Vec<Template>,
    /// Its environment.
    pub env: BTreeMap<String, Template>,
    /// Secrets by the names that templates use.
    pub secrets: BTreeMap<String, SecretRef>,
    /// Files made for it, in memory.
    pub files: BTreeMap<String, Template>,
    /// How it reads the backup.
    pub reads: ToolReads,
    /// What becomes of what it writes to the backup.
    pub writes: ToolWrites,
    /// Exit statuses that mean done.
    pub exit: Vec<i32>,
    /// A regular expression over its output: words by which it says that it could not ask the backup at all.
    pub cannot_run: Option<String>,
    /// How it lists its recovery points.
    pub snapshots: Option<Snapshots>,
}

/// How a tool reads the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ToolReads {
    /// Through the gateway: a read-only S3 endpoint on the sandbox's loopback.
    #[default]
    Gateway,
    /// From a mirror of the prefix, or of the selected object, in the sandbox's scratch.
    Directory,
}

/// What becomes of a tool's attempts to write to the backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ToolWrites {
    /// They are refused, and said.
    #[default]
    Refuse,
    /// They go to an overlay in memory that ends with the drill.
    Overlay,
}

/// How a tool lists its recovery points, as JSON.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshots {
    /// Program and arguments.
    pub command: Vec<Template>,
    /// Where its items are.
    pub items: ItemPath,
    /// Where, within an item, its id is.
    pub id: ItemPath,
    /// Where, within an item, its capture time is.
    pub time: ItemPath,
    /// Zone of civil times; UTC where absent.
    pub time_zone: Option<TimeZone>,
}

/// A path into JSON: names separated by dots, `[]` for each element of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemPath(pub Vec<ItemStep>);

/// One step of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ItemStep {
    /// Into a member.
    Member(String),
    /// Into each element.
    Each,
}

/// What is wrong with a path into JSON.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no path into JSON: write names separated by dots, and [] for each element of a list, as \"archives[]\" or \"[].backup[]\""
)]
pub struct ItemPathError(String);

impl std::str::FromStr for ItemPath {
    type Err = ItemPathError;
    fn from_str(text: &str) -> Result<Self, ItemPathError> {
        let bad = || ItemPathError(text.to_owned());
        let mut steps = Vec::new();
        for (number, piece) in text.split('.').enumerate() {
            let name = piece.trim_end_matches("[]");
            let lists = (piece.len() - name.len()) / 2;
            if name.contains(['[', ']']) || (name.is_empty() && (lists == 0 || number > 0)) {
                return Err(bad());
            }
            if !name.is_empty() {
                steps.push(ItemStep::Member(name.to_owned()));
            }
            steps.extend(std::iter::repeat_n(ItemStep::Each, lists));
        }
        Ok(Self(steps))
    }
}

impl ItemPath {
    /// Everything that it leads to; nothing where the document is built otherwise.
    pub fn find<'a>(&self, document: &'a serde_json::Value) -> Vec<&'a serde_json::Value> {
        self.0.iter().fold(vec![document], |found, step| match step {
            ItemStep::Member(name) => found.into_iter().filter_map(|value| value.get(name)).collect(),
            ItemStep::Each => found.into_iter().filter_map(|value| value.as_array()).flatten().collect(),
        })
    }
}

/// A foreign tool, as the evidence names it. Asked before it sees any of the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct ToolFacts {
    /// Its name in the scenario.
    pub tool: String,
    /// Where it was found.
    pub path: String,
    /// The first line of what it says of its version; empty where it says nothing.
    pub version: String,
    /// SHA-256 of the program file.
    pub sha256: Sha256,
}

/// An attempt to write to the backup, which was refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct RefusedWrite {
    /// What was asked for, as `PutObject`.
    pub operation: String,
    /// Which object, where one was named.
    pub object: Option<Pseudonym>,
    /// How often.
    pub times: u64,
}

/// What the gateway served to foreign tools.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct ServedFacts {
    /// Requests by operation, refused ones left out.
    pub requests: BTreeMap<String, u64>,
    /// Bytes of objects that were served.
    pub bytes: u64,
    /// Attempts to write that were refused, together.
    pub refused: u64,
    /// The first different ones.
    pub refusals: Vec<RefusedWrite>,
    /// Reads that the storage let down for good.
    pub failures: u64,
    /// Objects that tools wrote to the overlay.
    pub overlay_objects: u64,
    /// Their bytes.
    pub overlay_bytes: u64,
}

impl ServedFacts {
    /// Counts in what was served for another component.
    pub fn add(&mut self, other: &ServedFacts) {
        for (operation, times) in &other.requests {
            *self.requests.entry(operation.clone()).or_default() += times;
        }
        self.bytes += other.bytes;
        self.refused += other.refused;
        self.refusals.extend(other.refusals.iter().cloned());
        self.failures += other.failures;
        self.overlay_objects += other.overlay_objects;
        self.overlay_bytes += other.overlay_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn found(path: &str, document: &serde_json::Value) -> Vec<serde_json::Value> {
        path.parse::<ItemPath>().unwrap().find(document).into_iter().cloned().collect()
    }

    #[test]
    fn items_are_found_in_the_shapes_that_tools_print() {
        assert_eq!(found("[]", &json!([1, 2])), [1, 2]);
        assert_eq!(found("archives[]", &json!({"archives": [{"name": "a"}]})), [json!({"name": "a"})]);
        assert_eq!(found("[].backup[].label", &json!([{"backup": [{"label": "x"}, {"label": "y"}]}, {"backup": []}])), ["x", "y"]);
        assert_eq!(found("[][]", &json!([[1], [2, 3]])), [1, 2, 3]);
        assert_eq!(found("timestamp.stop", &json!({"timestamp": {"stop": 7}})), [7]);
        assert!(found("a.b[]", &json!({"a": 1})).is_empty());
    }

    #[test]
    fn paths_that_lead_nowhere_are_refused() {
        for bad in ["", ".", "a..b", "a.", "[0]", "a[", "a.[]"] {
            assert!(bad.parse::<ItemPath>().is_err(), "{bad}");
        }
    }
}
