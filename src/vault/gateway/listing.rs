//! Lists: of keys below the view's prefix and of nothing else, merged with what tools wrote.
//!
//! Pages end at a name, and the next one begins after it: so a tool may come back to an old page, in any form of list.

use data_encoding::BASE64URL_NOPAD;
use http::Response;

use super::answers::{S3Error, Xml};
use super::body::Reply;
use super::objects::etag;
use super::request::{Ask, Form};
use super::service::Service;
use super::uri;
use crate::domain::Timestamp;
use crate::storage::{Begin, Depth, PageAsk};

/// Entries of a page at most.
const PAGE: usize = 1000;
/// Behind every key that begins as a common prefix does.
const LAST: char = char::MAX;

/// A line of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Item {
    Object { key: String, size: u64, stored_at: Timestamp, etag: String },
    Prefix(String),
}

impl Item {
    fn name(&self) -> &str {
        match self {
            Item::Object { key, .. } | Item::Prefix(key) => key,
        }
    }
    /// Where a list goes on after it.
    fn end(&self) -> String {
        match self {
            Item::Object { key, .. } => key.clone(),
            Item::Prefix(prefix) => format!("{prefix}{LAST}"),
        }
    }
}

struct Names {
    items: Vec<Item>,
    truncated: bool,
}

impl Service {
    pub(super) async fn list(&self, ask: &Ask, form: Form) -> Result<Response<Reply>, S3Error> {
        let parameter = |name: &str| ask.parameter(name).unwrap_or_default();
        let prefix = parameter("prefix");
        let delimiter = parameter("delimiter");
        let depth = match delimiter {
            "" => Depth::All,
            "/" => Depth::OneLevel,
            _ => return Err(S3Error::NotImplemented),
        };
        let encode = match ask.parameter("encoding-type") {
            None | Some("") => false,
            Some("url") => true,
            Some(_) => return Err(S3Error::InvalidArgument),
        };
        let most = match ask.parameter("max-keys") {
            None | Some("") => PAGE,
            Some(number) => number.parse::<u32>().map_err(|_| S3Error::InvalidArgument)?.min(PAGE as u32) as usize,
        };
        let after = match form {
            Form::V1 => ask.parameter("marker").map(|marker| past(marker, prefix, depth)),
            Form::Versions => ask.parameter("key-marker").map(|marker| past(marker, prefix, depth)),
            Form::V2 => match ask.parameter("continuation-token") {
                Some(token) => Some(token_of(token).ok_or(S3Error::InvalidArgument)?),
                None => ask.parameter("start-after").map(str::to_owned),
            },
        };
        let after = after.filter(|after| !after.is_empty());
        let names = if most == 0 { Names { items: Vec::new(), truncated: false } } else { self.names(prefix, depth, after, most).await? };
        Ok(Page { service: self, ask, form, prefix, delimiter, encode, most }.write(&names))
    }

    async fn names(&self, prefix: &str, depth: Depth, after: Option<String>, most: usize) -> Result<Names, S3Error> {
        let view = self.view.prefix();
        let nothing = || Ok(Names { items: Vec::new(), truncated: false });
        if prefix.starts_with(view) {
            return self.below(prefix, depth, after, most).await;
        }
        let Some(rest) = view.strip_prefix(prefix) else { return nothing() };
        match rest.find('/') {
            // a parent folder: it has one way down
            Some(slash) if depth == Depth::OneLevel => {
                let step = Item::Prefix(view[..prefix.len() + slash + 1].to_owned());
                let seen = after.as_deref().is_some_and(|after| step.name() <= after);
                if seen || self.below(view, Depth::All, None, 1).await?.items.is_empty() {
                    return nothing();
                }
                Ok(Names { items: vec![step], truncated: false })
            }
            _ => self.below(view, depth, after, most).await,
        }
    }

