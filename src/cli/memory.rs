//! How much memory there is.

use std::fs;

/// Bytes that are free, as far as the system tells: on Linux what it calls available, or a container's limit where that is
/// less.
pub fn free() -> Option<u64> {
    let available = available(&fs::read_to_string("/proc/meminfo").ok()?)?;
    // What of the limit is used already would count what a file system keeps in memory and gives up at once.
    let limit = fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    Some(limit.map_or(available, |limit: u64| limit.min(available)))
}

fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    #[test]
    fn available_memory_is_read() {
        let text = "MemTotal:       16384 kB\nMemFree:  1 kB\nMemAvailable:    8192 kB\n";
        assert_eq!(super::available(text), Some(8 << 20));
        assert_eq!(super::available("MemTotal: 1 kB\n"), None);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_system_tells() {
        assert!(super::free().is_some_and(|bytes| bytes > 1 << 20));
    }
}
