//! Components: parts of a system that are backed up apart, in the order in which they are restored.

use std::collections::BTreeSet;

use super::reader::Reader;
use super::scenario_file::{ComponentTable, RestoreTable, ScenarioFile};
use crate::domain::{Component, RestoreStep, Source, Unlock};

impl Reader<'_> {
    /// The scenario's source and what opens it: its own, or those of its first component.
    pub(super) fn sources(&mut self, file: &ScenarioFile) -> (Option<Source>, Unlock, Option<Vec<Component>>) {
        let unlock = self.unlock("unlock", &file.unlock);
        match (&file.source, file.component.as_slice()) {
            (Some(table), []) => (self.source("source", table), unlock, Some(Vec::new())),
            (None, []) => {
                self.wrong("source", "no source says where the backups are", "add [source] with a `url`, or [[component]] tables");
                (None, unlock, None)
            }
            (source, tables) => {
                if source.is_some() {
                    self.wrong("source", "each component has a source of its own", "move this [source] into a [[component]]");
                }
                let components = self.components(tables, &unlock);
                let first = components.as_ref().and_then(|all| all.first()).cloned();
                let (source, unlock) = first.map_or((None, unlock), |first| (Some(first.source), first.unlock));
                (source, unlock, components)
            }
        }
    }

    fn components(&mut self, tables: &[ComponentTable], shared: &Unlock) -> Option<Vec<Component>> {
        let mut read: Vec<Option<Component>> = Vec::new();
        for (number, table) in tables.iter().enumerate() {
            let at = format!("component.{number}");
            if !is_word(&table.name) {
                self.wrong(&format!("{at}.name"), format!("`{}` cannot name a component", table.name), "use 1 to 32 of a-z, 0-9, - and _");
            }
            if tables.iter().take(number).any(|other| other.name == table.name) {
                self.wrong(&format!("{at}.name"), format!("two components are called `{}`", table.name), "give each a name of its own");
            }
            for (place, before) in table.after.iter().enumerate() {
                if tables.iter().all(|other| other.name != *before) {
                    self.wrong(&format!("{at}.after.{place}"), format!("no component is called `{before}`"), "name another [[component]]");
                }
            }
            if table.restore.iter().any(is_service) {
                let advice = "move it to the scenario's own [[restore]]: services start when all components are there";
                self.wrong(&format!("{at}.restore"), "a component starts no services", advice);
            }
            let unlock = table.unlock.as_ref().map_or_else(|| shared.clone(), |own| self.unlock(&format!("{at}.unlock"), own));
            let source = self.source(&format!("{at}.source"), &table.source);
            let restore = self.steps(&format!("{at}.restore"), &table.restore, table.source.points.is_some());
            read.push(source.zip(restore).map(|(source, restore)| Component { name: table.name.clone(), source, unlock, restore }));
        }
        let order = self.in_order(tables)?;
        let mut read: Vec<Component> = read.into_iter().collect::<Option<_>>()?;
        read.sort_by_key(|component| order.iter().position(|name| *name == component.name));
        Some(read)
    }

    /// Names of the components, each after those that it comes after; otherwise as they are written.
    fn in_order(&mut self, tables: &[ComponentTable]) -> Option<Vec<String>> {
        let mut ordered: Vec<String> = Vec::new();
        let mut waiting: Vec<&ComponentTable> = tables.iter().collect();
        while !waiting.is_empty() {
            let done: BTreeSet<&String> = ordered.iter().collect();
            let Some(next) = waiting.iter().position(|table| table.after.iter().all(|before| done.contains(before))) else {
                let names = waiting.iter().map(|table| table.name.as_str()).collect::<Vec<_>>().join(", ");
                self.wrong("component", format!("these components wait for each other: {names}"), "remove one of their `after`");
                return None;
            };
            ordered.push(waiting.remove(next).name.clone());
        }
        Some(ordered)
    }

    /// Steps of the scenario itself: with components, the services alone.
    pub(super) fn restore(&mut self, file: &ScenarioFile) -> Option<Vec<RestoreStep>> {
        if file.component.is_empty() {
            let bare = file.source.as_ref().is_some_and(|source| source.points.is_some());
            return self.steps("restore", &file.restore, bare);
        }
        if let Some(number) = file.restore.iter().position(|table| !is_service(table)) {
            let advice = "move this step into its [[component]]: restore = [ … ]";
            self.wrong(&format!("restore.{number}"), "with components, this list has services alone", advice);
            return None;
        }
        self.services(&file.restore)
    }
}

/// Whether a step starts a service, rather than restoring files.
pub(super) fn is_service(table: &RestoreTable) -> bool {
    !matches!(table, RestoreTable::Archive {} | RestoreTable::Tool { .. })
}

/// Names that are directories and show in reports.
pub(super) fn is_word(name: &str) -> bool {
    (1..=32).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
}
