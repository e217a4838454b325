//! What `pg_basebackup` and its like copy: a data directory, verified against its manifest, put to rights for a server of ours, and
//! recovered (`recovery.rs`) with WAL that was read before (`archive.rs`).

use std::io::Read;
use std::path::Path;

use super::super::usable::Loaded;
use super::super::{Input, Job, ServiceError, Shop, how};
use super::cluster::{Cluster, choose, controldata, installed};
use super::recovery::{self, Control};
use crate::domain::{Lsn, PhysicalBackup, PostgresStep, RestorePath, ServiceProblem, Severity};
use crate::restore::tool::last_words;
use crate::sandbox::DATA_DIRECTORY;

/// Of a label, a map or a version: more is none.
const SMALL: u64 = 1 << 20;

/// What `backup_label` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Label {
    /// From where on WAL is needed.
    pub(super) start: Lsn,
    pub(super) timeline: u32,
    /// Taken from a standby: no record says where the backup ends.
    pub(super) standby: bool,
    /// It holds what changed since another backup.
    incremental: bool,
}

pub(super) async fn load(shop: &Shop<'_>, step: &PostgresStep, backup: &PhysicalBackup) -> Result<Loaded<Cluster>, ServiceError> {
    let first = part(shop, 0, &backup.base).await?;
    let recorded = version_of(shop, &first.data)?;
    if label(shop, &first.data)?.is_some_and(|label| label.incremental) {
        let how = "its label says that it holds only what changed since another backup: `base` must be a whole one";
        return Err(ServiceError::backup(ServiceProblem::FilesMissing, how, []));
    }
    let (form, mut parts) = (first.form, vec![first]);
    for (pattern, number) in backup.incrementals.iter().zip(1..) {
        parts.push(part(shop, number, pattern).await?);
    }
    // by the servers's own program, or, where it is not installed, by the newest: rot is rot whoever would start
    let programs = match choose(None, Some(recorded), shop.directories) {
        Ok((_, programs)) => programs,
        Err(error) => installed(shop.directories).pop_last().ok_or(error)?.1,
    };
    let program = |name: &str| programs.join(name).display().to_string();
    let newer = installed(shop.directories).keys().all(|installed| *installed < recorded).then_some(recorded);
    for (part, number) in parts.iter_mut().zip(0..) {
        set_aside(shop, number, &part.data).await?;
        part.tablespaces = tablespaces(shop, number, &part.data, backup).await?;
        verify(shop, &program("pg_verifybackup"), newer, part).await?;
    }
    let (major, programs) = choose(step.version, Some(recorded), shop.directories)?;
    if major != recorded {
        let how = format!("its files are of version {recorded}, and a server of version {major} cannot run on them");
        return Err(ServiceError::backup(ServiceProblem::OtherVersion, how, []));
    }
    let Part { data: base, tablespaces, .. } = match parts.as_slice() {
        [_] => parts.remove(0),
        _ => combine(shop, &programs, recorded, &parts).await?,
    };
    map_tablespaces(shop, &base, &tablespaces).await?;
    let control = control(shop, &program("pg_controldata"), &base).await?;
    let label = label(shop, &base)?;
    if label.is_none() && !control.shut_down() {
        let how = "it has no backup_label, and was copied from a running server: whole only if all files were taken at one instant";
        shop.remark(Severity::Warn, ServiceProblem::Undescribed, how, []);
    }
    let mut cluster = Cluster::new(shop, major, programs, base.inside.clone(), &step.user)?;
    cluster.database.clone_from(&step.database);
    let recovery = recovery::recover(shop, step, backup, &cluster, &base, &control, label.as_ref()).await?;
    let upon = match backup.incrementals.len() {
        0 => String::new(),
        1 => ", with an increment".to_owned(),
        n => format!(", with {n} increments"),
    };
    let until = recovery.as_ref().map_or(String::new(), |recovery| format!(", recovered to {}", recovery.target));
    let method = format!("data directory {form}{upon}{until}");
    Ok(Loaded { recovery, ..Loaded::new(cluster, Some(recorded.to_string()), method) })
}

