//! Being killed at any point of a write, and what the next one makes of it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::{Tally, Target, storage};
use crate::log::ring::Intent;
use crate::log::rotation::tests::daily;
use crate::log::storage::Housed;
use crate::log::{Config, Mode, Policy};

struct Place {
    _folder: tempfile::TempDir,
    log: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().canonicalize().unwrap().join("app.log");
        Self {
            _folder: folder,
            log,
        }
    }

    fn target(&self, policy: Policy) -> Target {
        Target::new(&self.config(policy))
    }

    fn config(&self, policy: Policy) -> Config {
        Config {
            path: self.log.clone(),
            mode: Mode::Append,
            delay: true,
            policy,
            ring_bytes: 4096,
            rings: None,
            fsync: false,
            gather: Duration::ZERO,
            wall: SystemTime::now,
            observer: Arc::new(|_| ()),
        }
    }

    fn ring(&self, records: &[String]) -> Housed {
        let (housed, _) = storage::house(None, &self.log, 1 << 16);
        for record in records {
            housed.ring.push(record.as_bytes(), false).unwrap();
        }
        housed
    }

    fn text(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn append(&self, text: &str) {
        let mut options = OpenOptions::new();
        let mut file = options.append(true).create(true).open(&self.log).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    }
}

fn drain(target: &mut Target, source: &Housed) -> Tally {
    let mut tally = Tally::default();
    while source.ring.used() > 0 {
        target.drain(source, &mut tally).unwrap();
    }
    tally
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("record {n}\n")).collect()
}

/// What a process leaves that was killed after writing `written` bytes of the
/// batch it had announced.
fn killed(place: &Place, ring: &Housed, batch: &[String], written: usize) {
    place.append("");
    let about = fs::metadata(&place.log).unwrap();
    let id = super::super::file::identity(&about);
    let all = batch.concat();
    let records = batch.len() as u64;
    ring.ring.intend(Intent {
        start: ring.ring.tail(),
        end: ring.ring.tail() + all.len() as u64 + 7 * records,
        skip: 0,
        dev: id.dev,
        ino: id.ino,
        offset: about.len(),
    });
    place.append(&all[..written.min(all.len())]);
}

#[cfg(unix)]
proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A write cut anywhere is completed: no byte lost, none twice.
    #[test]
    fn a_cut_write_is_completed(
        records in 1usize..30, announced in 0usize..30, written in 0usize..400,
        before in 0usize..3,
    ) {
        let place = Place::new();
        place.append(&"before\n".repeat(before));
        let records = numbered(records);
        let ring = place.ring(&records);
        killed(&place, &ring, &records[..announced.clamp(1, records.len())], written);

        drain(&mut place.target(Policy::default()), &ring);

        prop_assert_eq!(place.text(), "before\n".repeat(before) + &records.concat());
    }

    /// Others may have appended since: only the torn record is written anew.
    #[test]
    fn strangers_lines_after_a_cut_write_stay_whole(written in 0usize..120) {
        let place = Place::new();
        let records = numbered(10);
        let ring = place.ring(&records);
        killed(&place, &ring, &records, written);
        place.append("\nstranger\n");

        drain(&mut place.target(Policy::default()), &ring);

        let text = place.text();
        for record in &records {
            prop_assert_eq!(text.matches(record.as_str()).count(), 1, "{}", text);
        }
        prop_assert!(text.contains("\nstranger\n"));
    }

    /// The file may have been rotated away since.
    #[test]
    fn a_cut_write_in_a_backup_is_found_there(written in 0usize..120) {
        let place = Place::new();
        let records = numbered(10);
        let ring = place.ring(&records);
        killed(&place, &ring, &records, written);
        fs::rename(&place.log, place.log.with_extension("log.1")).unwrap();

        drain(&mut place.target(Policy::default()), &ring);

        let backup = fs::read_to_string(place.log.with_extension("log.1")).unwrap();
        let both = backup + "|" + &place.text();
        for record in &records {
            prop_assert_eq!(both.matches(record.as_str()).count(), 1, "{}", both);
        }
    }

    /// Sizes, names and order of files, whatever the records.
    #[test]
    fn rotation_keeps_order_and_bounds(
        lengths in prop::collection::vec(1usize..60, 1..120), max in 20u64..200
    ) {
        let place = Place::new();
        let records: Vec<String> = lengths
            .iter()
            .enumerate()
            .map(|(n, length)| format!("{n}{}\n", "x".repeat(*length)))
            .collect();
        let policy = Policy { max_bytes: max, backup_count: 1000, ..Policy::default() };

        drain(&mut place.target(policy), &place.ring(&records));

        let mut names: Vec<PathBuf> = (1..1000)
            .map(|n| place.log.with_extension(format!("log.{n}")))
            .take_while(|name| name.exists())
            .collect();
        names.reverse();
        names.push(place.log.clone());
        let texts: Vec<String> = names.iter().map(|n| fs::read_to_string(n).unwrap()).collect();
        prop_assert_eq!(texts.concat(), records.concat());
        for text in &texts {
            prop_assert!(text.len() as u64 <= max || text.lines().count() == 1);
        }
    }
}

