//! All versions of a bucket's objects, delete markers among them: a call that `object_store` does not have.

use super::bucket::{Bucket, PAGE};
use super::error::StorageError;
use super::xml::{self, VersionsElement};
use crate::domain::Timestamp;

/// Which versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionsAsk {
    /// A plain string: it need not end at a slash.
    pub prefix: String,
    /// Behind which version the page begins; at the first key where nothing is said.
    pub after: Option<VersionMark>,
    /// Versions at most, 1 to 1000.
    pub limit: usize,
}

/// A place in the list of versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionMark {
    /// The key.
    pub key: String,
    /// The version. Without one, servers differ in whether they go on behind all versions of the key or show them again.
    pub version: Option<String>,
}

/// One version of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredVersion {
    /// Its key. It may be one that cannot be requested.
    pub key: String,
    /// Its id; `null` for what was stored without versioning.
    pub version: String,
    /// Whether it is what the name stands for now.
    pub latest: bool,
    /// When it was stored, as the server says. Of an object that was uploaded in parts AWS says when the upload began.
    pub stored_at: Timestamp,
    /// What it is.
    pub kind: VersionKind,
}

/// What a version is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionKind {
    /// Bytes.
    Object {
        /// How many.
        size: u64,
        /// Entity tag, as the server writes it.
        etag: Option<String>,
    },
    /// The mark that somebody deleted the name.
    DeleteMarker,
}

/// A page of versions: keys in the order of their bytes, the versions of a key in the server's order, newest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VersionPage {
    /// Versions and delete markers.
    pub versions: Vec<StoredVersion>,
    /// Versions whose keys are not text.
    pub skipped: u64,
    /// Where the next page begins; `None` on the last.
    pub next: Option<VersionMark>,
}

const OPERATION: &str = "ListObjectVersions";

impl Bucket {
    /// One page of all versions below a prefix.
    ///
    /// # Errors
    /// [`StorageError::VersionsNotVisible`] where these credentials may not look; others.
    pub async fn versions_page(&self, ask: &VersionsAsk) -> Result<VersionPage, StorageError> {
        let limit = ask.limit.clamp(1, PAGE).to_string();
        let mut query = vec![("versions", ""), ("encoding-type", "url"), ("prefix", ask.prefix.as_str()), ("max-keys", limit.as_str())];
        if let Some(after) = &ask.after {
            query.push(("key-marker", after.key.as_str()));
            query.extend(after.version.as_deref().map(|version| ("version-id-marker", version)));
        }
        let text = self.ask(OPERATION, None, &query).await.map_err(|error| match error {
            StorageError::AccessDenied { .. } => StorageError::VersionsNotVisible { operation: OPERATION },
            // a server without the notion
            StorageError::Refused { status: 400 | 405 | 501, .. } => StorageError::NoVersions,
            other => other,
        })?;
        let page = page_of(xml::read(OPERATION, &text)?)?;
        if page.next.is_some() && page.next == ask.after {
            return Err(StorageError::BadAnswer { operation: OPERATION, why: "it goes on without getting on".into() });
        }
        Ok(page)
    }
}

fn page_of(answer: xml::VersionsPage) -> Result<VersionPage, StorageError> {
    let bad = |why: &str| StorageError::BadAnswer { operation: OPERATION, why: why.to_owned() };
    let encoded = answer.elements.iter().any(|e| matches!(e, VersionsElement::EncodingType(word) if word == "url"));
    let plain = |key: &str| if encoded { xml::url_decode(key) } else { Some(key.to_owned()) };
    let mut page = VersionPage::default();
    let (mut truncated, mut next_key, mut next_version, mut last) = (false, None, None, None);
    for element in answer.elements {
        let (found, marker) = match element {
            VersionsElement::Version(found) => (found, false),
            VersionsElement::DeleteMarker(found) => (found, true),
            VersionsElement::IsTruncated(more) => {
                truncated = more;
                continue;
            }
            VersionsElement::NextKeyMarker(key) => {
                next_key = plain(&key).filter(|key| !key.is_empty());
                continue;
            }
            VersionsElement::NextVersionIdMarker(version) => {
                next_version = Some(version).filter(|version| !version.is_empty());
                continue;
            }
            VersionsElement::EncodingType(_) | VersionsElement::Other => continue,
        };
        let Some(key) = plain(&found.key) else {
            (page.skipped, last) = (page.skipped + 1, None);
            continue;
        };
        let stored_at = xml::instant(&found.last_modified).ok_or_else(|| bad("a version without a readable date"))?;
        let kind = match (marker, found.size) {
            (true, _) => VersionKind::DeleteMarker,
            (false, Some(size)) => VersionKind::Object { size, etag: found.etag },
            (false, None) => return Err(bad("a version without a size")),
        };
        let version = found.version_id.filter(|id| !id.is_empty()).unwrap_or_else(|| "null".to_owned());
        last = Some(VersionMark { key: key.clone(), version: Some(version.clone()) });
        page.versions.push(StoredVersion { key, version, latest: found.is_latest, stored_at, kind });
    }
    if truncated {
        // not every server encodes the marker when it encodes keys, so the last key itself is the better mark
        let told = next_key.map(|key| VersionMark { key, version: next_version });
        page.next = Some(last.or(told).ok_or_else(|| bad("it goes on without saying where"))?);
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(inner: &str) -> Result<VersionPage, StorageError> {
        let text = format!("<ListVersionsResult><EncodingType>url</EncodingType>{inner}</ListVersionsResult>");
        page_of(xml::read(OPERATION, &text).unwrap())
    }

    fn version(key: &str, id: &str, date: &str) -> String {
        format!("<Version><Key>{key}</Key><VersionId>{id}</VersionId><LastModified>{date}</LastModified><Size>3</Size></Version>")
    }

    #[test]
    fn a_page_goes_on_behind_its_last_version_whatever_the_marker_looks_like() {
        let listed = version("a%20b%2Fc", "v1", "2026-11-21T18:46:36.123456789Z");
        let page = read(&format!("<IsTruncated>true</IsTruncated><NextKeyMarker>a b/c</NextKeyMarker>{listed}")).unwrap();
        assert_eq!(page.next, Some(VersionMark { key: "a b/c".into(), version: Some("v1".into()) }));
        assert_eq!(page.versions[0].stored_at.0.subsec_nanosecond(), 123_456_789);
        let told = "<IsTruncated>true</IsTruncated><NextKeyMarker>x%2By</NextKeyMarker><NextVersionIdMarker>v</NextVersionIdMarker>";
        assert_eq!(read(told).unwrap().next, Some(VersionMark { key: "x+y".into(), version: Some("v".into()) }));
        assert_eq!(read(&listed).unwrap().next, None);
    }

    #[test]
    fn answers_that_cannot_be_placed_in_time_or_do_not_go_on_are_refused() {
        for bad in [
            version("a", "v", "Sat, 21 Nov 2026 18:46:36 GMT"),
            "<Version><Key>a</Key><LastModified>2026-11-21T18:46:36Z</LastModified></Version>".to_owned(),
            "<IsTruncated>true</IsTruncated>".to_owned(),
        ] {
            assert!(matches!(read(&bad), Err(StorageError::BadAnswer { .. })), "{bad}");
        }
        let page = read(&version("%ff", "v", "2026-11-21T18:46:36Z")).unwrap();
        assert_eq!((page.versions.len(), page.skipped), (0, 1));
    }
}
