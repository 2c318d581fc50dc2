//! Whether work is spread over rayon's threads.

use std::sync::atomic::{AtomicU32, Ordering};

/// From this many bytes on a second thread is worth waking.
const PARALLEL_BYTES: usize = 1 << 20;

/// Bytes of small tensors that one thread takes at a time.
pub(crate) const GRAIN_BYTES: usize = 1 << 18;

/// One thread or as many as rayon has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// The calling thread alone.
    One,
    /// The threads of the rayon pool of the caller, or of the global one.
    Many,
}

impl Threads {
    /// For work on so many bytes. Few bytes start no thread, not even rayon's pool.
    pub(crate) fn for_bytes(bytes: usize) -> Self {
        if bytes >= PARALLEL_BYTES && has_threads() && rayon::current_num_threads() > 1 {
            Self::Many
        } else {
            Self::One
        }
    }

    /// Runs both, perhaps at once.
    pub(crate) fn join<A: Send, B: Send>(
        self,
        a: impl FnOnce() -> A + Send,
        b: impl FnOnce() -> B + Send,
    ) -> (A, B) {
        match self {
            Self::One => (a(), b()),
            Self::Many => rayon::join(a, b),
        }
    }
}

/// Whether this process can have threads of rayon that run: false in the fork of a process that has
/// had them. The memory of the pool comes over, its threads do not, and whoever waited for them would
/// wait for ever.
fn has_threads() -> bool {
    /// The process that asked first; no process has the number 0.
    static FIRST: AtomicU32 = AtomicU32::new(0);
    let own = std::process::id();
    let first = FIRST.compare_exchange(0, own, Ordering::Relaxed, Ordering::Relaxed);
    first.map_or_else(|first| first == own, |_| true)
}
