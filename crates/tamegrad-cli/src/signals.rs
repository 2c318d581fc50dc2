//! Ctrl-C and the signals that end a program: the first lets the command stop and write what it has, the
//! second ends the process with what is known so far.

use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// Set by the first signal: the run stops at its next step and still writes what it has.
static CANCEL: AtomicBool = AtomicBool::new(false);
/// The number of the first signal.
static SIGNAL: AtomicI32 = AtomicI32::new(INTERRUPT);

/// The number of the signal of Ctrl-C.
const INTERRUPT: i32 = 2;
/// The number of SIGHUP, which a terminal sends that is closed.
const HANG_UP: i32 = 1;

/// Listens to the signals from here on; returns what the first of them sets.
pub(crate) fn listen() -> &'static AtomicBool {
    // Without a handler a signal ends the program at once, which is no reason not to run.
    let _ = install();
    &CANCEL
}

#[cfg(unix)]
fn install() -> std::io::Result<()> {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

    let all = [SIGINT, SIGTERM, SIGHUP];
    // `nohup` has it ignored, and means that.
    let heard = all.iter().filter(|signal| **signal != SIGHUP || !is_hang_up_ignored());
    let mut signals = signal_hook::iterator::Signals::new(heard)?;
    std::thread::Builder::new()
        .name("tamegrad-signals".to_owned())
        .spawn(move || signals.forever().for_each(take))
        .map(drop)
}

/// Whether the program was started with SIGHUP ignored. Only Linux tells.
#[cfg(unix)]
fn is_hang_up_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & 1 << (HANG_UP - 1) != 0)
}

#[cfg(not(unix))]
fn install() -> Result<(), ctrlc::Error> {
    // With the feature `termination` also when the console is closed.
    ctrlc::set_handler(|| take(INTERRUPT))
}

fn take(signal: i32) {
    if !CANCEL.load(Ordering::Relaxed) {
        // First the reason: who sees that it is to stop finds it.
        SIGNAL.store(signal, Ordering::Relaxed);
        CANCEL.store(true, Ordering::Release);
        return;
    }
    // Whoever asks twice does not want to wait for the step.
    tamegrad_runs::end_all(words(signal));
    std::process::exit(128 + signal);
}

fn words(signal: i32) -> &'static str {
    match signal {
        INTERRUPT => "stopped by Ctrl-C",
        HANG_UP => "stopped by SIGHUP",
        _ => "stopped by SIGTERM",
    }
}

/// What stopped the command, in words.
#[cfg(feature = "train")]
pub(crate) fn how() -> &'static str {
    words(SIGNAL.load(Ordering::Relaxed))
}

/// The exit code of a command that was stopped: as shells have it, 128 and the number of the signal.
pub(crate) fn exit_code() -> u8 {
    u8::try_from(128 + SIGNAL.load(Ordering::Relaxed)).unwrap_or(u8::MAX)
}
