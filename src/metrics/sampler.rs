//! One source of looks, and the earlier looks that rates are measured from.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::derive::{Window, derive};
use super::portable::PortableReader;
use super::procfs::ProcReader;
use super::reading::Reading;
use super::snapshot::{Layout, Section, Snapshot};

/// The kernel counts processor time in ticks of 10 ms: over half a second that
/// is at most 2 points for one processor.
const SHORTEST_WINDOW_NS: u64 = 500_000_000;

/// Where and how often to look.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Nanoseconds between samples.
    pub interval_ns: u64,
    /// Snapshots kept.
    pub history_size: usize,
    /// Where `/proc` and `/sys` are; `None` for this system's own way.
    pub root: Option<PathBuf>,
    /// A path on the file system whose space is told.
    pub disk_path: PathBuf,
}

#[derive(Debug)]
enum Source {
    Proc(Box<ProcReader>),
    Portable(Box<PortableReader>),
    /// Of the parent process; its descriptors are closed.
    Closed,
}

impl Source {
    fn new(settings: &Settings, now_ns: u64) -> Self {
        let linux = cfg!(target_os = "linux").then_some(Path::new("/"));
        match settings.root.as_deref().or(linux) {
            Some(root) => Self::Proc(Box::new(ProcReader::new(root, &settings.disk_path, now_ns))),
            None => Self::Portable(Box::new(PortableReader::new(&settings.disk_path))),
        }
    }

    fn read(&mut self, now_ns: u64) -> Reading {
        match self {
            Self::Proc(reader) => reader.read(now_ns),
            Self::Portable(reader) => reader.read(now_ns),
            Self::Closed => Reading::default(),
        }
    }
}

/// Takes samples whose rates are over a window that is long enough, however
/// often it is asked: askers don't shorten each other's windows.
#[derive(Debug)]
pub(super) struct Sampler {
    source: Source,
    /// A look becomes a base only `window_ns` after the one before, so that at
    /// any time one of the two bases is old enough.
    older: Option<Reading>,
    newer: Reading,
    window_ns: u64,
    made_ns: u64,
    sequence: u64,
    layout: Option<Arc<Layout>>,
}

impl Sampler {
    pub(super) fn new(settings: &Settings, now_ns: u64) -> Self {
        let mut source = Source::new(settings, now_ns);
        Self {
            newer: source.read(now_ns),
            older: None,
            source,
            // A tenth less, so that a sample a little early still counts.
            window_ns: (settings.interval_ns / 10 * 9).max(SHORTEST_WINDOW_NS),
            made_ns: now_ns,
            sequence: 0,
            layout: None,
        }
    }

    /// When the first sample can be a true one.
    pub(super) fn ready_ns(&self) -> u64 {
        self.made_ns.saturating_add(SHORTEST_WINDOW_NS)
    }

    /// Gives its descriptors back.
    pub(super) fn close(&mut self) {
        self.source = Source::Closed;
    }

    /// Looks, and compares with the newest base that is old enough; `extra`
    /// sections are added as they are.
    pub(super) fn sample(&mut self, now_ns: u64, extra: Vec<(&'static str, Section)>) -> Snapshot {
        let now = self.source.read(now_ns);
        let ripe = now_ns.saturating_sub(self.newer.at_ns) >= self.window_ns;
        let base = match &self.older {
            Some(older) if !ripe => older,
            _ => &self.newer,
        };
        let derived = derive(Window { base, now: &now });
        let mut sections = derived.sections;
        merge(&mut sections, extra);
        let mut snapshot = Snapshot::pack(&mut self.layout, &sections);
        self.sequence += 1;
        snapshot.sequence = self.sequence;
        snapshot.at_ns = now_ns;
        snapshot.per_core_percent = derived.per_core_percent.into();
        let since_made = now_ns.saturating_sub(self.made_ns) as f64 / 1e9;
        snapshot.uptime = now.process.age_seconds.unwrap_or(since_made);
        if ripe {
            self.older = Some(std::mem::replace(&mut self.newer, now));
        }
        snapshot
    }
}

/// Adds to the section of the same name, or as a new one.
fn merge(sections: &mut Vec<(&'static str, Section)>, extra: Vec<(&'static str, Section)>) {
    for (name, figures) in extra {
        match sections.iter_mut().find(|(known, _)| *known == name) {
            Some((_, known)) => known.extend(figures),
            None => sections.push((name, figures)),
        }
    }
}
