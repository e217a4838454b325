//! Writing to a bucket: for `seal` and `archive` alone. There is no delete here either; an upload that was begun can be given up.

use bytes::Bytes;
use data_encoding::BASE64;
use http::{HeaderMap, HeaderValue, Method};

use super::bucket::{Bucket, Call, Head};
use super::error::StorageError;
use super::locks::{BucketLock, Retention, lock_mode};
use super::retry::{Failure, Patience};
use super::{Depth, Environment, Now, Settings, xml};
use crate::domain::{LockMode, Timestamp};

/// What is larger goes in parts.
const PART: usize = 16 << 20;

/// A bucket that may be written to.
#[derive(Debug, Clone)]
pub struct BucketWriter {
    bucket: Bucket,
}

/// A multipart upload that was begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    key: String,
    id: String,
}

/// What the server said about one part of an upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartTag {
    etag: String,
    checksum: String,
}

impl BucketWriter {
    /// As [`Bucket::connect`].
    ///
    /// # Errors
    /// [`StorageError`] for settings that cannot work and for missing credentials.
    pub fn connect(name: &str, settings: &Settings, env: &Environment, now: Now) -> Result<Self, StorageError> {
        Ok(Self { bucket: Bucket::connect(name, settings, env, now)? })
    }

    /// The same bucket, to read from.
    pub fn bucket(&self) -> &Bucket {
        &self.bucket
    }

    /// Whether anything at all begins with `prefix`.
    ///
    /// # Errors
    /// [`StorageError`]
    pub async fn exists_below(&self, prefix: &str) -> Result<bool, StorageError> {
        let mut found = false;
        self.bucket.list(prefix, Depth::OneLevel, &mut |page| found |= !page.is_empty()).await?;
        Ok(found)
    }

    /// Whether what is written can be locked at all; asked before a byte is sent.
    ///
    /// # Errors
    /// [`StorageError::LockNotKept`]; others.
    pub async fn can_lock(&self) -> Result<(), StorageError> {
        let why = match self.bucket.lock_configuration().await? {
            BucketLock::Enabled { .. } | BucketLock::NotVisible => return Ok(()),
            BucketLock::Disabled => "the bucket has no object lock",
            BucketLock::NotSupported => "it does not know object lock",
        };
        Err(StorageError::LockNotKept { why: why.into() })
    }

    /// Stores an object of any size that is in memory, under a name that must be free.
    ///
    /// # Errors
    /// As [`BucketWriter::put_new`].
    pub async fn store_new(&self, key: &str, body: Bytes) -> Result<Head, StorageError> {
        if body.len() <= PART {
            return self.put_new(key, body).await;
        }
        match self.bucket.head(key, None).await {
            Err(StorageError::NoSuchObject) => {}
            Ok(_) => return Err(StorageError::AlreadyExists),
            Err(other) => return Err(other),
        }
        let upload = self.begin(key).await?;
        let stored = self.store_parts(&upload, &body).await;
        if stored.is_err() {
            // the error that led here is the one to tell; a lifecycle rule sweeps up what remains
            let _ = self.abort(&upload).await;
        }
        stored
    }

    async fn store_parts(&self, upload: &Upload, body: &Bytes) -> Result<Head, StorageError> {
        let mut tags = Vec::new();
        for start in (0..body.len()).step_by(PART) {
            let part = body.slice(start..body.len().min(start + PART));
            tags.push(self.put_part(upload, tags.len() + 1, part).await?);
        }
        self.complete(upload, &tags, body.len() as u64).await
    }

