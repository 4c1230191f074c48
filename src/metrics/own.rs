//! The process's own files of `/proc/self`: stat, status, io, limits, fd.

use super::fields::{after, keyed, kibibytes, lines, number, words};
use super::reading::Process;

/// Ticks per second in every file of /proc. It is 100 on every Linux that
/// Python has wheels for (only Alpha and Itanium had 1024).
const TICKS_PER_SECOND: f64 = 100.0;

/// `stat`: when the process started, in seconds since boot.
pub(super) fn started(text: &[u8]) -> Option<f64> {
    let line = lines(text).next()?;
    // The name, in brackets, may hold blanks and brackets of its own.
    let name_end = line.iter().rposition(|byte| *byte == b')')?;
    let ticks = number(words(&line[name_end + 1..]).nth(19)?)?;
    Some(ticks as f64 / TICKS_PER_SECOND)
}

/// `status`: memory and threads, into `process`; the processors it may run on
/// are returned.
pub(super) fn status(text: &[u8], process: &mut Process) -> Vec<usize> {
    process.rss_bytes = kibibytes(text, b"VmRSS:");
    process.peak_rss_bytes = kibibytes(text, b"VmHWM:");
    process.threads = keyed(text, b"Threads:");
    after(text, b"Cpus_allowed_list:")
        .and_then(|list| core_list(list.trim_ascii()))
        .unwrap_or_default()
}

/// `0-3,8` as numbers; `None` if any part is not one.
pub(super) fn core_list(list: &[u8]) -> Option<Vec<usize>> {
    /// More than any kernel is built for; a broken range must not fill memory.
    const MOST: u64 = 1 << 16;
    let mut cores = Vec::new();
    for part in list.split(|byte| *byte == b',') {
        let mut ends = part.splitn(2, |byte| *byte == b'-');
        let from = number(ends.next()?)?;
        let to = ends.next().map_or(Some(from), number)?;
        if to < from || to >= MOST {
            return None;
        }
        cores.extend((from..=to).map(|core| core as usize));
    }
    Some(cores)
}

/// `io`: what this process moved to and from storage.
pub(super) fn io(text: &[u8], process: &mut Process) {
    process.reads = keyed(text, b"syscr:");
    process.writes = keyed(text, b"syscw:");
    process.read_bytes = keyed(text, b"read_bytes:");
    process.write_bytes = keyed(text, b"write_bytes:");
}

/// The soft limit of open files in `limits`; `None` also when unlimited.
pub(super) fn fd_limit(text: &[u8]) -> Option<u64> {
    let line = lines(text).find_map(|line| line.strip_prefix(b"Max open files"))?;
    number(words(line).next()?)
}

/// Seconds since boot, of `/proc/uptime`.
pub(super) fn uptime(text: &[u8]) -> Option<f64> {
    super::fields::decimal(words(lines(text).next()?).next()?)
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // exact: the same digits, parsed once
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_and_blanks_moves_no_column() {
        let text = b"7 (a ) 1 (b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0 20 0 4 0 1234 99 1\n";

        assert_eq!(started(text), Some(12.34));
        assert_eq!(started(b"7 (a) S 1 2 3 4 5 6 7 8 9 10 150\n"), None);
        assert_eq!(started(&text[..text.len() - 1]), None);
    }

    #[test]
    fn a_list_of_processors_is_whole_or_absent() {
        assert_eq!(core_list(b"0-2,5"), Some(vec![0, 1, 2, 5]));
        for list in [&b""[..], b"2-0", b"0-", b"a", b"0-99999999999", b"0,,1"] {
            assert_eq!(core_list(list), None);
        }
    }

    #[test]
    fn unlimited_files_are_no_limit() {
        let text = b"Limit  Soft Limit\nMax open files            20000                30000                files\n";

        assert_eq!(fd_limit(text), Some(20000));
        assert_eq!(
            fd_limit(b"Max open files  unlimited unlimited files\n"),
            None
        );
    }
}
