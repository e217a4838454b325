//! Foreign tools: where their programs are, and from the table of a step to a valid step.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::reader::Reader;
use super::scenario_file::{ReadsWord, RestoreTable, SnapshotsTable, WritesWord};
use crate::domain::{OWN_PLACES, Placeholder, Snapshots, Template, ToolReads, ToolStep, ToolWrites};

/// What the places of a step may be filled with.
struct Fillings<'a> {
    secrets: Vec<&'a str>,
    files: Vec<&'a str>,
    reads: ToolReads,
    /// Whether the scenario names bare objects.
    objects: bool,
    /// Whether something before this place selects a recovery point of the tool's own.
    snapshot: bool,
}

/// Whether a place may be filled with a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Secrets {
    Allowed,
    Refused,
}

impl Reader<'_> {
    /// Directories of programs, which the sandbox shows where they are on the host.
    pub(super) fn directories_of_tools(&mut self, paths: &[String]) -> Vec<PathBuf> {
        let tools: Vec<PathBuf> = paths.iter().map(|path| without_dots(&self.path(path))).collect();
        for (number, tool) in tools.iter().enumerate() {
            if let Some(place) = OWN_PLACES.iter().find(|place| tool.starts_with(place)) {
                let what = format!("{} lies below {place}, of which every sandbox has one of its own", tool.display());
                self.wrong(&format!("sandbox.tools.{number}"), what, "install the tools elsewhere, as below /opt");
            }
        }
        tools
    }

    pub(super) fn tool(&mut self, at: &str, table: &RestoreTable, objects: bool, snapshot: bool) -> Option<ToolStep> {
        let RestoreTable::Tool { tool, version, command, env, secrets, files, reads, writes, exit, cannot_run, snapshots } = table else {
            return None;
        };
        if tool.is_empty() || (tool.contains('/') && !tool.starts_with('/')) {
            self.wrong(&format!("{at}.tool"), "this names no program", "write a plain name, as \"restic\", or an absolute path");
        }
        if command.first().is_none_or(String::is_empty) {
            self.wrong(&format!("{at}.command"), "the command names no program", "write a list, as [\"restic\", \"restore\", \"latest\"]");
        }
        if version.as_ref().is_some_and(|v| v.first().is_none_or(String::is_empty)) {
            self.wrong(&format!("{at}.version"), "the command names no program", "write a list, as [\"restic\", \"version\"]");
        }
        for name in secrets.keys().chain(files.keys()).filter(|name| !is_plain(name)) {
            self.wrong(at, format!("`{name}` cannot name a file"), "use letters, digits, dots, hyphens and underscores");
        }
        if let Some(words) = cannot_run
            && let Err(error) = regex::Regex::new(words)
        {
            let reason = error.to_string();
            self.wrong(&format!("{at}.cannot_run"), "this is not a regular expression", reason.lines().last().unwrap_or("").to_owned());
        }
        let reads = match reads {
            ReadsWord::Gateway => ToolReads::Gateway,
            ReadsWord::Directory => ToolReads::Directory,
        };
        let fillings = Fillings {
            secrets: secrets.keys().map(String::as_str).collect(),
            files: files.keys().map(String::as_str).collect(),
            reads,
            objects,
            snapshot,
        };
        let command = self.templates(&format!("{at}.command"), command, &fillings);
        let env = self.table(&format!("{at}.env"), env, &fillings);
        for name in env.iter().flat_map(BTreeMap::keys).filter(|name| name.is_empty() || name.contains(['=', '\0'])) {
            self.wrong(&format!("{at}.env"), format!("`{name}` cannot name a variable"), "use letters, digits and underscores");
        }
        let files = self.table(&format!("{at}.files"), files, &fillings);
        let references: Option<BTreeMap<_, _>> =
            secrets.iter().map(|(name, text)| Some((name.clone(), self.secret(&format!("{at}.secrets.{name}"), text)?))).collect();
        let snapshots = match snapshots {
            None => None,
            Some(table) => Some(self.snapshots(&format!("{at}.snapshots"), table, &fillings)?),
        };
        if snapshots.is_some() && fillings.objects {
            self.wrong(
                &format!("{at}.snapshots"),
                "`points` in [source] already says what a recovery point is",
                "remove one of the two: `points` for single objects, `snapshots` for a repository",
            );
        }
        Some(ToolStep {
            tool: tool.clone(),
            version: version.clone().unwrap_or_else(|| vec![tool.clone(), "--version".to_owned()]),
            command: command?,
            env: env?,
            secrets: references?,
            files: files?,
            reads,
            writes: match writes {
                WritesWord::Refuse => ToolWrites::Refuse,
                WritesWord::Overlay => ToolWrites::Overlay,
            },
            exit: exit.clone().unwrap_or_else(|| vec![0]),
            cannot_run: cannot_run.clone(),
            snapshots,
        })
    }

    fn snapshots(&mut self, at: &str, table: &SnapshotsTable, fillings: &Fillings<'_>) -> Option<Snapshots> {
        if table.command.first().is_none_or(String::is_empty) {
            self.wrong(
                &format!("{at}.command"),
                "the command names no program",
                "write a list, as [\"restic\", \"snapshots\", \"--json\"]",
            );
        }
        let before = Fillings { snapshot: false, secrets: fillings.secrets.clone(), files: fillings.files.clone(), ..*fillings };
        let command = self.templates(&format!("{at}.command"), &table.command, &before);
        let (items, id, time) = (
            self.parse(&format!("{at}.items"), &table.items),
            self.parse(&format!("{at}.id"), &table.id),
            self.parse(&format!("{at}.time"), &table.time),
        );
        let time_zone = match &table.time_zone {
            None => None,
            Some(zone) => Some(self.zone(&format!("{at}.time_zone"), zone)?),
        };
        Some(Snapshots { command: command?, items: items?, id: id?, time: time?, time_zone })
    }

    fn templates(&mut self, at: &str, texts: &[String], fillings: &Fillings<'_>) -> Option<Vec<Template>> {
        let read: Vec<_> = texts
            .iter()
            .enumerate()
            .map(|(number, text)| self.template(&format!("{at}.{number}"), text, fillings, Secrets::Refused))
            .collect();
        read.into_iter().collect()
    }

    fn table(&mut self, at: &str, texts: &BTreeMap<String, String>, fillings: &Fillings<'_>) -> Option<BTreeMap<String, Template>> {
        let read: Vec<_> = texts
            .iter()
            .map(|(name, text)| (name.clone(), self.template(&format!("{at}.{name}"), text, fillings, Secrets::Allowed)))
            .collect();
        read.into_iter().map(|(name, template)| Some((name, template?))).collect()
    }

    fn template(&mut self, at: &str, text: &str, fillings: &Fillings<'_>, secrets: Secrets) -> Option<Template> {
        let template: Template = self.parse(at, text)?;
        for place in template.places() {
            if let Some((what, advice)) = unfillable(place, fillings, secrets) {
                self.wrong(at, format!("{place} {what}"), advice);
            }
        }
        Some(template)
    }
}