#[test]
fn a_rotation_killed_midway_overwrites_nothing() {
    let place = Place::new();
    let named = |n: usize| place.log.with_extension(format!("log.{n}"));
    let policy = Policy {
        max_bytes: 10,
        backup_count: 3,
        ..Policy::default()
    };
    // Killed after .2 became .3 and before .1 became .2.
    fs::write(named(1), "1").unwrap();
    fs::write(named(3), "3").unwrap();
    place.append("present\n");

    drain(
        &mut place.target(policy),
        &place.ring(&["next\n".to_owned()]),
    );

    let read = |path: &Path| fs::read_to_string(path).unwrap();
    let all = [place.log.clone(), named(1), named(2), named(3)].map(|path| read(&path));
    assert_eq!(all, ["next\n", "present\n", "1", "3"]);
}

#[test]
fn a_day_that_is_over_is_set_aside_under_its_date() {
    let place = Place::new();
    place.append("yesterday\n");
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let file = OpenOptions::new().write(true).open(&place.log).unwrap();
    file.set_modified(then).unwrap();
    let tally = drain(
        &mut place.target(daily()),
        &place.ring(&["today\n".to_owned()]),
    );

    let backup = place.log.with_extension("log.2023-11-14");
    assert_eq!(tally.rotations, 1);
    assert_eq!(fs::read_to_string(backup).unwrap(), "yesterday\n");
    assert_eq!(place.text(), "today\n");
}

#[test]
fn retention_removes_the_oldest_beyond_each_limit() {
    let place = Place::new();
    let policy = Policy {
        max_bytes: 10,
        max_total_bytes: Some(25),
        ..Policy::default()
    };
    let foreign = place.log.with_extension("log.notes");
    fs::write(&foreign, "x".repeat(100)).unwrap();

    drain(&mut place.target(policy), &place.ring(&numbered(10)));

    let left = fs::read_dir(place.log.parent().unwrap()).unwrap().count();
    // The log, two backups of nine bytes, and a file that is none of ours.
    assert_eq!(left, 4);
    assert!(foreign.exists());
    assert_eq!(place.text(), "record 9\n");
}

/// What retention or compression does to a backup must not hide from the next
/// one what a dead process had written to it.
#[cfg(target_os = "linux")]
#[test]
fn rotation_settles_what_the_dead_wrote_to_the_file() {
    let place = Place::new();
    let rings = tempfile::tempdir_in(storage::default_folder().unwrap()).unwrap();
    let mut living = Target::new(&Config {
        rings: Some(rings.path().to_owned()),
        ..place.config(Policy {
            max_bytes: 60,
            backup_count: 9,
            ..Policy::default()
        })
    });
    drain(&mut living, &place.ring(&["first\n".to_owned()]));
    let records = numbered(5);
    let (dead, _) = storage::house(Some(rings.path()), &place.log, 4096);
    for record in &records {
        dead.push(record.as_bytes()).unwrap();
    }
    killed(&place, &dead, &records, usize::MAX);
    drop(dead);

    drain(
        &mut living,
        &place.ring(&["a line of the next file\n".to_owned()]),
    );
    let backup = place.log.with_extension("log.1");
    let before = fs::read_to_string(&backup).unwrap();
    fs::remove_file(&backup).unwrap();
    recover(&place, rings.path());

    assert_eq!(
        before + &place.text(),
        "first\n".to_owned() + &records.concat() + "a line of the next file\n"
    );
}

/// It can't be read now, as when descriptors have run out: it may be later.
#[cfg(target_os = "linux")]
#[test]
fn a_long_record_that_cannot_be_read_waits() {
    let place = Place::new();
    let rings = tempfile::tempdir_in(storage::default_folder().unwrap()).unwrap();
    let (housed, _) = storage::house(Some(rings.path()), &place.log, 4096);
    let line = "long".repeat(800) + "\n";
    housed.push(line.as_bytes()).unwrap();
    let mut entries = fs::read_dir(rings.path())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let beside = entries
        .find(|file| file.extension().unwrap() != "ring")
        .unwrap();
    let away = rings.path().join("away");
    fs::rename(&beside, &away).unwrap();
    // Not followed, which is another error than that there is none.
    std::os::unix::fs::symlink(&away, &beside).unwrap();
    let mut target = place.target(Policy::default());

    assert!(target.drain(&housed, &mut Tally::default()).is_err());
    fs::rename(&away, &beside).unwrap();
    drain(&mut target, &housed);

    assert_eq!(place.text(), line);
}

