//! Scenario files and settings: valid, or every mistake at once with its line and advice.

use std::path::Path;

use firedrill::config::{ConfigError, Mistakes, Origin, Overrides, load_settings, parse_scenario, scenario_schema, settings_schema};
use firedrill::domain::{
    AnchorKind, BaselineSource, CheckKind, LockMode, Period, RETENTION, Sample, Scenario, ScratchKind, SecretRef, StorageLocation,
};
use firedrill::storage::Environment;

const FULL: &str = r#"
name        = "ehr"
system      = "Electronic health records"
criticality = "critical"
plan        = { id = "CP-014", version = "3.2" }

[objectives]
rpo = "24h"
rto = "4h"

[schedule]
cron      = "0 3 1 1,4,7,10 *"
time_zone = "America/Chicago"

[source]
url      = "s3://acme-backups/ehr"
endpoint = "https://s3.example.org"

[source.policy]
encrypted = true
lock      = { mode = "compliance", remaining = "30d" }

[unlock]
age_identities = ["file:keys/ehr.agekey", "env:EHR_AGE_KEY"]
trusted_producers = ["file:keys/backup-host.pub"]

[sandbox]
memory  = "2GiB"
scratch = { kind = "tmpfs", size = "8GiB" }
time    = "2h"

[[restore]]
method = "archive"

[[check]]
kind = "manifest"

[[check]]
kind    = "files"
name    = "records are there"
pattern = "records/**/*.json"
count   = ">= 1000"

[[check]]
kind    = "command"
command = ["sqlite3", "records.db", "pragma integrity_check"]
stdout  = "^ok"

[[check]]
kind    = "freshness"
pattern = "records/**"
"#;

fn parse(text: &str) -> Result<Scenario, Mistakes> {
    parse_scenario(text, Path::new("scenarios/ehr.toml"), Path::new("/etc/firedrill/scenarios")).map_err(|error| match error {
        ConfigError::Mistakes(mistakes) => mistakes,
        other => panic!("{other}"),
    })
}

#[test]
fn a_full_scenario_becomes_values() {
    let scenario = parse(FULL).unwrap();
    assert_eq!(scenario.objectives.rpo, Some(Period::from_secs(86_400)));
    // a prefix is a folder, so that `ehr` never selects from `ehr-test`
    assert_eq!(scenario.source.location, StorageLocation::S3 { bucket: "acme-backups".into(), prefix: "ehr/".into() });
    assert_eq!(scenario.source.policy.lock.unwrap().mode, LockMode::Compliance);
    assert_eq!(scenario.unlock.identities[0], SecretRef::File("/etc/firedrill/scenarios/keys/ehr.agekey".into()));
    assert_eq!(scenario.checks.len(), 4);
    assert!(matches!(&scenario.checks[2].kind, CheckKind::Command { exit: 0, .. }));
}

#[test]
fn every_mistake_is_told_at_once_with_file_line_and_advice() {
    let text = r#"name = "EHR!"
system = ""
criticality = "urgent"
colour = "red"

[objectives]
rpo = "tomorrow"
rto = 4

[schedule]
cron = "0 3 * *"
time_zone = "America/Chicgo"

[source]
url = "s3://"
endpont = "https://s3.example.org"
policy = { lock = { mode = "compliance" } }

[[check]]
kind = "files"
count = "about 3"

[[check]]
kind = "telepathy"
"#;
    let mistakes = parse(text).unwrap_err();
    let shown = mistakes.to_string();
    for (line, what) in [
        (3, "`criticality` cannot be \"urgent\""),
        (4, "unknown key `colour`"),
        (8, "`rto` must be a string in quotes"),
        (16, "unknown key `endpont`"),
        (17, "`remaining` is missing in `lock`"),
        (24, "there is no check of this kind"),
        // and what only a reader of the whole notices, in the same go
        (1, "cannot name a scenario"),
        (2, "the system has no name"),
        (7, "is not a length of time"),
        (11, "has five fields"),
        (12, "there is no time zone"),
        (15, "the bucket has no name"),
        (21, "is not a comparison"),
    ] {
        let mistake = mistakes.list.iter().find(|m| m.what.contains(what)).unwrap_or_else(|| panic!("{what} in\n{shown}"));
        assert_eq!(mistakes.line_of(mistake), line, "{what}\n{shown}");
    }
    assert_eq!(mistakes.list.len(), 14, "nothing is told that is no mistake of the file\n{shown}");
    assert!(shown.contains("did you mean `endpoint`?"), "{shown}");
    assert!(shown.contains("scenarios/ehr.toml:4"), "{shown}");
    assert!(shown.contains("nothing was run"), "{shown}");
}

