//! What PostgreSQL says, told apart by SQLSTATE (PostgreSQL documentation, Appendix A) without showing its text.

use std::collections::BTreeMap;

use crate::domain::ServiceProblem;

/// Begins each line of the server's log: the SQLSTATE, and what no message begins with.
pub(super) const LOG_PREFIX: &str = "%e|";

/// One error in the server's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LoggedError {
    pub(super) state: String,
    pub(super) text: String,
}

/// Errors of a log that was written with [`LOG_PREFIX`].
pub(super) fn errors(log: &[u8]) -> Vec<LoggedError> {
    let text = String::from_utf8_lossy(log);
    let found = text.lines().filter_map(|line| {
        let (state, rest) = line.split_once('|')?;
        let is_state = state.len() == 5 && state.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase());
        let text = ["ERROR:", "FATAL:", "PANIC:"].iter().find_map(|word| rest.strip_prefix(word))?;
        is_state.then(|| LoggedError { state: state.to_owned(), text: text.trim().to_owned() })
    });
    found.collect()
}

/// The SQLSTATE in what a client says with `VERBOSITY=verbose`.
pub(super) fn state_of(stderr: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(stderr);
    text.lines().find_map(|line| {
        let rest = ["ERROR:  ", "FATAL:  ", "PANIC:  "].iter().find_map(|word| line.split_once(word).map(|(_, rest)| rest))?;
        let state = rest.get(..5)?;
        (rest.as_bytes().get(5) == Some(&b':') && state.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase()))
            .then(|| state.to_owned())
    })
}

/// The standard's name of a condition, or its code.
pub(super) fn condition(state: &str) -> String {
    let name = match state {
        "0A000" => "feature_not_supported",
        "22021" => "character_not_in_repertoire",
        "22P02" => "invalid_text_representation",
        "22P04" => "bad_copy_file_format",
        "23502" => "not_null_violation",
        "23503" => "foreign_key_violation",
        "23505" => "unique_violation",
        "23514" => "check_violation",
        "3D000" => "invalid_catalog_name",
        "3F000" => "invalid_schema_name",
        "42501" => "insufficient_privilege",
        "42601" => "syntax_error",
        "42703" => "undefined_column",
        "42704" => "undefined_object",
        "42710" => "duplicate_object",
        "42883" => "undefined_function",
        "42P01" => "undefined_table",
        "42P06" => "duplicate_schema",
        "42P07" => "duplicate_table",
        "53100" => "disk_full",
        "53200" => "out_of_memory",
        "57P03" => "cannot_connect_now",
        "58P01" => "undefined_file",
        "XX000" => "internal_error",
        "XX001" => "data_corrupted",
        "XX002" => "index_corrupted",
        other => return other.to_owned(),
    };
    name.to_owned()
}

/// How many of which, as `undefined_object 3, duplicate_table 1`.
pub(super) fn tally(errors: &[&LoggedError]) -> String {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    for error in errors {
        *counts.entry(condition(&error.state)).or_default() += 1;
    }
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    counts.iter().map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", ")
}

/// What an error while loading means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// Every fresh cluster says it, and it says nothing.
    Nothing,
    /// This host lacks something that the backup may rightly ask for.
    Host(&'static str),
    /// Scratch ran out.
    Full,
    /// The backup lacks something.
    Backup(ServiceProblem),
}

/// What an error says while a dump is loaded by `user`.
pub(super) fn meaning(error: &LoggedError, user: &str, newer_client: bool) -> Meaning {
    use ServiceProblem as P;
    let text = &error.text;
    match error.state.as_str() {
        "42710" if *text == format!("role \"{user}\" already exists") => Meaning::Nothing,
        "42P06" if text == "schema \"public\" already exists" => Meaning::Nothing,
        "53100" => Meaning::Full,
        "0A000" | "58P01"
            if text.starts_with("extension ") || text.contains("extension control file") || text.contains("could not access file") =>
        {
            Meaning::Host("an extension that the backup names is not installed here: install the package that brings it")
        }
        "42809" | "22023" if text.contains("locale") => {
            Meaning::Host("a locale that the backup names is not installed here: generate it on this host (locale-gen)")
        }
        "42704" if text.contains("role \"") => Meaning::Backup(P::RolesMissing),
        "42704" if text.contains("tablespace \"") => Meaning::Backup(P::TablespacesMissing),
        "42704" if text.contains("configuration parameter") && newer_client => Meaning::Backup(P::NewerClient),
        "42704" if text.contains("type \"") || text.contains("operator class") => Meaning::Backup(P::ExtensionsMissing),
        "42883" => Meaning::Backup(P::ExtensionsMissing),
        "42601" if newer_client => Meaning::Backup(P::NewerClient),
        _ => Meaning::Backup(P::LoadRefused),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_counted_by_their_condition_and_never_shown() {
        let log = b"42704|ERROR:  role \"jane\" does not exist\n00000|LOG:  checkpoint\n42704|ERROR:  role \"doe\" does not exist\n\
            42P01|ERROR:  relation \"x\" does not exist\nplain text\n";
        let found = errors(log);
        assert_eq!(tally(&found.iter().collect::<Vec<_>>()), "undefined_object 2, undefined_table 1");
        assert_eq!(meaning(&found[0], "postgres", false), Meaning::Backup(ServiceProblem::RolesMissing));
    }

    #[test]
    fn what_every_fresh_cluster_says_is_nothing() {
        let one = |state: &str, text: &str| LoggedError { state: state.to_owned(), text: text.to_owned() };
        assert_eq!(meaning(&one("42710", "role \"postgres\" already exists"), "postgres", false), Meaning::Nothing);
        assert!(matches!(meaning(&one("42710", "role \"app\" already exists"), "postgres", false), Meaning::Backup(_)));
        assert!(matches!(meaning(&one("0A000", "extension \"postgis\" is not available"), "postgres", false), Meaning::Host(_)));
    }

    #[test]
    fn a_client_says_its_state() {
        assert_eq!(state_of(b"ERROR:  42P01: relation \"x\" does not exist\nLINE 1: ...").as_deref(), Some("42P01"));
        assert_eq!(state_of(b"psql: error: connection to server failed"), None);
    }
}
