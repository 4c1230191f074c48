//! Recovery put on trial, by the tests here and by the fuzzer in `tests/fuzz`:
//! a dead process's ring, damaged at will, must not bring the reader down, and
//! no line may come of it that was never logged.

#![allow(missing_docs)] // for tests alone

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::drain::{LOST, Tally, Target};
use super::ring::Intent;
use super::{Config, Mode, Policy, file, storage};

/// Data bytes of the ring.
const RING: usize = 1024;
const BEFORE: &str = "before\n";

/// What a process had logged when it died, amid a write.
#[derive(Debug, Clone)]
pub struct Death {
    /// Records without their line ends; control characters are made visible.
    pub records: Vec<Vec<u8>>,
    /// So many of them had been announced,
    pub announced: usize,
    /// and so many bytes of those written.
    pub written: usize,
    /// Records so far that the ring wrapped around, more or less.
    pub lapped: usize,
}

/// A change to the ring's bytes.
#[derive(Debug, Clone, Copy)]
pub enum Damage {
    /// One bit.
    Flip(usize, u8),
    /// One word, as a store that went astray.
    Word(usize, u64),
    /// The end is gone.
    Cut(usize),
    /// Another version's.
    Version(u8),
}

/// A log that its one process left behind, and the folder of its ring.
pub struct Scene {
    log: PathBuf,
    rings: PathBuf,
    lines: Vec<Vec<u8>>,
    torn: Vec<u8>,
    image: Vec<u8>,
}

fn target(log: &Path, rings: Option<&Path>) -> Target {
    Target::new(&Config {
        path: log.to_owned(),
        mode: Mode::Append,
        delay: true,
        policy: Policy::default(),
        ring_bytes: RING,
        rings: rings.map(Path::to_owned),
        fsync: false,
        gather: Duration::ZERO,
        wall: SystemTime::now,
        observer: Arc::new(|_| ()),
    })
}

impl Scene {
    /// Sets it in `folder`, which must be empty.
    pub fn new(folder: &Path, death: &Death) -> std::io::Result<Self> {
        let (log, rings) = (folder.join("app.log"), folder.join("rings"));
        fs::create_dir(&rings)?;
        let (housed, _) = storage::house(None, &log, RING);
        for _ in 0..death.lapped {
            let end = housed.ring.push(b"an earlier record\n", false);
            housed.ring.commit(end.expect("an empty ring has room"));
        }
        let start = housed.ring.tail();
        let (mut lines, mut end, mut batch) = (Vec::new(), start, Vec::new());
        for record in &death.records {
            let mut line = Vec::new();
            super::format::escape_controls(record, &mut line);
            line.push(b'\n');
            let Ok(after) = housed.ring.push(&line, false) else {
                break;
            };
            if lines.len() < death.announced {
                (end, batch) = (after, [batch, line.clone()].concat());
            }
            lines.push(line);
        }
        fs::write(&log, BEFORE)?;
        let id = file::identity(&fs::metadata(&log)?);
        if end > start {
            housed.ring.intend(Intent {
                start,
                end,
                skip: 0,
                dev: id.dev,
                ino: id.ino,
                offset: BEFORE.len() as u64,
            });
        }
        let written = &batch[..death.written.min(batch.len())];
        fs::write(&log, [BEFORE.as_bytes(), written].concat())?;
        let torn = written.rsplit(|byte| *byte == b'\n').next();
        Ok(Self {
            torn: torn.unwrap_or_default().to_owned(),
            image: housed.ring.image(),
            log,
            rings,
            lines,
        })
    }

    /// The bytes the next process would find.
    pub fn damage(&mut self, damage: &[Damage]) {
        for change in damage {
            let len = self.image.len();
            match *change {
                _ if len < 64 => {}
                Damage::Flip(at, bit) => self.image[at % len] ^= 1 << (bit % 8),
                Damage::Word(at, value) => {
                    let at = at % (len / 8) * 8;
                    self.image[at..at + 8].copy_from_slice(&value.to_le_bytes());
                }
                Damage::Cut(at) => self.image.truncate(at % len),
                Damage::Version(version) => self.image[7] = version,
            }
        }
    }

