//! What can be wrong with bytes.

use std::io;

use super::Layer;

/// A bound that a backup may not exceed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Plaintext bytes.
    Bytes,
    /// Entries.
    Files,
    /// Plaintext bytes for one stored byte.
    Ratio,
    /// Components of a path.
    Depth,
    /// Memory that a decoder asks for.
    Memory,
}

impl Limit {
    /// As findings write it.
    pub const fn word(self) -> &'static str {
        match self {
            Limit::Bytes => "bytes",
            Limit::Files => "files",
            Limit::Ratio => "ratio",
            Limit::Depth => "depth",
            Limit::Memory => "memory",
        }
    }
}

impl std::fmt::Display for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

/// What is wrong with the bytes of a backup. No variant holds a path or content; `detail` is our own words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// It does not begin as an age file does.
    #[error("not an age file")]
    NotAge,
    /// An age file of a version that nobody has described yet.
    #[error("an age file of an unknown version, not v1")]
    UnknownAgeVersion,
    /// The age header does not hold together, or its authentication code does not match.
    #[error("the age header is damaged: {detail}")]
    HeaderDamaged {
        /// What was noticed.
        detail: &'static str,
    },
    /// Encrypted with a passphrase.
    #[error(
        "encrypted with a passphrase (age -p): an unattended drill has none; encrypt to a recipient instead, as in \
         `age -r age1…`"
    )]
    PassphraseEncrypted,
    /// None of the identities at hand opens it.
    #[error("none of {identities} identities opens it; it is encrypted to {}", list(found))]
    NoMatchingRecipient {
        /// How many identities were tried.
        identities: usize,
        /// Types of its recipients, as `X25519`; what we do not know is `other`.
        found: Vec<String>,
    },
    /// A chunk of the age payload does not authenticate.
    #[error("age chunk {chunk} does not authenticate")]
    ChunkDamaged {
        /// Its number, from 0.
        chunk: u64,
    },
    /// The stream ends before it says it does.
    #[error("the {layer} stream ends early: {detail}")]
    Truncated {
        /// Which layer noticed.
        layer: Layer,
        /// What was noticed.
        detail: &'static str,
    },
    /// There is something after the end.
    #[error("the {layer} stream has data after its end")]
    Trailing {
        /// Which layer noticed.
        layer: Layer,
    },
    /// The stream is not what it should be.
    #[error("the {layer} stream is damaged: {detail}")]
    Damaged {
        /// Which layer noticed.
        layer: Layer,
        /// What was noticed.
        detail: String,
    },
    /// There is nothing in it, not even a header.
    #[error("the {layer} stream is empty")]
    Empty {
        /// Which layer noticed.
        layer: Layer,
    },
    /// A feature that we do not read.
    #[error("the {layer} stream uses a feature that is not supported: {detail}")]
    Unsupported {
        /// Which layer.
        layer: Layer,
        /// Which feature, and what to do.
        detail: &'static str,
    },
    /// A budget is exceeded.
    #[error("more than {allowed} ({limit})")]
    Budget {
        /// Which.
        limit: Limit,
        /// Its value.
        allowed: u64,
    },
}

fn list(found: &[String]) -> String {
    if found.is_empty() { "no recipient known to us".to_owned() } else { found.join(", ") }
}

impl From<CodecError> for io::Error {
    fn from(error: CodecError) -> Self {
        io::Error::new(io::ErrorKind::InvalidData, error)
    }
}

/// Who made a reader fail.
#[derive(Debug)]
pub enum Fault {
    /// The bytes.
    Bytes(CodecError),
    /// Whoever delivers them; its own error, intact.
    Source(io::Error),
}

/// Tells whose fault an error out of one of our readers is.
pub fn fault(error: io::Error) -> Fault {
    match error.downcast::<CodecError>() {
        Ok(error) => Fault::Bytes(error),
        Err(error) => Fault::Source(error),
    }
}

/// Remembers the inner reader's error while somebody else's decoder carries it out, so that it comes back unharmed.
pub(super) struct Tap<R> {
    inner: R,
    kept: Option<io::Error>,
}

impl<R> Tap<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, kept: None }
    }
    pub(super) fn own_error(&mut self) -> Option<io::Error> {
        self.kept.take()
    }
    fn keep<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        result.map_err(|error| {
            let kind = error.kind();
            self.kept = Some(error);
            io::Error::from(kind)
        })
    }
}

impl<R: io::Read> io::Read for Tap<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let result = self.inner.read(buf);
        self.keep(result)
    }
}

impl<R: io::BufRead> io::BufRead for Tap<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if let Err(error) = self.inner.fill_buf() {
            return self.keep(Err(error));
        }
        self.inner.fill_buf()
    }
    fn consume(&mut self, n: usize) {
        self.inner.consume(n);
    }
}

/// How a reader that has a buffer of its own reads: as much of what is there as fits.
pub(crate) fn read_buffered(reader: &mut (impl io::BufRead + ?Sized), buf: &mut [u8]) -> io::Result<usize> {
    let available = reader.fill_buf()?;
    let n = available.len().min(buf.len());
    buf[..n].copy_from_slice(&available[..n]);
    reader.consume(n);
    Ok(n)
}

/// Fills `buf` as far as the reader goes; how many bytes came.
pub(super) fn read_full(reader: &mut (impl io::Read + ?Sized), buf: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buf.len() {
        match reader.read(&mut buf[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn damage_and_the_source_are_told_apart() {
        let damage: io::Error = CodecError::ChunkDamaged { chunk: 3 }.into();
        assert!(matches!(fault(damage), Fault::Bytes(CodecError::ChunkDamaged { chunk: 3 })));
        let reset = io::Error::new(io::ErrorKind::ConnectionReset, "reset by peer");
        assert!(matches!(fault(reset), Fault::Source(e) if e.to_string() == "reset by peer"));
    }
}
