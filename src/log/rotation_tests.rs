//! Which backups stay, and in which order they go.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::{Policy, prune, set_aside};
use crate::log::schedule::{Schedule, When};

const NOW: Duration = Duration::from_secs(1_700_000_000);

/// Lays a backup of five bytes, last written `age` seconds ago.
fn lay(log: &Path, suffix: &str, age: u64) {
    let name = log.with_extension(suffix);
    fs::write(&name, "line\n").unwrap();
    let file = OpenOptions::new().write(true).open(&name).unwrap();
    let written = SystemTime::UNIX_EPOCH + NOW - Duration::from_secs(age);
    file.set_modified(written).unwrap();
}

/// The suffixes of those of `laid` that stay, each with its age.
fn kept<'a>(laid: &[(&'a str, u64)], policy: &Policy) -> Vec<&'a str> {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    for (suffix, age) in laid {
        lay(&log, suffix, *age);
    }

    prune(&log, policy, SystemTime::UNIX_EPOCH + NOW).unwrap();

    let stays = |suffix: &&str| log.with_extension(suffix).exists();
    laid.iter()
        .map(|(suffix, _)| *suffix)
        .filter(stays)
        .collect()
}

pub(in crate::log) fn daily() -> Policy {
    let schedule = Schedule {
        when: When::Midnight,
        interval: 1,
        at: 0,
        utc: true,
    };
    Policy {
        schedule: Some(schedule),
        ..Policy::default()
    }
}

fn count(backup_count: usize) -> Policy {
    Policy {
        backup_count,
        ..daily()
    }
}

fn age(seconds: u64) -> Policy {
    Policy {
        max_age: Some(Duration::from_secs(seconds)),
        ..daily()
    }
}

fn total(bytes: u64) -> Policy {
    Policy {
        max_total_bytes: Some(bytes),
        ..daily()
    }
}

#[test]
fn retention_keeps_what_is_just_within_its_limit() {
    let days = ["2023-11-10", "2023-11-09", "2023-11-08.gz"];
    let laid = [(days[0], 100), (days[1], 200), (days[2], 300)];

    assert_eq!(kept(&laid, &count(0)), days);
    assert_eq!(kept(&laid, &count(2)), days[..2]);
    assert_eq!(kept(&laid, &age(300)), days);
    assert_eq!(kept(&laid, &age(299)), days[..2]);
    assert_eq!(kept(&laid, &age(99)), [""; 0]);
    assert_eq!(kept(&laid, &total(15)), days);
    assert_eq!(kept(&laid, &total(14)), days[..2]);
    // Each limit holds, whichever is the tighter.
    let both = Policy {
        max_total_bytes: Some(9),
        ..age(250)
    };
    assert_eq!(kept(&laid, &both), days[..1]);
    let numbered = [("1", 100), ("2.gz", 200), ("3.zst", 300)];
    assert_eq!(kept(&numbered, &age(200)), ["1", "2.gz"]);
    assert_eq!(kept(&numbered, &total(5)), ["1"]);
}

/// A death between giving a compressed backup its name and removing the other.
#[test]
fn a_backup_that_is_there_twice_counts_once() {
    let laid = [
        ("2023-11-10", 100),
        ("2023-11-09", 200),
        ("2023-11-09.gz", 200),
        ("2023-11-08.gz", 300),
    ];

    let names = laid.map(|(name, _)| name);
    assert_eq!(kept(&laid, &count(2)), names[..3]);
    assert_eq!(kept(&laid, &count(1)), names[..1]);
}

#[test]
fn backups_of_one_instant_are_ordered_by_their_names() {
    let day = ["2023-11-10.10", "2023-11-10.9.gz", "2023-11-10"];
    let days = ["2023-11-11", "2023-11-10", "2023-11-09.5"];
    let numbered = ["1", "2", "10"];
    for names in [day, days, numbered] {
        let laid = names.map(|name| (name, 50));
        for keep in 0..3 {
            assert_eq!(kept(&laid, &total(5 * keep as u64)), names[..keep]);
        }
    }
}

#[test]
fn of_two_sequences_of_backups_the_last_lines_tell_the_older() {
    let laid = [("2023-11-10", 10), ("1", 20), ("2023-11-09", 30), ("2", 40)];

    for keep in 0..4 {
        let names: Vec<&str> = laid[..keep].iter().map(|(name, _)| *name).collect();
        assert_eq!(kept(&laid, &total(5 * keep as u64)), names);
    }
}

/// Somebody edited the backup of an old day, or copied the newest one back.
#[test]
fn a_day_is_as_old_as_its_name_says() {
    let laid = [("2023-11-10", 900), ("2023-11-09", 100), ("2023-11-08", 10)];

    assert_eq!(kept(&laid, &count(1)), ["2023-11-10"]);
    assert_eq!(kept(&laid, &count(2)), ["2023-11-10", "2023-11-09"]);
}

/// The hour that comes twice when the clocks go back: its minutes' names do
/// not tell which is the newer.
#[test]
fn within_a_day_backups_are_as_old_as_their_last_line() {
    let laid = [("2023-10-29_02-10", 60), ("2023-10-29_02-50", 1200)];

    assert_eq!(kept(&laid, &count(1)), ["2023-10-29_02-10"]);
}

/// The oldest of a day's backups was removed: its name must not be given to
/// the newest, which would be the next to go.
#[test]
fn a_backups_number_is_greater_than_the_older_ones() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    let suffix = |name: PathBuf| name.extension().unwrap().to_owned();
    let mut given = Vec::new();
    for _ in 0..5 {
        fs::write(&log, "line\n").unwrap();
        given.push(suffix(set_aside(&log, &count(2), 0).unwrap()));
        prune(&log, &count(2), SystemTime::now()).unwrap();
    }

    assert_eq!(given, ["1970-01-01", "1", "2", "3", "4"]);
}

#[cfg(unix)]
#[test]
fn a_backup_takes_no_name_that_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("log");
    fs::write(&log, "line\n").unwrap();
    fs::create_dir(log.with_extension("1970-01-01")).unwrap();
    std::os::unix::fs::symlink("nowhere", log.with_extension("1970-01-01.1")).unwrap();

    let backup = set_aside(&log, &count(2), 0).unwrap();

    assert_eq!(backup, log.with_extension("1970-01-01.2"));
    // One that somebody gave the last number there is leaves none.
    fs::rename(
        &backup,
        log.with_extension(format!("1970-01-01.{}", u64::MAX)),
    )
    .unwrap();
    fs::write(&log, "line\n").unwrap();
    assert!(set_aside(&log, &count(2), 0).is_err());
    assert!(log.exists());
}
