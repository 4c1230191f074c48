//! Telling people that the log itself is in trouble.

/// What the writer reports to `on_error`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Writing fails; the records wait in the ring.
    OutageBegan(String),
    /// Writing works again; so many records had waited for it.
    OutageEnded(u64),
    /// A rotation or the removal of a backup failed; the old file goes on.
    RotationFailed(String),
    /// A dead process's ring was damaged; so many bytes of it were lost.
    RingCorrupt(u64),
    /// A dead process of another version left this ring, which is left to it.
    RingForeign(String),
    /// Records will not outlive this process.
    NotDurable(String),
}

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::OutageBegan(error) => {
                write!(f, "writing fails, records wait in the ring: {error}")
            }
            Self::OutageEnded(records) => {
                write!(f, "writing works again, {records} records written")
            }
            Self::RotationFailed(error) => {
                write!(f, "rotation failed, the old file goes on: {error}")
            }
            Self::RingCorrupt(bytes) => write!(f, "{bytes} bytes of a damaged ring were lost"),
            Self::RingForeign(ring) => write!(
                f,
                "another version of mtaio left records in {ring}; it will write them"
            ),
            Self::NotDurable(error) => {
                write!(f, "records will not outlive this process: {error}")
            }
        }
    }
}

/// Writes one line to standard error, unless that would block.
#[cfg(unix)]
#[allow(unsafe_code)]
pub(super) fn to_stderr(line: &str) {
    let mut ready = libc::pollfd {
        fd: 2,
        events: libc::POLLOUT,
        revents: 0,
    };
    // SAFETY: one valid pollfd; the bytes outlive the call. A failure is not
    // ours to report: there is nowhere left to.
    unsafe {
        if libc::poll(&raw mut ready, 1, 0) == 1 && ready.revents & libc::POLLOUT != 0 {
            libc::write(2, line.as_ptr().cast(), line.len());
        }
    }
}

#[cfg(not(unix))]
pub(super) fn to_stderr(line: &str) {
    use std::io::Write;
    let _ = std::io::stderr().write_all(line.as_bytes());
}
