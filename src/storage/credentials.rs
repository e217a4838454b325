//! Credentials as S3 users have them, found before the first request: with none at all we say so at once, instead of
//! waiting for an instance metadata service that is not there.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::CredentialProvider;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as Key, AwsCredential, AwsCredentialProvider};

use super::error::StorageError;
use super::{Environment, Now, Settings};

/// Where credentials come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// `AWS_ACCESS_KEY_ID` and its companions.
    Environment,
    /// A profile of the shared files.
    Profile(String),
    /// `AWS_WEB_IDENTITY_TOKEN_FILE` and `AWS_ROLE_ARN`.
    WebIdentity,
    /// `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI` (ECS) or `…_FULL_URI` (EKS).
    Container,
    /// Instance metadata.
    Instance,
}

impl Place {
    /// As evidence says it.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Place::Environment => "environment",
            Place::Profile(_) => "profile",
            Place::WebIdentity => "web identity",
            Place::Container => "container",
            Place::Instance => "instance",
        }
    }
}

/// Decides where credentials come from; looks at names and files, asks nobody.
///
/// # Errors
/// [`StorageError::CredentialsMissing`] with everything that was looked for.
pub(super) fn locate(settings: &Settings, env: &Environment, on_ec2: impl Fn() -> bool) -> Result<Place, StorageError> {
    if let Some(profile) = &settings.profile {
        return Ok(Place::Profile(profile.clone()));
    }
    match (env.get("AWS_ACCESS_KEY_ID"), env.get("AWS_SECRET_ACCESS_KEY")) {
        (Some(id), Some(secret)) => {
            for (name, value) in [("AWS_ACCESS_KEY_ID", id), ("AWS_SECRET_ACCESS_KEY", secret)]
                .into_iter()
                .chain(env.get("AWS_SESSION_TOKEN").map(|token| ("AWS_SESSION_TOKEN", token)))
            {
                if !value.bytes().all(|b| b.is_ascii_graphic()) {
                    return Err(unusable(name, "it holds blanks, line ends or other characters that no key has"));
                }
            }
            return Ok(Place::Environment);
        }
        (Some(_), None) => return Err(unusable("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY is not set")),
        (None, Some(_)) => return Err(unusable("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID is not set")),
        (None, None) => {}
    }
    if let Some(profile) = env.get("AWS_PROFILE") {
        return Ok(Place::Profile(profile.to_owned()));
    }
    if env.get("AWS_WEB_IDENTITY_TOKEN_FILE").is_some() && env.get("AWS_ROLE_ARN").is_some() {
        return Ok(Place::WebIdentity);
    }
    let container = env.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI").is_some()
        || (env.get("AWS_CONTAINER_CREDENTIALS_FULL_URI").is_some() && env.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE").is_some());
    if container {
        return Ok(Place::Container);
    }
    let files = SharedFiles::of(env);
    if cfg!(feature = "aws-profiles") && files.has_default_profile() {
        return Ok(Place::Profile("default".into()));
    }
    let disabled = env.get("AWS_EC2_METADATA_DISABLED").is_some_and(|v| v.eq_ignore_ascii_case("true"));
    if !disabled && (env.get("AWS_EC2_METADATA_SERVICE_ENDPOINT").is_some() || on_ec2()) {
        return Ok(Place::Instance);
    }
    let mut looked_for = vec![
        "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY".to_owned(),
        "AWS_PROFILE or a profile in the scenario".to_owned(),
        "AWS_WEB_IDENTITY_TOKEN_FILE with AWS_ROLE_ARN".to_owned(),
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI".to_owned(),
    ];
    looked_for.extend(files.all().map(|path| format!("a default profile in {}", path.display())));
    looked_for.push(if disabled { "instance metadata (disabled)" } else { "instance metadata (this is no EC2 instance)" }.to_owned());
    Err(StorageError::CredentialsMissing { looked_for })
}

fn unusable(from: &str, why: &str) -> StorageError {
    StorageError::CredentialsUnusable { from: from.to_owned(), source: Some(why.to_owned().into()) }
}

/// Whether this machine says of itself that it is an EC2 instance, without asking the network.
pub(super) fn on_ec2() -> bool {
    ["/sys/class/dmi/id/sys_vendor", "/sys/class/dmi/id/board_vendor", "/sys/class/dmi/id/bios_vendor"]
        .iter()
        .any(|file| std::fs::read_to_string(file).is_ok_and(|vendor| vendor.contains("Amazon")))
}

/// The shared files of the AWS tools.
#[derive(Debug, Clone, Default)]
pub(super) struct SharedFiles {
    pub credentials: Option<PathBuf>,
    pub config: Option<PathBuf>,
}

impl SharedFiles {
    pub(super) fn of(env: &Environment) -> Self {
        let home = env.get("HOME").map(Path::new);
        let at =
            |variable: &str, name: &str| env.get(variable).map(PathBuf::from).or_else(|| home.map(|home| home.join(".aws").join(name)));
        Self { credentials: at("AWS_SHARED_CREDENTIALS_FILE", "credentials"), config: at("AWS_CONFIG_FILE", "config") }
    }

    fn all(&self) -> impl Iterator<Item = &Path> {
        [&self.credentials, &self.config].into_iter().flatten().map(PathBuf::as_path)
    }

    fn has_default_profile(&self) -> bool {
        self.all().any(|path| {
            std::fs::read_to_string(path).is_ok_and(|text| {
                let section = text.lines().map(str::trim).skip_while(|line| !matches!(*line, "[default]" | "[profile default]"));
                // a section that only names a region gives no credentials
                section.skip(1).take_while(|line| !line.starts_with('[')).any(|line| {
                    ["aws_access_key_id", "credential_process", "role_arn", "credential_source"].iter().any(|key| line.starts_with(key))
                })
            })
        })
    }
}

/// Puts `place` into `builder`.
///
/// # Errors
/// [`StorageError::Settings`] for a profile in a build without `aws-profiles`.
pub(super) fn apply(
    place: &Place,
    builder: AmazonS3Builder,
    env: &Environment,
    region: &str,
    now: &Now,
) -> Result<AmazonS3Builder, StorageError> {
    let take = |builder: AmazonS3Builder, pairs: &[(&str, Key)]| {
        pairs.iter().fold(builder, |b, (name, key)| match env.get(name) {
            Some(value) => b.with_config(*key, value),
            None => b,
        })
    };
    Ok(match place {
        Place::Environment => take(
            builder,
            &[("AWS_ACCESS_KEY_ID", Key::AccessKeyId), ("AWS_SECRET_ACCESS_KEY", Key::SecretAccessKey), ("AWS_SESSION_TOKEN", Key::Token)],
        ),
        Place::WebIdentity => take(
            builder,
            &[
                ("AWS_WEB_IDENTITY_TOKEN_FILE", Key::WebIdentityTokenFile),
                ("AWS_ROLE_ARN", Key::RoleArn),
                ("AWS_ROLE_SESSION_NAME", Key::RoleSessionName),
                ("AWS_ENDPOINT_URL_STS", Key::StsEndpoint),
            ],
        ),
        Place::Container => take(
            builder,
            &[
                ("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", Key::ContainerCredentialsRelativeUri),
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", Key::ContainerCredentialsFullUri),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", Key::ContainerAuthorizationTokenFile),
            ],
        ),
        Place::Instance => take(builder, &[("AWS_EC2_METADATA_SERVICE_ENDPOINT", Key::MetadataEndpoint)]),
        #[cfg(feature = "aws-profiles")]
        Place::Profile(name) => {
            builder.with_credentials(super::profile::provider(name, &SharedFiles::of(env), Some(region), Now::clone(now)))
        }
        #[cfg(not(feature = "aws-profiles"))]
        Place::Profile(name) => {
            let _ = (region, now);
            let what = format!("profile {name}: this firedrill was built without the feature aws-profiles");
            return Err(StorageError::Settings { what, source: None });
        }
    })
}

