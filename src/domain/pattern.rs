//! Names of bare objects: which of them are recovery points, and when their data was captured.

use std::fmt;
use std::str::FromStr;

use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz;

use super::{TimeZone, Timestamp};

/// A pattern over object names: literal text, `*` (anything but a slash), and at most one `{captured_at:FORMAT}` with a
/// strftime format, as in `{captured_at:%Y-%m-%dT%H%M}.dump.zst.age`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PointPattern {
    pieces: Vec<Piece>,
    text: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    AnyText,
    CapturedAt(String),
}

/// What is wrong with a written pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing to match.
    #[error("the pattern is empty")]
    Empty,
    /// A brace without its partner.
    #[error("a `{{` in the pattern is not closed, or a `}}` stands alone")]
    Brace,
    /// Another name in braces.
    #[error("`{{{0}}}` is not known: write {{captured_at:FORMAT}}, as in {{captured_at:%Y-%m-%dT%H%M}}")]
    Unknown(String),
    /// Two times.
    #[error("the pattern has more than one {{captured_at:…}}")]
    Twice,
    /// A format that does not hold a date, or that cannot be read back.
    #[error("`{0}` does not say year, month and day in a form that can be read back")]
    Format(String),
}

/// A name that matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NameMatch {
    /// The capture time in the name, where the pattern has one.
    pub captured_at: Option<Timestamp>,
}

impl FromStr for PointPattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        let mut pieces = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let end = rest.find(['*', '{', '}']).unwrap_or(rest.len());
            if end > 0 {
                pieces.push(Piece::Literal(rest[..end].to_owned()));
            }
            rest = &rest[end..];
            match rest.chars().next() {
                None => {}
                Some('*') => {
                    // two in a row say no more than one
                    if pieces.last() != Some(&Piece::AnyText) {
                        pieces.push(Piece::AnyText);
                    }
                    rest = &rest[1..];
                }
                Some('{') => {
                    let close = rest.find('}').ok_or(PatternError::Brace)?;
                    let inside = &rest[1..close];
                    let format = inside.strip_prefix("captured_at:").ok_or_else(|| PatternError::Unknown(inside.to_owned()))?;
                    check_format(format)?;
                    if pieces.iter().any(|p| matches!(p, Piece::CapturedAt(_))) {
                        return Err(PatternError::Twice);
                    }
                    pieces.push(Piece::CapturedAt(format.to_owned()));
                    rest = &rest[close + 1..];
                }
                Some(_) => return Err(PatternError::Brace),
            }
        }
        Ok(Self { pieces, text: text.to_owned() })
    }
}

impl fmt::Display for PointPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A format is good when a known instant survives being written and read with it.
fn check_format(format: &str) -> Result<(), PatternError> {
    let bad = || PatternError::Format(format.to_owned());
    let sample = jiff::civil::date(2001, 12, 23).at(14, 25, 36, 0).to_zoned(tz::TimeZone::UTC).map_err(|_| bad())?;
    let written = BrokenDownTime::from(&sample).to_string(format).map_err(|_| bad())?;
    let (read, used) = read_instant(format, &written, &tz::TimeZone::UTC).ok_or_else(bad)?;
    let day = read.0.to_zoned(tz::TimeZone::UTC).date();
    if used == written.len() && day == sample.date() { Ok(()) } else { Err(bad()) }
}

/// The instant at the beginning of `text`, and how many bytes of it say so.
fn read_instant(format: &str, text: &str, zone: &tz::TimeZone) -> Option<(Timestamp, usize)> {
    let (parsed, used) = BrokenDownTime::parse_prefix(format, text).ok()?;
    // with an offset, or as seconds since 1970, the name says an instant by itself
    if let Ok(instant) = parsed.to_timestamp() {
        return Some((Timestamp(instant), used));
    }
    let local = parsed.to_datetime().ok()?;
    // daylight saving: in the gap after it, in the fold the first one
    let instant = zone.to_ambiguous_zoned(local).compatible().ok()?;
    Some((Timestamp(instant.timestamp()), used))
}

impl PointPattern {
    /// The literal text that every matching name begins with.
    pub fn literal_head(&self) -> &str {
        match self.pieces.first() {
            Some(Piece::Literal(text)) => text,
            _ => "",
        }
    }

    /// Whether names can hold a slash, so that a listing must go deeper than one level.
    pub fn spans_folders(&self) -> bool {
        self.pieces.iter().any(|p| matches!(p, Piece::Literal(t) | Piece::CapturedAt(t) if t.contains('/')))
    }

    /// Whether names say when their data was captured.
    pub fn has_capture_time(&self) -> bool {
        self.pieces.iter().any(|p| matches!(p, Piece::CapturedAt(_)))
    }

    /// Matches a whole name. `zone` is where the times in names are meant; UTC where absent or unknown. Sidecars
    /// (`.b3`, `.sha256`) only match where the pattern names them.
    pub fn matches(&self, name: &str, zone: Option<&TimeZone>) -> Option<NameMatch> {
        let zone = zone.and_then(|z| tz::TimeZone::get(&z.0).ok()).unwrap_or(tz::TimeZone::UTC);
        let sidecar = [".b3", ".sha256", ".sig"].into_iter().any(|ending| name.ends_with(ending) && !self.text.ends_with(ending));
        if sidecar {
            return None;
        }
        // only `*` makes choices, so more steps than this means a pattern made to be slow
        let mut steps = 10_000;
        match_pieces(&self.pieces, name, &zone, &mut steps).map(|captured_at| NameMatch { captured_at })
    }
}

