//! What PostgreSQL says, told apart by SQLSTATE (PostgreSQL documentation, Appendix A) without showing its text.

use super::super::meaning::Meaning;
use crate::domain::ServiceProblem;

/// Begins each line of the server's log: the SQLSTATE, and what no message begins with.
pub(super) const LOG_PREFIX: &str = "%e|";
/// The SQLSTATE of a disk without room.
pub(super) const DISK_FULL: &str = "53100";

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
        let text = ["ERROR:", "FATAL:", "PANIC:"].iter().find_map(|word| rest.strip_prefix(word))?;
        is_state(state).then(|| LoggedError { state: state.to_owned(), text: text.trim().to_owned() })
    });
    found.collect()
}

/// An error's code, and its text, which is never shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct State {
    pub(super) code: String,
    pub(super) text: String,
}

/// The SQLSTATE in what a client says with `VERBOSITY=verbose`.
pub(super) fn state_of(stderr: &[u8]) -> Option<State> {
    let text = String::from_utf8_lossy(stderr);
    text.lines().find_map(|line| {
        let rest = ["ERROR:  ", "FATAL:  ", "PANIC:  "].iter().find_map(|word| line.split_once(word).map(|(_, rest)| rest))?;
        let (code, text) = rest.split_once(": ")?;
        is_state(code).then(|| State { code: code.to_owned(), text: text.to_owned() })
    })
}

/// Why the server did not let a client in, which tells the client a text alone: the code is beside the same text in the log.
pub(super) fn turned_away(stderr: &[u8], log: &[u8]) -> Option<State> {
    let said = String::from_utf8_lossy(stderr);
    let text = said.lines().find_map(|line| line.split_once("failed: FATAL:  ").map(|(_, text)| text.trim().to_owned()))?;
    let logged = errors(log).into_iter().rev().find(|error| error.text == text);
    Some(State { code: logged.map_or_else(|| "08004".to_owned(), |error| error.state), text })
}

/// The signal that ended a process of the server, the first that its log tells of.
pub(super) fn ended_by(log: &[u8]) -> Option<i32> {
    String::from_utf8_lossy(log).lines().find_map(|line| {
        let (_, told) = line.split_once("|LOG:  ")?;
        let (_, signal) = told.split_once(" (PID ")?.1.split_once(") was terminated by signal ")?;
        signal.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    })
}

fn is_state(code: &str) -> bool {
    code.len() == 5 && code.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_uppercase())
}

