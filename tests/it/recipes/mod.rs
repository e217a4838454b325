//! Recipes for other people's tools: each is run, as it is given away, against a backup that the tool itself made, onto a real S3
//! server (Ceph's radosgw), and against twins of that backup that were damaged as backups are: rotten, cut short, incomplete,
//! stale, empty, or under a key that nobody has.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::{ObjectStore, ObjectStoreExt};

use crate::drills::{Drilled, Home, said};
use crate::servers::{self, Locking, ceph};

mod binlogs;
mod checks;
mod compared;
mod components;
pub(crate) mod databases;
mod files;
mod hosts;
mod mariadb;
mod objects;
mod ordinary;
mod pitr;
mod postgres;
mod postgres_versions;
mod services;
mod sqlite;
mod timelines;

/// A bucket, and tools at home that write to it.
pub(crate) struct Vault<'a> {
    home: &'a Home,
    bucket: String,
    store: AmazonS3,
    runtime: tokio::runtime::Runtime,
}

impl<'a> Vault<'a> {
    pub(crate) fn new(home: &'a Home, locked: Locking) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let bucket = runtime.block_on(ceph().bucket(locked));
        let store = AmazonS3Builder::new()
            .with_endpoint(ceph().http())
            .with_allow_http(true)
            .with_region("us-east-1")
            .with_bucket_name(&bucket)
            .with_access_key_id(servers::ACCESS)
            .with_secret_access_key(servers::SECRET)
            .build()
            .unwrap();
        Self { home, bucket, store, runtime }
    }

    /// From now on, every new object version is locked for so many days.
    fn lock_for(&self, days: u32) {
        let body = format!(
            "<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule><DefaultRetention>\
             <Mode>COMPLIANCE</Mode><Days>{days}</Days></DefaultRetention></Rule></ObjectLockConfiguration>"
        );
        self.runtime.block_on(ceph().ok(http::Method::PUT, &format!("{}?object-lock=", self.bucket), &[], &body));
    }

    /// Where a scenario finds what is below `prefix`.
    pub(crate) fn place(&self, prefix: &str) -> Vec<(&'static str, toml::Value)> {
        vec![
            ("url", format!("s3://{}/{prefix}/", self.bucket).into()),
            ("endpoint", ceph().https().into()),
            ("ca_file", ceph().ca_file().display().to_string().into()),
        ]
    }

