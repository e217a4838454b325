//! What a SQLite database says of its schema, its content and its integrity.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{AskError, Shop};
use super::shell::{Shell, quoted};
use crate::domain::{Fingerprint, IntegrityAnswer, IntegrityDepth, ObjectClass, Sample, SchemaObject};

/// Columns that are hashed at once: functions and expressions have bounds.
const AT_ONCE: usize = 60;
/// Messages of an integrity check; more say no more.
const MESSAGES: u32 = 1_000;

/// Every object; SQL texts are kept by SQLite as they were written, so equal objects have equal ones.
pub(super) async fn objects(shell: &Shell, shop: &Shop<'_>) -> Result<Vec<SchemaObject>, AskError> {
    let sql = r#"
        select type, name, tbl_name || ' ' || coalesce(sql, '') from sqlite_schema where name not like 'sqlite\_%' escape '\'
        union all
        select 'column', m.name || '.' || x.name,
            json_array(x.type, x."notnull", x.dflt_value, x.pk, x.hidden)
            from sqlite_schema m join pragma_table_xinfo(m.name) x where m.type = 'table' and m.name not like 'sqlite\_%' escape '\'
        union all
        select 'constraint', name || '.' || json_group_array("from"),
            json_array("table", json_group_array("to"), on_update, on_delete, "match")
            from (select m.name, f.* from sqlite_schema m join pragma_foreign_key_list(m.name) f where m.type = 'table' order by m.name, f.id, f.seq)
            group by name, id
        union all
        select 'constraint', name || '.' || json_group_array(part), origin
            from (select m.name, i.name as by, i.origin, c.name as part from sqlite_schema m
                join pragma_index_list(m.name) i join pragma_index_info(i.name) c
                where m.type = 'table' and i.origin in ('pk', 'u') order by m.name, i.name, c.seqno)
            group by name, by
    "#;
    let mut found = Vec::new();
    for row in shell.query(shop, sql).await?.0 {
        let [Some(class), Some(name), definition] = <[_; 3]>::try_from(row).unwrap_or_default() else { continue };
        let class = match class.as_str() {
            "table" => ObjectClass::Table,
            "column" => ObjectClass::Column,
            "index" => ObjectClass::Index,
            "view" => ObjectClass::View,
            "trigger" => ObjectClass::Trigger,
            "constraint" => ObjectClass::Constraint,
            _ => continue,
        };
        found.push(SchemaObject { class, name, definition: definition.unwrap_or_default() });
    }
    found.sort();
    Ok(found)
}

/// The digest of the sorted digests of a table's rows, each by its values and their types.
pub(super) async fn fingerprints(
    shell: &Shell,
    shop: &Shop<'_>,
    wanted: &[String],
    sample: Option<Sample>,
) -> Result<Vec<(String, Fingerprint)>, AskError> {
    let sql = r"select l.name, x.name from pragma_table_list l join pragma_table_xinfo(l.name) x
        where l.schema = 'main' and l.type in ('table', 'virtual') and l.name not like 'sqlite\_%' escape '\' and x.hidden <> 1
        order by l.name, x.cid";
    let mut tables: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in shell.query(shop, sql).await?.0 {
        if let [Some(table), Some(column)] = <[_; 2]>::try_from(row).unwrap_or_default() {
            tables.entry(table).or_default().push(column);
        }
    }
    if !wanted.is_empty() {
        let plain: Vec<&str> = wanted.iter().map(|name| name.strip_prefix("main.").unwrap_or(name)).collect();
        if plain.iter().any(|name| !tables.contains_key(*name)) {
            return Err(AskError::Refused { state: "undefined_table".to_owned(), output: Vec::new() });
        }
        tables.retain(|name, _| plain.contains(&name.as_str()));
    }
    let mut found = Vec::new();
    for (table, columns) in tables {
        let count = shell.query(shop, &format!("select count(*) from {}", quoted(&table))).await?;
        let rows = count.0.into_iter().flatten().flatten().next().and_then(|n| n.parse().ok()).unwrap_or(0);
        let digest = shell.digest(shop, &row_digests(&table, &columns, sample)).await?;
        found.push((table, Fingerprint { rows, digest }));
    }
    Ok(found)
}

