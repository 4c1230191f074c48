//! The three styles of `logging.Formatter`, taken apart once.
//!
//! A style that uses more than is understood here gives `None`: it is then
//! Python's to format. What is understood comes out byte for byte the same.

/// A format string, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Written as it is.
    Text(String),
    /// An attribute of the record.
    Field(String, Spec),
}

/// How a value is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spec {
    /// What the value is taken for.
    pub kind: Kind,
    /// Least width in characters.
    pub width: usize,
    /// Filled with zeros after the sign instead of spaces.
    pub zero: bool,
    /// Filled on the right; `None` leaves it to the value's type.
    pub left: Option<bool>,
    /// Characters of text at most, or digits after the point.
    pub precision: Option<usize>,
}

/// The conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kind {
    /// `%s`, or no type in braces.
    #[default]
    Text,
    /// `%d`.
    Integer,
    /// `%f`.
    Fixed,
}

/// Widths beyond this are Python's.
const WIDEST: usize = 1 << 16;

/// `%(name)s` and its kin; `%%` is a percent sign.
#[must_use]
pub fn percent(format: &str) -> Option<Vec<Piece>> {
    let mut pieces = Pieces::default();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('%') {
        pieces.text(before);
        if let Some(after) = after.strip_prefix('%') {
            pieces.text("%");
            rest = after;
            continue;
        }
        let (name, after) = after.strip_prefix('(')?.split_once(')')?;
        let (spec, after) = percent_spec(after)?;
        pieces.field(name, spec);
        rest = after;
    }
    pieces.text(rest);
    Some(pieces.0)
}

fn percent_spec(mut text: &str) -> Option<(Spec, &str)> {
    let mut spec = Spec {
        left: Some(false),
        ..Spec::default()
    };
    while let Some(flag) = text.chars().next() {
        match flag {
            '-' => spec.left = Some(true),
            '0' => spec.zero = true,
            _ => break,
        }
        text = &text[1..];
    }
    (spec.width, text) = number(text)?;
    if let Some(after) = text.strip_prefix('.') {
        let (precision, after) = number(after)?;
        spec.precision = Some(precision);
        text = after;
    }
    spec.kind = match text.chars().next()? {
        's' => Kind::Text,
        'd' => Kind::Integer,
        'f' => Kind::Fixed,
        _ => return None,
    };
    // A minus overrules a zero; zeros never fill text; `%.3d` is Python's.
    spec.zero &= spec.left == Some(false) && spec.kind != Kind::Text;
    if spec.kind == Kind::Integer && spec.precision.is_some() {
        return None;
    }
    Some((spec, &text[1..]))
}

fn number(text: &str) -> Option<(usize, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    if end == 0 {
        return Some((0, text));
    }
    let value = text[..end].parse().ok().filter(|n| *n <= WIDEST)?;
    Some((value, &text[end..]))
}

/// `{name}` and `{name:spec}`; doubled braces are braces.
#[must_use]
pub fn brace(format: &str) -> Option<Vec<Piece>> {
    let mut pieces = Pieces::default();
    let mut rest = format;
    while let Some(at) = rest.find(['{', '}']) {
        pieces.text(&rest[..at]);
        let doubled = rest[at..].starts_with("{{") || rest[at..].starts_with("}}");
        if doubled {
            pieces.text(&rest[at..=at]);
            rest = &rest[at + 2..];
            continue;
        }
        let (field, after) = rest[at..].strip_prefix('{')?.split_once('}')?;
        let (name, spec) = field.split_once(':').unwrap_or((field, ""));
        if !is_name(name) {
            return None;
        }
        pieces.field(name, brace_spec(spec)?);
        rest = after;
    }
    pieces.text(rest);
    Some(pieces.0)
}

