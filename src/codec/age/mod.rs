//! age, read and written: the header by the `age` crate's own identities and recipients, the payload by aws-lc's cipher,
//! which is 2.5 times faster. The crate's reader is the reference in the tests: the same bytes, or an error on both sides.
//!
//! No passphrases: an unattended drill has none.

mod armor;
mod header;
mod keys;
mod stream;

pub use armor::Dearmored;
pub use header::{Header, TAG, read_header};
pub use keys::{Identities, IdentityError, RecipientError, Recipients};
pub use stream::{AgeReader, AgeWriter, CHUNK, Payload, SEALED_CHUNK, SegmentReader};

use std::io::{self, BufRead};

/// Opens an age file: reads its header, finds the identity, and gives a reader of its plaintext.
///
/// # Errors
/// A [`super::CodecError`] inside the [`io::Error`], or the source's own error.
pub fn open<R: BufRead>(mut input: R, identities: &Identities) -> io::Result<AgeReader<R>> {
    let payload = read_header(&mut input)?.open(identities)?;
    Ok(AgeReader::new(input, payload))
}
