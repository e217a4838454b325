//! Limits: whatever is taken, the host keeps the rest. That hitting one is told as that limit is a promise of its own.

use firedrill::domain::ScratchKind;
use firedrill::sandbox::{Limit, SandboxError};

use super::{Kept, Ward, attacks, hold, py, sh, text};

attacks![
    a_memory_bomb_takes_no_more_than_its_memory,
    a_memory_bomb_is_told_as_the_memory_limit,
    shared_memory_counts_as_memory,
    files_in_memory_count_as_memory,
    a_fork_bomb_makes_no_more_processes_than_its_count,
    a_fork_bomb_is_told_as_the_process_limit,
    threads_count_as_processes,
    the_scratch_takes_no_more_bytes_than_its_size,
    the_scratch_takes_no_more_files_than_its_count,
    the_private_places_take_no_more_bytes_than_their_size,
    the_private_places_take_no_more_files_than_their_count,
    one_file_is_no_larger_than_the_scratch,
    a_sparse_file_as_large_as_a_disk_costs_nothing,
    an_output_flood_on_both_channels_is_counted_and_dropped,
    open_files_are_bounded,
    locked_memory_is_bounded,
];

const MIB: u64 = 1 << 20;

/// Takes memory in steps of 8 MiB, up to a size that is a multiple of the limit, and says how far it came.
async fn taken(ward: &Ward, step: &str) -> Result<u64, SandboxError> {
    let limit = ward.spec.limits.memory.0;
    let program = format!(
        "
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None)
kept, got = [], 0
try:
    while got < {}:
        {step}
        got += 8 << 20
        os.pwrite(1, b'', 0) if False else print(got, flush=True)
except (MemoryError, OSError, ValueError): pass
",
        limit * 4
    );
    let exit = ward.run(py(&program)).await?;
    Ok(text(&exit.stdout).lines().last().map_or(0, |l| l.parse().unwrap()))
}

/// What memory may be taken at most: the limit, and what a scratch in memory has room for.
fn most(ward: &Ward) -> u64 {
    let in_memory = if ward.kind == ScratchKind::Tmpfs { ward.spec.limits.scratch_size.0 } else { 0 };
    ward.spec.limits.memory.0 + in_memory
}

fn bounded(ward: &Ward, result: Result<u64, SandboxError>, what: &str) -> Kept {
    match result {
        Err(SandboxError::Limit { limit: Limit::Memory, .. }) => Ok(()),
        Err(other) => Err(format!("{other:?}")),
        Ok(got) if got <= most(ward) => Ok(()),
        Ok(got) => Err(format!("was given {what} of {} MiB", got / MIB)),
    }
}

const HEAP: &str = "kept.append(bytearray(b'x') * (8 << 20))";

async fn a_memory_bomb_takes_no_more_than_its_memory(ward: &Ward) -> Kept {
    let result = taken(ward, HEAP).await;
    bounded(ward, result, "memory")
}

async fn a_memory_bomb_is_told_as_the_memory_limit(ward: &Ward) -> Kept {
    match taken(ward, HEAP).await {
        Err(SandboxError::Limit { limit: Limit::Memory, .. }) => Ok(()),
        other => {
            assert!(ward.sandbox.facts().remarks.iter().any(|r| r.contains("no control group for memory")), "and the facts do not say so");
            Err(format!("without a control group nobody tells: {other:?}"))
        }
    }
}

async fn shared_memory_counts_as_memory(ward: &Ward) -> Kept {
    let result = taken(ward, "m = mmap.mmap(-1, 8 << 20); m.write(b'x' * (8 << 20)); kept.append(m)").await;
    bounded(ward, result, "shared memory")
}

async fn files_in_memory_count_as_memory(ward: &Ward) -> Kept {
    let result = taken(ward, "f = os.memfd_create('x'); os.write(f, b'x' * (8 << 20)); kept.append(f)").await;
    bounded(ward, result, "files in memory")
}

const FORKS: &str = "
import os
n = 1
try:
    while n < 200:
        if os.fork() == 0: os.read(os.pipe()[0], 1)
        n += 1
except BlockingIOError: pass
print(n)
";