fn brace_spec(mut text: &str) -> Option<Spec> {
    let mut spec = Spec::default();
    match text.chars().next() {
        Some('<') => spec.left = Some(true),
        Some('>') => spec.left = Some(false),
        _ => {}
    }
    if spec.left.is_some() {
        text = &text[1..];
    }
    if let Some(after) = text.strip_prefix('0') {
        // With an alignment, zeros fill on that side: Python's.
        if spec.left.is_some() {
            return None;
        }
        spec.zero = true;
        text = after;
    }
    (spec.width, text) = number(text)?;
    if let Some(after) = text.strip_prefix('.') {
        let (precision, after) = number(after)?;
        spec.precision = Some(precision);
        text = after;
    }
    spec.kind = match text {
        "" | "s" => Kind::Text,
        "d" => Kind::Integer,
        "f" => Kind::Fixed,
        _ => return None,
    };
    // `{x:08}` zero-fills numbers and refuses or pads text by version: Python's.
    let ambiguous =
        spec.kind == Kind::Text && (spec.zero || text.is_empty() && spec.precision.is_some());
    let refused = spec.kind == Kind::Integer && spec.precision.is_some();
    (!ambiguous && !refused).then_some(spec)
}

/// `$name` and `${name}`; `$$` is a dollar sign.
#[must_use]
pub fn dollar(format: &str) -> Option<Vec<Piece>> {
    let mut pieces = Pieces::default();
    let mut rest = format;
    while let Some((before, after)) = rest.split_once('$') {
        pieces.text(before);
        if let Some(after) = after.strip_prefix('$') {
            pieces.text("$");
            rest = after;
        } else if let Some(after) = after.strip_prefix('{') {
            let (name, after) = after.split_once('}')?;
            pieces.named(name)?;
            rest = after;
        } else {
            let end = after
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(after.len());
            pieces.named(&after[..end])?;
            rest = &after[end..];
        }
    }
    pieces.text(rest);
    Some(pieces.0)
}

