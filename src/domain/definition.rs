//! `method = "service"`: services that are described by a definition instead of by code.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use super::ServiceProblem;

/// A step that starts a service by its definition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefinedStep {
    /// What it says.
    pub definition: Definition,
    /// Whose it is, as the report says: "built in", or its digest.
    pub whose: String,
    /// What is loaded, by the definition's words for it: patterns of paths below the restored root.
    pub inputs: BTreeMap<String, String>,
    /// Values that the definition leaves open.
    pub values: BTreeMap<String, String>,
}

/// How a kind of service comes back, starts, and is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// What people call it.
    pub title: String,
    /// The server's program.
    pub program: String,
    /// Other programs that its commands use.
    pub needs: Vec<String>,
    /// Prints its version.
    pub version: Ask,
    /// Whether its server works on the restored files themselves.
    pub in_place: bool,
    /// Files that are written for it, by name.
    pub files: BTreeMap<String, Text>,
    /// Files of the host that are copied for it, by name.
    pub host_files: BTreeMap<String, String>,
    /// Environment of all its commands.
    pub env: BTreeMap<String, Text>,
    /// What is run before its start, in order.
    pub load: Vec<LoadCommand>,
    /// The server, which runs until the drill ends.
    pub start: Vec<Text>,
    /// Succeeds when the server answers.
    pub ready: Ask,
    /// Prints what only the server that was started here can know.
    pub identity: Ask,
    /// Prints a number that is more than 0 where anything was restored.
    pub rows: Ask,
    /// What a query is asked by.
    pub query: Vec<Text>,
    /// A pattern of what it prints where the restored data is why a query fails.
    pub refused: Option<String>,
    /// What its programs print, and what that means for the backup.
    pub problems: Vec<(String, ServiceProblem)>,
    /// A pattern of what its programs print where the host is to blame.
    pub cannot_run: Option<String>,
}

/// A command of a definition's load.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadCommand {
    /// Program and arguments.
    pub command: Vec<Text>,
    /// Only where the scenario has this input.
    pub with: Option<String>,
}

/// A command whose standard output is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Program and arguments.
    pub command: Vec<Text>,
    /// A pattern that must be found in it; its first group, where it has one, is the answer.
    pub stdout: Option<Text>,
}

/// A place in a definition's text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The service's own directory.
    Home,
    /// Its empty directory for data.
    Data,
    /// Its directory for sockets.
    Run,
    /// The same as the host of an address has it, with %2F for each slash.
    RunEncoded,
    /// A word that only this drill knows.
    Nonce,
    /// Process id of the server that was started.
    Pid,
    /// Processors that it may use.
    Processors,
    /// Mebibytes of memory that it may use.
    Memory,
    /// The query that is asked.
    Query,
    /// A restored file or directory.
    Input(String),
    /// A file that was written or copied for it.
    File(String),
    /// A value of the scenario.
    Value(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Home => f.write_str("{home}"),
            Place::Data => f.write_str("{data}"),
            Place::Run => f.write_str("{run}"),
            Place::RunEncoded => f.write_str("{run:encoded}"),
            Place::Nonce => f.write_str("{nonce}"),
            Place::Pid => f.write_str("{pid}"),
            Place::Processors => f.write_str("{processors}"),
            Place::Memory => f.write_str("{memory}"),
            Place::Query => f.write_str("{query}"),
            Place::Input(name) => write!(f, "{{input:{name}}}"),
            Place::File(name) => write!(f, "{{file:{name}}}"),
            Place::Value(name) => write!(f, "{{value:{name}}}"),
        }
    }
}

/// A text with places. Braces around anything else than the name of a place are text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Place(Place),
}

/// A text names a place that there is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{{{0}}}` is no place: there are home, data, run, run:encoded, nonce, pid, processors, memory, query, input:NAME, file:NAME and value:NAME"
)]
pub struct NoPlace(String);

