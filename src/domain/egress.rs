//! Attempts of what ran inside a sandbox to reach something outside of it. None gets out; each is told.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{Cause, Elapsed, Finding, FindingKind, Timestamp};

/// What an attempt to reach the outside does to a drill.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum EgressPolicy {
    /// It is listed, and warns.
    #[default]
    Record,
    /// It fails the drill; a drill whose attempts cannot be recorded is not begun.
    Forbid,
}

/// How something outside was to be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum EgressProtocol {
    /// A TCP connection.
    Tcp,
    /// A UDP datagram, or a UDP socket connected.
    Udp,
    /// A name that was asked for.
    Dns,
    /// A socket for ICMP.
    Icmp,
    /// A raw IP socket.
    Raw,
    /// A socket for whole frames.
    Packet,
    /// A socket to the hypervisor.
    Vsock,
    /// Anything else.
    Other,
}

impl EgressProtocol {
    /// As shown to people.
    pub const fn word(self) -> &'static str {
        match self {
            EgressProtocol::Tcp => "TCP",
            EgressProtocol::Udp => "UDP",
            EgressProtocol::Dns => "DNS",
            EgressProtocol::Icmp => "ICMP",
            EgressProtocol::Raw => "raw IP",
            EgressProtocol::Packet => "packet socket",
            EgressProtocol::Vsock => "vsock",
            EgressProtocol::Other => "other",
        }
    }
}

/// One attempt, and how often it was repeated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct EgressAttempt {
    /// When it was made first.
    #[serde(rename = "first_at")]
    pub at: Timestamp,
    /// The same on the monotonic clock, nanoseconds since the drill's start.
    pub elapsed: Elapsed,
    /// How.
    pub protocol: EgressProtocol,
    /// The address, where there was one.
    pub destination: Option<String>,
    /// The port, where there was one.
    pub port: Option<u16>,
    /// The name asked for. Of a long one only the end: what stands before may be data on its way out.
    pub name: Option<String>,
    /// How often the same was attempted.
    pub times: u64,
}

impl fmt::Display for EgressAttempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.protocol.word())?;
        match (&self.destination, self.port) {
            (Some(address), Some(port)) if address.contains(':') => write!(f, " to [{address}] port {port}")?,
            (Some(address), Some(port)) => write!(f, " to {address} port {port}")?,
            (Some(address), None) => write!(f, " to {address}")?,
            (None, _) => {}
        }
        if let Some(name) = &self.name {
            write!(f, " asking for {name}")?;
        }
        if self.times > 1 { write!(f, ", {} times", self.times) } else { Ok(()) }
    }
}

/// All attempts of a drill.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "runner", derive(schemars::JsonSchema))]
pub struct Egress {
    /// What the scenario says of attempts.
    pub policy: EgressPolicy,
    /// How many there were: listed, repeated and beyond the list.
    pub total: u64,
    /// The first hundred different ones.
    pub attempts: Vec<EgressAttempt>,
    /// Those of `total` that only the kernel's count of packets without a route shows: nobody saw where to.
    pub counted_only: u64,
    /// Why attempts may be missing here, in our words; empty where none can be.
    pub gaps: Vec<String>,
}

impl Egress {
    /// What follows from it: one function, for the drill that concludes and the verifier that doubts.
    pub fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        if self.total > 0 {
            let first = self.attempts.first().map_or_else(|| "seen by the kernel's count alone".to_owned(), ToString::to_string);
            let kind = FindingKind::EgressAttempted { attempts: self.total, different: self.attempts.len() as u64, first };
            findings.push(match self.policy {
                EgressPolicy::Record => Finding::warning(EGRESS, Cause::Backup, kind),
                EgressPolicy::Forbid => Finding::backup(EGRESS, kind),
            });
        }
        if !self.gaps.is_empty() {
            let kind = FindingKind::EgressNotRecorded { reason: self.gaps.join("; ") };
            findings.push(match self.policy {
                EgressPolicy::Record => Finding::warning(EGRESS, Cause::Runner, kind),
                EgressPolicy::Forbid => Finding::runner(EGRESS, kind),
            });
        }
        findings
    }
}

/// The step that such findings belong to.
const EGRESS: &str = "egress";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Severity, Verdict, conclude};

    fn attempt(destination: Option<&str>, port: Option<u16>, name: Option<&str>, times: u64) -> EgressAttempt {
        EgressAttempt {
            at: Timestamp::from_unix(7),
            elapsed: Elapsed::default(),
            protocol: EgressProtocol::Tcp,
            destination: destination.map(str::to_owned),
            port,
            name: name.map(str::to_owned),
            times,
        }
    }

    #[test]
    fn an_attempt_reads_as_a_sentence() {
        assert_eq!(attempt(Some("192.0.2.1"), Some(25), None, 1).to_string(), "TCP to 192.0.2.1 port 25");
        assert_eq!(attempt(Some("2001:db8::1"), Some(80), None, 3).to_string(), "TCP to [2001:db8::1] port 80, 3 times");
        assert_eq!(attempt(None, None, Some("a.example"), 1).to_string(), "TCP asking for a.example");
    }

    /// Attempts × gaps × policy: what the drill may still be.
    #[test]
    fn forbidden_attempts_fail_and_gaps_under_a_ban_prove_nothing() {
        let of =
            |policy, total, gap: bool| Egress { policy, total, gaps: if gap { vec!["deaf".into()] } else { vec![] }, ..Egress::default() };
        for (policy, total, gap, verdict) in [
            (EgressPolicy::Record, 0, false, Verdict::Passed),
            (EgressPolicy::Record, 1, false, Verdict::Passed),
            (EgressPolicy::Record, 0, true, Verdict::Passed),
            (EgressPolicy::Forbid, 0, false, Verdict::Passed),
            (EgressPolicy::Forbid, 1, false, Verdict::Failed),
            (EgressPolicy::Forbid, 0, true, Verdict::Inconclusive),
            (EgressPolicy::Forbid, 1, true, Verdict::Failed),
        ] {
            let findings = of(policy, total, gap).findings();
            assert_eq!(conclude(&findings, &[], 1), verdict, "{policy:?} {total} {gap}");
            assert_eq!(findings.len(), usize::from(total > 0) + usize::from(gap));
            assert!(policy == EgressPolicy::Forbid || findings.iter().all(|f| f.severity == Severity::Warn));
        }
    }
}
