//! Texts with places to fill in, as a tool step's command line and settings have them.

use std::fmt;
use std::str::FromStr;

use super::nearest;

/// What a place is filled with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Placeholder {
    /// `{endpoint}`: URL of the gateway, plain http.
    Endpoint,
    /// `{endpoint_tls}`: the same over TLS, under the name that its certificate bears.
    EndpointTls,
    /// `{host}`: that name.
    Host,
    /// `{port}`: the gateway's port, for both.
    Port,
    /// `{bucket}`
    Bucket,
    /// `{prefix}`, without a slash at either end.
    Prefix,
    /// `{region}`
    Region,
    /// `{access_key}`: throw-away, good for the gateway alone.
    AccessKey,
    /// `{secret_key}`: its secret.
    SecretKey,
    /// `{ca_file}`: PEM file of the gateway's certificate authority.
    CaFile,
    /// `{target}`: the directory to restore into.
    Target,
    /// `{repository}`: the mirrored prefix.
    Repository,
    /// `{object}`: path of the selected object in the mirror.
    Object,
    /// `{object_key}`: its full key.
    ObjectKey,
    /// `{snapshot}`: id of the selected recovery point.
    Snapshot,
    /// `{home}`: a writable directory of the tool's own.
    Home,
    /// `{secret:NAME}`: a secret itself.
    Secret(String),
    /// `{secret_file:NAME}`: path of a file that holds it.
    SecretFile(String),
    /// `{file:NAME}`: path of a file made for the tool.
    File(String),
}

impl Placeholder {
    /// All without a name, with what they are written as.
    pub const PLAIN: [(&'static str, Placeholder); 16] = [
        ("endpoint", Placeholder::Endpoint),
        ("endpoint_tls", Placeholder::EndpointTls),
        ("host", Placeholder::Host),
        ("port", Placeholder::Port),
        ("bucket", Placeholder::Bucket),
        ("prefix", Placeholder::Prefix),
        ("region", Placeholder::Region),
        ("access_key", Placeholder::AccessKey),
        ("secret_key", Placeholder::SecretKey),
        ("ca_file", Placeholder::CaFile),
        ("target", Placeholder::Target),
        ("repository", Placeholder::Repository),
        ("object", Placeholder::Object),
        ("object_key", Placeholder::ObjectKey),
        ("snapshot", Placeholder::Snapshot),
        ("home", Placeholder::Home),
    ];

    /// Whether it is filled with a secret, which a command line would show to every process.
    pub fn is_secret(&self) -> bool {
        matches!(self, Placeholder::Secret(_) | Placeholder::SecretKey)
    }

    /// Whether only the gateway can fill it.
    pub fn needs_gateway(&self) -> bool {
        use Placeholder as P;
        matches!(self, P::Endpoint | P::EndpointTls | P::Host | P::Port | P::Region | P::AccessKey | P::SecretKey | P::CaFile)
    }
}

impl fmt::Display for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Placeholder::Secret(name) => write!(f, "{{secret:{name}}}"),
            Placeholder::SecretFile(name) => write!(f, "{{secret_file:{name}}}"),
            Placeholder::File(name) => write!(f, "{{file:{name}}}"),
            plain => {
                let word = Self::PLAIN.iter().find(|(_, p)| p == plain).map_or("", |(word, _)| word);
                write!(f, "{{{word}}}")
            }
        }
    }
}

/// A text with places. A place is `{word}` or `{word:NAME}` with a word that is known; all other braces are text, `${word}` too, so
/// that JSON, shell and awk need no escapes. What looks like a misspelt place is a mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Place(Placeholder),
}

/// There is no such place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("nothing is known to fill `{{{place}}}` with; did you mean `{{{near}}}`?")]
pub struct TemplateError {
    place: String,
    near: String,
}