async fn a_fork_bomb_makes_no_more_processes_than_its_count(ward: &Ward) -> Kept {
    match ward.run(py(FORKS)).await {
        Ok(exit) => {
            let made: u32 = text(&exit.stdout).parse().unwrap();
            hold!(made <= ward.spec.limits.processes, "{made} processes stood at once");
        }
        Err(error) => hold!(matches!(error, SandboxError::Limit { limit: Limit::Processes, .. }), "{error:?}"),
    }
    let mut bomb = sh("b() { b | b & }; b; sleep 1");
    bomb.timeout = std::time::Duration::from_secs(4);
    let _ = ward.run(bomb).await;
    hold!(ward.alive().await, "nothing runs after it");
    Ok(())
}

async fn a_fork_bomb_is_told_as_the_process_limit(ward: &Ward) -> Kept {
    match ward.run(py(FORKS)).await {
        Err(SandboxError::Limit { limit: Limit::Processes, .. }) => Ok(()),
        other => {
            assert!(
                ward.sandbox.facts().remarks.iter().any(|r| r.contains("no control group for processes")),
                "and the facts do not say so"
            );
            Err(format!("without a control group nobody tells: {other:?}"))
        }
    }
}

async fn threads_count_as_processes(ward: &Ward) -> Kept {
    let program = "import threading\nstop = threading.Event(); n = 1\ntry:\n    while n < 200:\n        threading.Thread(target=stop.wait, daemon=True).start(); n += 1\nexcept RuntimeError: pass\nprint(n, flush=True)\n__import__('os')._exit(0)";
    match ward.run(py(program)).await {
        Ok(exit) => {
            let made: u32 = text(&exit.stdout).parse().unwrap();
            hold!(made <= ward.spec.limits.processes, "{made} threads ran at once");
        }
        Err(error) => hold!(matches!(error, SandboxError::Limit { limit: Limit::Processes | Limit::Memory, .. }), "{error:?}"),
    }
    Ok(())
}

/// Fills the tree with files of 4 MiB, to one and a half times its size at most; how many MiB it took.
const FILL: &str =
    "for i in $(seq 12); do head -c 4M /dev/zero > fill-$i || break; done 2>/dev/null; du -sm --apparent-size . | cut -f1; rm -f fill-*";

async fn the_scratch_takes_no_more_bytes_than_its_size(ward: &Ward) -> Kept {
    let size = ward.spec.limits.scratch_size.0 / MIB;
    let took: u64 = ward.sh(FILL).await.parse().unwrap();
    // what ext4 set aside for its tables and did not need
    let slack = if ward.kind == ScratchKind::Encrypted { 8 } else { 1 };
    hold!(took <= size + slack, "the {} took {took} MiB of {size}", word(ward.kind));
    let full = ward.run(sh("head -c 48M /dev/zero > fill")).await;
    hold!(matches!(full, Err(SandboxError::Limit { limit: Limit::Scratch, .. })), "it was not told: {full:?}");
    Ok(())
}

fn word(kind: ScratchKind) -> &'static str {
    match kind {
        ScratchKind::Tmpfs => "tmpfs",
        ScratchKind::Encrypted => "encrypted volume",
        ScratchKind::Directory => "directory",
    }
}

async fn the_scratch_takes_no_more_files_than_its_count(ward: &Ward) -> Kept {
    // ext4 has inodes for whole blocks in each of its groups
    let most = ward.spec.limits.max_files + if ward.kind == ScratchKind::Encrypted { 8_192 } else { 1_024 };
    // The default count is large; a file is small.
    let made: u64 = ward.py(&format!("import os\nn = 0\ntry:\n    while n < {most} + 10:\n        os.close(os.open(f'f{{n}}', os.O_CREAT)); n += 1\nexcept OSError: pass\nprint(n)")).await.parse().unwrap();
    hold!(made <= most, "the {} took {made} files, more than {most}", word(ward.kind));
    Ok(())
}

