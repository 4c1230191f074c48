//! The one place that chooses between std's atomics and loom's.
//!
//! Lock-free modules import from here, so that the very code that ships is the
//! code the model checker explores (`--features loom`).

#[cfg(feature = "loom")]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
#[cfg(not(feature = "loom"))]
pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
