//! From a request to its answer; the same for the thread, ASGI and tests.

use super::board::{Board, Snapshot, Verdict};
use super::text::{Format, encode};

/// The media type of draft-inadarei-api-health-check.
const HEALTH_JSON: &str = "application/health+json";
/// The one path whose answer may take long: it asks the sources.
pub(super) const METRICS: &str = "/metrics";
const PLAIN: &str = "text/plain; charset=utf-8";

/// What of a request matters here.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// In capitals, as it came.
    pub method: &'a str,
    /// Without the query.
    pub path: &'a str,
    /// The `Accept` header; may be empty.
    pub accept: &'a str,
}

/// What goes back. A server adds length and date, and leaves the body of a
/// `HEAD` out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// For the `Content-Type` header.
    pub content_type: &'static str,
    /// The body of a `GET`.
    pub body: Vec<u8>,
}

impl Answer {
    /// The methods to name in `Allow`, if this is a 405.
    #[must_use]
    pub fn allow(&self) -> Option<&'static str> {
        (self.status == 405).then_some("GET, HEAD")
    }

    pub(super) fn plain(status: u16, text: &str) -> Self {
        Self {
            status,
            content_type: PLAIN,
            body: text.as_bytes().to_vec(),
        }
    }

    fn verdict(verdict: &Verdict) -> Self {
        let (status, document) = match verdict {
            Verdict::Pass => (200, "{\"status\":\"pass\"}".to_owned()),
            Verdict::Fail(reasons) if reasons.is_empty() => {
                (503, "{\"status\":\"fail\"}".to_owned())
            }
            Verdict::Fail(reasons) => {
                let notes: Vec<String> = reasons.iter().map(|r| quoted(r)).collect();
                let notes = notes.join(",");
                (503, format!("{{\"status\":\"fail\",\"notes\":[{notes}]}}"))
            }
        };
        Self {
            status,
            content_type: HEALTH_JSON,
            body: document.into_bytes(),
        }
    }

    fn health(snapshot: &Snapshot, now_ns: u64) -> Self {
        let Some(health) = &snapshot.health else {
            return Self::verdict(&overall(snapshot, now_ns));
        };
        Self {
            status: if health.passes { 200 } else { 503 },
            content_type: HEALTH_JSON,
            body: health.document.clone().into_bytes(),
        }
    }
}

impl Board {
    /// Answers one request from what is published at this moment. Never waits.
    #[must_use]
    pub fn answer(&self, request: Request<'_>) -> Answer {
        let now_ns = self.now_ns();
        let snapshot = self.snapshot();
        let answer = match request.path {
            "/livez" => Answer::verdict(&snapshot.liveness(now_ns)),
            "/readyz" => Answer::verdict(&snapshot.ready),
            "/startupz" => Answer::verdict(&snapshot.startup),
            "/healthz" => Answer::health(&snapshot, now_ns),
            METRICS => {
                let format = Format::negotiate(request.accept);
                Answer {
                    status: 200,
                    content_type: format.content_type(),
                    body: encode(snapshot.families(now_ns), format).into_bytes(),
                }
            }
            _ => return Answer::plain(404, "not found\n"),
        };
        if matches!(request.method, "GET" | "HEAD") {
            return answer;
        }
        Answer::plain(405, "only GET and HEAD\n")
    }
}

/// All three verdicts as one, for `/healthz` before a document is published.
fn overall(snapshot: &Snapshot, now_ns: u64) -> Verdict {
    let verdicts = [
        ("live", snapshot.liveness(now_ns)),
        ("startup", snapshot.startup.clone()),
        ("ready", snapshot.ready.clone()),
    ];
    let mut notes = Vec::new();
    for (name, verdict) in verdicts {
        if let Verdict::Fail(reasons) = verdict {
            notes.push(format!("{name}: {}", reasons.join(", ")));
        }
    }
    if notes.is_empty() {
        Verdict::Pass
    } else {
        Verdict::Fail(notes)
    }
}

/// A JSON string literal.
fn quoted(given: &str) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(given.len() + 2);
    text.push('"');
    for c in given.chars() {
        match c {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            c if (c as u32) < 0x20 => {
                write!(text, "\\u{:04x}", c as u32).expect("writing to a String cannot fail");
            }
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    use super::super::board::{Health, News};
    use super::*;

    fn get(board: &Board, path: &str) -> (u16, String) {
        let answer = board.answer(Request {
            method: "GET",
            path,
            accept: "",
        });
        (answer.status, String::from_utf8(answer.body).unwrap())
    }

    #[test]
    fn a_failing_probe_is_503_and_says_why() {
        let board = Board::new(|| 0);
        let why = vec!["a \"quoted\"\n\\ reason".to_owned(), "another".to_owned()];
        board.publish(News {
            ready: Some(Verdict::Fail(why)),
            ..News::default()
        });

        let expected = "{\"status\":\"fail\",\
                        \"notes\":[\"a \\\"quoted\\\"\\u000a\\\\ reason\",\"another\"]}";
        assert_eq!(get(&board, "/readyz"), (503, expected.to_owned()));
        assert_eq!(
            get(&board, "/livez"),
            (200, "{\"status\":\"pass\"}".to_owned())
        );
    }

    #[test]
    fn healthz_is_the_published_document() {
        let board = Board::new(|| 0);
        let document = "{\"status\":\"warn\"}".to_owned();
        let (before, _) = get(&board, "/healthz");
        board.publish(News {
            health: Some(Health {
                document: document.clone(),
                passes: true,
            }),
            ..News::default()
        });

        assert_eq!(before, 503);
        assert_eq!(get(&board, "/healthz"), (200, document));
    }

    #[test]
    fn other_paths_are_404_and_other_methods_405() {
        let board = Board::new(|| 0);
        for path in ["/", "", "/livez/", "/LIVEZ", "/livez/../metrics", "*"] {
            assert_eq!(get(&board, path).0, 404, "{path}");
        }
        for method in ["POST", "get", "OPTIONS", "X"] {
            let answer = board.answer(Request {
                method,
                path: "/livez",
                accept: "",
            });
            assert_eq!((answer.status, answer.allow()), (405, Some("GET, HEAD")));
        }
    }
}
