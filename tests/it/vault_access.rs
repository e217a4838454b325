//! Getting to a bucket: credentials from every place, TLS, and an error of its own for each thing that is wrong.

use std::time::Duration;

use firedrill::domain::{Cause, Source};
use firedrill::storage::{Environment, Settings, StorageError};
use firedrill::vault::{VaultError, VaultView};
use http::Method;

use crate::faults::{Fault, Proxy, on};
use crate::servers::{self, Locking, admin, ceph, keys, now, settings, source};
use crate::vault::{assert_no_key, view};

async fn first_listing_error(source: &Source, settings: &Settings, env: &Environment) -> VaultError {
    match VaultView::open_with(source, settings, env, now()).await {
        Ok(view) => view.points().await.unwrap_err(),
        Err(error) => error,
    }
}

#[tokio::test]
async fn bad_settings_and_refusals_have_their_own_errors() {
    let bucket = ceph().bucket(Locking::Off).await;
    let good = source(&ceph().http(), &bucket, "", Some("*"));
    let error = async |source: &Source, env: &Environment| first_listing_error(source, &settings(source), env).await;
    use StorageError as S;

    let wrong_secret = error(&good, &keys(servers::ACCESS, "wrong")).await;
    assert!(matches!(wrong_secret.storage(), Some(S::CredentialsRefused { code }) if code == "SignatureDoesNotMatch"), "{wrong_secret:?}");
    let unknown_key = error(&good, &keys("nobody", "x")).await;
    assert!(matches!(unknown_key.storage(), Some(S::CredentialsRefused { .. })), "{unknown_key:?}");
    let none = error(&good, &Environment::default()).await;
    assert!(matches!(none.storage(), Some(S::CredentialsMissing { .. })), "{none:?}");
    let no_bucket = error(&source(&ceph().http(), "no-such-bucket", "", Some("*")), &admin()).await;
    assert!(matches!(no_bucket.storage(), Some(S::NoSuchStore { store }) if store == "bucket no-such-bucket"), "{no_bucket:?}");
    let refused = error(&source("http://127.0.0.1:1", &bucket, "", Some("*")), &admin()).await;
    assert!(matches!(refused.storage(), Some(S::Unreachable { why: "connection refused", .. })), "{refused:?}");
    let no_name = error(&source("http://no-such-host.invalid", &bucket, "", Some("*")), &admin()).await;
    assert!(matches!(no_name.storage(), Some(S::Unreachable { why: "its name is not known", .. })), "{no_name:?}");
    let plain = error(&Source { allow_http: false, ..good.clone() }, &admin()).await;
    assert!(matches!(plain.storage(), Some(S::PlainHttpNotAllowed { .. })), "{plain:?}");
    for error in [wrong_secret, unknown_key, none, no_bucket, refused, no_name, plain] {
        assert_eq!(error.blame(), Cause::Runner);
        assert_no_key(&error);
    }
}

#[tokio::test]
async fn a_head_tells_expired_credentials_from_missing_rights() {
    let bucket = ceph().bucket(Locking::Off).await;
    ceph().put(&bucket, "big.age", "x").await;
    let proxy = Proxy::start(ceph().http_port, vec![]);
    let view = view(&source(&proxy.url(), &bucket, "", Some("*"))).await;
    proxy.set(vec![
        on(Method::HEAD, "big.age", 1, Fault::Answer(403, "")),
        on(Method::GET, "list-type=2", 1, Fault::Answer(403, "RequestTimeTooSkewed")),
    ]);
    let error = view.find("big.age").await.unwrap_err();
    assert!(matches!(error.storage(), Some(StorageError::ClockSkew { .. })), "{error:?}");
    proxy.set(vec![on(Method::HEAD, "big.age", 1, Fault::Answer(403, ""))]);
    let error = view.find("big.age").await.unwrap_err();
    assert!(matches!(error.storage(), Some(StorageError::AccessDenied { operation: "HeadObject" })), "{error:?}");
}

