//! Where the control groups of this process are mounted.
//!
//! Version 1 has one hierarchy per controller, version 2 one for all; a hybrid
//! system has both. See cgroups(7) and `proc_pid_mountinfo(5)`.

use std::path::{Component, Path, PathBuf};

use super::fields::{is_whole, lines, words};

/// Deeper than any orchestrator nests; bounds the work of one look.
const DEEPEST: usize = 16;

/// The two generations of control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// The process's group in one hierarchy.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) version: Version,
    /// The mount, under the injected root.
    pub(super) mount: PathBuf,
    /// The group's path below the mount; empty for the mount itself.
    pub(super) group: PathBuf,
}

/// What `/proc/self/cgroup` and `/proc/self/mountinfo` say.
#[derive(Clone, Copy)]
pub(super) struct Texts<'a> {
    pub(super) root: &'a Path,
    pub(super) cgroup: &'a [u8],
    pub(super) mountinfo: &'a [u8],
}

impl Texts<'_> {
    /// Whether both can be relied on: a line cut off or spoilt might be the one
    /// that names a limit.
    pub(super) fn are_whole(self) -> bool {
        let plain = |line: &[u8]| line.splitn(3, |byte| *byte == b':').count() == 3;
        let ended = |text: &[u8]| text.is_empty() || is_whole(text);
        ended(self.cgroup) && ended(self.mountinfo) && lines(self.cgroup).all(plain)
    }

    /// The place of a controller: in the hierarchy that names it (version 1),
    /// else in that of version 2, whose line names none.
    pub(super) fn controller(self, name: &[u8]) -> Option<Place> {
        match group_path(self.cgroup, name) {
            Some(path) => self.place(Version::One, &path, name),
            None => self.unified(),
        }
    }

    /// The place in the hierarchy of version 2.
    pub(super) fn unified(self) -> Option<Place> {
        self.place(Version::Two, &group_path(self.cgroup, b"")?, b"")
    }

    /// `None` where no such hierarchy is mounted.
    fn place(self, version: Version, path: &Path, controller: &[u8]) -> Option<Place> {
        let mount = lines(self.mountinfo)
            .filter_map(Mount::parse)
            .filter(|mount| mount.carries(version, controller))
            // A container may see several; the one its group is in counts.
            .max_by_key(|mount| below(path, &mount.root).is_some())?;
        Some(Place {
            version,
            mount: under(self.root, &mount.point),
            // A path that isn't under the mount's root is that of another
            // namespace: then the mount itself is the process's group.
            group: below(path, &mount.root).unwrap_or_default(),
        })
    }
}

impl Place {
    /// The folder of the process's own group.
    pub(super) fn innermost(&self) -> PathBuf {
        self.mount.join(&self.group)
    }

    /// One `T` per group and its depth below the mount, innermost first.
    pub(super) fn levels<T>(&self, make: impl Fn(&Path, usize) -> T) -> Vec<T> {
        let depth = self.group.components().count();
        let groups = self.group.ancestors().take(DEEPEST).enumerate();
        groups.map(|(up, group)| make(group, depth - up)).collect()
    }
}

/// The path on the line of `/proc/self/cgroup` that names `controller`:
/// `4:memory:/user.slice`, or `0::/user.slice` for version 2.
fn group_path(cgroup: &[u8], controller: &[u8]) -> Option<PathBuf> {
    lines(cgroup).find_map(|line| {
        let mut parts = line.splitn(3, |byte| *byte == b':');
        let hierarchy = parts.next()?;
        let mut named = parts.next()?.split(|byte| *byte == b',');
        let version_two = hierarchy == b"0";
        if version_two != controller.is_empty() || !named.any(|name| name == controller) {
            return None;
        }
        path(parts.next()?)
    })
}

/// A line of `/proc/self/mountinfo` that is a control group's.
struct Mount {
    version: Version,
    root: PathBuf,
    point: PathBuf,
    options: Vec<u8>,
}

impl Mount {
    /// `35 31 0:32 /root /sys/fs/cgroup/memory rw shared:9 - cgroup none rw,memory`
    fn parse(line: &[u8]) -> Option<Self> {
        let mut found = words(line);
        let root = unescape(found.nth(3)?)?;
        let point = unescape(found.next()?)?;
        found.find(|word| *word == b"-")?;
        let version = match found.next()? {
            b"cgroup" => Version::One,
            b"cgroup2" => Version::Two,
            _ => return None,
        };
        Some(Self {
            version,
            root,
            point,
            options: found.nth(1)?.to_vec(),
        })
    }

    fn carries(&self, version: Version, controller: &[u8]) -> bool {
        let named = || {
            self.options
                .split(|byte| *byte == b',')
                .any(|name| name == controller)
        };
        self.version == version && (version == Version::Two || named())
    }
}

fn path(bytes: &[u8]) -> Option<PathBuf> {
    // Group names that are not UTF-8 exist in theory only.
    std::str::from_utf8(bytes).ok().map(PathBuf::from)
}

/// Undoes `\040`, as mountinfo writes blanks.
fn unescape(word: &[u8]) -> Option<PathBuf> {
    let mut plain = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'\\' {
            plain.push(byte);
            continue;
        }
        let digits = tail.get(..3)?;
        let text = std::str::from_utf8(digits).ok()?;
        plain.push(u8::from_str_radix(text, 8).ok()?);
        rest = &tail[3..];
    }
    path(&plain)
}

/// `path` relative to `base`, if it is at or below it and climbs nowhere.
fn below(path: &Path, base: &Path) -> Option<PathBuf> {
    let rest = path.strip_prefix(base).ok()?;
    let plain = rest
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    plain.then(|| rest.to_path_buf())
}

/// An absolute `path` as seen from the injected `root`.
fn under(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_mount_points_are_read() {
        assert_eq!(unescape(br"/a\040b"), Some(PathBuf::from("/a b")));
        assert_eq!(unescape(br"/a\04"), None);
        assert_eq!(unescape(br"/a\999"), None);
    }

    #[test]
    fn a_path_that_climbs_is_of_another_namespace() {
        assert_eq!(
            below(Path::new("/a/b"), Path::new("/a")),
            Some(PathBuf::from("b"))
        );
        assert_eq!(below(Path::new("/"), Path::new("/")), Some(PathBuf::new()));
        assert_eq!(below(Path::new("/../x"), Path::new("/")), None);
        assert_eq!(below(Path::new("/ab"), Path::new("/a")), None);
    }

    #[test]
    fn version_two_is_never_taken_for_a_controller() {
        let cgroup = b"4:memory:/m\n2:cpu,cpuacct:/c:d\n0::/two\n";

        assert_eq!(group_path(cgroup, b"memory"), Some(PathBuf::from("/m")));
        assert_eq!(group_path(cgroup, b"cpuacct"), Some(PathBuf::from("/c:d")));
        assert_eq!(group_path(cgroup, b""), Some(PathBuf::from("/two")));
        assert_eq!(group_path(cgroup, b"io"), None);
        assert_eq!(group_path(b"1:name=systemd:/s\n", b""), None);
    }
}
