//! The integration tests: one binary, one module a subject.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods, missing_docs, reason = "tests")]

mod faults;
mod round_trip;
mod seal_s3;
mod servers;
mod vault;
mod vault_access;
