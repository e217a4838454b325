//! What MariaDB says, told apart by its error numbers without showing its text.

use super::super::meaning::Meaning;
use crate::domain::ServiceProblem;

/// Errors of a client that has lost its server.
pub(super) const LOST: [u32; 5] = [2002, 2003, 2006, 2013, 2055];

/// One error, as a client tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ToldError {
    pub(super) number: u32,
    pub(super) text: String,
}

/// Errors in what a client said: `ERROR 1062 (23000) at line 12: …`.
pub(super) fn errors(stderr: &[u8]) -> Vec<ToldError> {
    let said = String::from_utf8_lossy(stderr);
    let found = said.lines().filter_map(|line| {
        let rest = line.strip_prefix("ERROR ")?;
        let (number, text) = match rest.strip_prefix("at line ") {
            // the client's own parser
            Some(own) => (0, own.split_once(": ")?.1),
            None => (rest.split(' ').next()?.parse().ok()?, rest.split_once(": ")?.1),
        };
        Some(ToldError { number, text: text.trim().to_owned() })
    });
    found.collect()
}

/// The manual's name of an error, or its number.
pub(super) fn name(number: u32) -> String {
    let name = match number {
        0 => "refused by the client",
        1005 => "ER_CANT_CREATE_TABLE",
        1007 => "ER_DB_CREATE_EXISTS",
        1021 => "ER_DISK_FULL",
        1030 => "ER_GET_ERRNO",
        1032 => "ER_KEY_NOT_FOUND",
        1034 => "ER_NOT_KEYFILE",
        1044 => "ER_DBACCESS_DENIED_ERROR",
        1045 => "ER_ACCESS_DENIED_ERROR",
        1046 => "ER_NO_DB_ERROR",
        1048 => "ER_BAD_NULL_ERROR",
        1049 => "ER_BAD_DB_ERROR",
        1050 => "ER_TABLE_EXISTS_ERROR",
        1054 => "ER_BAD_FIELD_ERROR",
        1062 => "ER_DUP_ENTRY",
        1064 => "ER_PARSE_ERROR",
        1104 => "ER_TOO_BIG_SELECT",
        1114 => "ER_RECORD_FILE_FULL",
        1115 => "ER_UNKNOWN_CHARACTER_SET",
        1133 => "ER_PASSWORD_NO_MATCH",
        1136 => "ER_WRONG_VALUE_COUNT_ON_ROW",
        1142 => "ER_TABLEACCESS_DENIED_ERROR",
        1146 => "ER_NO_SUCH_TABLE",
        1180 => "ER_ERROR_DURING_COMMIT",
        1193 => "ER_UNKNOWN_SYSTEM_VARIABLE",
        1227 => "ER_SPECIFIC_ACCESS_DENIED_ERROR",
        1231 => "ER_WRONG_VALUE_FOR_VAR",
        1273 => "ER_UNKNOWN_COLLATION",
        1286 => "ER_UNKNOWN_STORAGE_ENGINE",
        1304 => "ER_SP_ALREADY_EXISTS",
        1305 => "ER_SP_DOES_NOT_EXIST",
        1356 => "ER_VIEW_INVALID",
        1366 => "ER_TRUNCATED_WRONG_VALUE_FOR_FIELD",
        1396 => "ER_CANNOT_USER",
        1406 => "ER_DATA_TOO_LONG",
        1449 => "ER_NO_SUCH_USER",
        1451 => "ER_ROW_IS_REFERENCED_2",
        1452 => "ER_NO_REFERENCED_ROW_2",
        1524 => "ER_PLUGIN_IS_NOT_LOADED",
        1698 => "ER_ACCESS_DENIED_NO_PASSWORD_ERROR",
        1712 => "ER_INDEX_CORRUPT",
        1792 => "ER_CANT_EXECUTE_IN_READ_ONLY_TRANSACTION",
        1932 => "ER_NO_SUCH_TABLE_IN_ENGINE",
        2002 => "CR_CONNECTION_ERROR",
        2006 => "CR_SERVER_GONE_ERROR",
        2013 => "CR_SERVER_LOST",
        other => return format!("error {other}"),
    };
    name.to_owned()
}

