//! Records on their way from a ring to the file.

use std::io;

use super::ring::{Corrupt, Intent};
use super::spill::Spill;
use super::storage::Housed;

/// Written in place of a record beside the ring that is gone.
pub(super) const LOST: &str = "[a long record was lost]\n";

/// Records on their way from a ring to the file.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    /// After each record: its end in the ring, and in `bytes`.
    pub(super) ends: Vec<(u64, usize)>,
    pub(super) spills: Vec<Spill>,
    /// The next record belongs into a new file.
    pub(super) full: bool,
}

impl Batch {
    pub(super) fn end(&self) -> Option<u64> {
        self.ends.last().map(|(position, _)| *position)
    }
}

/// The end of the last record that lies wholly in the first `done` bytes.
pub(super) fn whole_records(batch: &Batch, done: usize) -> usize {
    let ends = batch.ends.iter().map(|(_, end)| *end);
    ends.take_while(|end| *end <= done).last().unwrap_or(0)
}

pub(super) fn read_until(
    source: &Housed,
    intent: Intent,
    batch: &mut Batch,
) -> io::Result<Result<(), Corrupt>> {
    let mut position = intent.start;
    while position < intent.end {
        match read_record(source, position, batch)? {
            Ok(Some(next)) => position = next,
            _ => return Ok(Err(Corrupt)),
        }
        batch.ends.push((position, batch.bytes.len()));
    }
    Ok(if position == intent.end {
        Ok(())
    } else {
        Err(Corrupt)
    })
}

/// Appends the record at `position`; `Ok(Ok(None))` when there is none.
pub(super) fn read_record(
    source: &Housed,
    position: u64,
    batch: &mut Batch,
) -> io::Result<Result<Option<u64>, Corrupt>> {
    let begin = batch.bytes.len();
    let taken = match source.ring.take(position, &mut batch.bytes) {
        Ok(Some(taken)) => taken,
        Ok(None) => return Ok(Ok(None)),
        Err(Corrupt) => return Ok(Err(Corrupt)),
    };
    if taken.spilled {
        let Some(spill) = Spill::from_bytes(&batch.bytes[begin..]) else {
            batch.bytes.truncate(begin);
            return Ok(Err(Corrupt));
        };
        batch.bytes.truncate(begin);
        match source.spills.read(&spill, &mut batch.bytes) {
            Ok(()) => {}
            // The one thing that can be missing; the records after it are not.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                batch.bytes.extend_from_slice(LOST.as_bytes());
            }
            Err(error) => return Err(error),
        }
        batch.spills.push(spill);
    }
    Ok(Ok(Some(taken.next)))
}
