//! The log file as the writer sees it: opened for appending, locked per batch,
//! opened anew when someone moved or deleted it.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::fork::Guarded;
use super::fuse;

/// Which file, not which name: device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) dev: u64,
    pub(super) ino: u64,
}

#[cfg(unix)]
pub(super) fn identity(of: &Metadata) -> Identity {
    use std::os::unix::fs::MetadataExt;
    Identity {
        dev: of.dev(),
        ino: of.ino(),
    }
}

/// Windows gives no stable identity here: a moved file is noticed by `reopen`
/// alone.
#[cfg(not(unix))]
pub(super) fn identity(_of: &Metadata) -> Identity {
    Identity { dev: 0, ino: 0 }
}

/// How the file stood when it was locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Standing {
    pub(super) id: Identity,
    pub(super) size: u64,
    /// False for a pipe or a terminal, which is never rotated or examined.
    pub(super) regular: bool,
}

/// See the module.
pub(super) struct LogFile {
    path: PathBuf,
    file: Option<Guarded>,
    /// Where our last append ended: up to there we know the file's lines.
    known_end: Option<(Identity, u64)>,
}

impl LogFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            file: None,
            known_end: None,
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Opens the file, creating it, without locking it.
    pub(super) fn open(&mut self) -> io::Result<()> {
        if self.file.is_none() {
            let open = || append_options().open(&self.path);
            self.file = Some(Guarded::open(open)?);
        }
        Ok(())
    }

    /// The next batch opens the file by its name again.
    pub(super) fn close(&mut self) {
        self.file = None;
    }

    /// Locks the file that now bears the name, against other processes.
    ///
    /// Waits for them, and for the disk.
    pub(super) fn lock(&mut self) -> io::Result<Standing> {
        // Bounded: someone who replaces the file faster than we can open it
        // gets his lines into one of the replaced ones.
        for _ in 0..64 {
            self.open()?;
            let file = self.file.as_ref().expect("opened above");
            lock(file)?;
            let held = file.metadata()?;
            let standing = Standing {
                id: identity(&held),
                size: held.len(),
                regular: held.is_file(),
            };
            if !standing.regular || self.bears_the_name(standing.id)? {
                return Ok(standing);
            }
            self.close();
        }
        Err(io::Error::other("the log file is replaced again and again"))
    }

    fn bears_the_name(&self, id: Identity) -> io::Result<bool> {
        match fs::metadata(&self.path) {
            Ok(named) => Ok(identity(&named) == id),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Lets other processes write. Dropping the file would do too.
    pub(super) fn unlock(&mut self) {
        if let Some(file) = &self.file {
            // A lock that can't be given back goes with the descriptor.
            if unlock(file).is_err() {
                self.close();
            }
        }
    }

    /// Appends all of `bytes`, or none: what a failed write left is cut off.
    ///
    /// If even the cut fails, `settle` later finds how much is there.
    pub(super) fn append(&mut self, at: Standing, bytes: &[u8]) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Err(io::Error::other("append without lock"));
        };
        let mut target: &File = file;
        if let Err(error) = fuse::copy(bytes, |bytes| target.write_all(bytes)) {
            // Only ever shorter: someone may have emptied the file meanwhile.
            if at.regular && file.metadata().is_ok_and(|now| now.len() > at.size) {
                let _ = file.set_len(at.size);
            }
            self.known_end = None;
            return Err(error);
        }
        self.known_end = Some((at.id, at.size + bytes.len() as u64));
        Ok(())
    }

    /// True if nothing stands behind the place where it was locked.
    pub(super) fn ends_at(&self, at: Standing) -> bool {
        let now = self.file.as_ref().and_then(|file| file.metadata().ok());
        now.is_some_and(|now| at.regular && now.len() == at.size)
    }

    /// Waits until the file is on the disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| file.sync_data())
    }

    /// True when the file ends inside a line: a writer died in its write.
    pub(super) fn ends_torn(&self, at: Standing) -> io::Result<bool> {
        if !at.regular || at.size == 0 || self.known_end == Some((at.id, at.size)) {
            return Ok(false);
        }
        let mut last = [0];
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            // Ours to write, not to read: its lines are taken on trust.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(false),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(at.size - 1))?;
        file.read_exact(&mut last)?;
        Ok(last != *b"\n")
    }

    /// How many of `bytes` stand at `offset` of the file that was `id`, looked
    /// for under its name and those of its backups.
    pub(super) fn written(&self, id: Identity, offset: u64, bytes: &[u8]) -> usize {
        self.find(id)
            .and_then(|file| common_prefix(file, offset, bytes).ok())
            .unwrap_or(0)
    }

    fn find(&self, id: Identity) -> Option<File> {
        let name = self.path.file_name()?.as_encoded_bytes();
        let siblings = fs::read_dir(folder(&self.path)).ok()?;
        siblings
            .flatten()
            .filter(|entry| entry.file_name().as_encoded_bytes().starts_with(name))
            .filter_map(|entry| File::open(entry.path()).ok())
            .find(|file| {
                file.metadata()
                    .is_ok_and(|m| m.is_file() && identity(&m) == id)
            })
    }
}

/// The folder `path` lies in; `.` for a bare name.
pub(super) fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn append_options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.append(true).create(true);
    options
}

#[cfg(unix)]
fn lock(file: &File) -> io::Result<()> {
    match file.lock() {
        // A pipe, or a file system without locks: the processes are then not
        // kept apart, but each appends whole batches.
        Err(error) if is_unlockable(&error) => Ok(()),
        other => other,
    }
}

#[cfg(unix)]
fn is_unlockable(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::ENOLCK | libc::EINVAL | libc::ENOSYS)
    )
}

#[cfg(unix)]
fn unlock(file: &File) -> io::Result<()> {
    match file.unlock() {
        Err(error) if is_unlockable(&error) => Ok(()),
        other => other,
    }
}

/// A Windows lock is mandatory: readers of the log would fail. One process
/// per log there.
#[cfg(not(unix))]
fn lock(_file: &File) -> io::Result<()> {
    Ok(())
}

#[cfg(not(unix))]
fn unlock(_file: &File) -> io::Result<()> {
    Ok(())
}

fn common_prefix(mut file: File, offset: u64, bytes: &[u8]) -> io::Result<usize> {
    let mut there = Vec::with_capacity(bytes.len());
    file.seek(SeekFrom::Start(offset))?;
    file.take(bytes.len() as u64).read_to_end(&mut there)?;
    let same = there.iter().zip(bytes).take_while(|(a, b)| a == b);
    Ok(same.count())
}