/// Who wrote what is loaded, beside who loads it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Skew {
    /// The backup is of a newer server than this one, or of MySQL.
    pub(super) foreign: bool,
    /// It was written by a newer client than this server's.
    pub(super) newer_client: bool,
}

/// What this host lacks where the server does not know an engine.
pub(super) const PLUGIN: &str =
    "a storage engine or plugin that the backup names is not installed here: install the package that brings it";

/// What an error says while something is loaded.
pub(super) fn meaning(error: &ToldError, skew: Skew) -> Meaning {
    use ServiceProblem as P;
    let of_a_fresh_server = ["'root'@", "'mariadb.sys'@"].iter().any(|user| error.text.contains(user));
    match error.number {
        1396 if error.text.starts_with("Operation CREATE USER failed") && of_a_fresh_server => Meaning::Nothing,
        1021 | 1114 => Meaning::Full,
        1126 | 1127 | 1286 | 1289 | 1524 => Meaning::Host(PLUGIN),
        1064 | 1115 | 1193 | 1231 | 1273 | 0 if skew.foreign => Meaning::Host(
            "the backup is of MySQL or of a newer MariaDB, and uses what the server of this host does not know: install that series, and \
             nothing is learned of the backup until then",
        ),
        1064 | 1115 | 1193 | 1231 | 1273 | 0 if skew.newer_client => Meaning::Backup(P::NewerClient),
        1133 | 1449 => Meaning::Backup(P::RolesMissing),
        1305 => Meaning::Backup(P::RoutinesMissing),
        _ => Meaning::Backup(P::LoadRefused),
    }
}

/// Whether an error says more of the question than of what was restored.
pub(super) fn is_of_the_question(number: u32) -> bool {
    matches!(number, 0 | 1044 | 1045 | 1046 | 1064 | 1104 | 1142 | 1227 | 1317 | 1792 | 1290 | 1205 | 1969 | 3024) || number == 1021
}

/// Whether the log tells of a crash.
pub(super) fn crashed(log: &[u8]) -> bool {
    let log = String::from_utf8_lossy(log);
    ["got signal 11", "got signal 6", "got signal 7", "got exception"].iter().any(|words| log.contains(words))
}

/// What a server that did not start lacked of this host.
pub(super) fn host_lacks(log: &[u8]) -> Option<&'static str> {
    let log = String::from_utf8_lossy(log);
    let has = |words: &[&str]| words.iter().any(|words| log.contains(words));
    if has(&["unknown variable", "unknown option"]) {
        return Some("the server does not know a setting that the scenario gives it; see `settings`");
    }
    if has(&["Cannot allocate memory for the buffer pool", "out of memory"]) {
        return Some("the server has not enough memory; give it more: [sandbox] memory");
    }
    if has(&["Unable to create temporary file"]) {
        return Some("it could not make a temporary file in the sandbox");
    }
    has(&["file_key_management", "key management plugin", "decryption failed", "failed to decrypt"])
        .then_some("its tables are encrypted, and the server was not given the keys; see `settings`, as file_key_management_filename")
}

/// Whether a server did not start because it cannot know what became of transactions: its last binary log would say so.
pub(super) fn undecided(log: &[u8]) -> Option<&'static str> {
    String::from_utf8_lossy(log).contains("critical recovery information (last binlog or tc.log file) was manually deleted").then_some(
        "it was copied while transactions were committed, and the server's last binary log, which alone says which of them were, is not \
         beside its files: copy it as well, or back up with mariadb-backup",
    )
}

