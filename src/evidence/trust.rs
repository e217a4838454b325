//! The trust file: whose evidence counts, and when. OpenSSH's `allowed_signers`, so that `ssh-keygen` reads it too.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use super::key::{NAMESPACE, PublicKey};
use crate::domain::Timestamp;

/// Keys that somebody outside of the evidence trusts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustFile {
    keys: Vec<TrustedKey>,
    revoked: BTreeSet<String>,
}

/// One line of a trust file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKey {
    /// Whom the file says the key belongs to.
    pub principals: String,
    /// The key.
    pub key: PublicKey,
    /// What it may sign; empty is anything.
    pub namespaces: Vec<String>,
    /// Signatures before this do not count.
    pub valid_after: Option<Timestamp>,
    /// Signatures at or after this do not count.
    pub valid_before: Option<Timestamp>,
}

/// Why a key does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// It is not in the file.
    #[error("the key {key} is not in the trust file")]
    Unknown {
        /// Its fingerprint.
        key: String,
    },
    /// It is on the list of revoked keys.
    #[error("the key {key} is revoked")]
    Revoked {
        /// Its fingerprint.
        key: String,
    },
    /// The drill ended at or after the end of its validity.
    #[error("the key {key} expired on {}, and the drill ended on {}", expired.to_human(), signed.to_human())]
    Expired {
        /// Its fingerprint.
        key: String,
        /// End of its validity.
        expired: Timestamp,
        /// When the drill ended.
        signed: Timestamp,
    },
    /// The drill ended before the key was valid.
    #[error("the key {key} is valid from {} only, and the drill ended on {}", valid.to_human(), signed.to_human())]
    NotYetValid {
        /// Its fingerprint.
        key: String,
        /// Beginning of its validity.
        valid: Timestamp,
        /// When the drill ended.
        signed: Timestamp,
    },
    /// It may sign other things only.
    #[error("the trust file allows the key {key} other namespaces than {NAMESPACE}")]
    OtherNamespace {
        /// Its fingerprint.
        key: String,
    },
}

/// What is wrong with a trust file: usage, not a verdict on evidence.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// It cannot be read.
    #[error("cannot read the trust file {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A line is not as OpenSSH writes it.
    #[error("line {line} of the trust file: {problem}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What, and what to do.
        problem: String,
    },
}

impl TrustFile {
    /// Reads a file in the form of OpenSSH's `allowed_signers`.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn load(path: &Path) -> Result<Self, TrustError> {
        Self::parse(&read(path)?)
    }

    /// Reads it, and with it the keys that no longer count.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn load_with(path: &Path, revoked: Option<&Path>) -> Result<Self, TrustError> {
        let trust = Self::load(path)?;
        match revoked {
            Some(revoked) => trust.with_revoked(revoked),
            None => Ok(trust),
        }
    }

    /// Reads its text. Keys of other kinds than Ed25519 sign no evidence and are passed over.
    ///
    /// # Errors
    /// [`TrustError::Line`].
    pub fn parse(text: &str) -> Result<Self, TrustError> {
        let mut keys = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            keys.extend(parse_line(line).map_err(|problem| TrustError::Line { line: number + 1, problem })?);
        }
        Ok(Self { keys, revoked: BTreeSet::new() })
    }

    /// Adds revoked keys: a list of OpenSSH public keys or `SHA256:…` fingerprints, one a line.
    ///
    /// # Errors
    /// [`TrustError`].
    pub fn with_revoked(mut self, path: &Path) -> Result<Self, TrustError> {
        for (number, line) in read(path)?.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let fingerprint = match line.split_whitespace().next() {
                Some(word) if word.starts_with("SHA256:") => word.to_owned(),
                _ => ssh_key::PublicKey::from_openssh(line).map(|key| key.fingerprint(ssh_key::HashAlg::Sha256).to_string()).map_err(
                    |_| TrustError::Line {
                        line: number + 1,
                        problem: "neither an OpenSSH public key nor a SHA256: fingerprint".to_owned(),
                    },
                )?,
            };
            self.revoked.insert(fingerprint);
        }
        Ok(self)
    }

    /// The keys.
    pub fn keys(&self) -> &[TrustedKey] {
        &self.keys
    }

    /// Whether `key` is trusted for evidence of a drill that ended at `signed`. One line that allows it is enough; where
    /// none does, the first that names the key says why.
    ///
    /// # Errors
    /// [`Distrust`].
    pub fn judge(&self, key: &PublicKey, signed: Timestamp) -> Result<&TrustedKey, Distrust> {
        let name = key.fingerprint();
        if self.revoked.contains(&name) {
            return Err(Distrust::Revoked { key: name });
        }
        let mut why = None;
        for line in self.keys.iter().filter(|line| line.key == *key) {
            match line.allows(signed) {
                Ok(()) => return Ok(line),
                Err(distrust) => why = why.or(Some(distrust)),
            }
        }
        Err(why.unwrap_or(Distrust::Unknown { key: name }))
    }
}

