//! Pseudonyms for what findings and events name, each told to the annex.

use super::Services;
use crate::domain::Pseudonym;

/// For an object's key.
pub(super) fn object_name(services: &Services<'_>, key: &str) -> Pseudonym {
    let name = services.pseudonyms.object(key);
    (services.names)(&name, key.as_bytes());
    name
}

/// For a path of the restored tree.
pub(super) fn path_name(services: &Services<'_>, path: &[u8]) -> Pseudonym {
    let name = services.pseudonyms.path(path);
    (services.names)(&name, path);
    name
}

/// For a record in a file of the restored tree.
pub(super) fn record_name(services: &Services<'_>, record: &[u8]) -> Pseudonym {
    let name = services.pseudonyms.record(record);
    (services.names)(&name, record);
    name
}

/// For what a program printed, of which the end is kept: for the annex alone.
pub(super) fn output_name(services: &Services<'_>, output: &[u8]) -> Pseudonym {
    const KEPT: usize = 64 << 10;
    let words = &output[output.len().saturating_sub(KEPT)..];
    let name = services.pseudonyms.output(words);
    (services.names)(&name, words);
    name
}

/// Names for checks.
pub(super) struct OfChecks<'a>(pub(super) &'a Services<'a>);

impl crate::checks::Names for OfChecks<'_> {
    fn name(&self, name: &str) -> Pseudonym {
        let pseudonym = self.0.pseudonyms.name(name);
        (self.0.names)(&pseudonym, name.as_bytes());
        pseudonym
    }
    fn value(&self, value: &str) -> Pseudonym {
        let pseudonym = self.0.pseudonyms.value(value);
        (self.0.names)(&pseudonym, value.as_bytes());
        pseudonym
    }
    fn output(&self, output: &[u8]) -> Pseudonym {
        output_name(self.0, output)
    }
    fn keyed(&self, digest: &str) -> String {
        self.0.pseudonyms.digest(digest)
    }
}

/// Where no object is to blame.
pub(super) fn nobody() -> Pseudonym {
    Pseudonym("storage".to_owned())
}
