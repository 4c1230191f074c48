//! JSON text: one object is one line, and safe on a terminal.

/// Appends `text` as a JSON string. Control characters, also those beyond
/// ASCII that move a terminal's cursor or part a line, are escaped.
pub fn put_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let bytes = text.as_bytes();
    let mut clean = 0;
    let mut at = 0;
    while at < bytes.len() {
        let (escape, len) = escape_at(&bytes[at..]);
        if let Some(code) = escape {
            out.extend_from_slice(&bytes[clean..at]);
            put_escape(out, code);
            clean = at + len;
        }
        at += len;
    }
    out.extend_from_slice(&bytes[clean..]);
    out.push(b'"');
}

/// The character that `bytes` begins with, if it must be escaped; its length.
fn escape_at(bytes: &[u8]) -> (Option<u16>, usize) {
    match *bytes {
        [first @ (b'"' | b'\\' | 0..0x20 | 0x7F), ..] => (Some(u16::from(first)), 1),
        [0xC2, second @ 0x80..0xA0, ..] => (Some(u16::from(second)), 2),
        [0xE2, 0x80, third @ (0xA8 | 0xA9), ..] => (Some(0x1F80 + u16::from(third)), 3),
        _ => (None, 1),
    }
}

fn put_escape(out: &mut Vec<u8>, code: u16) {
    match code {
        0x22 => out.extend_from_slice(b"\\\""),
        0x5C => out.extend_from_slice(b"\\\\"),
        0x0A => out.extend_from_slice(b"\\n"),
        0x0D => out.extend_from_slice(b"\\r"),
        0x09 => out.extend_from_slice(b"\\t"),
        code => out.extend_from_slice(format!("\\u{code:04x}").as_bytes()),
    }
}

/// The same from UTF-16, in which lone surrogates can be said.
pub fn put_utf16(out: &mut Vec<u8>, units: impl IntoIterator<Item = u16>) {
    out.push(b'"');
    for decoded in char::decode_utf16(units) {
        match decoded {
            Ok(character) => {
                let mut quoted = Vec::new();
                put_string(&mut quoted, character.encode_utf8(&mut [0; 4]));
                out.extend_from_slice(&quoted[1..quoted.len() - 1]);
            }
            Err(lone) => put_escape(out, lone.unpaired_surrogate()),
        }
    }
    out.push(b'"');
}

/// Appends a finite number so that it reads back the same; others have no
/// place in JSON and become text.
pub fn put_float(out: &mut Vec<u8>, value: f64) {
    if !value.is_finite() {
        return put_string(
            out,
            if value.is_nan() {
                "NaN"
            } else if value > 0.0 {
                "Infinity"
            } else {
                "-Infinity"
            },
        );
    }
    // `{:?}` keeps the point that tells a float from a whole number.
    out.extend_from_slice(format!("{value:?}").as_bytes());
}

#[cfg(test)]
mod tests {
    use super::{put_float, put_string, put_utf16};

    fn string(text: &str) -> String {
        let mut out = Vec::new();
        put_string(&mut out, text);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_could_part_a_line_or_move_a_cursor_is_escaped() {
        assert_eq!(
            string("a\"b\\c\n\r\t\u{1b}\u{7f}\u{9b}\u{2028}\u{2029}é日"),
            r#""a\"b\\c\n\r\t\u001b\u007f\u009b\u2028\u2029é日""#
        );
    }

    #[test]
    fn lone_surrogates_are_said_as_such() {
        let mut out = Vec::new();
        put_utf16(&mut out, [0x61, 0xD800, 0x22, 0xD83D, 0xDE00]);

        assert_eq!(out, "\"a\\ud800\\\"😀\"".as_bytes());
    }

    #[test]
    fn floats_read_back_the_same() {
        let text = |value| {
            let mut out = Vec::new();
            put_float(&mut out, value);
            String::from_utf8(out).unwrap()
        };

        assert_eq!(text(1.0), "1.0");
        assert_eq!(text(0.1), "0.1");
        assert_eq!(text(f64::NAN), "\"NaN\"");
        assert_eq!(text(1e300).parse::<f64>(), Ok(1e300));
    }
}
