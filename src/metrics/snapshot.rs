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
    /// A count, or a number of bytes.
    Whole(Option<u64>),
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
    whole: bool,
}

impl Layout {
    fn of(sections: &[(&'static str, Section)]) -> Self {
        let name = |section: &str, name: &str, value: Value| Name {
            dotted: format!("{section}.{name}"),
            dot: section.len(),
            whole: matches!(value, Value::Whole(_)),
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
        let bits = |(_, value): &(&str, Value)| match value {
            Value::Float(value) => value.map_or(ABSENT, f64::to_bits),
            Value::Whole(value) => value.unwrap_or(ABSENT),
        };
        let figures: Box<[u64]> = sections
            .iter()
            .flat_map(|(_, figures)| figures.iter().map(bits))
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
        self.layout
            .names
            .iter()
            .zip(&self.figures)
            .map(|(name, bits)| {
                let present = (*bits != ABSENT).then_some(*bits);
                let value = if name.whole {
                    Value::Whole(present)
                } else {
                    Value::Float(present.map(f64::from_bits))
                };
                let (section, figure) = name.dotted.split_at(name.dot);
                (section, &figure[1..], value)
            })
    }

    /// Every figure there is as `(dotted name, value)`, such as
    /// `("memory.percent", 41.5)`: what a native thread serves without Python.
    pub fn numbers(&self) -> impl Iterator<Item = (&str, f64)> {
        let names = self.layout.names.iter().zip(&self.figures);
        let present = names.filter(|(_, bits)| **bits != ABSENT);
        present.map(|(name, bits)| {
            let number = if name.whole {
                *bits as f64
            } else {
                f64::from_bits(*bits)
            };
            (name.dotted.as_str(), number)
        })
    }
}
