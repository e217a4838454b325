//! From a scenario's text to a valid scenario.

use std::path::Path;

use toml::de::DeTable;

use super::check_file::CheckTable;
use super::component::is_service;
use super::mistakes::{Collector, ConfigError};
use super::reader::Reader;
use super::scenario_file::{
    CriticalityWord, EgressWord, RequireWord, RestoreTable, RightsWord, ScenarioFile, ScratchWord, SelectTable, SourceLimitsTable,
    SourceTable, UnlockTable,
};
use super::schema;
use crate::domain::{
    ByteSize, CheckKind, CheckSpec, Comparison, Cpus, Criticality, DatabaseRef, EgressPolicy, FreshnessSource, LockRequirement, Objectives,
    Period, PlanRef, PointPattern, Policy, Requirement, ResourceLimits, RestoreStep, RightsPolicy, Scenario, ScenarioName, ScratchKind,
    Selection, Source, SourceLimits, StorageLocation, Unlock,
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
    let mut reader = Reader::new(&document, base, mistakes, repairs);
    let scenario = reader.scenario(file, text);
    let mistakes = reader.into_mistakes();
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

impl Reader<'_> {
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
        let plan_until = file.plan.as_ref().and_then(|plan| self.date("plan.until", plan.until.as_ref()));
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
            plan: file.plan.map(|plan| PlanRef { id: plan.id, version: plan.version, until: plan_until }),
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
        self.endpoint(at, table.endpoint.as_deref(), table.allow_http, local);
        if let Some(pattern) = &table.points {
            let _: Option<PointPattern> = self.parse(&format!("{at}.points"), pattern);
        }
        let points_time_zone = table.points_time_zone.as_ref().and_then(|zone| self.zone(&format!("{at}.points_time_zone"), zone));
        let lock = table.policy.lock.as_ref().and_then(|lock| {
            let remaining = self.parse(&format!("{at}.policy.lock.remaining"), &lock.remaining)?;
            Some(LockRequirement { mode: lock.mode.into(), remaining })
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
            addressing: table.addressing.into(),
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
            let stands_in = self.stands_in(&format!("check.{index}"));
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