    /// Stores a small object under a name that must be free. Where the answer to a try is lost, the object is looked for
    /// before the next try: in a bucket with versions a second PUT would leave a second, perhaps locked, copy.
    ///
    /// # Errors
    /// [`StorageError::AlreadyExists`]; others.
    pub async fn put_new(&self, key: &str, body: Bytes) -> Result<Head, StorageError> {
        const OPERATION: &str = "PutObject";
        let digest = sha256(&body);
        match self.bucket.head(key, None).await {
            Err(StorageError::NoSuchObject) => {}
            Ok(_) => return Err(StorageError::AlreadyExists),
            Err(other) => return Err(other),
        }
        let first = std::sync::atomic::AtomicBool::new(true);
        self.patience()
            .run(|| async {
                if !first.swap(false, std::sync::atomic::Ordering::Relaxed)
                    && self.bucket.head(key, None).await.is_ok_and(|h| h.size == body.len() as u64)
                {
                    return Ok(());
                }
                let mut call = Call::new(OPERATION, Method::PUT, Some(key));
                call.headers = checksum_headers(&digest);
                call.headers.insert("content-type", HeaderValue::from_static("application/octet-stream"));
                // servers that know it refuse to overwrite; RGW ignores it in versioned buckets, hence the look before
                call.headers.insert("if-none-match", HeaderValue::from_static("*"));
                call.body = body.clone();
                call.digest = Some(digest);
                match self.bucket.send(call).await {
                    Ok(_) => Ok(()),
                    Err(Failure { error: StorageError::Changed, .. }) => Err(StorageError::AlreadyExists.into()),
                    Err(failure) => Err(failure),
                }
            })
            .await?;
        let head = self.bucket.head(key, None).await?;
        if head.size != body.len() as u64 {
            return Err(StorageError::BadAnswer { operation: OPERATION, why: "what was stored has another size".into() });
        }
        Ok(head)
    }

    /// Begins a multipart upload.
    ///
    /// # Errors
    /// [`StorageError`]
    pub async fn begin(&self, key: &str) -> Result<Upload, StorageError> {
        const OPERATION: &str = "CreateMultipartUpload";
        let id = self
            .patience()
            .run(|| async {
                let mut call = Call::new(OPERATION, Method::POST, Some(key)).with("uploads", "");
                call.headers.insert("x-amz-checksum-algorithm", HeaderValue::from_static("SHA256"));
                call.headers.insert("content-type", HeaderValue::from_static("application/octet-stream"));
                let (_, body) = self.bucket.send(call).await?;
                let text = String::from_utf8_lossy(&body);
                Ok(xml::read::<xml::Initiated>(OPERATION, &text)?.upload_id)
            })
            .await?;
        Ok(Upload { key: key.to_owned(), id })
    }

    /// Sends part `number`, counted from 1.
    ///
    /// # Errors
    /// [`StorageError`]
    pub async fn put_part(&self, upload: &Upload, number: usize, body: Bytes) -> Result<PartTag, StorageError> {
        const OPERATION: &str = "UploadPart";
        let digest = sha256(&body);
        let number = number.to_string();
        // the same part may be sent again: it replaces itself
        Patience::for_reading(self.bucket.tuning())
            .run(|| async {
                let mut call =
                    Call::new(OPERATION, Method::PUT, Some(&upload.key)).with("partNumber", &number).with("uploadId", &upload.id);
                call.headers = checksum_headers(&digest);
                call.body = body.clone();
                call.digest = Some(digest);
                let (headers, _) = self.bucket.send(call).await?;
                match headers.get("etag").and_then(|v| v.to_str().ok()) {
                    Some(etag) => Ok(PartTag { etag: etag.to_owned(), checksum: BASE64.encode(&digest) }),
                    None => Err(StorageError::BadAnswer { operation: OPERATION, why: "no entity tag".into() }.into()),
                }
            })
            .await
    }

