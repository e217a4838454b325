//! The integration tests: one binary, one module a subject.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, clippy::disallowed_methods, missing_docs, reason = "tests")]

mod anchors;
mod archive;
mod as_of;
mod auditor;
mod authority;
mod cli;
mod codec;
mod config;
mod doctor;
mod drills;
mod egress;
mod encrypted_scratch;
mod faults;
mod floors;
mod gateway;
mod kills;
mod ledger;
mod lies;
mod limits;
mod others;
mod packs;
mod promises;
mod recipes;
mod rights;
mod round_trip;
mod sample;
mod sandbox;
mod sandbox_kit;
mod scenarios;
mod seal;
mod seal_s3;
#[path = "evidence.rs"]
mod sealed;
mod sealed_support;
mod serve;
mod servers;
mod timestamps;
mod tools;
mod vault;
mod vault_access;

// `sample` is compiled into the library's unit tests too, where these are rooms of the crate
use firedrill::{domain, evidence};
