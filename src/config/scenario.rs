//! From a scenario's text to a valid scenario.

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use toml::Spanned;
use toml::de::DeTable;

use super::check_file::CheckTable;
use super::component::is_service;
use super::mistakes::{Collector, ConfigError};
use super::scenario_file::{
    AddressingWord, CriticalityWord, EgressWord, LockWord, RequireWord, RestoreTable, RightsWord, ScenarioFile, ScratchWord, SelectTable,
    SourceLimitsTable, SourceTable, UnlockTable,
};
use super::schema;
use crate::domain::{
    Addressing, ByteSize, CheckKind, CheckSpec, Comparison, Cpus, Criticality, DatabaseRef, EgressPolicy, FreshnessSource, LockMode,
    LockRequirement, Objectives, Period, PlanRef, PointPattern, Policy, Requirement, ResourceLimits, RestoreStep, RightsPolicy, Scenario,
    ScenarioName, ScratchKind, SecretRef, Selection, Source, SourceLimits, StorageLocation, TimeZone, Unlock,
};

/// Reads a scenario file.
///
/// # Errors
/// [`ConfigError`]: unreadable, or with every mistake in it.
pub fn load_scenario(path: &Path) -> Result<Scenario, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    let base = std::path::absolute(path).ok().and_then(|p| p.parent().map(Path::to_owned)).unwrap_or_default();
    parse_scenario(&text, path, &base)
}

/// Makes a scenario of `text`; `path` is for messages, relative paths are taken from `base`.
///
/// # Errors
/// [`ConfigError::Mistakes`] with every mistake.
pub fn parse_scenario(text: &str, path: &Path, base: &Path) -> Result<Scenario, ConfigError> {
    let mut mistakes = Collector::default();
    let (document, syntax) = DeTable::parse_recoverable(text);
    for error in syntax {
        mistakes.add(
            error.span().unwrap_or(0..0),
            error.message().to_owned(),
            Some("see https://toml.io for how TOML is written".to_owned()),
        );
    }
    if !mistakes.is_empty() {
        return Err(mistakes.into_error(path, text));
    }
    // what is structurally wrong is mended for the rest of the reading, so that every mistake is told at once
    let repairs = schema::check(&super::scenario_schema(), &document, &mut mistakes);
    let file = toml::from_str::<toml::Table>(text).and_then(|mut table| {
        repairs.iter().for_each(|repair| repair.apply(&mut table));
        table.try_into::<ScenarioFile>()
    });
    let file = match file {
        Ok(file) => file,
        Err(error) => {
            if mistakes.is_empty() {
                mistakes.add(error.span().unwrap_or(0..0), error.message().to_owned(), None);
            }
            return Err(mistakes.into_error(path, text));
        }
    };
    let mut reader = Reader { document: &document, base, mistakes, repairs };
    let scenario = reader.scenario(file, text);
    let mistakes = reader.mistakes;
    match scenario {
        Some(scenario) if mistakes.is_empty() => Ok(scenario),
        _ => Err(mistakes.into_error(path, text)),
    }
}

fn requirement(word: &RequireWord) -> Requirement {
    match word {
        RequireWord::Isolation => Requirement::Isolation,
        RequireWord::Memory => Requirement::Memory,
        RequireWord::Processes => Requirement::Processes,
        RequireWord::Cpu => Requirement::Cpu,
        RequireWord::Scratch => Requirement::Scratch,
        RequireWord::NoSwap => Requirement::NoSwap,
        RequireWord::Landlock => Requirement::Landlock,
    }
}

pub(super) struct Reader<'a> {
    document: &'a Spanned<DeTable<'a>>,
    base: &'a Path,
    mistakes: Collector,
    repairs: Vec<schema::Repair>,
}