/// Why a place cannot be filled here, and what to do.
fn unfillable(place: &Placeholder, fillings: &Fillings<'_>, secrets: Secrets) -> Option<(&'static str, &'static str)> {
    use Placeholder as P;
    let directory = fillings.reads == ToolReads::Directory;
    match place {
        place if place.is_secret() && secrets == Secrets::Refused => {
            Some(("is a secret, which every process could read on a command line", "use `env` or `files`, or {secret_file:NAME}"))
        }
        P::Secret(name) | P::SecretFile(name) if !fillings.secrets.contains(&name.as_str()) => {
            Some(("names no secret of this step", "add it to `secrets`, as { password = \"file:keys/restic.password\" }"))
        }
        P::File(name) if !fillings.files.contains(&name.as_str()) => Some(("names no file of this step", "add it to [restore.files]")),
        place if place.needs_gateway() && directory => {
            Some(("is the gateway's, and this step reads a directory", "use {repository} or {object}, or remove `reads = \"directory\"`"))
        }
        P::Repository | P::Object if !directory => {
            Some(("is in the mirror, and this step reads through the gateway", "set `reads = \"directory\"`"))
        }
        P::Object | P::ObjectKey if !fillings.objects => {
            Some(("is one object, and the scenario names none", "set `points` in [source] to the names of the objects"))
        }
        P::Snapshot if !fillings.snapshot => {
            Some(("is chosen from the tool's own list, which no step says how to get", "add [restore.snapshots]"))
        }
        _ => None,
    }
}

fn is_plain(name: &str) -> bool {
    (1..=48).contains(&name.len())
        && !name.starts_with('.')
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

/// The path by its names alone: what is shown inside lies at the place that it says.
fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                plain.pop();
            }
            std::path::Component::CurDir => {}
            part => plain.push(part),
        }
    }
    plain
}
