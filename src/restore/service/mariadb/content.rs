//! What can be compared of a restored server: the objects of its schema, the rows of its tables, its own word on its integrity.

use super::super::{AskError, Rows, Shop};
use super::server::{SYSTEM, Server, quoted, text};
use crate::domain::{Fingerprint, IntegrityAnswer, IntegrityDepth, ObjectClass, Sample, SchemaObject};

/// Tables that are looked at in one statement.
const AT_ONCE: usize = 50;

impl Server {
    /// Which databases are meant, as a condition on the column of that name.
    fn meant(&self, database: Option<&str>, column: &str) -> String {
        match database.or(self.database.as_deref()) {
            Some(database) => format!("{column} = {}", text(database)),
            None => format!("{column} not in {SYSTEM}"),
        }
    }

    /// Every object of the schema.
    pub(super) async fn objects(&self, shop: &Shop<'_>, database: Option<&str>) -> Result<Vec<SchemaObject>, AskError> {
        let mut objects = Vec::new();
        for (class, sql) in questions(&|column| self.meant(database, column), &self.account) {
            for row in self.query(shop, database, &sql).await?.0 {
                let mut row = row.into_iter();
                if let Some(Some(name)) = row.next() {
                    // a separator that stands in no value unescaped: equal definitions, and only those, are equal texts
                    let definition = row.map(|v| v.map_or_else(|| "-".to_owned(), |v| format!("{v:?}"))).collect::<Vec<_>>().join(" ");
                    objects.push(SchemaObject { class, name, definition });
                }
            }
        }
        objects.sort();
        Ok(objects)
    }

    /// Fingerprints of these tables, or of all.
    pub(super) async fn fingerprints(
        &self,
        shop: &Shop<'_>,
        database: Option<&str>,
        tables: &[String],
        sample: Option<Sample>,
    ) -> Result<Vec<(String, Fingerprint)>, AskError> {
        let mut meant = Vec::new();
        for table in tables {
            let (schema, table) = match (table.split_once('.'), database.or(self.database.as_deref())) {
                (Some((schema, table)), _) => (schema, table),
                (None, Some(schema)) => (schema, table.as_str()),
                (None, None) => {
                    let reason = "it is not said in which database the table is: write database.table".to_owned();
                    return Err(AskError::BadQuestion { reason, output: Vec::new() });
                }
            };
            meant.push((schema.to_owned(), table.to_owned()));
        }
        if tables.is_empty() {
            meant = self.tables(shop, database).await?;
        }
        let mut found = Vec::new();
        for (schema, table) in meant {
            let sql = format!(
                "select column_name, data_type from information_schema.columns where table_schema = {} and table_name = {} \
                 order by ordinal_position",
                text(&schema),
                text(&table)
            );
            let columns: Vec<(String, String)> = pairs(self.query(shop, database, &sql).await?);
            if columns.is_empty() {
                return Err(AskError::Refused { state: "ER_NO_SUCH_TABLE".to_owned(), output: Vec::new() });
            }
            let sql = fingerprint(&schema, &table, &columns, sample);
            let rows = self.query(shop, database, &sql).await?;
            let [Some(count), Some(first), Some(second)] = rows.0.first().map_or(&[][..], Vec::as_slice) else {
                return Err(AskError::BadQuestion { reason: "the table's rows were not counted".to_owned(), output: Vec::new() });
            };
            let fingerprint = Fingerprint { rows: count.parse().unwrap_or(0), digest: format!("{first}:{second}") };
            found.push((format!("{schema}.{table}"), fingerprint));
        }
        Ok(found)
    }

    async fn tables(&self, shop: &Shop<'_>, database: Option<&str>) -> Result<Vec<(String, String)>, AskError> {
        let sql = format!(
            "select table_schema, table_name from information_schema.tables where table_type in ('BASE TABLE', 'SYSTEM VERSIONED') \
             and {} order by table_schema, table_name",
            self.meant(database, "table_schema")
        );
        Ok(pairs(self.query(shop, database, &sql).await?))
    }

    /// `CHECK TABLE` of every table.
    pub(super) async fn integrity(
        &self,
        shop: &Shop<'_>,
        database: Option<&str>,
        depth: IntegrityDepth,
    ) -> Result<IntegrityAnswer, AskError> {
        let how = match depth {
            IntegrityDepth::Quick => "QUICK",
            IntegrityDepth::Full => "EXTENDED",
        };
        let tables = self.tables(shop, database).await?;
        let mut answer = IntegrityAnswer { asked: format!("CHECK TABLE … {how}"), ..IntegrityAnswer::default() };
        for some in tables.chunks(AT_ONCE) {
            let names = some.iter().map(|(schema, table)| format!("{}.{}", quoted(schema), quoted(table))).collect::<Vec<_>>();
            let rows = self.query(shop, database, &format!("check table {} {how}", names.join(", "))).await?;
            answer.examined += some.len() as u64;
            for (table, said) in troubles(&rows) {
                answer.output.extend_from_slice(format!("{table}: {said}\n").as_bytes());
                if answer.damaged.last() != Some(&table) {
                    answer.damaged.push(table);
                }
            }
        }
        Ok(answer)
    }
}

