//! Definitions of services: from their tables to valid ones.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::reader::Reader;
use super::scenario_file::RestoreTable;
use crate::domain::{Ask, DefinedStep, Definition, LoadCommand, Place, ServiceProblem, Text};

/// Those that firedrill brings.
pub const BUILT_IN: [(&str, &str); 3] = [
    ("etcd", include_str!("../../scenarios/services/etcd.toml")),
    ("openldap", include_str!("../../scenarios/services/openldap.toml")),
    ("redis", include_str!("../../scenarios/services/redis.toml")),
];

/// How a kind of service is restored, started and asked. Texts have places: {home}, {data}, {run}, {run:encoded}, {nonce}, {pid}, {processors}, {memory}, {input:NAME}, {file:NAME}, {value:NAME}.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DefinitionTable {
    /// What people call it, as "Redis".
    pub title: String,
    /// The server's program, as "redis-server": its path and digest go into the evidence.
    pub program: String,
    /// Other programs that its commands use, as "redis-cli"; without one of them a drill is inconclusive.
    #[serde(default)]
    pub needs: Vec<String>,
    /// What prints its version; `stdout` finds it.
    pub version: AskTable,
    /// Whether the server writes to the restored files themselves; checks of files are asked before, then.
    #[serde(default)]
    pub in_place: bool,
    /// Values that a scenario may leave out.
    #[serde(default)]
    pub values: BTreeMap<String, String>,
    /// Files that are written for it, by name; {file:NAME} is where one is.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// Files of the host outside of /usr that it needs, as { "core.schema" = "/etc/ldap/schema/core.schema" }: copied, and found at {file:NAME}.
    #[serde(default)]
    pub host_files: BTreeMap<String, String>,
    /// Environment of all its commands.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// What is run before the start, in order: looks at the backup, loads it into {data}. A failure is the backup's.
    #[serde(default)]
    pub load: Vec<LoadTable>,
    /// The server, in the foreground; it is kept running until the drill ends.
    pub start: Vec<String>,
    /// Succeeds when the server answers; asked until then.
    pub ready: AskTable,
    /// Prints what only the server that was started here can know: its `stdout` has {pid} or {nonce} in it.
    pub identity: AskTable,
    /// Prints a number, more than 0 where anything was restored.
    pub rows: AskTable,
    /// Asks {query}, and prints its answer: a line for each row, tabs between values.
    pub query: QueryTable,
    /// What its programs print when they fail, and what that means.
    #[serde(default)]
    pub problem: Vec<ProblemTable>,
    /// A regular expression of what they print where the host is to blame and not the backup.
    pub cannot_run: Option<String>,
}

/// A command, and what is looked for in what it prints.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AskTable {
    /// Program and arguments.
    pub command: Vec<String>,
    /// A regular expression that must be found in its standard output; its first group is the answer.
    pub stdout: Option<String>,
}

/// One command of the load.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LoadTable {
    /// Program and arguments.
    pub command: Vec<String>,
    /// Only where the scenario names this input.
    pub with: Option<String>,
}

/// How a query is asked.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueryTable {
    /// Program and arguments, with {query} in one of them.
    pub command: Vec<String>,
    /// A regular expression of what it prints where a query fails because of what was restored; every other failure is the question's.
    pub refused: Option<String>,
}

/// What a program prints, and what it means.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ProblemTable {
    /// A regular expression of its output, or of the server's log.
    #[serde(rename = "match")]
    pub pattern: String,
    /// What is wrong with the backup then.
    pub is: ServiceProblem,
}