/// A backup, or an increment upon one.
struct Part {
    /// What was restored.
    given: Input,
    /// Its data directory.
    data: Input,
    /// How that came about.
    form: &'static str,
    /// Where each tablespace is, inside, by its OID.
    tablespaces: Vec<(u32, String)>,
}

async fn part(shop: &Shop<'_>, number: usize, pattern: &str) -> Result<Part, ServiceError> {
    let given = shop.input(pattern)?;
    let (data, form) = unpack(shop, number, &given).await?;
    Ok(Part { given, data, form, tablespaces: Vec::new() })
}

/// A shell script inside, with arguments.
async fn script(shop: &Shop<'_>, what: &str, script: &str, args: &[&str]) -> Result<(), ServiceError> {
    let exit = shop.run(Job::new(["bash", "-euo", "pipefail", "-c", script, "bash"]).args(args.iter().copied())).await?;
    if exit.success() {
        return Ok(());
    }
    if let Some(full) = shop.sandbox.scratch_is_full() {
        return Err(full.into());
    }
    Err(ServiceError::runner(format!("{what}: the script {}", how(&exit)), last_words(&exit)))
}

/// Makes an empty file in the data directory.
pub(super) async fn touch(shop: &Shop<'_>, base: &Input, name: &str) -> Result<(), ServiceError> {
    script(shop, "the data directory cannot be written", ": > \"$1\"", &[&format!("{}/{name}", base.inside)]).await
}

