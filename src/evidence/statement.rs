//! The in-toto statement: small enough for any key service to sign, and pointing to everything else by digest.
//!
//! Predicate `test-result/v0.1`, used strictly. It knows `PASSED`, `WARNED` and `FAILED` only. An inconclusive drill is
//! `FAILED` with the failed test `conclusive`: a consumer that knows nothing of us must not take "nothing was learned"
//! for a pass, and one that does can tell the two apart.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::dsse::{PAYLOAD_TYPE, pae};
use super::sums::{blake3, sha256};
use super::{EvidenceError, Report};
use crate::domain::{Blake3, CheckOutcome, Met, RestoreChain, Severity, Sha256, Verdict};

/// The statement's type.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The predicate's type.
pub const PREDICATE_TYPE: &str = "https://in-toto.io/attestation/test-result/v0.1";
/// What is signed stays below this many bytes, which is the most that AWS KMS signs of a raw message.
pub const STATEMENT_LIMIT: usize = 4_096;
/// The subject that stands for all objects of a chain too long to be listed.
pub const CHAIN_SUBJECT: &str = "restore-chain";
/// The failed test of a drill that came to no result.
pub const CONCLUSIVE: &str = "conclusive";

const OBJECTS_LISTED: usize = 8;
const NAME_BYTES: usize = 56;

/// An in-toto statement, version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Statement {
    /// [`STATEMENT_TYPE`].
    #[serde(rename = "_type")]
    pub statement_type: String,
    /// Backup objects, then evidence files.
    pub subject: Vec<Subject>,
    /// [`PREDICATE_TYPE`].
    pub predicate_type: String,
    /// The result.
    pub predicate: Predicate,
}

/// One thing the statement is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subject {
    /// A pseudonym, [`CHAIN_SUBJECT`], or the name of an evidence file.
    pub name: String,
    /// Its digests.
    pub digest: Digests,
}

/// Two digests of the same bytes: in-toto and FIPS know the first, the manifest's producer used the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Digests {
    /// SHA-256.
    pub sha256: Sha256,
    /// BLAKE3.
    pub blake3: Blake3,
}

impl Digests {
    /// Of bytes in memory.
    pub fn of(bytes: &[u8]) -> Self {
        Self { sha256: sha256(bytes), blake3: blake3(bytes) }
    }
}

/// The predicate `test-result/v0.1`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Predicate {
    /// The result.
    pub result: TestResult,
    /// The scenario, by digest.
    pub configuration: Vec<Subject>,
    /// Names of checks that passed.
    pub passed_tests: Vec<String>,
    /// Names of checks that passed with warnings.
    pub warned_tests: Vec<String>,
    /// Names of checks that failed or could not be asked.
    pub failed_tests: Vec<String>,
}

/// A result, in the predicate's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TestResult {
    /// Passed.
    Passed,
    /// Passed, with warnings.
    Warned,
    /// Failed, or came to no result.
    Failed,
}

/// The statement about a drill: its chain and the evidence files, given as name and content.
///
/// # Errors
/// [`EvidenceError::Encode`] where it cannot be made small enough, which takes far more files than a drill has.
pub fn statement(report: &Report, files: &[(String, Vec<u8>)]) -> Result<Statement, EvidenceError> {
    let files: Vec<Subject> = files.iter().map(|(name, bytes)| Subject { name: name.clone(), digest: Digests::of(bytes) }).collect();
    let tests = Tests::of(report);
    let listed = chain_subjects(&report.backup.chain);
    let whole = whole_chain(&report.backup.chain);
    // first fewer names of tests, then fewer objects: both are in the report, whose digest stays
    for (objects, most) in [(&listed, 64), (&listed, 8), (&whole, 32), (&whole, 8), (&whole, 2), (&whole, 0)] {
        let statement = Statement {
            statement_type: STATEMENT_TYPE.to_owned(),
            subject: objects.iter().chain(&files).cloned().collect(),
            predicate_type: PREDICATE_TYPE.to_owned(),
            predicate: Predicate {
                result: result(report),
                configuration: vec![Subject {
                    name: format!("scenario {}", report.plan.scenario),
                    digest: Digests { sha256: report.plan.scenario_sha256, blake3: report.plan.scenario_blake3 },
                }],
                passed_tests: shortened(&tests.passed, most),
                warned_tests: shortened(&tests.warned, most),
                failed_tests: shortened(&tests.failed, most),
            },
        };
        if pae(PAYLOAD_TYPE, &statement.to_json()).len() < STATEMENT_LIMIT {
            return Ok(statement);
        }
    }
    Err(EvidenceError::encode("a statement of less than 4,096 bytes")("too many evidence files".into()))
}