impl Reader<'_> {
    pub(super) fn wrong(&mut self, at: &str, what: impl Into<String>, advice: impl Into<String>) {
        self.note(at, what.into(), Some(advice.into()));
    }

    /// Notes a mistake, unless it is about something that only stands in for a mistake already noted.
    fn note(&mut self, at: &str, what: String, advice: Option<String>) {
        if !self.repairs.iter().any(|repair| repair.covers(at)) {
            self.mistakes.add(schema::span_of(self.document, at), what, advice);
        }
    }

    /// Parses one value; a mistake is noted and answered with `None`.
    pub(super) fn parse<T: FromStr>(&mut self, at: &str, text: &str) -> Option<T>
    where
        T::Err: Display,
    {
        match text.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.note(at, error.to_string(), None);
                None
            }
        }
    }

    pub(super) fn maybe<T: FromStr>(&mut self, at: &str, text: Option<&String>) -> Option<T>
    where
        T::Err: Display,
    {
        text.and_then(|text| self.parse(at, text))
    }

    pub(super) fn path(&self, text: &str) -> PathBuf {
        self.base.join(text)
    }

    pub(super) fn secret(&mut self, at: &str, text: &str) -> Option<SecretRef> {
        if let Some(path) = text.strip_prefix("file:") {
            return Some(SecretRef::File(self.path(path)));
        }
        if let Some(name) = text.strip_prefix("env:") {
            return Some(SecretRef::Env(name.to_owned()));
        }
        // the text may be the secret itself: it is not repeated
        self.wrong(
            at,
            "this is not a reference to a secret",
            "write \"file:PATH\" or \"env:NAME\"; a secret itself never stands in a scenario",
        );
        None
    }

    pub(super) fn zone(&mut self, at: &str, text: &str) -> Option<TimeZone> {
        if jiff::tz::TimeZone::get(text).is_ok() {
            return Some(TimeZone(text.to_owned()));
        }
        self.wrong(at, format!("there is no time zone `{text}`"), "use an IANA name, as \"America/Chicago\" or \"UTC\"");
        None
    }

    fn scenario(&mut self, file: ScenarioFile, text: &str) -> Option<Scenario> {
        let name: Option<ScenarioName> = self.parse("name", &file.name);
        if file.system.trim().is_empty() {
            self.wrong("system", "the system has no name", "write what the contingency plan calls it");
        }
        let objectives = Objectives {
            rpo: self.maybe("objectives.rpo", file.objectives.rpo.as_ref()),
            rto: self.maybe("objectives.rto", file.objectives.rto.as_ref()),
            declared: self.maybe("objectives.declared", file.objectives.declared.as_ref()),
            skew: self.maybe("objectives.skew", file.objectives.skew.as_ref()),
        };
        let schedule = file.schedule.as_ref().and_then(|table| self.schedule(table));
        let (source, unlock, components) = self.sources(&file);
        let limits = self.limits(&file);
        let restore = self.restore(&file);
        let checks = self.checks(&file);
        Some(Scenario {
            name: name?,
            system: file.system,
            criticality: match file.criticality {
                CriticalityWord::Critical => Criticality::Critical,
                CriticalityWord::High => Criticality::High,
                CriticalityWord::Moderate => Criticality::Moderate,
                CriticalityWord::Low => Criticality::Low,
            },
            plan: file.plan.map(|plan| PlanRef { id: plan.id, version: plan.version }),
            objectives,
            schedule,
            source: source?,
            unlock,
            limits,
            egress: match file.sandbox.egress {
                EgressWord::Record => EgressPolicy::Record,
                EgressWord::Forbid => EgressPolicy::Forbid,
            },
            restore: restore?,
            components: components?,
            within: None,
            checks,
            regression: self.regression(file.regression.as_ref()),
            text: text.to_owned(),
        })
    }

    /// Steps of one restore; the native pipeline alone where nothing is said.
    pub(super) fn steps(&mut self, at: &str, tables: &[RestoreTable], bare: bool) -> Option<Vec<RestoreStep>> {
        let first_service = tables.iter().position(is_service).unwrap_or(tables.len());
        let (before, services) = tables.split_at(first_service);
        if let Some(late) = services.iter().position(|t| !is_service(t)) {
            let at = format!("{at}.{}", first_service + late);
            self.wrong(&at, "a service starts on what was restored before", "move this step before the services");
        }
        let archives = before.iter().filter(|t| matches!(t, RestoreTable::Archive {})).count();
        if archives > 1 {
            self.wrong(&format!("{at}.1"), "one `archive` step unpacks everything", "remove the second [[restore]]");
        } else if archives == 1 && before.iter().any(|t| matches!(t, RestoreTable::Tool { .. })) {
            self.wrong(
                &format!("{at}.1"),
                "the native pipeline and foreign tools do not restore into one tree",
                "use `archive` alone, or tools alone",
            );
        }
        let snapshot = before.iter().any(|t| matches!(t, RestoreTable::Tool { snapshots: Some(_), .. }));
        let mut steps = Vec::new();
        for (number, table) in before.iter().enumerate() {
            steps.push(match table {
                RestoreTable::Tool { .. } => {
                    self.tool(&format!("{at}.{number}"), table, bare, snapshot).map(|step| RestoreStep::Tool(Box::new(step)))
                }
                _ => Some(RestoreStep::Archive),
            });
        }
        if before.is_empty() {
            steps.push(Some(RestoreStep::Archive));
        }
        steps.extend(self.services_from(first_service, services)?.into_iter().map(Some));
        steps.into_iter().collect()
    }

    /// Services alone.
    pub(super) fn services(&mut self, tables: &[RestoreTable]) -> Option<Vec<RestoreStep>> {
        self.services_from(0, tables)
    }

    fn services_from(&mut self, first: usize, tables: &[RestoreTable]) -> Option<Vec<RestoreStep>> {
        let mut steps = Vec::new();
        for (number, table) in tables.iter().enumerate().filter(|(_, table)| is_service(table)) {
            let at = format!("restore.{}", first + number);
            steps.push(self.service(&at, table).map(|step| RestoreStep::Service(Box::new(step))));
        }
        self.unique_services(&steps);
        steps.into_iter().collect()
    }

    pub(super) fn source(&mut self, at: &str, table: &SourceTable) -> Option<Source> {
        let location = self.location(at, &table.url);
        let local = matches!(location, Some(StorageLocation::File { .. }));
        if let Some(endpoint) = &table.endpoint {
            if local {
                self.wrong(&format!("{at}.endpoint"), "a local directory has no endpoint", "remove `endpoint`, or use an s3:// url");
            } else if endpoint.starts_with("http://") {
                if !table.allow_http {
                    self.wrong(
                        &format!("{at}.endpoint"),
                        "a plain http endpoint is neither private nor authenticated",
                        "use https, or set `allow_http = true`: the report will say so",
                    );
                }
            } else if !endpoint.starts_with("https://") {
                self.wrong(&format!("{at}.endpoint"), "an endpoint begins with https://", "write it as \"https://s3.example.org\"");
            }
        }
        if let Some(pattern) = &table.points {
            let _: Option<PointPattern> = self.parse(&format!("{at}.points"), pattern);
        }
        let points_time_zone = table.points_time_zone.as_ref().and_then(|zone| self.zone(&format!("{at}.points_time_zone"), zone));
        let lock = table.policy.lock.as_ref().and_then(|lock| {
            let remaining = self.parse(&format!("{at}.policy.lock.remaining"), &lock.remaining)?;
            let mode = match lock.mode {
                LockWord::Governance => LockMode::Governance,
                LockWord::Compliance => LockMode::Compliance,
            };
            Some(LockRequirement { mode, remaining })
        });
        let rights = table.policy.rights.map(|RightsWord::ReadOnly| RightsPolicy::ReadOnly);
        if local && rights.is_some() {
            self.wrong(&format!("{at}.policy.rights"), "a local directory has no credentials", "remove `rights`, or use an s3:// url");
        }
        if local && table.policy.lock.is_some() {
            self.wrong(&format!("{at}.policy.lock"), "a local directory has no object lock", "remove `lock`, or use an s3:// url");
        }
        let select = table.select.as_ref().and_then(|table| self.select(at, table));
        let look_back = self.maybe(&format!("{at}.look_back"), table.look_back.as_ref()).unwrap_or(Period::from_secs(90 * 86_400));
        Some(Source {
            location: location?,
            endpoint: table.endpoint.clone(),
            region: table.region.clone(),
            allow_http: table.allow_http,
            ca_file: table.ca_file.as_ref().map(|p| self.path(p)),
            profile: table.profile.clone(),
            addressing: match table.addressing {
                AddressingWord::Path => Addressing::Path,
                AddressingWord::VirtualHost => Addressing::VirtualHost,
            },
            points: table.points.clone(),
            points_time_zone,
            look_back,
            select: select.unwrap_or_default(),
            limits: self.source_limits(at, &table.limits),
            policy: Policy { encrypted: table.policy.encrypted.unwrap_or(true), lock, rights },
        })
    }

    fn source_limits(&mut self, at: &str, table: &SourceLimitsTable) -> SourceLimits {
        let bandwidth = table.bandwidth.as_deref().and_then(|text| match text.trim().strip_suffix("/s") {
            Some(size) => self.parse::<ByteSize>(&format!("{at}.limits.bandwidth"), size.trim()),
            None => {
                self.wrong(&format!("{at}.limits.bandwidth"), format!("`{text}` is no bandwidth"), "write bytes a second, as \"20MiB/s\"");
                None
            }
        });
        let limits =
            SourceLimits { bytes: self.maybe(&format!("{at}.limits.bytes"), table.bytes.as_ref()), requests: table.requests, bandwidth };
        for (at, value) in [
            (format!("{at}.limits.bytes"), limits.bytes.map(|b| b.0)),
            (format!("{at}.limits.requests"), limits.requests),
            (format!("{at}.limits.bandwidth"), limits.bandwidth.map(|b| b.0)),
        ] {
            if value == Some(0) {
                self.wrong(&at, "a limit of nothing lets nothing be read", "give it a positive value, or leave it out");
            }
        }
        limits
    }

    fn select(&mut self, at: &str, table: &SelectTable) -> Option<Selection> {
        let as_of = self.maybe(&format!("{at}.select.as_of"), table.as_of.as_ref()).map(Selection::AsOf);
        let captured_by = self.maybe(&format!("{at}.select.captured_by"), table.captured_by.as_ref()).map(Selection::CapturedBy);
        let point = table.point.clone().map(Selection::Id);
        match [&table.as_of, &table.captured_by, &table.point].iter().filter(|key| key.is_some()).count() {
            1 => as_of.or(captured_by).or(point),
            0 => {
                self.wrong(
                    &format!("{at}.select"),
                    "nothing is selected",
                    "write { as_of = \"24h\" }, or leave it out for the newest recovery point",
                );
                None
            }
            _ => {
                self.wrong(&format!("{at}.select"), "`as_of`, `captured_by` and `point` exclude each other", "keep the one you mean");
                None
            }
        }
    }

    fn location(&mut self, at: &str, url: &str) -> Option<StorageLocation> {
        if let Some(rest) = url.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                self.wrong(&format!("{at}.url"), "the bucket has no name", "write \"s3://bucket/prefix/\"");
                return None;
            }
            // a prefix is a folder: `ehr` must never match `ehr-test`
            let prefix = match prefix.trim_matches('/') {
                "" => String::new(),
                folder => format!("{folder}/"),
            };
            return Some(StorageLocation::S3 { bucket: bucket.to_owned(), prefix });
        }
        if let Some(path) = url.strip_prefix("file://").or_else(|| url.strip_prefix("file:")) {
            return Some(StorageLocation::File { path: self.path(path) });
        }
        let known = url.starts_with("gs://") || url.starts_with("az://");
        let what = if known { "this kind of storage is not built in yet" } else { "this is not a storage url" };
        self.wrong(&format!("{at}.url"), what, "write \"s3://bucket/prefix/\" for S3-compatible storage or \"file:///directory/\"");
        None
    }

    pub(super) fn unlock(&mut self, at: &str, table: &UnlockTable) -> Unlock {
        let mut unlock = Unlock::default();
        for (number, text) in table.age_identities.iter().enumerate() {
            unlock.identities.extend(self.secret(&format!("{at}.age_identities.{number}"), text));
        }
        for (number, text) in table.trusted_producers.iter().enumerate() {
            match text.strip_prefix("file:") {
                Some(path) => unlock.trusted_producers.push(self.path(path)),
                None => self.wrong(
                    &format!("{at}.trusted_producers.{number}"),
                    "a public key is named by its file",
                    "write \"file:keys/backup-host.pub\"",
                ),
            }
        }
        unlock
    }

    fn limits(&mut self, file: &ScenarioFile) -> ResourceLimits {
        let defaults = ResourceLimits::default();
        let table = &file.sandbox;
        let mut limits = ResourceLimits {
            memory: self.maybe("sandbox.memory", table.memory.as_ref()).unwrap_or(defaults.memory),
            processes: table.processes.unwrap_or(defaults.processes),
            time: self.maybe("sandbox.time", table.time.as_ref()).unwrap_or(defaults.time),
            max_files: table.max_files.unwrap_or(defaults.max_files),
            max_ratio: table.max_ratio.unwrap_or(defaults.max_ratio),
            max_depth: table.max_depth.unwrap_or(defaults.max_depth),
            require: table.require.iter().map(requirement).collect(),
            tools: self.directories_of_tools(&table.tools),
            ..defaults
        };
        if let Some(processors) = table.cpus {
            limits.cpus = Cpus::new(processors);
            if limits.cpus.is_none() {
                self.wrong("sandbox.cpus", "this is no number of processors", "write 0.01 to 1000, as 1.5");
            }
        }
        if limits.require.contains(&Requirement::Cpu) && table.cpus.is_none() {
            self.wrong("sandbox.require", "`cpu` is required and no quota is set", "add `cpus = 1.5`, or whatever the drill may use");
        }
        if let Some(scratch) = &table.scratch {
            limits.scratch_size = self.maybe::<ByteSize>("sandbox.scratch.size", scratch.size.as_ref()).unwrap_or(limits.scratch_size);
            limits.scratch = match scratch.kind {
                ScratchWord::Tmpfs => ScratchKind::Tmpfs,
                ScratchWord::Encrypted => ScratchKind::Encrypted,
                ScratchWord::Directory => ScratchKind::Directory,
            };
            limits.scratch_path = scratch.path.as_ref().map(|p| self.path(p));
            match (scratch.kind, &scratch.path) {
                (ScratchWord::Directory, None) => {
                    self.wrong("sandbox.scratch", "a directory scratch needs a `path`", "name the directory that scratch is made in")
                }
                (ScratchWord::Tmpfs, Some(_)) => {
                    self.wrong("sandbox.scratch.path", "a tmpfs has no path on the host", "remove `path`, or use kind = \"encrypted\"")
                }
                (ScratchWord::Encrypted, None) => self.wrong(
                    "sandbox.scratch",
                    "an encrypted scratch needs a `path`",
                    "name the directory on whose disk it is made, as \"/var/tmp\"",
                ),
                (ScratchWord::Encrypted | ScratchWord::Directory, Some(_)) | (ScratchWord::Tmpfs, None) => {}
            }
        }
        for (at, value) in
            [("sandbox.memory", limits.memory.0), ("sandbox.scratch.size", limits.scratch_size.0), ("sandbox.time", limits.time.seconds)]
        {
            if value == 0 {
                self.wrong(at, "a limit of nothing lets nothing run", "give it a positive value");
            }
        }
        limits
    }

    fn checks(&mut self, file: &ScenarioFile) -> Vec<CheckSpec> {
        let mut checks: Vec<CheckSpec> = Vec::new();
        let sources = || file.source.iter().chain(file.component.iter().map(|component| &component.source));
        let bare = sources().count() > 0 && sources().all(|source| source.points.is_some());
        for (index, table) in file.check.iter().enumerate() {
            let Some(check) = self.check(&format!("check.{index}"), table, bare) else { continue };
            let stands_in = self.repairs.iter().any(|repair| repair.covers(&format!("check.{index}")));
            if !stands_in && checks.iter().any(|other| other.name == check.name) {
                self.wrong(
                    &format!("check.{index}"),
                    format!("there are two checks named `{}`", check.name),
                    "give each check a `name` of its own",
                );
            }
            checks.push(check);
        }
        checks
    }

    fn check(&mut self, at: &str, table: &CheckTable, bare: bool) -> Option<CheckSpec> {
        let (name, kind) = match table {
            CheckTable::Manifest { name } => {
                if bare {
                    self.wrong(
                        at,
                        "bare objects carry no manifest to check against",
                        "use `files`, `command` and `freshness`, or back up with `firedrill seal`",
                    );
                }
                (name, Some(CheckKind::Manifest))
            }
            CheckTable::Files { name, path, pattern, count, bytes, newest } => {
                let pattern = self.pattern(at, path.as_ref(), pattern.as_ref());
                let count: Option<Comparison> = self.maybe(&format!("{at}.count"), count.as_ref());
                let bytes: Option<Comparison> = self.maybe(&format!("{at}.bytes"), bytes.as_ref());
                let newest: Option<Period> = self.maybe(&format!("{at}.newest"), newest.as_ref());
                (name, pattern.map(|pattern| CheckKind::Files { pattern, count, bytes, newest }))
            }
            CheckTable::Command { name, command, exit, stdout } => {
                if command.first().is_none_or(|program| program.is_empty()) {
                    self.wrong(
                        &format!("{at}.command"),
                        "the command names no program",
                        "write a list, as [\"sqlite3\", \"records.db\", \"pragma integrity_check\"]",
                    );
                }
                if let Some(stdout) = stdout
                    && let Err(error) = regex::Regex::new(stdout)
                {
                    let reason = error.to_string();
                    self.wrong(&format!("{at}.stdout"), "this is not a regular expression", reason.lines().last().unwrap_or("").to_owned());
                }
                (name, Some(CheckKind::Command { command: command.clone(), exit: *exit, stdout: stdout.clone() }))
            }
            CheckTable::Freshness { name, query: Some(query), service, database, path, pattern, field } => {
                if path.is_some() || pattern.is_some() || field.is_some() {
                    self.wrong(at, "`query` asks a database, and the other keys look at files", "keep the one you mean");
                }
                let of = DatabaseRef { service: service.clone(), database: database.clone() };
                (name, Some(CheckKind::Freshness { from: FreshnessSource::Query { of, query: query.clone() } }))
            }
            CheckTable::Sql { name, service, database, query, expect, tables } => {
                let of = DatabaseRef { service: service.clone(), database: database.clone() };
                let ask = self.sql(at, query.as_ref(), expect.as_ref(), tables);
                (name, ask.map(|ask| CheckKind::Sql { of, ask }))
            }
            CheckTable::Schema { name, .. }
            | CheckTable::Content { name, .. }
            | CheckTable::Integrity { name, .. }
            | CheckTable::References { name, .. }
            | CheckTable::Canary { name, .. } => (name, self.database_check(at, table)),
            CheckTable::Freshness { name, path, pattern, field, .. } => {
                let pattern = self.pattern(at, path.as_ref(), pattern.as_ref());
                let from = pattern.map(|pattern| match field {
                    Some(field) => FreshnessSource::Field { pattern, field: field.clone() },
                    None => FreshnessSource::FileTimes { pattern },
                });
                (name, from.map(|from| CheckKind::Freshness { from }))
            }
            CheckTable::Fhir { name, .. } => (name, self.fhir(at, table)),
            CheckTable::Hl7 { name, .. } => (name, self.hl7(at, table)),
            CheckTable::Dicom { name, .. } => (name, self.dicom(at, table)),
        };
        let kind = kind?;
        let name = name.clone().unwrap_or_else(|| kind.word().to_owned());
        Some(CheckSpec { name, kind })
    }

    pub(super) fn pattern(&mut self, at: &str, path: Option<&String>, pattern: Option<&String>) -> Option<String> {
        match (path, pattern) {
            (Some(path), None) => Some(globset_escape(path)),
            (None, Some(pattern)) => match crate::checks::Glob::new(pattern) {
                Ok(_) => Some(pattern.clone()),
                Err(error) => {
                    self.wrong(
                        &format!("{at}.pattern"),
                        error.to_string(),
                        "use * within a component and ** across, as \"records/**/*.json\"",
                    );
                    None
                }
            },
            (Some(_), Some(_)) => {
                self.wrong(at, "`path` and `pattern` exclude each other", "keep the one you mean");
                None
            }
            (None, None) => {
                self.wrong(at, "the check looks at nothing", "give it a `path` or a `pattern`");
                None
            }
        }
    }
}

/// A path as a pattern that matches itself only.
fn globset_escape(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for c in path.trim_start_matches("./").chars() {
        if matches!(c, '*' | '?' | '[' | ']' | '\\') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}
