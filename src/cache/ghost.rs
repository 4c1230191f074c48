//! The hashes of those who left lately, in 2 bytes each.
//!
//! Rows of eight 16-bit fingerprints, newest first; a row forgets its oldest.
//! A stranger is taken for a ghost about once in 8,000 lookups, which costs one
//! place in the main queue and nothing else.

const WAYS: usize = 8;

#[derive(Debug, Default)]
pub(crate) struct Ghost {
    rows: Box<[[u16; WAYS]]>,
}

impl Ghost {
    /// Remembers about `capacity` hashes.
    pub(crate) fn new(capacity: usize) -> Self {
        let rows = capacity.div_ceil(WAYS).max(1);
        Self {
            rows: vec![[0; WAYS]; rows].into_boxed_slice(),
        }
    }

    /// How many hashes it remembers at most.
    pub(crate) fn capacity(&self) -> usize {
        self.rows.len() * WAYS
    }

    /// The row of a hash by its upper bits, the fingerprint by its lower ones;
    /// 0 marks an empty place, so it is no fingerprint.
    fn place(&self, hash: u32) -> (usize, u16) {
        let spread = hash.wrapping_mul(0x9E37_79B1);
        let row = (u64::from(spread) * self.rows.len() as u64) >> 32;
        (row as usize, (hash as u16).max(1))
    }

    pub(crate) fn insert(&mut self, hash: u32) {
        let (row, print) = self.place(hash);
        let row = &mut self.rows[row];
        row.copy_within(0..WAYS - 1, 1);
        row[0] = print;
    }

    /// Whether `hash` left lately; it is forgotten by the answer.
    pub(crate) fn take(&mut self, hash: u32) -> bool {
        if self.rows.is_empty() {
            return false;
        }
        let (row, print) = self.place(hash);
        let row = &mut self.rows[row];
        let Some(at) = row.iter().position(|&held| held == print) else {
            return false;
        };
        row.copy_within(at + 1.., at);
        row[WAYS - 1] = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_left_is_known_once() {
        let mut ghost = Ghost::new(64);
        ghost.insert(0xDEAD_BEEF);

        assert!(ghost.take(0xDEAD_BEEF));
        assert!(!ghost.take(0xDEAD_BEEF));
    }

    #[test]
    fn a_row_forgets_its_oldest() {
        let mut ghost = Ghost::new(1);
        for hash in 1..=9 {
            ghost.insert(hash);
        }

        assert!(!ghost.take(1));
        assert!((2..=9).all(|hash| ghost.take(hash)));
    }
}