/// A small text of the data directory; `None` where there is none.
pub(super) fn text(shop: &Shop<'_>, base: &Input, name: &str) -> Option<String> {
    let mut text = Vec::new();
    shop.open_below(base, name).ok()?.take(SMALL).read_to_end(&mut text).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

pub(super) fn below(directory: &Input, name: &str) -> Result<Input, ServiceError> {
    let path = RestorePath::from_bytes(directory.path.as_path().join(name).as_os_str().as_encoded_bytes());
    let path = path.map_err(|e| ServiceError::runner(e.to_string(), []))?;
    Ok(Input { path, inside: format!("{}/{name}", directory.inside), directory: true, size: 0 })
}

/// The data directory, as it lies there or out of its tars.
async fn unpack(shop: &Shop<'_>, number: usize, given: &Input) -> Result<(Input, &'static str), ServiceError> {
    let unusable = |how: &str| Err(ServiceError::backup(ServiceProblem::InputUnusable, how, []));
    if !given.directory {
        return unusable("a base backup is a directory: the data directory, or the one that base.tar is in");
    }
    if shop.open_below(given, "PG_VERSION").is_ok() {
        let taken = "grep -qsxF -e \"data_directory = '$1'\" \"$2\"/*/etc/postgresql.conf";
        let places = shop.home().rsplit_once('/').map_or(String::new(), |(places, _)| places.to_owned());
        if shop.run(Job::new(["bash", "-c", taken, "bash", &given.inside, &places])).await?.success() {
            let reason = "another service runs on this very directory: recover tars, or copies of it, to several points";
            return Err(ServiceError::runner(reason, []));
        }
        return Ok((given.clone(), "as it lies"));
    }
    let depth = given.path.depth() + 1;
    let tars = shop.files_below(given)?.into_iter().filter(|input| input.path.depth() == depth).filter_map(|input| {
        let name = input.path.as_path().file_name()?.to_str()?.to_owned();
        let (stem, packed) = name.split_once(".tar")?;
        let unpacker =
            super::archive::PACKED.iter().find(|(ending, _)| packed.strip_prefix('.') == Some(ending)).map(|(_, program)| *program);
        let place = match stem {
            "base" => String::new(),
            "pg_wal" => "pg_wal".to_owned(),
            oid if oid.bytes().all(|b| b.is_ascii_digit()) && !oid.is_empty() => format!("pg_tblspc/{oid}"),
            _ => return None,
        };
        (packed.is_empty() || unpacker.is_some()).then_some((place, unpacker.unwrap_or("cat"), input.inside))
    });
    let mut tars: Vec<_> = tars.collect();
    tars.sort();
    if tars.first().is_none_or(|(place, ..)| !place.is_empty()) {
        return unusable("it has no PG_VERSION, as a data directory has, and no base.tar");
    }
    // a place of this service's own: others may recover the same tars to other points
    let base = below(given, &format!(".firedrill-{}-{number}", shop.name))?;
    for (place, unpacker, tar) in &tars {
        let into = format!("{}/{place}", base.inside);
        let unpack = match *unpacker {
            "cat" => "mkdir -p -- \"$1\"; tar -x --no-same-owner -C \"$1\" -f - < \"$2\"",
            _ => "mkdir -p -- \"$1\"; \"$3\" -dc -- \"$2\" | tar -x --no-same-owner -C \"$1\" -f -",
        };
        let exit = shop.run(Job::new(["bash", "-euo", "pipefail", "-c", unpack, "bash", &into, tar, unpacker])).await?;
        if exit.success() {
            continue;
        }
        if let Some(full) = shop.sandbox.scratch_is_full() {
            return Err(full.into());
        }
        if matches!(exit.ended, crate::sandbox::Ended::Status(126 | 127)) {
            return Err(ServiceError::runner(
                format!("tar and {unpacker} unpack the backup, and one of them is not installed here"),
                last_words(&exit),
            ));
        }
        let said = String::from_utf8_lossy(&exit.stderr);
        let early = said.to_ascii_lowercase().contains("unexpected end") || said.contains("Unexpected EOF");
        let problem = if early { ServiceProblem::InputTruncated } else { ServiceProblem::InputDamaged };
        let name = if place.is_empty() { "base.tar" } else { "a tar beside base.tar" };
        return Err(ServiceError::backup(problem, format!("{name} cannot be unpacked: tar {}", how(&exit)), last_words(&exit)));
    }
    Ok((base, "out of tars"))
}

fn version_of(shop: &Shop<'_>, base: &Input) -> Result<u32, ServiceError> {
    let version = text(shop, base, "PG_VERSION").and_then(|text| text.trim().parse().ok());
    match version {
        Some(version) if (12..100).contains(&version) => Ok(version),
        Some(version) if (1..12).contains(&version) => {
            Err(ServiceError::runner(format!("a data directory of version {version} is not recovered here: 12 is the oldest that is"), []))
        }
        _ => Err(ServiceError::backup(ServiceProblem::InputDamaged, "its PG_VERSION names no version", [])),
    }
}

/// What `backup_label` says, where there is one.
fn label(shop: &Shop<'_>, base: &Input) -> Result<Option<Label>, ServiceError> {
    let Some(text) = text(shop, base, "backup_label") else { return Ok(None) };
    let after = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let start = after("START WAL LOCATION:").and_then(|rest| {
        let (start, file) = rest.split_once(" (file ")?;
        Some((start.parse().ok()?, u32::from_str_radix(file.get(..8)?, 16).ok()?))
    });
    let Some((start, timeline)) = start else {
        return Err(ServiceError::backup(ServiceProblem::InputDamaged, "its backup_label does not say where its WAL begins", []));
    };
    let standby = after("BACKUP FROM:") == Some("standby");
    Ok(Some(Label { start, timeline, standby, incremental: after("INCREMENTAL FROM LSN:").is_some() }))
}

/// A backup and the increments upon it, oldest first, put together by the server's own program.
async fn combine(shop: &Shop<'_>, programs: &Path, recorded: u32, parts: &[Part]) -> Result<Part, ServiceError> {
    let program = programs.join("pg_combinebackup");
    if !program.is_file() {
        let reason = format!("increments are put together by pg_combinebackup, which PostgreSQL has since version 17, not in {recorded}");
        return Err(ServiceError::runner(reason, []));
    }
    let [base, .., last] = parts else { unreachable!("two at least") };
    // beside the base, where it is read as a part of nothing
    let (parent, _) = base.given.path.split();
    let parent = RestorePath::from_bytes(parent).map_err(|e| ServiceError::runner(e.to_string(), []))?;
    let inside = base.given.inside.rsplit_once('/').map_or(DATA_DIRECTORY, |(parent, _)| parent).to_owned();
    let data = below(&Input { path: parent, inside, directory: true, size: 0 }, &format!(".firedrill-{}", shop.name))?;
    let room = shop.room("combined")?;
    // each part was held to its own manifest: one of the whole would say of any rot that it is right
    let options = ["--no-sync".to_owned(), "--no-manifest".to_owned(), format!("--output={}", data.inside)];
    let mut argv = vec![program.display().to_string()];
    argv.extend(options);
    let mut tablespaces = Vec::new();
    for (oid, place) in &last.tablespaces {
        let combined = format!("{room}/{oid}");
        argv.push(format!("--tablespace-mapping={}={}", place.replace('=', "\\="), combined.replace('=', "\\=")));
        tablespaces.push((*oid, combined));
    }
    let exit = shop.run(Job::new(argv).args(parts.iter().map(|part| part.data.inside.as_str())).env("LC_ALL", "C")).await?;
    if exit.success() {
        return Ok(Part { given: base.given.clone(), data, form: base.form, tablespaces });
    }
    if let Some(full) = shop.sandbox.scratch_is_full() {
        return Err(full.into());
    }
    let said = String::from_utf8_lossy(&exit.stderr);
    let (problem, why) = if said.contains("expected") && said.contains("starts") {
        (ServiceProblem::LogHole, "an increment does not follow on the one before it")
    } else {
        (ServiceProblem::InputUnusable, "base and increments do not go together")
    };
    Err(ServiceError::backup(problem, format!("{why}: pg_combinebackup {}", how(&exit)), last_words(&exit)))
}

/// Takes out of the way what would let the backup say how the server runs, and what a running server leaves.
async fn set_aside(shop: &Shop<'_>, number: usize, base: &Input) -> Result<(), ServiceError> {
    let aside = shop.room(&format!("aside-{number}"))?;
    let names = "for name in postgresql.auto.conf standby.signal recovery.signal recovery.conf postmaster.pid postmaster.opts; do
        if [ -e \"$1/$name\" ] || [ -L \"$1/$name\" ]; then mv -- \"$1/$name\" \"$2/\"; fi
    done
    # copies leave these out, and some stores do not keep empty directories
    for name in pg_commit_ts pg_dynshmem pg_logical/mappings pg_logical/snapshots pg_notify pg_replslot pg_serial pg_snapshots pg_stat \\
        pg_stat_tmp pg_subtrans pg_tblspc pg_twophase pg_wal/archive_status; do
        mkdir -p -- \"$1/$name\"
    done
    rm -rf -- \"$1\"/pg_replslot/*
    chmod -R u+rwX,go-rwx -- \"$1\"";
    script(shop, "the data directory cannot be put to rights", names, &[&base.inside, &aside]).await
}

/// Where each tablespace is, inside.
///
/// The scenario says it of the base; increments have theirs by their names.
async fn tablespaces(shop: &Shop<'_>, number: usize, base: &Input, backup: &PhysicalBackup) -> Result<Vec<(u32, String)>, ServiceError> {
    // from a tar, the map names them; from a directory, links do
    let map = text(shop, base, "tablespace_map").unwrap_or_default();
    let list = "cd \"$1/pg_tblspc\"; for name in *; do if [ -L \"$name\" ]; then echo \"$name $(readlink -- \"$name\")\"; \
                elif [ -d \"$name\" ]; then echo \"$name\"; fi; done";
    let exit = shop.run(Job::new(["bash", "-c", list, "bash", &base.inside])).await?;
    let listed = String::from_utf8_lossy(&exit.stdout).into_owned();
    let entries = map.lines().chain(listed.lines()).filter_map(|line| {
        let (oid, target) = line.split_once(' ').unwrap_or((line, ""));
        Some((oid.parse::<u32>().ok()?, target.to_owned()))
    });
    let mut found: Vec<(u32, String)> = Vec::new();
    for (oid, target) in entries {
        if found.iter().any(|(known, _)| *known == oid) {
            continue;
        }
        let here = below(base, &format!("pg_tblspc/{oid}"))?;
        let is_here = listed.lines().any(|line| line == oid.to_string());
        let place = match backup.tablespaces.get(&oid).filter(|_| number == 0) {
            Some(pattern) => shop.input(pattern)?.inside,
            None if is_here => here.inside,
            None => by_name(shop, base, &target)?.inside,
        };
        found.push((oid, place));
    }
    // out of the links' way, and linked again; a directory in its place moves, so that every version starts on it
    let relink = "base=$1; shift; while [ $# -gt 0 ]; do
        link=\"$base/pg_tblspc/$1\"
        if [ \"$link\" = \"$2\" ]; then mv -- \"$link\" \"$base.tablespace-$1\"; else rm -f -- \"$link\"; fi
        if [ \"$link\" = \"$2\" ]; then ln -s -- \"$base.tablespace-$1\" \"$link\"; else ln -s -- \"$2\" \"$link\"; chmod -R u+rwX,go-rwx -- \"$2\"; fi
        shift 2
    done";
    let room = shop.room(&format!("tablespaces-{number}"))?;
    let places: Vec<String> = found.iter().flat_map(|(oid, place)| [oid.to_string(), place.clone()]).collect();
    let relink = relink.replace("$base.tablespace-", &format!("{room}/"));
    let args: Vec<&str> = std::iter::once(base.inside.as_str()).chain(places.iter().map(String::as_str)).collect();
    script(shop, "the tablespaces cannot be linked", &relink, &args).await?;
    let moved = |(oid, place): (u32, String)| {
        let is_here = place == format!("{}/pg_tblspc/{oid}", base.inside);
        (oid, if is_here { format!("{room}/{oid}") } else { place })
    };
    Ok(found.into_iter().map(moved).collect())
}

/// The restored directory that a tablespace's link meant, by the longest end of its path that was restored.
fn by_name(shop: &Shop<'_>, base: &Input, target: &str) -> Result<Input, ServiceError> {
    let names: Vec<&str> = target.split('/').filter(|name| !name.is_empty()).collect();
    let escaped = |name: &str| name.chars().flat_map(|c| if "*?[]{}\\".contains(c) { vec!['\\', c] } else { vec![c] }).collect::<String>();
    for from in 0..names.len() {
        let end = names[from..].iter().map(|name| escaped(name)).collect::<Vec<_>>().join("/");
        for pattern in [end.clone(), format!("**/{end}")] {
            let found: Vec<Input> = shop.inputs(&pattern)?.into_iter().filter(|i| i.directory && i.path != base.path).collect();
            if let [one] = found.as_slice() {
                return Ok(one.clone());
            }
        }
    }
    let how = "a tablespace of it was not restored; where it was, say which directory it is: tablespaces = { \"OID\" = \"…\" }";
    Err(ServiceError::backup(ServiceProblem::TablespacesMissing, how, []))
}

/// Has the server find the tablespaces where they are: it makes the links anew from this.
async fn map_tablespaces(shop: &Shop<'_>, base: &Input, tablespaces: &[(u32, String)]) -> Result<(), ServiceError> {
    if text(shop, base, "tablespace_map").is_none() {
        return Ok(());
    }
    let map: String = tablespaces.iter().map(|(oid, place)| format!("{oid} {place}\n")).collect();
    let map = shop.write("etc", "tablespace_map", map.as_bytes())?;
    script(shop, "the tablespaces' map cannot be written", "cp -- \"$1\" \"$2\"", &[&map, &format!("{}/tablespace_map", base.inside)]).await
}

/// Every file against the manifest that the backup brings. `newer` is its version, where none that is installed is as new.
async fn verify(shop: &Shop<'_>, program: &str, newer: Option<u32>, part: &Part) -> Result<(), ServiceError> {
    let base = &part.data;
    let manifest = [base, &part.given].into_iter().find(|place| shop.open_below(place, "backup_manifest").is_ok());
    let Some(manifest) = manifest else {
        let how = "it has no backup_manifest: that every file is there and unchanged cannot be told";
        shop.remark(Severity::Warn, ServiceProblem::Undescribed, how, []);
        return Ok(());
    };
    let manifest = format!("{}/backup_manifest", manifest.inside);
    // what WAL it needs is looked for in the archive as well, later
    let argv = [program, "--no-parse-wal", "--manifest-path", &manifest, &base.inside];
    let exit = shop.run(Job::new(argv).env("LC_ALL", "C")).await?;
    if exit.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&exit.stderr).into_owned();
    let count = |words: &[&str]| said.lines().filter(|line| words.iter().any(|word| line.contains(word))).count();
    let unread = count(&["unexpected manifest version", "unrecognized checksum algorithm"]);
    if unread > 0
        && let Some(version) = newer
    {
        let reason =
            format!("the backup's manifest is newer than the pg_verifybackup that is installed here; install PostgreSQL {version}");
        return Err(ServiceError::runner(reason, last_words(&exit)));
    }
    let missing = count(&["is present in the manifest but not on disk"]);
    let differ = count(&["has size", "checksum mismatch for file"]);
    let more = count(&["is present on disk but not in the manifest"]);
    let manifest_broke =
        unread + count(&["manifest checksum mismatch", "could not parse backup manifest", "manifest has no checksum", "manifest ended"]);
    let told = format!("against its manifest, {missing} files are missing and {differ} differ");
    match (missing, differ, more, manifest_broke) {
        (0, 0, 0, 0) => Err(ServiceError::runner(format!("pg_verifybackup {}", how(&exit)), last_words(&exit))),
        (0, 0, more, 0) => {
            shop.remark(Severity::Warn, ServiceProblem::FilesUnlisted, format!("{more} of them"), last_words(&exit));
            Ok(())
        }
        (0, 0, _, _) => Err(ServiceError::backup(ServiceProblem::InputDamaged, "its manifest itself is not whole", last_words(&exit))),
        (_, 0, ..) => Err(ServiceError::backup(ServiceProblem::FilesMissing, told, last_words(&exit))),
        _ => Err(ServiceError::backup(ServiceProblem::InputDamaged, told, last_words(&exit))),
    }
}

/// What `pg_control` says.
async fn control(shop: &Shop<'_>, program: &str, base: &Input) -> Result<Control, ServiceError> {
    if shop.open_below(base, "global/pg_control").is_err() {
        return Err(ServiceError::backup(ServiceProblem::FilesMissing, "it has no global/pg_control", []));
    }
    let exit = shop.run(Job::new([program, &base.inside]).env("LC_ALL", "C")).await?;
    let said = [exit.stdout.as_slice(), exit.stderr.as_slice()].concat();
    let text = String::from_utf8_lossy(&said);
    let other = |problem, how: &str| Err(ServiceError::backup(problem, how, said.clone()));
    if text.contains("byte ordering") {
        return other(ServiceProblem::OtherArchitecture, "its pg_control orders bytes as another machine does");
    }
    if !exit.success() || text.contains("WARNING") {
        return other(ServiceProblem::InputDamaged, "the checksum of its pg_control is wrong, or it is of another layout");
    }
    match Control::read(controldata(&exit.stdout)) {
        Some(control) => Ok(control),
        None => other(ServiceProblem::InputDamaged, "its pg_control does not say what the WAL is like"),
    }
}
