//! One header block.

/// Bytes of a block.
pub(super) const BLOCK: usize = 512;

/// A block that may be a header.
pub(super) struct Block([u8; BLOCK]);

/// The bytes before the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    &field[..field.iter().position(|&b| b == 0).unwrap_or(field.len())]
}

/// A number: octal digits between blanks, or binary with the highest bit set (GNU, star).
pub(super) fn number(field: &[u8]) -> Result<i64, &'static str> {
    const RANGE: &str = "a number in a header is out of range";
    match field.first() {
        Some(first) if first & 0x80 != 0 => {
            // two's complement: 0x80 begins a positive number, 0xff a negative one
            let negative = first & 0x40 != 0;
            let mut value: i128 = if negative { i128::from(*first as i8) } else { i128::from(first & 0x3f) };
            for byte in &field[1..] {
                value = value.checked_mul(256).ok_or(RANGE)? + i128::from(*byte);
            }
            i64::try_from(value).map_err(|_| RANGE)
        }
        _ => {
            let digits = field.trim_ascii_start();
            let end = digits.iter().position(|&b| b == 0 || b == b' ').unwrap_or(digits.len());
            let mut value: i64 = 0;
            for digit in &digits[..end] {
                if !(b'0'..=b'7').contains(digit) {
                    return Err("a number in a header is not octal");
                }
                value = value.checked_mul(8).ok_or(RANGE)? + i64::from(digit - b'0');
            }
            Ok(value)
        }
    }
}

impl Block {
    pub(super) fn new(bytes: [u8; BLOCK]) -> Self {
        Self(bytes)
    }
    pub(super) fn bytes(&self) -> &[u8; BLOCK] {
        &self.0
    }
    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|&b| b == 0)
    }
    pub(super) fn kind(&self) -> u8 {
        self.0[156]
    }
    pub(super) fn mode(&self) -> &[u8] {
        &self.0[100..108]
    }
    pub(super) fn uid(&self) -> &[u8] {
        &self.0[108..116]
    }
    pub(super) fn gid(&self) -> &[u8] {
        &self.0[116..124]
    }
    pub(super) fn mtime(&self) -> &[u8] {
        &self.0[136..148]
    }
    pub(super) fn link(&self) -> &[u8] {
        &self.0[157..257]
    }
    pub(super) fn major(&self) -> &[u8] {
        &self.0[329..337]
    }
    pub(super) fn minor(&self) -> &[u8] {
        &self.0[337..345]
    }
    pub(super) fn size(&self) -> Result<u64, &'static str> {
        u64::try_from(number(&self.0[124..136])?).map_err(|_| "an entry's size is negative")
    }
    pub(super) fn gnu_sparse(&self) -> &[u8] {
        &self.0[386..482]
    }
    pub(super) fn gnu_sparse_continues(&self) -> bool {
        self.0[482] != 0
    }
    pub(super) fn gnu_real_size(&self) -> Result<u64, &'static str> {
        u64::try_from(number(&self.0[483..495])?).map_err(|_| "a sparse file's size is negative")
    }

    /// Name and, in ustar, the prefix before it. GNU keeps other things where ustar has the prefix; star has a shorter one.
    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(&self.0[..100]);
        let is_ustar = &self.0[257..263] == b"ustar\0";
        let end = if &self.0[508..512] == b"tar\0" { 476 } else { 500 };
        let prefix = if is_ustar { text(&self.0[345..end]) } else { b"" };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    /// Whether the checksum is right, as unsigned sum or as the signed one that some old writers made.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        const WRONG: &str = "a header's checksum does not match";
        let written = number(&self.0[148..156]).map_err(|_| WRONG)?;
        // the field itself counts as spaces
        let sum = |bytes: &[u8]| bytes.iter().map(|&b| u32::from(b)).sum::<u32>();
        let spaces = 8 * u32::from(b' ');
        let unsigned = sum(&self.0) - sum(&self.0[148..156]) + spaces;
        // some old tars took bytes for signed: each of these counts 256 less
        let high = |bytes: &[u8]| bytes.iter().map(|&b| u32::from(b >> 7)).sum::<u32>();
        let signed = i64::from(unsigned) - 256 * i64::from(high(&self.0) - high(&self.0[148..156]));
        let unsigned = i64::from(unsigned);
        if written == unsigned || written == signed { Ok(()) } else { Err(WRONG) }
    }
}

/// Whether these first bytes are a tar archive's: the magic of ustar and GNU, a checksum that matches (v7), or a block of
/// zeros, with which an archive of nothing begins.
pub fn begins_as_tar(prefix: &[u8]) -> bool {
    if prefix.get(257..262) == Some(b"ustar") {
        return true;
    }
    let Some(first) = prefix.get(..BLOCK).and_then(|b| <[u8; BLOCK]>::try_from(b).ok()) else { return false };
    let block = Block::new(first);
    if block.is_zero() {
        return prefix.iter().all(|&b| b == 0);
    }
    block.0[0] != 0 && block.check().is_ok() && block.size().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_gnu_tar_writes_them() {
        assert_eq!(number(b"0000644\0"), Ok(0o644));
        assert_eq!(number(b"  644 \0\0"), Ok(0o644));
        assert_eq!(number(b"\0\0\0\0\0\0\0\0"), Ok(0));
        assert_eq!(number(b"\x80\0\0\0\0\0\0\0\x02\0\0\0"), Ok(0x0200_0000));
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xfe"), Ok(-2));
        assert!(number(b"0000648\0").is_err());
        assert!(number(b"\x80\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff").is_err());
    }
}
