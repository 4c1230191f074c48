//! The options of a log, from Python's dict to the core's `Config`.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use pyo3::conversion::FromPyObjectOwned;
use pyo3::exceptions::{PyKeyError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::log::{
    Compression, Config, Mode, Observer, Policy, Schedule, When, default_ring_folder,
};

/// The options of `LogHandler._open`, as Python's constructor checked them.
#[allow(clippy::struct_excessive_bools)] // they are the user's, one by one
pub(super) struct Options {
    pub(super) path: PathBuf,
    mode: String,
    delay: bool,
    max_bytes: u64,
    backup_count: usize,
    when: Option<String>,
    interval: u32,
    at_seconds: u32,
    utc: bool,
    max_age: Option<f64>,
    max_total_bytes: Option<u64>,
    compress: Option<String>,
    ring_bytes: usize,
    durable: bool,
    fsync: bool,
    gather: f64,
    pub(super) wait: f64,
    pub(super) block_on_loop: bool,
    pub(super) escape: bool,
}

impl Options {
    // Not by `derive(FromPyObject)`, which interns its names on first use.
    pub(super) fn of(given: &Bound<'_, PyDict>) -> PyResult<Self> {
        Ok(Self {
            path: item(given, "path")?,
            mode: item(given, "mode")?,
            delay: item(given, "delay")?,
            max_bytes: item(given, "max_bytes")?,
            backup_count: item(given, "backup_count")?,
            when: item(given, "when")?,
            interval: item(given, "interval")?,
            at_seconds: item(given, "at_seconds")?,
            utc: item(given, "utc")?,
            max_age: item(given, "max_age")?,
            max_total_bytes: item(given, "max_total_bytes")?,
            compress: item(given, "compress")?,
            ring_bytes: item(given, "ring_bytes")?,
            durable: item(given, "durable")?,
            fsync: item(given, "fsync")?,
            gather: item(given, "gather")?,
            wait: item(given, "wait")?,
            block_on_loop: item(given, "block_on_loop")?,
            escape: item(given, "escape")?,
        })
    }

    fn policy(&self) -> PyResult<Policy> {
        Ok(Policy {
            max_bytes: self.max_bytes,
            backup_count: self.backup_count,
            schedule: self.schedule()?,
            max_age: self.max_age.map(duration),
            max_total_bytes: self.max_total_bytes,
            compression: match self.compress.as_deref() {
                None => None,
                Some("gzip") => Some(Compression::Gzip),
                Some("zstd") => Some(Compression::Zstd),
                Some(other) => return Err(unknown("compress", "'gzip', 'zstd' or None", other)),
            },
        })
    }

    fn schedule(&self) -> PyResult<Option<Schedule>> {
        const ACCEPTED: &str = "'S', 'M', 'H', 'D', 'midnight', 'W0' (Monday) to 'W6' or None";
        let Some(when) = self.when.as_deref() else {
            return Ok(None);
        };
        let when = match when.to_ascii_uppercase().as_str() {
            "S" => When::Seconds,
            "M" => When::Minutes,
            "H" => When::Hours,
            "D" => When::Days,
            "MIDNIGHT" => When::Midnight,
            day => match day.strip_prefix('W').map(str::parse::<u8>) {
                Some(Ok(weekday @ 0..=6)) => When::Weekday(weekday),
                _ => return Err(unknown("when", ACCEPTED, when)),
            },
        };
        Ok(Some(Schedule {
            when,
            interval: self.interval,
            at: self.at_seconds,
            utc: self.utc,
        }))
    }

    fn mode(&self) -> PyResult<Mode> {
        match self.mode.as_str() {
            "a" => Ok(Mode::Append),
            "w" => Ok(Mode::Truncate),
            "x" => Ok(Mode::Create),
            other => Err(unknown("mode", "'a', 'w' or 'x'", other)),
        }
    }

    pub(super) fn config(&self, observer: Observer) -> PyResult<Config> {
        Ok(Config {
            path: self.path.clone(),
            mode: self.mode()?,
            delay: self.delay,
            policy: self.policy()?,
            ring_bytes: self.ring_bytes,
            rings: if self.durable {
                default_ring_folder()
            } else {
                None
            },
            fsync: self.fsync,
            gather: duration(self.gather),
            wall: SystemTime::now,
            observer,
        })
    }
}

fn item<'py, T: FromPyObjectOwned<'py>>(given: &Bound<'py, PyDict>, name: &str) -> PyResult<T> {
    let value = given
        .get_item(name)?
        .ok_or_else(|| PyKeyError::new_err(name.to_owned()))?;
    value.extract().map_err(Into::into)
}

/// Seconds as a time that can be added to any clock: a century is for ever.
pub(super) fn duration(seconds: f64) -> Duration {
    const CENTURY: Duration = Duration::from_hours(100 * 365 * 24);
    Duration::try_from_secs_f64(seconds).map_or(CENTURY, |given| given.min(CENTURY))
}

fn unknown(name: &str, accepted: &str, given: &str) -> PyErr {
    PyValueError::new_err(format!("{name} must be {accepted}, got {given:?}"))
}
