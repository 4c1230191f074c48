//! The native core of mtaio.
//!
//! Every public module here is plain Rust: it knows nothing of Python, reads no
//! clock, and compiles with `--no-default-features`. `bindings` is the only
//! module that names `PyO3`; it reads the clock, converts, delegates and maps
//! errors.
//!
//! `unsafe` is allowed in: `bindings::clock`, `probe::dump` (a signal to
//! ourselves), `probe::thread` (signal masks, sockets and state over a fork).

pub mod probe;
mod sync;

#[cfg(feature = "python")]
mod bindings;
