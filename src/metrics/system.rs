//! The two figures that no file has: own processor time, and space on disk.
#![allow(unsafe_code)]

use std::path::Path;

/// What getrusage(2) says of this process, all threads together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Usage {
    /// User and system time.
    pub(super) cpu_seconds: f64,
    pub(super) voluntary_switches: u64,
    pub(super) involuntary_switches: u64,
}

/// Space of one file system in bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Space {
    pub(super) total: u64,
    /// What an unprivileged process can still have.
    pub(super) free: u64,
    pub(super) used: u64,
}

#[cfg(unix)]
pub(super) fn usage() -> Option<Usage> {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` is writable and of the type the call fills.
    if unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the call succeeded, and all zeros were a valid rusage before it.
    let usage = unsafe { usage.assume_init() };
    let seconds = |time: libc::timeval| time.tv_sec as f64 + time.tv_usec as f64 / 1e6;
    Some(Usage {
        cpu_seconds: seconds(usage.ru_utime) + seconds(usage.ru_stime),
        voluntary_switches: u64::try_from(usage.ru_nvcsw).ok()?,
        involuntary_switches: u64::try_from(usage.ru_nivcsw).ok()?,
    })
}

#[cfg(not(unix))]
pub(super) fn usage() -> Option<Usage> {
    None
}

/// As df(1) counts: blocks kept for root are neither free nor used.
#[cfg(unix)]
pub(super) fn space(path: &Path) -> Option<Space> {
    use std::os::unix::ffi::OsStrExt;
    let path = std::ffi::CString::new(path.as_os_str().as_bytes()).ok()?;
    let mut found = std::mem::MaybeUninit::<libc::statvfs>::zeroed();
    // SAFETY: `path` ends in NUL, `found` is writable and of the type the call
    // fills.
    if unsafe { libc::statvfs(path.as_ptr(), found.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the call succeeded, and all zeros were a valid statvfs before it.
    let found = unsafe { found.assume_init() };
    // The field types differ between systems; all fit u64.
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    let [size, blocks, free, available] = [
        found.f_frsize as u64,
        found.f_blocks as u64,
        found.f_bfree as u64,
        found.f_bavail as u64,
    ];
    Some(Space {
        total: blocks.checked_mul(size)?,
        free: available.checked_mul(size)?,
        used: blocks.checked_sub(free)?.checked_mul(size)?,
    })
}

#[cfg(not(unix))]
pub(super) fn space(path: &Path) -> Option<Space> {
    let disks = sysinfo::Disks::new_with_refreshed_list();
    let path = path.canonicalize().ok()?;
    let disk = disks
        .list()
        .iter()
        .filter(|disk| path.starts_with(disk.mount_point()))
        .max_by_key(|disk| disk.mount_point().as_os_str().len())?;
    let (total, free) = (disk.total_space(), disk.available_space());
    Some(Space {
        total,
        free,
        used: total.saturating_sub(free),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_process_has_used_time() {
        let before = usage().unwrap().cpu_seconds;
        while usage().unwrap().cpu_seconds < before + 0.01 {
            std::hint::spin_loop();
        }
    }

    #[test]
    fn space_adds_up_and_a_missing_path_has_none() {
        let space_here = space(Path::new("/")).unwrap();

        assert!(space_here.used + space_here.free <= space_here.total);
        assert!(space(Path::new("/no/such/place")).is_none());
        assert!(space(Path::new("nul\0byte")).is_none());
    }
}
