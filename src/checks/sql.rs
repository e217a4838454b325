//! `sql`: questions in a restored database's own language. Counts are exact: estimates of statistics have lied.
//!
//! Answers are restored data: they are compared here, and only numbers that were compared are shown.

use std::collections::BTreeMap;

use super::{Answer, CheckError, Restored, Rows, no_answer};
use crate::domain::{Comparison, DatabaseRef, Engine, Finding, FindingKind, Observed, SqlAsk, SqlExpect, TableSeen};

pub(super) async fn ask(name: &str, of: &DatabaseRef, ask: &SqlAsk, restored: &Restored<'_>) -> Result<Answer, CheckError> {
    match ask {
        SqlAsk::Query { query, expect } => one(name, of, query, expect, restored).await,
        SqlAsk::Tables(tables) => counts(name, of, tables, restored).await,
    }
}

async fn one(name: &str, of: &DatabaseRef, query: &str, expect: &SqlExpect, restored: &Restored<'_>) -> Result<Answer, CheckError> {
    let expected = match expect {
        SqlExpect::Number(comparison) => comparison.to_string(),
        SqlExpect::Text(_) => "the text that the scenario says".to_owned(),
    };
    let rows = match restored.databases.query(of, query).await {
        Ok(rows) => rows,
        Err(error) => return no_answer(name, &expected, error),
    };
    let value = one_value(&rows).map_err(CheckError::NotAsked)?;
    let (holds, observed) = match (expect, value) {
        (_, None) => (false, "no value".to_owned()),
        (SqlExpect::Text(text), Some(value)) => (text == value, if text == value { "that text" } else { "another text" }.to_owned()),
        (SqlExpect::Number(comparison), Some(value)) => match number(value) {
            Some(number) => (comparison.holds(number), number.to_string()),
            None => return Err(CheckError::NotAsked("the query's value is no whole number: cast it, or expect a text".to_owned())),
        },
    };
    Ok(answer(name, expected, observed, u32::from(value.is_some()).max(1), holds))
}

async fn counts(
    name: &str,
    of: &DatabaseRef,
    tables: &BTreeMap<String, Comparison>,
    restored: &Restored<'_>,
) -> Result<Answer, CheckError> {
    let engine = restored.databases.engine(of.service.as_deref()).map_err(CheckError::NotAsked)?;
    if engine == Engine::Defined {
        return Err(CheckError::NotAsked("this kind of service has no tables that could be counted: ask a query".to_owned()));
    }
    let expected = tables.iter().map(|(table, comparison)| format!("{table} {comparison}")).collect::<Vec<_>>().join(", ");
    let (mut observed, mut failed, mut seen) = (Vec::new(), 0u32, Observed::default());
    for (table, comparison) in tables {
        let rows = match restored.databases.query(of, &format!("select count(*) from {}", identifier(engine, table))).await {
            Ok(rows) => rows,
            Err(error) => return no_answer(name, &expected, error),
        };
        let value = one_value(&rows).map_err(CheckError::NotAsked)?;
        let count = value.and_then(number).ok_or_else(|| CheckError::NotAsked("a count is no number".to_owned()))?;
        failed += u32::from(!comparison.holds(count));
        observed.push(format!("{table} {count}"));
        seen.tables.insert(table.clone(), TableSeen { rows: count, digest: None, per_million: None });
    }
    let assertions = u32::try_from(tables.len()).unwrap_or(u32::MAX);
    Ok(Answer { seen: Some(seen), ..answer(name, expected, observed.join(", "), assertions, failed == 0) })
}

fn answer(name: &str, expected: String, observed: String, assertions: u32, holds: bool) -> Answer {
    let kind = FindingKind::CheckFailed { expected: expected.clone(), observed: observed.clone() };
    let findings = if holds { Vec::new() } else { vec![Finding::backup(name, kind)] };
    Answer { expected, observed, assertions, findings, ..Answer::default() }
}

/// The one value of the one row; no row is no value.
///
/// # Errors
/// Why there is not one.
pub(super) fn one_value(rows: &Rows) -> Result<Option<&str>, String> {
    match rows.as_slice() {
        [] => Ok(None),
        [row] => match row.as_slice() {
            [value] => Ok(value.as_deref()),
            columns => Err(format!("the query answers with {} columns, and one is compared", columns.len())),
        },
        rows => Err(format!("the query answers with {} rows, and one is compared", rows.len())),
    }
}