    /// A command of somebody who backs up: at home, with keys, and with nothing of this machine but its programs.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.home.root()).env_clear().envs(self.environment()).env("HOME", self.home.root());
        command
    }

    fn environment(&self) -> Vec<(&'static str, String)> {
        let (http, https) = (ceph().http(), ceph().https());
        vec![
            ("PATH", std::env::var("PATH").unwrap()),
            ("TZ", "UTC".to_owned()),
            ("LC_ALL", "C.UTF-8".to_owned()),
            ("RECIPIENT", self.home.recipient.clone()),
            ("BUCKET", self.bucket.clone()),
            ("ENDPOINT", http.clone()),
            ("TLS", https.trim_start_matches("https://").to_owned()),
            ("CA", ceph().ca_file().display().to_string()),
            ("AWS_ACCESS_KEY_ID", servers::ACCESS.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", servers::SECRET.to_owned()),
            ("AWS_DEFAULT_REGION", "us-east-1".to_owned()),
            // a remote of rclone's, by the name of `s3:`
            ("RCLONE_CONFIG_S3_TYPE", "s3".to_owned()),
            ("RCLONE_CONFIG_S3_PROVIDER", "Ceph".to_owned()),
            ("RCLONE_CONFIG_S3_ENDPOINT", http),
            ("RCLONE_CONFIG_S3_ACCESS_KEY_ID", servers::ACCESS.to_owned()),
            ("RCLONE_CONFIG_S3_SECRET_ACCESS_KEY", servers::SECRET.to_owned()),
        ]
    }

    /// Runs a script of somebody who backs up.
    #[track_caller]
    fn shell(&self, script: &str) -> String {
        succeeds(script, self.command("bash").args(["-euo", "pipefail", "-c", script]))
    }

    /// Drills.
    #[track_caller]
    fn run(&self, scenario: &Path) -> Drilled {
        let mut command = self.home.command(&["run", scenario.to_str().unwrap()]);
        command.env("AWS_ACCESS_KEY_ID", servers::ACCESS).env("AWS_SECRET_ACCESS_KEY", servers::SECRET);
        self.home.drilled(said(command.output().unwrap()))
    }

    /// Drills what must pass: without a refused write, or an attempt to reach anything outside.
    #[track_caller]
    fn passes(&self, scenario: &Path) -> Drilled {
        let drilled = self.run(scenario).ends("PASSED");
        let refused =
            drilled.findings().iter().any(|f| f["finding"] == "writes_refused" || (f["finding"] == "remark" && f["severity"] != "note"));
        assert!(!refused, "{:#?}", drilled.findings());
        assert_eq!(drilled.report["egress"]["total"], 0, "{:#}", drilled.report["egress"]);
        for tool in drilled.report["tools"].as_array().unwrap() {
            assert!(tool["version"].as_str().unwrap().contains(|c: char| c.is_ascii_digit()), "{tool:#}");
        }
        drilled
    }

    /// The keys below a prefix, biggest object first.
    fn keys(&self, prefix: &str) -> Vec<String> {
        let prefix = prefix.into();
        let mut found: Vec<_> = self.runtime.block_on(async {
            use futures_util::TryStreamExt;
            self.store.list(Some(&prefix)).try_collect::<Vec<_>>().await.unwrap()
        });
        found.sort_by_key(|object| (std::cmp::Reverse(object.size), object.location.clone()));
        assert!(!found.is_empty(), "nothing below {prefix}");
        found.into_iter().map(|object| object.location.to_string()).collect()
    }

    /// The biggest object below a prefix.
    fn biggest(&self, prefix: &str) -> String {
        self.keys(prefix).swap_remove(0)
    }

    fn read(&self, key: &str) -> Vec<u8> {
        self.runtime.block_on(async { self.store.get(&key.into()).await.unwrap().bytes().await.unwrap().to_vec() })
    }

    pub(crate) fn write(&self, key: &str, bytes: &[u8]) {
        drop(self.runtime.block_on(self.store.put(&key.into(), bytes.to_vec().into())).unwrap());
    }

    fn remove(&self, key: &str) {
        self.runtime.block_on(self.store.delete(&key.into())).unwrap();
    }

    /// Damages an object, as a new version of it; gives what undoes that.
    fn damage(&self, key: &str, harm: Harm) -> Mend<'_> {
        let good = self.read(key);
        let mut bytes = good.clone();
        let middle = bytes.len() / 2;
        match harm {
            Harm::Flip => bytes[middle] ^= 1,
            Harm::Cut => bytes.truncate(middle),
            Harm::Gone => {}
        }
        match harm {
            Harm::Gone => self.remove(key),
            _ => self.write(key, &bytes),
        }
        Mend { vault: self, key: key.to_owned(), good }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Harm {
    /// One bit in the middle.
    Flip,
    /// The second half.
    Cut,
    /// All of it.
    Gone,
}

/// Puts the good bytes back when it is dropped.
struct Mend<'a> {
    vault: &'a Vault<'a>,
    key: String,
    good: Vec<u8>,
}

impl Drop for Mend<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.vault.write(&self.key, &self.good);
        }
    }
}

#[track_caller]
fn succeeds(what: &str, command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{what}\n{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The backup failed this check, whichever others it failed too.
#[track_caller]
fn fails(drilled: &Drilled, check: &str) {
    let findings = drilled.clone().ends("FAILED").findings();
    let failed = findings.iter().any(|f| f["finding"] == "check_failed" && f["check"] == check && f["cause"] == "backup");
    assert!(failed, "{check}: {findings:#?}");
}

/// The usual tree with its sums in it, in `tree/`.
fn tree_with_sums(home: &Home) {
    home.tree();
    home.shell("cd tree; find . -type f ! -name SHA256SUMS -exec sha256sum {} + > ../sums; mv ../sums SHA256SUMS");
}

/// Where the tools are that the distribution does not have.
fn more_tools() -> PathBuf {
    static TOOLS: OnceLock<PathBuf> = OnceLock::new();
    let tools = TOOLS.get_or_init(|| {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/restore-tools-setup.sh");
        PathBuf::from(succeeds("restore-tools-setup.sh", &mut Command::new(script)).trim())
    });
    tools.clone()
}

/// Names them in the scenario, as somebody does who keeps them outside of the system's own directories.
fn with_more_tools(scenario: PathBuf) -> PathBuf {
    with_tools(scenario, &more_tools())
}

/// Likewise programs of any directory.
fn with_tools(scenario: PathBuf, directory: &Path) -> PathBuf {
    let mut table: toml::Table = std::fs::read_to_string(&scenario).unwrap().parse().unwrap();
    let tools = vec![toml::Value::from(directory.display().to_string())];
    table["sandbox"].as_table_mut().unwrap().insert("tools".to_owned(), tools.into());
    std::fs::write(&scenario, toml::to_string(&table).unwrap()).unwrap();
    scenario
}
