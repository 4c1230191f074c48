//! The one web page beside us that may read the answers.

use hyper::Uri;
use hyper::header::HeaderValue;

/// An origin, spelled as browsers do: `http://127.0.0.1:8000`.
///
/// Browsers compare it letter by letter with that of the page that asks (the
/// Fetch standard's CORS check), so what they would never send is refused.
#[derive(Clone, Debug)]
pub struct Origin(HeaderValue);

impl Origin {
    /// `None` unless it is a scheme, a host and at most a port: no path, no
    /// default port, no capitals, no `*` and no `null`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let uri: Uri = text.parse().ok()?;
        let (scheme, authority) = (uri.scheme_str()?, uri.authority()?);
        let default_port = match scheme {
            "http" => 80,
            "https" => 443,
            _ => return None,
        };
        let host = authority.host();
        let spelled = match authority.port_u16() {
            Some(port) if port == default_port => return None,
            Some(port) => format!("{scheme}://{host}:{port}"),
            None => format!("{scheme}://{host}"),
        };
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.:[]".contains(c);
        if host.is_empty() || !host.chars().all(plain) || spelled != text {
            return None;
        }
        HeaderValue::from_str(text).ok().map(Self)
    }

    /// For `Access-Control-Allow-Origin`.
    pub(super) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_browser_sends_is_an_origin() {
        let good = [
            "http://127.0.0.1:8000",
            "https://ops.example.org",
            "http://[::1]:8000",
        ];
        let bad = [
            "",
            "*",
            "null",
            "127.0.0.1:8000",
            "http://127.0.0.1:8000/",
            "http://Example.org",
            "HTTP://example.org",
            "http://example.org:80",
            "https://example.org:443",
            "http://example.org:08000",
            "http://*.example.org",
            "http://user@example.org",
            "http://example.org?x",
            "ftp://example.org",
            "http://",
            "http://a b",
            "http://a\r\nx: y",
        ];

        assert!(good.iter().all(|text| Origin::parse(text).is_some()));
        for text in bad {
            assert!(Origin::parse(text).is_none(), "{text:?}");
        }
    }
}
