//! The `sqlite3` shell: how it is called so that nothing of the backup can command it, and what its errors mean.

use std::path::PathBuf;

use super::super::{AskError, Job, Rows, ServiceError, Shop};
use crate::domain::ServiceProblem;
use crate::restore::tool::last_words;
use crate::sandbox::{Ended, Exit};

/// The shell, and the database that it opens.
pub(super) struct Shell {
    pub(super) program: PathBuf,
    temporary: String,
    /// What it opens, read-only.
    address: String,
}

/// What opens a database of restored files without ever writing beside it.
pub(super) fn address(path: &str) -> String {
    let mut address = "file:".to_owned();
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'-' | b'_' => address.push(char::from(byte)),
            _ => address.push_str(&format!("%{byte:02x}")),
        }
    }
    address + "?immutable=1"
}

/// As SQL quotes a name.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl Shell {
    pub(super) fn new(program: PathBuf, temporary: &str, address: &str) -> Self {
        Self { program, temporary: temporary.to_owned(), address: address.to_owned() }
    }

    /// Its options. Safe mode refuses what reaches out of the database: shell commands, other files, extensions.
    fn options(&self) -> Vec<String> {
        let mut argv = vec![self.program.display().to_string()];
        let options = ["-batch", "-bail", "-safe", "-init", "/dev/null", "-cmd", "pragma trusted_schema = off"];
        argv.extend(options.iter().map(|option| (*option).to_owned()));
        argv
    }

    fn job(&self, argv: Vec<String>) -> Job {
        Job::new(argv).env("SQLITE_TMPDIR", &self.temporary).env("LC_ALL", "C.UTF-8")
    }

    /// The command line that asks a question, and prints rows as CSV.
    pub(super) fn question(&self, shop: &Shop<'_>, sql: &str) -> Vec<String> {
        let mut argv = self.options();
        let options = ["-readonly", "-cmd", "pragma cell_size_check = on", "-noheader", "-csv", "-nullvalue", &null(shop), &self.address];
        argv.extend(options.iter().map(|option| (*option).to_owned()));
        // neither an option nor a command of the shell begins with a space
        argv.push(format!(" {sql}"));
        argv
    }

    /// Asks one query that changes nothing.
    pub(super) async fn query(&self, shop: &Shop<'_>, sql: &str) -> Result<Rows, AskError> {
        let exit = shop.run(self.job(self.question(shop, sql))).await?;
        if !exit.success() {
            return Err(refusal(shop, &exit));
        }
        let (exit, null) = (exit.whole()?, null(shop));
        let mut reader = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(exit.stdout.as_slice());
        let rows = reader.records().map(|record| {
            let record = record.map_err(|_| AskError::BadQuestion { reason: "the answer is no text".to_owned(), output: Vec::new() })?;
            Ok(record.iter().map(|value| (*value != null).then(|| value.to_owned())).collect())
        });
        Ok(Rows(rows.collect::<Result<_, AskError>>()?))
    }

    /// Sorts and hashes what a query of one column prints.
    pub(super) async fn digest(&self, shop: &Shop<'_>, sql: &str) -> Result<String, AskError> {
        let script = "set -o pipefail; t=$0; \"$@\" | sort --buffer-size=32M --temporary-directory=\"$t\" | sha256sum";
        let mut argv: Vec<String> = ["bash", "-c", script, &self.temporary].iter().map(|part| (*part).to_owned()).collect();
        argv.extend(self.question(shop, sql));
        let exit = shop.run(self.job(argv).env("LC_ALL", "C")).await?;
        let text = String::from_utf8_lossy(&exit.stdout);
        match text.split_whitespace().next() {
            Some(digest) if exit.success() => Ok(digest.to_owned()),
            _ => Err(refusal(shop, &exit)),
        }
    }

    /// Opens a copy for writing: a WAL is brought into it, a journal rolled back.
    pub(super) async fn recover(&self, shop: &Shop<'_>, place: &str) -> Result<(), ServiceError> {
        let mut argv = self.options();
        argv.extend(
            [place, "pragma wal_checkpoint(truncate); pragma journal_mode = delete; select count(*) from sqlite_schema"].map(str::to_owned),
        );
        let exit = shop.run(self.job(argv)).await?;
        if exit.success() {
            return Ok(());
        }
        match refusal(shop, &exit) {
            AskError::Sandbox(error) => Err(error.into()),
            AskError::Refused { state, output } | AskError::BadQuestion { reason: state, output } => {
                let how = format!("SQLite cannot recover it ({state})");
                Err(ServiceError::backup(ServiceProblem::InputDamaged, how, output))
            }
        }
    }

    /// Loads a dump into a new database.
    pub(super) async fn load(&self, shop: &Shop<'_>, place: &str, dump: &str) -> Result<(), ServiceError> {
        let mut argv: Vec<String> = ["bash", "-c", "exec \"$@\" < \"$0\"", dump].iter().map(|part| (*part).to_owned()).collect();
        argv.extend(self.options());
        argv.extend(["-cmd", "pragma synchronous = off", place].map(str::to_owned));
        let exit = shop.run(self.job(argv).output(64 << 10)).await?;
        if exit.success() {
            return Ok(());
        }
        if let Some(full) = shop.sandbox.scratch_is_full() {
            return Err(full.into());
        }
        let text = String::from_utf8_lossy(&exit.stderr).into_owned();
        let output = last_words(&exit);
        let says = |words: &str| text.contains(words);
        let (problem, how) = if says("in safe mode") {
            (ServiceProblem::LoadRefused, "it has commands in it that reach out of the database, and none of them is run")
        } else if says("no such module") || says("no such function") || says("no such collation") {
            let reason =
                "the dump uses an extension that the sqlite3 of this host has not; name a directory of one that has it: [sandbox] tools";
            return Err(ServiceError::runner(reason, output));
        } else if says("syntax error") || says("unrecognized token") || says("incomplete input") || says("unknown command") {
            (ServiceProblem::InputDamaged, "the shell cannot read all of its statements")
        } else {
            (ServiceProblem::LoadRefused, "the shell refuses one of its statements")
        };
        Err(ServiceError::backup(problem, format!("{how} ({})", ended(&exit)), output))
    }

    /// The version, by the program's own word about the code that it runs.
    pub(super) async fn version(&self, shop: &Shop<'_>) -> Result<String, ServiceError> {
        let rows = self.query(shop, "select sqlite_version()").await.map_err(unreadable)?;
        Ok(rows.0.into_iter().flatten().flatten().next().unwrap_or_default())
    }

    /// Whether any table has a row; shadow tables of virtual ones have some from the start.
    pub(super) async fn has_a_row(&self, shop: &Shop<'_>) -> Result<bool, ServiceError> {
        let sql = "select name from pragma_table_list where schema = 'main' and type in ('table', 'virtual') \
                   and name not like 'sqlite\\_%' escape '\\' order by type, name";
        let tables: Vec<String> = self.query(shop, sql).await.map_err(unreadable)?.0.into_iter().flatten().flatten().collect();
        for some in tables.chunks(100) {
            let any: Vec<String> = some.iter().map(|table| format!("exists (select 1 from {})", quoted(table))).collect();
            let rows = self.query(shop, &format!("select {}", any.join(" or "))).await.map_err(unreadable)?;
            if rows.0.iter().flatten().flatten().any(|value| value == "1") {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What stands for NULL in an answer: nobody outside of the drill knows it.
fn null(shop: &Shop<'_>) -> String {
    format!("null-{}", shop.nonce)
}

fn unreadable(error: AskError) -> ServiceError {
    match error {
        AskError::Sandbox(error) => error.into(),
        AskError::Refused { state, output } => {
            ServiceError::backup(ServiceProblem::InputDamaged, format!("SQLite cannot read it ({state})"), output)
        }
        AskError::BadQuestion { reason, output } => ServiceError::runner(reason, output),
    }
}

fn ended(exit: &Exit) -> String {
    match exit.ended {
        Ended::Status(status) => format!("exit status {status}"),
        Ended::Signal(signal) => format!("signal {signal}"),
    }
}

/// Why a question was not answered, by the words and result codes of the shell (<https://sqlite.org/rescode.html>).
fn refusal(shop: &Shop<'_>, exit: &Exit) -> AskError {
    if let Some(full) = shop.sandbox.scratch_is_full() {
        return full.into();
    }
    let output = last_words(exit);
    match meaning(&String::from_utf8_lossy(&exit.stderr)) {
        Some(Meaning::Backup(state)) => AskError::Refused { state: state.to_owned(), output },
        Some(Meaning::Question(why)) => AskError::BadQuestion { reason: format!("the question cannot be asked ({why})"), output },
        None => AskError::BadQuestion { reason: format!("sqlite3 gives no answer ({})", ended(exit)), output },
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    Backup(&'static str),
    Question(&'static str),
}

fn meaning(text: &str) -> Option<Meaning> {
    use Meaning::{Backup, Question};
    const KNOWN: [(&str, Meaning); 18] = [
        ("in safe mode", Question("it reaches out of the database")),
        ("readonly database", Question("it would change the database")),
        ("syntax error", Question("syntax_error")),
        ("incomplete input", Question("syntax_error")),
        ("unrecognized token", Question("syntax_error")),
        ("no such module", Question("an extension that the sqlite3 of this host has not")),
        ("no such function", Question("a function that the sqlite3 of this host has not")),
        ("no such collation", Question("a collation that the sqlite3 of this host has not")),
        ("unsafe use of", Question("a view or trigger uses what only a trusted schema may")),
        ("no such table", Backup("undefined_table")),
        ("no such column", Backup("undefined_column")),
        ("malformed", Backup("corrupt")),
        ("file is not a database", Backup("not_a_database")),
        ("foreign key mismatch", Backup("foreign_key_mismatch")),
        ("disk I/O error", Backup("io_error")),
        ("unsupported file format", Backup("unsupported_file_format")),
        ("unable to open database", Question("the file cannot be opened")),
        ("out of memory", Question("out of memory")),
    ];
    KNOWN.iter().find(|(words, _)| text.contains(words)).map(|(_, meaning)| *meaning)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_hold_no_name_that_would_be_an_option_of_the_address() {
        assert_eq!(address("/data/a b?mode=rw#%.db"), "file:/data/a%20b%3fmode%3drw%23%25.db?immutable=1");
    }

    #[test]
    fn what_the_shell_says_is_told_apart() {
        assert_eq!(meaning("Error: in prepare, no such table: patient"), Some(Meaning::Backup("undefined_table")));
        assert_eq!(meaning("Parse error near line 1: near \"selct\": syntax error"), Some(Meaning::Question("syntax_error")));
        assert_eq!(meaning("Error: stepping, database disk image is malformed (11)"), Some(Meaning::Backup("corrupt")));
        assert_eq!(meaning(""), None);
    }
}
