//! `firedrill seal`: write a sealed set to a directory or straight to S3.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::args::{Cli, SealArgs};
use super::output::{self, is_watched, say};
use super::run::cancel_on_signals;
use super::{Exit, Failure};
use crate::app::App;
use crate::codec::age::Recipients;
use crate::domain::{Addressing, ByteSize, LockMode, Timestamp};
use crate::seal::{
    LocalSetWriter, PART_SIZE, S3SetWriter, S3Target, SEGMENT_SIZE, SealError, SealOptions, SealProgress, SealSource, Sealed, SetLock,
    SetWriter, seal, set_id,
};
use crate::storage::{Environment, Now, Settings};

pub(super) async fn run(cli: &Cli, app: &App, args: &SealArgs) -> Result<Exit, Failure> {
    let job = Job::of(app, args).map_err(Failure::config)?;
    let cancel = cancel_on_signals();
    let progress = Arc::new(SealProgress::default());
    let bar = show(&progress, !cli.quiet && is_watched());
    let shown = args.to.clone();
    let (worker, token) = (Arc::clone(&progress), cancel.clone());
    let outcome = tokio::task::spawn_blocking(move || job.write(&worker, &token)).await;
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
    let sealed = outcome.map_err(|e| Failure::new(Exit::Inconclusive, e))?.map_err(|e| failed(e, &cancel))?;
    for path in &sealed.changed {
        say(&format!("warning: {} changed while it was read: what was read is what is sealed", path.display()));
    }
    let manifest = &sealed.manifest;
    let stored: u64 = manifest.objects.iter().map(|o| o.size).sum();
    if cli.json {
        return output::json(&json!({
            "id": manifest.id,
            "to": shown,
            "captured_at": manifest.captured_at,
            "files": manifest.totals.files,
            "bytes": manifest.totals.bytes,
            "stored_bytes": stored,
            "objects": manifest.objects.len(),
            "signed": manifest.producer.public_key.is_some(),
            "changed_while_read": sealed.changed_count,
            "root_blake3": manifest.root_blake3,
        }));
    }
    output::line(&format!(
        "sealed {} to {shown}: {} files, {} as {} in {} objects{}",
        manifest.id,
        manifest.totals.files,
        ByteSize(manifest.totals.bytes),
        ByteSize(stored),
        manifest.objects.len(),
        if manifest.producer.public_key.is_some() { ", signed" } else { ", NOT signed: --sign KEY lets a drill tell it from a forgery" }
    ))
}

fn failed(error: anyhow::Error, cancel: &CancellationToken) -> Failure {
    let (exit, advice) = match error.downcast_ref::<SealError>() {
        _ if cancel.is_cancelled() => (Exit::Inconclusive, "seal again: nothing was left under the set's name"),
        Some(
            SealError::Nothing | SealError::Id { .. } | SealError::SameName { .. } | SealError::NoName { .. } | SealError::Name { .. },
        ) => (Exit::Usage, "see `firedrill seal --help`"),
        _ => (Exit::Failed, "nothing was left under the set's name; mend the cause and seal again"),
    };
    Failure::new(exit, error).with_advice(advice)
}

/// One set to write, with everything it needs.
pub(super) struct Job {
    pub(super) id: String,
    pub(super) source: Vec<PathBuf>,
    pub(super) stdin_name: String,
    pub(super) recipients: Recipients,
    pub(super) producer: String,
    pub(super) key: Option<ssh_key::PrivateKey>,
    pub(super) captured_at: Timestamp,
    pub(super) level: i32,
    pub(super) target: Destination,
    pub(super) now: Now,
}

/// Where sets are kept.
pub(super) enum Destination {
    /// A local directory.
    Directory(PathBuf),
    /// A bucket.
    Bucket {
        /// Its name.
        bucket: String,
        /// Empty, or ending in a slash.
        prefix: String,
        /// How it is reached.
        settings: Box<Settings>,
        /// For credentials.
        environment: Environment,
        /// Lock of every object.
        lock: Option<SetLock>,
    },
}

impl Job {
    fn of(app: &App, args: &SealArgs) -> anyhow::Result<Self> {
        let clock = Arc::clone(&app.clock);
        let now: Now = Arc::new(move || clock.now());
        let started = now();
        let captured_at = args.captured_at.unwrap_or(started);
        anyhow::ensure!(captured_at <= started, "the data cannot have been captured in the future ({captured_at})");
        let mut salt = [0; 4];
        aws_lc_rs::rand::fill(&mut salt).map_err(|_| anyhow::anyhow!("the system gives no randomness"))?;
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Ok(Self {
            id: set_id(captured_at, salt),
            source: args.sources.clone(),
            stdin_name: args.stdin_name.clone(),
            recipients: recipients(args)?,
            producer: args.producer.clone().unwrap_or(host),
            key: args.sign.as_deref().map(producer_key).transpose()?,
            captured_at,
            level: args.level,
            target: destination(app, args, started)?,
            now,
        })
    }

