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
pub mod keyed;
pub mod limiter;
pub mod line;
mod lines;
pub mod permits;
mod sync;

#[cfg(feature = "python")]
mod bindings;
