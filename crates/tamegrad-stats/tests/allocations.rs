//! After the first call for a list, no scan and no clip allocates memory.

#![allow(unsafe_code, reason = "a global allocator is unsafe to write")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};

use tamegrad_stats::{
    Clip, ListStats, Sampling, TensorMut, TensorRef, clip_global_norm, clip_values, scan_list,
    scan_list_with_histograms,
};

/// The system's allocator, which counts.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of all threads while `work` runs.
fn allocations(work: impl FnOnce()) -> u64 {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    work();
    ALLOCATIONS.load(Ordering::Relaxed) - before
}

/// One test, since another at the same time would be counted as well.
#[test]
fn nothing_is_allocated_after_the_first_call() {
    let mut small: Vec<Vec<f32>> = (1..60).map(|n| vec![0.5; n]).collect();
    let mut large: Vec<Vec<f32>> = (1..60).map(|n| vec![0.5; 10_000 * n]).collect();
    check(&mut small, 0);
    // A queue of rayon's grows once when its threads get in one another's way as never before.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    pool.install(|| check(&mut large, 10));

    // From outside of a pool rayon hands the work over in a queue that grows by blocks of 63: ten
    // times here, and at most as often for queues of its threads.
    let tensors: Vec<TensorRef<'_>> = large.iter().map(|v| TensorRef::F32(v)).collect();
    let mut stats = ListStats::default();
    scan_list(&tensors, &mut stats);
    let count = allocations(|| (0..630).for_each(|_| scan_list(&tensors, &mut stats)));
    assert!(count <= 10 + 10, "{count} allocations in 630 calls, beside growths");
}

/// At most `growths` allocations in a hundred calls.
fn check(values: &mut [Vec<f32>], growths: u64) {
    let mut stats = ListStats::default();
    let tensors: Vec<TensorRef<'_>> = values.iter().map(|v| TensorRef::F32(v)).collect();
    let work = |stats: &mut ListStats| {
        scan_list(&tensors, stats);
        scan_list_with_histograms(&tensors, Sampling::one_in(16), stats);
    };
    // The queues of the pool's threads reach their size in the first calls.
    (0..20).for_each(|_| work(&mut stats));
    let scans = allocations(|| (0..100).for_each(|_| work(&mut stats)));
    assert!(scans <= growths, "{scans} allocations, {} tensors scanned", tensors.len());

    let norm = stats.total().l2;
    let mut tensors: Vec<TensorMut<'_>> =
        values.iter_mut().map(|v| TensorMut::F32(&mut v[..])).collect();
    let clips = allocations(|| {
        for step in 1..100 {
            let clip = clip_global_norm(&mut tensors, norm * 0.99_f64.powi(step), &mut stats);
            assert!(matches!(clip, Clip::Clipped { .. }), "{clip:?}");
            clip_values(&mut tensors, 0.49999 * 0.99_f64.powi(step));
        }
    });
    assert!(clips <= growths, "{clips} allocations, {} tensors clipped", tensors.len());
}
