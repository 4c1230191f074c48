//! Probes: answers about this process that wait for nothing inside it.
//!
//! `Board` holds what Python last published, `answer` turns it into the five
//! endpoints, and `Server` serves them from a thread of its own. `Watchdog` watches
//! the heartbeats of event loops. None of it needs the interpreter, so it
//! goes on while a loop is blocked or the GIL is held.

mod answer;
mod board;
mod connections;
mod desk;
mod dump;
mod family;
mod heart;
mod listener;
mod origin;
mod server;
mod text;
mod thread;
mod watchdog;

pub use answer::{Answer, Request};
pub use board::{Board, Health, LivenessGuard, MetricsSource, News, Verdict};
pub use desk::{Capture, Desk, Report, Task};
pub use dump::{StackSignal, free_signal};
pub use family::{Family, FamilyError, Kind, Labels, Value};
pub use heart::{Heart, Hearts, Identity};
pub use listener::BindError;
pub use origin::Origin;
pub use server::{Limits, Server};
pub use text::{Format, encode};
pub(crate) use thread::{Shared, spawn_quiet};
pub use watchdog::{Watchdog, Watching};
