//! The machine's own files: stat, meminfo, loadavg, diskstats, net/dev, pressure.
//!
//! One pure function per file, from its text to counters; see proc(5) and, for
//! pressure, Documentation/accounting/psi.rst.

use super::fields::{after, decimal, is_whole, kibibytes, lines, number, words};
use super::reading::{Cpu, CpuTimes, Disk, Memory, Network, Pressure, Stall};

/// Processor times of `/proc/stat`.
pub(super) fn cpu(text: &[u8]) -> Cpu {
    Cpu {
        total: after(text, b"cpu").and_then(cpu_times),
        cores: cores(text).unwrap_or_default(),
        ..Cpu::default()
    }
}

/// All processors, or none: one left out would make the machine smaller.
fn cores(text: &[u8]) -> Option<Vec<(usize, CpuTimes)>> {
    let mut cores = Vec::new();
    for line in lines(text).skip(1) {
        // What follows the processors is long and of no use here, but shows
        // that they were all there.
        let Some(rest) = line.strip_prefix(b"cpu") else {
            return Some(cores);
        };
        let end = rest.iter().position(|byte| *byte == b' ')?;
        let core = usize::try_from(number(&rest[..end])?).ok()?;
        cores.push((core, cpu_times(&rest[end..])?));
    }
    None
}

/// `user nice system idle iowait irq softirq steal guest guest_nice`; the guest
/// columns are already in user and nice.
fn cpu_times(rest: &[u8]) -> Option<CpuTimes> {
    let mut ticks = [0_u64; 8];
    let mut found = 0;
    for (slot, word) in ticks.iter_mut().zip(words(rest)) {
        *slot = number(word)?;
        found += 1;
    }
    let [user, nice, system, idle, iowait, irq, softirq, steal] = ticks;
    let busy = [user, nice, system, irq, softirq, steal]
        .iter()
        .try_fold(0_u64, |sum, part| sum.checked_add(*part))?;
    let total = busy.checked_add(idle)?.checked_add(iowait)?;
    // The four oldest columns are there on every kernel.
    (found >= 4).then_some(CpuTimes {
        total,
        busy,
        iowait,
        steal,
    })
}

/// The three averages of `/proc/loadavg`.
pub(super) fn load(text: &[u8]) -> Option<[f64; 3]> {
    let mut found = words(lines(text).next()?);
    let mut next = || decimal(found.next()?);
    Some([next()?, next()?, next()?])
}

/// `/proc/meminfo`.
pub(super) fn memory(text: &[u8]) -> Memory {
    Memory {
        total: kibibytes(text, b"MemTotal:"),
        available: kibibytes(text, b"MemAvailable:"),
        swap_total: kibibytes(text, b"SwapTotal:"),
        swap_free: kibibytes(text, b"SwapFree:"),
    }
}

/// Sums of `/proc/diskstats` over the devices that `is_disk` picks by name.
/// Its unit is the sector of 512 bytes, whatever the disk's own.
pub(super) fn disks(text: &[u8], mut is_disk: impl FnMut(&[u8]) -> bool) -> Disk {
    const SECTOR: u64 = 512;
    let counts = |line: &[u8]| {
        let mut found = words(line).skip(2);
        let Some(name) = found.next() else {
            return Row::Other;
        };
        if !is_disk(name) {
            return Row::Other;
        }
        let Some([reads, _, read, _, writes, _, written]) = numbers(found) else {
            return Row::Spoilt;
        };
        Row::Counts([reads, read, writes, written])
    };
    let Some([reads, read, writes, written]) = sum(text, counts) else {
        return Disk::default();
    };
    Disk {
        reads: Some(reads),
        read_bytes: read.checked_mul(SECTOR),
        writes: Some(writes),
        write_bytes: written.checked_mul(SECTOR),
        ..Disk::default()
    }
}

/// Sums of `/proc/net/dev` over all interfaces but the loopback.
pub(super) fn network(text: &[u8]) -> Network {
    let counts = |line: &[u8]| {
        // The two lines of headings have no colon.
        let Some(colon) = line.iter().rposition(|byte| *byte == b':') else {
            return Row::Other;
        };
        if line[..colon].trim_ascii() == b"lo" {
            return Row::Other;
        }
        let Some(row) = numbers::<12>(words(&line[colon + 1..])) else {
            return Row::Spoilt;
        };
        let errors = row[2].saturating_add(row[10]);
        let drops = row[3].saturating_add(row[11]);
        Row::Counts([row[0], row[8], row[1], row[9], errors, drops])
    };
    let sums = sum(text, counts);
    let pick = |column: usize| sums.map(|sums| sums[column]);
    Network {
        received_bytes: pick(0),
        sent_bytes: pick(1),
        received_packets: pick(2),
        sent_packets: pick(3),
        errors: pick(4),
        drops: pick(5),
    }
}

/// One line of a table.
enum Row<const N: usize> {
    Counts([u64; N]),
    /// Not one of those to be summed.
    Other,
    /// One of those, but not readable.
    Spoilt,
}

/// Column sums over all rows; absent if there is none, or if any can't be read,
/// for a sum without it would be wrong.
fn sum<const N: usize>(text: &[u8], mut row: impl FnMut(&[u8]) -> Row<N>) -> Option<[u64; N]> {
    if !is_whole(text) {
        return None;
    }
    let mut sums: Option<[u64; N]> = None;
    for line in lines(text) {
        let counts = match row(line) {
            Row::Counts(counts) => counts,
            Row::Other => continue,
            Row::Spoilt => return None,
        };
        for (into, count) in sums.get_or_insert([0; N]).iter_mut().zip(counts) {
            *into = into.saturating_add(count);
        }
    }
    sums
}