/// What `CHECK TABLE` says beside that all is well: table and words.
fn troubles(rows: &Rows) -> Vec<(String, String)> {
    let trouble = |row: &Vec<Option<String>>| match row.as_slice() {
        [Some(table), _, Some(kind), said] => {
            let said = said.as_deref().unwrap_or_default();
            let well = match kind.to_ascii_lowercase().as_str() {
                "status" => matches!(said, "OK" | "Table is already up to date"),
                // an engine that has no check of its own says so
                "note" | "info" => true,
                _ => false,
            };
            (!well).then(|| (table.clone(), said.to_owned()))
        }
        _ => None,
    };
    rows.0.iter().filter_map(trouble).collect()
}

fn pairs(rows: Rows) -> Vec<(String, String)> {
    rows.0.into_iter().filter_map(|row| Some((row.first()?.clone()?, row.get(1)?.clone()?))).collect()
}

/// Counts all rows of a table, and sums the digests of all or of a sample of them.
///
/// A row is written so that different rows are different texts: NULL is no value, binary and text are their bytes. Its MD5 is summed in
/// two halves, each as a number of 64 bits: sums do not depend on the order, and rows that are there twice do not cancel out.
fn fingerprint(schema: &str, table: &str, columns: &[(String, String)], sample: Option<Sample>) -> String {
    let value = |(name, kind): &(String, String)| {
        let name = quoted(name);
        let written = match kind.as_str() {
            kind if ["char", "text", "binary", "blob"].iter().any(|word| kind.contains(word)) => format!("hex({name})"),
            "enum" | "set" | "json" | "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring"
            | "multipolygon" | "geometrycollection" => format!("hex({name})"),
            "bit" => format!("cast({name} + 0 as char)"),
            _ => format!("cast({name} as char)"),
        };
        format!("ifnull({written}, 'n')")
    };
    let row = columns.iter().map(value).collect::<Vec<_>>().join(", ");
    let drawn = match sample {
        None => "1".to_owned(),
        // other digits than those that are summed first: the sample is no part of the sum
        Some(sample) => {
            let below = (u64::from(sample.per_million) << 32) / 1_000_000;
            format!("conv(substr(d, 25, 8), 16, 10) + 0 < {below}")
        }
    };
    let half = |from: u32| format!("coalesce(sum(if({drawn}, cast(conv(substr(d, {from}, 16), 16, 10) as decimal(65, 0)), 0)), 0)");
    format!(
        "select count(*), {}, {} from (select md5(concat_ws(',', {row})) d from {}.{}) of_rows",
        half(1),
        half(17),
        quoted(schema),
        quoted(table)
    )
}

