//! Backups come out of their compression whole, once, whoever dies or competes.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::super::file::identity;
use super::{Compression, all_backups, hidden_name, one};

/// A log with two backups.
struct Place {
    folder: tempfile::TempDir,
    log: PathBuf,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        fs::write(&log, "present\n").unwrap();
        for n in [1, 2] {
            fs::write(log.with_extension(n.to_string()), text(n)).unwrap();
        }
        Self { folder, log }
    }

    fn backup(&self, suffix: &str) -> PathBuf {
        self.log.with_extension(suffix)
    }

    /// The copy under way of the first backup.
    fn hidden(&self) -> PathBuf {
        let about = fs::metadata(self.backup("1")).unwrap();
        hidden_name(&self.log, identity(&about))
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let name = |entry: fs::DirEntry| entry.file_name().into_string().unwrap();
        let mut names: Vec<String> = entries.map(|entry| name(entry.unwrap())).collect();
        names.sort();
        names
    }
}

fn text(n: usize) -> String {
    format!("line of {n}\n").repeat(1000)
}

fn unpacked(file: &Path, kind: Compression) -> String {
    let packed = fs::read(file).unwrap();
    let mut text = String::new();
    match kind {
        Compression::Gzip => flate2::read::GzDecoder::new(packed.as_slice())
            .read_to_string(&mut text)
            .unwrap(),
        Compression::Zstd => zstd::Decoder::new(packed.as_slice())
            .unwrap()
            .read_to_string(&mut text)
            .unwrap(),
    };
    text
}

#[test]
fn backups_are_compressed_and_read_back() {
    for (kind, end) in [(Compression::Gzip, "gz"), (Compression::Zstd, "zst")] {
        let place = Place::new();

        all_backups(&place.log, kind);

        assert_eq!(
            place.names(),
            [
                "log".to_owned(),
                format!("log.1.{end}"),
                format!("log.2.{end}")
            ]
        );
        for n in [1, 2] {
            assert_eq!(
                unpacked(&place.backup(&format!("{n}.{end}")), kind),
                text(n)
            );
        }
    }
}

#[cfg(not(feature = "loom"))]
#[test]
fn compression_may_be_cut_anywhere() {
    use crate::log::fuse::light;
    for points in 0.. {
        let place = Place::new();

        let done = light(points, || all_backups(&place.log, Compression::Gzip));
        all_backups(&place.log, Compression::Gzip);

        assert_eq!(place.names(), ["log", "log.1.gz", "log.2.gz"]);
        for n in [1, 2] {
            assert_eq!(
                unpacked(&place.backup(&format!("{n}.gz")), Compression::Gzip),
                text(n)
            );
        }
        if done.is_some() {
            assert!(points > 6, "{points} points");
            break;
        }
    }
}

/// Of which the source is gone, so that nobody will write it anew.
#[test]
fn a_dead_ones_copy_is_removed() {
    let place = Place::new();
    fs::write(place.folder.path().join(".log.1.packing"), "part").unwrap();

    all_backups(&place.log, Compression::Gzip);

    assert_eq!(place.names(), ["log", "log.1.gz", "log.2.gz"]);
}

#[test]
fn a_living_ones_copy_is_left_to_it() {
    let place = Place::new();
    let hidden = place.hidden();
    fs::write(&hidden, "part").unwrap();
    let held = File::open(&hidden).unwrap();
    held.lock().unwrap();

    all_backups(&place.log, Compression::Gzip);

    assert_eq!(fs::read_to_string(&hidden).unwrap(), "part");
    assert_eq!(fs::read_to_string(place.backup("1")).unwrap(), text(1));
    assert!(!place.backup("1.gz").exists());
    assert!(place.backup("2.gz").exists());
}

/// Its maker died after the dead ones' copies were removed.
#[test]
fn a_copy_begins_with_nothing() {
    let place = Place::new();
    fs::write(place.hidden(), "part".repeat(10_000)).unwrap();

    one(&place.log, &place.backup("1"), Compression::Gzip).unwrap();

    let packed = place.backup("1.gz");
    assert_eq!(unpacked(&packed, Compression::Gzip), text(1));
    assert!(fs::metadata(packed).unwrap().len() < 10_000);
}
