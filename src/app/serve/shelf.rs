//! The scenarios in their directory, as they are now: read again only where a file changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::config::load_scenario;
use crate::domain::{Scenario, ScenarioName, Schedule, Sha256};
use crate::evidence::sha256;

/// All scenarios of a directory.
#[derive(Debug)]
pub struct Shelf {
    directory: PathBuf,
    files: BTreeMap<PathBuf, Filed>,
    /// Why the directory could not be listed when it was looked at last.
    unlisted: Option<String>,
}

/// A file, and what was in it when it looked like this.
#[derive(Debug)]
struct Filed {
    looks: Looks,
    content: Result<Seen, String>,
}

/// Changes whenever somebody writes a file.
#[derive(Debug, PartialEq, Eq)]
struct Looks {
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

/// A scenario that is good. What is in it is read again when it is drilled: thousands of them wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Its name.
    pub name: ScenarioName,
    /// SHA-256 of its file.
    pub sha256: Sha256,
    /// Its schedule.
    pub schedule: Option<Schedule>,
}

/// A scenario file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Broken {
    /// Which.
    pub path: PathBuf,
    /// Why, with every mistake.
    pub why: String,
}

impl Shelf {
    /// Of a directory, which is not looked at yet.
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), files: BTreeMap::new(), unlisted: None }
    }

    /// Looks whether files came, went or changed, and gives the scenarios that were read from them anew.
    pub fn look(&mut self) -> Vec<ScenarioName> {
        let mut read_anew = Vec::new();
        let paths = match list(&self.directory) {
            Ok(paths) => paths,
            Err(error) => {
                self.unlisted = Some(error.to_string());
                return read_anew;
            }
        };
        self.unlisted = None;
        self.files.retain(|path, _| paths.contains(path));
        for path in paths {
            let looks = match fs::metadata(&path) {
                Ok(m) => Looks { inode: m.ino(), length: m.len(), modified: (m.mtime(), m.mtime_nsec()) },
                // gone since, or a link to nothing
                Err(error) => {
                    let looks = Looks { inode: 0, length: 0, modified: (0, 0) };
                    self.files.insert(path, Filed { looks, content: Err(error.to_string()) });
                    continue;
                }
            };
            if self.files.get(&path).is_none_or(|filed| filed.looks != looks) {
                let content = read(&path).map(|scenario| Seen {
                    sha256: sha256(scenario.text.as_bytes()),
                    schedule: scenario.schedule,
                    name: scenario.name,
                });
                read_anew.extend(content.as_ref().ok().map(|seen| seen.name.clone()));
                self.files.insert(path, Filed { looks, content });
            }
        }
        read_anew
    }

    /// Scenarios by name, and files that cannot be used: the second one of a name is one of these.
    pub fn sorted(&self) -> (BTreeMap<&ScenarioName, &Seen>, Vec<Broken>) {
        let (mut good, mut broken): (BTreeMap<&ScenarioName, (&Path, &Seen)>, _) = (BTreeMap::new(), Vec::new());
        for (path, filed) in &self.files {
            let why = match &filed.content {
                Ok(seen) => match good.get(&seen.name) {
                    None => {
                        good.insert(&seen.name, (path, seen));
                        continue;
                    }
                    Some((first, _)) => format!("its name, {}, is that of {}", seen.name, first.display()),
                },
                Err(why) => why.clone(),
            };
            broken.push(Broken { path: path.clone(), why });
        }
        if let Some(why) = &self.unlisted {
            broken.push(Broken { path: self.directory.clone(), why: why.clone() });
        }
        (good.into_iter().map(|(name, (_, seen))| (name, seen)).collect(), broken)
    }

    /// Reads a scenario for a drill.
    ///
    /// # Errors
    /// Why it cannot be drilled now.
    pub fn take(&self, name: &ScenarioName) -> Result<Scenario, String> {
        let filed = self.files.iter().find(|(_, filed)| filed.content.as_ref().is_ok_and(|seen| seen.name == *name));
        let Some((path, Filed { content: Ok(seen), .. })) = filed else {
            return Err(format!("no usable file in {} is of scenario {name}", self.directory.display()));
        };
        let scenario = read(path)?;
        // changed this very moment: it is entered as changed first
        if sha256(scenario.text.as_bytes()) == seen.sha256 { Ok(scenario) } else { Err(format!("{} is being changed", path.display())) }
    }
}

fn read(path: &Path) -> Result<Scenario, String> {
    load_scenario(path).map_err(|error| format!("{:#}", anyhow::Error::new(error)))
}

/// Files of scenarios, those that begin with a dot left out: editors write them.
fn list(directory: &Path) -> io::Result<BTreeSet<PathBuf>> {
    let mut paths = BTreeSet::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.extension().is_some_and(|extension| extension == "toml") && !hidden && !path.is_dir() {
            paths.insert(path);
        }
    }
    Ok(paths)
}
