//! What goes wrong on the way to a storage, in words that say whose fault it is and what to try.

use std::error::Error as StdError;

use object_store::client::HttpError;

use super::credentials::CredentialsFailure;
use super::refusal::Refusal;
use super::retry::Failure;
use crate::domain::{Cause, Timestamp};

/// The cause below one of our errors.
pub type Source = Box<dyn StdError + Send + Sync>;

/// Why a storage could not be asked, or what it answered. No variant holds a key: keys can be patient data.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// No connection, or it broke.
    #[error("{endpoint} cannot be reached: {why}")]
    Unreachable {
        /// Host and port.
        endpoint: String,
        /// `name not found`, `connection refused`, `timed out`, ….
        why: &'static str,
        /// What the network said.
        #[source]
        source: Option<Source>,
    },
    /// No TLS session that can be trusted.
    #[error("no trusted TLS connection to {endpoint}: {why}")]
    TlsRefused {
        /// Host and port.
        endpoint: String,
        /// What the TLS library objected to.
        why: String,
    },
    /// The endpoint is plain HTTP, which the scenario does not allow.
    #[error("the endpoint {endpoint} is plain http")]
    PlainHttpNotAllowed {
        /// As written.
        endpoint: String,
    },
    /// The settings cannot be used.
    #[error("the storage settings cannot be used: {what}")]
    Settings {
        /// Which, and why.
        what: String,
        /// What the system said.
        #[source]
        source: Option<Source>,
    },
    /// There are no credentials.
    #[error("there are no credentials for the storage; looked for {}", looked_for.join(", "))]
    CredentialsMissing {
        /// Where we looked.
        looked_for: Vec<String>,
    },
    /// The place where credentials should come from did not give any.
    #[error("no credentials could be had from {from}")]
    CredentialsUnusable {
        /// Which place.
        from: String,
        /// What it said.
        #[source]
        source: Option<Source>,
    },
    /// The server does not accept the credentials.
    #[error("the server refused the credentials ({code})")]
    CredentialsRefused {
        /// The server's error code.
        code: String,
    },
    /// The credentials were good once.
    #[error("the credentials have expired ({code})")]
    CredentialsExpired {
        /// The server's error code.
        code: String,
    },
    /// The server's clock and ours are too far apart for signed requests.
    #[error("the server's clock and this host's are too far apart{}", .server_time.map(|t| format!(": the server says {}, this host {}", t.to_human(), .our_time.to_human())).unwrap_or_default())]
    ClockSkew {
        /// What the server's answer says.
        server_time: Option<Timestamp>,
        /// What our clock said then.
        our_time: Timestamp,
    },
    /// The credentials lack a right.
    #[error("the server denied {operation}")]
    AccessDenied {
        /// The right, in S3's words.
        operation: &'static str,
    },
    /// The bucket or directory does not exist.
    #[error("there is no {store}")]
    NoSuchStore {
        /// `bucket NAME` or `directory PATH`.
        store: String,
    },
    /// The bucket lives elsewhere.
    #[error("the bucket is in another region{}", .region.as_ref().map(|r| format!(" ({r})")).unwrap_or_default())]
    WrongRegion {
        /// Which, where the server says.
        region: Option<String>,
    },
    /// No object (version) with this name.
    #[error("the storage has no such object")]
    NoSuchObject,
    /// The object is not the one that was pinned any more.
    #[error("the object is no longer the one that was pinned")]
    Changed,
    /// The bucket cannot be shown as it was: nothing of what was overwritten or deleted is kept.
    #[error("the storage keeps no versions of its objects, so nobody can say what it held at an earlier instant")]
    NoVersions,
    /// These credentials may not look at versions. That says nothing about whether there are any.
    #[error("the versions of the bucket's objects are not visible to these credentials: the server denied {operation}")]
    VersionsNotVisible {
        /// The right, in S3's words.
        operation: &'static str,
    },
    /// The drill has taken what the scenario lets it take.
    #[error("the drill reached its limit on what it takes from the storage: {value} ({limit})")]
    LimitReached {
        /// `bytes` or `requests`.
        limit: &'static str,
        /// The limit, with its unit.
        value: String,
    },
    /// The object is in a class that must be thawed before it can be read.
    #[error("the object is archived and must be thawed before it can be read")]
    Archived,
    /// The server asks for less, again and again.
    #[error("the server keeps asking to slow down ({code})")]
    Throttled {
        /// The server's error code.
        code: String,
    },
    /// The server has trouble of its own.
    #[error("the server reports a failure of its own (status {status}, {code})")]
    ServerFailure {
        /// HTTP status.
        status: u16,
        /// The server's error code.
        code: String,
    },
    /// The server refused for a reason that has no variant of its own.
    #[error("the server refused {operation} (status {status}, {code})")]
    Refused {
        /// The operation, in S3's words.
        operation: &'static str,
        /// HTTP status.
        status: u16,
        /// The server's error code.
        code: String,
    },
    /// An answer that is not what the protocol says.
    #[error("the server's answer to {operation} makes no sense: {why}")]
    BadAnswer {
        /// The operation, in S3's words.
        operation: &'static str,
        /// What is wrong with it.
        why: String,
    },
    /// The object is larger than anything of its kind should be.
    #[error("the object is larger than the {limit} bytes that its kind may have")]
    TooLarge {
        /// The bound.
        limit: u64,
    },
    /// The server took the bytes and does not lock them.
    #[error("the server does not keep the lock that was asked for: {why}")]
    LockNotKept {
        /// What it did instead.
        why: String,
    },
    /// The object has a name that cannot be asked for.
    #[error("the object has a name that this client cannot ask for: {why}")]
    UnusableName {
        /// Why.
        why: &'static str,
    },
    /// The local file system refused.
    #[error("the local file system refused {operation}")]
    Local {
        /// What was tried.
        operation: &'static str,
        /// What it said.
        #[source]
        source: std::io::Error,
    },
    /// A thing with this name exists already.
    #[error("there is already an object with this name")]
    AlreadyExists,
}

