//! What the caches of this machine can move at most, measured.

use super::ceilings::{Rate, moved};
use super::pool::Pool;
use crate::exec::ExecError;
use crate::plan::Caches;
use std::fs;
use std::path::Path;

/// Where Linux describes the caches of the first core.
const DESCRIBED: &str = "/sys/devices/system/cpu/cpu0/cache";
/// Bytes that each thread moves in a round at least: some milliseconds.
const MOVED: usize = 128 << 20;

/// A level of the hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cache {
    level: usize,
    bytes: usize,
    /// The cores that share it.
    cores: usize,
}

impl Cache {
    /// From its files in a folder; nothing where they do not say all.
    fn described(folder: &Path) -> Option<Cache> {
        let read = |name: &str| fs::read_to_string(folder.join(name)).ok().map(|text| text.trim().to_string());
        if read("type")? == "Instruction" {
            return None;
        }
        let size = read("size")?;
        let kibibytes: usize = size.strip_suffix('K')?.parse().ok()?;
        Some(Cache {
            level: read("level")?.parse().ok()?,
            bytes: kibibytes.checked_mul(1024)?,
            cores: listed(&read("shared_cpu_list")?)?,
        })
    }

    /// What of it is one thread's, where so many run.
    fn share(&self, threads: usize) -> usize {
        self.bytes / self.cores.clamp(1, threads.max(1))
    }
}

/// How many numbers a list such as `0-3,8` has.
fn listed(text: &str) -> Option<usize> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        to.parse::<usize>().ok()?.checked_sub(from.parse().ok()?).map(|more| more + 1)
    };
    text.split(',').map(range).sum()
}

/// The bytes that one thread moves over, for the second level and for the last: half of what it may have there, so that
/// it stays there, and for the last at least twice what the second holds, so that it is not there.
fn working_sets(caches: &[Cache], threads: usize) -> [Option<usize>; 2] {
    let second = caches.iter().find(|cache| cache.level == 2);
    let last = caches.iter().filter(|cache| cache.level > 2).max_by_key(|cache| cache.level);
    let half = |cache: &Cache| cache.share(threads) / 2;
    let beyond = second.map_or(usize::MAX, |cache| 2 * cache.share(threads));
    [second.map(half), last.map(half).filter(|&bytes| bytes >= beyond)]
}

/// The triad of the bandwidth test over what fits each level; nothing where the system says nothing of a level, or no
/// working set fits it alone.
pub(super) fn caches(pool: &Pool) -> Result<Caches, ExecError> {
    let folders = fs::read_dir(DESCRIBED).into_iter().flatten().flatten();
    let described: Vec<Cache> = folders.filter_map(|folder| Cache::described(&folder.path())).collect();
    let rate = |bytes: Option<usize>| bytes.map(|bytes| within(pool, bytes)).transpose();
    let [second_level, last_level] = working_sets(&described, pool.threads());
    Ok(Caches { second_level: rate(second_level)?.map(|r| r.best), last_level: rate(last_level)?.map(|r| r.best) })
}

/// The rate of the triad where each thread's arrays take so many bytes together.
fn within(pool: &Pool, bytes: usize) -> Result<Rate, ExecError> {
    let floats = (bytes / 3 / size_of::<f32>()).max(1);
    moved(pool, floats, MOVED.div_ceil(3 * floats * size_of::<f32>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cores_are_counted() {
        assert_eq!(["0", "0-1", "0-3,8", "1,3,5"].map(listed), [Some(1), Some(2), Some(5), Some(3)]);
        assert_eq!(["", "x", "3-1", "0-"].map(listed), [None; 4]);
    }

    #[test]
    fn a_cache_is_what_its_files_say() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(Cache::described(folder.path()), None);
        write("level", "2\n");
        write("type", "Unified\n");
        write("size", "1024K\n");
        write("shared_cpu_list", "0,16\n");
        assert_eq!(Cache::described(folder.path()), Some(Cache { level: 2, bytes: 1 << 20, cores: 2 }));
        write("type", "Instruction\n");
        assert_eq!(Cache::described(folder.path()), None);
    }

    #[test]
    fn each_level_has_what_fits_it_alone() {
        let (first, second) =
            (Cache { level: 1, bytes: 48 << 10, cores: 1 }, Cache { level: 2, bytes: 1 << 20, cores: 1 });
        let last = Cache { level: 3, bytes: 32 << 20, cores: 8 };
        assert_eq!(working_sets(&[first, second, last], 2), [Some(512 << 10), Some(8 << 20)]);
        // Shared by all cores, no more are counted than that.
        assert_eq!(working_sets(&[last, second], 64), [Some(512 << 10), Some(2 << 20)]);
        // What a thread has of the last level may be less than it has of the second.
        assert_eq!(working_sets(&[second, Cache { bytes: 8 << 20, ..last }], 8), [Some(512 << 10), None]);
        assert_eq!(working_sets(&[first], 1), [None, None]);
    }

    #[test]
    fn moving_in_a_cache_has_a_rate() {
        let rate = within(&Pool::new(2), 64 << 10).unwrap();
        assert!(rate.best.is_finite() && rate.best > 0.0 && (0.0..=1.0).contains(&rate.spread));
    }
}