    /// Puts other bytes in the ring's place.
    pub fn replace(&mut self, image: &[u8]) {
        image.clone_into(&mut self.image);
    }

    /// Has the next process open the log and log one line, twice over.
    ///
    /// # Errors
    /// Says which line was invented, or what else went wrong.
    pub fn recover(&self) -> Result<Vec<Vec<u8>>, String> {
        let words = |error: std::io::Error| error.to_string();
        storage::leave(&self.rings, &self.log, 1, &self.image).map_err(words)?;
        for _ in 0..2 {
            let (own, _) = storage::house(None, &self.log, RING);
            own.ring.push(b"next\n", false).expect("an empty ring");
            let mut tally = Tally::default();
            target(&self.log, Some(&self.rings))
                .drain(&own, &mut tally)
                .map_err(words)?;
        }
        let text = fs::read(&self.log).map_err(words)?;
        self.judge(&text)
    }

    /// The dead process's lines in the file, if every line was logged once.
    fn judge(&self, text: &[u8]) -> Result<Vec<Vec<u8>>, String> {
        let mut found = Vec::new();
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            let ours = [BEFORE, "next\n", LOST, "an earlier record\n"];
            if self.lines.iter().any(|logged| logged == line) {
                found.push(line.to_owned());
            } else if !ours.iter().any(|known| known.as_bytes() == line)
                // The write that death cut short, ended where it was.
                && line.strip_suffix(b"\n") != Some(&self.torn)
            {
                return Err(format!("invented: {:?}", String::from_utf8_lossy(line)));
            }
        }
        Ok(found)
    }

    /// What was logged.
    #[must_use]
    pub fn lines(&self) -> &[Vec<u8>] {
        &self.lines
    }
}

#[cfg(test)]
mod tests {
    use super::{Damage, Death, Scene};
    use proptest::prelude::*;

    fn deaths() -> impl Strategy<Value = Death> {
        let record = prop::collection::vec(any::<u8>(), 0..60);
        let records = prop::collection::vec(record, 1..12);
        (records, 0usize..12, 0usize..400, 0usize..90).prop_map(
            |(records, announced, written, lapped)| Death {
                records,
                announced,
                written,
                lapped,
            },
        )
    }

    fn damages() -> impl Strategy<Value = Vec<Damage>> {
        // Most of the header is the path: its words are hit on purpose.
        let counters = || (0usize..40).prop_map(|word| word * 8);
        let small = prop_oneof![0u64..2000, any::<u64>(), Just(u64::MAX), Just(0)];
        let one = prop_oneof![
            (any::<usize>(), any::<u8>()).prop_map(|(at, bit)| Damage::Flip(at, bit)),
            (8192usize..9216, any::<u8>()).prop_map(|(at, bit)| Damage::Flip(at, bit)),
            (counters(), 0usize..8, any::<u8>())
                .prop_map(|(at, byte, bit)| Damage::Flip(at + byte, bit)),
            (0usize..40, small).prop_map(|(at, value)| Damage::Word(at, value)),
            any::<usize>().prop_map(Damage::Cut),
            any::<u8>().prop_map(Damage::Version),
        ];
        prop::collection::vec(one, 1..6)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn without_damage_each_line_is_recovered_once(death in deaths()) {
            let folder = tempfile::tempdir().unwrap();
            let scene = Scene::new(folder.path(), &death).unwrap();

            prop_assert_eq!(scene.recover().unwrap(), scene.lines());
        }

        #[test]
        fn a_damaged_ring_invents_no_line(death in deaths(), damage in damages()) {
            let folder = tempfile::tempdir().unwrap();
            let mut scene = Scene::new(folder.path(), &death).unwrap();
            scene.damage(&damage);

            scene.recover().unwrap();
        }

        #[test]
        fn any_bytes_for_a_ring_invent_no_line(
            bytes in prop::collection::vec(any::<u8>(), 0..10_000)
        ) {
            let folder = tempfile::tempdir().unwrap();
            let death = Death { records: vec![], announced: 0, written: 0, lapped: 0 };
            let mut scene = Scene::new(folder.path(), &death).unwrap();
            scene.replace(&bytes);

            scene.recover().unwrap();
        }
    }
}
