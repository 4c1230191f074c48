//! What the machine and this process are doing, told as true as the kernel is.
//!
//! From the kernel to the user, each step a module:
//! `kept` reads files through descriptors it keeps; `fields` takes whole lines
//! and plain numbers out of them; `host`, `own` and `cgroup` (found by `place`)
//! make counters of each file; `procfs` (or `portable`, where there is no `/proc`) gathers them
//! into one `reading`; `derive` compares two readings; `snapshot` is what comes
//! out; `sampler` chooses what to compare with; `service` is the thread, the
//! history, and the newest snapshot for whoever asks from whatever thread;
//! `families` serves that one to scrapers.

mod cgroup;
mod derive;
mod families;
mod fields;
mod host;
mod kept;
mod lag;
mod own;
mod place;
mod portable;
mod procfs;
#[cfg(all(test, not(feature = "loom")))]
mod properties;
mod reading;
mod sampler;
mod service;
mod snapshot;
mod system;

pub use lag::{GcPauses, LoopLag};
pub use sampler::Settings;
pub use service::{Clocks, Latest, Moment, Service};
pub use snapshot::{Layout, LoopFigures, Snapshot, Value};
