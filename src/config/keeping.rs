//! Places outside of the runner: the archive of evidence, and anchors of the ledger.

use schemars::JsonSchema;
use serde::Deserialize;

use super::reader::Reader;
use super::scenario_file::{AddressingWord, LockWord};
use crate::domain::{ANCHORED_EVERY, AccessKey, Addressing, AnchorKind, AnchorPlace, LockMode, LockedBucket, RETENTION, StorageLocation};

/// A bucket that was made with object lock. What is written there is written once, locked, and read back.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LockedBucketTable {
    /// "s3://bucket/prefix/".
    pub url: String,
    /// Endpoint of an S3-compatible server, as "https://s3.example.org"; AWS where absent.
    pub endpoint: Option<String>,
    /// Region, as "us-east-1".
    pub region: Option<String>,
    /// Allows a plain http endpoint.
    #[serde(default)]
    pub allow_http: bool,
    /// PEM file of the certificate authorities to trust instead of the system's.
    pub ca_file: Option<String>,
    /// Profile of the shared AWS files to take credentials from.
    pub profile: Option<String>,
    /// How buckets are addressed: "path" (default) or "virtual-host".
    #[serde(default)]
    pub addressing: AddressingWord,
    /// Id of an access key of its own, as "env:ARCHIVE_KEY_ID" or "file:keys/archive.id"; with `secret_access_key`. It should be able to write, read and lock, and to delete nothing.
    pub access_key_id: Option<String>,
    /// Its secret, as "env:ARCHIVE_SECRET" or "file:keys/archive.secret".
    pub secret_access_key: Option<String>,
    /// How long what is written is locked, as "2200d" (default: six years and a margin).
    pub retention: Option<String>,
    /// "compliance" (default): nobody can shorten or lift the lock; or "governance": somebody with a right of its own can.
    pub mode: Option<LockWord>,
}

/// A place to which checkpoints of the ledger are carried; one of `bucket`, `timestamp` and `directory`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnchorTable {
    /// What it is called in the ledger, as "other-account": a-z, 0-9 and -, at most 32.
    pub name: String,
    /// How often a checkpoint is carried there where something was entered, as "1d" (default); and after each drill.
    pub every: Option<String>,
    /// A bucket with object lock, best of another account.
    pub bucket: Option<LockedBucketTable>,
    /// A timestamp authority (RFC 3161).
    pub timestamp: Option<TimestampTable>,
    /// A directory that is there: another host's, or a medium that somebody carries away.
    pub directory: Option<String>,
}

/// A timestamp authority (RFC 3161).
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TimestampTable {
    /// Where it is asked, as "https://tsa.example.org/tsr". Plain http is fine: what counts is its signature.
    pub url: String,
    /// PEM file of the certificates that vouch for it.
    pub ca: String,
}

impl Reader<'_> {
    pub(super) fn locked_bucket(&mut self, at: &str, table: &LockedBucketTable) -> Option<LockedBucket> {
        let (bucket, prefix) = match self.location(at, &table.url)? {
            StorageLocation::S3 { bucket, prefix } => (bucket, prefix),
            StorageLocation::File { .. } => {
                self.wrong(&format!("{at}.url"), "a directory has no object lock", "write \"s3://bucket/prefix/\"");
                return None;
            }
        };
        self.endpoint(at, table.endpoint.as_deref(), table.allow_http, false);
        let (id_at, secret_at) = (format!("{at}.access_key_id"), format!("{at}.secret_access_key"));
        let id = table.access_key_id.as_ref().and_then(|text| self.secret(&id_at, text));
        let secret = table.secret_access_key.as_ref().and_then(|text| self.secret(&secret_at, text));
        if table.access_key_id.is_some() != table.secret_access_key.is_some() {
            self.wrong(at, "an access key has an id and a secret, and one of them is missing", "name both, or neither");
        }
        if table.access_key_id.is_some() && table.profile.is_some() {
            self.wrong(&format!("{at}.profile"), "there is a profile and a key", "keep the one that should be used");
        }
        let retention = self.maybe(&format!("{at}.retention"), table.retention.as_ref()).unwrap_or(RETENTION);
        if retention.seconds == 0 {
            self.wrong(&format!("{at}.retention"), "this locks for no time at all", "write a length of time, as \"2200d\"");
        }
        Some(LockedBucket {
            bucket,
            prefix,
            endpoint: table.endpoint.clone(),
            region: table.region.clone(),
            allow_http: table.allow_http,
            ca_file: table.ca_file.as_ref().map(|file| self.path(file)),
            profile: table.profile.clone(),
            addressing: Addressing::from(table.addressing),
            key: id.zip(secret).map(|(id, secret)| AccessKey { id, secret }),
            mode: table.mode.map_or(LockMode::Compliance, LockMode::from),
            retention,
        })
    }

    pub(super) fn anchors(&mut self, at: &str, tables: &[AnchorTable]) -> Vec<AnchorPlace> {
        let mut places: Vec<AnchorPlace> = Vec::new();
        for (number, table) in tables.iter().enumerate() {
            let at = format!("{at}.{number}");
            let taken = places.iter().any(|place| place.name == table.name);
            let plain = table.name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
            if taken || !plain || !(1..=32).contains(&table.name.len()) {
                let advice = "give each a name of its own: a-z, 0-9 and -, at most 32";
                self.wrong(&format!("{at}.name"), "this cannot name an anchor", advice);
            }
            let every = self.maybe(&format!("{at}.every"), table.every.as_ref()).unwrap_or(ANCHORED_EVERY);
            let kind = self.anchor(&at, table);
            places.extend(kind.map(|kind| AnchorPlace { name: table.name.clone(), kind, every }));
        }
        places
    }

    fn anchor(&mut self, at: &str, table: &AnchorTable) -> Option<AnchorKind> {
        match (&table.bucket, &table.timestamp, &table.directory) {
            (Some(bucket), None, None) => Some(AnchorKind::Bucket(Box::new(self.locked_bucket(&format!("{at}.bucket"), bucket)?))),
            (None, Some(timestamp), None) => {
                if !["https://", "http://"].iter().any(|scheme| timestamp.url.starts_with(scheme)) {
                    self.wrong(&format!("{at}.timestamp.url"), "this is no url", "write it as \"https://tsa.example.org/tsr\"");
                }
                Some(AnchorKind::Timestamp { url: timestamp.url.clone(), ca: self.path(&timestamp.ca) })
            }
            (None, None, Some(directory)) => Some(AnchorKind::Directory(self.path(directory))),
            _ => {
                self.wrong(
                    at,
                    "an anchor is one of `bucket`, `timestamp` and `directory`",
                    "give it one of them; several places are several anchors",
                );
                None
            }
        }
    }
}
