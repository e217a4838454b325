//! What is kept of a resource while it is read: nothing but type, id, date and references, whatever its size.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use crate::domain::Timestamp;

/// What is kept of one resource.
#[derive(Debug, Default)]
pub(super) struct Resource {
    pub(super) kind: Option<String>,
    pub(super) id: Option<String>,
    pub(super) last_updated: Option<Timestamp>,
    /// Every literal reference, also of what is contained.
    pub(super) references: Vec<String>,
    /// Ids of contained resources.
    pub(super) contained: Vec<String>,
    /// The `type` of a bundle.
    pub(super) bundle: Option<String>,
    /// What a bundle's entries hold, with their addresses.
    pub(super) entries: Vec<(Option<String>, Resource)>,
}

/// What a value is, by where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Document,
    Resource,
    Kind,
    Id,
    Meta,
    LastUpdated,
    Contained,
    ContainedId,
    BundleType,
    Entry,
    EntryUrl,
    EntryResource,
    Reference,
    AttachmentUrl,
    Else,
}

impl Place {
    /// What stands under `key` in an object here.
    fn under(self, key: &str) -> Place {
        match (self, key) {
            (Place::Resource, "resourceType") => Place::Kind,
            (Place::Resource, "id") => Place::Id,
            (Place::Resource, "meta") => Place::Meta,
            (Place::Resource, "contained") => Place::Contained,
            (Place::Resource, "type") => Place::BundleType,
            (Place::Resource, "entry") => Place::Entry,
            (Place::Contained, "id") => Place::ContainedId,
            (Place::Meta, "lastUpdated") => Place::LastUpdated,
            (Place::Entry, "fullUrl") => Place::EntryUrl,
            (Place::Entry, "resource") => Place::EntryResource,
            (_, "reference") => Place::Reference,
            (_, "url") => Place::AttachmentUrl,
            _ => Place::Else,
        }
    }
}

/// Reads one value into a resource.
pub(super) struct Seed<'a> {
    into: &'a mut Resource,
    place: Place,
}

impl<'a> Seed<'a> {
    /// For a whole document, which must be an object.
    pub(super) fn resource(into: &'a mut Resource) -> Self {
        Self { into, place: Place::Document }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if self.place == Place::Document {
            return deserializer.deserialize_map(Self { place: Place::Resource, ..self });
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a FHIR resource")
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        let owned = || text.to_owned();
        let into = self.into;
        match self.place {
            Place::Kind => into.kind = Some(owned()),
            Place::Id => into.id = Some(owned()),
            Place::LastUpdated => into.last_updated = text.parse::<jiff::Timestamp>().ok().map(Timestamp),
            Place::ContainedId => into.contained.push(owned()),
            Place::BundleType => into.bundle = Some(owned()),
            Place::EntryUrl => {
                if let Some(entry) = into.entries.last_mut() {
                    entry.0 = Some(owned());
                }
            }
            Place::Reference => into.references.push(owned()),
            // the one relative address that attachments have: of a document whose bytes are a resource
            Place::AttachmentUrl if text.starts_with("Binary/") => into.references.push(owned()),
            _ => {}
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Seed { into: &mut *self.into, place: self.place })?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self { into, place } = self;
        match place {
            Place::EntryResource => {
                let mut inner = Resource::default();
                while let Some(place) = map.next_key_seed(Under(Place::Resource))? {
                    map.next_value_seed(Seed { into: &mut inner, place })?;
                }
                if let Some(entry) = into.entries.last_mut() {
                    entry.1 = inner;
                }
                return Ok(());
            }
            Place::Entry => into.entries.push(Default::default()),
            _ => {}
        }
        while let Some(place) = map.next_key_seed(Under(place))? {
            map.next_value_seed(Seed { into: &mut *into, place })?;
        }
        // an entry without a resource is none of ours
        if place == Place::Entry && into.entries.last().is_some_and(|(_, resource)| resource.kind.is_none() && resource.id.is_none()) {
            into.entries.pop();
        }
        Ok(())
    }
}

/// Reads a key, as what stands under it.
struct Under(Place);

impl<'de> DeserializeSeed<'de> for Under {
    type Value = Place;
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Place, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Under {
    type Value = Place;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }
    fn visit_str<E: Error>(self, key: &str) -> Result<Place, E> {
        Ok(self.0.under(key))
    }
}