    /// What lies below a prefix of the view: the storage's, with the overlay over it.
    async fn below(&self, prefix: &str, depth: Depth, mut after: Option<String>, most: usize) -> Result<Names, S3Error> {
        loop {
            let from = after.clone().map_or(Begin::Start, Begin::After);
            let mut ask = PageAsk { prefix: prefix.to_owned(), depth, from, limit: most };
            // a page may be empty and not the last: one of names that cannot be asked for
            let (mut page, truncated) = loop {
                let page = self.view.store.page(&ask).await.map_err(|error| self.upstream(prefix, error.into()))?;
                let names: Vec<Item> = items_of(page.objects, page.prefixes, after.as_deref());
                match page.next {
                    Some(next) if names.is_empty() => ask.from = Begin::Token(next),
                    next => break (names, next.is_some()),
                }
            };
            let until = page.last().filter(|_| truncated).map(Item::end);
            if let Some(overlay) = &self.overlay {
                let written = overlay.between(prefix, after.as_deref(), until.as_deref());
                let rewritten = |key: &str| written.binary_search_by(|(other, _)| other.as_str().cmp(key)).is_ok();
                page.retain(|item| !matches!(item, Item::Object { key, .. } if rewritten(key)));
                for (key, kept) in written {
                    let Some(kept) = kept else { continue };
                    let folder = key[prefix.len()..].find('/').filter(|_| depth == Depth::OneLevel);
                    page.push(match folder {
                        Some(slash) => Item::Prefix(key[..prefix.len() + slash + 1].to_owned()),
                        None => Item::Object { size: kept.bytes.len() as u64, stored_at: kept.stored_at, etag: kept.etag, key },
                    });
                }
                page.sort_by(|a, b| a.name().cmp(b.name()));
                page.dedup_by(|a, b| a.name() == b.name());
            }
            if page.len() > most {
                page.truncate(most);
                return Ok(Names { items: page, truncated: true });
            }
            // fewer than asked for is allowed; none is not, where there are more
            if !truncated || !page.is_empty() {
                return Ok(Names { items: page, truncated });
            }
            after = until;
        }
    }
}

/// In order, and after `after`.
fn items_of(objects: Vec<crate::storage::Listed>, prefixes: Vec<String>, after: Option<&str>) -> Vec<Item> {
    let objects = objects.into_iter().map(|listed| Item::Object {
        size: listed.object.size,
        etag: etag(listed.etag.map(quoted).as_deref(), listed.object.size, listed.object.stored_at),
        stored_at: listed.object.stored_at,
        key: listed.object.key,
    });
    let mut items: Vec<_> = objects.chain(prefixes.into_iter().map(Item::Prefix)).collect();
    items.retain(|item| {
        after.is_none_or(|after| {
            item.name() > after || matches!(item, Item::Prefix(prefix) if after.starts_with(prefix) && !after.ends_with(LAST))
        })
    });
    items.sort_by(|a, b| a.name().cmp(b.name()));
    items
}

fn quoted(etag: String) -> String {
    if etag.starts_with('"') { etag } else { format!("\"{etag}\"") }
}

/// A marker that is a common prefix, as `NextMarker` can be, stands for all that begins so.
fn past(marker: &str, prefix: &str, depth: Depth) -> String {
    let folder = depth == Depth::OneLevel && marker.len() > prefix.len() && marker.starts_with(prefix) && marker.ends_with('/');
    if folder { format!("{marker}{LAST}") } else { marker.to_owned() }
}

fn token(after: &str) -> String {
    format!("1{}", BASE64URL_NOPAD.encode(after.as_bytes()))
}

fn token_of(token: &str) -> Option<String> {
    String::from_utf8(BASE64URL_NOPAD.decode(token.strip_prefix('1')?.as_bytes()).ok()?).ok()
}

/// A page to be written.
struct Page<'a> {
    service: &'a Service,
    ask: &'a Ask,
    form: Form,
    prefix: &'a str,
    delimiter: &'a str,
    encode: bool,
    most: usize,
}

