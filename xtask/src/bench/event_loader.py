"""Reads event files with TensorBoard's own EventFileLoader, for `cargo xtask bench logs`.

It gives its version, then answers each line on standard input, the path of an event file, with the
milliseconds that reading it took.
"""

import sys
import time

import tensorboard
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

print("tensorboard", tensorboard.__version__, flush=True)
for line in sys.stdin:
    start = time.perf_counter()
    events = sum(1 for _ in EventFileLoader(line.strip()).Load())
    elapsed = 1e3 * (time.perf_counter() - start)
    print(elapsed if events > 1 else f"error: {events} events", flush=True)
