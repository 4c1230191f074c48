//! A byte ring that many threads fill and one writer empties.
//!
//! ```text
//! header (8 KiB): magic, capacity, head, tail, two intents, length and text of the path
//! data:           [length 3 B][check 4 B][payload] [length][check][payload] …
//! ```
//!
//! `head` and `tail` count bytes since the ring was made and never wrap; the
//! place of position `p` is `p mod capacity`. A record is accepted by the one
//! store of `head` that follows its bytes, and forgotten by the one store of
//! `tail`, so whoever finds the ring after a crash sees whole records only.
//! The check ties a record to its position: stale or damaged bytes don't pass.

use std::io;
use std::path::Path;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::mapping::Mapping;
use crate::sync::Mutex;

/// "mtaiolg" and the version of the layout.
const MAGIC: u64 = u64::from_le_bytes(*b"mtaiolg\x02");
/// All of it but the version.
const NAME: u64 = u64::MAX >> 8;
pub(super) const HEADER: usize = 8192;
const PATH_AT: usize = 512;
pub(super) const LONGEST_PATH: usize = HEADER - PATH_AT;
const RECORD_HEADER: usize = 7;
/// The top bit of the 3-byte length: the payload names a spilled record.
const SPILLED: u32 = 1 << 23;

// Words of the header. `head` and `tail` keep to cache lines of their own: one
// is the producers', the other the writer's.
const W_MAGIC: usize = 0;
const W_CAPACITY: usize = 1;
const W_PATH_LEN: usize = 2;
const W_HEAD: usize = 8;
const W_TAIL: usize = 16;
/// Two intents of eight words: one is whole while the other is being stored.
const W_INTENTS: [usize; 2] = [24, 32];

/// The offset of an intent that failed and left nothing in the file.
pub(super) const NOWHERE: u64 = u64::MAX;

/// What the writer is about to do, stored before it does it.
///
/// The records from `start` to `end`, less their first `skip` bytes, go to
/// `offset` of the file `dev`/`ino`. It speaks of the present only while
/// `start` is still the ring's tail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Intent {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) skip: u64,
    pub(super) dev: u64,
    pub(super) ino: u64,
    pub(super) offset: u64,
}

impl Intent {
    fn words(self, turn: u64) -> [u64; 7] {
        let Self {
            start,
            end,
            skip,
            dev,
            ino,
            offset,
        } = self;
        [turn, start, end, skip, dev, ino, offset]
    }
}

/// A record taken from the ring.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Taken {
    /// The position after the record.
    pub(super) next: u64,
    /// The payload is the number of a spilled record, not the record itself.
    pub(super) spilled: bool,
}

/// Why the ring did not accept a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// No room now; there is once the writer got on.
    Full,
    /// The log is closed.
    Closed,
}

/// Why bytes are not a ring to read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unfit {
    /// Its maker died before it was whole: nothing was accepted.
    Unfinished,
    /// Another version of the layout, for that version to read.
    Foreign,
    /// It was a ring once, perhaps.
    Damaged,
}

/// The bytes at this position are not a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Corrupt;

/// See the module.
pub(super) struct Ring {
    map: Mapping,
    capacity: u64,
    /// Held for one copy of a line; true once nothing more is accepted.
    sealed: Mutex<bool>,
}

impl Ring {
    /// Lays an empty ring over zeroed memory of `HEADER + capacity` bytes.
    pub(super) fn create(map: Mapping, capacity: usize, path: &Path) -> Self {
        let ring = Self {
            map,
            capacity: capacity as u64,
            sealed: Mutex::new(false),
        };
        ring.put_path(path);
        ring.map.store(W_CAPACITY, capacity as u64, Relaxed);
        // Last: only a finished header carries the magic number.
        ring.map.store(W_MAGIC, MAGIC, Release);
        ring
    }

    /// Takes over the ring a dead process left, if its header makes sense.
    pub(super) fn adopt(map: Mapping, len: usize) -> Result<Self, Unfit> {
        if len <= HEADER {
            return Err(Unfit::Damaged);
        }
        match map.load(W_MAGIC, Acquire) {
            MAGIC => {}
            0 => return Err(Unfit::Unfinished),
            other if other & NAME == MAGIC & NAME => return Err(Unfit::Foreign),
            _ => return Err(Unfit::Damaged),
        }
        let capacity = (len - HEADER) as u64;
        let ring = Self {
            map,
            capacity,
            sealed: Mutex::new(false),
        };
        let sane = ring.map.load(W_CAPACITY, Relaxed) == capacity
            && ring.tail() <= ring.head()
            && ring.used() <= capacity;
        if sane { Ok(ring) } else { Err(Unfit::Damaged) }
    }

