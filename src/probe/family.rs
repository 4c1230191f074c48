//! A metric family: a name, what it means, and its series.
//!
//! Checked when built, so that whatever reaches the encoder is valid
//! `OpenMetrics`: one bad sample makes a scraper reject the whole page.

use std::collections::BTreeMap;
use std::fmt;

/// What a family measures; decides which `Value` its series carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A value that goes up and down.
    Gauge,
    /// A total that only grows; served with the suffix `_total`.
    Counter,
    /// Quantiles computed here, with count and sum.
    Summary,
    /// Counts by upper bound, from which the scraper computes quantiles.
    Histogram,
}

impl Kind {
    /// Every kind, for error messages.
    pub const ALL: [Self; 4] = [Self::Gauge, Self::Counter, Self::Summary, Self::Histogram];

    /// The word the text formats use.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Summary => "summary",
            Self::Histogram => "histogram",
        }
    }

    /// The label the format itself adds to samples of this kind.
    fn own_label(self) -> Option<&'static str> {
        match self {
            Self::Summary => Some("quantile"),
            Self::Histogram => Some("le"),
            Self::Gauge | Self::Counter => None,
        }
    }
}

/// What one series holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of a gauge (any float) or a counter (finite, 0 or more).
    Number(f64),
    /// Of a summary.
    Summary {
        /// How many values were observed.
        count: u64,
        /// Their sum.
        sum: f64,
        /// `(q, value)`, `q` from 0 to 1, ascending.
        quantiles: Vec<(f64, f64)>,
    },
    /// Of a histogram.
    Histogram {
        /// The sum of all observed values.
        sum: f64,
        /// How many values were observed.
        count: u64,
        /// `(upper bound, values at or below it)`, ascending in both.
        buckets: Vec<(f64, u64)>,
    },
}

/// `(name, value)` pairs of one series, sorted by name.
pub type Labels = Vec<(String, String)>;

/// Why a family can't be served.
#[derive(Debug, PartialEq)]
pub enum FamilyError {
    /// Not `[a-zA-Z_:][a-zA-Z0-9_:]*`.
    Name(String),
    /// Not lowercase letters, digits and `_`.
    Unit(String),
    /// Not `[a-zA-Z_][a-zA-Z0-9_]*`, or reserved.
    Label(String),
    /// The value is not one a family of this kind can hold.
    Value(Kind, &'static str),
    /// Two series have the same labels.
    Duplicate(Labels),
}

impl fmt::Display for FamilyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(given) => write!(
                f,
                "name must be letters, digits, '_' and ':', not starting with a digit, got {given:?}"
            ),
            Self::Unit(given) => write!(
                f,
                "unit must be lowercase letters, digits and '_', got {given:?}"
            ),
            Self::Label(given) => write!(
                f,
                "a label must be letters, digits and '_', not start with a digit or '__', \
                 and not be 'le' of a histogram or 'quantile' of a summary, got {given:?}"
            ),
            Self::Value(kind, accepted) => write!(f, "a {} needs {accepted}", kind.name()),
            Self::Duplicate(labels) => write!(f, "two series have the labels {labels:?}"),
        }
    }
}

impl std::error::Error for FamilyError {}

/// A valid metric family, immutable once published.
#[derive(Clone, Debug, PartialEq)]
pub struct Family {
    kind: Kind,
    name: String,
    help: String,
    unit: String,
    series: BTreeMap<Labels, Value>,
}

impl Family {
    /// A family without series yet.
    ///
    /// `_total` of a counter is implied and taken off `name`; a `unit` that
    /// `name` does not end with is appended, as `OpenMetrics` requires.
    pub fn new(kind: Kind, name: &str, help: &str, unit: &str) -> Result<Self, FamilyError> {
        if !is_name(name, true) {
            return Err(FamilyError::Name(name.to_owned()));
        }
        if !unit.bytes().all(is_unit_byte) {
            return Err(FamilyError::Unit(unit.to_owned()));
        }
        let stem = match kind {
            Kind::Counter => name.strip_suffix("_total").unwrap_or(name),
            _ => name,
        };
        let named = unit.is_empty() || stem.strip_suffix(unit).is_some_and(|s| s.ends_with('_'));
        Ok(Self {
            kind,
            name: if named {
                stem.to_owned()
            } else {
                format!("{stem}_{unit}")
            },
            help: help.to_owned(),
            unit: unit.to_owned(),
            series: BTreeMap::new(),
        })
    }

    /// Adds one series.
    pub fn push(&mut self, labels: &[(&str, &str)], value: Value) -> Result<(), FamilyError> {
        for (name, _) in labels {
            if !is_name(name, false)
                || name.starts_with("__")
                || Some(*name) == self.kind.own_label()
            {
                return Err(FamilyError::Label((*name).to_owned()));
            }
        }
        check(self.kind, &value)?;
        let mut own: Labels = labels
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        own.sort();
        if self.series.contains_key(&own) {
            return Err(FamilyError::Duplicate(own));
        }
        self.series.insert(own, value);
        Ok(())
    }

    /// `push` for the common case, and chained: a number under `labels`.
    pub fn with(mut self, labels: &[(&str, &str)], value: f64) -> Result<Self, FamilyError> {
        self.push(labels, Value::Number(value))?;
        Ok(self)
    }

    /// Takes over the series of another family of the same name, first come
    /// first kept: a family must appear once on a page.
    pub(super) fn absorb(&mut self, other: &Self) {
        if self.kind != other.kind {
            return;
        }
        for (labels, value) in &other.series {
            let place = self.series.entry(labels.clone());
            place.or_insert_with(|| value.clone());
        }
    }

