//! S3-FIFO: three FIFO queues beat LRU, and a hit writes one byte.
//!
//! Newcomers enter a small queue (a 32nd of the room). Those read again before
//! its end move to the main queue; the rest leave, and only their hashes stay,
//! in the ghost. Who comes back while in the ghost enters the main queue at
//! once. The main queue gives each entry as many further rounds as it was read,
//! seven at most.
//!
//! Source: Yang, Zhang, Qiu, Yue, Rashmi: "FIFO queues are all you need for
//! cache eviction", SOSP 2023.

use super::ghost::Ghost;
use super::policy::Policy;
use super::queue::{Links, Queue};
use super::rows::Rows;

/// Bit that says which queue a slot is in; the bits below count its reads.
const IN_MAIN: u8 = 0x80;
const READS: u8 = 0x7F;
/// More reads than this are not told apart. The paper has two bits for them; a
/// third tells the hottest of a small cache from the hot.
const MOST_READS: u8 = 7;
/// The small queue has one part of this many. The paper has a tenth, and asks for
/// two reads before an entry moves on; by our traces less room and one read hit
/// more often (`benches/cache.py policies`). Less than this gains nothing there
/// and costs those that are read again soon, once.
const SMALL_PART: usize = 32;
/// Second chances one eviction may hand out before it takes who is next, so
/// that no call walks a whole queue of hot entries.
const MOST_CHANCES: usize = 256;

#[derive(Debug, Default)]
pub(crate) struct S3Fifo {
    links: Links,
    small: Queue,
    main: Queue,
    ghost: Ghost,
    /// Queue and reads of each slot.
    marks: Rows<u8>,
}

impl S3Fifo {
    fn len(&self) -> usize {
        self.small.len() + self.main.len()
    }

    /// Made on the first eviction, for as many as are held then: a cache bounded
    /// by weight doesn't know its size before. Made anew if it has doubled.
    fn remember(&mut self, hash: u32) {
        let main_room = self.len() - self.len() / SMALL_PART;
        if self.ghost.capacity() * 2 <= main_room {
            self.ghost = Ghost::new(main_room);
        }
        self.ghost.insert(hash);
    }

    /// Bytes allocated.
    #[cfg(all(test, not(feature = "loom")))]
    pub(crate) fn bytes(&self) -> usize {
        self.links.bytes() + self.marks.bytes() + self.ghost.capacity() * size_of::<u16>()
    }

    /// The queue that holds `slot`, and the links of all.
    fn queue_of(&mut self, slot: u32) -> (&mut Queue, &mut Links) {
        let queue = if self.marks[slot as usize] & IN_MAIN == 0 {
            &mut self.small
        } else {
            &mut self.main
        };
        (queue, &mut self.links)
    }

    fn enter_main(&mut self, slot: u32, reads: u8) {
        self.marks[slot as usize] = IN_MAIN | reads;
        self.main.push_front(&mut self.links, slot);
    }

    /// The end of the small queue moves on to the main one, or leaves.
    fn evict_small(&mut self, hashes: &Rows<u32>, forced: bool) -> Option<u32> {
        let last = self.small.back()?;
        self.small.unlink(&mut self.links, last);
        if self.marks[last as usize] & READS > 0 && !forced {
            self.enter_main(last, 0);
            return None;
        }
        self.remember(hashes[last as usize]);
        Some(last)
    }

    /// The end of the main queue goes round once more, or leaves.
    fn evict_main(&mut self, forced: bool) -> Option<u32> {
        let last = self.main.back()?;
        self.main.unlink(&mut self.links, last);
        let reads = self.marks[last as usize] & READS;
        if reads > 0 && !forced {
            self.enter_main(last, reads - 1);
            return None;
        }
        Some(last)
    }
}

impl Policy for S3Fifo {
    fn admit(&mut self, slot: u32, hash: u32) {
        self.marks.cover(slot as usize, 0);
        if self.ghost.take(hash) {
            self.enter_main(slot, 0);
        } else {
            self.marks[slot as usize] = 0;
            self.small.push_front(&mut self.links, slot);
        }
    }

    #[inline]
    fn touch(&mut self, slot: u32) {
        let mark = &mut self.marks[slot as usize];
        if *mark & READS < MOST_READS {
            *mark += 1;
        }
    }

    fn forget(&mut self, slot: u32) {
        let (queue, links) = self.queue_of(slot);
        queue.unlink(links, slot);
    }

    fn evict(&mut self, hashes: &Rows<u32>) -> Option<u32> {
        for chance in 0..=MOST_CHANCES {
            let forced = chance == MOST_CHANCES;
            let small = self.small.len() * SMALL_PART >= self.len();
            let left = if small {
                self.evict_small(hashes, forced)
            } else {
                self.evict_main(forced)
            };
            if left.is_some() || self.len() == 0 {
                return left;
            }
        }
        None
    }

    fn relocate(&mut self, from: u32, to: u32) {
        self.marks[to as usize] = self.marks[from as usize];
        let (queue, links) = self.queue_of(from);
        queue.relocate(links, from, to);
    }

    fn truncate(&mut self, len: usize) {
        self.links.truncate(len);
        self.marks.truncate(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `len` unread entries, of which all but the last are in the main queue.
    fn with_one_new(len: u32) -> (S3Fifo, Rows<u32>) {
        let (mut policy, mut hashes) = (S3Fifo::default(), Rows::default());
        for slot in 0..len {
            hashes.push(slot, len as usize);
            policy.marks.cover(slot as usize, 0);
            policy.enter_main(slot, 0);
        }
        policy.forget(len - 1);
        policy.admit(len - 1, len - 1);
        (policy, hashes)
    }

    #[test]
    fn who_is_new_leaves_first_once_they_are_a_32nd() {
        let (mut policy, hashes) = with_one_new(32);
        assert_eq!(policy.evict(&hashes), Some(31), "one of 32 is new");
        assert_eq!(policy.evict(&hashes), Some(0), "the others in their order");

        let (mut policy, hashes) = with_one_new(33);
        assert_eq!(policy.evict(&hashes), Some(0), "one of 33 is new");
        assert_eq!(policy.evict(&hashes), Some(32), "one of 32 is new");
    }

    #[test]
    fn an_entry_goes_round_as_often_as_it_was_read_and_seven_times_at_most() {
        for (reads, rounds) in [(0, 0), (1, 1), (6, 6), (7, 7), (8, 7), (100, 7)] {
            let (mut policy, _) = with_one_new(33);
            (1..33).for_each(|slot| policy.forget(slot));
            (0..reads).for_each(|_| policy.touch(0));

            let went_round = (0..10).find(|_| policy.evict_main(false).is_some());

            assert_eq!(went_round, Some(rounds), "read {reads} times");
        }
    }
}