#[test]
fn encrypted_scratch_names_the_directory_that_it_is_made_in() {
    let tmpfs = "scratch = { kind = \"tmpfs\", size = \"8GiB\" }";
    let with = |scratch: &str| parse(&FULL.replace(tmpfs, &format!("scratch = {scratch}")));
    let limits = with("{ kind = \"encrypted\", size = \"200GiB\", path = \"/var/tmp\" }").unwrap().limits;
    assert_eq!((limits.scratch, limits.scratch_path), (ScratchKind::Encrypted, Some("/var/tmp".into())));
    let mistakes = with("{ kind = \"encrypted\", size = \"200GiB\" }").unwrap_err();
    assert!(mistakes.list[0].what.contains("needs a `path`"), "{mistakes}");
}

#[test]
fn what_a_schema_cannot_say_is_told_as_well_all_at_once() {
    let text = FULL
        .replace("\"ehr\"", "\"EHR!\"")
        .replace("\"24h\"", "\"tomorrow\"")
        .replace("0 3 1 1,4,7,10 *", "0 3 * *")
        .replace("America/Chicago", "America/Chicgo")
        .replace("https://s3.example.org", "http://s3.example.org")
        .replace("file:keys/ehr.agekey", "AGE-SECRET-KEY-1QQQQQQQQ")
        .replace(">= 1000", "lots")
        .replace("\"^ok\"", "\"(\"")
        .replace("pattern = \"records/**\"\n", "");
    let mistakes = parse(&text).unwrap_err();
    let shown = mistakes.to_string();
    for what in [
        "cannot name a scenario",
        "is not a length of time",
        "has five fields",
        "there is no time zone",
        "plain http endpoint",
        "not a reference to a secret",
        "is not a comparison",
        "not a regular expression",
        "looks at nothing",
    ] {
        assert!(mistakes.list.iter().any(|m| m.what.contains(what)), "{what} in\n{shown}");
    }
    assert_eq!(mistakes.list.len(), 9, "{shown}");
}

#[test]
fn checks_of_databases_are_read_with_their_mistakes() {
    let scenario = |more: &str| {
        let head = "name = \"ehr\"\nsystem = \"EHR\"\n[source]\nurl = \"s3://b/ehr/\"\n[[restore]]\nmethod = \"archive\"\n";
        parse(&format!("{head}{more}"))
    };
    let good = scenario(
        "[[check]]\nkind = \"schema\"\nignore = [\"role\"]\n[[check]]\nkind = \"content\"\nsample = \"1%\"\nbaseline = \"restored:b.json\"\n\
         [[check]]\nkind = \"integrity\"\n[regression]\nwarn = \"5%\"\n",
    )
    .unwrap();
    assert!(matches!(&good.checks[0].kind, CheckKind::Schema { baseline: BaselineSource::LastPassed, .. }));
    assert!(matches!(&good.checks[1].kind, CheckKind::Content { sample: Some(Sample { per_million: 10_000 }), .. }));
    assert_eq!((good.regression.warn, good.regression.fail), (Some(5.0), None));
    assert!(good.compares_with_last());
    let mistakes = scenario(
        "[[check]]\nkind = \"schema\"\nbaseline = \"yesterday\"\n[[check]]\nkind = \"content\"\nsample = \"200%\"\n\
         [[check]]\nkind = \"canary\"\nquery = \"q\"\nfile = \"f\"\n\
         [[check]]\nkind = \"references\"\nfrom = { query = \"q\", field = \"x\" }\nto = { files = \"**\", name = \"(\" }\n\
         [regression]\nwarn = \"30%\"\nfail = \"20%\"\nslower = \"much\"\n",
    )
    .unwrap_err();
    let shown = mistakes.to_string();
    for what in [
        "names no baseline",
        "no part of the rows",
        "in one place",
        "one query or of files",
        "not a regular expression",
        "more than what fails",
        "no percentage",
    ] {
        assert!(mistakes.list.iter().any(|m| m.what.contains(what)), "{what} in\n{shown}");
    }
    assert_eq!(mistakes.list.len(), 7, "{shown}");
}

#[test]
fn a_secret_written_into_a_scenario_is_not_repeated_by_the_message() {
    let text = FULL.replace("file:keys/ehr.agekey", "AGE-SECRET-KEY-1QQQQQQQQ");
    let mistakes = parse(&text).unwrap_err();
    assert!(mistakes.list.iter().all(|m| !m.what.contains("AGE-SECRET") && !m.advice.as_deref().unwrap_or("").contains("AGE-SECRET")));
}

