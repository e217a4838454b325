//! Percent signs: as S3 and its signatures want them.

use std::borrow::Cow;

/// Percent-encodes everything but unreserved characters and, with `keep_slash`, slashes.
pub(super) fn encode(text: &str, keep_slash: bool) -> String {
    encode_bytes(text.as_bytes(), keep_slash)
}

fn encode_bytes(bytes: &[u8], keep_slash: bool) -> String {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    let mut out = String::with_capacity(bytes.len() + 16);
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') || (keep_slash && byte == b'/') {
            out.push(char::from(byte));
        } else {
            out.extend(['%', char::from(DIGITS[usize::from(byte >> 4)]), char::from(DIGITS[usize::from(byte & 15)])]);
        }
    }
    out
}

/// Undoes percent signs; bytes that are no UTF-8 become U+FFFD, which no signature and no key survives by accident.
pub(super) fn decode(text: &str) -> Cow<'_, str> {
    match decoded(text) {
        None => Cow::Borrowed(text),
        Some(bytes) => Cow::Owned(String::from_utf8(bytes).unwrap_or_else(|e| String::from_utf8_lossy(e.as_bytes()).into_owned())),
    }
}

/// As [`decode`], but what is no UTF-8 is refused.
pub(super) fn decode_strictly(text: &str) -> Option<String> {
    decoded(text).map_or_else(|| Some(text.to_owned()), |bytes| String::from_utf8(bytes).ok())
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    if !text.contains('%') {
        return None;
    }
    let bytes = text.as_bytes();
    let digit = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16)).map(|d| d as u8);
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], digit(at + 1), digit(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push(high << 4 | low);
                at += 3;
            }
            (byte, ..) => {
                out.push(byte);
                at += 1;
            }
        }
    }
    Some(out)
}

/// Names and values of a query, decoded; `+` is a blank. A name without `=` has an empty value.
pub(super) fn pairs(query: &str) -> impl Iterator<Item = (String, String)> + '_ {
    let plain = |text: &str| decode(&text.replace('+', " ")).into_owned();
    query.split('&').filter(|pair| !pair.is_empty()).map(move |pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (plain(name), plain(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_escape_stays() {
        assert_eq!(decode("a%2Fb%zz%4"), "a/b%zz%4");
        assert_eq!(pairs("location&a=b+c%2B&=x&&z=").collect::<Vec<_>>().len(), 4);
        assert_eq!(pairs("a=b+c%2B").next().unwrap().1, "b c+");
        assert_eq!(decode_strictly("%ff"), None);
    }

    proptest! {
        #[test]
        fn encoding_and_decoding_are_inverse(text in ".*") {
            let encoded = encode(&text, true);
            prop_assert_eq!(decode(&encoded), text.as_str());
            prop_assert_eq!(decode_strictly(&encode(&text, false)), Some(text));
        }
        #[test]
        fn nothing_makes_it_panic(text in "[%+&=0-9a-fA-F/é]{0,16}") {
            let _ = (decode(&text), decode_strictly(&text), pairs(&text).count());
        }
    }
}
