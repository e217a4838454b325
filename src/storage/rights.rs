//! What credentials may do beyond reading, found without harming anything.
//!
//! Each question is a request that cannot succeed, about a name that never existed: whoever may not is refused for that,
//! whoever may is refused for something else. That tells something only where the server looks at who asks before it looks
//! at what is asked; so each is asked by nobody first, who must be refused. No drill sends any of this.

use std::collections::BTreeMap;

use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderValue, Method};
use md5::{Digest as _, Md5};

use super::bucket::{Bucket, Call};
use super::error::StorageError;
use super::{Begin, Depth, Environment, Now, PageAsk, Settings, Versioning, VersionsAsk};
use crate::domain::{Blake3, May, Right, RightsFacts};

/// Asks for rights.
pub struct RightsProbe {
    bucket: Bucket,
    prefix: String,
    now: Now,
}

/// One harmless question.
#[derive(Clone)]
struct Question {
    right: Right,
    method: Method,
    key: Option<String>,
    query: Vec<(&'static str, String)>,
    headers: Vec<(&'static str, String)>,
    body: &'static str,
}

impl RightsProbe {
    /// Prepares a connection.
    ///
    /// # Errors
    /// As [`Bucket::connect`].
    pub fn connect(bucket: &str, prefix: &str, settings: &Settings, env: &Environment, now: Now) -> Result<Self, StorageError> {
        Ok(Self { bucket: Bucket::connect(bucket, settings, env, Now::clone(&now))?, prefix: prefix.to_owned(), now })
    }

    /// Stands for endpoint, bucket, prefix and access key together, and gives none of them away.
    ///
    /// # Errors
    /// Where credentials cannot be had.
    pub async fn identity(&self) -> Result<Blake3, StorageError> {
        let mut hasher = blake3::Hasher::new_derive_key("firedrill 2026 rights of credentials");
        for part in [self.bucket.base(), &self.prefix, &self.bucket.key_id().await?] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Ok(Blake3(*hasher.finalize().as_bytes()))
    }

    /// Asks everything.
    ///
    /// # Errors
    /// Where the storage cannot be asked at all.
    pub async fn ask(&self, random: &str) -> Result<RightsFacts, StorageError> {
        self.bucket.probe(&self.prefix).await?;
        let versioned = match self.bucket.versioning().await? {
            Versioning::Enabled | Versioning::Suspended => Some(true),
            Versioning::Never => Some(false),
            Versioning::NotVisible => None,
        };
        let key = format!("{}firedrill-rights-{random}", self.prefix);
        let mut rights = BTreeMap::new();
        for question in questions(&key, random, versioned) {
            rights.insert(question.right, self.may(&question).await);
        }
        let why = |why: &str| May::Unknown { why: why.to_owned() };
        rights.entry(Right::Delete).or_insert_with(|| why("asking would leave a delete marker"));
        rights.insert(Right::BypassGovernance, why("that shows only at a version that is locked in governance mode"));
        Ok(RightsFacts { asked_at: (self.now)(), versioned, rights, nothing_left: self.nothing_left(&key).await })
    }

    async fn may(&self, question: &Question) -> May {
        match self.send(question, Sender::Nobody).await {
            Err(StorageError::AccessDenied { .. } | StorageError::CredentialsRefused { .. }) => {}
            Err(error) if error.is_transient() => return May::Unknown { why: error.to_string() },
            _ => return May::Unknown { why: "the server looks at the request before it asks who sends it".to_owned() },
        }
        match self.send(question, Sender::Us).await {
            Err(StorageError::AccessDenied { .. }) => May::No,
            // servers say so to whoever may list, before they look at any other right
            Err(StorageError::NoSuchObject | StorageError::Refused { status: 404, .. }) => {
                May::Unknown { why: "the server says that there is no such object before it looks at the right".to_owned() }
            }
            Err(StorageError::Refused { status: 400, code, .. }) if question.right == Right::Write && code == "BadDigest" => May::Yes,
            Err(StorageError::Refused { status: 400 | 409, .. }) if question.right != Right::Write => May::Yes,
            // to delete what does not exist succeeds
            Ok(()) if matches!(question.right, Right::Delete | Right::DeleteVersion) => May::Yes,
            Ok(()) | Err(StorageError::Refused { .. }) => May::Unknown { why: "the server's answer does not tell".to_owned() },
            Err(error) => May::Unknown { why: error.to_string() },
        }
    }

    async fn send(&self, question: &Question, sender: Sender) -> Result<(), StorageError> {
        let attempt = || async {
            let mut call = Call::new("a question about rights", question.method.clone(), question.key.as_deref());
            call.query = question.query.iter().map(|(name, value)| (*name, value.as_str())).collect();
            for (name, value) in &question.headers {
                call.headers.insert(*name, HeaderValue::from_str(value).expect("digests and ids are plain"));
            }
            call.body = Bytes::from_static(question.body.as_bytes());
            call.signed = matches!(sender, Sender::Us);
            self.bucket.send(call).await.map(drop)
        };
        self.bucket.patience().run(attempt).await
    }

    /// Looks for anything under the name that was asked with.
    async fn nothing_left(&self, key: &str) -> Option<bool> {
        let ask = VersionsAsk { prefix: key.to_owned(), after: None, limit: 10 };
        if let Ok(page) = self.bucket.versions_page(&ask).await {
            return Some(page.versions.is_empty());
        }
        let ask = PageAsk { prefix: key.to_owned(), depth: Depth::All, from: Begin::Start, limit: 10 };
        let page = self.bucket.page(&ask).await.ok()?;
        // where versions may be kept and are not visible, a listing does not tell
        (!page.objects.is_empty()).then_some(false)
    }
}

#[derive(Debug, Clone, Copy)]
enum Sender {
    Us,
    Nobody,
}

fn questions(key: &str, random: &str, versioned: Option<bool>) -> Vec<Question> {
    let digest = |text: &str| BASE64.encode(&Md5::digest(text.as_bytes()));
    let md5 = |of: &str| vec![("content-md5", digest(of))];
    let version = ("versionId", random.replace('-', ""));
    const RETENTION: &str = "<Retention><Mode>GOVERNANCE</Mode><RetainUntilDate>2000-01-01T00:00:00Z</RetainUntilDate></Retention>";
    const NO_XML: &str = "this is no XML";
    let bare = |right, method, key: Option<&str>, query: Vec<(&'static str, String)>| Question {
        right,
        method,
        key: key.map(str::to_owned),
        query,
        headers: Vec::new(),
        body: "",
    };
    let mut all = vec![
        // the digest is another one, so the bytes are never stored
        Question { headers: md5("other bytes"), body: "bytes", ..bare(Right::Write, Method::PUT, Some(key), vec![]) },
        bare(Right::DeleteVersion, Method::DELETE, Some(key), vec![version.clone()]),
        // the date has passed, and the version does not exist
        Question {
            headers: md5(RETENTION),
            body: RETENTION,
            ..bare(Right::SetRetention, Method::PUT, Some(key), vec![("retention", String::new()), version])
        },
        Question { headers: md5(NO_XML), body: NO_XML, ..bare(Right::SetLock, Method::PUT, None, vec![("object-lock", String::new())]) },
        Question {
            headers: md5(NO_XML),
            body: NO_XML,
            ..bare(Right::SetVersioning, Method::PUT, None, vec![("versioning", String::new())])
        },
    ];
    if versioned == Some(false) {
        all.push(bare(Right::Delete, Method::DELETE, Some(key), vec![]));
    }
    all
}
