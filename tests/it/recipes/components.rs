//! Systems of several components: each backed up apart, restored into one sandbox, dated and checked together.

use super::databases::Server;
use super::{Harm, Vault};
use crate::drills::{Drilled, Home, zstd_bytes};
use crate::scenarios::at_home;
use crate::servers::{Locking, ceph};

/// A database and the documents that it names, backed up by different tools into one bucket.
#[test]
fn a_database_and_its_documents_come_back_as_one_system() {
    let home = Home::new();
    let server = Server::postgres();
    home.write("keys/restic.password", "a password of restic's\n");
    let vault = Vault::new(&home, Locking::Off);
    home.shell("mkdir -p documents/2026; for n in 1 2 3; do echo '{}' > documents/2026/$n.json; done");
    let restic = "export RESTIC_REPOSITORY=s3:$ENDPOINT/$BUCKET/documents RESTIC_PASSWORD_FILE=$PWD/keys/restic.password; cd documents; \
                  restic --no-cache -q";
    vault.shell(&format!("{restic} init"));
    vault.shell(&format!("{restic} backup ."));
    let dump = |hours: i64| {
        server.shell(&[], "createdb ehr 2>/dev/null || true; pg_dump -Fc postgres > ehr.dump");
        let name = home.bare_name(hours).replace(".tar.zst.age", ".dump.age");
        home.write(&format!("dumps/{name}"), home.age(&std::fs::read(server.path("ehr.dump")).unwrap()));
        vault.shell(&format!("rclone -q copy dumps/{name} s3:$BUCKET/ehr-db/"));
    };
    dump(1);
    let (endpoint, ca) = (ceph().https(), ceph().ca_file().display().to_string());
    let mut place: Vec<(&str, toml::Value)> = Vec::new();
    for (url, prefix, at, authority) in [
        ("database.url", "ehr-db", "database.endpoint", "database.ca_file"),
        ("documents.url", "documents", "documents.endpoint", "documents.ca_file"),
    ] {
        place.push((url, format!("s3://{}/{prefix}/", vault.bucket).into()));
        place.extend([(at, endpoint.clone().into()), (authority, ca.clone().into())]);
    }
    let scenario = at_home(&home, "database-and-documents", &place);
    let drilled = vault.passes(&scenario);
    let report = &drilled.report;
    let components = report["components"].as_array().unwrap();
    let names: Vec<_> = components.iter().map(|c| (c["name"].as_str().unwrap(), c["restored"]["files"].as_u64().unwrap())).collect();
    assert_eq!(names, [("database", 1), ("documents", 3)]);
    assert_eq!(report["restored"]["files"], 4);
    let skew = report["measurements"]["skew"].as_u64().unwrap();
    assert!((3_000..4_300).contains(&skew), "an hour between the two, not {skew} s");
    let phases: Vec<_> = report["timeline"].as_array().unwrap().iter().map(|p| (p["phase"].as_str(), p["component"].as_str())).collect();
    assert!(phases.contains(&(Some("restore"), Some("documents"))) && phases.contains(&(Some("load"), None)), "{phases:?}");
    // what both storages gave is one chain
    assert!(report["backup"]["chain"]["summary"]["objects"].as_u64().unwrap() > 3, "{:#}", report["backup"]["chain"]["summary"]);
    for command in ["points", "plan", "doctor"] {
        let mut asked = home.command(&[command, scenario.to_str().unwrap()]);
        asked.env("AWS_ACCESS_KEY_ID", crate::servers::ACCESS).env("AWS_SECRET_ACCESS_KEY", crate::servers::SECRET);
        let said = crate::drills::said(asked.output().unwrap());
        assert!(said.stdout.contains("database") && said.stdout.contains("documents"), "{command}\n{}\n{}", said.stdout, said.stderr);
    }

    {
        let _rot = vault.damage(&vault.biggest("documents/data"), Harm::Flip);
        vault.run(&scenario).ends("FAILED").blames_backup("tool_failed", &[("tool", "restic")]);
    }
    // the database's backup stopped; the documents' went on: the system is as old as the older
    vault.shell("rclone -q delete s3:$BUCKET/ehr-db/");
    dump(30);
    let drilled = vault.run(&scenario).ends("FAILED");
    drilled.blames_backup("objective_missed", &[("objective", "rpo")]);
    let missed: Vec<_> =
        drilled.findings().into_iter().filter(|f| f["finding"] == "objective_missed").map(|f| f["objective"].clone()).collect();
    assert!(missed.contains(&"skew".into()), "{missed:?}");
}

fn sealed_and_bare(home: &Home) -> std::path::PathBuf {
    home.tree();
    home.shell("mkdir -p backups/files backups/bare");
    home.fire(&["seal", "tree", "--to", "file:backups/files", "-r", &home.recipient]).exits(0);
    home.shell("tar -C tree -cf other.tar patients.csv");
    home.write(&format!("backups/bare/{}", home.bare_name(1)), home.age(&zstd_bytes(&std::fs::read(home.path("other.tar")).unwrap())));
    home.write(
        "scenarios/two.toml",
        r#"name = "two"
system = "Files, twice"
[unlock]
age_identities = ["file:../keys/records.agekey"]
[sandbox]
memory = "128MiB"
processes = 32
scratch = { kind = "tmpfs", size = "64MiB" }
[[component]]
name = "later"
after = ["sooner"]
source = { url = "file:../backups/bare", points = "{captured_at:%Y-%m-%dT%H%M}.tar.zst.age" }
[[component]]
name = "sooner"
source = { url = "file:../backups/files" }
[[check]]
kind = "manifest"
[[check]]
kind = "command"
name = "both are there, apart"
command = ["cmp", "sooner/patients.csv", "later/patients.csv"]
"#,
    )
}

#[test]
fn components_are_restored_in_order_and_held_against_their_own_manifests() {
    let home = Home::new();
    let scenario = sealed_and_bare(&home);
    let drilled: Drilled = home.drill(&scenario).ends("PASSED");
    let names: Vec<_> = drilled.report["components"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["sooner", "later"]);
    let checks: Vec<_> = drilled.report["checks"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(checks, ["manifest (sooner)", "both are there, apart"]);
    drilled.left_nothing();
    // one of them is gone: nothing is said of the other
    home.shell("rm backups/bare/*");
    home.drill(&scenario).ends("FAILED").blames_backup("no_recovery_point", &[]);
    // one of them cannot be reached: nothing is learned
    home.shell("rmdir backups/bare");
    home.drill(&scenario).ends("INCONCLUSIVE");
    home.fire(&["run", "scenarios/two.toml", "--point", "x"]).exits(2).says(&["--point", "--as-of"]);
}
