//! Backups as gzip or zstd, made beside the writer and safe to be killed in.
//!
//! The compressed copy grows under a hidden name; whole and on the disk, it
//! takes the backup's name plus suffix by one rename, and the backup goes. A
//! copy without owner is thrown away; of both under their names, the copy wins.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use super::file::{Identity, LogFile, folder, identity};
use super::fork::Guarded;
use super::fuse;
use super::rotation;

/// How backups are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// `.gz`, readable everywhere.
    Gzip,
    /// `.zst`, faster and smaller.
    Zstd,
}

impl Compression {
    fn suffix(self) -> &'static str {
        match self {
            Self::Gzip => ".gz",
            Self::Zstd => ".zst",
        }
    }
}

/// Compresses every backup of `path` that is not; what fails stays plain and
/// is tried again after the next rotation.
pub(super) fn all_backups(path: &Path, kind: Compression) {
    sweep(path);
    let plain = |backup: &rotation::Backup| {
        let end = backup.path.extension().unwrap_or_default();
        end != "gz" && end != "zst"
    };
    for backup in rotation::backups(path).unwrap_or_default() {
        if plain(&backup) {
            let _ = one(path, &backup.path, kind);
        }
    }
}

fn one(path: &Path, backup: &Path, kind: Compression) -> io::Result<()> {
    let source = File::open(backup)?;
    let id = identity(&source.metadata()?);
    let hidden = hidden_name(path, id);
    let copy = Guarded::open(|| {
        OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&hidden)
    })?;
    // Another process is at it.
    if copy.try_lock().is_err() {
        return Ok(());
    }
    let made = write_copy(&source, &copy, kind);
    let placed = made.and_then(|()| place(path, &hidden, id, kind));
    if placed.is_err() {
        let _ = fs::remove_file(&hidden);
    }
    placed
}

fn write_copy(source: &File, copy: &File, kind: Compression) -> io::Result<()> {
    fuse::before();
    copy.set_len(0)?;
    let mut from = BufReader::with_capacity(1 << 18, source);
    let to = BufWriter::with_capacity(1 << 18, copy);
    match kind {
        Compression::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(to, flate2::Compression::default());
            io::copy(&mut from, &mut encoder)?;
            encoder.finish()?.flush()?;
        }
        Compression::Zstd => {
            let mut encoder = zstd::Encoder::new(to, zstd::DEFAULT_COMPRESSION_LEVEL)?;
            io::copy(&mut from, &mut encoder)?;
            encoder.finish()?.flush()?;
        }
    }
    fuse::before();
    let about = source.metadata()?;
    copy.set_permissions(about.permissions())?;
    copy.set_modified(about.modified()?)?;
    copy.sync_all()
}

/// Under the log's lock, since rotations rename the backup meanwhile.
fn place(path: &Path, hidden: &Path, id: Identity, kind: Compression) -> io::Result<()> {
    let mut log = LogFile::new(path.to_owned());
    log.lock()?;
    let same = |name: &Path| fs::metadata(name).is_ok_and(|about| identity(&about) == id);
    let backups = rotation::backups(path)?;
    let Some(backup) = backups.iter().find(|backup| same(&backup.path)) else {
        // Retention removed it while we worked.
        return fs::remove_file(hidden);
    };
    let mut name = backup.path.as_os_str().to_owned();
    name.push(kind.suffix());
    fuse::before();
    fs::rename(hidden, PathBuf::from(name))?;
    fuse::before();
    fs::remove_file(&backup.path)
}

fn hidden_name(path: &Path, id: Identity) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    folder(path).join(format!(".{name}.{}.packing", id.ino))
}

/// Removes copies whose maker died: nobody holds their lock.
fn sweep(path: &Path) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let begin = format!(".{name}.");
    let Ok(entries) = fs::read_dir(folder(path)) else {
        return;
    };
    for entry in entries.flatten() {
        let hidden = entry.file_name().to_string_lossy().into_owned();
        if !hidden.starts_with(&begin) || !hidden.ends_with(".packing") {
            continue;
        }
        let Ok(copy) = Guarded::open(|| File::open(entry.path())) else {
            continue;
        };
        if copy.try_lock().is_ok() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

#[cfg(test)]
#[path = "compress_tests.rs"]
mod tests;