/// A whole number as databases print it, as `12` and `12.00`.
fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    let whole = text.split_once('.').filter(|(_, zeros)| zeros.bytes().all(|b| b == b'0')).map_or(text, |(whole, _)| whole);
    whole.parse().ok().or(match text {
        "t" | "true" => Some(1),
        "f" | "false" => Some(0),
        _ => None,
    })
}

/// A table's name, with its schema or without, as the database quotes it.
fn identifier(engine: Engine, name: &str) -> String {
    let quote = match engine {
        Engine::Postgres | Engine::Sqlite | Engine::Defined => '"',
        Engine::MariaDb => '`',
    };
    let quoted = |part: &str| format!("{quote}{}{quote}", part.replace(quote, &format!("{quote}{quote}")));
    name.split('.').map(quoted).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::super::NoAnswer;
    use super::super::testing::{Database, MemoryTree, no_programs, restored};
    use super::*;

    async fn asked(rows: Result<Rows, NoAnswer>, ask: &SqlAsk) -> Result<Answer, CheckError> {
        let (tree, programs, database) = (MemoryTree::of(vec![]), no_programs(), Database::of(rows));
        let restored = Restored { databases: &database, ..restored(&tree, &programs) };
        super::ask("sql", &DatabaseRef::default(), ask, &restored).await
    }

    fn rows(values: &[&str]) -> Result<Rows, NoAnswer> {
        Ok(values.iter().map(|v| vec![Some((*v).to_owned())]).collect())
    }

    fn at_least(n: u64) -> SqlAsk {
        SqlAsk::Query { query: "q".into(), expect: SqlExpect::Number(format!(">= {n}").parse().unwrap()) }
    }

    #[tokio::test]
    async fn one_row_is_compared() {
        assert!(asked(rows(&["12"]), &at_least(12)).await.unwrap().findings.is_empty());
        assert_eq!(asked(rows(&["11"]), &at_least(12)).await.unwrap().findings.len(), 1);
        // nothing compared with nothing is no yes
        assert_eq!(asked(rows(&[]), &at_least(0)).await.unwrap().findings.len(), 1);
        assert_eq!(asked(Ok(vec![vec![None]]), &at_least(0)).await.unwrap().findings.len(), 1);
    }

    #[tokio::test]
    async fn what_cannot_be_compared_is_no_answer() {
        assert!(asked(rows(&["1", "2"]), &at_least(0)).await.is_err());
        assert!(asked(rows(&["Jane"]), &at_least(0)).await.is_err());
        assert!(asked(Err(NoAnswer::NotAsked { reason: "gone".into() }), &at_least(0)).await.is_err());
    }

    #[tokio::test]
    async fn a_refusal_is_a_failure_and_a_text_is_never_shown() {
        let refused = asked(Err(NoAnswer::Refused { state: "undefined_table".into(), output: None }), &at_least(0)).await.unwrap();
        assert!(matches!(refused.findings[0].kind, FindingKind::QueryRefused { .. }));
        let text = SqlAsk::Query { query: "q".into(), expect: SqlExpect::Text("Doe".into()) };
        let answer = asked(rows(&["Jane Doe"]), &text).await.unwrap();
        assert!(answer.findings.len() == 1 && !format!("{answer:?}").contains("Doe"), "{answer:?}");
    }

    #[tokio::test]
    async fn tables_are_counted_each() {
        let tables = SqlAsk::Tables([("a".to_owned(), ">= 3".parse().unwrap()), ("b".to_owned(), "= 4".parse().unwrap())].into());
        let answer = asked(rows(&["3"]), &tables).await.unwrap();
        assert_eq!((answer.assertions, answer.findings.len(), answer.observed.as_str()), (2, 1, "a 3, b 3"));
    }

    #[test]
    fn names_are_quoted_as_each_database_does() {
        assert_eq!(identifier(Engine::Postgres, "public.pa\"t"), "\"public\".\"pa\"\"t\"");
        assert_eq!(identifier(Engine::MariaDb, "his.pa`t"), "`his`.`pa``t`");
        assert_eq!((number("12.00"), number("1.5"), number("t")), (Some(12), None, Some(1)));
    }
}
