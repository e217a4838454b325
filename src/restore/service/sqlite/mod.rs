//! SQLite: a database file with its WAL, or a dump of the shell. The server is the host's `sqlite3` shell itself.
//!
//! A file that nothing has to be written to is opened where it lies, read-only and immutable. One with a WAL or a journal beside
//! it is copied first: recovery writes, and checks of files must see what came.
//!
//! SQLite passes over a WAL that it cannot read without a word, and over one that is not there. Both are looked at here
//! ([`wal`]), because `integrity_check` says `ok` to either.

mod answers;
mod shell;
mod wal;

use std::fs::File;

use async_trait::async_trait;

use self::shell::Shell;
use super::{AskError, Input, Job, Rows, Service, ServiceError, Shop};
use crate::domain::{
    Engine, Fingerprint, IntegrityAnswer, IntegrityDepth, Sample, SchemaObject, ServiceFacts, ServiceProblem, Severity, SqliteMadeBy,
    SqliteStep,
};
use crate::restore::tool::last_words;

/// Room of what is recovered or loaded.
const ROOM: &str = "database";
/// Room of temporary files.
const TEMPORARY: &str = "tmp";
/// The first bytes of every database file that is not encrypted.
const MAGIC: &[u8] = b"SQLite format 3\0";
/// The first bytes of a journal that has something to be rolled back.
const JOURNAL_MAGIC: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
/// Bytes of a dump's end: it says there that it is whole.
const END: u64 = 4 << 10;
/// What belongs to a database file and is none.
const COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// A database in its life.
pub(super) struct Sqlite {
    name: String,
    step: SqliteStep,
    shell: Option<Shell>,
    method: String,
}

impl Sqlite {
    pub(super) fn new(name: &str, step: &SqliteStep) -> Self {
        Self { name: name.to_owned(), step: step.clone(), shell: None, method: String::new() }
    }

    fn shell(&self, database: Option<&str>) -> Result<&Shell, AskError> {
        let wrong = |reason: &str| AskError::BadQuestion { reason: reason.to_owned(), output: Vec::new() };
        if database.is_some_and(|name| name != "main") {
            return Err(wrong("a SQLite file is one database, called main: leave `database` out"));
        }
        self.shell.as_ref().ok_or_else(|| wrong("nothing was loaded"))
    }
}

#[async_trait]
impl Service for Sqlite {
    async fn load(&mut self, shop: &Shop<'_>) -> Result<(), ServiceError> {
        let program = shop.program("sqlite3")?;
        let temporary = shop.room(TEMPORARY)?;
        let (place, method) = match self.step.clone() {
            SqliteStep::File { file, made_by } => from_file(shop, &Shell::new(program.clone(), &temporary, ""), &file, made_by).await?,
            SqliteStep::Dump { dump } => from_dump(shop, &Shell::new(program.clone(), &temporary, ""), &dump).await?,
        };
        self.shell = Some(Shell::new(program, &temporary, &place));
        self.method = method;
        Ok(())
    }

    async fn ready(&mut self, shop: &Shop<'_>) -> Result<ServiceFacts, ServiceError> {
        let Some(shell) = &self.shell else { return Err(ServiceError::runner("nothing was loaded", [])) };
        let version = shell.version(shop).await?;
        if !shell.has_a_row(shop).await? {
            return Err(ServiceError::backup(ServiceProblem::Empty, "no table of the database has a row", []));
        }
        Ok(ServiceFacts {
            name: self.name.clone(),
            engine: Engine::Sqlite,
            version,
            path: shell.program.display().to_string(),
            sha256: Some(super::shop::digest_of(&shell.program)?),
            recorded: None,
            method: self.method.clone(),
            identity: "the program itself reads the file, by its path on scratch".to_owned(),
            recovery: None,
            binary_logs: None,
        })
    }

    async fn query(&self, shop: &Shop<'_>, database: Option<&str>, sql: &str) -> Result<Rows, AskError> {
        self.shell(database)?.query(shop, sql).await
    }

    async fn objects(&self, shop: &Shop<'_>, database: Option<&str>) -> Result<Vec<SchemaObject>, AskError> {
        answers::objects(self.shell(database)?, shop).await
    }

    async fn fingerprints(
        &self,
        shop: &Shop<'_>,
        database: Option<&str>,
        tables: &[String],
        sample: Option<Sample>,
    ) -> Result<Vec<(String, Fingerprint)>, AskError> {
        answers::fingerprints(self.shell(database)?, shop, tables, sample).await
    }

    async fn integrity(&self, shop: &Shop<'_>, database: Option<&str>, depth: IntegrityDepth) -> Result<IntegrityAnswer, AskError> {
        answers::integrity(self.shell(database)?, shop, depth).await
    }
}

/// What stands in the first 100 bytes of a database file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Header {
    page_size: u64,
    /// Pages, where the header says it by itself.
    pages: Option<u64>,
    /// Whether it is written through a WAL.
    wal: bool,
}

