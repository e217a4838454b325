//! S3's XML answers, as far as we ask for them.

use serde::Deserialize;

use super::error::StorageError;
use crate::domain::Timestamp;

/// `ListBucketResult`
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct ListPage {
    #[serde(default)]
    pub contents: Vec<Contents>,
    #[serde(default)]
    pub common_prefixes: Vec<CommonPrefix>,
    pub encoding_type: Option<String>,
    #[serde(default)]
    pub is_truncated: bool,
    pub next_continuation_token: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Contents {
    pub key: String,
    pub size: u64,
    pub last_modified: String,
    #[serde(rename = "ETag")]
    pub etag: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CommonPrefix {
    pub prefix: String,
}

/// `ListVersionsResult`. Versions and delete markers come mixed, in the server's order, so they are one list.
#[derive(Debug, Default, Deserialize)]
pub(super) struct VersionsPage {
    #[serde(rename = "$value", default)]
    pub elements: Vec<VersionsElement>,
}

#[derive(Debug, Deserialize)]
pub(super) enum VersionsElement {
    Version(StoredVersion),
    DeleteMarker(StoredVersion),
    IsTruncated(bool),
    NextKeyMarker(String),
    NextVersionIdMarker(String),
    EncodingType(String),
    #[serde(other)]
    Other,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct StoredVersion {
    pub key: String,
    pub version_id: Option<String>,
    #[serde(default)]
    pub is_latest: bool,
    pub last_modified: String,
    pub size: Option<u64>,
    #[serde(rename = "ETag")]
    pub etag: Option<String>,
}

/// `ObjectLockConfiguration`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct LockConfiguration {
    pub object_lock_enabled: Option<String>,
    pub rule: Option<LockRule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct LockRule {
    pub default_retention: DefaultRetention,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DefaultRetention {
    pub mode: Option<String>,
    pub days: Option<u64>,
    pub years: Option<u64>,
}

/// `Retention`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RetentionAnswer {
    pub mode: Option<String>,
    pub retain_until_date: Option<String>,
}

/// `LegalHold` and `VersioningConfiguration`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Status {
    pub status: Option<String>,
}

/// `InitiateMultipartUploadResult`
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Initiated {
    pub upload_id: String,
}

/// Reads an answer.
pub(super) fn read<'de, T: Deserialize<'de>>(operation: &'static str, text: &'de str) -> Result<T, StorageError> {
    quick_xml::de::from_str(text).map_err(|_| StorageError::BadAnswer { operation, why: "it is not the XML that was asked for".into() })
}

/// An ISO 8601 instant with 0 to 9 fraction digits and `Z` or an offset. Nothing else: some servers write RFC 1123 dates
/// here, and a guess about retention is worth nothing.
pub(super) fn instant(text: &str) -> Option<Timestamp> {
    text.trim().parse().ok()
}

/// Undoes `encoding-type=url`: percent signs, and `+` for a blank. `None` where the key is not UTF-8.
pub(super) fn url_decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16)).map(|d| d as u8);
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                out.push(high << 4 | low);
            }
            other => out.push(other),
        }
    }
    String::from_utf8(out).ok()
}

/// Percent-encodes everything but unreserved characters (and, with `keep_slash`, slashes), as SigV4 wants it.
pub(super) fn url_encode(text: &str, keep_slash: bool) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') || (keep_slash && byte == b'/') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_page_of_a_listing_is_read() {
        let page: ListPage = read(
            "ListObjectsV2",
            r#"<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix/>
            <MaxKeys>2</MaxKeys><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken>
            <Contents><Key>a%2F%2Fb</Key><LastModified>2026-11-21T18:46:36.123Z</LastModified><ETag>"x"</ETag><Size>7</Size></Contents>
            <Contents><Key>c</Key><LastModified>2026-11-21T18:46:36Z</LastModified><Size>0</Size></Contents>
            <CommonPrefixes><Prefix>d/</Prefix></CommonPrefixes></ListBucketResult>"#,
        )
        .unwrap();
        assert_eq!((page.contents.len(), page.common_prefixes.len()), (2, 1));
        assert!(page.is_truncated);
        assert_eq!(url_decode(&page.contents[0].key).unwrap(), "a//b");
        assert!(read::<ListPage>("ListObjectsV2", "<html>").is_err());
    }

    #[test]
    fn versions_and_delete_markers_keep_the_order_in_which_they_come() {
        let page: VersionsPage = read(
            "ListObjectVersions",
            r#"<?xml version="1.0"?><ListVersionsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name><Prefix/>
            <KeyMarker/><VersionIdMarker></VersionIdMarker><NextKeyMarker>a</NextKeyMarker><NextVersionIdMarker>v1</NextVersionIdMarker>
            <MaxKeys>3</MaxKeys><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>
            <DeleteMarker><Key>a</Key><VersionId>v3</VersionId><IsLatest>true</IsLatest><LastModified>2026-11-21T18:46:38.123Z</LastModified>
            <Owner><ID>x</ID></Owner></DeleteMarker>
            <Version><Key>a</Key><VersionId>v2</VersionId><IsLatest>false</IsLatest><LastModified>2026-11-21T18:46:37Z</LastModified>
            <ETag>"x"</ETag><Size>7</Size><StorageClass>STANDARD</StorageClass><Owner><ID>x</ID></Owner></Version>
            <DeleteMarker><Key>a</Key><VersionId>null</VersionId><IsLatest>false</IsLatest><LastModified>2026-11-21T18:46:36Z</LastModified></DeleteMarker>
            <CommonPrefixes><Prefix>d/</Prefix></CommonPrefixes></ListVersionsResult>"#,
        )
        .unwrap();
        let shown: Vec<String> = page
            .elements
            .iter()
            .filter_map(|element| match element {
                VersionsElement::Version(v) => Some(format!("version {}", v.version_id.as_deref()?)),
                VersionsElement::DeleteMarker(v) => Some(format!("marker {}", v.version_id.as_deref()?)),
                VersionsElement::IsTruncated(more) => Some(format!("more {more}")),
                VersionsElement::NextKeyMarker(key) => Some(format!("next {key}")),
                _ => None,
            })
            .collect();
        assert_eq!(shown, ["next a", "more true", "marker v3", "version v2", "marker null"]);
        assert!(read::<VersionsPage>("ListObjectVersions", "<html>").is_err());
    }

    #[test]
    fn dates_have_any_number_of_fraction_digits() {
        let whole = instant("2026-11-21T18:46:36Z").unwrap();
        for text in ["2026-11-21T18:46:36.0Z", "2026-11-21T18:46:36.000Z", "2026-11-21T18:46:36.000000000Z", "2026-11-21T18:46:36+00:00"] {
            assert_eq!(instant(text), Some(whole), "{text}");
        }
        assert_eq!(instant("Sat, 21 Nov 2026 18:46:36 GMT"), None);
        assert_eq!(instant("2026-11-21"), None);
    }

    proptest! {
        #[test]
        fn encoding_and_decoding_are_inverse(text in ".*") {
            prop_assert_eq!(url_decode(&url_encode(&text, true)), Some(text.clone()));
            prop_assert_eq!(url_decode(&url_encode(&text, false)), Some(text));
        }
        #[test]
        fn decoding_never_panics(text in "[%+0-9a-fA-F]{0,12}") {
            let _ = url_decode(&text);
        }
    }
}
