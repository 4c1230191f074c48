//! The newest figures as metric families, for `/metrics` served without Python.
//!
//! `cpu.usage_percent` becomes `mtaio_cpu_usage_percent`; what only grows is a
//! counter. A user's gauges are one family, told apart by the label `name`.

use super::service::Latest;
use super::snapshot::{Snapshot, Value as Figure};
use crate::probe::{Family, Kind, MetricsSource, Value};

/// Units that a name may end with; a rate has none of `OpenMetrics`' own.
const UNITS: [&str; 3] = ["bytes", "seconds", "percent"];

impl MetricsSource for Latest {
    fn collect(&self, now_ns: u64, out: &mut Vec<Family>) {
        // What is old is not how things are: better no figure than that one.
        let Some(snapshot) = self.get().filter(|newest| !self.is_stale(newest, now_ns)) else {
            return;
        };
        out.extend(figures(&snapshot));
        let gauges = self.gauges();
        if gauges.is_empty() {
            return;
        }
        let mut family = family(Kind::Gauge, "gauge", "A gauge of the application.");
        for (name, value) in gauges.iter() {
            // Names are the keys of a dict in Python: no two are the same.
            let _ = family.push(&[("name", name)], Value::Number(*value));
        }
        out.push(family);
    }
}

fn figures(snapshot: &Snapshot) -> Vec<Family> {
    let uptime = ("", "uptime_seconds", Figure::Float(Some(snapshot.uptime)));
    std::iter::once(uptime)
        .chain(snapshot.figures())
        .filter_map(|(section, name, figure)| {
            let (kind, number) = number(figure)?;
            let dotted = format!("{section}.{name}");
            let dotted = dotted.trim_start_matches('.');
            let help = format!("The figure {dotted} of mtaio.monitoring.");
            let mut family = family(kind, &dotted.replace('.', "_"), &help);
            family.push(&[], Value::Number(number)).ok()?;
            Some(family)
        })
        .collect()
}

fn number(figure: Figure) -> Option<(Kind, f64)> {
    Some(match figure {
        Figure::Float(value) => (Kind::Gauge, value?),
        Figure::Whole(value) => (Kind::Gauge, value? as f64),
        Figure::Total(value) => (Kind::Counter, value? as f64),
        Figure::Seconds(value) => (Kind::Counter, value?),
    })
}

fn family(kind: Kind, name: &str, help: &str) -> Family {
    let unit = name.rsplit('_').next().unwrap_or_default();
    let rate = name.ends_with("_per_second");
    let unit = UNITS.iter().find(|known| **known == unit && !rate);
    let name = format!("mtaio_{name}");
    Family::new(kind, &name, help, unit.unwrap_or(&"")).expect("our own names are valid")
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::super::{Moment, Service, Settings};
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn only_a_sample_of_late_is_served() {
        let settings = Settings {
            interval_ns: 10 * SECOND,
            history_size: 1,
            root: None,
            disk_path: "/".into(),
        };
        let service = Service::new(&settings, 0);
        let served = |now_ns| {
            let mut families = Vec::new();
            service.latest().collect(now_ns, &mut families);
            families.len()
        };

        assert_eq!(served(SECOND), 0);
        service.fresh(Moment {
            at_ns: SECOND,
            timestamp: 0.0,
        });
        let whole = served(31 * SECOND);
        assert!(whole > 10);
        assert_eq!(served(31 * SECOND + 1), 0);
        service.latest().set_gauges(vec![("depth".to_owned(), 1.0)]);
        assert_eq!(served(SECOND), whole + 1);
    }
}
