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
mod sync;

#[cfg(feature = "python")]
mod bindings;
