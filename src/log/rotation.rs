//! When the file is set aside, under which name, and which backups stay.
//!
//! Every step is one rename or one removal, so a process killed between two of
//! them leaves each file whole; the next rotation closes the gap it left.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::compress::Compression;
use super::file::{Standing, folder};
use super::schedule::Schedule;

/// What the user asked for.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Rotate before the file exceeds this many bytes; 0 never does.
    pub max_bytes: u64,
    /// Backups to keep; 0 keeps all that the other limits allow.
    pub backup_count: usize,
    /// Rotate by time too, and name the backups by it.
    pub schedule: Option<Schedule>,
    /// Remove backups older than this.
    pub max_age: Option<Duration>,
    /// Remove the oldest backups while all of them exceed this many bytes.
    pub max_total_bytes: Option<u64>,
    /// Compress backups.
    pub compression: Option<Compression>,
}

impl Policy {
    /// True when a record of `next` bytes belongs into a new file.
    pub(super) fn is_full(&self, file: Standing, next: u64) -> bool {
        self.rotates_by_size() && file.regular && file.size > 0 && file.size + next > self.max_bytes
    }

    /// As in the standard library, rotation by size needs somewhere to put the
    /// old file: a count of backups, or another limit on them.
    fn rotates_by_size(&self) -> bool {
        self.max_bytes > 0 && (self.backup_count > 0 || self.retains_otherwise())
    }

    fn retains_otherwise(&self) -> bool {
        self.schedule.is_some() || self.max_age.is_some() || self.max_total_bytes.is_some()
    }
}

/// Renames the file at `path` to its backup name; `now` names it when a
/// schedule does. The caller holds the file's lock.
pub(super) fn set_aside(path: &Path, policy: &Policy, began: u64) -> io::Result<PathBuf> {
    let backup = match &policy.schedule {
        Some(schedule) => free_name(path, &schedule.stamp(began)),
        None => vacate_first(path, policy.backup_count)?,
    };
    fs::rename(path, &backup)?;
    Ok(backup)
}

/// `path.1`, made free by moving each backup up to the first gap.
fn vacate_first(path: &Path, count: usize) -> io::Result<PathBuf> {
    let taken = |n: usize| variants(path, n).iter().any(|name| name.exists());
    let last = if count == 0 { usize::MAX } else { count };
    let mut gap = 1;
    while gap < last && taken(gap) {
        gap += 1;
    }
    for name in variants(path, gap) {
        remove_if_there(&name)?;
    }
    for n in (1..gap).rev() {
        shift(path, n)?;
    }
    Ok(numbered(path, n_suffix(1)))
}

fn shift(path: &Path, n: usize) -> io::Result<()> {
    let [plain, gz, zst] = variants(path, n);
    // A finished compression that died before removing its source.
    if gz.exists() || zst.exists() {
        remove_if_there(&plain)?;
    }
    for (from, to) in [plain, gz, zst].iter().zip(variants(path, n + 1)) {
        if from.exists() {
            fs::rename(from, to)?;
        }
    }
    Ok(())
}

fn variants(path: &Path, n: usize) -> [PathBuf; 3] {
    ["", ".gz", ".zst"].map(|end| numbered(path, n_suffix(n) + end))
}

fn n_suffix(n: usize) -> String {
    format!(".{n}")
}

fn numbered(path: &Path, suffix: impl AsRef<std::ffi::OsStr>) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// `path.stamp`, or `path.stamp.n` with the least `n` nobody uses.
fn free_name(path: &Path, stamp: &str) -> PathBuf {
    let is_free = |name: &PathBuf| {
        ["", ".gz", ".zst"]
            .iter()
            .all(|end| !numbered(name, end).exists())
    };
    let first = numbered(path, format!(".{stamp}"));
    if is_free(&first) {
        return first;
    }
    (1..u32::MAX as usize)
        .map(|n| numbered(&first, n_suffix(n)))
        .find(is_free)
        .expect("the file system holds fewer than 2^32 names")
}

fn remove_if_there(name: &Path) -> io::Result<()> {
    match fs::remove_file(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A backup as the folder shows it.
#[derive(Debug, Clone)]
pub(super) struct Backup {
    pub(super) path: PathBuf,
    modified: SystemTime,
    size: u64,
    /// The number in `path.number`, which orders backups of one instant.
    number: u64,
}

/// The backups of `path`, newest first. Other files are left alone.
pub(super) fn backups(path: &Path) -> io::Result<Vec<Backup>> {
    let Some(name) = path.file_name() else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder(path))?.flatten() {
        let other = entry.file_name();
        let rest = other
            .as_encoded_bytes()
            .strip_prefix(name.as_encoded_bytes());
        let suffix = rest.and_then(|rest| std::str::from_utf8(rest).ok());
        let (Some(number), Ok(about)) = (suffix.and_then(backup_number), entry.metadata()) else {
            continue;
        };
        if about.is_file() {
            let modified = about.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            found.push(Backup {
                path: entry.path(),
                modified,
                size: about.len(),
                number,
            });
        }
    }
    found.sort_by(|a, b| b.modified.cmp(&a.modified).then(a.number.cmp(&b.number)));
    Ok(found)
}

/// `Some` for `.3`, `.2026-11-24`, `.2026-11-24_13-05.2` and these with `.gz`
/// or `.zst`; the number is the last one.
fn backup_number(suffix: &str) -> Option<u64> {
    let bare = suffix
        .strip_suffix(".gz")
        .or_else(|| suffix.strip_suffix(".zst"))
        .unwrap_or(suffix);
    let mut parts = bare.strip_prefix('.')?.split('.');
    let first = parts.next()?;
    let second = parts.next();
    if parts.next().is_some() {
        return None;
    }
    match (first.parse::<u64>(), second) {
        (Ok(number), None) => Some(number),
        (Err(_), None) if is_stamp(first) => Some(0),
        (Err(_), Some(number)) if is_stamp(first) => number.parse().ok(),
        _ => None,
    }
}

fn is_stamp(text: &str) -> bool {
    let shape = |c: char| if c.is_ascii_digit() { '0' } else { c };
    let pattern: String = text.chars().map(shape).collect();
    let full = "0000-00-00_00-00-00";
    pattern.len() >= "0000-00-00".len()
        && full.starts_with(&pattern)
        && !pattern.ends_with(['-', '_'])
}

/// Removes the backups that no limit allows; returns the first failure.
pub(super) fn prune(path: &Path, policy: &Policy, now: SystemTime) -> io::Result<()> {
    if !policy.retains_otherwise() {
        return Ok(());
    }
    let mut total = 0;
    let mut outcome = Ok(());
    for (place, backup) in backups(path)?.into_iter().enumerate() {
        total += backup.size;
        let age = now.duration_since(backup.modified).unwrap_or_default();
        let keep = (policy.backup_count == 0 || place < policy.backup_count)
            && policy.max_age.is_none_or(|limit| age <= limit)
            && policy.max_total_bytes.is_none_or(|limit| total <= limit);
        if !keep {
            outcome = outcome.and(remove_if_there(&backup.path));
        }
    }
    outcome
}
