//! What there is to say about a drill that looks at the storage as it stood at an earlier instant.

use crate::domain::{Cause, Finding, FindingKind, ObjectRead, Period, Selector, Timestamp};
use crate::vault::AsOfFacts;

/// An upload in parts is given up by most clients after a day; until then it may have been under way.
const LONGEST_UPLOAD: Period = Period::from_secs(24 * 3_600);

/// Remarks on the view itself, once it has been listed. `facts` are absent where the storage could not be shown so.
pub(super) fn remarks(selector: &Selector, facts: Option<AsOfFacts>) -> Option<Finding> {
    let at = selector.as_of()?;
    match facts {
        None => {
            let detail = format!(
                "a local directory keeps no versions: \"as of {}\" selects by capture time only, of what the directory holds now",
                at.to_human()
            );
            Some(Finding::note("locate", Cause::Runner, FindingKind::Remark { detail }))
        }
        Some(facts) if facts.suspended() => {
            let reason = "versioning of the bucket is suspended: what was stored since then has overwritten what was stored since then \
                          before, so an object may be missing here that was there"
                .to_owned();
            Some(Finding::warning("locate", Cause::Runner, FindingKind::AsOfUncertain { reason }))
        }
        Some(_) => None,
    }
}

/// A warning where objects that were read may have been on their way at the instant. Servers date an object that was
/// uploaded in parts by the end of the upload (Ceph), or by its beginning (AWS).
pub(super) fn open_uploads(read: &[ObjectRead], at: Timestamp) -> Option<Finding> {
    let in_parts = |object: &&ObjectRead| {
        let stored_before = at.seconds_since(object.stored_at);
        is_in_parts(object.etag.as_deref()) && (0..LONGEST_UPLOAD.seconds as i64).contains(&stored_before)
    };
    let count = read.iter().filter(in_parts).count();
    (count > 0).then(|| {
        let reason = format!(
            "{count} of the objects read were uploaded in parts and are dated less than {LONGEST_UPLOAD} before {}; a server that dates \
             such an object by the beginning of its upload, as AWS does, may not have had it whole by then",
            at.to_human()
        );
        Finding::warning("restore", Cause::Runner, FindingKind::AsOfUncertain { reason })
    })
}

/// `"…-N"`: the entity tag of an object that was uploaded in N parts.
fn is_in_parts(etag: Option<&str>) -> bool {
    let Some((digest, parts)) = etag.and_then(|tag| tag.trim_matches('"').split_once('-')) else { return false };
    digest.len() == 32 && !parts.is_empty() && parts.bytes().all(|b| b.is_ascii_digit())
}

/// Why there is nothing at the instant, where the versions that were seen say so.
pub(super) fn nothing_yet(facts: Option<AsOfFacts>) -> Option<String> {
    let AsOfFacts { at, first_version, .. } = facts?;
    let first = first_version.filter(|first| *first > at)?;
    Some(format!("nothing was stored under this prefix by {}: the first version is from {}", at.to_human(), first.to_human()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{LockFacts, Pseudonym};

    fn object(etag: &str, stored_at: i64) -> ObjectRead {
        ObjectRead {
            object: Pseudonym("object-1".into()),
            role: "part".into(),
            version: Some("v".into()),
            etag: Some(etag.into()),
            size: 1,
            stored_at: Timestamp::from_unix(stored_at),
            bytes_read: 1,
            requests: 1,
            blake3: None,
            sha256: None,
            sha256_from: None,
            lock: LockFacts::unknown("x"),
            storage_class: None,
            server_encryption: None,
            reads: vec![],
        }
    }

    #[test]
    fn an_upload_in_parts_within_a_day_of_the_instant_is_warned_of() {
        let (whole, parts) = ("\"0123456789abcdef0123456789abcdef\"", "\"0123456789abcdef0123456789abcdef-3\"");
        let at = Timestamp::from_unix(200_000);
        let warned = |etag, stored| open_uploads(&[object(etag, stored)], at).is_some();
        assert!(warned(parts, 200_000) && warned(parts, 200_000 - 86_399));
        assert!(!warned(parts, 200_000 - 86_400) && !warned(parts, 200_001) && !warned(whole, 199_999) && !warned("1f-2-3-4", 199_999));
    }
}
