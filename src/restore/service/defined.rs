//! Services by definition: what differs from one kind of server to the next is data (`scenarios/services/`), what is demanded of
//! all of them is here. Its commands run inside; what they print is told by the definition's own patterns.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;

use super::{AskError, Job, Rows, Service, ServiceError, Shop, how};
use crate::domain::{Ask, DefinedStep, Engine, Place, ServiceFacts, ServiceProblem, Text};
use crate::restore::tool::last_words;
use crate::sandbox::{Ended, Exit, SandboxError};

/// Room of the server's data.
const DATA: &str = "data";
/// Room of its sockets.
const RUN: &str = "run";
/// Room of its files.
const FILES: &str = "etc";
/// Room of its log.
const LOG_ROOM: &str = "log";
/// Its log.
const LOG: &str = "server.log";
/// Bytes of the log's end that are looked at.
const LOG_BYTES: u64 = 1 << 20;
/// Longest time of one question whether it answers.
const ONE_TRY: Duration = Duration::from_secs(10);
/// Between two of them.
const PAUSE: Duration = Duration::from_millis(200);

/// A service in its life.
pub(super) struct Defined {
    name: String,
    step: DefinedStep,
    program: PathBuf,
    inputs: BTreeMap<String, String>,
    pid: Option<u32>,
}

impl Defined {
    pub(super) fn new(name: &str, step: &DefinedStep) -> Self {
        Self { name: name.to_owned(), step: step.clone(), program: PathBuf::new(), inputs: BTreeMap::new(), pid: None }
    }

    fn filling(&self, shop: &Shop<'_>, place: &Place, query: Option<&str>) -> Option<String> {
        let home = shop.home();
        match place {
            Place::Home => Some(home),
            Place::Data => Some(format!("{home}/{DATA}")),
            Place::Run => Some(format!("{home}/{RUN}")),
            Place::RunEncoded => Some(format!("{home}/{RUN}").replace('/', "%2F")),
            Place::Nonce => Some(shop.nonce.clone()),
            Place::Pid => self.pid.map(|pid| pid.to_string()),
            Place::Processors => Some(shop.processors.to_string()),
            Place::Memory => Some((shop.memory >> 20).to_string()),
            Place::Query => query.map(str::to_owned),
            Place::Input(name) => self.inputs.get(name).cloned(),
            Place::File(name) => Some(format!("{home}/{FILES}/{name}")),
            Place::Value(name) => self.step.values.get(name).cloned(),
        }
    }

    fn filled(&self, shop: &Shop<'_>, text: &Text, query: Option<&str>) -> Result<String, ServiceError> {
        text.fill(&|place| self.filling(shop, place, query))
            .map_err(|place| ServiceError::runner(format!("{place} of its definition has nothing to be filled with"), []))
    }

    fn job(&self, shop: &Shop<'_>, command: &[Text], query: Option<&str>) -> Result<Job, ServiceError> {
        let argv = command.iter().map(|text| self.filled(shop, text, query)).collect::<Result<Vec<_>, _>>()?;
        self.with_environment(shop, Job::new(argv))
    }

    fn with_environment(&self, shop: &Shop<'_>, job: Job) -> Result<Job, ServiceError> {
        let mut job = job.env("LC_ALL", "C.UTF-8");
        for (name, text) in &self.step.definition.env {
            job = job.env(name, self.filled(shop, text, None)?);
        }
        Ok(job)
    }

    /// Runs a question, and looks for its answer: `None` where it failed, or says something else.
    async fn ask(&self, shop: &Shop<'_>, ask: &Ask, time: Option<Duration>) -> Result<(Exit, Option<String>), ServiceError> {
        let mut command = ask.command.iter().map(|text| self.filled(shop, text, None)).collect::<Result<Vec<_>, _>>()?;
        if let Some(time) = time {
            // by a program of its own: where the sandbox ends a command, it ends the server as well
            command.splice(0..0, ["timeout".to_owned(), format!("{}s", time.as_secs().max(1))]);
        }
        let exit = shop.run(self.with_environment(shop, Job::new(command))?).await?;
        if !exit.success() {
            return Ok((exit, None));
        }
        let text = String::from_utf8_lossy(&exit.stdout).into_owned();
        let answer = match &ask.stdout {
            None => Some(text),
            Some(pattern) => {
                // what fills a pattern is no pattern
                let pattern = pattern.fill(&|place| self.filling(shop, place, None).map(|filling| regex::escape(&filling)));
                let pattern = pattern.map_err(|place| ServiceError::runner(format!("{place} has nothing to be filled with"), []))?;
                let pattern = regex::Regex::new(&pattern).map_err(|_| ServiceError::runner("a pattern of its definition is none", []))?;
                pattern.captures(&text).and_then(|found| found.get(1).or(found.get(0))).map(|found| found.as_str().to_owned())
            }
        };
        Ok((exit, answer))
    }

