//! Whether work is spread over rayon's threads.

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
        if bytes >= PARALLEL_BYTES && rayon::current_num_threads() > 1 {
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