impl StorageError {
    /// Whether another try may help.
    pub fn is_transient(&self) -> bool {
        use StorageError as E;
        match self {
            E::Unreachable { .. } | E::Throttled { .. } | E::ServerFailure { .. } => true,
            // a cut or garbled answer is the network's doing more often than the server's
            E::BadAnswer { .. } => true,
            E::TlsRefused { .. }
            | E::PlainHttpNotAllowed { .. }
            | E::Settings { .. }
            | E::CredentialsMissing { .. }
            | E::CredentialsUnusable { .. }
            | E::CredentialsRefused { .. }
            | E::CredentialsExpired { .. }
            | E::ClockSkew { .. }
            | E::AccessDenied { .. }
            | E::NoSuchStore { .. }
            | E::WrongRegion { .. }
            | E::NoSuchObject
            | E::Changed
            | E::NoVersions
            | E::LimitReached { .. }
            | E::VersionsNotVisible { .. }
            | E::Archived
            | E::Refused { .. }
            | E::UnusableName { .. }
            | E::TooLarge { .. }
            | E::LockNotKept { .. }
            | E::Local { .. }
            | E::AlreadyExists => false,
        }
    }

    /// Storage trouble says nothing about the backup; an object that is not there does.
    pub fn blame(&self) -> Cause {
        match self {
            StorageError::NoSuchObject => Cause::Backup,
            _ => Cause::Runner,
        }
    }

    /// What to try next.
    pub fn advice(&self) -> &'static str {
        use StorageError as E;
        match self {
            E::Unreachable { .. } => "check the endpoint's name and port, the network, and that the server runs",
            E::TlsRefused { .. } => "check the endpoint's name against its certificate; for a private CA, name its file with ca_file",
            E::PlainHttpNotAllowed { .. } => {
                "use https, or say allow_http = true: the report will then say that the way was neither private nor authenticated"
            }
            E::Settings { .. } => "correct the [source] section of the scenario",
            E::CredentialsMissing { .. } => {
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a profile with profile = \"...\"; reading needs no right to write or delete"
            }
            E::CredentialsUnusable { .. } => "check that source of credentials, by itself",
            E::CredentialsRefused { .. } => "check the access key and the secret, and that they belong to this endpoint",
            E::CredentialsExpired { .. } => "get new credentials (session tokens last hours), or use a role that renews them",
            E::ClockSkew { .. } => "set this host's clock (NTP), or the server's",
            E::AccessDenied { .. } => "give these credentials the rights to list and read; writing and deleting are not needed",
            E::NoSuchStore { .. } => "check the name in [source] url, and the endpoint",
            E::WrongRegion { .. } => "set region in [source]",
            E::NoSuchObject => "look who deleted it: a lifecycle rule, retention, or somebody",
            E::Changed => "drill again; keep backups under names that are written once, and switch versioning on",
            E::NoVersions => {
                "drill without an instant, or select by capture time (select = { captured_by = \"...\" }); switch versioning on, best with object lock, so that the next attack can be undone"
            }
            E::LimitReached { .. } => "raise it in [source.limits], or look for what makes the backup larger than it was",
            E::VersionsNotVisible { .. } => {
                "give these credentials s3:GetBucketVersioning and s3:ListBucketVersions on the bucket, and s3:GetObjectVersion on its objects"
            }
            E::Archived => "thaw it (RestoreObject) first, then drill again",
            E::Throttled { .. } => "drill at a quieter hour, or ask for a higher request rate",
            E::ServerFailure { .. } => "look at the server's own log, then drill again",
            E::Refused { .. } | E::BadAnswer { .. } => "look at the server's own log; it may not speak S3 fully",
            E::UnusableName { .. } => "rename the object: empty, `.` and `..` path segments cannot be requested",
            E::TooLarge { .. } => "look at the object: its name says something else than its size",
            E::LockNotKept { .. } => {
                "use a bucket that was made with object lock, on a server that has it; s3:PutObjectRetention and s3:GetObjectRetention are needed"
            }
            E::Local { .. } => "check the path and the rights of the user that runs firedrill",
            E::AlreadyExists => "nothing is ever overwritten: choose another name",
        }
    }
}