    #[cfg(unix)]
    fn put_path(&self, path: &Path) {
        use std::os::unix::ffi::OsStrExt;
        self.put_path_bytes(path.as_os_str().as_bytes());
    }

    #[cfg(not(unix))]
    fn put_path(&self, path: &Path) {
        self.put_path_bytes(path.to_string_lossy().as_bytes());
    }

    #[allow(unsafe_code)]
    fn put_path_bytes(&self, path: &[u8]) {
        let path = &path[..path.len().min(LONGEST_PATH)];
        // SAFETY: the ring is being made; nobody else has it yet.
        unsafe { self.map.write(PATH_AT, path) };
        self.map.store(W_PATH_LEN, path.len() as u64, Relaxed);
    }

    /// The log this ring belongs to, as bytes.
    #[allow(unsafe_code)]
    pub(super) fn path(&self) -> Vec<u8> {
        let len = self.map.load(W_PATH_LEN, Relaxed);
        let mut path = vec![0; (len as usize).min(LONGEST_PATH)];
        // SAFETY: the path is written once, before anyone else has the ring.
        unsafe { self.map.read(PATH_AT, &mut path) };
        path
    }

    /// The position after the last accepted record.
    pub(super) fn head(&self) -> u64 {
        self.map.load(W_HEAD, Acquire)
    }

    /// The position of the oldest record that is not known to be in the file.
    pub(super) fn tail(&self) -> u64 {
        self.map.load(W_TAIL, Acquire)
    }

    /// Bytes waiting, headers included.
    pub(super) fn used(&self) -> u64 {
        self.head().saturating_sub(self.tail())
    }

    pub(super) fn capacity(&self) -> u64 {
        self.capacity
    }

    /// The longest payload that `push` takes into an empty ring.
    pub(super) fn longest(&self) -> usize {
        (self.capacity as usize - RECORD_HEADER).min(SPILLED as usize - 1)
    }

    /// Accepts `payload`; returns the position after it.
    ///
    /// A `spilled` payload is the number under which the record lies elsewhere.
    pub(super) fn push(&self, payload: &[u8], spilled: bool) -> Result<u64, Refused> {
        if payload.len() > self.longest() {
            return Err(Refused::Full);
        }
        let sum = checksum(payload);
        let size = (RECORD_HEADER + payload.len()) as u64;
        let sealed = self.sealed.lock();
        if *sealed {
            return Err(Refused::Closed);
        }
        // Relaxed: only holders of the mutex move the head.
        let head = self.map.load(W_HEAD, Relaxed);
        if head - self.tail() + size > self.capacity {
            return Err(Refused::Full);
        }
        let flag = if spilled { SPILLED } else { 0 };
        self.write(head, &record_header(payload.len() as u32 | flag, sum, head));
        self.write(head + RECORD_HEADER as u64, payload);
        // Release: whoever sees the new head sees the bytes before it.
        self.map.store(W_HEAD, head + size, Release);
        Ok(head + size)
    }

    /// Accepts nothing more: what is in the ring now is all there will be.
    pub(super) fn seal(&self) {
        *self.sealed.lock() = true;
    }

    /// Appends the payload at `at` to `out`; `None` at the end of the ring.
    pub(super) fn take(&self, at: u64, out: &mut Vec<u8>) -> Result<Option<Taken>, Corrupt> {
        let available = self.head().saturating_sub(at);
        if available == 0 {
            return Ok(None);
        }
        if available < RECORD_HEADER as u64 {
            return Err(Corrupt);
        }
        let mut header = [0; RECORD_HEADER];
        self.read(at, &mut header);
        let length = u32::from_le_bytes([header[0], header[1], header[2], 0]);
        let size = u64::from(length & !SPILLED);
        if size > available - RECORD_HEADER as u64 {
            return Err(Corrupt);
        }
        let begin = out.len();
        out.resize(begin + size as usize, 0);
        self.read(at + RECORD_HEADER as u64, &mut out[begin..]);
        if record_header(length, checksum(&out[begin..]), at) != header {
            out.truncate(begin);
            return Err(Corrupt);
        }
        let next = at + RECORD_HEADER as u64 + size;
        let spilled = length & SPILLED != 0;
        Ok(Some(Taken { next, spilled }))
    }

    /// Forgets everything before `position`.
    pub(super) fn commit(&self, position: u64) {
        // Release: the bytes were read before producers may reuse their place.
        self.map.store(W_TAIL, position, Release);
    }

    /// Stores what is about to be written. The intent before stays until this
    /// one is whole, in case the process dies amid the stores.
    pub(super) fn intend(&self, intent: Intent) {
        let turn = self.intents().map(|(turn, _)| turn).max().unwrap_or(0) + 1;
        let first = W_INTENTS[(turn % 2) as usize];
        let words = intent.words(turn);
        for (n, word) in words.into_iter().enumerate() {
            self.map.store(first + n, word, Relaxed);
        }
        self.map.store(first + 7, sum_of(&words), Release);
    }

