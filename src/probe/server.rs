//! The probe thread: `hyper` on a single-thread runtime of its own.
//!
//! The runtime is made by `start` and dropped by its own thread before `stop`
//! returns. A forked child inherits neither thread nor runtime: `forget` closes
//! the sockets it got and leaves the rest alone.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener, UdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ACCEPT, ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::answer::{Answer, METRICS, Request};
use super::board::Board;
use super::connections::{Activity, Connections, Inherited, Mark};
use super::listener::{BindError, bind};
use super::origin::Origin;
use super::thread::{close_inherited, spawn_quiet};

/// A connection ends after this long even if it keeps asking: whoever reads its
/// answer a byte a minute can't hold one for ever.
const LONGEST_LIFE: Duration = Duration::from_mins(1);
/// What `stop` grants answers already on their way.
const DRAIN: Duration = Duration::from_millis(200);
/// After a failed `accept` (out of descriptors), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
/// What a scrape may take before it is answered 503.
const LONGEST_SCRAPE: Duration = Duration::from_secs(5);
/// hyper's least buffer; a smaller header limit is still kept exactly.
const LEAST_BUFFER: usize = 8192;

const TIMED_OUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// What clients may ask of the server.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Open connections; beyond it the stalest one is closed. At least 1.
    pub max_connections: usize,
    /// For the request line and headers together, in bytes.
    pub max_header_bytes: usize,
    /// For the whole head of a request to arrive, from the connection or from
    /// the last answer on.
    pub header_timeout: Duration,
    /// The one origin whose pages may read the answers in a browser; by default
    /// only pages of the server's own.
    pub allowed_origin: Option<Origin>,
}

/// A running probe thread.
pub struct Server {
    address: SocketAddr,
    inherited: Arc<Inherited>,
    stop: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

impl Server {
    /// Listens and starts the thread; it serves when this returns.
    pub fn start(
        host: &str,
        port: u16,
        limits: Limits,
        board: Arc<Board>,
    ) -> Result<Self, BindError> {
        let (listener, address) = bind(host, port)?;
        // One more for the listener, one for a connection about to give way.
        let inherited = Arc::new(Inherited::new(limits.max_connections.saturating_add(2)));
        let (stop, stopped) = watch::channel(false);
        let service = Service {
            board,
            limits,
            inherited: Arc::clone(&inherited),
            stopped,
        };
        let thread = service
            .run(listener)
            .map_err(|source| BindError::new(host, port, source))?;
        Ok(Self {
            address,
            inherited,
            stop,
            thread,
        })
    }

    /// Where it listens; the port is the real one.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Asks the thread to end; returns at once.
    pub fn request_stop(&self) {
        self.stop.send_replace(true);
    }

    /// Whether the thread has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Asks the thread to end and waits for it, `deadline` at most. False when
    /// it had not ended by then; it is left to itself.
    #[must_use]
    pub fn stop(self, deadline: Duration) -> bool {
        self.request_stop();
        let asked = Instant::now();
        while !self.thread.is_finished() {
            if asked.elapsed() >= deadline {
                return false;
            }
            // std's join knows no deadline; an idle server ends within this.
            std::thread::sleep(Duration::from_micros(200));
        }
        // A panic of the thread has been printed by its hook.
        let _ = self.thread.join();
        true
    }

