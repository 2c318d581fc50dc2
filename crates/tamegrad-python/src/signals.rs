//! Ends the runs of a process that a signal is about to end.
//!
//! Python handles a signal only between two of its own instructions: a rank that waits for another one
//! would outlive SIGTERM. So a handler of the system wakes a thread, which ends the runs and then lets the
//! signal do what it would have done. Where somebody handles the signal, or ignores it as `nohup` does,
//! it is left alone.

#[cfg(unix)]
pub(crate) use unix::Signals;

/// There are no such signals.
#[cfg(not(unix))]
pub(crate) struct Signals;

#[cfg(not(unix))]
impl Signals {
    pub(crate) fn watch() -> Option<Self> {
        None
    }
}

#[cfg(unix)]
mod unix {
    use std::io::{self, PipeReader, Read};
    use std::mem::MaybeUninit;
    use std::os::fd::IntoRawFd;
    use std::ptr;
    use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, Ordering};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    use libc::{SIG_DFL, SIGHUP, SIGTERM, c_int};

    const HANDLED: [c_int; 2] = [SIGTERM, SIGHUP];

    /// How many runs are recorded.
    static RUNS: Mutex<usize> = Mutex::new(0);
    /// The process that has the thread: a fork has the handler without it.
    static PROCESS: AtomicU32 = AtomicU32::new(0);
    /// The end of the pipe that wakes the thread.
    static WAKE: AtomicI32 = AtomicI32::new(-1);
    /// Whether the runs have ended, and a signal is to do what it does by default.
    static IS_OVER: AtomicBool = AtomicBool::new(false);

    /// While one of these lives, a signal ends the runs before it ends the process.
    pub(crate) struct Signals {
        /// After a fork, the parent's.
        process: u32,
    }

    impl Signals {
        /// `None` where the system gives no pipe or no thread.
        pub(crate) fn watch() -> Option<Self> {
            let mut runs = runs();
            let process = std::process::id();
            if PROCESS.load(Ordering::SeqCst) != process {
                let (reader, writer) = io::pipe().ok()?;
                let thread = std::thread::Builder::new().name("tamegrad-signals".to_owned());
                thread.spawn(move || wait(reader)).ok()?;
                // The pipe lasts as long as the process.
                WAKE.store(writer.into_raw_fd(), Ordering::SeqCst);
                PROCESS.store(process, Ordering::SeqCst);
                *runs = 0;
            }
            *runs += 1;
            let ours = handler();
            HANDLED.into_iter().filter(|signal| current(*signal) == Some(SIG_DFL)).for_each(
                |signal| {
                    set(signal, ours);
                },
            );
            Some(Self { process })
        }
    }

    impl Drop for Signals {
        fn drop(&mut self) {
            if self.process != std::process::id() {
                return;
            }
            let mut runs = runs();
            *runs -= 1;
            if *runs == 0 {
                HANDLED.into_iter().for_each(let_go);
            }
        }
    }

    fn runs() -> MutexGuard<'static, usize> {
        RUNS.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: waits for a signal, ends the runs, and lets the signal through.
    fn wait(mut reader: PipeReader) {
        let mut byte = [0];
        while reader.read_exact(&mut byte).is_ok() {
            let signal = c_int::from(byte[0]);
            let name = if signal == SIGHUP { "SIGHUP" } else { "SIGTERM" };
            tamegrad_runs::end_all(&format!("stopped by {name}"));
            IS_OVER.store(true, Ordering::SeqCst);
            let_go(signal);
            // SAFETY: plain numbers go in. A handler that came meanwhile gets the signal.
            unsafe { libc::kill(libc::getpid(), signal) };
        }
    }

    /// Runs in the middle of anything: only what POSIX allows in a handler is called here. The calls that
    /// succeed leave `errno` as it is, and when one fails, the process ends.
    extern "C" fn on_signal(signal: c_int) {
        // SAFETY: `getpid` takes nothing.
        let process = unsafe { libc::getpid() };
        let is_waited_for = PROCESS.load(Ordering::SeqCst) == process as u32;
        if is_waited_for && !IS_OVER.load(Ordering::SeqCst) {
            let byte = signal as u8;
            // SAFETY: one byte is read, from a variable that lives until the call is over.
            let written =
                unsafe { libc::write(WAKE.load(Ordering::SeqCst), ptr::from_ref(&byte).cast(), 1) };
            if written == 1 {
                return;
            }
        }
        // SAFETY: plain numbers go in. The signal is blocked in its handler, and comes when that is over.
        unsafe {
            libc::signal(signal, SIG_DFL);
            libc::raise(signal);
        }
    }

    fn handler() -> usize {
        on_signal as extern "C" fn(c_int) as usize
    }

    /// Puts back the default, unless somebody has put another handler in the place of ours.
    fn let_go(signal: c_int) {
        if current(signal) == Some(handler()) {
            set(signal, SIG_DFL);
        }
    }

    fn current(signal: c_int) -> Option<usize> {
        let mut action = MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: null asks for the current action, which the call writes; all bits zero are a value.
        let action = unsafe {
            (libc::sigaction(signal, ptr::null(), action.as_mut_ptr()) == 0)
                .then(|| action.assume_init())
        };
        action.map(|action| action.sa_sigaction)
    }

    fn set(signal: c_int, handler: usize) {
        // SAFETY: all bits zero are a value of the structure; `handler` is `SIG_DFL` or `on_signal`, whose
        // type is that of a handler without `SA_SIGINFO`.
        unsafe {
            let mut action = MaybeUninit::<libc::sigaction>::zeroed().assume_init();
            action.sa_sigaction = handler;
            action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
            libc::sigaction(signal, &action, ptr::null_mut());
        }
    }
}