    /// What it measures.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Its name with the unit, without `_total`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// One sentence on what it means; may be empty.
    #[must_use]
    pub fn help(&self) -> &str {
        &self.help
    }

    /// Its unit, such as `seconds`; empty when it has none.
    #[must_use]
    pub fn unit(&self) -> &str {
        &self.unit
    }

    /// Its series, in order of labels.
    #[must_use]
    pub fn series(&self) -> &BTreeMap<Labels, Value> {
        &self.series
    }
}

fn is_name(text: &str, colon: bool) -> bool {
    let word = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || (colon && c == b':');
    text.bytes().all(word) && text.bytes().next().is_some_and(|c| !c.is_ascii_digit())
}

fn is_unit_byte(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_'
}

fn check(kind: Kind, value: &Value) -> Result<(), FamilyError> {
    let accepted = match (kind, value) {
        (Kind::Gauge, Value::Number(_)) => return Ok(()),
        (Kind::Counter, Value::Number(total)) if total.is_finite() && *total >= 0.0 => {
            return Ok(());
        }
        (Kind::Summary, Value::Summary { sum, quantiles, .. })
            if !sum.is_nan()
                && quantiles.iter().all(|(q, _)| (0.0..=1.0).contains(q))
                && quantiles.is_sorted_by(|a, b| a.0 < b.0) =>
        {
            return Ok(());
        }
        (
            Kind::Histogram,
            Value::Histogram {
                sum,
                count,
                buckets,
            },
        ) if !sum.is_nan() && cumulative(buckets, *count) => {
            return Ok(());
        }
        (Kind::Gauge, _) => "a number",
        (Kind::Counter, _) => "a finite number >= 0",
        (Kind::Summary, _) => "a sum and quantiles from 0 to 1, each once",
        (Kind::Histogram, _) => {
            "a sum and finite bounds, each once, whose counts never fall nor exceed the total"
        }
    };
    Err(FamilyError::Value(kind, accepted))
}

fn cumulative(buckets: &[(f64, u64)], count: u64) -> bool {
    buckets.iter().all(|(bound, _)| bound.is_finite())
        && buckets.is_sorted_by(|a, b| a.0 < b.0 && a.1 <= b.1)
        && buckets.last().is_none_or(|(_, last)| *last <= count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_ends_with_its_unit_once() {
        for given in ["wait", "wait_seconds"] {
            let family = Family::new(Kind::Gauge, given, "", "seconds").unwrap();
            assert_eq!(family.name(), "wait_seconds");
        }
        let family = Family::new(Kind::Gauge, "seconds", "", "seconds").unwrap();
        assert_eq!(family.name(), "seconds_seconds");
    }

    #[test]
    fn total_is_implied_for_a_counter_only() {
        let counter = Family::new(Kind::Counter, "sent_bytes_total", "", "bytes").unwrap();
        let gauge = Family::new(Kind::Gauge, "swap_total", "", "").unwrap();

        assert_eq!(counter.name(), "sent_bytes");
        assert_eq!(gauge.name(), "swap_total");
    }

    #[test]
    fn names_units_and_labels_outside_the_format_are_refused() {
        for bad in ["", "1a", "a b", "é", "a\n"] {
            assert!(Family::new(Kind::Gauge, bad, "", "").is_err(), "{bad:?}");
        }
        assert!(Family::new(Kind::Gauge, "a", "", "Bytes").is_err());
        for bad in ["", "1a", "a:b", "__name__"] {
            let family = Family::new(Kind::Gauge, "a", "", "").unwrap();
            assert!(family.with(&[(bad, "x")], 1.0).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_counter_is_finite_and_not_negative() {
        for bad in [f64::NAN, f64::INFINITY, -1.0] {
            let counter = Family::new(Kind::Counter, "a", "", "").unwrap();
            assert!(counter.with(&[], bad).is_err());
        }
    }

    #[test]
    fn the_labels_of_the_format_are_refused() {
        let mut family = Family::new(Kind::Histogram, "a", "", "").unwrap();
        let value = Value::Histogram {
            sum: 0.0,
            count: 0,
            buckets: vec![],
        };

        assert_eq!(
            family.push(&[("le", "1")], value),
            Err(FamilyError::Label("le".to_owned()))
        );
    }

    #[test]
    fn a_histogram_never_falls_and_a_quantile_is_a_share() {
        let histogram = |buckets: &[(f64, u64)]| {
            check(
                Kind::Histogram,
                &Value::Histogram {
                    sum: 1.0,
                    count: 5,
                    buckets: buckets.to_vec(),
                },
            )
        };
        assert!(histogram(&[(0.1, 1), (1.0, 5)]).is_ok());
        for bad in [
            &[(0.1, 2), (1.0, 1)][..],
            &[(1.0, 1), (1.0, 1)],
            &[(1.0, 6)],
            &[(f64::INFINITY, 5)],
        ] {
            assert!(histogram(bad).is_err(), "{bad:?}");
        }
        for bad in [
            &[(1.5, 0.0)][..],
            &[(f64::NAN, 0.0)],
            &[(0.5, 0.0), (0.5, 0.0)],
        ] {
            let value = Value::Summary {
                count: 1,
                sum: 1.0,
                quantiles: bad.to_vec(),
            };
            assert!(check(Kind::Summary, &value).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_same_labels_in_another_order_are_the_same_series() {
        let mut family = Family::new(Kind::Gauge, "a", "", "").unwrap();
        family
            .push(&[("x", "1"), ("y", "2")], Value::Number(1.0))
            .unwrap();

        let again = family.push(&[("y", "2"), ("x", "1")], Value::Number(2.0));

        assert!(matches!(again, Err(FamilyError::Duplicate(_))));
    }
}
