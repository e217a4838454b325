//! The aws-chunked form of bodies: `SIZE;chunk-signature=…`, the bytes, and so on to a chunk of none, then trailers.

use super::answers::S3Error;
use super::sigv4::Chunked;

/// The bytes of a body, whose chunks are all signed where they are to be. Trailers are not looked at.
pub(super) fn decode(mut body: &[u8], chunked: Chunked, limit: u64) -> Result<Vec<u8>, S3Error> {
    let mut seed = chunked.seed;
    let mut out = Vec::new();
    loop {
        let (line, rest) = line(body).ok_or(S3Error::IncompleteBody)?;
        let (size, extension) = line.split_once(';').unwrap_or((line, ""));
        let size = usize::from_str_radix(size.trim(), 16).map_err(|_| S3Error::IncompleteBody)?;
        if rest.len() < size || (out.len() + size) as u64 > limit {
            return Err(S3Error::IncompleteBody);
        }
        let (chunk, rest) = rest.split_at(size);
        if let Some(seed) = &mut seed {
            let signature = extension.trim().strip_prefix("chunk-signature=").ok_or(S3Error::SignatureDoesNotMatch)?;
            if !seed.accepts(chunk, signature) {
                return Err(S3Error::SignatureDoesNotMatch);
            }
        }
        if size == 0 {
            return Ok(out);
        }
        out.extend_from_slice(chunk);
        body = rest.strip_prefix(b"\r\n").ok_or(S3Error::IncompleteBody)?;
    }
}

fn line(body: &[u8]) -> Option<(&str, &[u8])> {
    let end = body.windows(2).take(256).position(|two| two == b"\r\n")?;
    Some((std::str::from_utf8(&body[..end]).ok()?, &body[end + 2..]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PLAIN: Chunked = Chunked { seed: None };

    #[test]
    fn chunks_are_put_together() {
        let body = b"3\r\nabc\r\n2\r\nde\r\n0\r\nx-amz-checksum-crc32:AAAAAA==\r\n\r\n";
        assert_eq!(decode(body, PLAIN, 5).unwrap(), b"abcde");
        assert!(decode(body, PLAIN, 4).is_err());
        for bad in [&b"3\r\nab"[..], b"3\r\nabcX", b"", b"zz\r\n", b"ffffffffffffffffffff\r\n", b"3\r\nabc\r\n"] {
            assert_eq!(decode(bad, PLAIN, 5), Err(S3Error::IncompleteBody));
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&body, PLAIN, 1 << 20);
        }
    }
}
