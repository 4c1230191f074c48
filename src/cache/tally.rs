//! LFU, exact: one queue per count of uses, so every step is `O(log counts)`.

use std::collections::BTreeMap;

use super::policy::Policy;
use super::queue::{Links, Queue};
use super::rows::Rows;

/// Least often used first; among equals the least recently used.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    links: Links,
    /// Uses of each slot since it was admitted.
    uses: Rows<u32>,
    /// The slots of each count, never an empty queue.
    by_uses: BTreeMap<u32, Queue>,
}

impl Tally {
    fn insert(&mut self, slot: u32, uses: u32) {
        self.uses[slot as usize] = uses;
        let queue = self.by_uses.entry(uses).or_default();
        queue.push_front(&mut self.links, slot);
    }
}

impl Policy for Tally {
    fn admit(&mut self, slot: u32, _hash: u32) {
        self.uses.cover(slot as usize, 0);
        self.insert(slot, 1);
    }

    fn touch(&mut self, slot: u32) {
        let uses = self.uses[slot as usize];
        self.forget(slot);
        self.insert(slot, uses.saturating_add(1));
    }

    fn forget(&mut self, slot: u32) {
        let uses = self.uses[slot as usize];
        let queue = self
            .by_uses
            .get_mut(&uses)
            .expect("a held slot is in the queue of its count");
        queue.unlink(&mut self.links, slot);
        if queue.len() == 0 {
            self.by_uses.remove(&uses);
        }
    }

    fn evict(&mut self, _hashes: &Rows<u32>) -> Option<u32> {
        let (_, queue) = self.by_uses.first_key_value()?;
        let rarest = queue.back()?;
        self.forget(rarest);
        Some(rarest)
    }

    fn relocate(&mut self, from: u32, to: u32) {
        let uses = self.uses[from as usize];
        self.uses[to as usize] = uses;
        let queue = self
            .by_uses
            .get_mut(&uses)
            .expect("a held slot is in the queue of its count");
        queue.relocate(&mut self.links, from, to);
    }

    fn truncate(&mut self, len: usize) {
        self.links.truncate(len);
        self.uses.truncate(len);
    }
}