/// The standard's name of a condition, or its code.
pub(super) fn condition(state: &str) -> String {
    let name = match state {
        "08004" => "sqlserver_rejected_establishment_of_sqlconnection",
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
        DISK_FULL => "disk_full",
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

/// What extensions would bring: the names in the scripts of those that are installed here, and of some that are well known.
#[derive(Debug, Clone, Default)]
pub(super) struct Extensions {
    scripts: String,
}

/// Types of extensions that distributions package apart from the server.
const WELL_KNOWN: [&str; 5] = ["geometry", "geography", "box2d", "raster", "vector"];

impl Extensions {
    /// From the texts of their scripts.
    pub(super) fn of(scripts: &str) -> Self {
        Self { scripts: scripts.to_ascii_lowercase() }
    }

    /// Whether what an error says does not exist is an extension's: a type, a function, an operator class or a language.
    fn bring(&self, text: &str) -> bool {
        if text.starts_with("language \"") {
            return true;
        }
        // the operator itself says little; what it works on is the extension's
        if let Some(rest) = text.strip_prefix("operator does not exist: ") {
            let mut words = rest.split_whitespace().filter(|word| word.bytes().any(|b| b.is_ascii_alphabetic()));
            return words.any(|word| self.have("type", word));
        }
        let quoted = |after: &str| text.split_once(after).and_then(|(_, rest)| rest.split('"').next());
        let function = text.strip_prefix("function ").and_then(|rest| rest.split('(').next());
        let [a_type, a_class, function] =
            [("type", quoted("type \"")), ("operator class", quoted("operator class \"")), ("function", function)]
                .map(|(kind, name)| name.is_some_and(|name| self.have(kind, name)));
        a_type || a_class || function
    }

    fn have(&self, kind: &str, name: &str) -> bool {
        let name = name.rsplit('.').next().unwrap_or(name).trim_matches('"').to_ascii_lowercase();
        let made = |line: &str| {
            let words = ["create", "replace"].iter().find_map(|verb| line.split_once(&format!("{verb} {kind} ")))?.1;
            words.trim_start().trim_start_matches("@extschema@.").strip_prefix(&name).map(str::to_owned)
        };
        let ends = |after: String| !after.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        !name.is_empty() && (WELL_KNOWN.contains(&name.as_str()) || self.scripts.lines().any(|line| made(line).is_some_and(ends)))
    }
}

/// What an error says while a dump is loaded by `user`.
pub(super) fn meaning(error: &LoggedError, user: &str, newer_client: bool, extensions: &Extensions) -> Meaning {
    use ServiceProblem as P;
    let text = &error.text;
    match error.state.as_str() {
        "42710" if *text == format!("role \"{user}\" already exists") => Meaning::Nothing,
        "42P06" if text == "schema \"public\" already exists" => Meaning::Nothing,
        DISK_FULL => Meaning::Full,
        "22023" if text.starts_with("invalid value for parameter \"default_tablespace\"") => Meaning::Backup(P::TablespacesMissing),
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
        "42704" | "42883" if extensions.bring(text) => Meaning::Backup(P::ExtensionsMissing),
        "42601" if newer_client => Meaning::Backup(P::NewerClient),
        _ => Meaning::Backup(P::LoadRefused),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::meaning::tally;
    use super::*;

    #[test]
    fn errors_are_counted_by_their_condition_and_never_shown() {
        let log = b"42704|ERROR:  role \"jane\" does not exist\n00000|LOG:  checkpoint\n42704|ERROR:  role \"doe\" does not exist\n\
            42P01|ERROR:  relation \"x\" does not exist\nplain text\n";
        let found = errors(log);
        assert_eq!(tally(found.iter().map(|e| condition(&e.state))), "undefined_object 2, undefined_table 1");
        assert_eq!(meaning(&found[0], "postgres", false, &Extensions::default()), Meaning::Backup(ServiceProblem::RolesMissing));
    }

    #[test]
    fn what_every_fresh_cluster_says_is_nothing() {
        let one = |state: &str, text: &str| LoggedError { state: state.to_owned(), text: text.to_owned() };
        assert_eq!(meaning(&one("42710", "role \"postgres\" already exists"), "postgres", false, &Extensions::default()), Meaning::Nothing);
        assert!(matches!(
            meaning(&one("42710", "role \"app\" already exists"), "postgres", false, &Extensions::default()),
            Meaning::Backup(_)
        ));
        let fast = one("22023", "invalid value for parameter \"default_tablespace\": \"locale\"");
        assert_eq!(meaning(&fast, "postgres", false, &Extensions::default()), Meaning::Backup(ServiceProblem::TablespacesMissing));
        assert!(matches!(
            meaning(&one("0A000", "extension \"postgis\" is not available"), "postgres", false, &Extensions::default()),
            Meaning::Host(_)
        ));
    }

    #[test]
    fn what_is_an_extensions_is_told_from_what_is_missing_otherwise() {
        let scripts = "CREATE TYPE hstore;\nCREATE FUNCTION similarity(text, text)\nCREATE OPERATOR CLASS gin_trgm_ops\n";
        let extensions = Extensions::of(scripts);
        let one = |state: &str, text: &str| {
            let error = LoggedError { state: state.to_owned(), text: text.to_owned() };
            meaning(&error, "postgres", false, &extensions)
        };
        for (state, text) in [
            ("42704", "type \"public.hstore\" does not exist"),
            ("42704", "operator class \"public.gin_trgm_ops\" does not exist for access method \"gin\""),
            ("42883", "function public.similarity(text, text) does not exist"),
            ("42883", "operator does not exist: public.hstore -> text"),
            ("42704", "type \"public.geometry\" does not exist"),
            ("42704", "language \"plperlu\" does not exist"),
        ] {
            assert_eq!(one(state, text), Meaning::Backup(ServiceProblem::ExtensionsMissing), "{text}");
        }
        for (state, text) in [("42883", "function public.similar(text) does not exist"), ("42704", "type \"public.ward\" does not exist")] {
            assert_eq!(one(state, text), Meaning::Backup(ServiceProblem::LoadRefused), "{text}");
        }
    }

    #[test]
    fn a_process_of_the_server_that_was_ended_is_told_from_what_its_programs_were() {
        let log = b"00000|LOG:  checkpoint\n38000|ERROR:  program \"x\" failed\n38000|DETAIL:  child process was terminated by signal 9: Killed\n";
        assert_eq!(ended_by(log), None);
        let crashed = b"00000|LOG:  server process (PID 71) was terminated by signal 11: Segmentation fault\n";
        assert_eq!(ended_by(&[&log[..], crashed].concat()), Some(11));
    }

    #[test]
    fn a_client_says_its_state() {
        assert_eq!(state_of(b"ERROR:  42P01: relation \"x\" does not exist\nLINE 1: ...").unwrap().code, "42P01");
        assert_eq!(state_of(b"psql: error: connection to server failed"), None);
        let said = b"psql: error: connection to server on socket \"/kit/.s.PGSQL.5432\" failed: FATAL:  database \"ehr\" does not exist\n";
        assert_eq!(turned_away(said, b"3D000|FATAL:  database \"ehr\" does not exist\n").unwrap().code, "3D000");
        assert_eq!(turned_away(b"psql: error: timeout expired", b""), None);
    }
}
