//! What is asked: the bucket and key it is about, and the operation.

use http::request::Parts;

use super::answers::S3Error;
use super::uri;

/// Longest key that S3 has, bytes.
const LONGEST_KEY: usize = 1024;

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Target {
    Service,
    Bucket,
    Object(String),
}

/// A request, read.
#[derive(Debug)]
pub(super) struct Ask {
    pub target: Target,
    pub query: Vec<(String, String)>,
}

impl Ask {
    /// Path style and virtual-host style. `hosts` are the endpoint's names.
    pub(super) fn read(parts: &Parts, bucket: &str, hosts: &[String]) -> Result<Self, S3Error> {
        let query = uri::pairs(parts.uri.query().unwrap_or_default()).collect();
        let host = parts.headers.get("host").and_then(|h| h.to_str().ok()).or(parts.uri.host()).unwrap_or_default();
        let path = parts.uri.path().strip_prefix('/').unwrap_or(parts.uri.path());
        let (named, key) = match bucket_of_host(host, hosts) {
            Some(named) => (named.to_owned(), path),
            None => {
                let (named, key) = path.split_once('/').unwrap_or((path, ""));
                (uri::decode_strictly(named).ok_or(S3Error::InvalidUri)?, key)
            }
        };
        let target = match (named.as_str(), key) {
            ("", "") => Target::Service,
            (named, _) if named != bucket => return Err(S3Error::NoSuchBucket),
            (_, "") => Target::Bucket,
            (_, key) => Target::Object(uri::decode_strictly(key).ok_or(S3Error::InvalidUri)?),
        };
        match &target {
            Target::Object(key) if key.len() > LONGEST_KEY => Err(S3Error::KeyTooLong),
            _ => Ok(Self { target, query }),
        }
    }

    /// The value of a parameter; empty where it has none.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
    fn has(&self, name: &str) -> bool {
        self.parameter(name).is_some()
    }
}

/// `bucket` of `bucket.s3.drill.internal:9000`.
fn bucket_of_host<'a>(host: &'a str, hosts: &[String]) -> Option<&'a str> {
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit())).map_or(host, |(name, _)| name);
    hosts.iter().map(String::as_str).chain(["localhost"]).find_map(|known| name.strip_suffix(known)?.strip_suffix('.'))
}