impl FromStr for Template {
    type Err = TemplateError;
    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(open) = rest.find('{') {
            let (before, after) = (&rest[..open], &rest[open + 1..]);
            let word = after.split_once('}').map(|(word, _)| word).filter(|word| is_place(word));
            match word {
                Some(word) if !before.ends_with('$') => {
                    plain.push_str(before);
                    rest = &after[word.len() + 1..];
                    match placeholder(word)? {
                        Some(place) => {
                            if !plain.is_empty() {
                                parts.push(Part::Text(std::mem::take(&mut plain)));
                            }
                            parts.push(Part::Place(place));
                        }
                        None => plain.push_str(&format!("{{{word}}}")),
                    }
                }
                _ => {
                    plain.push_str(&rest[..=open]);
                    rest = after;
                }
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        Ok(Self(parts))
    }
}

fn is_place(word: &str) -> bool {
    let (name, argument) = word.split_once(':').unwrap_or((word, "x"));
    let lower = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    lower && !argument.is_empty() && argument.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
}

/// What `{word}` is filled with; nothing where it is text.
fn placeholder(word: &str) -> Result<Option<Placeholder>, TemplateError> {
    let found = match word.split_once(':') {
        Some(("secret", name)) => Some(Placeholder::Secret(name.to_owned())),
        Some(("secret_file", name)) => Some(Placeholder::SecretFile(name.to_owned())),
        Some(("file", name)) => Some(Placeholder::File(name.to_owned())),
        Some(_) => None,
        None => Placeholder::PLAIN.into_iter().find(|(known, _)| *known == word).map(|(_, place)| place),
    };
    if found.is_some() {
        return Ok(found);
    }
    let near = match word.split_once(':') {
        Some((kind, name)) => nearest(kind, &["secret", "secret_file", "file"]).map(|kind| format!("{kind}:{name}")),
        None => nearest(word, &Placeholder::PLAIN.map(|(known, _)| known)).map(str::to_owned),
    };
    match near {
        Some(near) => Err(TemplateError { place: word.to_owned(), near }),
        None => Ok(None),
    }
}

impl Template {
    /// Its places, in order.
    pub fn places(&self) -> impl Iterator<Item = &Placeholder> {
        self.0.iter().filter_map(|part| match part {
            Part::Place(place) => Some(place),
            Part::Text(_) => None,
        })
    }

    /// The text with every place filled; `None` where `fill` has nothing for one.
    pub fn fill(&self, fill: &dyn Fn(&Placeholder) -> Option<String>) -> Option<String> {
        self.0
            .iter()
            .map(|part| match part {
                Part::Text(text) => Some(text.clone()),
                Part::Place(place) => fill(place),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn filled(text: &str) -> String {
        text.parse::<Template>().unwrap().fill(&|place| Some(format!("<{place}>"))).unwrap()
    }

    #[test]
    fn places_are_filled_and_everything_else_is_text() {
        assert_eq!(filled("s3:{endpoint}/{bucket}/{prefix}"), "s3:<{endpoint}>/<{bucket}>/<{prefix}>");
        assert_eq!(filled("{secret_file:db.key}"), "<{secret_file:db.key}>");
        for text in [
            r#"{"a": {"b": 1}}"#,
            "${home} ${HOME}",
            "{",
            "}{",
            "{}",
            "{ endpoint }",
            "awk '{print $1}'",
            "{A}",
            "{x:}",
            "{{",
            "{print}",
            "{next} {x:0}",
        ] {
            assert_eq!(filled(text), text);
        }
        assert_eq!(filled("{{home}}"), "{<{home}>}");
    }

    #[test]
    fn misspelt_places_are_refused_with_what_was_meant() {
        for (text, meant) in
            [("{endpiont}", "{endpoint}"), ("{prefx}", "{prefix}"), ("{secrets:x}", "{secret:x}"), ("{snapshots}", "{snapshot}")]
        {
            let error = text.parse::<Template>().unwrap_err().to_string();
            assert!(error.contains(meant), "{error}");
        }
    }

    #[test]
    fn a_place_that_cannot_be_filled_leaves_no_half_text() {
        let template: Template = "a{snapshot}b".parse().unwrap();
        assert_eq!(template.fill(&|_| None), None);
        assert_eq!(template.places().collect::<Vec<_>>(), [&Placeholder::Snapshot]);
    }

    proptest! {
        #[test]
        fn text_without_places_comes_back(text in "[^{]*") {
            prop_assert_eq!(filled(&text), text);
        }
        #[test]
        fn reading_never_panics(text in "[{}$a-z_:.A-Z]{0,24}") {
            let _ = text.parse::<Template>();
        }
    }
}