fn numbers<'a, const N: usize>(mut found: impl Iterator<Item = &'a [u8]>) -> Option<[u64; N]> {
    let mut values = [0; N];
    for value in &mut values {
        *value = number(found.next()?)?;
    }
    Some(values)
}

/// One file of `/proc/pressure`, or a group's `cpu.pressure`.
pub(super) fn pressure(text: &[u8]) -> Pressure {
    Pressure {
        some: after(text, b"some").and_then(stall),
        full: after(text, b"full").and_then(stall),
    }
}

/// `avg10=0.00 avg60=0.27 avg300=0.43 total=14840571`
fn stall(line: &[u8]) -> Option<Stall> {
    let mut found = words(line);
    let mut value = |name: &[u8]| found.next()?.strip_prefix(name);
    let average = |word: &[u8]| decimal(word).filter(|percent| *percent <= 100.0);
    Some(Stall {
        averages: [
            average(value(b"avg10=")?)?,
            average(value(b"avg60=")?)?,
            average(value(b"avg300=")?)?,
        ],
        total_us: number(value(b"total=")?)?,
    })
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // exact: the same digits, parsed once
mod tests {
    use super::*;

    const STAT: &[u8] = b"cpu  10 1 5 80 4 0 0 2 3 0\ncpu0 10 1 5 80 4 0 0 2 0 0\nintr 9 0\n";

    #[test]
    fn guest_time_counts_once_and_waiting_is_not_busy() {
        let cpu = cpu(STAT);

        let times = cpu.total.unwrap();
        assert_eq!((times.total, times.busy), (102, 18));
        assert_eq!((times.iowait, times.steal), (4, 2));
        assert_eq!(cpu.cores, [(0, times)]);
    }

    #[test]
    fn a_spoilt_processor_line_is_absent() {
        for text in [
            &b"cpu  10 1 5\n"[..],
            b"cpu  10 1 x 80\n",
            b"cpu  10 1 -5 80\n",
            b"cpu  10 1 5 80",
            b"cpu  18446744073709551615 18446744073709551615 0 0\n",
            b"",
            b"cp",
        ] {
            assert_eq!(cpu(text).total, None, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn processors_are_all_there_or_absent() {
        let whole = b"cpu  2 0 0 2\ncpu0 1 0 0 1\ncpu7 1 0 0 1\nintr 1\n";

        assert_eq!(cpu(whole).cores.len(), 2);
        for end in 0..whole.len() - b"ntr 1\n".len() {
            assert!(cpu(&whole[..end]).cores.is_empty(), "{end}");
        }
        assert!(
            cpu(b"cpu  2 0 0 2\ncpu0 1 0 0 1\ncpu1 x\nintr 1\n")
                .cores
                .is_empty()
        );
    }

    #[test]
    fn disks_add_up_in_sectors_and_only_those_picked() {
        let text = b" 254 0 vda 10 0 8 0 20 0 16 0 0 0 0\n 254 1 vda1 9 0 9 0 9 0 9 0 0 0 0\n 8 0 sda 1 0 2 0 3 0 4\n";

        let disk = disks(text, |name| !name.ends_with(b"1"));

        assert_eq!((disk.reads, disk.writes), (Some(11), Some(23)));
        assert_eq!(disk.read_bytes, Some(10 * 512));
        assert_eq!(disk.write_bytes, Some(20 * 512));
        assert_eq!(disks(text, |_| false).reads, None);
        assert_eq!(disks(&text[..text.len() - 1], |_| true).reads, None);
        assert_eq!(disks(b" 8 0 sda 1 0 2\n", |_| true).reads, None);
    }

    #[test]
    fn the_loopback_is_not_the_network() {
        let text = b"Inter-|   Receive\n face |bytes\n    lo: 5 5 0 0 0 0 0 0 5 5 0 0 0 0 0 0\n  eth0:100 2 1 1 0 0 0 0 50 3 4 5 0 0 0 0\n";

        let sums = network(text);

        assert_eq!(
            (sums.received_bytes, sums.sent_bytes),
            (Some(100), Some(50))
        );
        assert_eq!((sums.errors, sums.drops), (Some(5), Some(6)));
        assert_eq!(network(b"").received_bytes, None);
        assert_eq!(network(b" eth0: 1 1 0 0 0\n").received_bytes, None);
        assert_eq!(network(&text[..text.len() - 1]).received_bytes, None);
    }

    #[test]
    fn pressure_needs_all_its_figures() {
        let text = b"some avg10=1.50 avg60=0.27 avg300=0.43 total=14840571\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=9\n";

        let read = pressure(text);

        assert_eq!(read.some.unwrap().averages, [1.5, 0.27, 0.43]);
        assert_eq!(read.full.unwrap().total_us, 9);
        for spoilt in [
            &b"some avg10=1.50 avg60=0.27 avg300=0.43\n"[..],
            b"some avg10=nan avg60=0.27 avg300=0.43 total=1\n",
            b"some avg10=101.0 avg60=0.27 avg300=0.43 total=1\n",
            b"some avg10=1.0 avg60=0.27 avg300=0.43 total=1",
        ] {
            assert_eq!(pressure(spoilt).some, None);
        }
    }

    #[test]
    fn load_needs_three_numbers() {
        assert_eq!(load(b"0.10 0.20 0.30 1/99 7\n"), Some([0.1, 0.2, 0.3]));
        assert_eq!(load(b"0.10 0.20\n"), None);
        assert_eq!(load(b"0.10 0.20 0.3"), None);
    }
}
