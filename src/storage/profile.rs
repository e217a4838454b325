//! Profiles of the shared AWS files, by the AWS SDK's own loader: static keys, `credential_process`, assumed roles.
//! `object_store` reads none of these.

// The names that replace these live in `aws-runtime`, one more crate to name for two aliases.
#![expect(deprecated, reason = "aws-config re-exports the file types under names it calls deprecated")]

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::profile::profile_file::{ProfileFileKind, ProfileFiles};
use aws_config::provider_config::ProviderConfig;
use aws_credential_types::provider::{ProvideCredentials, error::CredentialsError};
use object_store::CredentialProvider;
use object_store::aws::{AwsCredential, AwsCredentialProvider};

use super::Now;
use super::credentials::SharedFiles;
use crate::domain::Timestamp;

/// A provider for the profile `name`.
pub(super) fn provider(name: &str, files: &SharedFiles, region: Option<&str>, now: Now) -> AwsCredentialProvider {
    let mut chosen = ProfileFiles::builder();
    for (kind, path) in [(ProfileFileKind::Config, &files.config), (ProfileFileKind::Credentials, &files.credentials)] {
        // the loader takes an absent file of a given name for an error, the AWS tools do not
        if let Some(path) = path.as_ref().filter(|path| path.exists()) {
            chosen = chosen.with_file(kind, path);
        } else {
            chosen = chosen.with_contents(kind, "");
        }
    }
    let region = region.map(|r| aws_config::Region::new(r.to_owned()));
    let inner = ProfileFileCredentialsProvider::builder()
        .configure(&ProviderConfig::without_region().with_region(region))
        .profile_name(name)
        .profile_files(chosen.build())
        .build();
    Arc::new(FromProfile { inner, cache: tokio::sync::Mutex::new(None), now })
}

/// The region that the profile names.
pub(super) fn region(name: &str, files: &SharedFiles) -> Option<String> {
    let heads = [format!("[{name}]"), format!("[profile {name}]")];
    [&files.config, &files.credentials].into_iter().flatten().find_map(|path| {
        let text = std::fs::read_to_string(path).ok()?;
        let section = text.lines().map(str::trim).skip_while(|line| !heads.iter().any(|head| head == line));
        let mut lines = section.skip(1).take_while(|line| !line.starts_with('['));
        lines.find_map(|line| line.split_once('=').filter(|(key, _)| key.trim() == "region").map(|(_, value)| value.trim().to_owned()))
    })
}

struct FromProfile {
    inner: ProfileFileCredentialsProvider,
    cache: tokio::sync::Mutex<Option<Cached>>,
    now: Now,
}

struct Cached {
    credential: Arc<AwsCredential>,
    renew_at: Option<Timestamp>,
}

impl fmt::Debug for FromProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FromProfile")
    }
}

#[async_trait::async_trait]
impl CredentialProvider for FromProfile {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut cache = self.cache.lock().await;
        let now = (self.now)();
        if let Some(cached) = cache.as_ref().filter(|c| c.renew_at.is_none_or(|at| now < at)) {
            return Ok(Arc::clone(&cached.credential));
        }
        let fresh = self
            .inner
            .provide_credentials()
            .await
            .map_err(|error| object_store::Error::Generic { store: "S3", source: Box::new(Reason(reason(&error))) })?;
        let credential = Arc::new(AwsCredential {
            key_id: fresh.access_key_id().trim().to_owned(),
            secret_key: fresh.secret_access_key().trim().to_owned(),
            token: fresh.session_token().map(|t| t.trim().to_owned()),
        });
        let renew_at = fresh.expiry().and_then(|at| (at - Duration::from_secs(300)).duration_since(std::time::UNIX_EPOCH).ok());
        let renew_at = renew_at.map(|since| Timestamp::from_unix(since.as_secs() as i64));
        *cache = Some(Cached { credential: Arc::clone(&credential), renew_at });
        Ok(credential)
    }
}

/// The loader's messages name files and profiles; a failing helper program's output could hold a secret and stays out.
fn reason(error: &CredentialsError) -> String {
    match error {
        CredentialsError::CredentialsNotLoaded(_) => "the profile is not there, or holds no credentials".into(),
        CredentialsError::ProviderTimedOut(_) => "no answer in time".into(),
        CredentialsError::InvalidConfiguration(_) => "the profile's settings cannot be used".into(),
        _ => "the profile's source of credentials failed".into(),
    }
}

#[derive(Debug)]
struct Reason(String);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Reason {}