/// What the log of a server that did not start tells, in our words.
pub(super) fn of_log(log: &[u8]) -> String {
    let text = String::from_utf8_lossy(log);
    let errors = text.lines().filter(|line| line.contains(" [ERROR] ")).count();
    let known = [
        ("Can't open and lock privilege tables", "its privilege tables cannot be read"),
        ("Could not open mysql.", "its privilege tables cannot be read"),
        ("No valid checkpoint was found", "of its redo log"),
        ("ib_logfile0 is empty", "of its redo log"),
        ("was not found at", "files of its tables are missing"),
        ("is of a different size", "its system tablespace is not as long as it should be"),
        ("is corrupted", "a page or file is corrupted"),
        ("corrupt", "a page or file is corrupted"),
        ("redo log", "of its redo log"),
        ("Missing FILE_CHECKPOINT", "of its redo log"),
        ("Unsupported redo log format", "its redo log is of another version"),
    ];
    let about = known.iter().find(|(words, _)| text.lines().any(|line| line.contains(" [ERROR] ") && line.contains(words)));
    match about {
        Some((_, about)) => format!("its log has {errors} errors ({about})"),
        None => format!("its log has {errors} errors"),
    }
}

/// The rows that `mariadb --xml` wrote. It escapes every `<` of a value, and tells NULL from a text that says so.
pub(super) fn rows(xml: &str) -> Vec<Vec<Option<String>>> {
    let plain = |value: &str| value.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&amp;", "&");
    let mut rows = Vec::new();
    for piece in xml.split('<') {
        if piece.starts_with("row>") {
            rows.push(Vec::new());
        } else if let (Some(field), Some(row)) = (piece.strip_prefix("field "), rows.last_mut()) {
            // names of columns have their own `>` escaped
            let (head, value) = field.split_once('>').unwrap_or((field, ""));
            row.push((!head.ends_with("xsi:nil=\"true\" /")).then(|| plain(value)));
        }
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::super::super::meaning::tally;
    use super::*;

    #[test]
    fn errors_are_counted_by_their_names_and_never_shown() {
        let said = b"--------------\ninsert into x values ('Jane')\n--------------\n\n\
            ERROR 1062 (23000) at line 1: Duplicate entry 'Jane' for key 'PRIMARY'\nERROR 1062 (23000) at line 2: Duplicate entry\n\
            ERROR 1146 (42S02) at line 3: Table 'two.jane' doesn't exist\nERROR at line 4: Unknown command '\\-'.\n";
        let found = errors(said);
        assert_eq!(tally(found.iter().map(|e| name(e.number))), "ER_DUP_ENTRY 2, ER_NO_SUCH_TABLE 1, refused by the client 1");
    }

    #[test]
    fn blame_goes_by_who_wrote_it() {
        let one = |number, text: &str| ToldError { number, text: text.to_owned() };
        let collation = one(1273, "Unknown collation: 'utf8mb4_0900_ai_ci'");
        assert!(matches!(meaning(&collation, Skew { foreign: true, newer_client: true }), Meaning::Host(_)));
        assert_eq!(meaning(&collation, Skew { foreign: false, newer_client: true }), Meaning::Backup(ServiceProblem::NewerClient));
        assert_eq!(meaning(&collation, Skew::default()), Meaning::Backup(ServiceProblem::LoadRefused));
        let user = one(1396, "Operation CREATE USER failed for 'root'@'localhost'");
        assert_eq!(meaning(&user, Skew::default()), Meaning::Nothing);
        let user = one(1396, "Operation CREATE USER failed for 'app'@'localhost'");
        assert_eq!(meaning(&user, Skew::default()), Meaning::Backup(ServiceProblem::LoadRefused));
    }

    #[test]
    fn null_is_no_text_and_texts_come_back_as_they_are() {
        let xml = "<?xml version=\"1.0\"?>\n\n<resultset statement=\"select &lt;row&gt;\" xmlns:xsi=\"x\">\n  <row>\n\t\
            <field name=\"a\" xsi:nil=\"true\" />\n\t<field name=\"b\">NULL</field>\n\t<field name=\"c\">a&lt;b&gt;&amp;lt;&quot; \ny</field>\n\
            \t<field name=\"d\"></field>\n  </row>\n</resultset>\n";
        let read = rows(xml);
        assert_eq!(read, [vec![None, Some("NULL".to_owned()), Some("a<b>&lt;\" \ny".to_owned()), Some(String::new())]]);
        assert!(rows("<resultset statement=\"x\">\n</resultset>").is_empty());
    }
}
