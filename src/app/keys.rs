//! Keys, from files and environment to the codec, and nowhere else.

use std::fs;

use zeroize::Zeroizing;

use crate::codec::age::Identities;
use crate::domain::{SecretRef, Unlock};
use crate::drill::{KeyError, Keyring, Keys};
use crate::storage::Environment;

/// Loads keys from files and environment variables.
pub struct FileKeyring {
    environment: Environment,
}

impl FileKeyring {
    /// With this environment.
    pub fn new(environment: Environment) -> Self {
        Self { environment }
    }

    fn text(&self, reference: &SecretRef) -> Result<Zeroizing<String>, String> {
        match reference {
            SecretRef::File(path) => {
                let bytes = fs::read(path).map(Zeroizing::new).map_err(|e| format!("cannot be read ({})", e.kind()))?;
                // an encrypted identity file is no text, and is told from nonsense by its first line
                Ok(Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned()))
            }
            SecretRef::Env(name) => self.environment.get(name).map(|v| Zeroizing::new(v.to_owned())).ok_or_else(|| "is not set".to_owned()),
        }
    }
}

impl Keyring for FileKeyring {
    fn load(&self, unlock: &Unlock) -> Result<Keys, KeyError> {
        let wrong = |reference: &dyn std::fmt::Display, reason: String| KeyError { reference: reference.to_string(), reason };
        let mut identities = Identities::default();
        for reference in &unlock.identities {
            let text = self.text(reference).map_err(|reason| wrong(reference, reason))?;
            identities.add(&text).map_err(|e| wrong(reference, e.to_string()))?;
        }
        let mut producers = Vec::new();
        for path in &unlock.trusted_producers {
            let shown = path.display();
            let text = fs::read_to_string(path).map_err(|e| wrong(&shown, format!("cannot be read ({})", e.kind())))?;
            for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
                let key = ssh_key::PublicKey::from_openssh(line)
                    .map_err(|_| wrong(&shown, "is no OpenSSH public key (ssh-ed25519 …)".to_owned()))?;
                producers.push(key);
            }
        }
        Ok(Keys { identities, producers })
    }

    fn secret(&self, reference: &SecretRef) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let secret = match reference {
            SecretRef::File(path) => fs::read(path).map(Zeroizing::new).map_err(|e| format!("cannot be read ({})", e.kind())),
            SecretRef::Env(name) => {
                self.environment.get(name).map(|v| Zeroizing::new(v.as_bytes().to_vec())).ok_or_else(|| "is not set".to_owned())
            }
        };
        secret.map_err(|reason| KeyError { reference: reference.to_string(), reason })
    }
}
