//! Sealed bytes to entries: layer detection, age, decompression, tar; the sealed set's manifest and index.
//!
//! `Read` in, `Read` out: no network, no clock, no environment, and no file system either. Every error that comes out of
//! these readers is an [`std::io::Error`] that holds a [`CodecError`] where the bytes are to blame; any other error is the
//! source's own, untouched. [`fault`] tells them apart.

pub mod age;
mod decompress;
mod detect;
mod error;
mod frames;
pub mod index;
mod lz4;
pub mod manifest;
pub mod tar;

pub use decompress::{Compression, decompressor};
pub use detect::{Layer, PREFIX, detect};
pub(crate) use error::read_buffered;
pub use error::{CodecError, Fault, Limit, fault};
pub use frames::FRAME;
pub(crate) use frames::{FrameDecoder, Frames, PackedFrame};

use crate::domain::Sha256;

/// SHA-256 of all that `reader` has.
///
/// # Errors
/// The reader's own.
pub fn sha256(mut reader: impl std::io::Read) -> std::io::Result<Sha256> {
    let mut context = aws_lc_rs::digest::Context::new(&aws_lc_rs::digest::SHA256);
    let mut buffer = vec![0; 256 << 10];
    loop {
        match reader.read(&mut buffer)? {
            0 => break,
            n => context.update(&buffer[..n]),
        }
    }
    Ok(Sha256(context.finish().as_ref().try_into().expect("SHA-256 has 32 bytes")))
}
