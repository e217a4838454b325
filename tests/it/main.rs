//! The integration tests: one binary, one module a subject.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods, missing_docs, reason = "tests")]

mod config;
mod floors;
// `sample` is compiled into the library's unit tests too, where these are rooms of the crate
use firedrill::{domain, evidence};

mod auditor;
mod sample;
#[path = "evidence.rs"]
mod sealed;

// `sample` is compiled into the library's unit tests too, where these are rooms of the crate
use firedrill::{domain, evidence};
mod sandbox;
mod faults;
mod seal_s3;
mod servers;
mod vault;
