//! How restore tests have lied, each lie told to the real binary: the damaged case is built, the drill is run, and both the
//! verdict and the finding that names the cause are demanded.
//!
//! Lies that later work will catch are not in the table yet. Lies about databases are told beside the other tests of their engines; a
//! test holds the table to the tests.

mod backup;
mod evidence;
mod foreign;
pub mod sandbox;
mod selection;
mod verdict;

use std::fs;
use std::path::{Path, PathBuf};

use crate::drills::{Drilled, Home, said};

/// Number of the lie, the lie, and the tests that tell it.
const LIES: &[(u32, &str, &[&str])] = &[
    (
        1,
        "a flipped bit in the ciphertext, or in the plaintext before it was sealed",
        &["a_flipped_bit_in_the_ciphertext_fails_naming_object_and_layer", "a_bit_flipped_before_sealing_fails_naming_the_file"],
    ),
    (
        2,
        "a truncated object under its final name",
        &[
            "an_object_cut_short_anywhere_fails_as_truncated",
            "an_archive_cut_short_before_it_was_sealed_fails_as_truncated",
            "what_pg_restore_and_psql_pass_over_in_silence_fails",
        ],
    ),
    (3, "an empty dump, validly compressed and encrypted", &["an_empty_dump_validly_compressed_and_encrypted_fails"]),
    (4, "right size, wrong bytes", &["zeros_of_the_right_size_fail"]),
    (
        5,
        "a truncated SQL dump that still holds every row",
        &[
            "a_dump_that_does_not_come_back_fails_with_its_reason",
            "a_mariadb_dump_that_broke_off_after_its_last_row_fails",
            "a_schema_is_held_to_the_last_drill_that_passed",
            "dumps_of_postgresql_with_their_roles",
        ],
    ),
    (6, "tables restored alone: rows right, indexes and constraints missing", &["a_schema_is_held_to_the_last_drill_that_passed"]),
    (
        7,
        "routines, triggers or events left out of a MySQL-family dump",
        &["routines_and_events_left_out_of_a_dump_are_told_and_fail", "a_restored_mariadb_is_compared_with_what_it_was"],
    ),
    (
        8,
        "a SQLite file copied without its WAL: opens, is sound by its own checks, and the newest rows are gone",
        &["a_database_without_its_wal_misses_the_rpo_and_is_warned_of", "a_wal_that_recovery_passes_over_in_silence_fails"],
    ),
    (
        9,
        "dotfiles missed, setgid and modes stripped, symlinks followed, empty directories dropped",
        &["what_careless_archivers_leave_out_fails_the_manifest_check"],
    ),
    (
        10,
        "a hole in the WAL: recovery to latest ends there in silence",
        &[
            "a_hole_in_the_wal_fails_and_recovery_does_not_end_there_in_silence",
            "a_base_a_night_and_wal_as_it_is_written",
            "recovery_follows_the_timeline_of_a_failover",
            "a_hole_in_the_binary_logs_fails_and_what_is_before_it_does_not_stand_in",
        ],
    ),
    (
        11,
        "rot in a WAL segment past the point that was restored",
        &[
            "rot_in_the_wal_fails_before_the_point_and_warns_past_it",
            "a_hole_in_the_binary_logs_fails_and_what_is_before_it_does_not_stand_in",
        ],
    ),
    (
        12,
        "roles or extensions absent from the dump, so objects land without owners",
        &["a_schema_is_held_to_the_last_drill_that_passed", "dumps_of_postgresql_with_their_roles"],
    ),
    (
        13,
        "a dump of a newer client that the recorded server version refuses",
        &["a_dump_that_does_not_come_back_fails_with_its_reason", "what_a_dump_asks_of_the_host_and_does_not_get_is_no_fault_of_the_dump"],
    ),
    (
        14,
        "a backup made by an archiver that died weeks ago",
        &["a_source_that_stopped_being_backed_up_fails_on_rpo_from_content", "a_base_a_night_and_wal_as_it_is_written"],
    ),
    (
        15,
        "one member of a multi-part set is missing or from another run",
        &[
            "a_part_that_is_missing_or_from_another_run_fails",
            "wal_of_another_server_fails",
            "binary_logs_that_do_not_go_with_the_backup_fail",
        ],
    ),
    (
        16,
        "an unencrypted object where policy says encrypted; encrypted to somebody else's key",
        &["an_unencrypted_object_fails_where_policy_says_encrypted", "a_backup_encrypted_to_somebody_elses_key_fails"],
    ),
    (17, "a re-encrypted forgery", &["a_forgery_fails_where_a_producer_is_trusted"]),
    (20, "newest by mtime picks a re-uploaded old backup", &["a_reuploaded_old_backup_is_not_the_newest"]),
    (
        21,
        "a pinned snapshot: every drill restores the same old data and passes",
        &[
            "a_pinned_instant_does_not_make_old_data_young",
            "a_pinned_snapshot_fails_on_rpo_from_content",
            "a_canary_must_be_the_newest_that_was_planted_before_the_backup",
        ],
    ),
    (
        22,
        "a constant canary",
        &["a_canary_that_is_new_in_each_backup_fails_a_stale_restore", "a_canary_must_be_the_newest_that_was_planted_before_the_backup"],
    ),
    (
        23,
        "a sibling whose name shares the prefix is restored instead",
        &["a_sibling_that_shares_the_prefix_is_never_selected", "a_sibling_in_the_same_bucket_is_never_selected"],
    ),
    (
        24,
        "a server that was already running on the host answered",
        &[
            "a_server_on_the_host_cannot_stand_in_for_the_backup",
            "a_server_by_ones_own_definition_is_held_to_the_same",
            "a_server_that_is_not_the_one_that_was_started_is_told",
        ],
    ),
    (
        25,
        "the check compared empty with empty, or asserted nothing at all",
        &[
            "a_drill_that_asserted_nothing_fails",
            "a_schema_is_held_to_the_last_drill_that_passed",
            "rows_whose_documents_are_gone_fail",
            "two_restored_databases_have_the_same_rows_or_fail",
            "fields_of_files_refer_to_fields_of_files",
        ],
    ),
    (26, "row counts taken from statistics", &["rows_are_counted_and_a_shrink_against_the_last_drill_is_told"]),
    (27, "the off-site read was served from a local cache", &["every_drill_reads_from_the_storage_anew"]),
    (29, "the tool's check run instead of a restore", &["a_tools_own_check_is_no_restore"]),
    (30, "timer set START after END: every drill took 0 s", &["phases_are_monotonic_and_add_up"]),
    (31, "the RTO clock stops before the database started", &["every_format_of_pg_dump_is_loaded_and_answers"]),
    (32, "a missed RTO or RPO does not change the verdict", &["a_missed_objective_fails_whatever_else_passed"]),
    (
        33,
        "storage unreachable, credentials refused, sandbox out of memory reported as a bad backup",
        &[
            "storage_that_cannot_be_reached_says_nothing_about_the_backup",
            "refused_credentials_say_nothing_about_the_backup",
            "a_sandbox_out_of_memory_says_nothing_about_the_backup",
        ],
    ),
    (34, "the same as a pass", &["an_inconclusive_drill_is_shown_as_passed_nowhere"]),
    (36, "a freshness gauge frozen for months on healthy systems", &["a_source_that_stopped_being_backed_up_fails_on_rpo_from_content"]),
    (40, "a verifier that prints SIGNED on a changed report", &["a_changed_report_is_refused_even_with_its_sums_made_right"]),
    (
        41,
        "one failed drill deleted from the history, a green re-run kept",
        &[
            "a_failed_drill_that_is_deleted_leaves_a_gap_that_is_seen",
            "a_log_that_was_replaced_shortened_or_forked_with_the_key_is_told_by_any_one_anchor",
        ],
    ),
    (
        42,
        "the whole chain replaced by another one",
        &[
            "a_log_that_was_replaced_is_seen_from_any_report_or_checkpoint_kept_elsewhere",
            "a_log_that_was_replaced_shortened_or_forked_with_the_key_is_told_by_any_one_anchor",
            "what_a_bucket_locks_cannot_be_hidden_or_outnumbered",
        ],
    ),
    (
        43,
        "evidence deleted by a history limit of 10",
        &["what_is_archived_outlives_whoever_deletes_or_overwrites", "a_store_that_is_away_loses_nothing"],
    ),
    (
        44,
        "object-lock flags dropped on part of the objects, or on evidence itself",
        &["one_unlocked_object_among_those_that_the_restore_touched_fails", "a_store_that_lies_is_found_out"],
    ),
    (45, "immutable because the bucket's setting says so", &["a_version_whose_lock_ends_tomorrow_fails_whatever_the_bucket_says"]),
    (
        46,
        "a report that carries a patient's name",
        &[
            "a_patients_name_reaches_no_evidence_of_drills_that_pass",
            "a_patients_name_reaches_no_evidence_of_drills_that_fail",
            "a_patients_name_in_a_key_reaches_no_evidence_when_storage_fails",
        ],
    ),
    (47, "a report signed by a key that was never trusted, expired or revoked", &["keys_never_trusted_expired_or_revoked_are_refused"]),
    (51, "plaintext left behind after kill -9", &["after_kill_9_nothing_is_left_and_the_drill_is_closed_inconclusive"]),
    (
        52,
        "an archive that writes outside its root",
        &["hostile_archives_fail_and_touch_nothing_outside", "four_gibibytes_of_zeros_in_a_small_object_fail_within_the_budget"],
    ),
    (54, "the drill's credentials could delete backups", &["credentials_that_could_delete_backups_are_told_and_fail_where_policy_says_so"]),
];