impl Page<'_> {
    fn name(&self, xml: &mut Xml, element: &str, name: &str) {
        if self.encode {
            xml.text(element, &uri::encode(name, true))
        } else {
            xml.text(element, name)
        };
    }

    fn write(&self, names: &Names) -> Response<Reply> {
        let root = if self.form == Form::Versions { "ListVersionsResult" } else { "ListBucketResult" };
        let mut xml = Xml::new();
        xml.root(root).text("Name", &self.service.bucket);
        self.name(&mut xml, "Prefix", self.prefix);
        self.place(&mut xml, names);
        xml.number("MaxKeys", self.most as u64);
        if !self.delimiter.is_empty() {
            self.name(&mut xml, "Delimiter", self.delimiter);
        }
        if self.encode {
            xml.text("EncodingType", "url");
        }
        xml.text("IsTruncated", if names.truncated { "true" } else { "false" });
        for item in &names.items {
            if let Item::Object { key, size, stored_at, etag } = item {
                self.object(&mut xml, key, *size, *stored_at, etag);
            }
        }
        for item in &names.items {
            if let Item::Prefix(prefix) = item {
                xml.open("CommonPrefixes");
                self.name(&mut xml, "Prefix", prefix);
                xml.close("CommonPrefixes");
            }
        }
        xml.close(root).answer()
    }

    /// Where the page begins, and where the next one does.
    fn place(&self, xml: &mut Xml, names: &Names) {
        let next = names.items.last().filter(|_| names.truncated);
        match self.form {
            Form::V1 => {
                self.name(xml, "Marker", self.ask.parameter("marker").unwrap_or_default());
                if let Some(next) = next.filter(|_| !self.delimiter.is_empty()) {
                    self.name(xml, "NextMarker", next.name());
                }
            }
            Form::V2 => {
                if let Some(token) = self.ask.parameter("continuation-token") {
                    xml.text("ContinuationToken", token);
                }
                if let Some(after) = self.ask.parameter("start-after") {
                    self.name(xml, "StartAfter", after);
                }
                if let Some(next) = next {
                    xml.text("NextContinuationToken", &token(&next.end()));
                }
                xml.number("KeyCount", names.items.len() as u64);
            }
            Form::Versions => {
                self.name(xml, "KeyMarker", self.ask.parameter("key-marker").unwrap_or_default());
                xml.text("VersionIdMarker", self.ask.parameter("version-id-marker").unwrap_or_default());
                if let Some(next) = next {
                    self.name(xml, "NextKeyMarker", next.name());
                    xml.text("NextVersionIdMarker", "null");
                }
            }
        }
    }

    fn object(&self, xml: &mut Xml, key: &str, size: u64, stored_at: Timestamp, etag: &str) {
        let versions = self.form == Form::Versions;
        let element = if versions { "Version" } else { "Contents" };
        xml.open(element);
        self.name(xml, "Key", key);
        if versions {
            // a list of keys does not tell ids: "null" stands for the one version that there is to see
            let known = self.service.view.log.first(key).and_then(|entry| entry.version.clone());
            xml.text("VersionId", known.as_deref().unwrap_or("null")).text("IsLatest", "true");
        }
        xml.text("LastModified", &stored_at.0.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string());
        xml.text("ETag", etag).number("Size", size).text("StorageClass", "STANDARD");
        if self.form != Form::V2 || self.ask.parameter("fetch-owner") == Some("true") {
            owner(xml);
        }
        xml.close(element);
    }
}

/// Everything belongs to the drill.
pub(super) fn owner(xml: &mut Xml) {
    xml.open("Owner").text("ID", "firedrill").text("DisplayName", "firedrill").close("Owner");
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_marker_that_is_a_folder_stands_for_all_of_it() {
        assert!(past("a/b/", "a/", Depth::OneLevel).as_str() > "a/b/z");
        assert_eq!(past("a/b/", "a/", Depth::All), "a/b/");
        assert_eq!(past("a/", "a/", Depth::OneLevel), "a/");
        assert_eq!(past("a/b", "a/", Depth::OneLevel), "a/b");
    }

    proptest! {
        #[test]
        fn tokens_come_back(name in ".*") {
            prop_assert_eq!(token_of(&token(&name)), Some(name));
        }
        #[test]
        fn no_token_makes_it_panic(text in "[ -~]{0,20}") {
            let _ = token_of(&text);
        }
    }
}
