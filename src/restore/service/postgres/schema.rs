//! Every object of a database, in PostgreSQL's own canonical words.
//!
//! Owners and grants are part of what an object is: without them it is there, and nobody may use it. What only the one server can
//! have (object ids, storage places, the values that sequences reached) is left out, as is what belongs to an extension: the
//! extension stands for it, and its version is the server's.

use super::super::{AskError, Rows};
use crate::domain::{ObjectClass, SchemaObject};

/// Settings under which names and values are written out in one way everywhere.
pub(super) const CANONICAL: &str = "-c search_path= -c DateStyle=ISO,YMD -c IntervalStyle=postgres -c TimeZone=UTC -c extra_float_digits=1 \
     -c bytea_output=hex -c xmlbinary=base64 -c lc_monetary=C -c lc_numeric=C -c quote_all_identifiers=off";

/// The question, to a server of this major version.
pub(super) fn question(major: u32) -> String {
    let generated = if major >= 12 { "a.attgenerated::text" } else { "''" };
    // whether it was made for an inherited constraint is told by the parent's
    let parts = SCHEMAS.replace("{generated}", generated);
    format!("{COMMON}{parts}")
}

/// Its answer.
///
/// # Errors
/// Where it is none.
pub(super) fn objects(rows: Rows) -> Result<Vec<SchemaObject>, AskError> {
    let object = |row: Vec<Option<String>>| {
        let [class, name, definition] = <[Option<String>; 3]>::try_from(row).ok()?;
        let class: ObjectClass = serde_json::from_value(class?.into()).ok()?;
        Some(SchemaObject { class, name: name?, definition: definition.unwrap_or_default() })
    };
    let objects: Option<Vec<SchemaObject>> = rows.0.into_iter().map(object).collect();
    objects.ok_or_else(|| AskError::BadQuestion { reason: "the server's catalogs answer in another form".to_owned(), output: Vec::new() })
}

/// What the parts below use: schemas of the site's own, and what is not an extension's.
const COMMON: &str = r#"
with ns as (
  select oid, nspname, quote_ident(nspname) as q from pg_catalog.pg_namespace
  where nspname !~ '^pg_' and nspname <> 'information_schema'
), ext as (
  select classid, objid from pg_catalog.pg_depend where deptype = 'e'
), rel as (
  select c.*, ns.q || '.' || quote_ident(c.relname) as q from pg_catalog.pg_class c join ns on ns.oid = c.relnamespace
  where not exists (select from ext where ext.classid = 'pg_catalog.pg_class'::regclass and ext.objid = c.oid)
), acls as (
  select oid, (select string_agg(a::text, ' ' order by a::text) from unnest(coalesce(c.relacl,
    acldefault(case when c.relkind = 'S' then 's' else 'r' end::"char", c.relowner))) a) as acl
  from rel c
)
"#;

const SCHEMAS: &str = r#"
select 'schema' as class, ns.q as name,
  concat_ws(' | ', pg_get_userbyid(n.nspowner), (select string_agg(a::text, ' ' order by a::text)
    from unnest(coalesce(n.nspacl, acldefault('n', n.nspowner))) a)) as definition