impl Statement {
    /// The payload.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("strings and lists only")
    }
}

/// The subjects that stand for a restore chain: its objects where they are few and wholly known, else one for the list.
pub(super) fn chain_subjects(chain: &RestoreChain) -> Vec<Subject> {
    let each: Option<BTreeMap<String, Digests>> =
        chain.objects.iter().map(|o| Some((o.object.0.clone(), Digests { sha256: o.sha256?, blake3: o.blake3? }))).collect();
    match each {
        // a map: names are unique within subjects, so two versions of one object go by the whole list
        Some(each) if each.len() == chain.objects.len() && each.len() <= OBJECTS_LISTED => {
            each.into_iter().map(|(name, digest)| Subject { name, digest }).collect()
        }
        _ => whole_chain(chain),
    }
}

/// One subject for a whole chain: the digest of its objects as compact JSON, which is what
/// `jq -cj .backup.chain.objects report.json` prints.
pub(super) fn whole_chain(chain: &RestoreChain) -> Vec<Subject> {
    if chain.objects.is_empty() {
        return Vec::new();
    }
    let bytes = serde_json::to_vec(&chain.objects).expect("strings, numbers and lists only");
    vec![Subject { name: CHAIN_SUBJECT.to_owned(), digest: Digests::of(&bytes) }]
}

/// The result, as the predicate can say it.
pub(super) fn result(report: &Report) -> TestResult {
    match report.verdict {
        Verdict::Passed if report.has_warnings() => TestResult::Warned,
        Verdict::Passed => TestResult::Passed,
        Verdict::Failed | Verdict::Inconclusive => TestResult::Failed,
    }
}

#[derive(Default)]
struct Tests {
    passed: Vec<String>,
    warned: Vec<String>,
    failed: Vec<String>,
}

impl Tests {
    /// Checks by name; objectives as `objective rpo`; steps outside of checks that found something as `step lock`.
    fn of(report: &Report) -> Self {
        let mut tests = Self::default();
        if report.verdict == Verdict::Inconclusive {
            tests.failed.push(CONCLUSIVE.to_owned());
        }
        for check in &report.checks {
            let list = match check.outcome {
                CheckOutcome::Passed => &mut tests.passed,
                CheckOutcome::Warned => &mut tests.warned,
                CheckOutcome::Failed | CheckOutcome::CouldNotRun => &mut tests.failed,
            };
            list.push(check.name.clone());
        }
        for assessment in &report.assessments {
            let list = match assessment.met {
                Met::Met => &mut tests.passed,
                Met::Missed | Met::NotMeasured => &mut tests.failed,
            };
            list.push(format!("objective {}", assessment.objective));
        }
        let mut steps: BTreeMap<&str, bool> = BTreeMap::new();
        for finding in &report.findings {
            match finding.severity {
                Severity::Fail => *steps.entry(&finding.check).or_default() = true,
                Severity::Warn => {
                    steps.entry(&finding.check).or_default();
                }
                Severity::Note => {}
            }
        }
        for (step, failed) in steps {
            let list = if failed { &mut tests.failed } else { &mut tests.warned };
            list.push(format!("step {step}"));
        }
        tests
    }
}