    /// The intents that are whole, each with its turn.
    fn intents(&self) -> impl Iterator<Item = (u64, Intent)> {
        W_INTENTS.into_iter().filter_map(|first| {
            let sum = self.map.load(first + 7, Acquire);
            let word = |n: usize| self.map.load(first + n, Relaxed);
            let intent = Intent {
                start: word(1),
                end: word(2),
                skip: word(3),
                dev: word(4),
                ino: word(5),
                offset: word(6),
            };
            let turn = word(0);
            (sum_of(&intent.words(turn)) == sum && turn < u64::MAX).then_some((turn, intent))
        })
    }

    /// The intent that was not carried through, if any.
    pub(super) fn unsettled(&self) -> Option<Intent> {
        let (_, intent) = self.intents().max_by_key(|(turn, _)| *turn)?;
        let current = intent.start == self.tail();
        (current && intent.end > intent.start && intent.end <= self.head()).then_some(intent)
    }

    /// The records are in the file: gives the memory back to the system. The
    /// ring must be sealed and empty; its counters stay.
    pub(super) fn release(&self) {
        debug_assert_eq!(self.used(), 0, "a released ring holds nothing");
        self.map.release(HEADER);
    }

    /// The ring as the next process would find it.
    #[cfg(any(test, fuzzing))]
    #[allow(unsafe_code)]
    pub(super) fn image(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEADER + self.capacity as usize];
        // SAFETY: tests have the ring to themselves.
        unsafe { self.map.read(0, &mut bytes) };
        bytes
    }

    #[allow(unsafe_code)]
    fn write(&self, position: u64, bytes: &[u8]) {
        let at = (position % self.capacity) as usize;
        let first = bytes.len().min(self.capacity as usize - at);
        // SAFETY: `push` holds the mutex and has checked that these
        // positions lie past the head and less than a lap past the tail, where
        // the writer does not read.
        unsafe {
            self.map.write(HEADER + at, &bytes[..first]);
            self.map.write(HEADER, &bytes[first..]);
        }
    }

    #[allow(unsafe_code)]
    fn read(&self, position: u64, bytes: &mut [u8]) {
        let at = (position % self.capacity) as usize;
        let first = bytes.len().min(self.capacity as usize - at);
        let (head, rest) = bytes.split_at_mut(first);
        // SAFETY: `take` has checked that these positions lie between tail and
        // head, where no producer writes.
        unsafe {
            self.map.read(HEADER + at, head);
            self.map.read(HEADER, rest);
        }
    }
}

fn record_header(length: u32, sum: u64, position: u64) -> [u8; RECORD_HEADER] {
    let mixed = (sum ^ position ^ (u64::from(length) << 40)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut header = [0; RECORD_HEADER];
    header[..3].copy_from_slice(&length.to_le_bytes()[..3]);
    header[3..].copy_from_slice(&((mixed >> 32) as u32).to_le_bytes());
    header
}

/// Never 0, which unwritten words would match.
fn sum_of(words: &[u64; 7]) -> u64 {
    let step = |sum: u64, word: &u64| (sum.rotate_left(5) ^ word).wrapping_mul(FACTOR);
    words.iter().fold(1, step) | 1
}

/// Odd, with bits well spread: of the `FxHash` family.
const FACTOR: u64 = 0x517C_C1B7_2722_0A95;

/// A multiply-and-rotate hash, eight bytes a step: it guards against damage,
/// not against an enemy, and costs a tenth of the line's own formatting.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    let mut sum = bytes.len() as u64;
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let word = u64::from_le_bytes(word.try_into().expect("chunks of eight bytes"));
        sum = (sum.rotate_left(5) ^ word).wrapping_mul(FACTOR);
    }
    let mut last = [0; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    (sum.rotate_left(5) ^ u64::from_le_bytes(last)).wrapping_mul(FACTOR)
}

/// A ring on the heap: nothing survives the process.
pub(super) fn on_heap(capacity: usize, path: &Path) -> Ring {
    Ring::create(Mapping::heap(HEADER + capacity), capacity, path)
}

/// A ring over the whole of `file`, which has been allocated to that size.
pub(super) fn in_file(file: &std::fs::File, capacity: usize, path: &Path) -> io::Result<Ring> {
    let map = Mapping::shared(file, HEADER + capacity)?;
    Ok(Ring::create(map, capacity, path))
}

#[cfg(all(test, feature = "loom"))]
#[path = "loom_ring.rs"]
mod loom_tests;