#[test]
fn the_table_and_the_tests_agree() {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it");
    let (mut everywhere, mut of_lies) = (Vec::new(), Vec::new());
    for entry in walkdir(&all).into_iter().filter(|path| path.extension().is_some_and(|e| e == "rs")) {
        let tests = tests_in(&fs::read_to_string(&entry).unwrap());
        if entry.starts_with(all.join("lies")) && !entry.ends_with("mod.rs") {
            of_lies.extend(tests.iter().cloned());
        }
        everywhere.extend(tests);
    }
    let table: Vec<&str> = LIES.iter().flat_map(|(_, _, names)| names.iter().copied()).collect();
    for name in &table {
        assert!(everywhere.iter().any(|test| test == name), "the table names `{name}`, and there is no such test");
    }
    for name in &of_lies {
        assert!(table.contains(&name.as_str()), "`{name}` is a test that the table does not name");
    }
    assert!(LIES.windows(2).all(|pair| pair[0].0 < pair[1].0), "the table is in the order of the lies");
}

fn walkdir(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walkdir(&path) } else { vec![path] }).collect()
}

fn tests_in(source: &str) -> Vec<String> {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let named = lines.windows(2).filter(|pair| pair[0] == "#[test]").filter_map(|pair| pair[1].strip_prefix("fn ")?.split('(').next());
    named.map(str::to_owned).collect()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

/// Runs with keys of the administrator of the tests' server, and as talkative as can be.
fn with_keys(home: &Home, scenario: &Path, secret: &str) -> Drilled {
    let output = home
        .command(&["-vv", "run", scenario.to_str().unwrap()])
        .env("AWS_ACCESS_KEY_ID", crate::servers::ACCESS)
        .env("AWS_SECRET_ACCESS_KEY", secret)
        .output()
        .unwrap();
    home.drilled(said(output))
}
