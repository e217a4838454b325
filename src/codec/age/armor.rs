//! ASCII armor off: <https://age-encryption.org/v1>, section ASCII armor, strictly, and in bounded memory.

use std::io::{self, BufRead, Read};

use data_encoding::BASE64;

use crate::codec::{CodecError, Layer};

const BEGIN: &[u8] = b"-----BEGIN AGE ENCRYPTED FILE-----";
const END: &[u8] = b"-----END AGE ENCRYPTED FILE-----";
/// Base64 digits in every line but the last.
const COLUMNS: usize = 64;

/// Reads the binary age file inside an armored one.
pub struct Dearmored<R> {
    input: R,
    begun: bool,
    /// A line that only the last may be has been read.
    short: bool,
    ended: bool,
    line: Vec<u8>,
    plain: Vec<u8>,
    at: usize,
}

fn damaged(detail: &str) -> io::Error {
    CodecError::Damaged { layer: Layer::AgeArmor, detail: detail.to_owned() }.into()
}

impl<R: BufRead> Dearmored<R> {
    /// A reader of what `input` holds armored.
    pub fn new(input: R) -> Self {
        Self { input, begun: false, short: false, ended: false, line: Vec::new(), plain: Vec::new(), at: 0 }
    }

    /// The next line without its end; `None` at the end of the input.
    fn next_line(&mut self) -> io::Result<Option<&[u8]>> {
        self.line.clear();
        // no line of armor is longer than this
        (&mut self.input).take(128).read_until(b'\n', &mut self.line)?;
        if self.line.is_empty() {
            return Ok(None);
        }
        let line = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        Ok(Some(line.strip_suffix(b"\r").unwrap_or(line)))
    }

    fn decode_next(&mut self) -> io::Result<()> {
        const CUT: CodecError = CodecError::Truncated { layer: Layer::AgeArmor, detail: "its end line is missing" };
        while !self.begun {
            match self.next_line()? {
                None => return Err(CUT.into()),
                Some(line) if line.trim_ascii().is_empty() => {}
                Some(BEGIN) => self.begun = true,
                Some(_) => return Err(damaged("its first line is not armor's")),
            }
        }
        let short = self.short;
        let line = self.next_line()?.ok_or(CUT)?;
        if line == END {
            self.ended = true;
            return self.check_rest();
        }
        if short {
            return Err(damaged("a short line is in the middle of it"));
        }
        if line.is_empty() || line.len() > COLUMNS {
            return Err(damaged("a line has another length than 64"));
        }
        // the decoder would take several padded pieces in a row
        if line.iter().position(|&b| b == b'=').is_some_and(|at| at + 2 < line.len()) {
            return Err(damaged("padding is in the middle of a line"));
        }
        let plain = BASE64.decode(line).map_err(|_| damaged("a line is not base64"))?;
        self.short = line.len() < COLUMNS || line.ends_with(b"=");
        (self.plain, self.at) = (plain, 0);
        Ok(())
    }

    fn check_rest(&mut self) -> io::Result<()> {
        loop {
            let available = self.input.fill_buf()?;
            if available.is_empty() {
                return Ok(());
            }
            if !available.iter().all(u8::is_ascii_whitespace) {
                return Err(CodecError::Trailing { layer: Layer::AgeArmor }.into());
            }
            let n = available.len();
            self.input.consume(n);
        }
    }
}

impl<R: BufRead> Read for Dearmored<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            if self.at == self.plain.len() {
                if self.ended {
                    break;
                }
                self.decode_next()?;
                continue;
            }
            let n = (self.plain.len() - self.at).min(buf.len() - filled);
            buf[filled..filled + n].copy_from_slice(&self.plain[self.at..self.at + n]);
            (self.at, filled) = (self.at + n, filled + n);
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Fault, fault};
    use std::io::Write;

    fn armored(data: &[u8]) -> Vec<u8> {
        let mut writer = age::armor::ArmoredWriter::wrap_output(Vec::new(), age::armor::Format::AsciiArmor).unwrap();
        writer.write_all(data).unwrap();
        writer.finish().unwrap()
    }

    fn ours(bytes: &[u8]) -> Result<Vec<u8>, CodecError> {
        let mut out = Vec::new();
        match Dearmored::new(bytes).read_to_end(&mut out).map_err(fault) {
            Ok(_) => Ok(out),
            Err(Fault::Bytes(error)) => Err(error),
            Err(Fault::Source(error)) => panic!("memory does not fail: {error}"),
        }
    }

    fn by_the_crate(bytes: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        age::armor::ArmoredReader::new(bytes).read_to_end(&mut out).ok().map(|_| out)
    }

    #[test]
    fn armor_comes_off_as_the_age_crate_takes_it_off() {
        for length in [1, 46, 47, 48, 49, 96, 200] {
            let data: Vec<u8> = (0..length).map(|n| n as u8).collect();
            let good = armored(&data);
            assert_eq!(ours(&good), Ok(data.clone()), "{length}");
            let crlf = String::from_utf8(good.clone()).unwrap().replace('\n', "\r\n").into_bytes();
            assert_eq!(ours(&crlf), Ok(data), "{length}");
            for at in 36..good.len() {
                for value in [b'=', b'\n', b' ', b'A', b'-', 0xff] {
                    let mut bad = good.clone();
                    bad[at] = value;
                    let (ours, reference) = (ours(&bad).ok(), by_the_crate(&bad));
                    // the crate goes on after a full line that ends in padding; the Go implementation does not, nor do we
                    assert!(ours == reference || ours.is_none() && value == b'=', "{length} {at} {value}");
                }
            }
            for cut in 0..good.len() - 1 {
                assert!(ours(&good[..cut]).is_err(), "{length} {cut}");
            }
            assert!(matches!(ours(&[good.clone(), b"x".to_vec()].concat()), Err(CodecError::Trailing { .. })));
            assert!(ours(&[b"\n \n".to_vec(), good, b"\n\n".to_vec()].concat()).is_ok());
        }
        assert!(ours(&[b"-----BEGIN AGE ENCRYPTED FILE-----\n".to_vec(), vec![b'A'; 1 << 20]].concat()).is_err());
    }
}