#[test]
fn a_long_record_that_is_missing_is_said_to_be() {
    let place = Place::new();
    let ring = place.ring(&[]);
    for lost in [false, true] {
        let spill = ring.spills.put(b"long\n").unwrap();
        ring.ring.push(&spill.to_bytes(), true).unwrap();
        if lost {
            ring.spills.forget(&spill);
        }
    }
    ring.ring.push(b"next\n", false).unwrap();

    drain(&mut place.target(Policy::default()), &ring);

    assert_eq!(place.text(), "long\n[a long record was lost]\nnext\n");
}

/// A folder in memory with the rings of `place`, and one that died in it.
#[cfg(target_os = "linux")]
fn dead_ring(place: &Place, end: impl FnOnce(&Housed)) -> tempfile::TempDir {
    let rings = tempfile::tempdir_in(storage::default_folder().unwrap()).unwrap();
    let (housed, refused) = storage::house(Some(rings.path()), &place.log, 4096);
    assert!(refused.is_none());
    end(&housed);
    rings
}

#[cfg(target_os = "linux")]
fn recover(place: &Place, rings: &Path) {
    let mut target = Target::new(&Config {
        rings: Some(rings.to_owned()),
        ..place.config(Policy::default())
    });
    while target.owes() {
        let own = place.ring(&[]);
        target.drain(&own, &mut Tally::default()).unwrap();
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_long_record_that_its_ring_never_got_is_removed_with_the_ring() {
    let place = Place::new();
    let rings = dead_ring(&place, |dead| {
        dead.push(b"accepted\n").unwrap();
        dead.spills.put(&[b'x'; 3000]).unwrap();
    });
    let (living, _) = storage::house(Some(rings.path()), &place.log, 4096);
    let line = "living".repeat(400) + "\n";
    living.push(line.as_bytes()).unwrap();

    recover(&place, rings.path());

    assert_eq!(place.text(), "accepted\n");
    let left = fs::read_dir(rings.path()).unwrap().count();
    assert_eq!(left, 2, "the living ring and what lies beside it");
    drain(&mut place.target(Policy::default()), &living);
    assert_eq!(place.text(), "accepted\n".to_owned() + &line);
}

/// The ring was empty and closed; a thread died on its way into it.
#[cfg(target_os = "linux")]
#[test]
fn a_long_record_without_a_ring_is_removed() {
    let place = Place::new();
    let rings = dead_ring(&place, |dead| {
        dead.spills.put(&[b'x'; 3000]).unwrap();
        dead.retire();
    });

    recover(&place, rings.path());

    assert_eq!(fs::read_dir(rings.path()).unwrap().count(), 0);
}

#[cfg(target_os = "linux")]
#[test]
fn a_damaged_ring_takes_its_long_records_along() {
    let place = Place::new();
    let rings = dead_ring(&place, |dead| {
        dead.spills.put(&[b'x'; 3000]).unwrap();
    });
    for entry in fs::read_dir(rings.path()).unwrap() {
        let home = entry.unwrap().path();
        if home.extension().unwrap() == "ring" {
            fs::write(home, [7; 10_000]).unwrap();
        }
    }

    recover(&place, rings.path());

    assert_eq!(fs::read_dir(rings.path()).unwrap().count(), 0);
}

/// A log keeps its closed lives: their memory must not stay with them.
#[cfg(target_os = "linux")]
#[test]
fn a_released_ring_gives_its_pages_back() {
    use std::os::unix::fs::MetadataExt;
    let Some(memory) = storage::default_folder() else {
        return;
    };
    let rings = tempfile::tempdir_in(memory).unwrap();
    let (housed, refused) = storage::house(Some(rings.path()), Path::new("/log"), 1 << 20);
    let home = fs::read_dir(rings.path()).unwrap().next().unwrap().unwrap();
    let blocks = || home.metadata().unwrap().blocks();
    let before = blocks();

    housed.ring.release();

    assert!(refused.is_none());
    assert!(before >= (1 << 20) / 512);
    assert!(blocks() <= 8192 / 512, "{} blocks", blocks());
}