/// A query for the digests of rows, or of those whose digest is small.
fn row_digests(table: &str, columns: &[String], sample: Option<Sample>) -> String {
    // quote() ends a text at a zero byte
    let value = |column: &String| {
        let column = quoted(column);
        format!("iif(instr({column}, char(0)), 'x' || typeof({column}) || hex({column}), quote({column}))")
    };
    let parts: Vec<String> = columns
        .chunks(AT_ONCE)
        .map(|some| format!("hex(sha3({}, 256))", some.iter().map(value).collect::<Vec<_>>().join(" || ',' || ")))
        .collect();
    let digest = match parts.as_slice() {
        [only] => only.clone(),
        several => format!("hex(sha3({}, 256))", several.join(" || ")),
    };
    let drawn = match sample.filter(|sample| sample.per_million < 1_000_000) {
        Some(sample) => format!(" where d < '{:010X}'", (u64::from(sample.per_million) << 40) / 1_000_000),
        None => String::new(),
    };
    format!("select d from (select {digest} as d from {}){drawn}", quoted(table))
}

/// What the engine finds in its own pages, indexes and keys.
pub(super) async fn integrity(shell: &Shell, shop: &Shop<'_>, depth: IntegrityDepth) -> Result<IntegrityAnswer, AskError> {
    let pragma = match depth {
        IntegrityDepth::Quick => "quick_check",
        IntegrityDepth::Full => "integrity_check",
    };
    let mut answer = IntegrityAnswer { asked: format!("pragma {pragma}"), ..IntegrityAnswer::default() };
    let damaged = |error: AskError| match error {
        AskError::Refused { state, output } if ["corrupt", "not_a_database"].contains(&state.as_str()) => {
            Ok((vec!["main".to_owned()], output))
        }
        other => Err(other),
    };
    let messages: Vec<String> = match shell.query(shop, &format!("pragma {pragma}({MESSAGES})")).await {
        Ok(rows) => rows.0.into_iter().flatten().flatten().filter(|line| line != "ok").collect(),
        Err(error) => {
            (answer.damaged, answer.output) = damaged(error)?;
            return Ok(answer);
        }
    };
    // the schema of a damaged database may not be readable
    let roots = shell.query(shop, "select rootpage, name from sqlite_schema where rootpage > 0").await.unwrap_or_default().0;
    answer.examined = roots.len() as u64;
    let names: BTreeMap<String, String> =
        roots.into_iter().filter_map(|row| <[_; 2]>::try_from(row).ok()).filter_map(|[root, name]| Some((root?, name?))).collect();
    let mut found: BTreeSet<String> = messages.iter().map(|line| place(line, &names)).collect();
    answer.output = messages.join("\n").into_bytes();
    if depth == IntegrityDepth::Full && messages.is_empty() {
        answer.asked += ", pragma foreign_key_check";
        let orphans = shell.query(shop, "select distinct \"table\" from pragma_foreign_key_check").await;
        match orphans {
            Ok(rows) => found.extend(rows.0.into_iter().flatten().flatten()),
            Err(error) => {
                let (more, output) = damaged(error)?;
                found.extend(more);
                answer.output.extend(output);
            }
        }
    }
    answer.damaged = found.into_iter().collect();
    Ok(answer)
}

/// The table or index that a message is about, or the message's beginning where it names none.
fn place(message: &str, names: &BTreeMap<String, String>) -> String {
    let line = message.lines().find(|line| !line.starts_with("***")).unwrap_or(message);
    for words in ["missing from index ", "wrong # of entries in index ", "non-unique entry in index ", "values differ from index "] {
        if let Some((_, name)) = line.split_once(words) {
            return name.trim().to_owned();
        }
    }
    let root = line.strip_prefix("Tree ").or_else(|| line.strip_prefix("On tree page "));
    let root = root.and_then(|rest| rest.split(' ').next());
    if let Some(name) = root.and_then(|root| names.get(root)) {
        return name.clone();
    }
    if let Some((_, column)) = line.split_once(" value in ") {
        return column.split('.').next().unwrap_or(column).to_owned();
    }
    "main".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_their_table_or_index() {
        let names = BTreeMap::from([("3".to_owned(), "patient".to_owned())]);
        assert_eq!(place("row 12 missing from index by_name", &names), "by_name");
        assert_eq!(place("Tree 3 page 9 cell 2: 2nd reference to page 7", &names), "patient");
        assert_eq!(place("*** in database main ***\nOn tree page 3 cell 4: Rowid 7 out of order", &names), "patient");
        assert_eq!(place("NULL value in patient.name", &names), "patient");
        assert_eq!(place("Page 9 is never used", &names), "main");
    }

    #[test]
    fn a_sample_is_drawn_by_digest() {
        let query = row_digests("t", &["a".to_owned()], Some(Sample { per_million: 500_000 }));
        assert!(query.ends_with("where d < '8000000000'"), "{query}");
        assert!(!row_digests("t", &["a".to_owned()], None).contains("where"));
    }
}