/// What is asked of each class: names, and after them what makes the objects what they are.
fn questions(meant: &dyn Fn(&str) -> String, account: &str) -> Vec<(ObjectClass, String)> {
    use ObjectClass as C;
    let of = |column: &str| meant(column);
    let ours = text(account);
    vec![
        (
            C::Schema,
            format!(
                "select schema_name, default_character_set_name, default_collation_name from information_schema.schemata where {}",
                of("schema_name")
            ),
        ),
        (
            C::Table,
            format!(
                "select concat(table_schema, '.', table_name), table_type, engine, row_format, table_collation, create_options, \
                 table_comment from information_schema.tables where table_type in ('BASE TABLE', 'SYSTEM VERSIONED') and {}",
                of("table_schema")
            ),
        ),
        (
            C::Column,
            format!(
                "select concat(c.table_schema, '.', c.table_name, '.', c.column_name), c.ordinal_position, c.column_type, \
                 c.is_nullable, c.column_default, c.extra, c.collation_name, c.generation_expression, c.column_comment \
                 from information_schema.columns c join information_schema.tables t using (table_schema, table_name) \
                 where t.table_type in ('BASE TABLE', 'SYSTEM VERSIONED') and {}",
                of("c.table_schema")
            ),
        ),
        (
            C::Index,
            format!(
                "select concat(table_schema, '.', table_name, '.', index_name), non_unique, index_type, ignored, \
                 group_concat(concat_ws(' ', column_name, sub_part, collation) order by seq_in_index) from information_schema.statistics \
                 where {} group by table_schema, table_name, index_name, non_unique, index_type, ignored",
                of("table_schema")
            ),
        ),
        (
            C::Constraint,
            format!(
                "select concat(t.table_schema, '.', t.table_name, '.', t.constraint_name), t.constraint_type, r.update_rule, \
                 r.delete_rule, (select group_concat(concat_ws(' ', k.column_name, k.referenced_table_schema, k.referenced_table_name, \
                 k.referenced_column_name) order by k.ordinal_position) from information_schema.key_column_usage k \
                 where k.table_schema = t.table_schema and k.table_name = t.table_name and k.constraint_name = t.constraint_name), \
                 (select c.check_clause from information_schema.check_constraints c where c.constraint_schema = t.constraint_schema \
                 and c.table_name = t.table_name and c.constraint_name = t.constraint_name limit 1) \
                 from information_schema.table_constraints t left join information_schema.referential_constraints r \
                 on r.constraint_schema = t.constraint_schema and r.table_name = t.table_name and r.constraint_name = t.constraint_name \
                 where {}",
                of("t.table_schema")
            ),
        ),
        (
            C::View,
            format!(
                "select concat(table_schema, '.', table_name), view_definition, check_option, definer, security_type \
                 from information_schema.views where {}",
                of("table_schema")
            ),
        ),
        (
            C::Function,
            format!(
                "select concat(r.routine_schema, '.', r.routine_name, ' ', r.routine_type), r.dtd_identifier, r.routine_definition, \
                 r.is_deterministic, r.sql_data_access, r.security_type, r.definer, r.sql_mode, \
                 (select group_concat(concat_ws(' ', p.parameter_mode, p.parameter_name, p.dtd_identifier) order by p.ordinal_position) \
                 from information_schema.parameters p where p.specific_schema = r.routine_schema and p.specific_name = r.specific_name \
                 and p.routine_type = r.routine_type) from information_schema.routines r where {}",
                of("r.routine_schema")
            ),
        ),
        (
            C::Trigger,
            format!(
                "select concat(trigger_schema, '.', trigger_name), event_object_table, action_timing, event_manipulation, action_order, \
                 action_statement, definer, sql_mode from information_schema.triggers where {}",
                of("trigger_schema")
            ),
        ),
        (
            C::Event,
            format!(
                "select concat(event_schema, '.', event_name), event_type, execute_at, interval_value, interval_field, starts, ends, \
                 status, on_completion, event_definition, definer, sql_mode from information_schema.events where {}",
                of("event_schema")
            ),
        ),
        (
            C::Sequence,
            format!(
                "select concat(table_schema, '.', table_name), engine from information_schema.tables where table_type = 'SEQUENCE' and {}",
                of("table_schema")
            ),
        ),
        (
            // every server has these, and one is made here at each start
            C::Role,
            format!(
                "select concat(User, '@', Host), json_remove(Priv, '$.password_last_changed', '$.version_id') from mysql.global_priv \
                 where User not in ('root', 'mariadb.sys', {ours})"
            ),
        ),
        (
            C::Extension,
            "select plugin_name, plugin_type from information_schema.plugins where plugin_library is not null and plugin_status = 'ACTIVE'"
                .to_owned(),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_check_table_says_is_told_apart() {
        let row = |values: [&str; 4]| values.iter().map(|v| Some((*v).to_owned())).collect::<Vec<_>>();
        let rows = Rows(vec![
            row(["his.a", "check", "status", "OK"]),
            row(["his.b", "check", "note", "The storage engine for the table doesn't support check"]),
            row(["his.c", "check", "Warning", "InnoDB: Index x is marked as corrupted"]),
            row(["his.c", "check", "error", "Corrupt"]),
        ]);
        let found = troubles(&rows);
        assert_eq!(found.iter().map(|(table, _)| table.as_str()).collect::<Vec<_>>(), ["his.c", "his.c"]);
    }

    #[test]
    fn a_sample_is_drawn_by_the_rows_own_digest() {
        let columns = [("na`me".to_owned(), "varchar".to_owned()), ("n".to_owned(), "int".to_owned())];
        let sql = fingerprint("his", "patient", &columns, Some(Sample { per_million: 500_000 }));
        assert!(sql.contains("ifnull(hex(`na``me`), 'n'), ifnull(cast(`n` as char), 'n')"), "{sql}");
        assert!(sql.contains("< 2147483648"), "{sql}");
        assert!(!fingerprint("his", "patient", &columns, None).contains("< "));
    }
}
