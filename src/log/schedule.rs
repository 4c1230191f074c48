//! When a period of a log rotated by time ends, and what its backup is called.
//!
//! Calendar boundaries (`Midnight`, `Weekday`) follow the local calendar by the
//! C library's rules, so a day of 23 or 25 hours is one day.

#![allow(clippy::cast_possible_wrap)] // seconds and days are far below 2^63

/// The length of a period, as in the standard library's `when`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// `interval` seconds from the file's beginning.
    Seconds,
    /// Minutes.
    Minutes,
    /// Hours.
    Hours,
    /// Days of 24 hours.
    Days,
    /// At `at` seconds past local midnight, every `interval` days.
    Midnight,
    /// The same, on one weekday; Monday is 0.
    Weekday(u8),
}

/// A file's period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// What is counted.
    pub when: When,
    /// How many of it; at least 1.
    pub interval: u32,
    /// Seconds after midnight for `Midnight` and `Weekday`.
    pub at: u32,
    /// The calendar of UTC instead of the local one.
    pub utc: bool,
}

/// A moment in a calendar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Date {
    year: i64,
    month: u32,
    day: u32,
    hour: u32,
    minute: u32,
    second: u32,
    /// Monday is 0.
    weekday: u32,
}

const DAY: u64 = 86_400;

impl Schedule {
    /// The end of the period that holds `began`, in seconds since the epoch.
    #[must_use]
    pub fn next(&self, began: u64) -> u64 {
        let n = u64::from(self.interval.max(1));
        match self.when {
            When::Seconds => began + n,
            When::Minutes => began + n * 60,
            When::Hours => began + n * 3600,
            When::Days => began + n * DAY,
            When::Midnight => self.boundary(began, n - 1),
            When::Weekday(weekday) => self.weekly(began, u32::from(weekday), n - 1),
        }
    }

    /// The first daily boundary after `began`, and `further` days on.
    fn boundary(&self, began: u64, further: u64) -> u64 {
        let date = self.date(began);
        let today = self.moment(date, 0);
        let days = u64::from(today <= began) + further;
        self.moment(date, days as u32)
    }

    fn weekly(&self, began: u64, weekday: u32, further: u64) -> u64 {
        let date = self.date(began);
        let mut days = (weekday + 7 - date.weekday) % 7;
        if self.moment(date, days) <= began {
            days += 7;
        }
        self.moment(date, days + 7 * further as u32)
    }

    /// `at` past the midnight `days` after the day of `date`.
    fn moment(&self, date: Date, days: u32) -> u64 {
        if self.utc {
            let midnight = days_from_epoch(date.year, date.month, date.day) as u64 * DAY;
            return midnight + u64::from(days) * DAY + u64::from(self.at);
        }
        local::seconds(date, days, self.at)
    }

    fn date(&self, seconds: u64) -> Date {
        if self.utc {
            utc(seconds)
        } else {
            local::date(seconds)
        }
    }

    /// The suffix of a backup whose period holds `began`, as the standard
    /// library writes it.
    #[must_use]
    pub fn stamp(&self, began: u64) -> String {
        let d = self.date(began);
        let day = format!("{:04}-{:02}-{:02}", d.year, d.month, d.day);
        match self.when {
            When::Seconds => format!("{day}_{:02}-{:02}-{:02}", d.hour, d.minute, d.second),
            When::Minutes => format!("{day}_{:02}-{:02}", d.hour, d.minute),
            When::Hours => format!("{day}_{:02}", d.hour),
            When::Days | When::Midnight | When::Weekday(_) => day,
        }
    }
}

/// A moment as RFC 3339 in UTC, with microseconds.
#[must_use]
pub fn iso_utc(seconds: f64) -> String {
    // No record is from before 1970; Python's year ends at 9999.
    let micros = (seconds.clamp(0.0, 253_402_300_799.0) * 1e6).round() as u64;
    let d = utc(micros / 1_000_000);
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:06}Z",
        d.year,
        d.month,
        d.day,
        d.hour,
        d.minute,
        d.second,
        micros % 1_000_000
    )
}

