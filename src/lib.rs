//! The native core of mtaio.
//!
//! Every public module here is plain Rust: it knows nothing of Python, reads no
//! clock, and compiles with `--no-default-features`. `bindings` is the only
//! module that names `PyO3`; it reads the clock, converts, delegates and maps
//! errors.
//!
//! `unsafe` is denied but in `bindings::clock` (reading it) and
//! `bindings::alarm` (timer descriptors).
//! `unsafe` is denied but in: `bindings::clock` and `bindings::alarm` (reading
//! the clock, timer descriptors), `bindings::cache::key` (type checks of a
//! key), `metrics::system` (getrusage, statvfs), `probe::dump` and
//! `probe::thread` (signals, sockets and a mutex over a fork), and in `log`
//! `mapping`, `ring`, `storage`, `lives`, `fork`, `thread`, `schedule` and
//! `report` (shared memory, files, forks, signal masks, the C calendar).

pub mod bucket;
pub mod cache;
pub mod limiter;
pub mod line;
pub mod log;
pub mod metrics;
pub mod permits;
//! `unsafe` is in these alone: `bindings/clock.rs` (reading the clock),
//! `bindings/cache/key.rs` (type checks of a key).

pub mod cache;
//! `unsafe` is denied but in `bindings::clock` (reading the clock) and, in
//! `log`, in `mapping` and `ring` (a ring in shared memory), `storage` (its
//! file), `lives` and `fork` (what a forked child may touch), `thread` (signal
//! masks), `schedule` (the C calendar) and `report` (standard error).

pub mod log;
//! `unsafe` is denied but in `metrics::system` (getrusage, statvfs) and
//! `bindings::clock` (`clock_gettime`).

pub mod metrics;
//! `unsafe` is allowed in: `bindings::clock`, `probe::dump` (a signal to
//! ourselves), `probe::thread` (signal masks, sockets and a mutex over a fork).

pub mod probe;
mod sync;

#[cfg(feature = "python")]
mod bindings;
