//! Files read again and again through one descriptor.
//!
//! Opening a file of /proc costs as much as reading it, so a descriptor is kept
//! and read from its start each time, which makes the kernel write it anew.

use std::fs::File;
use std::io;
use std::path::PathBuf;

/// One file of the kernel, opened at the first read and kept.
///
/// A descriptor of `/proc/self` belongs to the process that opened it, so a
/// forked child must make its own.
#[derive(Debug)]
pub(super) struct KeptFile {
    path: PathBuf,
    state: State,
}

#[derive(Debug)]
enum State {
    Unopened,
    Open(File),
    /// There is no such file; not tried again until `retry`.
    Missing,
    /// It is there but can't be read; not tried again until `retry`.
    Unreadable,
}

fn failed(error: &io::Error) -> State {
    match error.kind() {
        io::ErrorKind::NotFound => State::Missing,
        _ => State::Unreadable,
    }
}

/// More than any file here; one that never ends must not fill the memory.
const LONGEST: usize = 4 << 20;

impl KeptFile {
    pub(super) fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            state: State::Unopened,
        }
    }

    /// The file's text in `buffer`, or `None` when it can't be had.
    pub(super) fn read<'a>(&mut self, buffer: &'a mut Vec<u8>) -> Option<&'a [u8]> {
        if matches!(self.state, State::Unopened) {
            self.state = File::open(&self.path).map_or_else(|error| failed(&error), State::Open);
        }
        let State::Open(file) = &self.state else {
            return None;
        };
        let Ok(length) = fill(file, buffer) else {
            // Not `Missing`, whatever the error: it was there.
            self.state = State::Unreadable;
            return None;
        };
        Some(&buffer[..length])
    }

    /// Whether the last read found that there is no such file.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self.state, State::Missing)
    }

    /// Tries an absent file again at the next read.
    pub(super) fn retry(&mut self) {
        if matches!(self.state, State::Missing | State::Unreadable) {
            self.state = State::Unopened;
        }
    }
}

/// Reads the whole file from its start; the length read.
fn fill(file: &File, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let mut length = 0;
    loop {
        if buffer.len() - length < 4096 {
            buffer.resize((buffer.len() * 2).max(16 << 10), 0);
        }
        match read_at(file, &mut buffer[length..], length as u64) {
            Ok(0) => return Ok(length),
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if length > LONGEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
    }
}

#[cfg(unix)]
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_at(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    match std::os::windows::fs::FileExt::seek_read(file, buffer, offset) {
        // ERROR_HANDLE_EOF is how Windows says 0 bytes.
        Err(error) if error.raw_os_error() == Some(38) => Ok(0),
        read => read,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_read_gives_the_file_as_it_is_now() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("stat");
        std::fs::write(&path, "one\n").unwrap();
        let (mut file, mut buffer) = (KeptFile::new(&path), Vec::new());

        assert_eq!(file.read(&mut buffer), Some(&b"one\n"[..]));
        std::fs::write(&path, "x".repeat(100_000)).unwrap();
        assert_eq!(file.read(&mut buffer).map(<[u8]>::len), Some(100_000));
    }

    #[test]
    fn an_absent_file_is_tried_again_only_when_told() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("late");
        let (mut file, mut buffer) = (KeptFile::new(&path), Vec::new());

        assert_eq!(file.read(&mut buffer), None);
        std::fs::write(&path, "here\n").unwrap();
        assert_eq!(file.read(&mut buffer), None);
        file.retry();
        assert_eq!(file.read(&mut buffer), Some(&b"here\n"[..]));
    }

    #[test]
    fn a_folder_and_an_endless_file_are_absent() {
        let mut buffer = Vec::new();

        assert_eq!(KeptFile::new("/").read(&mut buffer), None);
        #[cfg(unix)]
        assert_eq!(KeptFile::new("/dev/zero").read(&mut buffer), None);
    }
}