from ns join pg_catalog.pg_namespace n using (oid)
where not exists (select from ext where ext.classid = 'pg_catalog.pg_namespace'::regclass and ext.objid = n.oid)
union all
select 'table', c.q, concat_ws(' | ', c.relkind, c.relpersistence, pg_get_userbyid(c.relowner), acls.acl,
  c.relrowsecurity, c.relforcerowsecurity, c.relreplident,
  (select string_agg(o, ' ' order by o) from unnest(c.reloptions) o),
  pg_get_partkeydef(c.oid), pg_get_expr(c.relpartbound, c.oid),
  (select string_agg(i.inhparent::regclass::text, ' ' order by i.inhseqno) from pg_catalog.pg_inherits i where i.inhrelid = c.oid),
  (select string_agg(quote_ident(a.attname), ' ' order by a.attnum) from pg_catalog.pg_attribute a
    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
  (select s.srvname || coalesce(' ' || (select string_agg(o, ' ' order by o) from unnest(t.ftoptions) o), '')
    from pg_catalog.pg_foreign_table t join pg_catalog.pg_foreign_server s on s.oid = t.ftserver where t.ftrelid = c.oid))
from rel c join acls using (oid) where c.relkind in ('r', 'p', 'f')
union all
select 'column', c.q || '.' || quote_ident(a.attname), concat_ws(' | ', format_type(a.atttypid, a.atttypmod),
  case when a.attnotnull then 'not null' end, pg_get_expr(d.adbin, d.adrelid), nullif(a.attidentity::text, ''), nullif({generated}, ''),
  (select quote_ident(l.collname) from pg_catalog.pg_collation l
    where l.oid = a.attcollation and l.oid <> (select t.typcollation from pg_catalog.pg_type t where t.oid = a.atttypid)),
  (select string_agg(x::text, ' ' order by x::text) from unnest(a.attacl) x))
from rel c join pg_catalog.pg_attribute a on a.attrelid = c.oid left join pg_catalog.pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum
where c.relkind in ('r', 'p', 'f') and a.attnum > 0 and not a.attisdropped
union all
select 'index', ns.q || '.' || quote_ident(x.relname), concat_ws(' | ', pg_get_indexdef(i.indexrelid),
  case when not i.indisvalid then 'invalid' end, case when i.indisclustered then 'clustered' end, case when i.indisreplident then 'identity' end)
from pg_catalog.pg_index i join rel c on c.oid = i.indrelid join pg_catalog.pg_class x on x.oid = i.indexrelid join ns on ns.oid = x.relnamespace
where i.indisvalid or x.relkind = 'I'
union all
select 'constraint', coalesce(c.q, (select ns.q || '.' || quote_ident(t.typname) from pg_catalog.pg_type t join ns on ns.oid = t.typnamespace
    where t.oid = k.contypid)) || '.' || quote_ident(k.conname),
  concat_ws(' | ', pg_get_constraintdef(k.oid), case when not k.convalidated then 'not valid' end)
from pg_catalog.pg_constraint k join ns on ns.oid = k.connamespace left join rel c on c.oid = k.conrelid
where k.contype <> 'n' and (c.oid is not null or k.contypid <> 0)
union all
select 'view', c.q, concat_ws(' | ', c.relkind, pg_get_viewdef(c.oid), pg_get_userbyid(c.relowner), acls.acl,
  (select string_agg(o, ' ' order by o) from unnest(c.reloptions) o), case when not c.relispopulated then 'not populated' end)
from rel c join acls using (oid) where c.relkind in ('v', 'm')
union all
select 'function', ns.q || '.' || quote_ident(p.proname) || '(' || pg_get_function_identity_arguments(p.oid) || ')',
  concat_ws(' | ', p.prokind,
    case when p.prokind <> 'a' then pg_get_functiondef(p.oid) else (select concat_ws(' | ', g.aggtransfn::text, nullif(g.aggfinalfn::text, '-'),
      format_type(g.aggtranstype, null), g.agginitval, g.aggkind) from pg_catalog.pg_aggregate g where g.aggfnoid = p.oid) end,
    pg_get_userbyid(p.proowner),
    (select string_agg(a::text, ' ' order by a::text) from unnest(coalesce(p.proacl, acldefault('f', p.proowner))) a))
from pg_catalog.pg_proc p join ns on ns.oid = p.pronamespace
where not exists (select from ext where ext.classid = 'pg_catalog.pg_proc'::regclass and ext.objid = p.oid)
union all
select 'trigger', c.q || '.' || quote_ident(t.tgname), concat_ws(' | ', pg_get_triggerdef(t.oid), t.tgenabled)
from pg_catalog.pg_trigger t join rel c on c.oid = t.tgrelid where not t.tgisinternal
union all
select 'trigger', 'rule ' || c.q || '.' || quote_ident(r.rulename), concat_ws(' | ', pg_get_ruledef(r.oid), r.ev_enabled)
from pg_catalog.pg_rewrite r join rel c on c.oid = r.ev_class where r.rulename <> '_RETURN'
union all
select 'trigger', 'event ' || quote_ident(e.evtname), concat_ws(' | ', e.evtevent, e.evtfoid::regproc::text, e.evtenabled, e.evttags::text,
  pg_get_userbyid(e.evtowner))
from pg_catalog.pg_event_trigger e
where not exists (select from ext where ext.classid = 'pg_catalog.pg_event_trigger'::regclass and ext.objid = e.oid)
union all
select 'sequence', c.q, concat_ws(' | ', format_type(s.seqtypid, null), s.seqstart, s.seqincrement, s.seqmin, s.seqmax, s.seqcycle, s.seqcache,
  pg_get_userbyid(c.relowner), acls.acl,
  (select o.q || '.' || quote_ident(a.attname) from pg_catalog.pg_depend d join rel o on o.oid = d.refobjid
    join pg_catalog.pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
    where d.classid = 'pg_catalog.pg_class'::regclass and d.objid = c.oid and d.deptype in ('a', 'i') limit 1))
from rel c join acls using (oid) join pg_catalog.pg_sequence s on s.seqrelid = c.oid
union all
select 'type', ns.q || '.' || quote_ident(t.typname), concat_ws(' | ', t.typtype, pg_get_userbyid(t.typowner),
  (select string_agg(a::text, ' ' order by a::text) from unnest(coalesce(t.typacl, acldefault('T', t.typowner))) a),
  case t.typtype
    when 'e' then (select string_agg(quote_literal(e.enumlabel), ' ' order by e.enumsortorder) from pg_catalog.pg_enum e where e.enumtypid = t.oid)
    when 'd' then concat_ws(' ', format_type(t.typbasetype, t.typtypmod), case when t.typnotnull then 'not null' end, t.typdefault)
    when 'c' then (select string_agg(quote_ident(a.attname) || ' ' || format_type(a.atttypid, a.atttypmod), ', ' order by a.attnum)
      from pg_catalog.pg_attribute a where a.attrelid = t.typrelid and a.attnum > 0 and not a.attisdropped)
    when 'r' then (select format_type(r.rngsubtype, null) from pg_catalog.pg_range r where r.rngtypid = t.oid)
    when 'b' then concat_ws(' ', t.typinput::text, t.typoutput::text, t.typlen)
  end)
from pg_catalog.pg_type t join ns on ns.oid = t.typnamespace left join pg_catalog.pg_class c on c.oid = t.typrelid
where t.typtype in ('e', 'd', 'c', 'r', 'b') and (t.typrelid = 0 or c.relkind = 'c')
  and not exists (select from pg_catalog.pg_type e where e.typarray = t.oid)
  and not exists (select from ext where ext.classid = 'pg_catalog.pg_type'::regclass and ext.objid = t.oid)
union all
select 'policy', c.q || '.' || quote_ident(p.polname), concat_ws(' | ', p.polcmd, p.polpermissive,
  (select string_agg(case r when 0 then 'public' else pg_get_userbyid(r) end, ' ' order by r = 0, pg_get_userbyid(r)) from unnest(p.polroles) r),
  pg_get_expr(p.polqual, p.polrelid), pg_get_expr(p.polwithcheck, p.polrelid))
from pg_catalog.pg_policy p join rel c on c.oid = p.polrelid
union all
select 'role', quote_ident(r.rolname), concat_ws(' | ', r.rolsuper, r.rolinherit, r.rolcreaterole, r.rolcreatedb, r.rolcanlogin, r.rolreplication,
  r.rolbypassrls, r.rolconnlimit, r.rolvaliduntil,
  (select string_agg(s, ' ' order by s) from unnest(r.rolconfig) s),
  (select string_agg(distinct pg_get_userbyid(m.roleid) || case when m.admin_option then ' admin' else '' end, ' ')
    from pg_catalog.pg_auth_members m where m.member = r.oid))
from pg_catalog.pg_roles r where r.rolname !~ '^pg_'
union all
select 'extension', quote_ident(e.extname), quote_ident(n.nspname)
from pg_catalog.pg_extension e join pg_catalog.pg_namespace n on n.oid = e.extnamespace
order by 1, 2
"#;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_in_another_form_is_none() {
        let row = |values: &[&str]| values.iter().map(|v| Some((*v).to_owned())).collect::<Vec<_>>();
        let object = SchemaObject { class: ObjectClass::Index, name: "a".into(), definition: "d".into() };
        assert_eq!(objects(Rows(vec![row(&["index", "a", "d"])])).unwrap(), [object]);
        assert!(objects(Rows(vec![row(&["index", "a"])])).is_err());
        assert!(objects(Rows(vec![row(&["idea", "a", "d"])])).is_err());
        assert!(!question(11).contains("attgenerated") && question(15).contains("attgenerated"));
    }
}