fn is_name(text: &str) -> bool {
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    text.starts_with(first) && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

#[derive(Default)]
struct Pieces(Vec<Piece>);

impl Pieces {
    fn text(&mut self, text: &str) {
        if text.is_empty() {
            return;
        }
        if let Some(Piece::Text(before)) = self.0.last_mut() {
            before.push_str(text);
        } else {
            self.0.push(Piece::Text(text.to_owned()));
        }
    }

    fn field(&mut self, name: &str, spec: Spec) {
        self.0.push(Piece::Field(name.to_owned(), spec));
    }

    fn named(&mut self, name: &str) -> Option<()> {
        is_name(name).then(|| self.field(name, Spec::default()))
    }
}

/// Lays out text.
pub fn put_text(out: &mut Vec<u8>, text: &str, spec: Spec) {
    if spec.width == 0 && spec.precision.is_none() {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    let limit = spec.precision.unwrap_or(usize::MAX);
    let end = text
        .char_indices()
        .nth(limit)
        .map_or(text.len(), |(at, _)| at);
    let cut = &text[..end];
    let fill = spec.width.saturating_sub(cut.chars().count());
    pad(out, cut, fill, spec.left.unwrap_or(true));
}

/// Lays out a whole number.
pub fn put_integer(out: &mut Vec<u8>, value: i64, spec: Spec) {
    // The common case writes digits without a detour over padding.
    let mut digits = [0; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    put_digits(out, value < 0, &digits[at..], spec);
}

/// Lays out a number with a fixed count of decimals, six unless told.
pub fn put_fixed(out: &mut Vec<u8>, value: f64, spec: Spec) {
    let digits = format!("{:.*}", spec.precision.unwrap_or(6), value.abs());
    put_digits(out, value.is_sign_negative(), digits.as_bytes(), spec);
}

fn put_digits(out: &mut Vec<u8>, negative: bool, digits: &[u8], spec: Spec) {
    let fill = spec
        .width
        .saturating_sub(digits.len() + usize::from(negative));
    let left = spec.left.unwrap_or(false);
    if !left && !spec.zero {
        out.resize(out.len() + fill, b' ');
    }
    if negative {
        out.push(b'-');
    }
    if !left && spec.zero {
        out.resize(out.len() + fill, b'0');
    }
    out.extend_from_slice(digits);
    if left {
        out.resize(out.len() + fill, b' ');
    }
}

fn pad(out: &mut Vec<u8>, text: &str, fill: usize, left: bool) {
    if !left {
        out.resize(out.len() + fill, b' ');
    }
    out.extend_from_slice(text.as_bytes());
    if left {
        out.resize(out.len() + fill, b' ');
    }
}

/// Makes one line of `text`: control characters become `\n`, `\x1b`, `\u2028`.
///
/// A backslash stays what it is: the result is for people, not for parsers.
/// Bytes that are not UTF-8 (another encoding was asked for) pass unless they
/// are ASCII controls.
pub fn escape_controls(text: &[u8], out: &mut Vec<u8>) {
    let mut clean = 0;
    let mut at = 0;
    while at < text.len() {
        let (code, len) = control_at(&text[at..]);
        if let Some(code) = code {
            out.extend_from_slice(&text[clean..at]);
            put_escape(out, code);
            clean = at + len;
        }
        at += len;
    }
    out.extend_from_slice(&text[clean..]);
}

/// The control character that `bytes` begins with, if any, and its length.
fn control_at(bytes: &[u8]) -> (Option<u32>, usize) {
    match *bytes {
        [b'\t', ..] => (None, 1),
        [first @ (0..0x20 | 0x7F), ..] => (Some(u32::from(first)), 1),
        [0xC2, second @ 0x80..0xA0, ..] => (Some(u32::from(second)), 2),
        [0xE2, 0x80, third @ (0xA8 | 0xA9), ..] => (Some(0x2000 + u32::from(third) - 0x80), 3),
        _ => (None, 1),
    }
}

fn put_escape(out: &mut Vec<u8>, code: u32) {
    let text = match code {
        0x0A => "\\n".to_owned(),
        0x0D => "\\r".to_owned(),
        code if code <= 0xFF => format!("\\x{code:02x}"),
        code => format!("\\u{code:04x}"),
    };
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::{
        Kind, Piece, Spec, brace, dollar, escape_controls, percent, put_integer, put_text,
    };

    fn field(name: &str, spec: Spec) -> Piece {
        Piece::Field(name.to_owned(), spec)
    }

    #[test]
    fn the_styles_name_the_same_fields() {
        let text = |text: &str| Piece::Text(text.to_owned());
        let right = Spec {
            left: Some(false),
            ..Spec::default()
        };

        assert_eq!(
            percent("a%%b %(name)s"),
            Some(vec![text("a%b "), field("name", right)])
        );
        assert_eq!(
            brace("a{{b {name}"),
            Some(vec![text("a{b "), field("name", Spec::default())])
        );
        assert_eq!(dollar("a$$b ${name}"), dollar("a$$b $name"));
    }

    #[test]
    fn what_is_not_understood_is_left_to_python() {
        for format in ["%(x)r", "%x", "%(x", "%(x)", "%(x)+d", "%(x)99999999s"] {
            assert_eq!(percent(format), None, "{format}");
        }
        for format in [
            "{x!r}", "{x.y}", "{0}", "{", "}", "{x:^8}", "{x:{y}}", "{x:08}",
        ] {
            assert_eq!(brace(format), None, "{format}");
        }
        assert_eq!(dollar("$1"), None);
    }

    #[test]
    fn values_are_padded_as_asked() {
        let mut out = Vec::new();
        let left = Spec {
            width: 5,
            left: Some(true),
            ..Spec::default()
        };
        put_text(&mut out, "aé", left);
        let zero = Spec {
            width: 5,
            zero: true,
            kind: Kind::Integer,
            ..Spec::default()
        };
        put_integer(&mut out, -42, zero);
        put_integer(&mut out, i64::MIN, Spec::default());

        assert_eq!(out, "aé   -0042-9223372036854775808".as_bytes());
    }

    #[test]
    fn controls_are_escaped_and_nothing_else() {
        let mut out = Vec::new();

        escape_controls("a\n\u{1b}[0m\té\u{85}\u{2028}\u{7f}".as_bytes(), &mut out);

        assert_eq!(out, "a\\n\\x1b[0m\té\\x85\\u2028\\x7f".as_bytes());
    }
}
