//! Holds a parsed document against a JSON Schema, collecting every mistake with its place.
//!
//! Understands as much of JSON Schema as `schemars` writes for our wire structs; a test holds the two together.

use std::ops::Range;

use serde_json::Value;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::mistakes::Collector;
use crate::domain::nearest;

/// Checks the document's structure: unknown keys, missing keys, types, fixed words. What comes back would make it sound.
pub(super) fn check(schema: &Value, document: &Spanned<DeTable<'_>>, mistakes: &mut Collector) -> Vec<Repair> {
    let mut walker = Walker { root: schema, repairs: Vec::new() };
    walker.table(schema, document.get_ref(), document.span(), &Place::default(), mistakes);
    walker.repairs
}

/// What would make one wrong place structurally sound, so that the rest of the file can be read for more mistakes.
#[derive(Debug)]
pub(super) struct Repair {
    /// The dotted path, as `check.2.expect`.
    pub(super) at: String,
    /// What to put there; nothing takes it out.
    stand_in: Option<toml::Value>,
}

impl Repair {
    /// Whether a mistake at `path` is only about what this repair put there.
    pub(super) fn covers(&self, path: &str) -> bool {
        path.strip_prefix(&self.at).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    /// Carries it out.
    pub(super) fn apply(&self, document: &mut toml::Table) {
        let (parent, last) = self.at.rsplit_once('.').unwrap_or(("", &self.at));
        let Some(table) = enter(document, parent) else { return };
        match (table, &self.stand_in) {
            (Inner::Table(table), Some(value)) => drop(table.insert(last.to_owned(), value.clone())),
            (Inner::Table(table), None) => drop(table.remove(last)),
            (Inner::Array(items), Some(value)) => {
                if let Some(item) = last.parse::<usize>().ok().and_then(|i| items.get_mut(i)) {
                    *item = value.clone();
                }
            }
            (Inner::Array(_), None) => {}
        }
    }
}

enum Inner<'t> {
    Table(&'t mut toml::Table),
    Array(&'t mut Vec<toml::Value>),
}

fn enter<'t>(document: &'t mut toml::Table, path: &str) -> Option<Inner<'t>> {
    let mut inner = Inner::Table(document);
    for part in path.split('.').filter(|p| !p.is_empty()) {
        let value = match inner {
            Inner::Table(table) => table.get_mut(part)?,
            Inner::Array(items) => items.get_mut(part.parse::<usize>().ok()?)?,
        };
        inner = match value {
            toml::Value::Table(table) => Inner::Table(table),
            toml::Value::Array(items) => Inner::Array(items),
            _ => return None,
        };
    }
    Some(inner)
}

/// Where the walk is: the last key, for people, and the whole path.
#[derive(Debug, Clone, Default)]
struct Place {
    key: String,
    path: String,
}

impl Place {
    fn below(&self, key: &str) -> Self {
        Self { key: key.to_owned(), ..self.item(key) }
    }
    /// An item of a list goes by the list's name.
    fn item(&self, part: &str) -> Self {
        let path = if self.path.is_empty() { part.to_owned() } else { format!("{}.{part}", self.path) };
        Self { key: self.key.clone(), path }
    }
}

/// Where the value at `path` stands (`check.2.expect`), or the nearest enclosing value that exists.
pub(super) fn span_of(document: &Spanned<DeTable<'_>>, path: &str) -> Range<usize> {
    let mut span = 0..0;
    let mut table = Some(document.get_ref());
    let mut array = None;
    for part in path.split('.') {
        let next: Option<&Spanned<DeValue<'_>>> = match (table, array) {
            (Some(t), _) => DeTable::get(t, part),
            (None, Some(a)) => part.parse::<usize>().ok().and_then(|i| DeValue::get(a, i)),
            (None, None) => None,
        };
        let Some(next) = next else { break };
        span = next.span();
        table = next.get_ref().as_table();
        array = next.get_ref().as_array().map(|_| next.get_ref());
    }
    // an array of tables spans far: its first line says enough
    span
}

struct Walker<'a> {
    root: &'a Value,
    repairs: Vec<Repair>,
}

impl<'a> Walker<'a> {
    /// Follows references and takes the not-null side of an optional value.
    fn resolve(&self, schema: &'a Value) -> &'a Value {
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let found = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
            return self.resolve(found.expect("schemars defines what it refers to"));
        }
        if let Some(some) = schema.get("anyOf").and_then(Value::as_array).and_then(|all| all.iter().find(|s| s["type"] != "null")) {
            return self.resolve(some);
        }
        schema
    }

