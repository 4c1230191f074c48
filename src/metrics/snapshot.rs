//! What the monitor tells: every figure with its unit in its name.
//!
//! `derive` writes the one list of names. Python builds its dataclasses from
//! it, thresholds go by it, and the probe thread writes `/metrics` from it.

use std::sync::Arc;

/// One figure. `None` is "the system doesn't say", never a guess.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A share, rate or duration.
    Float(Option<f64>),
    /// A number of things or bytes at this moment.
    Whole(Option<u64>),
    /// A number of things or bytes that only grows.
    Total(Option<u64>),
    /// Time that only grows.
    Seconds(Option<f64>),
}

impl Value {
    fn bits(self) -> u64 {
        match self {
            Self::Float(value) | Self::Seconds(value) => value.map_or(ABSENT, f64::to_bits),
            Self::Whole(value) | Self::Total(value) => value.unwrap_or(ABSENT),
        }
    }

    /// The figure of these bits, of the same kind as this one.
    fn same_kind(self, bits: u64) -> Self {
        let bits = (bits != ABSENT).then_some(bits);
        match self {
            Self::Float(_) => Self::Float(bits.map(f64::from_bits)),
            Self::Seconds(_) => Self::Seconds(bits.map(f64::from_bits)),
            Self::Whole(_) => Self::Whole(bits),
            Self::Total(_) => Self::Total(bits),
        }
    }
}

impl From<Option<f64>> for Value {
    fn from(value: Option<f64>) -> Self {
        Self::Float(value.filter(|value| value.is_finite()))
    }
}

impl From<Option<u64>> for Value {
    fn from(value: Option<u64>) -> Self {
        Self::Whole(value)
    }
}

/// Named figures of one kind.
pub(super) type Section = Vec<(&'static str, Value)>;

/// The names of a monitor's figures, held once for all its snapshots.
#[derive(Debug)]
pub struct Layout {
    names: Vec<Name>,
}

#[derive(Debug)]
struct Name {
    /// `pressure.cpu.some_percent`
    dotted: String,
    /// Where the last dot is.
    dot: usize,
    /// Any value of its kind.
    kind: Value,
}

impl Layout {
    fn of(sections: &[(&'static str, Section)]) -> Self {
        let name = |section: &str, name: &str, value: Value| Name {
            dotted: format!("{section}.{name}"),
            dot: section.len(),
            kind: value,
        };
        let each = |(section, figures): &(&'static str, Section)| {
            let named = figures
                .iter()
                .map(|(figure, value)| name(section, figure, *value));
            named.collect::<Vec<_>>()
        };
        Self {
            names: sections.iter().flat_map(each).collect(),
        }
    }
}

/// Lag of one event loop over the last interval, in seconds.
#[derive(Clone, Debug, PartialEq)]
pub struct LoopFigures {
    /// The name it was watched under.
    pub name: Arc<str>,
    /// Heartbeats in the interval.
    pub ticks: u64,
    /// Half of the heartbeats were at most this late.
    pub lag_p50_seconds: f64,
    /// 99 of 100 were at most this late.
    pub lag_p99_seconds: f64,
    /// The latest; a block still under way counts.
    pub lag_max_seconds: f64,
}

/// All figures of one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Counts the samples of one monitor, from 1.
    pub sequence: u64,
    /// Monotonic nanoseconds when it was taken.
    pub at_ns: u64,
    /// Seconds since 1970 when it was taken.
    pub timestamp: f64,
    /// Seconds since the process started.
    pub uptime: f64,
    /// Share of each processor online that was busy, in their order.
    pub per_core_percent: Box<[f64]>,
    /// Lag of each watched loop.
    pub loops: Box<[LoopFigures]>,
    layout: Arc<Layout>,
    /// Bits of a float or a count, as the layout says. An hour of snapshots is
    /// kept, so they are packed.
    figures: Box<[u64]>,
}

/// No finite float has these bits, and no counter gets there.
const ABSENT: u64 = u64::MAX;

impl Snapshot {
    /// Packs named figures. `layout` is made at the first and shared by all
    /// that follow, since the same code names them in the same order.
    pub(super) fn pack(
        layout: &mut Option<Arc<Layout>>,
        sections: &[(&'static str, Section)],
    ) -> Self {
        let layout = layout.get_or_insert_with(|| Arc::new(Layout::of(sections)));
        let figures: Box<[u64]> = sections
            .iter()
            .flat_map(|(_, figures)| figures.iter().map(|(_, value)| value.bits()))
            .collect();
        debug_assert_eq!(figures.len(), layout.names.len());
        Self {
            sequence: 0,
            at_ns: 0,
            timestamp: 0.0,
            uptime: 0.0,
            per_core_percent: Box::default(),
            loops: Box::default(),
            layout: Arc::clone(layout),
            figures,
        }
    }

    /// Every figure as `(section, name, value)`, present or not, in an order
    /// that never changes.
    pub fn figures(&self) -> impl Iterator<Item = (&str, &str, Value)> {
        let named = self.layout.names.iter().zip(&self.figures);
        named.map(|(name, bits)| {
            let (section, figure) = name.dotted.split_at(name.dot);
            (section, &figure[1..], name.kind.same_kind(*bits))
        })
    }
}
