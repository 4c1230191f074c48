//! Families as `OpenMetrics` 1.0 or as Prometheus text 0.0.4.
//!
//! The `prometheus-client` crate writes the samples. What it lacks is here: the
//! older text format (other names in the descriptors), escaping of help texts,
//! and summaries.

use std::fmt::{self, Write};
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::family::{Family, Kind, Value};

/// The text formats a scraper can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `OpenMetrics` 1.0.0: units, and an end that shows a page is whole.
    OpenMetrics,
    /// Prometheus text 0.0.4, which every scraper reads.
    Prometheus,
}

impl Format {
    /// The better one of those that `accept` (the header, may be empty) allows.
    #[must_use]
    pub fn negotiate(accept: &str) -> Self {
        let wanted = |part: &str| {
            let mut fields = part.split(';').map(str::trim);
            let media = fields.next().unwrap_or_default();
            let refused = fields.any(|f| f.strip_prefix("q=").is_some_and(is_zero));
            media.eq_ignore_ascii_case("application/openmetrics-text") && !refused
        };
        if accept.split(',').any(wanted) {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// For the `Content-Type` header.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

fn is_zero(quality: &str) -> bool {
    quality.parse::<f32>().is_ok_and(|q| q <= 0.0)
}

/// The whole page.
#[must_use]
pub fn encode(families: Vec<Arc<Family>>, format: Format) -> String {
    let mut page = String::new();
    for family in families.into_iter().filter(|f| !f.series().is_empty()) {
        let written = if family.kind() == Kind::Summary {
            summary(&mut page, &family, format)
        } else {
            let mut registry = Registry::default();
            registry.register_collector(Box::new(Encoded { family, format }));
            text::encode_registry(&mut page, &registry)
        };
        written.expect("writing to a String cannot fail");
    }
    if format == Format::OpenMetrics {
        page.push_str("# EOF\n");
    }
    page
}

/// One family as the crate wants it.
#[derive(Debug)]
struct Encoded {
    family: Arc<Family>,
    format: Format,
}

impl Collector for Encoded {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self { family, format } = self;
        let help = escaped(family.help(), *format == Format::OpenMetrics);
        // The older format names a counter by its sample and knows no units.
        let (name, unit) = match format {
            Format::Prometheus => (sample_name(family), None),
            Format::OpenMetrics if family.unit().is_empty() => (family.name().to_owned(), None),
            Format::OpenMetrics => {
                let end = family.name().len() - family.unit().len() - 1;
                let unit = Unit::Other(family.unit().to_owned());
                (family.name()[..end].to_owned(), Some(unit))
            }
        };
        let mut metric =
            encoder.encode_descriptor(&name, &help, unit.as_ref(), crate_type(family.kind()))?;
        for (labels, value) in family.series() {
            if labels.is_empty() {
                sample(&mut metric, value, family.kind(), *format)?;
            } else {
                let mut labelled = metric.encode_family(labels)?;
                sample(&mut labelled, value, family.kind(), *format)?;
            }
        }
        Ok(())
    }
}

fn sample_name(family: &Family) -> String {
    match family.kind() {
        Kind::Counter => format!("{}_total", family.name()),
        _ => family.name().to_owned(),
    }
}

fn crate_type(kind: Kind) -> MetricType {
    match kind {
        Kind::Gauge => MetricType::Gauge,
        Kind::Counter => MetricType::Counter,
        Kind::Histogram => MetricType::Histogram,
        // Never encoded through the crate, which has no such type.
        Kind::Summary => MetricType::Unknown,
    }
}

fn sample(
    metric: &mut MetricEncoder<'_>,
    value: &Value,
    kind: Kind,
    format: Format,
) -> fmt::Result {
    match (value, kind) {
        (Value::Number(total), Kind::Counter) if format == Format::OpenMetrics => {
            metric.encode_counter::<NoLabelSet, f64, f64>(total, None)
        }
        // The descriptor already ends with `_total`.
        (Value::Number(value), _) => metric.encode_gauge(value),
        (
            Value::Histogram {
                sum,
                count,
                buckets,
            },
            _,
        ) => metric.encode_histogram::<NoLabelSet>(*sum, *count, &apart(buckets, *count), None),
        (Value::Summary { .. }, _) => Ok(()),
    }
}

/// Cumulative buckets as the crate takes them: each by itself, up to infinity.
fn apart(buckets: &[(f64, u64)], count: u64) -> Vec<(f64, u64)> {
    let mut below = 0;
    let infinite = (f64::INFINITY, count);
    buckets
        .iter()
        .chain([&infinite])
        .map(|(bound, upto)| {
            let own = upto - below;
            below = *upto;
            (*bound, own)
        })
        .collect()
}

fn summary(page: &mut String, family: &Family, format: Format) -> fmt::Result {
    let name = family.name();
    let help = escaped(family.help(), format == Format::OpenMetrics);
    writeln!(page, "# HELP {name} {help}\n# TYPE {name} summary")?;
    if format == Format::OpenMetrics && !family.unit().is_empty() {
        writeln!(page, "# UNIT {name} {}", family.unit())?;
    }
    for (labels, value) in family.series() {
        let Value::Summary {
            count,
            sum,
            quantiles,
        } = value
        else {
            continue;
        };
        for (q, value) in quantiles {
            let braces = braced(labels, Some(*q));
            writeln!(page, "{name}{braces} {}", number(*value))?;
        }
        let braces = braced(labels, None);
        writeln!(page, "{name}_sum{braces} {}", number(*sum))?;
        writeln!(page, "{name}_count{braces} {count}")?;
    }
    Ok(())
}

fn braced(labels: &[(String, String)], quantile: Option<f64>) -> String {
    let own = quantile.map(|q| format!("quantile=\"{}\"", number(q)));
    let pairs: Vec<String> = labels
        .iter()
        .map(|(name, value)| format!("{name}=\"{}\"", escaped(value, true)))
        .chain(own)
        .collect();
    if pairs.is_empty() {
        return String::new();
    }
    format!("{{{}}}", pairs.join(","))
}

/// A float in the words of both formats; `1.0` and never `1`.
fn number(value: f64) -> String {
    match value {
        _ if value.is_nan() => "NaN".to_owned(),
        _ if value.is_infinite() => (if value > 0.0 { "+Inf" } else { "-Inf" }).to_owned(),
        _ => format!("{value:?}"),
    }
}

/// Backslashes and line ends escaped, quotes too where they end the text.
fn escaped(given: &str, quotes: bool) -> String {
    let mut text = String::with_capacity(given.len());
    for c in given.chars() {
        match c {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quotes => text.push_str("\\\""),
            _ => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(family: Family, format: Format) -> String {
        encode(vec![Arc::new(family)], format)
    }

    #[test]
    fn a_counter_with_a_unit_reads_as_each_format_asks() {
        let family = || {
            Family::new(Kind::Counter, "sent", "Sent \"so\" far\\.\nAll", "bytes")
                .unwrap()
                .with(&[("to", "a\"b\\c\nd")], 3.0)
                .unwrap()
        };

        assert_eq!(
            page(family(), Format::OpenMetrics),
            "# HELP sent_bytes Sent \\\"so\\\" far\\\\.\\nAll\n\
             # TYPE sent_bytes counter\n\
             # UNIT sent_bytes bytes\n\
             sent_bytes_total{to=\"a\\\"b\\\\c\\nd\"} 3.0\n\
             # EOF\n"
        );
        assert_eq!(
            page(family(), Format::Prometheus),
            "# HELP sent_bytes_total Sent \"so\" far\\\\.\\nAll\n\
             # TYPE sent_bytes_total counter\n\
             sent_bytes_total{to=\"a\\\"b\\\\c\\nd\"} 3.0\n"
        );
    }

    #[test]
    fn a_histogram_ends_with_infinity_at_its_count() {
        let mut family = Family::new(Kind::Histogram, "wait", "w", "seconds").unwrap();
        let value = Value::Histogram {
            sum: 2.5,
            count: 7,
            buckets: vec![(0.1, 1), (1.0, 4)],
        };
        family.push(&[], value).unwrap();

        assert_eq!(
            page(family, Format::Prometheus),
            "# HELP wait_seconds w\n# TYPE wait_seconds histogram\n\
             wait_seconds_sum 2.5\nwait_seconds_count 7\n\
             wait_seconds_bucket{le=\"0.1\"} 1\n\
             wait_seconds_bucket{le=\"1.0\"} 4\n\
             wait_seconds_bucket{le=\"+Inf\"} 7\n"
        );
    }

    #[test]
    fn a_summary_has_quantiles_sum_and_count() {
        let mut family = Family::new(Kind::Summary, "lag", "l", "seconds").unwrap();
        let value = Value::Summary {
            count: 3,
            sum: 0.5,
            quantiles: vec![(0.5, 0.001), (1.0, f64::NAN)],
        };
        family.push(&[("loop", "main")], value).unwrap();

        assert_eq!(
            page(family, Format::OpenMetrics),
            "# HELP lag_seconds l\n# TYPE lag_seconds summary\n# UNIT lag_seconds seconds\n\
             lag_seconds{loop=\"main\",quantile=\"0.5\"} 0.001\n\
             lag_seconds{loop=\"main\",quantile=\"1.0\"} NaN\n\
             lag_seconds_sum{loop=\"main\"} 0.5\n\
             lag_seconds_count{loop=\"main\"} 3\n# EOF\n"
        );
    }

    #[test]
    fn a_family_without_series_is_left_out() {
        let family = Family::new(Kind::Gauge, "a", "", "").unwrap();

        assert_eq!(page(family, Format::OpenMetrics), "# EOF\n");
    }

    #[test]
    fn openmetrics_is_for_those_who_ask() {
        let cases = [
            ("", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("text/plain;version=0.0.4;q=0.3", Format::Prometheus),
            (
                "application/openmetrics-text; version=1.0.0",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.3",
                Format::OpenMetrics,
            ),
            ("application/openmetrics-text;q=0", Format::Prometheus),
            (
                "application/openmetrics-text;q=0.0, text/plain",
                Format::Prometheus,
            ),
        ];
        for (accept, format) in cases {
            assert_eq!(Format::negotiate(accept), format, "{accept}");
        }
    }
}
