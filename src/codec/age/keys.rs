//! Identities that open and recipients that seal.

use std::fmt;
use std::str::FromStr;

use age_core::format::{FileKey, Stanza};

/// Why an identity cannot be used. Never holds any of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// A post-quantum identity.
    #[error(
        "a post-quantum identity (AGE-SECRET-KEY-PQ-1…) cannot be used yet: seal to an X25519 identity as well, \
         as `age-keygen` makes it"
    )]
    PostQuantum,
    /// An identity file that is itself encrypted.
    #[error(
        "the identity file is encrypted with a passphrase, which an unattended drill does not have: store it decrypted, readable by the runner alone"
    )]
    Encrypted,
    /// An SSH key with a passphrase.
    #[error("the SSH key has a passphrase, which an unattended drill does not have: use a key without one, readable by the runner alone")]
    SshPassphrase,
    /// An SSH key of a type that age does not know, or this build was made without SSH.
    #[error("the SSH key cannot open age files: only ssh-ed25519 and ssh-rsa keys can{}", if cfg!(feature = "ssh-identities") { "" } else { ", in a firedrill built with `ssh-identities`" })]
    SshUnsupported,
    /// An identity of a plugin.
    #[error("a plugin identity (AGE-PLUGIN-…) cannot be used: drills run unattended")]
    Plugin,
    /// A line that is no identity.
    #[error("line {line} is not an age identity: it should begin with AGE-SECRET-KEY-1")]
    Malformed {
        /// Its number, from 1.
        line: usize,
    },
    /// A recipient where an identity is wanted.
    #[error("line {line} is a recipient (public key); the identity that belongs to it begins with AGE-SECRET-KEY-1")]
    IsRecipient {
        /// Its number, from 1.
        line: usize,
    },
    /// There is none in it.
    #[error("there is no identity in it")]
    Empty,
}

/// Secret keys that open backups. Its `Debug` says how many, and nothing else.
#[derive(Default)]
pub struct Identities(Vec<Box<dyn age::Identity + Send + Sync>>);

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identities({})", self.0.len())
    }
}

impl Identities {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds all identities of one file's text: age identities with comments, or one OpenSSH private key.
    ///
    /// # Errors
    /// [`IdentityError`], with advice.
    pub fn add(&mut self, text: &str) -> Result<(), IdentityError> {
        let trimmed = text.trim_start();
        if trimmed.starts_with("age-encryption.org/") || trimmed.starts_with("-----BEGIN AGE ENCRYPTED FILE-----") {
            return Err(IdentityError::Encrypted);
        }
        if trimmed.starts_with("-----BEGIN") {
            self.0.push(ssh_identity(trimmed)?);
            return Ok(());
        }
        let before = self.0.len();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let upper = line.to_ascii_uppercase();
            if upper.starts_with("AGE-SECRET-KEY-PQ-1") {
                return Err(IdentityError::PostQuantum);
            }
            if upper.starts_with("AGE-PLUGIN-") {
                return Err(IdentityError::Plugin);
            }
            if line.starts_with("age1") || line.starts_with("ssh-") {
                return Err(IdentityError::IsRecipient { line: number });
            }
            let identity = age::x25519::Identity::from_str(line).map_err(|_| IdentityError::Malformed { line: number })?;
            self.0.push(Box::new(identity));
        }
        if self.0.len() == before { Err(IdentityError::Empty) } else { Ok(()) }
    }

    /// The file key, from the first identity that has an opinion; as the age crate asks.
    pub(super) fn unwrap(&self, stanzas: &[Stanza]) -> Option<Result<FileKey, age::DecryptError>> {
        self.0.iter().find_map(|identity| identity.unwrap_stanzas(stanzas))
    }
}

#[cfg(feature = "ssh-identities")]
fn ssh_identity(text: &str) -> Result<Box<dyn age::Identity + Send + Sync>, IdentityError> {
    match age::ssh::Identity::from_buffer(text.as_bytes(), None) {
        Ok(identity @ age::ssh::Identity::Unencrypted(_)) => Ok(Box::new(identity)),
        Ok(age::ssh::Identity::Encrypted(_)) => Err(IdentityError::SshPassphrase),
        Ok(age::ssh::Identity::Unsupported(age::ssh::UnsupportedKey::EncryptedPem)) => Err(IdentityError::SshPassphrase),
        Ok(age::ssh::Identity::Unsupported(_)) | Err(_) => Err(IdentityError::SshUnsupported),
    }
}

