//! Settings and scenarios: from files to valid values, or every mistake at once.
//!
//! A file's structure is checked against the published JSON Schema of its own wire struct, walking the parsed document
//! so that each mistake knows its line; what a schema cannot say is checked after that. Nothing is fetched here.

mod check;
mod check_file;
mod component;
mod definition;
mod keeping;
mod mistakes;
mod reader;
mod records;
mod scenario;
mod scenario_file;
mod schedule;
mod schema;
mod service;
mod settings;
mod tool;

pub use mistakes::{ConfigError, Mistake, Mistakes};
pub use scenario::{load_scenario, parse_scenario};
pub use scenario_file::ScenarioFile;
pub use settings::{Origin, Overrides, Settings, SettingsFile, load_settings};

/// The JSON Schema of scenario files, as published in `docs/schema/scenario.schema.json`.
pub fn scenario_schema() -> serde_json::Value {
    titled::<ScenarioFile>("firedrill scenario")
}

/// The JSON Schema of `firedrill.toml`, as published in `docs/schema/settings.schema.json`.
pub fn settings_schema() -> serde_json::Value {
    titled::<SettingsFile>("firedrill settings")
}

fn titled<T: schemars::JsonSchema>(title: &str) -> serde_json::Value {
    let mut value = serde_json::Value::from(schemars::schema_for!(T));
    value["title"] = title.into();
    value
}