#[cfg(test)]
mod tests {
    use super::{HEADER, Intent, Refused, Ring, Unfit, on_heap};
    use crate::log::mapping::Mapping;
    use proptest::prelude::*;
    use std::collections::VecDeque;
    use std::path::Path;

    fn all(ring: &Ring) -> Vec<Vec<u8>> {
        let (mut at, mut found) = (ring.tail(), Vec::new());
        let mut record = Vec::new();
        while let Ok(Some(taken)) = ring.take(at, &mut record) {
            found.push(std::mem::take(&mut record));
            at = taken.next;
        }
        found
    }

    fn from_image(bytes: &[u8]) -> Result<Ring, Unfit> {
        let map = Mapping::heap(bytes.len().max(8));
        #[allow(unsafe_code)]
        // SAFETY: as above.
        unsafe {
            map.write(0, bytes);
        };
        Ring::adopt(map, bytes.len())
    }

    #[derive(Debug, Clone)]
    enum Step {
        Push(Vec<u8>),
        Take,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let push = prop::collection::vec(any::<u8>(), 0..90).prop_map(Step::Push);
        prop::collection::vec(prop_oneof![push, Just(Step::Take)], 0..200)
    }

    proptest! {
        #[test]
        fn a_ring_is_a_bounded_queue(steps in steps()) {
            let ring = on_heap(256, Path::new("/log"));
            let mut model: VecDeque<Vec<u8>> = VecDeque::new();
            let size = |model: &VecDeque<Vec<u8>>| model.iter().map(|r| r.len() + 7).sum::<usize>();
            for step in steps {
                match step {
                    Step::Push(record) => {
                        let fits = size(&model) + record.len() + 7 <= 256;
                        prop_assert_eq!(ring.push(&record, false).is_ok(), fits);
                        if fits {
                            model.push_back(record);
                        }
                    }
                    Step::Take => {
                        let mut record = Vec::new();
                        let taken = ring.take(ring.tail(), &mut record).unwrap();
                        prop_assert_eq!(taken.is_some(), !model.is_empty());
                        if let Some(taken) = taken {
                            prop_assert_eq!(Some(record), model.pop_front());
                            ring.commit(taken.next);
                        }
                    }
                }
                prop_assert_eq!(ring.used() as usize, size(&model));
            }
            prop_assert_eq!(all(&ring), Vec::from(model));
        }

        #[test]
        fn an_adopted_ring_holds_the_same(
            records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..9)
        ) {
            let ring = on_heap(1024, Path::new("/var/log/app"));
            for record in &records {
                ring.push(record, false).unwrap();
            }

            let heir = from_image(&ring.image()).unwrap();

            prop_assert_eq!(heir.path(), b"/var/log/app");
            prop_assert_eq!(all(&heir), records);
        }

        #[test]
        fn a_damaged_ring_never_invents_a_record(
            records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..9),
            damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
            header in prop::collection::vec((0usize..300, any::<u8>()), 0..4),
            cut in any::<prop::sample::Index>(),
        ) {
            let ring = on_heap(1024, Path::new("/log"));
            for record in &records {
                ring.push(record, false).unwrap();
            }
            let mut bytes = ring.image();
            for (at, value) in damage {
                bytes[HEADER + at.index(1024)] = value;
            }
            for (at, value) in header {
                bytes[at] = value;
            }
            if cut.index(4) == 0 {
                bytes.truncate(cut.index(bytes.len()));
            }

            if let Ok(heir) = from_image(&bytes) {
                let _ = (heir.unsettled(), heir.path());
                for found in all(&heir) {
                    prop_assert!(records.contains(&found));
                }
            }
        }

        #[test]
        fn arbitrary_bytes_are_no_ring(bytes in prop::collection::vec(any::<u8>(), 0..20_000)) {
            prop_assert!(from_image(&bytes).is_err());
        }
    }

    #[test]
    fn a_sealed_ring_accepts_nothing() {
        let ring = on_heap(256, Path::new("/log"));
        ring.push(b"a", false).unwrap();

        ring.seal();

        assert_eq!(ring.push(b"b", false), Err(Refused::Closed));
        assert_eq!(all(&ring), [b"a"]);
    }

    #[test]
    fn an_intent_speaks_until_the_tail_moves() {
        let ring = on_heap(256, Path::new("/log"));
        let end = ring.push(b"a", false).unwrap();
        let intent = Intent {
            start: 0,
            end,
            skip: 0,
            dev: 1,
            ino: 2,
            offset: 3,
        };

        assert_eq!(ring.unsettled(), None);
        ring.intend(intent);
        assert_eq!(ring.unsettled(), Some(intent));
        ring.commit(end);
        assert_eq!(ring.unsettled(), None);
    }
}