    /// Likewise; of a value that may be a word or a table, the table where one stands there.
    fn resolve_for(&self, schema: &'a Value, value: &DeValue<'_>) -> &'a Value {
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let found = reference.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
            return found.map_or(schema, |found| self.resolve_for(found, value));
        }
        let kinds = schema.get("anyOf").and_then(Value::as_array).into_iter().flatten().filter(|kind| kind["type"] != "null");
        let mut kinds = kinds.map(|kind| self.resolve_for(kind, value));
        let table = kinds.clone().find(|kind| value.is_table() && type_of(kind) == "object");
        table.or_else(|| kinds.next()).unwrap_or(schema)
    }

    fn value(&mut self, schema: &'a Value, value: &Spanned<DeValue<'_>>, place: &Place, required: bool, mistakes: &mut Collector) {
        let schema = self.resolve_for(schema, value.get_ref());
        let key = place.key.as_str();
        let before = mistakes.len();
        let wanted = |mistakes: &mut Collector, what: &str| {
            mistakes.add(value.span(), format!("`{key}` must be {what}, not {}", article(value.get_ref().type_str())), description(schema));
        };
        if let Some(words) = fixed_words(schema) {
            match value.get_ref().as_str() {
                Some(text) if words.iter().any(|word| word == text) => {}
                Some(text) => {
                    mistakes.add(value.span(), format!("`{key}` cannot be \"{text}\""), Some(format!("use one of {}", quoted(&words))));
                }
                None => wanted(mistakes, &format!("one of {}", quoted(&words))),
            }
            self.mend(schema, place, required, mistakes.len() > before);
            return;
        }
        if let DeValue::Table(table) = value.get_ref()
            && (schema.get("oneOf").is_some() || type_of(schema) == "object")
        {
            self.table(schema, table, value.span(), place, mistakes);
            return;
        }
        match (type_of(schema), value.get_ref()) {
            ("array", DeValue::Array(items)) => {
                for (number, item) in items.iter().enumerate() {
                    if let Some(item_schema) = schema.get("items") {
                        self.value(item_schema, item, &place.item(&number.to_string()), true, mistakes);
                    }
                }
                return;
            }
            ("string", DeValue::String(_)) | ("boolean", DeValue::Boolean(_)) | ("number", DeValue::Integer(_) | DeValue::Float(_)) => {}
            ("integer", DeValue::Integer(number)) => {
                let minimum = schema.get("minimum").and_then(Value::as_i64);
                let parsed = i64::from_str_radix(&number.as_str().replace('_', ""), number.radix()).ok();
                if parsed.is_none_or(|n| minimum.is_some_and(|m| n < m)) {
                    mistakes.add(
                        value.span(),
                        format!("`{key}` is out of range"),
                        minimum.map(|m| format!("use a whole number of at least {m}")),
                    );
                }
            }
            ("object", _) => wanted(mistakes, "a table"),
            ("", _) if schema.get("oneOf").is_some() => wanted(mistakes, "a table"),
            ("array", _) => wanted(mistakes, "a list"),
            ("string", _) => wanted(mistakes, "a string in quotes"),
            ("boolean", _) => wanted(mistakes, "true or false"),
            ("integer", _) => wanted(mistakes, "a whole number"),
            ("number", _) => wanted(mistakes, "a number"),
            _ => {}
        }
        self.mend(schema, place, required, mistakes.len() > before);
    }

    /// Notes what would make a wrong value sound: nothing at all, or a stand-in where something must be.
    fn mend(&mut self, schema: &'a Value, place: &Place, required: bool, wrong: bool) {
        if wrong {
            let stand_in = if required { self.stand_in(schema, &place.key) } else { None };
            self.repairs.push(Repair { at: place.path.clone(), stand_in });
        }
    }

    /// Any value of this schema.
    fn stand_in(&self, schema: &'a Value, key: &str) -> Option<toml::Value> {
        let schema = self.resolve(schema);
        if let Some(words) = fixed_words(schema) {
            return words.into_iter().next().map(toml::Value::String);
        }
        if let Some(word) = schema.get("const").and_then(Value::as_str) {
            return Some(toml::Value::String(word.to_owned()));
        }
        if let Some(variant) = schema.get("oneOf").and_then(Value::as_array).and_then(|v| v.first()) {
            return self.stand_in(variant, key);
        }
        Some(match type_of(schema) {
            "object" => {
                let names = schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str);
                let filled = names.filter_map(|name| Some((name.to_owned(), self.stand_in(&schema["properties"][name], name)?)));
                toml::Value::Table(filled.collect())
            }
            "array" => toml::Value::Array(Vec::new()),
            "boolean" => toml::Value::Boolean(false),
            "integer" | "number" => toml::Value::Integer(1),
            _ => toml::Value::String(key.to_owned()),
        })
    }

    fn table(&mut self, schema: &'a Value, table: &DeTable<'_>, span: Range<usize>, place: &Place, mistakes: &mut Collector) {
        let name = place.key.as_str();
        let Some(schema) = self.variant(schema, table, &span, place, mistakes) else { return };
        let properties = schema.get("properties").and_then(Value::as_object);
        // a table of the user's own keys says what their values are
        let any = schema.get("additionalProperties").filter(|s| s.is_object());
        let known = |word: &str| properties.and_then(|p| p.get(word)).or(any);
        let required: Vec<&str> =
            schema.get("required").and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
        for (key, value) in table.iter() {
            let word = key.get_ref().as_ref();
            match known(word) {
                Some(property) => self.value(property, value, &place.below(word), required.contains(&word), mistakes),
                None => {
                    self.repairs.push(Repair { at: place.below(word).path, stand_in: None });
                    let known: Vec<&str> = properties.into_iter().flat_map(|p| p.keys()).map(String::as_str).collect();
                    let advice = match nearest(word, &known) {
                        Some(near) => format!("did you mean `{near}`?"),
                        None => format!("known keys here: {}", known.join(", ")),
                    };
                    mistakes.add(key.span(), format!("unknown key `{word}`{}", inside(name)), Some(advice));
                }
            }
        }
        for word in required {
            if !table.contains_key(word) {
                let property = known(word);
                let advice = property.and_then(|p| description(self.resolve(p)).or_else(|| description(p)));
                // the first line of the table is where the key belongs
                mistakes.add(span.start..span.start, format!("`{word}` is missing{}", inside(name)), advice);
                let stand_in = property.and_then(|p| self.stand_in(p, word));
                self.repairs.push(Repair { at: place.below(word).path, stand_in });
            }
        }
    }

    /// For a table of several kinds, the schema of the kind that it says it is.
    fn variant(
        &mut self,
        schema: &'a Value,
        table: &DeTable<'_>,
        span: &Range<usize>,
        place: &Place,
        mistakes: &mut Collector,
    ) -> Option<&'a Value> {
        let name = place.key.as_str();
        let Some(variants) = schema.get("oneOf").and_then(Value::as_array) else { return Some(schema) };
        let tag_of = |variant: &'a Value| -> Option<(&'a str, &'a str)> {
            self.resolve(variant)["properties"]
                .as_object()?
                .iter()
                .find_map(|(key, p)| p["const"].as_str().map(|word| (key.as_str(), word)))
        };
        let (tag, _) = variants.iter().find_map(tag_of).expect("a table of several kinds has a key that tells them apart");
        let words: Vec<String> = variants.iter().filter_map(tag_of).map(|(_, word)| word.to_owned()).collect();
        let Some(value) = table.get(tag) else {
            mistakes.add(
                span.start..span.start,
                format!("`{tag}` is missing{}", inside(name)),
                Some(format!("use one of {}", quoted(&words))),
            );
            return None;
        };
        let found = variants.iter().find(|v| tag_of(v).is_some_and(|(_, word)| value.get_ref().as_str() == Some(word)));
        if found.is_none() {
            mistakes.add(value.span(), format!("there is no {name} of this {tag}"), Some(format!("use one of {}", quoted(&words))));
            self.mend(schema, place, true, true);
        }
        found.map(|v| self.resolve(v))
    }
}

fn type_of(schema: &Value) -> &str {
    match &schema["type"] {
        Value::String(one) => one,
        Value::Array(several) => several.iter().filter_map(Value::as_str).find(|t| *t != "null").unwrap_or(""),
        _ => "",
    }
}

/// The words of an enum without fields.
fn fixed_words(schema: &Value) -> Option<Vec<String>> {
    let text = |v: &Value| v.as_str().map(str::to_owned);
    if let Some(words) = schema.get("enum").and_then(Value::as_array) {
        return Some(words.iter().filter_map(text).collect());
    }
    let variants = schema.get("oneOf").and_then(Value::as_array)?;
    variants.iter().map(|v| v.get("const").and_then(text)).collect()
}

fn description(schema: &Value) -> Option<String> {
    schema.get("description").and_then(Value::as_str).map(|d| d.replace('\n', " "))
}

fn inside(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" in `{name}`") }
}

fn quoted(words: &[String]) -> String {
    words.iter().map(|w| format!("\"{w}\"")).collect::<Vec<_>>().join(", ")
}

fn article(word: &str) -> String {
    if word.starts_with(['a', 'e', 'i', 'o', 'u']) { format!("an {word}") } else { format!("a {word}") }
}
