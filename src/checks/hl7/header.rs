//! A message's header: who sent it, what it is, when.

use jiff::tz::TimeZone;

use crate::checks::records::{Dated, instant};

/// What `MSH` says.
pub(super) struct Header<'a> {
    pub(super) separator: u8,
    component: u8,
    /// Sending application and facility.
    pub(super) sender: (&'a [u8], &'a [u8]),
    pub(super) control_id: &'a [u8],
    kind: &'a [u8],
    time: &'a [u8],
}

/// What separates the fields of a header or trailer.
pub(super) fn separator(segment: &[u8]) -> Option<u8> {
    segment.get(3).copied().filter(|b| b.is_ascii_punctuation())
}

/// A field by its number; of `MSH`, whose separator is its first field, by the number before.
pub(super) fn field(segment: &[u8], separator: u8, number: usize) -> Option<&[u8]> {
    segment.split(|b| *b == separator).nth(number)
}

impl<'a> Header<'a> {
    /// Reads it; nothing where it is none.
    pub(super) fn read(segment: &'a [u8]) -> Option<Self> {
        let separator = separator(segment)?;
        let at = |number: usize| field(segment, separator, number - 1).unwrap_or_default();
        let encoding = at(2);
        // component, repetition, escape, subcomponent, and since 2.7 truncation
        let distinct = encoding.iter().enumerate().all(|(n, b)| b.is_ascii_punctuation() && !encoding[..n].contains(b));
        if !(4..=5).contains(&encoding.len()) || !distinct {
            return None;
        }
        let header =
            Self { separator, component: encoding[0], sender: (at(3), at(4)), control_id: at(10).trim_ascii(), kind: at(9), time: at(7) };
        let kind = header.kind().0;
        let named = kind.len() == 3 && kind.iter().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        (named && !header.control_id.is_empty()).then_some(header)
    }

    /// Its type and its trigger event.
    pub(super) fn kind(&self) -> (&'a [u8], &'a [u8]) {
        let mut parts = self.kind.split(|b| *b == self.component);
        (parts.next().unwrap_or_default(), parts.next().unwrap_or_default())
    }

    pub(super) fn dated(&self, zone: Option<&TimeZone>) -> Dated {
        // a second component told the precision, before 2.6
        let time = self.time.split(|b| *b == self.component).next().unwrap_or_default();
        std::str::from_utf8(time).ok().and_then(|text| instant(text.trim(), zone)).unwrap_or(Dated::Not)
    }
}
