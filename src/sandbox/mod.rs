//! A throwaway place: made, limited, watched, destroyed; and what a crash left of one, reaped.
//!
//! Promises, kept by the kernel and attacked from inside by `tests/it/promises/`, by killing the runner in `tests/it/kills.rs`:
//! - What runs inside has no network but its own loopback, sees the restored tree, the host's `/usr` read-only and a private
//!   `/tmp`, `/dev`, `/proc`; no host process, no host file, no secret in its environment, no right to ask for more.
//! - What tries to reach anything else is refused at once, and listed ([`Sandbox::settle`]).
//! - It is bounded in memory, processors, processes, output, scratch and time; each bound hit is a [`SandboxError::Limit`]
//!   where that can be known, and the facts name where it cannot.
//! - It ends with the runner, however the runner ends.
//! - Scratch is a private tmpfs, gone with the last reference; or an encrypted volume on disk, whose key only the kernel has,
//!   for as long as the drill lasts; a plain directory is a named, weaker choice.
//! - [`Sandbox::destroy`] looks for remains afterwards; [`reap`] finds those of a runner that was killed.
//!
//! The runner never looks a path up inside: it holds directory descriptors ([`Sandbox::root`]), because a symbolic link
//! that a restored tree or a command put there would lead the runner to the host's files.
//!
//! Linux only. Absent on purpose: backups, network (but for refusing names inside), clocks (times are passed in, durations measured by kernel timers).

/// Where small files for a command are, inside.
pub const PRIVATE_FILES: &str = "/run/firedrill";
/// Where the kit of foreign tools is, inside.
pub const KIT_DIRECTORY: &str = "/kit";
/// Where the restored tree is, inside.
pub const DATA_DIRECTORY: &str = "/data";

mod bounds;
mod cgroup;
mod control;
mod delegated;
mod disposal;
mod doctor;
mod egress;
mod encrypted;
mod error;
mod facts;
mod fscrypt;
mod helper;
mod host;
mod inside;
mod loops;
mod owner;
mod place;
mod registry;
mod scratch;
mod spec;
mod swap;
mod sys;
mod volume;
mod wire;

pub use doctor::{Kept, Promise, promises, stands};
pub use egress::{Attempt, Attempted, Attempts};
pub use error::{Limit, SandboxError};
pub use facts::when_lost;
pub use helper::become_helper_if_asked;
pub use host::host_risks;
pub use owner::Owner;
pub use place::{Sandbox, provision};
pub use registry::{Reaped, reap};
pub use spec::{Afterwards, CommandSpec, Ended, Exit, Isolation, SandboxSpec, SwapPolicy, ToolDir};
