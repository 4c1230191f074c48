//! The native core of mtaio.
//!
//! Every public module here is plain Rust: it knows nothing of Python, reads no
//! clock, and compiles with `--no-default-features`. `bindings` is the only
//! module that names `PyO3`; it reads the clock, converts, delegates and maps
//! errors.
//!
//! `unsafe` is denied but in: `bindings::clock` and `bindings::alarm` (reading
//! the clock, timer descriptors), `bindings::hot` (methods without `PyO3`'s
//! wrapper), `bindings::worker` (a queue left behind by a fork),
//! `bindings::cache::key` and `bindings::cache::reading` (type checks of a key; an
//! awaitable without that wrapper), `metrics::system` (getrusage, statvfs),
//! `backstop` (the exit that calls nothing), `probe::dump` and `probe::thread`
//! (signals, sockets and state over a fork),
//! and in `log` `mapping`, its stand-in `loom_mapping`, `ring`, `storage`,
//! `lives`, `fork`, `thread`, `schedule` and `report` (shared memory, files,
//! forks, signal masks, the C calendar).

pub mod backstop;
pub mod bucket;
pub mod cache;
pub mod keyed;
pub mod limiter;
pub mod line;
mod lines;
pub mod log;
pub mod metrics;
pub mod permits;
pub mod probe;
mod sync;

#[cfg(feature = "python")]
mod bindings;