#[cfg(not(feature = "ssh-identities"))]
fn ssh_identity(_: &str) -> Result<Box<dyn age::Identity + Send + Sync>, IdentityError> {
    Err(IdentityError::SshUnsupported)
}

/// Why a recipient cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecipientError {
    /// A secret key was given. It is not repeated here.
    #[error("this is an identity (secret key); give its recipient (public key), which begins with age1")]
    IsIdentity,
    /// Not a recipient that we can seal to.
    #[error("`{text}` is not a recipient: give an age public key (age1…){}", if cfg!(feature = "ssh-identities") { " or an ssh-ed25519 or ssh-rsa public key" } else { "" })]
    Unsupported {
        /// What was given.
        text: String,
    },
    /// None was given.
    #[error("no recipient was given: a set that nobody can open is no backup")]
    None,
}

/// Public keys that a set is sealed to.
pub struct Recipients {
    keys: Vec<Box<dyn age::Recipient + Send + Sync>>,
    written: Vec<String>,
}

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Recipients").field(&self.written).finish()
    }
}

impl Recipients {
    /// Reads public keys: `age1…`, or SSH public keys.
    ///
    /// # Errors
    /// [`RecipientError`], with advice.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, RecipientError> {
        let mut recipients = Self { keys: Vec::new(), written: Vec::new() };
        for text in texts {
            let text = text.as_ref().trim();
            if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
                return Err(RecipientError::IsIdentity);
            }
            recipients.keys.push(recipient(text).ok_or_else(|| RecipientError::Unsupported { text: text.to_owned() })?);
            recipients.written.push(text.to_owned());
        }
        if recipients.keys.is_empty() { Err(RecipientError::None) } else { Ok(recipients) }
    }

    /// As they were given.
    pub fn written(&self) -> &[String] {
        &self.written
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &dyn age::Recipient> {
        self.keys.iter().map(|key| &**key as &dyn age::Recipient)
    }
}

fn recipient(text: &str) -> Option<Box<dyn age::Recipient + Send + Sync>> {
    if let Ok(recipient) = age::x25519::Recipient::from_str(text) {
        return Some(Box::new(recipient));
    }
    #[cfg(feature = "ssh-identities")]
    if let Ok(recipient) = age::ssh::Recipient::from_str(text) {
        return Some(Box::new(recipient));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use age::secrecy::ExposeSecret;

    fn add(text: &str) -> Result<usize, IdentityError> {
        let mut identities = Identities::default();
        identities.add(text).map(|()| identities.len())
    }

    #[test]
    fn identity_files_with_comments_and_several_keys_are_read() {
        let key = || age::x25519::Identity::generate().to_string().expose_secret().to_owned();
        assert_eq!(add(&format!("# created: today\n# public key: age1x\n{}\n\n{}\r\n", key(), key())), Ok(2));
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_advice() {
        assert_eq!(add("AGE-SECRET-KEY-PQ-1QQQQ"), Err(IdentityError::PostQuantum));
        assert_eq!(add("AGE-PLUGIN-YUBIKEY-1QQQ"), Err(IdentityError::Plugin));
        assert_eq!(add("-----BEGIN AGE ENCRYPTED FILE-----\n"), Err(IdentityError::Encrypted));
        assert_eq!(add("age-encryption.org/v1\n-> scrypt"), Err(IdentityError::Encrypted));
        assert_eq!(add("\n# nothing\n"), Err(IdentityError::Empty));
        assert_eq!(add("\nAGE-SECRET-KEY-1NONSENSE"), Err(IdentityError::Malformed { line: 2 }));
        assert_eq!(add("age1qqqq"), Err(IdentityError::IsRecipient { line: 1 }));
        assert_eq!(add("-----BEGIN CERTIFICATE-----\nAAAA\n"), Err(IdentityError::SshUnsupported));
    }

    #[test]
    fn a_secret_given_as_recipient_is_not_repeated() {
        let secret = age::x25519::Identity::generate().to_string().expose_secret().to_owned();
        let error = Recipients::parse(&[&secret]).unwrap_err();
        assert_eq!(error, RecipientError::IsIdentity);
        assert!(!error.to_string().contains(&secret[20..]));
        assert!(matches!(Recipients::parse(&["age1nonsense"]), Err(RecipientError::Unsupported { .. })));
        assert_eq!(Recipients::parse::<&str>(&[]).unwrap_err(), RecipientError::None);
    }

    #[test]
    fn debug_shows_no_secret() {
        let mut identities = Identities::default();
        identities.add(age::x25519::Identity::generate().to_string().expose_secret()).unwrap();
        assert_eq!(format!("{identities:?}"), "Identities(1)");
    }
}
