//! Reading the kernel's text files: whole lines, plain numbers, nothing guessed.
//!
//! Every file here ends each line with a newline. A line without one was cut
//! off, and a cut number is a wrong number, so such a line is not read at all.

/// The lines that are whole.
pub(super) fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split_inclusive(|byte| *byte == b'\n')
        .filter_map(|line| line.strip_suffix(b"\n"))
}

/// Whether a text ends as the kernel ends it; for figures that need every line.
pub(super) fn is_whole(text: &[u8]) -> bool {
    text.ends_with(b"\n")
}

/// The words of one line, however many blanks stand between them.
pub(super) fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(u8::is_ascii_whitespace)
        .filter(|word| !word.is_empty())
}

/// A number of digits alone that fits; no sign, no rounding.
pub(super) fn number(word: &[u8]) -> Option<u64> {
    if word.is_empty() {
        return None;
    }
    word.iter().try_fold(0_u64, |value, byte| {
        let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10)?;
        value.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// A decimal fraction such as `0.27`; no sign, exponent, `inf` or `nan`.
pub(super) fn decimal(word: &[u8]) -> Option<f64> {
    let plain = word
        .iter()
        .all(|byte| byte.is_ascii_digit() || *byte == b'.');
    if !plain {
        return None;
    }
    std::str::from_utf8(word).ok()?.parse().ok()
}

/// What follows `key` on the first whole line that begins with that word.
pub(super) fn after<'a>(text: &'a [u8], key: &[u8]) -> Option<&'a [u8]> {
    lines(text).find_map(|line| {
        line.strip_prefix(key)
            .filter(|rest| rest.first().is_some_and(u8::is_ascii_whitespace))
    })
}

/// The number after `key`, alone on its line.
pub(super) fn keyed(text: &[u8], key: &[u8]) -> Option<u64> {
    sole(after(text, key)?)
}

/// The only word of a line, as a number.
pub(super) fn sole(line: &[u8]) -> Option<u64> {
    let mut found = words(line);
    let value = number(found.next()?)?;
    found.next().is_none().then_some(value)
}

/// The number that is a whole one-line file, such as `memory.current`.
pub(super) fn only(text: &[u8]) -> Option<u64> {
    sole(lines(text).next()?)
}

/// Bytes from a count of kibibytes: `MemTotal:  24684092 kB`.
pub(super) fn kibibytes(text: &[u8], key: &[u8]) -> Option<u64> {
    let mut found = words(after(text, key)?);
    let value = number(found.next()?)?;
    if found.next()? != b"kB" {
        return None;
    }
    value.checked_mul(1024)
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // exact: the same digits, parsed once
mod tests {
    use super::*;

    #[test]
    fn a_line_cut_off_is_not_read() {
        assert_eq!(
            keyed(b"usage_usec 12\nnr_periods 34", b"usage_usec"),
            Some(12)
        );
        assert_eq!(keyed(b"usage_usec 12\nnr_periods 34", b"nr_periods"), None);
        assert_eq!(only(b"4096"), None);
        assert_eq!(only(b"4096\n"), Some(4096));
    }

    #[test]
    fn only_plain_numbers_are_numbers() {
        for word in [
            &b""[..],
            b"-1",
            b"+1",
            b"1.5",
            b"0x1",
            b"18446744073709551616",
            b"max",
        ] {
            assert_eq!(number(word), None);
        }
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        for word in [&b""[..], b".", b"-1", b"inf", b"NaN", b"1e3", b"1.2.3"] {
            assert_eq!(decimal(word), None);
        }
        assert_eq!(decimal(b"0.27"), Some(0.27));
    }

    #[test]
    fn a_key_is_a_whole_word() {
        let text = b"MemTotalX: 1 kB\nMemTotal: 2 kB\nMemFree: 3 MB\nSwapTotal:4 kB\n";

        assert_eq!(kibibytes(text, b"MemTotal:"), Some(2048));
        assert_eq!(kibibytes(text, b"MemFree:"), None);
        assert_eq!(kibibytes(text, b"SwapTotal:"), None);
    }
}