    /// Writes the set. Blocks.
    pub(super) fn write(self, progress: &SealProgress, cancel: &CancellationToken) -> anyhow::Result<Sealed> {
        let mut writer: Box<dyn SetWriter> = match self.target {
            Destination::Directory(path) => {
                Box::new(LocalSetWriter::new(&path, &self.id).with_context(|| format!("cannot write a set below {}", path.display()))?)
            }
            Destination::Bucket { bucket, prefix, settings, environment, lock } => {
                let target = S3Target { bucket: &bucket, prefix: &prefix, settings: &settings, env: &environment, lock };
                Box::new(S3SetWriter::new(&target, &self.id, Arc::clone(&self.now), tokio::runtime::Handle::current())?)
            }
        };
        let source = match self.source.as_slice() {
            [only] if only == Path::new("-") => SealSource::Stream { reader: Box::new(io::stdin()), name: self.stdin_name },
            _ => SealSource::Paths(self.source),
        };
        let now = || (self.now)();
        let options = SealOptions {
            id: self.id,
            captured_at: self.captured_at,
            now: &now,
            recipients: &self.recipients,
            producer: self.producer,
            key: self.key.as_ref(),
            level: self.level,
            part_size: PART_SIZE,
            segment_size: SEGMENT_SIZE,
            workers: None,
            spool: std::env::temp_dir(),
            progress,
            cancelled: &|| cancel.is_cancelled(),
        };
        Ok(seal(source, &options, &mut *writer)?)
    }
}

fn recipients(args: &SealArgs) -> anyhow::Result<Recipients> {
    let mut texts = args.recipient.clone();
    for path in &args.recipients_file {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        texts.extend(text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).map(str::to_owned));
    }
    anyhow::ensure!(!texts.is_empty(), "nobody could open it: name a recipient with --recipient age1… or --recipients-file");
    Ok(Recipients::parse(&texts)?)
}

/// The key that signs manifests.
pub(super) fn producer_key(path: &Path) -> anyhow::Result<ssh_key::PrivateKey> {
    let text = zeroize::Zeroizing::new(fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?);
    let key = ssh_key::PrivateKey::from_openssh(&*text).with_context(|| format!("{} is no OpenSSH private key", path.display()))?;
    anyhow::ensure!(!key.is_encrypted(), "{} is protected by a passphrase, which an unattended backup does not have", path.display());
    anyhow::ensure!(
        key.algorithm() == ssh_key::Algorithm::Ed25519,
        "{} is no Ed25519 key: ssh-keygen -t ed25519 makes one",
        path.display()
    );
    Ok(key)
}

fn destination(app: &App, args: &SealArgs, now: Timestamp) -> anyhow::Result<Destination> {
    let lock = match (args.lock, args.lock_for) {
        (Some(mode), Some(period)) => {
            let until =
                now.0.checked_add(jiff::SignedDuration::from_secs(i64::try_from(period.seconds)?)).context("the lock lasts too long")?;
            Some(SetLock { mode: LockMode::from(mode), until: Timestamp(until) })
        }
        _ => None,
    };
    if let Some(rest) = args.to.strip_prefix("s3://") {
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        anyhow::ensure!(!bucket.is_empty(), "the bucket has no name: write s3://bucket/prefix/");
        let folder = prefix.trim_matches('/');
        let settings = Settings {
            endpoint: args.endpoint.clone(),
            region: args.region.clone(),
            allow_http: args.allow_http,
            ca_file: args.ca_file.clone(),
            profile: args.profile.clone(),
            addressing: if args.virtual_host { Addressing::VirtualHost } else { Addressing::Path },
            ..Settings::default()
        };
        return Ok(Destination::Bucket {
            bucket: bucket.to_owned(),
            prefix: if folder.is_empty() { String::new() } else { format!("{folder}/") },
            settings: Box::new(settings),
            environment: app.environment.clone(),
            lock,
        });
    }
    anyhow::ensure!(lock.is_none(), "a local directory has no object lock: remove --lock, or seal to s3://");
    let path = args.to.strip_prefix("file://").or_else(|| args.to.strip_prefix("file:")).unwrap_or(&args.to);
    anyhow::ensure!(!path.contains("://"), "{} is not a place to keep sets: write s3://bucket/prefix/ or a directory", args.to);
    Ok(Destination::Directory(app.working_directory.join(path)))
}

/// A line of progress where a person watches.
fn show(progress: &Arc<SealProgress>, watched: bool) -> Option<ProgressBar> {
    if !watched {
        return None;
    }
    let bar = ProgressBar::new_spinner();
    bar.set_style(ProgressStyle::with_template("  {spinner} sealing: {msg}").unwrap_or_else(|_| ProgressStyle::default_spinner()));
    let (ticking, progress) = (bar.clone(), Arc::clone(progress));
    tokio::spawn(async move {
        while !ticking.is_finished() {
            let read = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
            let (files, bytes, stored) = (read(&progress.files), read(&progress.bytes), read(&progress.stored));
            ticking.set_message(format!("{files} files, {} read, {} stored", ByteSize(bytes), ByteSize(stored)));
            ticking.tick();
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    });
    Some(bar)
}