/// From a refused or broken HTTP exchange.
pub(super) fn of_http(operation: &'static str, endpoint: &str, error: &HttpError) -> Failure {
    of_chain(operation, endpoint, error)
}

/// From what `object_store` gives back, whatever it wrapped it in.
pub(super) fn of_object_store(operation: &'static str, endpoint: &str, error: &object_store::Error) -> Failure {
    match error {
        object_store::Error::InvalidPath { .. } => StorageError::UnusableName { why: "empty, `.` or `..` path segment" }.into(),
        _ => of_chain(operation, endpoint, error),
    }
}

fn of_chain(operation: &'static str, endpoint: &str, error: &(dyn StdError + 'static)) -> Failure {
    if let Some(failure) = find(error, |e| e.downcast_ref::<Refusal>().map(|r| r.to_failure(operation))) {
        return failure;
    }
    let credentials = find(error, |e| e.downcast_ref::<CredentialsFailure>().map(|c| (c.from, c.why.clone())));
    if let Some((from, why)) = credentials {
        return StorageError::CredentialsUnusable { from: from.to_owned(), source: Some(why.into()) }.into();
    }
    if let Some(why) = find(error, tls_error) {
        return StorageError::TlsRefused { endpoint: endpoint.to_owned(), why }.into();
    }
    let why = find(error, |e| e.downcast_ref::<HttpError>().map(|http| (unreachable_reason(http), innermost_text(http))));
    match why {
        Some((why, text)) => StorageError::Unreachable { endpoint: endpoint.to_owned(), why, source: Some(text.into()) }.into(),
        None => StorageError::BadAnswer { operation, why: innermost_text(error) }.into(),
    }
}

/// Why there was no answer, as far as the network's own errors tell.
fn unreachable_reason(http: &HttpError) -> &'static str {
    use object_store::client::HttpErrorKind as K;
    use std::io::ErrorKind as I;
    let io = find(http, |e| e.downcast_ref::<std::io::Error>().map(std::io::Error::kind));
    let dns = find(http, |e| e.to_string().contains("dns error").then_some(())).is_some();
    match (io, http.kind()) {
        _ if dns => "its name is not known",
        (Some(I::ConnectionRefused), _) => "connection refused",
        (Some(I::ConnectionReset | I::BrokenPipe | I::ConnectionAborted | I::UnexpectedEof), _) => "the connection broke",
        (Some(I::NetworkUnreachable | I::HostUnreachable), _) => "no route to it",
        (Some(I::TimedOut), _) | (_, K::Timeout) => "timed out",
        (_, K::Connect) => "no connection",
        (_, K::Request | K::Interrupted | K::Decode) => "the answer broke off",
        _ => "the exchange failed",
    }
}

/// The first of an error and its causes for which `pick` has an answer. Looks inside `io::Error` as well, whose
/// `source()` skips what it wraps.
fn find<T>(error: &(dyn StdError + 'static), pick: impl Fn(&(dyn StdError + 'static)) -> Option<T>) -> Option<T> {
    let mut next = Some(error);
    while let Some(current) = next {
        if let Some(found) = pick(current) {
            return Some(found);
        }
        next = match current.downcast_ref::<std::io::Error>().and_then(|io| io.get_ref()) {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => current.source(),
        };
    }
    None
}

fn tls_error(error: &(dyn StdError + 'static)) -> Option<String> {
    error.downcast_ref::<rustls::Error>().map(|tls| match tls {
        rustls::Error::AlertReceived(alert) => format!("the server ended the handshake ({alert:?})"),
        rustls::Error::InvalidCertificate(why) => format!("its certificate is not trusted ({why})"),
        other => other.to_string(),
    })
}

fn innermost_text(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(current) = next {
        text = current.to_string();
        next = current.source();
    }
    without_names(&text)
}

/// Messages of libraries can quote a URL, and a URL holds a key.
fn without_names(text: &str) -> String {
    text.split_whitespace()
        .map(|word| if word.contains("://") || word.contains('/') { "…" } else { word })
        .collect::<Vec<_>>()
        .join(" ")
        .chars()
        .take(200)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_librarys_message_loses_its_urls() {
        assert_eq!(without_names("Error performing GET https://h/b/patient-key in 3s"), "Error performing GET … in 3s");
    }

    #[test]
    fn only_a_missing_object_is_the_backups_fault() {
        assert_eq!(StorageError::NoSuchObject.blame(), Cause::Backup);
        assert_eq!(StorageError::Throttled { code: "SlowDown".into() }.blame(), Cause::Runner);
        assert!(StorageError::Throttled { code: "SlowDown".into() }.is_transient());
        assert!(!StorageError::CredentialsExpired { code: "ExpiredToken".into() }.is_transient());
    }
}
