//! Rooms look only downwards: the table of `ARCHITECTURE.md`, held against our own `use` lines.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Room → the rooms that it may look at.
const TABLE: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("clock", &["domain"]),
    ("codec", &["domain"]),
    ("storage", &["domain"]),
    ("tree", &["domain"]),
    ("vault", &["domain", "codec", "storage"]),
    ("sandbox", &["domain"]),
    ("restore", &["domain", "codec", "tree", "vault", "sandbox"]),
    ("checks", &["domain", "tree", "sandbox"]),
    ("seal", &["domain", "codec", "storage", "tree"]),
    ("evidence", &["domain"]),
    ("archive", &["domain", "storage", "evidence"]),
    ("report", &["domain", "evidence"]),
    ("drill", &["domain", "clock", "codec", "tree", "vault", "sandbox", "restore", "checks", "evidence"]),
    ("schedule", &["domain", "clock", "evidence", "drill"]),
    ("state", &["domain", "schedule"]),
    ("config", &["domain", "storage", "checks", "schedule"]),
    (
        "cli",
        &[
            "domain", "clock", "codec", "storage", "vault", "sandbox", "restore", "checks", "seal", "evidence", "archive", "report",
            "drill", "schedule", "state", "config", "app",
        ],
    ),
    (
        "app",
        &[
            "domain", "clock", "codec", "storage", "vault", "sandbox", "restore", "checks", "seal", "evidence", "archive", "report",
            "drill", "schedule", "state", "config",
        ],
    ),
];

/// What the verifier compiles.
const WITHOUT_RUNNER: &[&str] = &["domain", "evidence"];

fn source_files(directory: &Path, into: &mut Vec<std::path::PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            source_files(&path, into);
        } else if path.extension().is_some_and(|e| e == "rs") {
            into.push(path);
        }
    }
}

/// Names of rooms that a text mentions as `crate::ROOM`, in use lines (nested ones too) and in paths.
fn looks_at(text: &str) -> BTreeSet<String> {
    let code: String = text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n");
    let mut rooms = BTreeSet::new();
    for after in code.split("crate::").skip(1) {
        if let Some(group) = after.strip_prefix('{') {
            let group = group.split(';').next().unwrap_or("");
            rooms.extend(TABLE.iter().map(|(room, _)| *room).filter(|room| group.contains(&format!("{room}::"))).map(str::to_owned));
        } else {
            rooms.insert(after.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    rooms
}

#[test]
fn rooms_look_only_downwards() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for entry in fs::read_dir(&src).unwrap() {
        let path = entry.unwrap().path();
        if !path.is_dir() || path.ends_with("bin") {
            continue;
        }
        let room = path.file_name().unwrap().to_str().unwrap().to_owned();
        let Some((_, allowed)) = TABLE.iter().find(|(name, _)| *name == room) else {
            wrong.push(format!("`{room}` has no floor: add it to the table here and in ARCHITECTURE.md"));
            continue;
        };
        let mut files = Vec::new();
        source_files(&path, &mut files);
        for file in files {
            for seen in looks_at(&fs::read_to_string(&file).unwrap()) {
                if seen != room && TABLE.iter().any(|(name, _)| *name == seen) && !allowed.contains(&seen.as_str()) {
                    wrong.push(format!("{} looks at `{seen}`, which `{room}` may not", file.strip_prefix(&src).unwrap().display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_is_the_one_in_the_architecture() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    for (room, _) in TABLE {
        assert!(text.contains(&format!("| `{room}` |")), "ARCHITECTURE.md has no row for `{room}`");
    }
}

#[test]
fn the_verifier_needs_no_runner() {
    for room in WITHOUT_RUNNER {
        let (_, allowed) = TABLE.iter().find(|(name, _)| name == room).unwrap();
        assert!(allowed.iter().all(|r| WITHOUT_RUNNER.contains(r)), "{room}");
    }
}

/// The vault has no way to write: no method of the object store that writes is even named in it.
#[test]
fn the_vault_cannot_write() {
    let mut files = Vec::new();
    source_files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/vault"), &mut files);
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap();
        for verb in [
            ".put(",
            ".put_opts(",
            ".put_multipart",
            ".delete(",
            ".delete_stream(",
            ".copy(",
            ".rename(",
            "Method::PUT",
            "Method::DELETE",
            "Method::POST",
        ] {
            assert!(!code.contains(verb), "{} names `{verb}`", file.display());
        }
    }
}

#[test]
fn a_look_upwards_would_be_seen() {
    assert!(looks_at("use crate::drill::run;").contains("drill"));
    assert!(looks_at("use crate::{domain::X, vault::Y};").contains("vault"));
    assert!(looks_at("fn f(x: crate::cli::Exit) {}").contains("cli"));
    assert!(!looks_at("// crate::cli is above").contains("cli"));
}