impl TrustedKey {
    fn allows(&self, signed: Timestamp) -> Result<(), Distrust> {
        let key = self.key.fingerprint();
        if !self.namespaces.is_empty() && !in_pattern_list(&self.namespaces, NAMESPACE) {
            return Err(Distrust::OtherNamespace { key });
        }
        if let Some(valid) = self.valid_after
            && signed < valid
        {
            return Err(Distrust::NotYetValid { key, valid, signed });
        }
        if let Some(expired) = self.valid_before
            && signed >= expired
        {
            return Err(Distrust::Expired { key, expired, signed });
        }
        Ok(())
    }
}

fn read(path: &Path) -> Result<String, TrustError> {
    std::fs::read_to_string(path).map_err(|source| TrustError::Read { path: path.to_owned(), source })
}

/// `principals [options] type base64 [comment]`
fn parse_line(line: &str) -> Result<Option<TrustedKey>, String> {
    let (principals, rest) = word(line)?;
    let (second, after_second) = word(rest)?;
    let (options, kind, rest) = if is_key_type(second) {
        ("", second, after_second)
    } else {
        let (kind, rest) = word(after_second)?;
        (second, kind, rest)
    };
    if !is_key_type(kind) {
        return Err("no key found: a line is `principals [options] ssh-ed25519 AAAA… [comment]`".to_owned());
    }
    let mut trusted = Options::default();
    for option in split_outside_quotes(options, ',') {
        trusted.take(option)?;
    }
    if kind != "ssh-ed25519" {
        return Ok(None);
    }
    let (blob, _comment) = word(rest)?;
    let parsed = ssh_key::PublicKey::from_openssh(&format!("{kind} {blob}")).map_err(|_| "the key cannot be read".to_owned())?;
    let bytes = parsed.key_data().ed25519().ok_or("the key cannot be read")?.0;
    let key = PublicKey::from_bytes(&bytes).ok_or("the key is not on the curve")?;
    Ok(Some(TrustedKey {
        principals: principals.trim_matches('"').to_owned(),
        key,
        namespaces: trusted.namespaces,
        valid_after: trusted.valid_after,
        valid_before: trusted.valid_before,
    }))
}

fn is_key_type(word: &str) -> bool {
    ["ssh-", "ecdsa-", "sk-"].iter().any(|start| word.starts_with(start))
}

/// The first word and the rest; blanks within double quotes do not end it.
fn word(text: &str) -> Result<(&str, &str), String> {
    let text = text.trim_start();
    let mut quoted = false;
    for (at, c) in text.char_indices() {
        match c {
            '"' => quoted = !quoted,
            ' ' | '\t' if !quoted => return Ok((&text[..at], &text[at..])),
            _ => {}
        }
    }
    if quoted { Err("a quote is not closed".to_owned()) } else { Ok((text, "")) }
}

fn split_outside_quotes(text: &str, separator: char) -> Vec<&str> {
    let mut quoted = false;
    text.split(|c: char| {
        if c == '"' {
            quoted = !quoted;
        }
        c == separator && !quoted
    })
    .filter(|part| !part.is_empty())
    .collect()
}

#[derive(Default)]
struct Options {
    namespaces: Vec<String>,
    valid_after: Option<Timestamp>,
    valid_before: Option<Timestamp>,
}

impl Options {
    fn take(&mut self, option: &str) -> Result<(), String> {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, value.trim_matches('"')),
            None => (option, ""),
        };
        match name.to_ascii_lowercase().as_str() {
            "cert-authority" => {
                Err("certificate authorities are not supported: name the signing key itself, so that its validity is plain to see"
                    .to_owned())
            }
            "namespaces" => {
                self.namespaces = value.split(',').map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()).collect();
                if self.namespaces.is_empty() { Err("namespaces= is empty".to_owned()) } else { Ok(()) }
            }
            "valid-after" => parse_time(value).map(|time| self.valid_after = Some(time)),
            "valid-before" => parse_time(value).map(|time| self.valid_before = Some(time)),
            _ => Err(format!("`{name}` is not an option of an allowed_signers line")),
        }
    }
}

/// `YYYYMMDD[HHMM[SS]][Z]`; without the Z in this host's time zone, as OpenSSH reads it.
fn parse_time(text: &str) -> Result<Timestamp, String> {
    let bad = || format!("`{text}` is not a time: write YYYYMMDDZ or YYYYMMDDHHMMSSZ");
    let (digits, utc) = match text.strip_suffix('Z') {
        Some(digits) => (digits, true),
        None => (text, false),
    };
    if !digits.bytes().all(|b| b.is_ascii_digit()) || ![8, 12, 14].contains(&digits.len()) {
        return Err(bad());
    }
    let padded = format!("{digits:0<14}");
    let civil = jiff::civil::DateTime::strptime("%Y%m%d%H%M%S", &padded).map_err(|_| bad())?;
    let zone = if utc { jiff::tz::TimeZone::UTC } else { jiff::tz::TimeZone::system() };
    civil.to_zoned(zone).map(|zoned| Timestamp(zoned.timestamp())).map_err(|_| bad())
}