impl Reader<'_> {
    pub(super) fn defined(&mut self, at: &str, table: &RestoreTable) -> Option<DefinedStep> {
        let RestoreTable::Service { definition, define, input, values, .. } = table else { return None };
        let (at_it, read, whose) = match (definition, define) {
            (Some(name), None) => {
                let at = format!("{at}.definition");
                let (text, whose) = self.definition_text(&at, name)?;
                match toml::from_str::<DefinitionTable>(&text) {
                    Ok(read) => (at, read, whose),
                    Err(error) => {
                        self.wrong(&at, error.message().to_owned(), "see docs/services.md for what a definition says");
                        return None;
                    }
                }
            }
            (None, Some(table)) => (format!("{at}.define"), (**table).clone(), "in the scenario".to_owned()),
            _ => {
                self.wrong(at, "a service has one definition", "write definition = \"redis\", a path to your own, or [restore.define]");
                return None;
            }
        };
        let mut all = read.values.clone();
        all.extend(values.clone());
        let definition = self.definition(&at_it, &read)?;
        for name in input.keys().filter(|name| !definition.inputs().contains(name.as_str())) {
            let known = definition.inputs().into_iter().collect::<Vec<_>>().join(", ");
            self.wrong(&format!("{at}.input.{name}"), format!("its definition loads no `{name}`"), format!("it loads {known}"));
        }
        if input.is_empty() {
            let known = definition.inputs().into_iter().collect::<Vec<_>>().join(", ");
            self.wrong(at, "nothing is loaded", format!("name what was restored, by one of {known}: input = {{ … = \"*\" }}"));
        }
        for name in definition.values().into_iter().filter(|name| !all.contains_key(*name)) {
            self.wrong(at, format!("its definition needs the value `{name}`"), format!("write values = {{ {name} = \"…\" }}"));
        }
        for name in values.keys().filter(|name| !definition.values().contains(name.as_str())) {
            self.wrong(&format!("{at}.values.{name}"), format!("its definition has no value `{name}`"), "remove it");
        }
        if all.values().any(|value| value.contains(['\n', '\0'])) {
            self.wrong(&format!("{at}.values"), "a value is one line", "remove the line end");
        }
        Some(DefinedStep { definition, whose, inputs: input.clone(), values: all })
    }

    /// The text of a definition that firedrill brings, or of a file.
    fn definition_text(&mut self, at: &str, name: &str) -> Option<(String, String)> {
        if let Some((name, text)) = BUILT_IN.iter().find(|(built_in, _)| *built_in == name) {
            return Some(((*text).to_owned(), format!("`{name}` that is built in")));
        }
        let known = BUILT_IN.map(|(name, _)| name).join(", ");
        let advice = format!("write one of {known}, or the path of your own, as \"services/mine.toml\"");
        if !name.contains(['/', '.']) {
            self.wrong(at, format!("no definition `{name}` is built in"), advice);
            return None;
        }
        match std::fs::read_to_string(self.path(name)) {
            Ok(text) => {
                let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
                let digest = data_encoding::HEXLOWER.encode(digest.as_ref());
                Some((text, format!("with SHA-256 {digest}")))
            }
            Err(error) => {
                self.wrong(at, format!("`{name}` cannot be read: {}", error.kind()), advice);
                None
            }
        }
    }

    fn definition(&mut self, at: &str, table: &DefinitionTable) -> Option<Definition> {
        let load: Vec<Option<LoadCommand>> = table
            .load
            .iter()
            .map(|load| Some(LoadCommand { command: self.command(at, "load", &load.command)?, with: load.with.clone() }))
            .collect();
        for problem in &table.problem {
            self.pattern_of(at, "problem", &problem.pattern);
        }
        for (key, pattern) in [("query", &table.query.refused), ("cannot_run", &table.cannot_run)] {
            pattern.iter().for_each(|pattern| self.pattern_of(at, key, pattern));
        }
        let names = table.files.keys().chain(table.host_files.keys());
        for name in names.filter(|n| n.is_empty() || n.starts_with('.') || n.contains(['/', '\0'])) {
            self.wrong(at, format!("`{name}` cannot name a file"), "use letters, digits, dots, hyphens and underscores");
        }
        let definition = Definition {
            title: table.title.clone(),
            program: table.program.clone(),
            needs: table.needs.clone(),
            version: self.asked(at, "version", &table.version)?,
            in_place: table.in_place,
            files: self.texts(at, "files", &table.files)?,
            host_files: table.host_files.clone(),
            env: self.texts(at, "env", &table.env)?,
            load: load.into_iter().collect::<Option<_>>()?,
            start: self.command(at, "start", &table.start)?,
            ready: self.asked(at, "ready", &table.ready)?,
            identity: self.asked(at, "identity", &table.identity)?,
            rows: self.asked(at, "rows", &table.rows)?,
            query: self.command(at, "query", &table.query.command)?,
            refused: table.query.refused.clone(),
            problems: table.problem.iter().map(|p| (p.pattern.clone(), p.is)).collect(),
            cannot_run: table.cannot_run.clone(),
        };
        let shown = definition.identity.stdout.iter().flat_map(Text::places).any(|p| matches!(p, Place::Pid | Place::Nonce));
        if !shown {
            let advice = "let identity.stdout look for {pid} or for a {nonce} that the server was given at its start";
            self.wrong(at, "any server could say this of itself", advice);
        }
        if !definition.query.iter().flat_map(Text::places).any(|place| *place == Place::Query) {
            self.wrong(at, "its query asks always the same", "write {query} where the question goes");
        }
        Some(definition)
    }

    fn asked(&mut self, at: &str, key: &str, table: &AskTable) -> Option<Ask> {
        let stdout = match &table.stdout {
            None => None,
            Some(pattern) => {
                let text: Text = self.parse(&format!("{at}.{key}.stdout"), pattern)?;
                let filled = text.fill(&|_| Some("0".to_owned())).unwrap_or_default();
                self.pattern_of(at, key, &filled);
                Some(text)
            }
        };
        Some(Ask { command: self.command(at, key, &table.command)?, stdout })
    }

    fn command(&mut self, at: &str, key: &str, command: &[String]) -> Option<Vec<Text>> {
        if command.first().is_none_or(String::is_empty) {
            self.wrong(at, format!("`{key}` names no program"), "write a list, as [\"redis-server\", \"{file:redis.conf}\"]");
        }
        command.iter().map(|text| self.parse(&format!("{at}.{key}"), text)).collect()
    }

    fn texts(&mut self, at: &str, key: &str, texts: &BTreeMap<String, String>) -> Option<BTreeMap<String, Text>> {
        texts.iter().map(|(name, text)| Some((name.clone(), self.parse(&format!("{at}.{key}.{name}"), text)?))).collect()
    }

    fn pattern_of(&mut self, at: &str, key: &str, pattern: &str) {
        if let Err(error) = regex::Regex::new(pattern) {
            let reason = error.to_string();
            let what = format!("`{key}` has a pattern that is no regular expression");
            self.wrong(at, what, reason.lines().last().unwrap_or("").to_owned());
        }
    }
}
