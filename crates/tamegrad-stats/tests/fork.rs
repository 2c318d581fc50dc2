//! A process that has read tensors on several threads forks: the child reads on.

#![cfg(unix)]
#![allow(unsafe_code, reason = "a fork is unsafe: the child has one thread of many")]

use std::time::{Duration, Instant};

use tamegrad_stats::{ListStats, TensorRef, scan_list};

/// What a child that is not done after this long waits for will never come.
const PATIENCE: Duration = Duration::from_secs(20);

/// The norm of two megabytes in two tensors, which are read on several threads.
fn norm(stats: &mut ListStats) -> u64 {
    let values = vec![0.5_f32; 1 << 18];
    scan_list(&[TensorRef::from(&values[..]), TensorRef::from(&values[..])], stats);
    stats.total().l2.to_bits()
}

/// Exit code of a child that runs `work`; `None` when it had to be ended.
fn in_child(work: impl FnOnce() -> i32) -> Option<i32> {
    // SAFETY: the child allocates, which is allowed after a fork of the C libraries that Rust runs
    // on, reads its own memory, and leaves without running what the parent has registered.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let code = work();
        // SAFETY: it only ends the process.
        unsafe { libc::_exit(code) }
    }
    assert!(child > 0, "fork: {}", std::io::Error::last_os_error());
    let (since, mut status) = (Instant::now(), 0);
    loop {
        // SAFETY: `child` is our child, not yet waited for, and `status` lives through the call.
        let ended = unsafe { libc::waitpid(child, &raw mut status, libc::WNOHANG) };
        if ended == child {
            return libc::WIFEXITED(status).then(|| libc::WEXITSTATUS(status));
        }
        if since.elapsed() > PATIENCE {
            // SAFETY: `child` is our child and has not been waited for, so the number is its own.
            unsafe { libc::kill(child, libc::SIGKILL) };
            return None;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn the_child_of_a_process_that_has_read_on_many_threads_reads_the_same() {
    // On a machine with one processor as well.
    rayon::ThreadPoolBuilder::new().num_threads(4).build_global().expect("the first to use it");
    let mut stats = ListStats::default();
    let here = norm(&mut stats);
    assert_eq!(f64::from_bits(here), (0.25 * f64::from(1 << 19)).sqrt());
    let code = in_child(move || i32::from(norm(&mut stats) != here));
    assert_eq!(code, Some(0), "1: other bits; None: it waits for threads that are not there");
}
