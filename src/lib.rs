//! The native core of mtaio.
//!
//! Every public module here is plain Rust: it knows nothing of Python, reads no
//! clock, and compiles with `--no-default-features`. `bindings` is the only
//! module that names `PyO3`; it reads the clock, converts, delegates and maps
//! errors.
//!
//! `unsafe` is denied but in `bindings::clock` (reading it) and
//! `bindings::alarm` (timer descriptors).

pub mod bucket;
pub mod limiter;
pub mod line;
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
mod sync;

#[cfg(feature = "python")]
mod bindings;
