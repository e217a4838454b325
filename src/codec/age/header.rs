//! The header of an age file, <https://age-encryption.org/v1>: parsed strictly, opened by the `age` crate's identities.

use std::io::{self, BufRead, Read, Write};

use age::secrecy::ExposeSecret;
use age_core::format::{FileKey, Stanza, is_arbitrary_string};
use age_core::primitives::hkdf;
use aws_lc_rs::{hmac, rand};
use data_encoding::BASE64_NOPAD;
use zeroize::Zeroizing;

use super::{Identities, Payload, Recipients};
use crate::codec::{CodecError, Layer};

const VERSION_LINE: &[u8] = b"age-encryption.org/v1\n";
const MAGIC: &[u8] = b"age-encryption.org/";
/// Bytes of the payload's nonce.
const NONCE: usize = 16;
/// Bytes of a chunk's authentication tag.
pub const TAG: usize = 16;
/// No header needs more; each recipient is well below a kilobyte.
const MAX_HEADER: usize = 4 << 20;

/// A parsed header with the payload's nonce, not yet opened.
pub struct Header {
    stanzas: Vec<Stanza>,
    /// All bytes that the authentication code covers.
    covered: Vec<u8>,
    mac: [u8; 32],
    nonce: [u8; NONCE],
    /// Bytes of header and nonce: where the payload begins.
    length: u64,
}

const fn damaged(detail: &'static str) -> CodecError {
    CodecError::HeaderDamaged { detail }
}

const CUT: CodecError = CodecError::Truncated { layer: Layer::Age, detail: "it ends within its header" };

/// Reads header and nonce, and not a byte more.
///
/// # Errors
/// A [`CodecError`] inside the [`io::Error`], or the source's own error.
pub fn read_header(input: &mut impl BufRead) -> io::Result<Header> {
    let mut lines = Lines { input, all: Vec::with_capacity(512) };
    let first = lines.next()?.to_vec();
    if first != VERSION_LINE {
        return Err(match first.strip_prefix(MAGIC) {
            Some(rest) if rest.ends_with(b"\n") => CodecError::UnknownAgeVersion,
            Some(_) => CUT,
            None if MAGIC.starts_with(&first) => CUT,
            None => CodecError::NotAge,
        }
        .into());
    }
    let mut stanzas = Vec::new();
    let mut line = lines.next()?.to_vec();
    loop {
        let text = text_of(&line)?;
        if let Some(arguments) = text.strip_prefix("-> ") {
            let (stanza, next) = read_stanza(arguments, &mut lines)?;
            stanzas.push(stanza);
            line = next;
            continue;
        }
        let Some(encoded) = text.strip_prefix("--- ") else { return Err(damaged("a line is neither a recipient nor the end").into()) };
        if stanzas.is_empty() {
            return Err(damaged("it names no recipient").into());
        }
        let mac = BASE64_NOPAD
            .decode(encoded.as_bytes())
            .ok()
            .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
            .ok_or(damaged("its authentication code is malformed"))?;
        let mut covered = lines.all;
        let length = covered.len() + NONCE;
        covered.truncate(covered.len() - line.len() + 3);
        let mut nonce = [0; NONCE];
        input.read_exact(&mut nonce).map_err(|e| if e.kind() == io::ErrorKind::UnexpectedEof { CUT.into() } else { e })?;
        return Ok(Header { stanzas, covered, mac, nonce, length: length as u64 });
    }
}

fn text_of(line: &[u8]) -> Result<&str, CodecError> {
    line.strip_suffix(b"\n").and_then(|line| std::str::from_utf8(line).ok()).ok_or(damaged("a line is not text"))
}

/// A stanza's body, and the line after it. Bodies of full lines only, without the short last line that v1 demands, were
/// written by early versions; they are unambiguous, and the age crate reads them too.
fn read_stanza(arguments: &str, lines: &mut Lines<'_, impl BufRead>) -> io::Result<(Stanza, Vec<u8>)> {
    let mut words = arguments.split(' ').map(str::to_owned);
    let tag = words.next().unwrap_or_default();
    let args: Vec<String> = words.collect();
    if !is_arbitrary_string(&tag) || !args.iter().all(is_arbitrary_string) {
        return Err(damaged("a recipient's first line is malformed").into());
    }
    let mut encoded = String::new();
    let mut full = false;
    loop {
        let line = lines.next()?.to_vec();
        let text = text_of(&line)?;
        let legacy_end = full && (text.starts_with("->") || text.starts_with("---"));
        if !legacy_end {
            if text.len() > 64 {
                return Err(damaged("a recipient's body has a line that is too long").into());
            }
            encoded.push_str(text);
            full = text.len() == 64;
            if full {
                continue;
            }
        }
        let body = BASE64_NOPAD.decode(encoded.as_bytes()).map_err(|_| damaged("a recipient's body is not base64"))?;
        let next = if legacy_end { line } else { lines.next()?.to_vec() };
        return Ok((Stanza { tag, args, body }, next));
    }
}

