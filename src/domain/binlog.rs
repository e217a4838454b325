//! MariaDB's binary logs: places in them, transactions, and how far they are applied.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// A transaction's global id, as MariaDB writes it: `0-7-120`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Gtid {
    /// Its domain: transactions of one domain are in one order.
    pub domain: u32,
    /// The server that committed it first.
    pub server: u32,
    /// Its number in the domain.
    pub sequence: u64,
}

/// A place in the binary logs: a log's number, and bytes from its beginning; as `bin.000003:1234`.
///
/// What stands before the number is the site's own name, and neither kept nor shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BinlogPosition {
    /// The log's number, which its name ends with.
    pub log: u64,
    /// Bytes from its beginning.
    pub at: u64,
}

/// What is no place and no transaction of the binary logs.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BinlogError {
    /// No GTID.
    #[error("`{0}` is no GTID of MariaDB: write domain, server and sequence, as \"0-7-120\"")]
    Gtid(String),
    /// No place.
    #[error("`{0}` is no place in the binary logs: write the log's name and the position, as \"bin.000003:1234\"")]
    Position(String),
}

impl FromStr for Gtid {
    type Err = BinlogError;
    fn from_str(text: &str) -> Result<Self, BinlogError> {
        let parsed = || {
            let (domain, rest) = text.split_once('-')?;
            let (server, sequence) = rest.split_once('-')?;
            Some(Self { domain: number(domain)?, server: number(server)?, sequence: number(sequence)? })
        };
        parsed().ok_or_else(|| BinlogError::Gtid(text.to_owned()))
    }
}

impl FromStr for BinlogPosition {
    type Err = BinlogError;
    fn from_str(text: &str) -> Result<Self, BinlogError> {
        let place = || {
            let (name, at) = text.rsplit_once(':')?;
            Some(Self { log: Self::number_of(name)?, at: number(at)? })
        };
        place().ok_or_else(|| BinlogError::Position(text.to_owned()))
    }
}

impl BinlogPosition {
    /// The number of the log of this name.
    pub fn number_of(name: &str) -> Option<u64> {
        number(name.rsplit('.').next()?)
    }
}

/// Digits alone: no sign.
fn number<N: FromStr>(text: &str) -> Option<N> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.domain, self.server, self.sequence)
    }
}

impl fmt::Display for BinlogPosition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:06}:{}", self.log, self.at)
    }
}

impl TryFrom<String> for Gtid {
    type Error = BinlogError;
    fn try_from(text: String) -> Result<Self, BinlogError> {
        text.parse()
    }
}

impl TryFrom<String> for BinlogPosition {
    type Error = BinlogError;
    fn try_from(text: String) -> Result<Self, BinlogError> {
        text.parse()
    }
}

impl From<Gtid> for String {
    fn from(gtid: Gtid) -> String {
        gtid.to_string()
    }
}

impl From<BinlogPosition> for String {
    fn from(position: BinlogPosition) -> String {
        position.to_string()
    }
}

#[cfg(feature = "runner")]
impl schemars::JsonSchema for Gtid {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Gtid".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A transaction's global id, as MariaDB writes it.",
            "pattern": "^[0-9]+-[0-9]+-[0-9]+$"
        })
    }
}

#[cfg(feature = "runner")]
impl schemars::JsonSchema for BinlogPosition {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "BinlogPosition".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A place in MariaDB's binary logs: the log's number, and bytes from its beginning.",
            "pattern": "^[0-9]{6,}:[0-9]+$"
        })
    }
}

/// How far binary logs are applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BinlogTarget {
    /// To their end.
    Latest,
    /// To an instant of transactions: their logs have whole seconds.
    Time {
        /// Which.
        at: Timestamp,
        /// Whether what was committed in that very second is still wanted.
        inclusive: bool,
    },
    /// To a place: what ends there or before it is wanted.
    Position(BinlogPosition),
    /// To a transaction.
    Gtid {
        /// Which.
        at: Gtid,
        /// Whether it is itself wanted.
        inclusive: bool,
    },
}

impl BinlogTarget {
    /// As shown to people.
    pub fn words(&self) -> String {
        let before = |inclusive: &bool| if *inclusive { "" } else { "just before " };
        match self {
            BinlogTarget::Latest => "the end of the binary logs".to_owned(),
            BinlogTarget::Time { at, inclusive } => format!("{}time {at}", before(inclusive)),
            BinlogTarget::Position(position) => format!("position {position}"),
            BinlogTarget::Gtid { at, inclusive } => format!("{}GTID {at}", before(inclusive)),
        }
    }
}

/// How far binary logs were applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct BinlogFacts {
    /// What was asked for, in words.
    pub target: String,
    /// Where the backup was taken.
    pub from: BinlogPosition,
    /// End of the last transaction that was wanted.
    pub reached: BinlogPosition,
    /// That transaction, where there was one after the backup.
    pub last: Option<Gtid>,
    /// When it was committed.
    pub last_transaction: Option<Timestamp>,
    /// How many were wanted after the backup.
    pub transactions: u64,
    /// Logs that were read, event by event, before any was applied.
    pub logs_audited: u64,
    /// Up to where the logs at hand are whole.
    pub whole_until: BinlogPosition,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_and_transactions_are_read_and_shown() {
        let place: BinlogPosition = "mysql-bin.000123:4567".parse().unwrap();
        assert_eq!((place.log, place.at, place.to_string().as_str()), (123, 4567, "000123:4567"));
        assert_eq!(place.to_string().parse(), Ok(place));
        let gtid: Gtid = "0-7-120".parse().unwrap();
        assert_eq!((gtid.domain, gtid.server, gtid.sequence, gtid.to_string().as_str()), (0, 7, 120, "0-7-120"));
        for wrong in ["", "bin.000001", "bin.index:4", "bin.000001:-4", ":4", "bin.000001:"] {
            assert!(wrong.parse::<BinlogPosition>().is_err(), "{wrong}");
        }
        for wrong in ["", "0-7", "0-7-1-2", "0--7-1", "0-7-x", "0-7-1,1-7-2"] {
            assert!(wrong.parse::<Gtid>().is_err(), "{wrong}");
        }
    }
}