    /// Puts the parts together, and looks at what came of it.
    ///
    /// # Errors
    /// [`StorageError`]; [`StorageError::BadAnswer`] where the object has not `size` bytes.
    pub async fn complete(&self, upload: &Upload, parts: &[PartTag], size: u64) -> Result<Head, StorageError> {
        const OPERATION: &str = "CompleteMultipartUpload";
        let mut body = String::from("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
        for (i, part) in parts.iter().enumerate() {
            let etag = part.etag.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
            let checksum = &part.checksum;
            body.push_str(&format!(
                "<Part><PartNumber>{}</PartNumber><ETag>{etag}</ETag><ChecksumSHA256>{checksum}</ChecksumSHA256></Part>",
                i + 1
            ));
        }
        body.push_str("</CompleteMultipartUpload>");
        let body = Bytes::from(body);
        self.patience()
            .run(|| async {
                let mut call = Call::new(OPERATION, Method::POST, Some(&upload.key)).with("uploadId", &upload.id);
                call.headers.insert("content-type", HeaderValue::from_static("application/xml"));
                call.body = body.clone();
                match self.bucket.send(call).await {
                    // S3 begins to answer 200 before it knows how it ends
                    Ok((_, answer)) if String::from_utf8_lossy(&answer).contains("<Error>") => {
                        Err(StorageError::ServerFailure { status: 200, code: "CompleteMultipartUpload".into() }.into())
                    }
                    Ok(_) => Ok(()),
                    // an earlier try got through, and only its answer was lost
                    Err(Failure { error: StorageError::Refused { status: 404, .. }, .. })
                        if self.bucket.head(&upload.key, None).await.is_ok_and(|h| h.size == size) =>
                    {
                        Ok(())
                    }
                    Err(failure) => Err(failure),
                }
            })
            .await?;
        let head = self.bucket.head(&upload.key, None).await?;
        if head.size != size {
            let why = format!("{} bytes were stored instead of {size}", head.size);
            return Err(StorageError::BadAnswer { operation: OPERATION, why });
        }
        Ok(head)
    }

    /// Gives an upload up: its parts vanish.
    ///
    /// # Errors
    /// [`StorageError`]
    pub async fn abort(&self, upload: &Upload) -> Result<(), StorageError> {
        self.patience()
            .run(|| async {
                let call = Call::new("AbortMultipartUpload", Method::DELETE, Some(&upload.key)).with("uploadId", &upload.id);
                match self.bucket.send(call).await {
                    Ok(_) | Err(Failure { error: StorageError::Refused { status: 404, .. }, .. }) => Ok(()),
                    Err(failure) => Err(failure),
                }
            })
            .await
    }

    /// Locks one object version, and believes the lock only when the server shows it.
    ///
    /// # Errors
    /// [`StorageError::LockNotKept`]; others.
    pub async fn lock(&self, key: &str, version: Option<&str>, mode: LockMode, until: Timestamp) -> Result<(), StorageError> {
        const OPERATION: &str = "PutObjectRetention";
        // a bucket's default may have locked it already, perhaps for longer than was asked for
        let (mode, until) = match self.bucket.retention(key, version).await? {
            Retention::Set { mode: shown, until: shown_until } => match (lock_mode(&shown), xml::instant(&shown_until)) {
                (Some(has), Some(at)) if has >= mode && at.seconds_since(until) >= 0 => return Ok(()),
                (Some(has), Some(at)) => (has.max(mode), if at > until { at } else { until }),
                _ => (mode, until),
            },
            Retention::None | Retention::NotVisible => (mode, until),
        };
        let word = match mode {
            LockMode::Compliance => "COMPLIANCE",
            LockMode::Governance => "GOVERNANCE",
        };
        let date = until.0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let body = Bytes::from(format!(
            "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>{word}</Mode><RetainUntilDate>{date}</RetainUntilDate></Retention>"
        ));
        let digest = sha256(&body);
        let put = self
            .patience()
            .run(|| async {
                let mut call = Call::new(OPERATION, Method::PUT, Some(key)).with("retention", "");
                call.query.extend(version.map(|v| ("versionId", v)));
                call.headers = checksum_headers(&digest);
                call.body = body.clone();
                call.digest = Some(digest);
                self.bucket.send(call).await.map(drop)
            })
            .await;
        match put {
            Ok(()) => {}
            Err(StorageError::Refused { status, code, .. }) => {
                return Err(StorageError::LockNotKept { why: format!("it answers {OPERATION} with status {status}, {code}") });
            }
            Err(other) => return Err(other),
        }
        match self.bucket.retention(key, version).await? {
            Retention::Set { mode: shown, until: shown_until } => {
                let as_asked = lock_mode(&shown).is_some_and(|shown| shown >= mode)
                    && xml::instant(&shown_until).is_some_and(|shown| shown.seconds_since(until) >= 0);
                if as_asked { Ok(()) } else { Err(StorageError::LockNotKept { why: "it shows a weaker lock".into() }) }
            }
            Retention::None => Err(StorageError::LockNotKept { why: "it said yes, and shows no retention".into() }),
            Retention::NotVisible => Err(StorageError::LockNotKept { why: "these credentials may not read the retention back".into() }),
        }
    }

    fn patience(&self) -> Patience {
        self.bucket.patience()
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes).as_ref());
    out
}

/// AWS refuses a PUT into a bucket with object lock that carries no checksum.
fn checksum_headers(digest: &[u8; 32]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let value = HeaderValue::from_str(&BASE64.encode(digest)).expect("base64 is a valid header value");
    headers.insert("x-amz-checksum-sha256", value);
    headers
}