    fn log(&self, shop: &Shop<'_>) -> Vec<u8> {
        shop.since(LOG_ROOM, LOG, 0, LOG_BYTES)
    }

    /// What a failure means by the definition's own patterns, or else `otherwise`.
    fn judge(&self, shop: &Shop<'_>, how: String, output: Vec<u8>, otherwise: ServiceProblem) -> ServiceError {
        if let Some(full) = shop.sandbox.scratch_is_full() {
            return full.into();
        }
        let text = String::from_utf8_lossy(&output).into_owned();
        let says = |pattern: &str| regex::Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(&text));
        if self.step.definition.cannot_run.as_deref().is_some_and(says) {
            return ServiceError::runner(format!("{how}, with the words by which it says that the host is to blame"), output);
        }
        let known = self.step.definition.problems.iter().find(|(pattern, _)| says(pattern));
        ServiceError::backup(known.map_or(otherwise, |(_, problem)| *problem), how, output)
    }

    async fn alive(&self, shop: &Shop<'_>, pid: u32) -> Result<bool, SandboxError> {
        // a process that ended may still wait to be reaped
        let script = "read -r line < /proc/$0/stat && line=${line##*) } && test \"${line%% *}\" != Z";
        Ok(shop.run(Job::new(["bash", "-c", script, &pid.to_string()])).await?.success())
    }

    async fn start(&mut self, shop: &Shop<'_>) -> Result<u32, ServiceError> {
        let log = format!("{}/{LOG_ROOM}/{LOG}", shop.home());
        let script = "log=$0; setsid \"$@\" >\"$log\" 2>&1 </dev/null & echo $!";
        let mut argv: Vec<String> = ["bash", "-c", script, &log].map(str::to_owned).to_vec();
        for text in &self.step.definition.start {
            argv.push(self.filled(shop, text, None)?);
        }
        let exit = shop.run(self.with_environment(shop, Job::new(argv))?).await?;
        let pid = String::from_utf8_lossy(&exit.stdout).trim().parse().ok().filter(|_| exit.success());
        pid.ok_or_else(|| ServiceError::runner("its server cannot be started", last_words(&exit)))
    }

    /// Waits until the server answers; it has what is left of the drill's time.
    async fn answers(&self, shop: &Shop<'_>, pid: u32) -> Result<(), ServiceError> {
        loop {
            let left = (shop.left)();
            let (exit, answer) = self.ask(shop, &self.step.definition.ready, Some(ONE_TRY.min(left))).await?;
            if answer.is_some() {
                return Ok(());
            }
            if !self.alive(shop, pid).await? {
                return Err(self.judge(shop, "its log has the reason".to_owned(), self.log(shop), ServiceProblem::Crashed));
            }
            if (shop.left)().is_zero() {
                let output = [last_words(&exit), self.log(shop)].concat();
                return Err(self.judge(shop, "it runs, and the drill's time is out".to_owned(), output, ServiceProblem::NeverReady));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[async_trait]
impl Service for Defined {
    async fn load(&mut self, shop: &Shop<'_>) -> Result<(), ServiceError> {
        let definition = self.step.definition.clone();
        self.program = shop.program(&definition.program)?;
        for program in &definition.needs {
            shop.program(program)?;
        }
        for (name, pattern) in &self.step.inputs {
            self.inputs.insert(name.clone(), shop.input(pattern)?.inside);
        }
        for room in [DATA, RUN, LOG_ROOM, FILES] {
            shop.room(room)?;
        }
        for (name, path) in &definition.host_files {
            let bytes = std::fs::read(path)
                .map_err(|e| ServiceError::runner(format!("{path} of this host, which its definition needs: {}", e.kind()), []))?;
            shop.write(FILES, name, &bytes)?;
        }
        for (name, text) in &definition.files {
            shop.write(FILES, name, self.filled(shop, text, None)?.as_bytes())?;
        }
        for (number, load) in definition.load.iter().enumerate() {
            if load.with.as_ref().is_some_and(|input| !self.inputs.contains_key(input)) {
                continue;
            }
            let exit = shop.run(self.job(shop, &load.command, None)?).await?;
            if !exit.success() {
                let how = format!("command {} of its load {}", number + 1, how(&exit));
                if matches!(exit.ended, Ended::Status(126 | 127)) {
                    return Err(ServiceError::runner(format!("{how}: a program is not there"), last_words(&exit)));
                }
                return Err(self.judge(shop, how, last_words(&exit), ServiceProblem::LoadRefused));
            }
        }
        Ok(())
    }

    async fn ready(&mut self, shop: &Shop<'_>) -> Result<ServiceFacts, ServiceError> {
        let definition = self.step.definition.clone();
        let (_, version) = self.ask(shop, &definition.version, None).await?;
        let pid = self.start(shop).await?;
        self.pid = Some(pid);
        self.answers(shop, pid).await?;
        let (exit, known) = self.ask(shop, &definition.identity, None).await?;
        if known.is_none() || !self.alive(shop, pid).await? {
            let how = "what it says of itself is not what the server started here would say";
            return Err(ServiceError::backup(ServiceProblem::WrongServer, how, [last_words(&exit), self.log(shop)].concat()));
        }
        let (exit, answer) = self.ask(shop, &definition.rows, None).await?;
        let output = [last_words(&exit), self.log(shop)].concat();
        match answer.as_deref().map(str::trim).and_then(|number| number.parse::<u64>().ok()) {
            Some(0) => return Err(ServiceError::backup(ServiceProblem::Empty, "it counts nothing", output)),
            Some(_) => {}
            None => return Err(self.judge(shop, "it does not say how much it has".to_owned(), output, ServiceProblem::NeverReady)),
        }
        let inputs: Vec<&str> = self.inputs.keys().map(String::as_str).collect();
        let line = version.unwrap_or_default().trim().lines().next().unwrap_or_default().to_owned();
        Ok(ServiceFacts {
            name: self.name.clone(),
            engine: Engine::Defined,
            version: format!("{} {line}", definition.title).trim().to_owned(),
            path: self.program.display().to_string(),
            sha256: Some(super::shop::digest_of(&self.program)?),
            recorded: None,
            method: format!("{}, by the definition {}", inputs.join(" and "), self.step.whose),
            identity: "it says what only the process that was started here knows".to_owned(),
            recovery: None,
            binary_logs: None,
        })
    }

    async fn query(&self, shop: &Shop<'_>, database: Option<&str>, sql: &str) -> Result<Rows, AskError> {
        let bad = |reason: String, output| AskError::BadQuestion { reason, output };
        if database.is_some() {
            return Err(bad("a service by definition has no databases: leave `database` out".to_owned(), Vec::new()));
        }
        let job = self.job(shop, &self.step.definition.query, Some(sql)).map_err(|e| bad(e.to_string(), Vec::new()))?;
        let exit = shop.run(job).await?;
        if !exit.success() {
            let output = last_words(&exit);
            let text = String::from_utf8_lossy(&output).into_owned();
            let refused = self.step.definition.refused.as_deref().and_then(|pattern| regex::Regex::new(pattern).ok());
            if refused.is_some_and(|pattern| pattern.is_match(&text)) {
                return Err(AskError::Refused { state: how(&exit), output });
            }
            return Err(bad(format!("the question cannot be asked: its client {}", how(&exit)), output));
        }
        let exit = exit.whole()?;
        let text = String::from_utf8(exit.stdout).map_err(|_| bad("the answer is no text".to_owned(), Vec::new()))?;
        // for programs that print lines, nothing is what NULL is elsewhere
        let value = |value: &str| (!value.is_empty()).then(|| value.to_owned());
        Ok(Rows(text.lines().map(|line| line.split('\t').map(value).collect()).collect()))
    }
}