/// What a setting that is asked for says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Setting {
    /// It is not there: S3's code for that.
    Missing(&'static str),
    /// A document that says nothing but its name.
    Empty(&'static str),
    Acl,
    Tags,
    Payer,
}

/// Parameter, operation, answer.
const OF_BUCKET: &[(&str, &str, Setting)] = &[
    ("versioning", "GetBucketVersioning", Setting::Empty("VersioningConfiguration")),
    ("acl", "GetBucketAcl", Setting::Acl),
    ("policy", "GetBucketPolicy", Setting::Missing("NoSuchBucketPolicy")),
    ("policyStatus", "GetBucketPolicyStatus", Setting::Missing("NoSuchBucketPolicy")),
    ("lifecycle", "GetBucketLifecycleConfiguration", Setting::Missing("NoSuchLifecycleConfiguration")),
    ("cors", "GetBucketCors", Setting::Missing("NoSuchCORSConfiguration")),
    ("tagging", "GetBucketTagging", Setting::Missing("NoSuchTagSet")),
    ("website", "GetBucketWebsite", Setting::Missing("NoSuchWebsiteConfiguration")),
    ("encryption", "GetBucketEncryption", Setting::Missing("ServerSideEncryptionConfigurationNotFoundError")),
    ("replication", "GetBucketReplication", Setting::Missing("ReplicationConfigurationNotFoundError")),
    ("object-lock", "GetObjectLockConfiguration", Setting::Missing("ObjectLockConfigurationNotFoundError")),
    ("publicAccessBlock", "GetPublicAccessBlock", Setting::Missing("NoSuchPublicAccessBlockConfiguration")),
    ("ownershipControls", "GetBucketOwnershipControls", Setting::Missing("OwnershipControlsNotFoundError")),
    ("logging", "GetBucketLogging", Setting::Empty("BucketLoggingStatus")),
    ("notification", "GetBucketNotificationConfiguration", Setting::Empty("NotificationConfiguration")),
    ("accelerate", "GetBucketAccelerateConfiguration", Setting::Empty("AccelerateConfiguration")),
    ("requestPayment", "GetBucketRequestPayment", Setting::Payer),
];
const OF_OBJECT: &[(&str, &str, Setting)] = &[
    ("acl", "GetObjectAcl", Setting::Acl),
    ("tagging", "GetObjectTagging", Setting::Tags),
    ("retention", "GetObjectRetention", Setting::Missing("NoSuchObjectLockConfiguration")),
    ("legal-hold", "GetObjectLegalHold", Setting::Missing("NoSuchObjectLockConfiguration")),
];

/// How a list is asked for and answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    V1,
    V2,
    Versions,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    ListBuckets,
    HeadBucket,
    Location,
    List(Form),
    Uploads,
    Setting(&'static str, Setting),
    HeadObject,
    GetObject,
    Parts,
    /// Writes that an overlay may keep.
    PutObject,
    DeleteObject,
    DeleteObjects,
    /// Writes that nobody keeps.
    Write(&'static str),
    Options,
    Unknown(&'static str),
}

impl Operation {
    pub(super) fn of(method: &str, ask: &Ask, copies: bool) -> Self {
        use Operation as O;
        let setting = |table: &[(&str, &'static str, Setting)]| {
            table.iter().find(|(parameter, ..)| ask.has(parameter)).map(|(_, name, setting)| O::Setting(name, *setting))
        };
        let of_bucket = || OF_BUCKET.iter().any(|(parameter, ..)| ask.has(parameter));
        let of_object = || OF_OBJECT.iter().any(|(parameter, ..)| ask.has(parameter));
        match (method, &ask.target) {
            ("OPTIONS", _) => O::Options,
            ("GET" | "HEAD", Target::Service) => O::ListBuckets,
            ("HEAD", Target::Bucket) => O::HeadBucket,
            ("GET", Target::Bucket) if ask.parameter("list-type") == Some("2") => O::List(Form::V2),
            ("GET", Target::Bucket) if ask.has("location") => O::Location,
            ("GET", Target::Bucket) if ask.has("versions") => O::List(Form::Versions),
            ("GET", Target::Bucket) if ask.has("uploads") => O::Uploads,
            ("GET", Target::Bucket) if ["analytics", "inventory", "metrics", "intelligent-tiering"].iter().any(|p| ask.has(p)) => {
                O::Unknown("GetBucketReports")
            }
            ("GET", Target::Bucket) => setting(OF_BUCKET).unwrap_or(O::List(Form::V1)),
            ("HEAD", Target::Object(_)) => O::HeadObject,
            ("GET", Target::Object(_)) if ask.has("uploadId") => O::Parts,
            ("GET", Target::Object(_)) if ask.has("attributes") => O::Unknown("GetObjectAttributes"),
            ("GET", Target::Object(_)) if ask.has("torrent") => O::Unknown("GetObjectTorrent"),
            ("GET", Target::Object(_)) => setting(OF_OBJECT).unwrap_or(O::GetObject),
            ("PUT", Target::Object(_)) if ask.has("uploadId") => O::Write("UploadPart"),
            ("PUT", Target::Object(_)) if of_object() => O::Write("PutObjectSetting"),
            ("PUT", Target::Object(_)) if copies => O::Write("CopyObject"),
            ("PUT", Target::Object(_)) => O::PutObject,
            ("PUT", Target::Bucket) if of_bucket() => O::Write("PutBucketSetting"),
            ("PUT", _) => O::Write("CreateBucket"),
            ("DELETE", Target::Object(_)) if ask.has("uploadId") => O::Write("AbortMultipartUpload"),
            ("DELETE", Target::Object(_)) if of_object() => O::Write("DeleteObjectSetting"),
            ("DELETE", Target::Object(_)) if ask.has("versionId") => O::Write("DeleteObjectVersion"),
            ("DELETE", Target::Object(_)) => O::DeleteObject,
            ("DELETE", Target::Bucket) if of_bucket() => O::Write("DeleteBucketSetting"),
            ("DELETE", _) => O::Write("DeleteBucket"),
            ("POST", Target::Bucket) if ask.has("delete") => O::DeleteObjects,
            ("POST", Target::Object(_)) if ask.has("uploads") => O::Write("CreateMultipartUpload"),
            ("POST", Target::Object(_)) if ask.has("uploadId") => O::Write("CompleteMultipartUpload"),
            ("POST", Target::Object(_)) if ask.has("restore") => O::Write("RestoreObject"),
            ("POST", Target::Object(_)) if ask.has("select") => O::Unknown("SelectObjectContent"),
            ("POST", _) => O::Write("PostObject"),
            _ => O::Write("Other"),
        }
    }

    /// In S3's words.
    pub(super) fn name(self) -> &'static str {
        use Operation as O;
        match self {
            O::ListBuckets => "ListBuckets",
            O::HeadBucket => "HeadBucket",
            O::Location => "GetBucketLocation",
            O::List(Form::V1) => "ListObjects",
            O::List(Form::V2) => "ListObjectsV2",
            O::List(Form::Versions) => "ListObjectVersions",
            O::Uploads => "ListMultipartUploads",
            O::HeadObject => "HeadObject",
            O::GetObject => "GetObject",
            O::Parts => "ListParts",
            O::PutObject => "PutObject",
            O::DeleteObject => "DeleteObject",
            O::DeleteObjects => "DeleteObjects",
            O::Options => "Options",
            O::Setting(name, _) | O::Write(name) | O::Unknown(name) => name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(host: &str, uri: &str) -> Result<Ask, S3Error> {
        let request = http::Request::builder().uri(uri).header("host", host).body(()).unwrap();
        Ask::read(&request.into_parts().0, "vault", &["s3.drill.internal".to_owned()])
    }

    #[test]
    fn both_ways_of_addressing() {
        let object = Target::Object("a/b c".to_owned());
        for (host, uri, target) in [
            ("127.0.0.1:9000", "/vault/a/b%20c", &object),
            ("s3.drill.internal", "/vault/a/b%20c", &object),
            ("vault.s3.drill.internal:9000", "/a/b%20c", &object),
            ("vault.localhost", "/a/b%20c?x-id=GetObject", &object),
            ("vault.s3.drill.internal", "/?list-type=2", &Target::Bucket),
            ("[::1]:9000", "/vault", &Target::Bucket),
            ("h", "/vault/?location=", &Target::Bucket),
            ("h", "/", &Target::Service),
            ("h", "/vault//x/../y", &Target::Object("/x/../y".to_owned())),
        ] {
            assert_eq!(&read(host, uri).unwrap().target, target, "{host} {uri}");
        }
        for (host, uri, error) in [
            ("h", "/other/a", S3Error::NoSuchBucket),
            ("other.s3.drill.internal", "/a", S3Error::NoSuchBucket),
            ("h", "/vault/%ff", S3Error::InvalidUri),
            ("h", &format!("/vault/{}", "k".repeat(1025)), S3Error::KeyTooLong),
        ] {
            assert_eq!(read(host, uri).unwrap_err(), error, "{host} {uri}");
        }
    }

    #[test]
    fn operations_are_told_apart() {
        for (method, uri, name) in [
            ("GET", "/", "ListBuckets"),
            ("GET", "/vault", "ListObjects"),
            ("GET", "/vault?delimiter=&max-keys=1000&prefix=acl", "ListObjects"),
            ("GET", "/vault/?location=", "GetBucketLocation"),
            ("GET", "/vault?list-type=2&prefix=policy", "ListObjectsV2"),
            ("GET", "/vault?policy", "GetBucketPolicy"),
            ("GET", "/vault/k?x-id=GetObject", "GetObject"),
            ("GET", "/vault/k?tagging", "GetObjectTagging"),
            ("HEAD", "/vault", "HeadBucket"),
            ("PUT", "/vault/k", "PutObject"),
            ("PUT", "/vault/k?partNumber=1&uploadId=x", "UploadPart"),
            ("POST", "/vault/k?uploads", "CreateMultipartUpload"),
            ("POST", "/vault?delete", "DeleteObjects"),
            ("DELETE", "/vault/k", "DeleteObject"),
            ("DELETE", "/vault", "DeleteBucket"),
            ("PATCH", "/vault/k", "Other"),
        ] {
            assert_eq!(Operation::of(method, &read("h", uri).unwrap(), false).name(), name, "{method} {uri}");
        }
    }

    proptest! {
        #[test]
        fn no_path_makes_it_panic(path in "/[ -~]{0,40}", host in "[a-z.:\\[\\]0-9]{0,20}") {
            if let Ok(request) = http::Request::builder().uri(&path).header("host", host).body(()) {
                let _ = Ask::read(&request.into_parts().0, "vault", &["s3.drill.internal".to_owned()]);
            }
        }
    }
}
