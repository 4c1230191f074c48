//! Doubly linked lists of slot numbers: the order the policies keep.
//!
//! The links live in one array indexed by slot (8 bytes an entry), so a slot is
//! in at most one queue, and moving it between queues allocates nothing.

use super::rows::Rows;

/// No slot: the end of a list.
pub(crate) const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Link {
    /// Towards the front (the newest).
    newer: u32,
    /// Towards the back (the next to leave).
    older: u32,
}

const LOOSE: Link = Link {
    newer: NONE,
    older: NONE,
};

/// The links of every slot, shared by all queues of one policy.
#[derive(Debug, Default)]
pub(crate) struct Links {
    of: Rows<Link>,
}

/// One list: newest at the front, next to leave at the back.
#[derive(Debug)]
pub(crate) struct Queue {
    front: u32,
    back: u32,
    len: usize,
}

impl Default for Queue {
    fn default() -> Self {
        Self {
            front: NONE,
            back: NONE,
            len: 0,
        }
    }
}

impl Queue {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The next to leave.
    pub(crate) fn back(&self) -> Option<u32> {
        (self.back != NONE).then_some(self.back)
    }

    pub(crate) fn push_front(&mut self, links: &mut Links, slot: u32) {
        let at = slot as usize;
        links.of.cover(at, LOOSE);
        links.of[at] = Link {
            newer: NONE,
            older: self.front,
        };
        match self.front {
            NONE => self.back = slot,
            front => links.of[front as usize].newer = slot,
        }
        self.front = slot;
        self.len += 1;
    }

    /// Takes out `slot`, which is in this queue.
    pub(crate) fn unlink(&mut self, links: &mut Links, slot: u32) {
        let Link { newer, older } = links.of[slot as usize];
        match newer {
            NONE => self.front = older,
            newer => links.of[newer as usize].older = older,
        }
        match older {
            NONE => self.back = newer,
            older => links.of[older as usize].newer = newer,
        }
        self.len -= 1;
    }

    pub(crate) fn move_to_front(&mut self, links: &mut Links, slot: u32) {
        if self.front != slot {
            self.unlink(links, slot);
            self.push_front(links, slot);
        }
    }

    /// What was in slot `from` of this queue is now in slot `to`.
    pub(crate) fn relocate(&mut self, links: &mut Links, from: u32, to: u32) {
        let link = links.of[from as usize];
        links.of[to as usize] = link;
        match link.newer {
            NONE => self.front = to,
            newer => links.of[newer as usize].older = to,
        }
        match link.older {
            NONE => self.back = to,
            older => links.of[older as usize].newer = to,
        }
    }
}

impl Links {
    /// Bytes allocated.
    #[cfg(all(test, not(feature = "loom")))]
    pub(crate) fn bytes(&self) -> usize {
        self.of.bytes()
    }

    /// Gives back the memory of the slots from `len` on.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.of.truncate(len);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut Queue, links: &mut Links) -> Vec<u32> {
        let mut order = Vec::new();
        while let Some(slot) = queue.back() {
            queue.unlink(links, slot);
            order.push(slot);
        }
        order
    }

    #[test]
    fn first_in_is_first_out_unless_moved() {
        let (mut queue, mut links) = (Queue::default(), Links::default());
        for slot in 0..5 {
            queue.push_front(&mut links, slot);
        }

        queue.move_to_front(&mut links, 1);
        queue.unlink(&mut links, 3);

        assert_eq!(queue.len(), 4);
        assert_eq!(drain(&mut queue, &mut links), [0, 2, 4, 1]);
    }

    #[test]
    fn a_relocated_slot_keeps_its_place() {
        for moved in 0..3 {
            let (mut queue, mut links) = (Queue::default(), Links::default());
            for slot in [0, 1, 2, 9] {
                queue.push_front(&mut links, slot);
            }
            queue.unlink(&mut links, 9);

            queue.relocate(&mut links, moved, 9);

            let expected: Vec<u32> = (0..3).map(|s| if s == moved { 9 } else { s }).collect();
            assert_eq!(drain(&mut queue, &mut links), expected);
        }
    }
}
