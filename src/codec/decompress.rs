//! gzip, zstd, xz and lz4, each read to its very end: several members or frames in a row are one stream, and truncation,
//! empty input and anything after the end are errors.

use std::io::{self, BufRead, Read};

use zstd::zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer, get_error_name};

use super::error::Tap;
use super::lz4::Lz4Reader;
use super::{CodecError, Layer, Limit};

/// How much memory an xz decoder may ask for: its strongest preset needs 65 MiB.
const XZ_MEMORY: u64 = 256 << 20;

/// The compressions that we read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// RFC 1952.
    Gzip,
    /// RFC 8878.
    Zstd,
    /// The .xz container.
    Xz,
    /// lz4 frames.
    Lz4,
}

impl Compression {
    /// The compression that a layer is, if it is one.
    pub const fn of(layer: Layer) -> Option<Self> {
        match layer {
            Layer::Gzip => Some(Compression::Gzip),
            Layer::Zstd => Some(Compression::Zstd),
            Layer::Xz => Some(Compression::Xz),
            Layer::Lz4 => Some(Compression::Lz4),
            _ => None,
        }
    }
}

/// A reader of what `input` holds compressed. Reads decompress straight into the caller's buffer: make it large.
///
/// # Errors
/// Where the decoder cannot be made, which is the host's fault.
pub fn decompressor<'a>(compression: Compression, input: impl BufRead + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    Ok(match compression {
        Compression::Zstd => Box::new(ZstdReader::new(input)?),
        Compression::Gzip => Box::new(GzipReader::new(input)),
        Compression::Xz => Box::new(XzReader::new(input)?),
        Compression::Lz4 => Box::new(Lz4Reader::new(input)),
    })
}

/// Reads zstd frames, skippable ones included, windows up to 2 GiB (`--long=31`).
pub(crate) struct ZstdReader<R> {
    input: R,
    context: DCtx<'static>,
    /// Whether a frame is open; `None` before the first.
    open: Option<bool>,
}

impl<R: BufRead> ZstdReader<R> {
    pub(crate) fn new(input: R) -> io::Result<Self> {
        let mut context = DCtx::try_create().ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        context.set_parameter(DParameter::WindowLogMax(31)).map_err(|code| io::Error::other(get_error_name(code)))?;
        Ok(Self { input, context, open: None })
    }
}

impl<R: BufRead> Read for ZstdReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let mut out = OutBuffer::around(buf);
        loop {
            let input = self.input.fill_buf()?;
            let at_end = input.is_empty();
            if at_end && self.open != Some(true) {
                return match self.open {
                    None => Err(CodecError::Empty { layer: Layer::Zstd }.into()),
                    Some(_) => Ok(out.pos()),
                };
            }
            let before = out.pos();
            let mut feed = InBuffer::around(input);
            let result = self.context.decompress_stream(&mut out, &mut feed);
            let used = feed.pos();
            self.input.consume(used);
            let hint = result.map_err(|code| damaged(Layer::Zstd, get_error_name(code)))?;
            self.open = Some(hint != 0);
            if out.pos() == out.capacity() {
                return Ok(out.pos());
            }
            if at_end && hint != 0 && out.pos() == before {
                return Err(CodecError::Truncated { layer: Layer::Zstd, detail: "it ends within a frame" }.into());
            }
        }
    }
}

pub(super) fn damaged(layer: Layer, detail: &str) -> CodecError {
    CodecError::Damaged { layer, detail: detail.to_owned() }
}

/// What a foreign decoder's error means, once the source's own error is out of the way.
fn verdict(layer: Layer, error: &io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => CodecError::Truncated { layer, detail: "it ends within its data" }.into(),
        _ => damaged(layer, "its data does not decode, or its checksum does not match").into(),
    }
}

/// Reads gzip members.
struct GzipReader<R> {
    /// `None` while between members.
    member: Option<flate2::bufread::GzDecoder<Tap<R>>>,
    between: Option<Tap<R>>,
    any: bool,
}

impl<R: BufRead> GzipReader<R> {
    fn new(input: R) -> Self {
        Self { member: None, between: Some(Tap::new(input)), any: false }
    }

    /// Whether another member follows. Zeros after the last one are a tape's padding, and gzip ignores them as well.
    fn another(&mut self) -> io::Result<bool> {
        let Some(mut input) = self.between.take() else { return Ok(true) };
        loop {
            let available = match input.fill_buf() {
                Ok(available) => available,
                Err(error) => return Err(input.own_error().unwrap_or(error)),
            };
            match available.first() {
                None if self.any => {
                    self.between = Some(input);
                    return Ok(false);
                }
                None => return Err(CodecError::Empty { layer: Layer::Gzip }.into()),
                Some(0x1f) => break,
                Some(0) if self.any => {
                    let zeros = available.iter().take_while(|&&b| b == 0).count();
                    input.consume(zeros);
                }
                Some(_) if self.any => return Err(CodecError::Trailing { layer: Layer::Gzip }.into()),
                Some(_) => return Err(damaged(Layer::Gzip, "it does not begin as gzip does").into()),
            }
        }
        self.member = Some(flate2::bufread::GzDecoder::new(input));
        Ok(true)
    }
}

impl<R: BufRead> Read for GzipReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        loop {
            if self.member.is_none() && !self.another()? {
                return Ok(0);
            }
            let Some(member) = &mut self.member else { continue };
            match member.read(buf) {
                Ok(0) => {
                    self.between = self.member.take().map(flate2::bufread::GzDecoder::into_inner);
                    self.any = true;
                }
                Ok(n) => return Ok(n),
                Err(error) => return Err(member.get_mut().own_error().unwrap_or_else(|| verdict(Layer::Gzip, &error))),
            }
        }
    }
}

/// Reads xz streams.
struct XzReader<R> {
    decoder: liblzma::bufread::XzDecoder<Tap<R>>,
    any: bool,
}

impl<R: BufRead> XzReader<R> {
    fn new(input: R) -> io::Result<Self> {
        let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, liblzma::stream::CONCATENATED).map_err(io::Error::other)?;
        Ok(Self { decoder: liblzma::bufread::XzDecoder::new_stream(Tap::new(input), stream), any: false })
    }
}

impl<R: BufRead> Read for XzReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if !self.any {
            let input = self.decoder.get_mut();
            let empty = match input.fill_buf() {
                Ok(available) => available.is_empty(),
                Err(error) => return Err(input.own_error().unwrap_or(error)),
            };
            if empty {
                return Err(CodecError::Empty { layer: Layer::Xz }.into());
            }
            self.any = true;
        }
        self.decoder.read(buf).map_err(|error| {
            if let Some(own) = self.decoder.get_mut().own_error() {
                return own;
            }
            let memory = error.get_ref().and_then(|e| e.downcast_ref::<liblzma::stream::Error>());
            if matches!(memory, Some(liblzma::stream::Error::MemLimit)) {
                return CodecError::Budget { limit: Limit::Memory, allowed: XZ_MEMORY }.into();
            }
            verdict(Layer::Xz, &error)
        })
    }
}
