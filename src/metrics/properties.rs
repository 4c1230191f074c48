//! Properties of all the parsers at once: hostile text, and windows in any order.

use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;

use super::cgroup::Groups;
use super::derive::{Window, derive};
use super::place::Texts;
use super::reading::{Cgroup, Cpu, CpuGroup, CpuTimes, Memory, MemoryGroup, Process, Reading};
use super::snapshot::{Snapshot, Value};
use super::{host, own};

/// Bytes as a broken kernel, or an attacker's mount, might give.
fn text() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just("cpu".to_owned()),
        Just("cpu0".to_owned()),
        Just("some".to_owned()),
        Just("MemTotal:".to_owned()),
        Just("eth0:".to_owned()),
        Just("Cpus_allowed_list:".to_owned()),
        Just("0::/a".to_owned()),
        Just("18446744073709551615".to_owned()),
        Just("avg10=0.5".to_owned()),
        Just("\n".to_owned()),
        Just("kB".to_owned()),
        Just("-".to_owned()),
        "[0-9]{1,25}",
        ".{0,6}",
    ];
    let words = prop::collection::vec(word, 0..60);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        words.prop_map(|words| words.join(" ").into_bytes()),
    ]
}

fn times() -> impl Strategy<Value = CpuTimes> {
    (any::<u32>(), any::<u32>(), any::<u32>(), any::<u32>()).prop_map(|(a, b, c, d)| CpuTimes {
        total: u64::from(a) + u64::from(b),
        busy: u64::from(a),
        iowait: u64::from(c),
        steal: u64::from(d),
    })
}

fn maybe() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![
        Just(None),
        Just(Some(u64::MAX)),
        any::<u64>().prop_map(Some),
        (0..9_u64).prop_map(Some)
    ]
}

prop_compose! {
    fn cgroup()(
        quota in 1e-3..1e4_f64, usage in maybe(), periods in maybe(), throttled in maybe(),
        limit in any::<u64>(), used in maybe(), inactive in maybe(), known in any::<bool>(),
    ) -> Cgroup {
        let cpu = CpuGroup {
            depth: 0,
            quota_cores: quota,
            usage_ns: usage,
            periods,
            throttled_periods: throttled,
            throttled_ns: usage,
        };
        let memory = MemoryGroup { limit, usage: used, inactive_file: inactive };
        Cgroup {
            cpu: known.then(|| vec![cpu]),
            memory: known.then(|| vec![memory]),
            oom_kills: used,
        }
    }
}

prop_compose! {
    fn reading()(
        at_ns in any::<u64>(), total in times(), cores in prop::collection::vec(times(), 0..3),
        allowed in prop::collection::vec(0..4_usize, 0..3),
        counts in prop::collection::vec(maybe(), 8), cgroup in cgroup(),
        seconds in 0.0..1e9_f64,
    ) -> Reading {
        let [a, b, c, d, e, f, g, h] = counts.try_into().expect("8 were made");
        Reading {
            at_ns,
            cpu: Cpu { total: Some(total), cores: cores.into_iter().enumerate().collect(), allowed, load: None },
            memory: Memory { total: a, available: b, swap_total: c, swap_free: d },
            cgroup,
            process: Process {
                cpu_seconds: Some(seconds), open_fds: e, fd_limit: f, read_bytes: g, reads: h,
                ..Process::default()
            },
            ..Reading::default()
        }
    }
}

proptest! {
    #[test]
    fn no_text_panics_any_parser(text in text(), other in text()) {
        let _ = host::cpu(&text);
        let _ = host::load(&text);
        let _ = host::memory(&text);
        let _ = host::disks(&text, |_| true);
        let _ = host::network(&text);
        let _ = host::pressure(&text);
        let _ = own::started(&text);
        let _ = own::status(&text, &mut Process::default());
        own::io(&text, &mut Process::default());
        let _ = own::fd_limit(&text);
        let _ = own::uptime(&text);
        let texts = Texts { root: Path::new("/nowhere"), cgroup: &text, mountinfo: &other };
        let _ = Groups::find(texts);
    }

    #[test]
    fn figures_are_finite_and_shares_within_a_hundred(base in reading(), now in reading()) {
        let derived = derive(Window { base: &base, now: &now });

        for (section, figures) in &derived.sections {
            for (name, value) in figures {
                let (Value::Float(number) | Value::Seconds(number)) = *value else { continue };
                let Some(number) = number else { continue };
                prop_assert!(number.is_finite() && number >= 0.0, "{section}.{name} {number}");
                let share = name.ends_with("percent") && *name != "cpu_percent";
                prop_assert!(!share || number <= 100.0, "{section}.{name} {number}");
            }
        }
        prop_assert!(derived.per_core_percent.iter().all(|share| (0.0..=100.0).contains(share)));
    }

    #[test]
    fn packing_changes_no_figure(base in reading(), now in reading()) {
        let sections = derive(Window { base: &base, now: &now }).sections;
        let mut layout: Option<Arc<_>> = None;

        let packed = Snapshot::pack(&mut layout, &sections);

        let named = sections.iter().flat_map(|(section, figures)| {
            figures.iter().map(move |(name, value)| (*section, *name, *value))
        });
        for ((section, name, value), given) in packed.figures().zip(named) {
            // The largest count stands for none.
            let largest = matches!(given.2, Value::Whole(Some(u64::MAX)) | Value::Total(Some(u64::MAX)));
            prop_assert!((section, name, value) == given || largest);
        }
    }
}