/// At most `most` names, none longer than fits; what is left out is counted.
fn shortened(names: &[String], most: usize) -> Vec<String> {
    let mut short: Vec<String> = names.iter().take(most).map(|name| short_name(name)).collect();
    if names.len() > most {
        short.push(format!("{} more, in checks.jsonl", names.len() - most));
    }
    short
}

fn short_name(name: &str) -> String {
    // counted as JSON writes it: a control character takes six bytes there
    let written = |c: char| if c.is_control() || c == '"' || c == '\\' { 6 } else { c.len_utf8() };
    if name.chars().map(written).sum::<usize>() <= NAME_BYTES {
        return name.to_owned();
    }
    let mut used = 0;
    let mut short: String = name
        .chars()
        .take_while(|c| {
            used += written(*c);
            used <= NAME_BYTES - 3
        })
        .collect();
    short.push('…');
    short
}

#[cfg(all(test, feature = "runner"))]
mod tests {
    use super::*;
    use crate::evidence::sample;

    fn files() -> Vec<(String, Vec<u8>)> {
        ["annex.age", "checks.jsonl", "events.jsonl", "report.html", "report.json", "signer.pub.pem"]
            .map(|name| (name.to_owned(), name.as_bytes().to_vec()))
            .to_vec()
    }

    #[test]
    fn results_are_said_in_the_predicates_words() {
        let made = |events: Vec<_>| statement(&sample::report(&events), &files()).unwrap().predicate;
        let passed = made(sample::passed());
        assert_eq!(passed.result, TestResult::Passed);
        assert!(passed.failed_tests.is_empty() && passed.passed_tests.contains(&"objective rto".to_owned()));
        assert_eq!(made(sample::failed()).result, TestResult::Failed);
        assert!(!made(sample::failed()).failed_tests.contains(&CONCLUSIVE.to_owned()));
        let none = made(sample::inconclusive());
        assert_eq!(none.result, TestResult::Failed);
        assert!(none.failed_tests.contains(&CONCLUSIVE.to_owned()));
        assert_eq!(made(sample::warned()).result, TestResult::Warned);
    }

    #[test]
    fn the_signed_bytes_stay_below_the_limit_whatever_the_drill() {
        for (objects, checks, length) in [(1, 1, 10), (8, 1, 10), (8, 12, 40), (9, 3, 10), (500, 900, 300), (8, 64, 56), (3, 2_000, 4_000)]
        {
            let mut report = sample::report(&sample::passed());
            let object = report.backup.chain.objects[0].clone();
            report.backup.chain.objects = (0..objects)
                .map(|i| {
                    let mut object = object.clone();
                    object.object.0 = format!("object-{i:016x}");
                    object
                })
                .collect();
            let check = report.checks[0].clone();
            report.checks = (0..checks)
                .map(|i| {
                    let mut check = check.clone();
                    check.name = format!("{i} {}", "\u{1}é".repeat(length));
                    check
                })
                .collect();
            let statement = statement(&report, &files()).unwrap();
            let size = pae(PAYLOAD_TYPE, &statement.to_json()).len();
            assert!(size < STATEMENT_LIMIT, "{objects} objects, {checks} checks: {size} bytes");
            for file in files() {
                assert!(statement.subject.iter().any(|s| s.name == file.0));
            }
            assert!(statement.subject.len() > files().len(), "the backup is a subject");
        }
    }

    #[test]
    fn an_object_without_a_digest_sends_the_whole_list() {
        let mut report = sample::report(&sample::passed());
        report.backup.chain.objects[0].sha256 = None;
        let subjects = chain_subjects(&report.backup.chain);
        assert_eq!(subjects.len(), 1);
        assert_eq!(subjects[0].name, CHAIN_SUBJECT);
        report.backup.chain.objects.clear();
        assert!(chain_subjects(&report.backup.chain).is_empty());
    }
}