#[test]
fn a_manifest_check_on_bare_objects_is_a_mistake() {
    let text = FULL.replace(
        "url      = \"s3://acme-backups/ehr\"",
        "url = \"s3://acme-backups/ehr\"\npoints = \"{captured_at:%Y-%m-%dT%H%M}.tar.zst.age\"",
    );
    let mistakes = parse(&text).unwrap_err();
    assert!(mistakes.list[0].what.contains("bare objects carry no manifest"));
    // and the pattern itself is checked
    let text = text.replace("%Y-%m-%dT%H%M", "%Q");
    assert_eq!(parse(&text).unwrap_err().list.len(), 2);
}

#[test]
fn components_have_sources_and_an_order_of_their_own() {
    let component =
        |name: &str, after: &str| format!("[[component]]\nname = \"{name}\"\nafter = [{after}]\nsource = {{ url = \"file:{name}\" }}\n");
    let of = |rest: &str| parse(&format!("name = \"ehr\"\nsystem = \"EHR\"\n{rest}"));
    let good = of(&(component("files", "\"db\"") + &component("db", "") + &component("log", "\"files\", \"db\""))).unwrap();
    assert_eq!(good.components.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["db", "files", "log"]);
    assert_eq!(good.parts().iter().filter_map(|part| part.within.clone()).collect::<Vec<_>>(), ["db", "files", "log"]);
    for (rest, what) in [
        (component("a", "\"b\"") + &component("b", "\"a\""), "wait for each other"),
        (component("a", "\"x\""), "no component is called `x`"),
        (component("a", "") + &component("a", ""), "two components are called"),
        (component("A b", ""), "cannot name a component"),
        (format!("[source]\nurl = \"file:x\"\n{}", component("a", "")), "each component has a source"),
        (format!("[[restore]]\nmethod = \"archive\"\n{}", component("a", "")), "services alone"),
        (component("a", "") + "[[component.restore]]\nmethod = \"postgres\"\ndump = \"x\"\n", "starts no services"),
        (String::new(), "no source says where the backups are"),
    ] {
        let mistakes = of(&rest).unwrap_err();
        assert!(mistakes.list.iter().any(|m| m.what.contains(what)), "{what} in\n{mistakes}");
    }
}

#[test]
fn broken_toml_is_told_with_its_line() {
    let mistakes = parse("name = \"a\nsystem = 1 = 2\n").unwrap_err();
    assert!(mistakes.list.len() >= 2, "{mistakes}");
}

/// The published schema is the one the parser uses, and agrees with it on good files and bad.
#[test]
fn the_published_schemas_are_true() {
    for (path, schema) in [("docs/schema/scenario.schema.json", scenario_schema()), ("docs/schema/settings.schema.json", settings_schema())]
    {
        let text = serde_json::to_string_pretty(&schema).unwrap() + "\n";
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        if std::env::var_os("FIREDRILL_BLESS").is_some() {
            std::fs::write(&path, &text).unwrap();
        }
        let published = std::fs::read_to_string(&path).unwrap_or_default();
        assert_eq!(published, text, "{} is out of date: run the tests once with FIREDRILL_BLESS=1", path.display());
    }
    let validator = jsonschema::validator_for(&scenario_schema()).unwrap();
    let as_json = |text: &str| serde_json::to_value(toml::from_str::<toml::Table>(text).unwrap()).unwrap();
    assert!(validator.is_valid(&as_json(FULL)));
    for (from, to) in
        [("critical\"", "urgent\""), ("rto = \"4h\"", "rto = 4"), ("kind = \"manifest\"", "kind = \"x\""), ("system ", "sistem ")]
    {
        let text = FULL.replace(from, to);
        assert!(!validator.is_valid(&as_json(&text)) && parse(&text).is_err(), "{to}");
    }
}