/// Howard Hinnant's `days_from_civil` (chrono-Compatible Low-Level Date
/// Algorithms).
fn days_from_epoch(year: i64, month: u32, day: u32) -> i64 {
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let shifted = i64::from((month + 9) % 12);
    let day_of_year = (153 * shifted + 2) / 5 + i64::from(day) - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// `civil_from_days` of the same source.
fn utc(seconds: u64) -> Date {
    let days = (seconds / DAY) as i64;
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let rest = (seconds % DAY) as u32;
    Date {
        year: yoe + era * 400 + i64::from(month <= 2),
        month: month as u32,
        day: (doy - (153 * mp + 2) / 5 + 1) as u32,
        hour: rest / 3600,
        minute: rest / 60 % 60,
        second: rest % 60,
        weekday: (days + 3).rem_euclid(7) as u32,
    }
}

#[cfg(unix)]
mod local {
    //! The C library's calendar of this machine.
    #![allow(unsafe_code)]

    use super::Date;

    pub(super) fn date(seconds: u64) -> Date {
        let time = seconds as libc::time_t;
        // SAFETY: `tm` is plain data, and both pointers are to live values.
        let tm = unsafe {
            let mut tm: libc::tm = std::mem::zeroed();
            libc::localtime_r(&raw const time, &raw mut tm);
            tm
        };
        Date {
            year: i64::from(tm.tm_year) + 1900,
            month: tm.tm_mon as u32 + 1,
            day: tm.tm_mday as u32,
            hour: tm.tm_hour as u32,
            minute: tm.tm_min as u32,
            second: tm.tm_sec as u32,
            weekday: (tm.tm_wday as u32 + 6) % 7,
        }
    }

    /// `mktime` folds days and seconds over, and knows what the clocks did.
    pub(super) fn seconds(date: Date, days: u32, at: u32) -> u64 {
        // SAFETY: as above; `mktime` reads and normalises the value.
        let time = unsafe {
            let mut tm: libc::tm = std::mem::zeroed();
            tm.tm_year = (date.year - 1900) as i32;
            tm.tm_mon = date.month as i32 - 1;
            tm.tm_mday = (date.day + days) as i32;
            tm.tm_hour = (at / 3600) as i32;
            tm.tm_min = (at / 60 % 60) as i32;
            tm.tm_sec = (at % 60) as i32;
            tm.tm_isdst = -1;
            libc::mktime(&raw mut tm)
        };
        time as u64
    }
}

/// Elsewhere the calendar is that of UTC; the handler's documentation says so.
#[cfg(not(unix))]
mod local {
    use super::{DAY, Date, days_from_epoch, utc};

    pub(super) fn date(seconds: u64) -> Date {
        utc(seconds)
    }

    pub(super) fn seconds(date: Date, days: u32, at: u32) -> u64 {
        let midnight = days_from_epoch(date.year, date.month, date.day) as u64 * DAY;
        midnight + u64::from(days) * DAY + u64::from(at)
    }
}

#[cfg(test)]
mod tests {
    use super::{DAY, Schedule, When, days_from_epoch, utc};
    use proptest::prelude::*;

    fn every(when: When) -> Schedule {
        Schedule {
            when,
            interval: 1,
            at: 0,
            utc: true,
        }
    }

    proptest! {
        #[test]
        fn dates_and_days_are_inverse(days in 0u64..200_000) {
            let date = utc(days * DAY);

            prop_assert_eq!(days_from_epoch(date.year, date.month, date.day), days as i64);
        }

        #[test]
        fn a_period_ends_after_it_began(
            began in 0u64..4_000_000_000, interval in 1u32..40, at in 0u32..86_400, utc: bool
        ) {
            for when in [When::Seconds, When::Hours, When::Midnight, When::Weekday(3)] {
                let schedule = Schedule { when, interval, at, utc };

                prop_assert!(schedule.next(began) > began);
            }
        }
    }

    #[test]
    fn midnight_is_the_next_one() {
        assert_eq!(every(When::Midnight).next(5 * DAY), 6 * DAY);
        assert_eq!(every(When::Midnight).next(5 * DAY + 1), 6 * DAY);
        // 1970-01-01 was a Thursday.
        assert_eq!(every(When::Weekday(3)).next(0), 7 * DAY);
        assert_eq!(every(When::Weekday(4)).next(0), DAY);
    }

    #[test]
    fn a_backup_is_named_by_its_period() {
        assert_eq!(every(When::Midnight).stamp(1_700_000_000), "2023-11-14");
        assert_eq!(every(When::Hours).stamp(1_700_000_000), "2023-11-14_22");
        assert_eq!(
            every(When::Seconds).stamp(1_700_000_000),
            "2023-11-14_22-13-20"
        );
    }

    /// The zone is the process's, so the test runs itself in another.
    #[cfg(unix)]
    #[test]
    fn a_day_is_a_day_when_the_clocks_change() {
        let name = "log::schedule::tests::in_central_europe";
        let child = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", name, "--ignored"])
            .env("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
            .output()
            .unwrap();
        assert!(child.status.success(), "{child:?}");
        let output = String::from_utf8_lossy(&child.stdout).into_owned();
        assert!(output.contains("1 passed"), "{output}");
    }

    #[cfg(unix)]
    #[test]
    #[ignore = "run by the test above"]
    fn in_central_europe() {
        let utc_hour =
            |month, day, hour: u64| days_from_epoch(2026, month, day) as u64 * DAY + hour * 3600;
        let local = |when, at| Schedule {
            when,
            interval: 1,
            at,
            utc: false,
        };
        let midnight = local(When::Midnight, 0);
        let sundays = local(When::Weekday(6), 0);

        // 29 March has 23 hours, 25 October 25.
        for (began, end, stamp) in [
            (utc_hour(3, 28, 23), utc_hour(3, 29, 22), "2026-03-29"),
            (utc_hour(10, 24, 22), utc_hour(10, 25, 23), "2026-10-25"),
        ] {
            assert_eq!(midnight.next(began), end);
            assert_eq!(midnight.next(end - 1), end);
            assert_eq!(sundays.next(began - 1), began);
            assert_eq!(midnight.stamp(began), stamp);
            assert_eq!(midnight.stamp(end - 1), stamp);
        }
        // Half past two is skipped once and comes twice once; a period ends
        // after it began, and within a day and an hour, whenever that was.
        let odd = local(When::Midnight, 9_000);
        for hour in 0..365 * 24 {
            let began = utc_hour(1, 1, hour);
            let length = odd.next(began) - began;
            assert!(length > 0 && length <= DAY + 3600, "{began}: {length}");
        }
    }
}