struct Lines<'a, R> {
    input: &'a mut R,
    all: Vec<u8>,
}

impl<R: BufRead> Lines<'_, R> {
    /// The next line with its line feed.
    fn next(&mut self) -> io::Result<&[u8]> {
        let start = self.all.len();
        let room = (MAX_HEADER - start) as u64;
        (&mut *self.input).take(room).read_until(b'\n', &mut self.all)?;
        let line = &self.all[start..];
        if line.ends_with(b"\n") {
            Ok(line)
        } else if self.all.len() >= MAX_HEADER {
            Err(damaged("it is longer than any header needs to be").into())
        } else if start == 0 {
            // whether these few bytes are an age file at all is for the caller to say
            if line.is_empty() { Err(CodecError::Empty { layer: Layer::Age }.into()) } else { Ok(line) }
        } else {
            Err(CUT.into())
        }
    }
}

impl Header {
    /// Bytes of header and nonce: where the payload begins.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Finds the identity that opens it, and checks the header's authentication code.
    ///
    /// # Errors
    /// [`CodecError`]: passphrase, no matching recipient, or damage.
    pub fn open(&self, identities: &Identities) -> Result<Payload, CodecError> {
        if self.stanzas.iter().any(|s| s.tag == "scrypt") {
            return Err(match self.stanzas.len() {
                1 => CodecError::PassphraseEncrypted,
                _ => damaged("it mixes a passphrase with other recipients"),
            });
        }
        let file_key = match identities.unwrap(&self.stanzas) {
            Some(Ok(key)) => key,
            Some(Err(_)) => return Err(damaged("a recipient's body does not open with its own identity")),
            None => return Err(CodecError::NoMatchingRecipient { identities: identities.len(), found: self.recipient_types() }),
        };
        hmac::verify(&mac_key(&file_key), &self.covered, &self.mac).map_err(|_| damaged("its authentication code does not match"))?;
        Ok(payload(&file_key, &self.nonce))
    }

    /// Types of the recipients, in our words; tags that we do not know are free text and stay unsaid.
    fn recipient_types(&self) -> Vec<String> {
        const KNOWN: [&str; 6] = ["X25519", "ssh-ed25519", "ssh-rsa", "mlkem768x25519", "piv-p256", "p256tag"];
        let mut found: Vec<String> = Vec::new();
        for stanza in self.stanzas.iter().filter(|s| !s.tag.ends_with("-grease")) {
            let word = KNOWN.iter().find(|k| **k == stanza.tag).copied().unwrap_or("other");
            if !found.iter().any(|f| f == word) {
                found.push(word.to_owned());
            }
        }
        found
    }
}

fn mac_key(file_key: &FileKey) -> hmac::Key {
    let key = Zeroizing::new(hkdf(&[], b"header", file_key.expose_secret()));
    hmac::Key::new(hmac::HMAC_SHA256, &*key)
}

fn payload(file_key: &FileKey, nonce: &[u8; NONCE]) -> Payload {
    let key = Zeroizing::new(hkdf(nonce, b"payload", file_key.expose_secret()));
    Payload::new(&key)
}

/// Writes a fresh header to `out`, and gives the key of its payload.
pub(super) fn write_header(out: &mut impl Write, recipients: &Recipients) -> io::Result<Payload> {
    let random = |bytes: &mut [u8]| rand::fill(bytes).map_err(|_| io::Error::other("the system gives no random bytes"));
    let file_key = FileKey::try_init_with_mut(|key| random(key))?;
    let mut nonce = [0; NONCE];
    random(&mut nonce)?;
    let mut header = VERSION_LINE.to_vec();
    let mut labels = None;
    for recipient in recipients.keys() {
        let (stanzas, wanted) = recipient.wrap_file_key(&file_key).map_err(io::Error::other)?;
        if *labels.get_or_insert_with(|| wanted.clone()) != wanted {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "these recipients cannot be used together"));
        }
        for stanza in stanzas {
            write!(header, "-> {}", stanza.tag)?;
            for arg in &stanza.args {
                write!(header, " {arg}")?;
            }
            header.push(b'\n');
            let body = BASE64_NOPAD.encode(&stanza.body);
            // a short line ends the body: an empty one where it fills its last line
            for start in (0..=body.len()).step_by(64) {
                header.extend_from_slice(&body.as_bytes()[start..body.len().min(start + 64)]);
                header.push(b'\n');
            }
        }
    }
    header.extend_from_slice(b"---");
    let mac = hmac::sign(&mac_key(&file_key), &header);
    writeln!(header, " {}", BASE64_NOPAD.encode(mac.as_ref()))?;
    header.extend_from_slice(&nonce);
    out.write_all(&header)?;
    Ok(payload(&file_key, &nonce))
}