async fn the_private_places_take_no_more_bytes_than_their_size(ward: &Ward) -> Kept {
    // A quarter of the memory each, a sixteenth of a gibibyte at most for /run: together less than the memory.
    let quarter = ward.spec.limits.memory.0 / 4 / MIB;
    for place in ["/tmp", "/dev/shm", "/run"] {
        let took: u64 = ward
            .sh(&format!("head -c 90M /dev/zero > {place}/fill 2>/dev/null; stat -c %s {place}/fill; rm {place}/fill"))
            .await
            .parse()
            .unwrap();
        hold!(took / MIB <= quarter, "{place} took {} MiB", took / MIB);
    }
    Ok(())
}

async fn the_private_places_take_no_more_files_than_their_count(ward: &Ward) -> Kept {
    // Empty files take no bytes of a tmpfs, but the kernel's own memory, which no limit by process counts.
    for place in ["/tmp", "/dev/shm", "/run"] {
        let count: u64 = ward.sh(&format!("df --output=itotal {place} | tail -n1 | tr -d ' '")).await.parse().unwrap();
        hold!(count <= 65_536, "{place} takes {count} files");
    }
    Ok(())
}

async fn one_file_is_no_larger_than_the_scratch(ward: &Ward) -> Kept {
    let size = ward.spec.limits.scratch_size.0;
    let past = ward
        .run(py(&format!("import os\nfd = os.open('/data/f', os.O_CREAT | os.O_WRONLY)\nos.pwrite(fd, b'x', {size} + 1)\nprint('WROTE')")))
        .await;
    hold!(!past.is_ok_and(|exit| text(&exit.stdout) == "WROTE"), "a byte beyond the size was written");
    Ok(())
}

async fn a_sparse_file_as_large_as_a_disk_costs_nothing(ward: &Ward) -> Kept {
    let made = ward.run(sh("truncate -s 1T /data/sparse && fallocate -l 1G /data/solid && echo MADE")).await;
    hold!(!made.is_ok_and(|exit| text(&exit.stdout) == "MADE"), "a terabyte was promised");
    ward.sh("rm -f /data/sparse /data/solid").await;
    let free = ward.sandbox.free_bytes().unwrap();
    hold!(free > ward.spec.limits.scratch_size.0 / 2, "{free} bytes are free afterwards");
    Ok(())
}

async fn an_output_flood_on_both_channels_is_counted_and_dropped(ward: &Ward) -> Kept {
    let mut flood = sh("head -c 20000000 /dev/zero | tr '\\0' x & head -c 3000000 /dev/zero >&2; wait");
    flood.output_cap = 1_000;
    let exit = ward.run(flood).await.unwrap();
    hold!((exit.stdout.len(), exit.stdout_dropped) == (1_000, 19_999_000), "stdout: {} and {}", exit.stdout.len(), exit.stdout_dropped);
    hold!((exit.stderr.len(), exit.stderr_dropped) == (1_000, 2_999_000), "stderr: {} and {}", exit.stderr.len(), exit.stderr_dropped);
    let told = exit.whole();
    hold!(matches!(told, Err(SandboxError::Limit { limit: Limit::Output, .. })), "it was not told: {told:?}");
    let mut endless = sh("yes | tr -d '\\n' & yes >&2");
    endless.timeout = std::time::Duration::from_millis(500);
    endless.output_cap = 1_000;
    let ended = ward.run(endless).await;
    hold!(matches!(ended, Err(SandboxError::Limit { limit: Limit::Time, .. })), "{ended:?}");
    Ok(())
}

async fn open_files_are_bounded(ward: &Ward) -> Kept {
    let most: u64 =
        ward.py("import os\nn = 3\ntry:\n    while n < 100000: os.dup(1); n += 1\nexcept OSError: pass\nprint(n)").await.parse().unwrap();
    hold!(most <= 4_096, "{most} at once");
    Ok(())
}

async fn locked_memory_is_bounded(ward: &Ward) -> Kept {
    let got = ward.py("import ctypes, mmap\nm = mmap.mmap(-1, 1 << 20)\nprint(ctypes.CDLL(None).mlock(ctypes.addressof(ctypes.c_char.from_buffer(m)), 1 << 20))").await;
    hold!(got == "-1", "a mebibyte was locked");
    Ok(())
}