    /// In a forked child: closes the inherited sockets, so that the parent's
    /// stop frees the port and its clients see their connections end.
    pub fn forget(self) {
        for socket in self.inherited.take() {
            close_inherited(socket);
        }
        // The thread and its runtime do not exist here; nothing of theirs may
        // be joined, woken or dropped.
        std::mem::forget(self);
    }
}

/// A descriptor to let go of when the process has none left: a probe must be
/// answered then, of all times.
fn spare_descriptor() -> Option<UdpSocket> {
    UdpSocket::bind(("127.0.0.1", 0)).ok()
}

#[cfg(unix)]
fn number<S: std::os::fd::AsRawFd>(socket: &S) -> i64 {
    i64::from(socket.as_raw_fd())
}

#[cfg(not(unix))]
fn number<S>(_socket: &S) -> i64 {
    0
}

/// What the thread works with.
#[derive(Clone)]
struct Service {
    board: Arc<Board>,
    limits: Limits,
    inherited: Arc<Inherited>,
    stopped: watch::Receiver<bool>,
}

impl Service {
    fn run(self, listener: StdListener) -> io::Result<JoinHandle<()>> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(1)
            .build()?;
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener)?
        };
        // Both before `start` returns: there may be no descriptor left later, and
        // a fork may come before the thread's first step.
        let spare = spare_descriptor();
        let mark = self.inherited.enter(number(&listener));
        spawn_quiet("mtaio-probes", move || {
            runtime.block_on(self.accept(listener, mark, spare));
            // Joins the scraping thread, unless its source hangs.
            runtime.shutdown_timeout(DRAIN);
        })
    }

    async fn accept(self, listener: TcpListener, mark: Mark, mut spare: Option<UdpSocket>) {
        let mut stopped = self.stopped.clone();
        let mut connections = Connections::new(self.limits.max_connections);
        loop {
            tokio::select! {
                // Ended ones first, so that they don't cost a live one its place.
                biased;
                _ = stopped.wait_for(|stop| *stop) => break,
                () = connections.ended() => spare = spare.or_else(spare_descriptor),
                accepted = listener.accept() => if let Ok((stream, _)) = accepted {
                    connections.make_room();
                    let activity = connections.activity();
                    connections.add(self.clone().serve(stream, activity.clone()), activity);
                } else if spare.take().is_none() {
                    // Out of descriptors, and the kernel says so whether or not
                    // anybody waits: let those who have one end first.
                    sleep(ACCEPT_PAUSE).await;
                    if !connections.try_ended() {
                        connections.drop_stalest();
                    }
                },
            }
        }
        drop(mark);
        drop(listener);
        let _ = timeout(DRAIN, connections.all_ended()).await;
    }

    async fn serve(self, stream: TcpStream, activity: Activity) {
        // Small answers leave at once; failing to say so only costs time.
        let _ = stream.set_nodelay(true);
        let socket = number(&stream);
        let board = Arc::clone(&self.board);
        let reader = self.limits.allowed_origin.as_ref().map(Origin::header);
        let handler = service_fn(move |request| {
            activity.touch();
            respond(Arc::clone(&board), reader.clone(), request)
        });
        let io = TokioIo::new(stream);
        let mut connection = self.protocol().serve_connection(io, handler);
        // After the connection, so that it is dropped before the socket is.
        let _mark = self.inherited.enter(socket);
        let ended = tokio::select! {
            ended = Pin::new(&mut connection) => ended,
            () = self.time_to_leave() => {
                Pin::new(&mut connection).graceful_shutdown();
                // An answer that is not read by then is cut off.
                let last = timeout(self.limits.header_timeout, Pin::new(&mut connection));
                last.await.unwrap_or(Ok(()))
            }
        };
        if ended.is_err_and(|e| e.is_timeout()) {
            let parts = connection.into_parts();
            // A kept-alive connection that merely went idle is closed silently:
            // a 408 could be taken for the answer to a request just sent.
            if !parts.read_buf.is_empty() {
                // Nothing was sent yet, so it fits the empty send buffer.
                let _ = parts.io.into_inner().try_write(TIMED_OUT);
            }
        }
    }

    /// The server stops, or the connection is too old.
    async fn time_to_leave(&self) {
        let mut stopped = self.stopped.clone();
        let _ = timeout(LONGEST_LIFE, stopped.wait_for(|stop| *stop)).await;
    }

    fn protocol(&self) -> http1::Builder {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            // Who says that it has asked all (`nc -N`) is answered all the same.
            .half_close(true)
            .header_read_timeout(self.limits.header_timeout)
            .max_header_size(self.limits.max_header_bytes)
            .max_buf_size(self.limits.max_header_bytes.max(LEAST_BUFFER));
        builder
    }
}