#[test]
fn settings_come_from_defaults_file_environment_and_flags_in_this_order() {
    let home = tempfile::tempdir().unwrap();
    let none = Environment::default();
    let settings = load_settings(&Overrides::default(), &none, home.path()).unwrap();
    assert_eq!(settings.store, (home.path().join("evidence"), Origin::Default));

    std::fs::write(home.path().join("firedrill.toml"), "[evidence]\nstore = \"proofs\"\n").unwrap();
    let settings = load_settings(&Overrides::default(), &none, home.path()).unwrap();
    assert_eq!(settings.store.0, home.path().join("proofs"));
    assert!(matches!(settings.store.1, Origin::File(_)));

    let environment = Environment::new([("FIREDRILL_EVIDENCE".to_owned(), "/env".to_owned())]);
    let settings = load_settings(&Overrides::default(), &environment, home.path()).unwrap();
    assert_eq!(settings.store, ("/env".into(), Origin::Environment("FIREDRILL_EVIDENCE")));

    let flags = Overrides { store: Some("/flag".into()), ..Overrides::default() };
    assert_eq!(load_settings(&flags, &environment, home.path()).unwrap().store, ("/flag".into(), Origin::Flag));
}

#[test]
fn mistakes_in_settings_are_told_and_a_named_file_must_exist() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("firedrill.toml"), "[evidnce]\n[state]\ndirectory = 3\n").unwrap();
    let ConfigError::Mistakes(mistakes) = load_settings(&Overrides::default(), &Environment::default(), home.path()).unwrap_err() else {
        panic!("unreadable?")
    };
    assert_eq!(mistakes.list.len(), 2, "{mistakes}");
    let named = Overrides { config: Some("absent.toml".into()), ..Overrides::default() };
    assert!(matches!(load_settings(&named, &Environment::default(), home.path()), Err(ConfigError::Unreadable { .. })));
}

#[test]
fn places_outside_are_read_and_their_mistakes_are_told() {
    let home = tempfile::tempdir().unwrap();
    let load = |text: &str| {
        std::fs::write(home.path().join("firedrill.toml"), text).unwrap();
        load_settings(&Overrides::default(), &Environment::default(), home.path())
    };
    let good = load(
        "[evidence]\narchive = { url = \"s3://safe/firedrill\", access_key_id = \"env:ID\", secret_access_key = \"file:secret\" }\n\
         [[ledger.anchor]]\nname = \"other-account\"\nbucket = { url = \"s3://other\", mode = \"governance\", retention = \"30d\" }\n\
         [[ledger.anchor]]\nname = \"authority\"\nevery = \"7d\"\ntimestamp = { url = \"http://tsa.example\", ca = \"tsa.pem\" }\n\
         [[ledger.anchor]]\nname = \"stick\"\ndirectory = \"stick\"\n",
    )
    .unwrap();
    let archive = good.archive.unwrap();
    assert_eq!((archive.prefix.as_str(), archive.mode, archive.retention), ("firedrill/", LockMode::Compliance, RETENTION));
    assert_eq!(archive.key.unwrap().secret, SecretRef::File(home.path().join("secret")));
    let kinds: Vec<&AnchorKind> = good.anchors.iter().map(|place| &place.kind).collect();
    assert!(matches!(kinds[..], [AnchorKind::Bucket(_), AnchorKind::Timestamp { .. }, AnchorKind::Directory(_)]));
    let anchor = |keys: &str| format!("[[ledger.anchor]]\nname = \"a\"\n{keys}\n");
    for (text, what) in [
        ("[evidence.archive]\nurl = \"file:x\"".to_owned(), "a directory has no object lock"),
        ("[evidence.archive]\nurl = \"s3://x\"\nendpoint = \"http://x\"".to_owned(), "plain http"),
        ("[evidence.archive]\nurl = \"s3://x\"\naccess_key_id = \"env:X\"".to_owned(), "one of them is missing"),
        ("[evidence.archive]\nurl = \"s3://x\"\naccess_key_id = \"AKIA\"\nsecret_access_key = \"env:X\"".to_owned(), "not a reference"),
        ("[evidence.archive]\nurl = \"s3://x\"\nretention = \"0s\"".to_owned(), "no time at all"),
        ("[evidence.archive]\nurl = \"s3://x\"\nretention = \"long\"".to_owned(), "not a length of time"),
        (anchor(""), "an anchor is one of"),
        (anchor("directory = \"x\"\nbucket = { url = \"s3://x\" }"), "an anchor is one of"),
        (anchor("timestamp = { url = \"tsa.example\", ca = \"x\" }"), "this is no url"),
        (anchor("directory = \"x\"") + &anchor("directory = \"y\""), "cannot name an anchor"),
        (anchor("directory = \"x\"").replace("\"a\"", "\"../a\""), "cannot name an anchor"),
    ] {
        let Err(ConfigError::Mistakes(mistakes)) = load(&text) else { panic!("taken: {text}") };
        assert!(mistakes.list.iter().any(|m| m.what.contains(what)), "{what} in\n{mistakes}");
    }
}