fn match_pieces(pieces: &[Piece], text: &str, zone: &tz::TimeZone, steps: &mut u32) -> Option<Option<Timestamp>> {
    *steps = steps.checked_sub(1)?;
    let Some((first, rest)) = pieces.split_first() else {
        return text.is_empty().then_some(None);
    };
    match first {
        Piece::Literal(literal) => match_pieces(rest, text.strip_prefix(literal.as_str())?, zone, steps),
        Piece::CapturedAt(format) => {
            let (instant, used) = read_instant(format, text, zone)?;
            match_pieces(rest, text.get(used..)?, zone, steps).map(|_| Some(instant))
        }
        Piece::AnyText => {
            let reach = text.find('/').unwrap_or(text.len());
            let ends = text[..reach].char_indices().map(|(i, _)| i).chain([reach]);
            ends.into_iter().find_map(|end| match_pieces(rest, &text[end..], zone, steps))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pattern(text: &str) -> PointPattern {
        text.parse().unwrap()
    }

    fn time(text: &str) -> Option<NameMatch> {
        Some(NameMatch { captured_at: Some(text.parse().unwrap()) })
    }

    #[test]
    fn names_give_their_capture_time() {
        let ehr = pattern("{captured_at:%Y-%m-%dT%H%M}.dump.zst.age");
        assert_eq!(ehr.matches("2026-11-20T0200.dump.zst.age", None), time("2026-11-20T02:00:00Z"));
        let chicago = TimeZone("America/Chicago".into());
        assert_eq!(ehr.matches("2026-11-20T0200.dump.zst.age", Some(&chicago)), time("2026-11-20T08:00:00Z"));
        let daily = pattern("ehr-{captured_at:%Y%m%d}-*.tar.gz");
        assert_eq!(daily.matches("ehr-20261120-full.tar.gz", None), time("2026-11-20T00:00:00Z"));
        assert_eq!(daily.literal_head(), "ehr-");
        let epoch = pattern("*/{captured_at:%s}.age");
        assert_eq!(epoch.matches("host/1795000000.age", None), time("2026-11-18T11:06:40Z"));
        assert!(epoch.spans_folders() && !daily.spans_folders());
    }

    #[test]
    fn other_names_are_no_recovery_points() {
        let ehr = pattern("ehr-{captured_at:%Y-%m-%d}.age");
        for name in [
            "ehr-test-2026-11-20.age", // LIES 23: a sibling that shares the prefix
            "ehr-2026-11-20.age.part",
            "ehr-2026-13-20.age",
            "ehr-.age",
            "",
            "x/ehr-2026-11-20.age",
        ] {
            assert_eq!(ehr.matches(name, None), None, "{name}");
        }
        assert_eq!(pattern("*").matches("a/b", None), None);
        assert_eq!(pattern("*").matches("backup.age.sha256", None), None);
        assert!(pattern("*.age").matches("backup.age", None).is_some());
    }

    #[test]
    fn useless_patterns_are_refused() {
        assert_eq!("".parse::<PointPattern>(), Err(PatternError::Empty));
        assert_eq!("{captured_at:%Y".parse::<PointPattern>(), Err(PatternError::Brace));
        assert_eq!("a}".parse::<PointPattern>(), Err(PatternError::Brace));
        assert!(matches!("{host}".parse::<PointPattern>(), Err(PatternError::Unknown(_))));
        assert_eq!("{captured_at:%Y%m%d}{captured_at:%Y%m%d}".parse::<PointPattern>(), Err(PatternError::Twice));
        for format in ["%H%M", "%Y-%m", "", "%Q%Q", "%Y-%d"] {
            assert!(matches!(format!("{{captured_at:{format}}}").parse::<PointPattern>(), Err(PatternError::Format(_))), "{format}");
        }
    }

    #[test]
    fn a_pattern_made_to_be_slow_ends() {
        let slow = pattern("*a*a*a*a*a*a*a*a*a*a*b");
        assert_eq!(slow.matches(&"a".repeat(300), None), None);
    }

    proptest! {
        #[test]
        fn written_times_are_read_back(seconds in 0i64..4_000_000_000, head in "[a-z-]{0,8}", tail in "[.][a-z.]{0,12}") {
            let at = Timestamp::from_unix(seconds);
            let format = "%Y-%m-%dT%H%M%S";
            let name = format!("{head}{}{tail}", at.0.strftime(format));
            prop_assume!(![".b3", ".sha256", ".sig"].iter().any(|e| tail.ends_with(e)));
            let exact = pattern(&format!("{head}{{captured_at:{format}}}{tail}"));
            prop_assert_eq!(exact.matches(&name, None), Some(NameMatch { captured_at: Some(at) }));
            let loose = pattern(&format!("{head}{{captured_at:{format}}}*"));
            prop_assert_eq!(loose.matches(&name, None), Some(NameMatch { captured_at: Some(at) }));
        }

        #[test]
        fn nothing_panics(text in ".{0,40}", name in ".{0,60}") {
            if let Ok(pattern) = text.parse::<PointPattern>() {
                let _ = pattern.matches(&name, None);
                prop_assert_eq!(pattern.to_string(), text);
            }
        }
    }
}
