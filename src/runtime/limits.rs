//! The limits of the operating system on this process: threads, address space and memory. They are checked before a plugin is
//! used, because XLA ends the process without an error when it reaches one of them.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::ensure;
use rustix::process::{Resource, getrlimit};

use crate::units::byte_size;

/// Threads of a run beside those for each processor: prefetching, signals, saving and uploading.
const OTHER_THREADS: usize = 16;
/// Threads of XLA for each processor: to compile, to run, and for asynchronous work.
const THREADS_PER_PROCESSOR: usize = 4;
/// Address space of the CPU plugin: its code, and for each processor the stacks and heaps of its threads, in bytes. Measured with 2
/// processors: with a limit of 1.13 GB the plugin ends the process, with 1.23 GB a small run trains.
const PLUGIN_ADDRESS_SPACE: (u64, u64) = (1_050_000_000, 75_000_000);

/// Checks that the limits of this process allow a plugin, and a run with it.
///
/// # Errors
/// If the system refuses threads, or the limit on address space is too low.
pub fn check() -> anyhow::Result<()> {
    check_threads()?;
    check_address_space()
}

fn check_threads() -> anyhow::Result<()> {
    start_together(processors() * THREADS_PER_PROCESSOR + OTHER_THREADS)
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// Starts `count` threads that wait for each other, then ends them.
fn start_together(count: usize) -> anyhow::Result<()> {
    let gate = Arc::new(Mutex::new(()));
    let closed = gate.lock().unwrap_or_else(PoisonError::into_inner);
    let start = |_| {
        let gate = gate.clone();
        thread::Builder::new().spawn(move || drop(gate.lock()))
    };
    let started: Vec<_> = (0..count).map(start).take_while(Result::is_ok).flatten().collect();
    drop(closed);
    let found = started.len();
    started.into_iter().for_each(|thread| drop(thread.join()));
    ensure!(
        found == count,
        "a run requires {count} threads, and the system allows {found} more; raise the limit on processes (`ulimit -u`, or the pids \
         limit of the container)"
    );
    Ok(())
}

fn check_address_space() -> anyhow::Result<()> {
    let Some(left) = address_space_left() else { return Ok(()) };
    let (code, of_processor) = PLUGIN_ADDRESS_SPACE;
    let required = code + of_processor * processors() as u64;
    ensure!(
        left >= required,
        "a plugin requires {} of address space, found {} below the limit of this process; raise it (`ulimit -v`): memory itself can \
         be limited by a control group",
        byte_size(required as f64),
        byte_size(left as f64)
    );
    Ok(())
}

/// The memory that this process can still use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AvailableMemory {
    /// The bytes.
    pub bytes: u64,
    /// The name of the tightest limit, for messages.
    pub limit: &'static str,
}

impl AvailableMemory {
    /// Returns the smallest of the machine's free memory and the limits of the control group and of the address space. None if the
    /// system reports none of them.
    pub fn of_process() -> Option<AvailableMemory> {
        let proc = Path::new("/proc");
        [
            (machine_memory(proc), "the free memory of this machine"),
            (control_group_memory(proc, Path::new("/sys/fs/cgroup")), "the limit of the control group (container)"),
            (address_space_left(), "the limit on address space (`ulimit -v`)"),
        ]
        .into_iter()
        .filter_map(|(bytes, limit)| Some(AvailableMemory { bytes: bytes?, limit }))
        .min_by_key(|available| available.bytes)
    }
}

fn address_space_left() -> Option<u64> {
    let limit = getrlimit(Resource::As).current?;
    let used = field(&fs::read_to_string("/proc/self/status").ok()?, "VmSize:")?;
    Some(limit.saturating_sub(used))
}

/// Returns the memory that programs can get without swapping, and the free swap space.
fn machine_memory(proc: &Path) -> Option<u64> {
    let memory = fs::read_to_string(proc.join("meminfo")).ok()?;
    Some(field(&memory, "MemAvailable:")? + field(&memory, "SwapFree:").unwrap_or(0))
}

/// Returns the value of a line `NAME: VALUE kB`, in bytes.
fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Returns the least memory left in this process's control group and those around it, in version 2 of their interface or version
/// 1. Files in the page cache that are not in use count as free, as the kernel drops them first.
fn control_group_memory(proc: &Path, root: &Path) -> Option<u64> {
    let groups = fs::read_to_string(proc.join("self/cgroup")).ok()?;
    let of_line = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, group) = (parts.next()?, parts.next()?.trim_start_matches('/').to_owned());
        let is_memory = controllers.split(',').any(|controller| controller == "memory");
        let (directory, files) = match controllers.is_empty() {
            true => (root.to_owned(), ["memory.max", "memory.current", "inactive_file "]),
            false if is_memory => {
                (root.join("memory"), ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "])
            }
            false => return None,
        };
        // A container sees its own group as the root.
        let group = directory.join(group);
        group.ancestors().filter(|path| path.starts_with(&directory)).filter_map(|path| left_in(path, files)).min()
    };
    groups.lines().filter_map(of_line).min()
}

fn left_in(group: &Path, [limit, used, inactive]: [&str; 3]) -> Option<u64> {
    let number = |name: &str| fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
    // Without a limit, version 2 states "max", and version 1 a number near 2^63.
    let limit = number(limit).filter(|limit| *limit < 1 << 60)?;
    let statistics = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
    let inactive = statistics.lines().find_map(|line| line.strip_prefix(inactive)?.trim().parse::<u64>().ok());
    Some(limit.saturating_sub(number(used)?.saturating_sub(inactive.unwrap_or(0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_started_or_counted() {
        check_threads().unwrap();
        start_together(1).unwrap();
    }

    #[test]
    fn memory_of_the_machine_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let text = "MemTotal:  9 kB\nMemAvailable:    1000 kB\nSwapFree: 24 kB\n";
        fs::write(folder.path().join("meminfo"), text).unwrap();
        assert_eq!(machine_memory(folder.path()), Some(1024 * 1024));
        assert_eq!(machine_memory(Path::new("/nonexistent")), None);
        assert!(AvailableMemory::of_process().is_some_and(|available| available.bytes > 0));
    }

    #[test]
    fn the_tightest_control_group_counts() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let left = || control_group_memory(&folder.path().join("proc"), &folder.path().join("groups"));
        assert_eq!(left(), None);
        write("proc/self/cgroup", "0::/user/job\n");
        assert_eq!(left(), None);
        write("groups/user/job/memory.max", "max\n");
        write("groups/user/job/memory.current", "5\n");
        assert_eq!(left(), None);
        write("groups/user/memory.max", "1000\n");
        write("groups/user/memory.current", "700\n");
        assert_eq!(left(), Some(300));
        write("groups/user/memory.stat", "anon 100\ninactive_file 50\n");
        assert_eq!(left(), Some(350));
        write("groups/user/job/memory.max", "105\n");
        assert_eq!(left(), Some(100));

        write("proc/self/cgroup", "12:cpu,memory:/job\n3:pids:/\n");
        assert_eq!(left(), None);
        write("groups/memory/job/memory.limit_in_bytes", "400\n");
        write("groups/memory/job/memory.usage_in_bytes", "500\n");
        write("groups/memory/memory.limit_in_bytes", "9223372036854771712\n");
        assert_eq!(left(), Some(0));
        write("groups/memory/job/memory.stat", "inactive_file 1\ntotal_inactive_file 150\n");
        assert_eq!(left(), Some(50));
    }
}