#[tokio::test]
async fn tls_is_checked_and_what_was_negotiated_is_known() {
    let bucket = ceph().bucket(Locking::Off).await;
    ceph().put(&bucket, "a", "a").await;
    let trusted = Source { allow_http: false, ca_file: Some(ceph().ca_file()), ..source(&ceph().https(), &bucket, "", Some("*")) };
    let view = view(&trusted).await;
    assert_eq!(view.points().await.unwrap().points.len(), 1);
    let transport = view.transport();
    assert_eq!(transport.encrypted, Some(true));
    assert_eq!(transport.tls_version.as_deref(), Some("TLSv1.3"));
    assert_eq!(transport.credentials, "environment");
    assert!(transport.clock_offset.is_some_and(|offset| offset.abs() <= 5), "{transport:?}");
    let mut openssl = std::process::Command::new("openssl");
    let der = openssl.args(["x509", "-outform", "der", "-in"]).arg(ceph().ca_file().with_file_name("tls.crt")).output().unwrap().stdout;
    use sha2::Digest;
    assert_eq!(transport.server_certificate.unwrap().0, <[u8; 32]>::from(sha2::Sha256::digest(&der)));

    // another CA, and the system's CAs
    let other = tempfile::NamedTempFile::new().unwrap();
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=other", "-keyout"])
        .args(["/dev/null", "-out"])
        .arg(other.path())
        .output()
        .unwrap();
    assert!(made.status.success());
    for ca_file in [Some(other.path().to_owned()), None] {
        let source = Source { ca_file, ..trusted.clone() };
        let error = first_listing_error(&source, &settings(&source), &admin()).await;
        assert!(matches!(error.storage(), Some(StorageError::TlsRefused { .. })), "{error:?}");
    }
    // the name in the certificate counts
    let wrong_name = Source { endpoint: Some(format!("https://127.0.0.2:{}", ceph().https_port)), ..trusted.clone() };
    let error = first_listing_error(&wrong_name, &settings(&wrong_name), &admin()).await;
    assert!(matches!(error.storage(), Some(StorageError::TlsRefused { .. } | StorageError::Unreachable { .. })), "{error:?}");
    // a file that holds no certificate
    let empty = Source { ca_file: Some("/dev/null".into()), ..trusted };
    let error = first_listing_error(&empty, &settings(&empty), &admin()).await;
    assert!(matches!(error.storage(), Some(StorageError::Settings { .. })), "{error:?}");
}

#[tokio::test]
async fn profiles_of_the_shared_files_work() {
    let bucket = ceph().bucket(Locking::Off).await;
    ceph().put(&bucket, "a", "a").await;
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".aws")).unwrap();
    let helper = format!(r#"echo '{{"Version":1,"AccessKeyId":"{}","SecretAccessKey":"{}"}}'"#, servers::ACCESS, servers::SECRET);
    let script = home.path().join("helper");
    std::fs::write(&script, format!("#!/bin/sh\n{helper}\n")).unwrap();
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::write(
        home.path().join(".aws/credentials"),
        format!(
            "[drill]\naws_access_key_id = {}\naws_secret_access_key = {}\n[bad]\naws_access_key_id = x\naws_secret_access_key = y\n",
            servers::ACCESS,
            servers::SECRET
        ),
    )
    .unwrap();
    std::fs::write(
        home.path().join(".aws/config"),
        format!("[profile process]\nregion = us-east-1\ncredential_process = {}\n", script.display()),
    )
    .unwrap();
    let env = Environment::new([("HOME".to_owned(), home.path().to_str().unwrap().to_owned())]);
    let with = |profile: &str| Source { profile: Some(profile.to_owned()), ..source(&ceph().http(), &bucket, "", Some("*")) };
    for profile in ["drill", "process"] {
        let source = with(profile);
        let view = VaultView::open_with(&source, &settings(&source), &env, now()).await.unwrap();
        assert_eq!(view.points().await.unwrap().points.len(), 1, "{profile}");
        assert_eq!(view.transport().credentials, "profile");
    }
    let bad = first_listing_error(&with("bad"), &settings(&with("bad")), &env).await;
    assert!(matches!(bad.storage(), Some(StorageError::CredentialsRefused { .. })), "{bad:?}");
    let none = first_listing_error(&with("none"), &settings(&with("none")), &env).await;
    assert!(matches!(none.storage(), Some(StorageError::CredentialsUnusable { .. })), "{none:?}");
}

#[tokio::test]
async fn credentials_of_containers_and_instances_are_asked_for() {
    const ANSWER: &str = r#"{"AccessKeyId":"temporary","SecretAccessKey":"secret","Token":"token","Expiration":"2099-01-01T00:00:00Z","RoleArn":"r","Code":"Success"}"#;
    let bucket = ceph().bucket(Locking::Off).await;
    let source = source(&ceph().http(), &bucket, "", Some("*"));
    let service = Proxy::start(1, vec![]);
    let token_file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(token_file.path(), "container-token").unwrap();
    let env = |pairs: &[(&str, &str)]| Environment::new(pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())));
    let container = env(&[
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", &format!("{}/container", service.url())),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token_file.path().to_str().unwrap()),
    ]);
    let instance = env(&[("AWS_EC2_METADATA_SERVICE_ENDPOINT", &service.url())]);
    for (env, word, asked) in [(container, "container", "/container"), (instance.clone(), "instance", "/latest/meta-data")] {
        service.set(vec![
            on(Method::GET, "/container", 9, Fault::Say(ANSWER)),
            on(Method::PUT, "/latest/api/token", 9, Fault::Say("metadata-token")),
            on(Method::GET, "/security-credentials/drill-role", 9, Fault::Say(ANSWER)),
            on(Method::GET, "/security-credentials/", 9, Fault::Say("drill-role")),
        ]);
        let view = VaultView::open_with(&source, &settings(&source), &env, now()).await.unwrap();
        assert_eq!(view.transport().credentials, word);
        // the keys are found and used; this server does not know them
        let error = view.probe().await.unwrap_err();
        assert!(matches!(error.storage(), Some(StorageError::CredentialsRefused { .. })), "{word}: {error:?}");
        assert!(service.log().iter().any(|l| l.contains(asked)), "{:?}", service.log());
    }
    // a place that gives nothing is named, soon
    service.set(vec![on(Method::PUT, "", usize::MAX, Fault::Answer(403, ""))]);
    let started = std::time::Instant::now();
    let view = VaultView::open_with(&source, &settings(&source), &instance, now()).await.unwrap();
    let error = view.probe().await.unwrap_err();
    assert!(matches!(error.storage(), Some(StorageError::CredentialsUnusable { from, .. }) if from == "instance"), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(12));
}