impl Header {
    fn read(head: &[u8]) -> Option<Self> {
        let number = |at: usize| head.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]));
        let page_size = match head.get(16..18).map(|b| u16::from_be_bytes([b[0], b[1]]))? {
            1 => 65_536,
            size if size >= 512 && size.is_power_of_two() => u64::from(size),
            _ => return None,
        };
        let (changes, valid_for, pages) = (number(24)?, number(92)?, number(28)?);
        // writers older than 3.7.0 leave the number of pages alone
        let pages = (pages > 0 && changes == valid_for).then_some(u64::from(pages));
        Some(Header { page_size, pages, wal: head.get(18) == Some(&2) })
    }

    /// Bytes of the file, by its own word.
    fn bytes(&self) -> Option<u64> {
        self.pages.map(|pages| pages.saturating_mul(self.page_size))
    }
}

fn header(head: &[u8]) -> Result<Header, ServiceError> {
    let unusable = |how: &str| Err(ServiceError::backup(ServiceProblem::InputUnusable, how, []));
    if head.is_empty() {
        return unusable("the database has no bytes at all");
    }
    if head.len() < 100 && MAGIC.starts_with(head.get(..16).unwrap_or(head)) {
        return Err(ServiceError::backup(ServiceProblem::InputTruncated, "the file ends within its header", []));
    }
    if !head.starts_with(MAGIC) {
        return unusable("its first bytes are not those of a SQLite database: something else, or encrypted by an extension");
    }
    match Header::read(head) {
        Some(header) => Ok(header),
        None => Err(ServiceError::backup(ServiceProblem::InputDamaged, "its header names no page size", [])),
    }
}

/// The one database that a pattern means, its companions aside.
fn database(shop: &Shop<'_>, pattern: &str) -> Result<Input, ServiceError> {
    let inputs = shop.inputs(pattern)?;
    let is_companion = |input: &Input| COMPANIONS.iter().any(|end| input.inside.ends_with(end));
    let mut found: Vec<Input> = inputs.into_iter().filter(|input| !input.directory && !is_companion(input)).collect();
    match found.len() {
        1 => Ok(found.remove(0)),
        // says what it says of none and of several
        _ => shop.input(pattern),
    }
}

/// Where a database file can be opened that came as a file; and how that was come by.
async fn from_file(shop: &Shop<'_>, shell: &Shell, pattern: &str, made_by: SqliteMadeBy) -> Result<(String, String), ServiceError> {
    let file = database(shop, pattern)?;
    if file.directory {
        return Err(ServiceError::backup(ServiceProblem::InputUnusable, "a directory is no database file", []));
    }
    let header = header(&shop.head(&file, 100))?;
    let beside = |end: &str| shop.open_beside(&file, end).ok().filter(|found| found.metadata().is_ok_and(|m| m.len() > 0));
    let (wal, journal) = (beside("-wal"), beside("-journal"));
    if let Some(journal) = journal
        && is_hot(journal)
    {
        let copy = copied(shop, &file, "-journal").await?;
        shell.recover(shop, &copy).await?;
        whole(shop, &copy).await?;
        return Ok((shell::address(&copy), "file, with its journal rolled back".to_owned()));
    }
    if let Some(wal) = wal {
        let found = tokio::task::block_in_place(|| wal::read(wal, header.page_size));
        let found = found.map_err(|e| ServiceError::runner(format!("the WAL cannot be read: {}", e.kind()), []))?;
        found.judge(shop)?;
        let copy = copied(shop, &file, "-wal").await?;
        shell.recover(shop, &copy).await?;
        whole(shop, &copy).await?;
        return Ok((shell::address(&copy), format!("file, with its WAL of {} committed frames", found.committed)));
    }
    if header.bytes().is_some_and(|bytes| file.size < bytes) {
        return Err(cut_off(file.size, header));
    }
    if header.wal && made_by == SqliteMadeBy::Copy {
        let how = "the database is written through a WAL, and none came with it: what was not checkpointed when it was copied is gone; \
                   where SQLite itself made the file, say made_by = \"backup\"";
        shop.remark(Severity::Warn, ServiceProblem::InputTruncated, how, []);
    }
    Ok((shell::address(&file.inside), "file".to_owned()))
}

fn cut_off(size: u64, header: Header) -> ServiceError {
    let pages = header.pages.unwrap_or_default();
    let how = format!("the file has {size} bytes, and {pages} pages of {} bytes by its header", header.page_size);
    ServiceError::backup(ServiceProblem::InputTruncated, how, [])
}