/// OpenSSH's pattern lists: `*` and `?`, and `!pattern` that excludes.
fn in_pattern_list(patterns: &[String], name: &str) -> bool {
    let mut matched = false;
    for pattern in patterns {
        match pattern.strip_prefix('!') {
            Some(excluded) if matches(excluded.as_bytes(), name.as_bytes()) => return false,
            Some(_) => {}
            None => matched |= matches(pattern.as_bytes(), name.as_bytes()),
        }
    }
    matched
}

fn matches(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => (0..=name.len()).any(|skip| matches(rest, &name[skip..])),
        (Some((b'?', rest)), Some((_, tail))) => matches(rest, tail),
        (Some((p, rest)), Some((n, tail))) => p == n && matches(rest, tail),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::key::{Signer as _, SignerKey};
    use zeroize::Zeroizing;

    fn key(seed: u8) -> PublicKey {
        SignerKey::from_seed(&Zeroizing::new([seed; 32])).public()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_written_line_is_read_back_and_trusts_from_its_time_on() {
        let line = key(1).allowed_signers_line("runner@clinic", Some(at("2026-11-21T20:00:00Z")));
        let trust = TrustFile::parse(&format!("# ours\n\n{line}")).unwrap();
        assert_eq!(trust.judge(&key(1), at("2026-11-21T20:00:00Z")).unwrap().principals, "runner@clinic");
        assert!(matches!(trust.judge(&key(1), at("2026-11-21T19:59:59Z")), Err(Distrust::NotYetValid { .. })));
        assert!(matches!(trust.judge(&key(2), at("2026-11-21T20:00:00Z")), Err(Distrust::Unknown { .. })));
    }

    #[test]
    fn validity_namespaces_and_quotes_are_understood() {
        let now = at("2026-11-21T12:00:00Z");
        let open = key(1).to_openssh();
        let judge = |line: &str| TrustFile::parse(&line.replace("KEY", &open)).unwrap().judge(&key(1), now).map(|_| ());
        assert_eq!(judge("a,b KEY comment with words"), Ok(()));
        assert_eq!(judge("\"a b\" Valid-Before=\"20261122Z\" KEY"), Ok(()));
        assert!(matches!(judge("a valid-before=\"20261121Z\" KEY"), Err(Distrust::Expired { .. })));
        assert!(matches!(judge("a valid-before=\"202611211200Z\" KEY"), Err(Distrust::Expired { .. })));
        assert_eq!(
            judge("a valid-before=\"20261121120001Z\",valid-after=\"2026Z1\" KEY".replace(",valid-after=\"2026Z1\"", "").as_str()),
            Ok(())
        );
        assert!(matches!(judge("a namespaces=\"git,file\" KEY"), Err(Distrust::OtherNamespace { .. })));
        assert_eq!(judge("a namespaces=\"git,firedrill-*\" KEY"), Ok(()));
        assert!(matches!(judge("a namespaces=\"*,!firedrill-evidence\" KEY"), Err(Distrust::OtherNamespace { .. })));
        // a second line may allow what the first does not
        assert_eq!(judge("a valid-before=\"20200101Z\" KEY\na valid-after=\"20260101Z\" KEY"), Ok(()));
    }

    #[test]
    fn a_line_that_cannot_be_right_is_an_error_with_its_number() {
        let open = key(1).to_openssh();
        for (text, says) in [
            ("a cert-authority KEY", "certificate"),
            ("a", "no key"),
            ("a valid-before=\"tomorrow\" KEY", "not a time"),
            ("a valid-before=\"20261341Z\" KEY", "not a time"),
            ("a namespaces=\"x KEY", "quote"),
            ("a surprise KEY", "not an option"),
            ("a ssh-ed25519 AAAA", "cannot be read"),
        ] {
            let error = TrustFile::parse(&format!("# one\n{}", text.replace("KEY", &open))).unwrap_err().to_string();
            assert!(error.contains("line 2") && error.contains(says), "{text}: {error}");
        }
        assert!(TrustFile::parse("a ssh-rsa AAAAB3NzaC1yc2E=\nb ecdsa-sha2-nistp256 AAAA\n").unwrap().keys().is_empty());
    }

    #[cfg(feature = "runner")]
    #[test]
    fn a_revoked_key_is_refused_whatever_the_file_says() {
        let dir = tempfile::tempdir().unwrap();
        let revoked = dir.path().join("revoked");
        for text in [key(1).to_openssh(), format!("# lost\n{}\n", key(1).fingerprint())] {
            std::fs::write(&revoked, text).unwrap();
            let trust = TrustFile::parse(&key(1).allowed_signers_line("a", None)).unwrap().with_revoked(&revoked).unwrap();
            assert!(matches!(trust.judge(&key(1), at("2026-11-21T12:00:00Z")), Err(Distrust::Revoked { .. })));
        }
    }
}