async fn respond(
    board: Arc<Board>,
    reader: Option<HeaderValue>,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Full<Bytes>>, Infallible> {
    let mut response = response(answer(board, request).await);
    if let Some(origin) = reader {
        // Always the same, whoever asks: the browser compares, and caches need no `Vary`.
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    Ok(response)
}

async fn answer(board: Arc<Board>, request: hyper::Request<Incoming>) -> Answer {
    if request.uri().path() != METRICS {
        return board.answer(asked(&request));
    }
    // Sources run aside: one that hangs costs its scrape and no other probe.
    let work = move || board.answer(asked(&request));
    // A set, because dropping it calls off what hasn't begun: scrapes behind a
    // hanging one don't pile up.
    let mut scrape = JoinSet::new();
    scrape.spawn_blocking(work);
    match timeout(LONGEST_SCRAPE, scrape.join_next()).await {
        Ok(Some(Ok(answer))) => answer,
        Ok(_) => Answer::plain(500, "a metrics source failed\n"),
        Err(_) => Answer::plain(503, "a metrics source hangs\n"),
    }
}

fn asked(request: &hyper::Request<Incoming>) -> Request<'_> {
    let accept = request.headers().get(ACCEPT).map(HeaderValue::as_bytes);
    Request {
        method: request.method().as_str(),
        path: request.uri().path(),
        accept: accept
            .and_then(|a| std::str::from_utf8(a).ok())
            .unwrap_or_default(),
    }
}

fn response(answer: Answer) -> hyper::Response<Full<Bytes>> {
    let allow = answer.allow();
    let mut response = hyper::Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() =
        hyper::StatusCode::from_u16(answer.status).expect("our own statuses are valid");
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(methods) = allow {
        headers.insert(ALLOW, HeaderValue::from_static(methods));
    }
    response
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream as Client;

    use super::super::board::MetricsSource;
    use super::super::family::Family;
    use super::*;

    fn started(header_timeout: Duration) -> Server {
        serving(header_timeout, Board::new(|| 0))
    }

    fn serving(header_timeout: Duration, board: Board) -> Server {
        let limits = Limits {
            max_connections: 4,
            max_header_bytes: 1024,
            header_timeout,
            allowed_origin: Origin::parse("http://127.0.0.1:8000"),
        };
        Server::start("127.0.0.1", 0, limits, Arc::new(board)).unwrap()
    }

    fn exchange(server: &Server, sent: &[u8]) -> String {
        let mut client = Client::connect(server.address()).unwrap();
        client.write_all(sent).unwrap();
        let mut got = Vec::new();
        client.read_to_end(&mut got).unwrap();
        String::from_utf8_lossy(&got).into_owned()
    }

    fn status(answer: &str) -> &str {
        answer.split(' ').nth(1).unwrap_or_default()
    }

    #[test]
    fn probes_are_answered_and_stop_frees_the_port() {
        let server = started(Duration::from_secs(5));
        let address = server.address();

        let answer = exchange(
            &server,
            b"GET /livez?verbose HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
        );

        assert_eq!(status(&answer), "200", "{answer}");
        assert!(answer.ends_with("{\"status\":\"pass\"}"));
        assert!(server.stop(Duration::from_secs(5)));
        assert!(Client::connect(address).is_err());
    }

    #[test]
    fn a_child_forked_right_after_the_start_can_let_go_of_the_port() {
        for _ in 0..100 {
            let server = started(Duration::from_secs(5));
            let open_to_a_child = server.inherited.take().count();

            assert_eq!(open_to_a_child, 1);
            assert!(server.stop(Duration::from_secs(5)));
        }
    }

    #[test]
    fn a_slow_head_is_408_and_an_oversized_one_431() {
        let server = started(Duration::from_millis(100));
        let oversized = [
            b"GET / HTTP/1.1\r\nx: ",
            [b'a'; 5000].as_slice(),
            b"\r\n\r\n",
        ]
        .concat();

        assert_eq!(status(&exchange(&server, b"GET /livez HTT")), "408");
        assert_eq!(status(&exchange(&server, &oversized)), "431");
        assert_eq!(exchange(&server, b""), "");
        assert!(server.stop(Duration::from_secs(5)));
    }

    #[test]
    fn a_full_house_still_answers_a_newcomer() {
        let server = started(Duration::from_mins(1));
        let idle: Vec<_> = (0..20)
            .map(|_| Client::connect(server.address()).unwrap())
            .collect();

        let answer = exchange(&server, b"GET /livez HTTP/1.0\r\n\r\n");

        assert_eq!(status(&answer), "200");
        drop(idle);
        assert!(server.stop(Duration::from_secs(5)));
    }

    #[test]
    fn a_page_of_the_allowed_origin_may_read_every_answer() {
        let server = started(Duration::from_secs(5));
        let header = "\r\naccess-control-allow-origin: http://127.0.0.1:8000\r\n";

        for path in ["/livez", "/readyz", "/metrics", "/nothing"] {
            let answer = exchange(&server, format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes());
            assert!(answer.contains(header), "{answer}");
        }
        assert!(server.stop(Duration::from_secs(5)));
    }

    struct Source(fn());

    impl MetricsSource for Source {
        fn collect(&self, _now_ns: u64, _out: &mut Vec<Family>) {
            (self.0)();
        }
    }

    fn source(collect: fn()) -> Arc<dyn MetricsSource> {
        Arc::new(Source(collect))
    }

    #[test]
    fn a_hanging_source_costs_no_other_probe_and_no_stop() {
        let board = Board::new(|| 0);
        board.add_source(&source(|| std::thread::sleep(Duration::from_secs(3))));
        let server = serving(Duration::from_secs(5), board);
        let mut scraper = Client::connect(server.address()).unwrap();
        scraper.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").unwrap();

        let answer = exchange(&server, b"GET /livez HTTP/1.0\r\n\r\n");

        assert_eq!(status(&answer), "200");
        let began = Instant::now();
        assert!(server.stop(Duration::from_secs(2)));
        assert!(began.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn a_panicking_source_is_500_and_the_next_scrape_served() {
        let board = Board::new(|| 0);
        board.add_source(&source(|| panic!("a source of this test")));
        let server = serving(Duration::from_secs(5), board);

        for _ in 0..2 {
            let answer = exchange(&server, b"GET /metrics HTTP/1.0\r\n\r\n");
            assert_eq!(status(&answer), "500");
        }
        assert!(server.stop(Duration::from_secs(5)));
    }
}
