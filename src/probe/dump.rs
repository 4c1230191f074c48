//! A Python stack while the interpreter is held.
//!
//! No Python code can run then, so the frames must be read from outside it.
//! `CPython` has one supported reader that needs no GIL: the signal handler of
//! `faulthandler.register`, which writes tracebacks to a descriptor with
//! async-signal-safe calls only. Python registers it for a signal nobody uses
//! and for a file in memory; here that signal is raised and the file read.
//!
//! With a GIL the signal is raised on the watchdog's own thread, and the handler
//! walks all threads: the stalled thread is not touched, so its system call is
//! not interrupted. Whoever holds the GIL is inside C, hence all frames stand
//! still; should it come back just then, the risk is the one documented for
//! `faulthandler.dump_traceback_later`. Free-threaded builds refuse to walk other
//! threads, so the signal goes to the stalled thread, whose own frames it reads.

#![cfg_attr(target_os = "linux", allow(unsafe_code))]

use super::heart::Identity;

/// The registered signal and its file.
#[derive(Debug)]
pub struct StackSignal {
    /// Its number.
    pub signal: i32,
    /// The descriptor the handler writes to; stays open until the watchdog ends.
    pub file: i32,
    /// Signal the stalled thread instead of the own one (free-threaded builds).
    pub on_stalled_thread: bool,
    /// Report the stacks of all threads, not only of the stalled one.
    pub all_threads: bool,
}

/// A dump of one hundred threads, each one hundred frames deep, fits in.
#[cfg(target_os = "linux")]
const MOST_BYTES: usize = 2 * 1024 * 1024;

#[cfg(target_os = "linux")]
impl StackSignal {
    /// The stack of that thread, or of all; `None` if the dump lacks it
    /// (`faulthandler` shows 100 threads at most, newest first).
    pub(super) fn stack(&mut self, who: &Identity) -> Option<String> {
        // SAFETY: plain system calls on a descriptor that the caller keeps open.
        unsafe {
            libc::lseek(self.file, 0, libc::SEEK_SET);
            libc::ftruncate(self.file, 0);
        }
        let text = if self.on_stalled_thread {
            self.sent_there(who)
        } else {
            self.raised_here()
        };
        if self.on_stalled_thread {
            // Below the heading.
            return text.split_once('\n').map(|(_, stack)| stack.to_owned());
        }
        if self.all_threads {
            return Some(text).filter(|t| !t.is_empty());
        }
        of_thread(&text, who.thread_ident)
    }

    fn raised_here(&self) -> String {
        // SAFETY: unblocks one signal for this thread, whose handler was
        // registered by `faulthandler`; `raise` returns after it has run.
        unsafe {
            let mut set = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            libc::sigaddset(&raw mut set, self.signal);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &raw const set, std::ptr::null_mut());
            libc::raise(self.signal);
        }
        self.written()
    }

    fn sent_there(&self, who: &Identity) -> String {
        // SAFETY: `tgkill` with a thread that is gone fails, unlike
        // `pthread_kill`; the signal's handler was registered by `faulthandler`.
        unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), who.native_id, self.signal) };
        // The handler runs there: wait until it has written and ceased to.
        let mut text = String::new();
        for _ in 0..20 {
            std::thread::sleep(std::time::Duration::from_millis(10));
            let now = self.written();
            if !now.is_empty() && now.len() == text.len() {
                break;
            }
            text = now;
        }
        text
    }

    fn written(&self) -> String {
        let mut bytes = vec![0_u8; MOST_BYTES];
        // SAFETY: the buffer is as long as said, the descriptor is open.
        let got = unsafe { libc::pread(self.file, bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        bytes.truncate(usize::try_from(got).unwrap_or(0));
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

#[cfg(not(target_os = "linux"))]
impl StackSignal {
    /// Not supported here; the report comes without a stack.
    pub(super) fn stack(&mut self, _who: &Identity) -> Option<String> {
        None
    }
}

/// A real-time signal without a handler, from the top, where fewest look.
#[cfg(target_os = "linux")]
#[must_use]
pub fn free_signal() -> Option<i32> {
    let unused = |signal: &i32| {
        // SAFETY: asks for the disposition only; `now` is valid and writable.
        unsafe {
            let mut now: libc::sigaction = std::mem::zeroed();
            let asked = libc::sigaction(*signal, std::ptr::null(), &raw mut now);
            asked == 0 && now.sa_sigaction == libc::SIG_DFL
        }
    };
    (libc::SIGRTMIN()..=libc::SIGRTMAX()).rev().find(unused)
}

/// There are no real-time signals to take here.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn free_signal() -> Option<i32> {
    None
}

/// The part of a dump that shows the thread `ident`, without its heading.
#[cfg(target_os = "linux")]
fn of_thread(dump: &str, ident: u64) -> Option<String> {
    let heading = format!("hread 0x{ident:016x} ");
    let from = dump.find(&heading)?;
    let part = dump[from..].split("\n\n").next()?;
    let (_, stack) = part.split_once('\n')?;
    Some(format!("{}\n", stack.trim_end()))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    const DUMP: &str = "Thread 0x00007f0000000001 (most recent call first):\n  \
                        File \"a.py\", line 1 in f\n\n\
                        Current thread 0x00007f0000000002 [name] (most recent call first):\n  \
                        File \"b.py\", line 2 in g\n  File \"c.py\", line 3 in h\n";

    #[test]
    fn a_thread_is_found_in_a_dump() {
        let first = of_thread(DUMP, 0x7f00_0000_0001);
        let second = of_thread(DUMP, 0x7f00_0000_0002);

        assert_eq!(first.as_deref(), Some("  File \"a.py\", line 1 in f\n"));
        let both = "  File \"b.py\", line 2 in g\n  File \"c.py\", line 3 in h\n";
        assert_eq!(second.as_deref(), Some(both));
        assert_eq!(of_thread(DUMP, 3), None);
    }
}
