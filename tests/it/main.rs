//! The integration tests: one binary, one module a subject.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods, missing_docs, reason = "tests")]

// `sample` is compiled into the library's unit tests too, where these are rooms of the crate
use firedrill::{domain, evidence};

mod auditor;
mod config;
mod drills;
mod faults;
mod floors;
mod lies;
mod sample;
mod sandbox;
#[path = "evidence.rs"]
mod sealed;
mod servers;
mod vault;