#[tokio::test]
async fn redirects_are_named_and_not_followed() {
    let elsewhere = Proxy::start(ceph().http_port, vec![]);
    let bucket = ceph().bucket(Locking::Off).await;
    for (status, code) in [(301, "PermanentRedirect"), (307, "TemporaryRedirect"), (302, "")] {
        let proxy = Proxy::start(ceph().http_port, vec![on(Method::GET, "", 9, Fault::Answer(status, code))]);
        let source = source(&proxy.url(), &bucket, "", Some("*"));
        let error = first_listing_error(&source, &settings(&source), &admin()).await;
        assert!(matches!(error.storage(), Some(StorageError::WrongRegion { .. } | StorageError::Refused { status: 302, .. })), "{error:?}");
        assert_eq!(proxy.log().len(), 1);
    }
    assert!(elsewhere.log().is_empty());
}

/// A TLS server that speaks one version only; it answers every request with a page that is no S3.
struct OneVersion {
    child: std::process::Child,
    port: u16,
}

impl OneVersion {
    fn start(version: &str) -> Self {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = std::process::Command::new("openssl")
            .args(["s_server", "-www", "-quiet", version, "-cipher", "ALL:@SECLEVEL=0", "-accept", &port.to_string(), "-cert"])
            .arg(ceph().ca_file().with_file_name("tls.crt"))
            .arg("-key")
            .arg(ceph().ca_file().with_file_name("tls.key"))
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        for _ in 0..100 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { child, port }
    }
}

impl Drop for OneVersion {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn tls_1_2_is_spoken_and_noted_and_older_versions_are_not() {
    for (version, spoken) in [("-tls1_3", Some("TLSv1.3")), ("-tls1_2", Some("TLSv1.2")), ("-tls1_1", None)] {
        let server = OneVersion::start(version);
        let endpoint = format!("https://localhost:{}", server.port);
        let source = Source { allow_http: false, ca_file: Some(ceph().ca_file()), ..source(&endpoint, "b", "", Some("*")) };
        let view = VaultView::open_with(&source, &settings(&source), &admin(), now()).await.unwrap();
        let error = view.points().await.unwrap_err();
        assert_eq!(view.transport().tls_version.as_deref(), spoken, "{version}: {error:?}");
        match spoken {
            Some(_) => assert!(matches!(error.storage(), Some(StorageError::BadAnswer { .. })), "{error:?}"),
            None => assert!(matches!(error.storage(), Some(StorageError::TlsRefused { .. })), "{error:?}"),
        }
    }
}

/// Runs itself once more in an environment without certificates and with proxies that nobody runs.
#[test]
fn a_host_without_certificates_speaks_plain_http_and_ignores_proxies_of_the_environment() {
    const CHILD: &str = "FIREDRILL_TEST_ENDPOINTS";
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let Ok(endpoints) = std::env::var(CHILD) else {
        let bucket = runtime.block_on(ceph().bucket(Locking::Off));
        let name = "vault_access::a_host_without_certificates_speaks_plain_http_and_ignores_proxies_of_the_environment";
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, format!("{} {} {bucket}", ceph().http(), ceph().https()))
            .env("SSL_CERT_FILE", "/nonexistent")
            .env("SSL_CERT_DIR", "/nonexistent")
            .envs(["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"].map(|name| (name, "http://127.0.0.1:1")))
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&child.stdout).into_owned() + &String::from_utf8_lossy(&child.stderr);
        assert!(child.status.success() && text.contains("1 passed"), "{text}");
        return;
    };
    let [http, https, bucket]: [&str; 3] = endpoints.split(' ').collect::<Vec<_>>().try_into().unwrap();
    runtime.block_on(async {
        assert!(view(&source(http, bucket, "", Some("*"))).await.points().await.unwrap().points.is_empty());
        let source = Source { allow_http: false, ..source(https, bucket, "", Some("*")) };
        let error = first_listing_error(&source, &settings(&source), &admin()).await;
        assert!(
            matches!(error.storage(), Some(StorageError::TlsRefused { why, .. }) if why.contains("no trusted certificates")),
            "{error:?}"
        );
    });
}