/// Copies a database with what belongs to it, so that recovery can write; answers its place.
async fn copied(shop: &Shop<'_>, file: &Input, companion: &str) -> Result<String, ServiceError> {
    let place = format!("{}/main.db", shop.room(ROOM)?);
    for end in ["", companion] {
        let (from, to) = (format!("{}{end}", file.inside), format!("{place}{end}"));
        let exit = shop.run(Job::new(["cp", "--reflink=auto", "--", &from, &to])).await?;
        if !exit.success() {
            return Err(match shop.sandbox.scratch_is_full() {
                Some(full) => full.into(),
                None => ServiceError::runner("the database cannot be copied for its recovery", last_words(&exit)),
            });
        }
    }
    Ok(place)
}

/// Whether a recovered copy is as long as it says by now.
async fn whole(shop: &Shop<'_>, copy: &str) -> Result<(), ServiceError> {
    let script = "stat -c %s \"$0\" && od -An -v -tx1 -N100 \"$0\"";
    let exit = shop.run(Job::new(["bash", "-c", script, copy])).await?;
    let text = String::from_utf8_lossy(&exit.stdout).into_owned();
    let (size, head) = text.split_once('\n').unwrap_or_default();
    let head: Vec<u8> = head.split_whitespace().filter_map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    match (size.trim().parse::<u64>(), Header::read(&head)) {
        (Ok(size), Some(header)) if header.bytes().is_some_and(|bytes| size < bytes) => Err(cut_off(size, header)),
        (Ok(_), Some(_)) => Ok(()),
        _ => Err(ServiceError::runner("the recovered copy cannot be looked at", last_words(&exit))),
    }
}

fn is_hot(mut journal: File) -> bool {
    let mut head = [0u8; 8];
    std::io::Read::read_exact(&mut journal, &mut head).is_ok() && head == JOURNAL_MAGIC
}

/// Loads what `.dump` wrote into a database of its own.
async fn from_dump(shop: &Shop<'_>, shell: &Shell, pattern: &str) -> Result<(String, String), ServiceError> {
    let dump = shop.input(pattern)?;
    let unusable = |how: &str| Err(ServiceError::backup(ServiceProblem::InputUnusable, how, []));
    if dump.directory {
        return unusable("a directory is no dump");
    }
    let head = shop.head(&dump, END);
    if head.is_empty() {
        return unusable("the dump has no bytes at all");
    }
    if head.starts_with(MAGIC) {
        return unusable("it is a database file and no dump: write file = … instead of dump = …");
    }
    let text = String::from_utf8_lossy(&head);
    if head.contains(&0) || !text.lines().any(|line| line.trim() == "BEGIN TRANSACTION;") {
        return unusable("it does not begin as what the shell's .dump writes");
    }
    let end = shop.end(&dump, END);
    let last = String::from_utf8_lossy(&end).lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default().trim().to_owned();
    match last.as_str() {
        "COMMIT;" => {}
        line if line.starts_with("ROLLBACK; -- due to errors") => {
            let how = "its last line says that the database which it was made of was damaged: it is not whole, and takes itself back";
            return Err(ServiceError::backup(ServiceProblem::InputDamaged, how, []));
        }
        _ => {
            let how = "the last line that .dump writes, by which everything before it holds, is not there";
            return Err(ServiceError::backup(ServiceProblem::InputTruncated, how, []));
        }
    }
    let place = format!("{}/main.db", shop.room(ROOM)?);
    shell.load(shop, &place, &dump.inside).await?;
    Ok((shell::address(&place), "dump of the shell".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(change: impl Fn(&mut [u8])) -> Vec<u8> {
        let mut head = vec![0u8; 100];
        head[..16].copy_from_slice(MAGIC);
        head[16..20].copy_from_slice(&[0x10, 0, 2, 2]);
        head[27] = 7;
        head[31] = 3;
        head[95] = 7;
        change(&mut head);
        head
    }

    #[test]
    fn a_header_says_pages_and_journal() {
        let read = Header::read(&head(|_| {})).unwrap();
        assert_eq!((read.bytes(), read.wal), (Some(3 * 4096), true));
        assert_eq!(Header::read(&head(|h| h[95] = 6)).unwrap().bytes(), None);
        assert_eq!(Header::read(&head(|h| h[16..18].copy_from_slice(&[0, 1]))).unwrap().page_size, 65_536);
        assert_eq!(Header::read(&head(|h| h[17] = 1)), None);
    }

    #[test]
    fn what_is_no_database_is_told_apart() {
        let problem = |bytes: &[u8]| match header(bytes) {
            Err(ServiceError::Backup { problem, .. }) => problem,
            other => panic!("{other:?}"),
        };
        assert_eq!(problem(b""), ServiceProblem::InputUnusable);
        assert_eq!(problem(&[0; 100]), ServiceProblem::InputUnusable);
        assert_eq!(problem(b"SQLite for"), ServiceProblem::InputTruncated);
        assert_eq!(problem(&head(|_| {})[..60]), ServiceProblem::InputTruncated);
        assert_eq!(problem(&head(|h| h[16] = 3)), ServiceProblem::InputDamaged);
    }
}