impl FromStr for Text {
    type Err = NoPlace;
    fn from_str(text: &str) -> Result<Self, NoPlace> {
        let (mut pieces, mut literal, mut rest) = (Vec::new(), String::new(), text);
        while let Some(open) = rest.find('{') {
            let (before, from) = rest.split_at(open);
            literal.push_str(before);
            // only `{word}` and `{word:NAME}` are meant as places: patterns and scripts have braces of their own
            let inside = from.get(1..).and_then(|t| t.split_once('}')).map(|(inside, _)| inside).unwrap_or_default();
            let (kind, name) = inside.split_once(':').map_or((inside, None), |(kind, name)| (kind, Some(name)));
            let is_word = |word: &str| word.bytes().all(|b| b.is_ascii_lowercase());
            let is_name = |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
            if kind.is_empty() || !is_word(kind) || name.is_some_and(|name| !is_name(name)) || before.ends_with('$') {
                literal.push('{');
                rest = from.get(1..).unwrap_or_default();
                continue;
            }
            let place = match (kind, name) {
                ("home", None) => Place::Home,
                ("data", None) => Place::Data,
                ("run", None) => Place::Run,
                ("run", Some("encoded")) => Place::RunEncoded,
                ("nonce", None) => Place::Nonce,
                ("pid", None) => Place::Pid,
                ("processors", None) => Place::Processors,
                ("memory", None) => Place::Memory,
                ("query", None) => Place::Query,
                ("input", Some(name)) => Place::Input(name.to_owned()),
                ("file", Some(name)) => Place::File(name.to_owned()),
                ("value", Some(name)) => Place::Value(name.to_owned()),
                _ => return Err(NoPlace(inside.to_owned())),
            };
            pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            pieces.push(Piece::Place(place));
            rest = from.get(inside.len() + 2..).unwrap_or_default();
        }
        literal.push_str(rest);
        pieces.push(Piece::Literal(literal));
        Ok(Text(pieces))
    }
}

impl Text {
    /// Its places.
    pub fn places(&self) -> impl Iterator<Item = &Place> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Place(place) => Some(place),
            Piece::Literal(_) => None,
        })
    }

    /// The text with every place filled.
    ///
    /// # Errors
    /// The first place that nothing fills.
    pub fn fill(&self, with: &dyn Fn(&Place) -> Option<String>) -> Result<String, Place> {
        let mut filled = String::new();
        for piece in &self.0 {
            match piece {
                Piece::Literal(text) => filled.push_str(text),
                Piece::Place(place) => filled.push_str(&with(place).ok_or_else(|| place.clone())?),
            }
        }
        Ok(filled)
    }
}

impl Definition {
    /// Every text of it that is filled.
    pub fn texts(&self) -> impl Iterator<Item = &Text> {
        let asks = [&self.version, &self.ready, &self.identity, &self.rows];
        let asked = asks.into_iter().flat_map(|ask| ask.command.iter().chain(&ask.stdout));
        let loads = self.load.iter().flat_map(|load| &load.command);
        let written = self.files.values().chain(self.env.values());
        asked.chain(loads).chain(written).chain(&self.start).chain(&self.query)
    }

    /// The words that it has for what is loaded.
    pub fn inputs(&self) -> BTreeSet<&str> {
        let named = self.texts().flat_map(Text::places).filter_map(|place| if let Place::Input(name) = place { Some(name) } else { None });
        named.chain(self.load.iter().filter_map(|load| load.with.as_ref())).map(String::as_str).collect()
    }

    /// The values that it leaves open.
    pub fn values(&self) -> BTreeSet<&str> {
        let named = self.texts().flat_map(Text::places);
        named.filter_map(|place| if let Place::Value(name) = place { Some(name.as_str()) } else { None }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_filled_and_other_braces_are_text() {
        let text: Text = "awk '{print $1}' {input:rdb} ${HOME} a{2,3} {data}/x{} {value:suffix}".parse().unwrap();
        let filled = text.fill(&|place| Some(format!("<{place}>"))).unwrap();
        assert_eq!(filled, "awk '{print $1}' <{input:rdb}> ${HOME} a{2,3} <{data}>/x{} <{value:suffix}>");
        assert_eq!(text.fill(&|_| None), Err(Place::Input("rdb".to_owned())));
        assert!("{socket}".parse::<Text>().is_err() && "{input}".parse::<Text>().is_err());
    }
}
