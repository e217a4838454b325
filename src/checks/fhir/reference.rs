//! Where a literal reference points, by its text (FHIR R4, 2.3.0).

/// Where a reference points.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    /// The resource that it stands in.
    Itself,
    /// A resource contained in the one that it stands in.
    Contained(&'a str),
    /// A resource of the store.
    Store {
        /// Its type.
        kind: &'a str,
        /// Its id.
        id: &'a str,
    },
    /// A resource of another server.
    Elsewhere,
    /// Nowhere that could be found.
    Nowhere,
}

/// Tells where `reference` points; `bases` are the store's own addresses.
pub(super) fn target<'a>(reference: &'a str, bases: &[String]) -> Target<'a> {
    if let Some(id) = reference.strip_prefix('#') {
        return if id.is_empty() { Target::Itself } else { Target::Contained(id) };
    }
    let own = bases.iter().find_map(|base| reference.strip_prefix(base.as_str())?.strip_prefix('/'));
    if own.is_none() && (reference.starts_with("http://") || reference.starts_with("https://")) {
        return Target::Elsewhere;
    }
    let path = own.unwrap_or(reference);
    let path = path.split_once('#').map_or(path, |(path, _)| path);
    let mut parts = path.split('/');
    match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(kind), Some(id), None, None, None) if is_type(kind) && is_id(id) => Target::Store { kind, id },
        // an export holds one version of each: that the resource is there is what can be asked
        (Some(kind), Some(id), Some("_history"), Some(version), None) if is_type(kind) && is_id(id) && is_id(version) => {
            Target::Store { kind, id }
        }
        _ => Target::Nowhere,
    }
}

/// Whether this can be a resource type's name.
pub(super) fn is_type(word: &str) -> bool {
    (2..=64).contains(&word.len()) && word.starts_with(|c: char| c.is_ascii_uppercase()) && word.bytes().all(|b| b.is_ascii_alphabetic())
}

/// Whether this can be a resource's id.
pub(super) fn is_id(word: &str) -> bool {
    (1..=64).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_point_where_the_standard_says() {
        let bases = ["https://ehr.example.org/fhir".to_owned()];
        let store = Target::Store { kind: "Patient", id: "1-a.b" };
        for text in [
            "Patient/1-a.b",
            "Patient/1-a.b/_history/7",
            "https://ehr.example.org/fhir/Patient/1-a.b",
            "https://ehr.example.org/fhir/Patient/1-a.b/_history/7",
            "Patient/1-a.b#name",
        ] {
            assert_eq!(target(text, &bases), store, "{text}");
        }
        assert_eq!(target("#", &bases), Target::Itself);
        assert_eq!(target("#x", &bases), Target::Contained("x"));
        // the address of another server may begin like ours
        assert_eq!(target("https://ehr.example.org/fhir2/Patient/1", &bases), Target::Elsewhere);
        for text in ["", "1", "patient/1", "Patient/", "Patient/a b", "Patient/1/x/2", "Patient?identifier=1", "urn:uuid:1", "mailto:x"] {
            assert_eq!(target(text, &bases), Target::Nowhere, "{text}");
        }
    }
}