/// Why a place gave no credentials. Travels through `object_store` and is found again by [`StorageError`].
#[derive(Debug)]
pub(super) struct CredentialsFailure {
    pub from: &'static str,
    pub why: String,
}

impl fmt::Display for CredentialsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no credentials from {}: {}", self.from, self.why)
    }
}

impl std::error::Error for CredentialsFailure {}

/// Marks failures of a provider as such, tries a few times, and does not wait for ever.
#[derive(Debug)]
pub(super) struct Guarded {
    pub inner: AwsCredentialProvider,
    pub from: &'static str,
    pub limit: Duration,
}

#[async_trait::async_trait]
impl CredentialProvider for Guarded {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut why = "no answer in time".to_owned();
        let tries = async {
            for pause in [0u64, 300, 1_500] {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                match self.inner.get_credential().await {
                    Ok(credential) => return Some(credential),
                    Err(error) => why = plain(&error),
                }
            }
            None
        };
        match tokio::time::timeout(self.limit, tries).await {
            Ok(Some(credential)) => Ok(credential),
            _ => Err(object_store::Error::Generic { store: "S3", source: Box::new(CredentialsFailure { from: self.from, why }) }),
        }
    }
}

/// The innermost cause, in one line.
fn plain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(current) = next {
        text = current.to_string();
        next = current.source();
    }
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Environment {
        Environment::new(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
    }

    fn find(pairs: &[(&str, &str)]) -> Result<Place, StorageError> {
        locate(&Settings::default(), &env(pairs), || false)
    }

    #[test]
    fn every_place_is_found() {
        assert_eq!(find(&[("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "b")]).unwrap(), Place::Environment);
        assert_eq!(find(&[("AWS_PROFILE", "drill")]).unwrap(), Place::Profile("drill".into()));
        assert_eq!(find(&[("AWS_WEB_IDENTITY_TOKEN_FILE", "f"), ("AWS_ROLE_ARN", "r")]).unwrap(), Place::WebIdentity);
        assert_eq!(find(&[("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/x")]).unwrap(), Place::Container);
        assert_eq!(find(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://h")]).unwrap(), Place::Instance);
        assert_eq!(locate(&Settings::default(), &env(&[]), || true).unwrap(), Place::Instance);
        let named = Settings { profile: Some("p".into()), ..Settings::default() };
        assert_eq!(locate(&named, &env(&[("AWS_ACCESS_KEY_ID", "a")]), || false).unwrap(), Place::Profile("p".into()));
    }

    #[test]
    fn none_at_all_says_where_it_looked() {
        let Err(StorageError::CredentialsMissing { looked_for }) = find(&[("HOME", "/nonexistent")]) else { panic!("found some") };
        assert!(looked_for.iter().any(|l| l.contains("/nonexistent/.aws/credentials")), "{looked_for:?}");
        assert!(find(&[("AWS_EC2_METADATA_DISABLED", "true"), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://h")]).is_err());
    }

    #[test]
    fn half_a_key_or_a_broken_one_is_refused_without_showing_it() {
        assert!(matches!(find(&[("AWS_ACCESS_KEY_ID", "a")]), Err(StorageError::CredentialsUnusable { .. })));
        let error = find(&[("AWS_ACCESS_KEY_ID", "a"), ("AWS_SECRET_ACCESS_KEY", "hun\nter2")]).unwrap_err();
        assert!(!format!("{error:?} {error}").contains("ter2"));
    }

    #[test]
    fn a_default_profile_counts_only_with_credentials_in_it() {
        let home = tempfile::tempdir().unwrap();
        std::fs::create_dir(home.path().join(".aws")).unwrap();
        let file = home.path().join(".aws/credentials");
        let pairs = [("HOME", home.path().to_str().unwrap())];
        std::fs::write(&file, "[default]\nregion = x\n[other]\naws_access_key_id = a\n").unwrap();
        assert!(find(&pairs).is_err());
        std::fs::write(&file, "[default]\naws_access_key_id = a\naws_secret_access_key = b\n").unwrap();
        if cfg!(feature = "aws-profiles") {
            assert_eq!(find(&pairs).unwrap(), Place::Profile("default".into()));
        }
    }
}
