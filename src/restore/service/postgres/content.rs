//! What stands for the rows of PostgreSQL tables: sums of digests of the rows, as the server writes them out.
//!
//! A row is digested as its canonical text with SHA-256, of which two lanes of 64 bits are summed up, so that order does not count
//! and every row does. Only ordinary tables and partitions have rows of their own.

use super::super::{AskError, Rows};
use crate::domain::{Fingerprint, Sample};

/// Tables below this many bytes are asked together.
const SMALL: u64 = 8 << 20;
/// So many of them.
const TOGETHER: usize = 40;

/// One table, as the catalogs have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    /// Qualified and quoted.
    pub(super) name: String,
    /// Bytes on disk, or a guess.
    pub(super) bytes: u64,
    /// What stands for a row's identity: the columns of its primary key, or the whole row.
    key: String,
}

/// Asks which tables there are; of those named, or all.
pub(super) fn tables_question(named: &[String]) -> String {
    let literal = |text: &String| format!("'{}'", text.replace('\'', "''"));
    let only = if named.is_empty() {
        "c.relkind = 'r'".to_owned()
    } else {
        let list = named.iter().map(literal).collect::<Vec<_>>().join(", ");
        format!("c.relkind in ('r', 'p', 'm') and (c.relname in ({list}) or n.nspname || '.' || c.relname in ({list}))")
    };
    format!(
        "select quote_ident(n.nspname) || '.' || quote_ident(c.relname), pg_catalog.pg_total_relation_size(c.oid), \
         (select string_agg('t.' || quote_ident(a.attname), ', ' order by k.place) from pg_catalog.pg_index i, \
          unnest(i.indkey) with ordinality k(attnum, place), pg_catalog.pg_attribute a \
          where i.indrelid = c.oid and i.indisprimary and a.attrelid = c.oid and a.attnum = k.attnum), n.nspname || '.' || c.relname, c.relname \
         from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace \
         where {only} and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and c.relpersistence <> 't' order by 2 desc, 1"
    )
}

/// The tables that were asked for.
///
/// # Errors
/// [`AskError::Refused`] where one that was named is not there.
pub(super) fn tables(rows: Rows, named: &[String]) -> Result<Vec<Table>, AskError> {
    let (mut tables, mut known) = (Vec::new(), Vec::new());
    for row in rows.0 {
        let Ok([Some(name), bytes, key, Some(qualified), Some(plain)]) = <[Option<String>; 5]>::try_from(row) else {
            return Err(strange());
        };
        let key = key.map_or_else(|| "t::text".to_owned(), |columns| format!("row({columns})::text"));
        tables.push(Table { name, bytes: bytes.and_then(|b| b.parse().ok()).unwrap_or(u64::MAX), key });
        known.extend([qualified, plain]);
    }
    match named.iter().find(|name| !known.contains(name)) {
        None => Ok(tables),
        Some(_) => Err(AskError::Refused { state: "undefined_table".to_owned(), output: Vec::new() }),
    }
}

/// Questions that together ask for every table: large ones alone, small ones in company.
pub(super) fn questions(tables: &[Table], sample: Option<Sample>, major: u32) -> Vec<String> {
    let (small, large): (Vec<&Table>, Vec<&Table>) = tables.iter().partition(|table| table.bytes < SMALL);
    let together = large.chunks(1).chain(small.chunks(TOGETHER));
    together.map(|tables| tables.iter().map(|t| question(t, sample, major)).collect::<Vec<_>>().join(" union all ")).collect()
}

fn question(table: &Table, sample: Option<Sample>, major: u32) -> String {
    let digest = |of: &str| {
        if major >= 11 { format!("encode(sha256(convert_to({of}, 'UTF8')), 'hex')") } else { format!("md5({of})") }
    };
    let lane = |from: u32| format!("sum(('x' || substr(h, {from}, 16))::bit(64)::bigint)");
    // drawn by what the row is called, so that a row that was altered stays in the part that it was in
    let drawn = sample.map_or_else(String::new, |sample| {
        format!("case when ('x' || substr(md5({}), 1, 8))::bit(32)::bigint % 1000000 < {} then ", table.key, sample.per_million)
    });
    let end = if drawn.is_empty() { "" } else { " end" };
    format!(
        "(select '{}', count(*), coalesce({}::text, '0') || ':' || coalesce({}::text, '0') from (select {drawn}{}{end} as h from {} t) r)",
        table.name.replace('\'', "''"),
        lane(1),
        lane(17),
        digest("t::text"),
        table.name
    )
}

/// What they answered.
///
/// # Errors
/// Where that is no answer.
pub(super) fn fingerprints(rows: Rows) -> Result<Vec<(String, Fingerprint)>, AskError> {
    let one = |row: Vec<Option<String>>| {
        let [name, rows, digest] = <[Option<String>; 3]>::try_from(row).ok()?;
        Some((name?, Fingerprint { rows: rows?.parse().ok()?, digest: digest? }))
    };
    rows.0.into_iter().map(one).collect::<Option<Vec<_>>>().ok_or_else(strange)
}

fn strange() -> AskError {
    AskError::BadQuestion { reason: "the server's answer on its tables is in another form".to_owned(), output: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(values: &[Option<&str>]) -> Vec<Option<String>> {
        values.iter().map(|v| v.map(str::to_owned)).collect()
    }

    #[test]
    fn a_named_table_that_is_not_there_is_refused() {
        let rows = || Rows(vec![row(&[Some("public.patient"), Some("8192"), Some("t.id"), Some("public.patient"), Some("patient")])]);
        for named in ["patient", "public.patient"] {
            assert_eq!(tables(rows(), &[named.to_owned()]).unwrap()[0].key, "row(t.id)::text");
        }
        assert!(matches!(tables(rows(), &["encounter".to_owned()]), Err(AskError::Refused { .. })));
    }

    #[test]
    fn large_tables_are_asked_alone() {
        let table = |name: &str, bytes| Table { name: name.into(), bytes, key: "t::text".into() };
        let tables = [table("a", SMALL), table("b", 1), table("c", 1)];
        let asked = questions(&tables, None, 15);
        assert_eq!(asked.len(), 2);
        assert!(asked[1].contains("union all") && !asked[0].contains("union all"));
        assert!(!asked[0].contains("case when") && questions(&tables, Some(Sample { per_million: 5 }), 15)[0].contains("< 5 then"));
    }
}
