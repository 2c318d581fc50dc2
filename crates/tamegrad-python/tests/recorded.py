"""A training with ``run=`` that ends in a way; started by test_record.py as a process of its own."""

from __future__ import annotations

import ctypes
import faulthandler
import math
import multiprocessing
import os
import signal
import sys
import time

import torch
from conftest import batches, learn, loss_of, mlp
from torch import nn

import tamegrad


def begin(run: str, **options):
    model = mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    return model, optimizer, tamegrad.watch(model, optimizer, run=run, strict=True, **options)


def steps(model, optimizer, guard, count: int, at_inf: int | None = None) -> None:
    for step, (x, y) in enumerate(batches(count)):
        x = x * math.inf if step == at_inf else x
        learn(loss_of(model, x, y), optimizer, guard)


def ready() -> None:
    """Tells the test that it may go on, and waits for what it does."""
    print("ready", flush=True)
    time.sleep(60)


def normal(run: str) -> None:
    steps(*begin(run), 30)


def explodes(run: str) -> None:
    steps(*begin(run), 60, at_inf=40)


def closed(run: str) -> None:
    model, optimizer, guard = begin(run)
    steps(model, optimizer, guard, 30)
    guard.close()
    raise ValueError("came after the run")


def raises(run: str) -> None:
    steps(*begin(run), 30)
    raise ValueError("a secret")


def raises_in_with(run: str) -> None:
    model, optimizer, guard = begin(run)
    try:
        with guard:
            steps(model, optimizer, guard, 30)
            raise ValueError("a secret")
    except ValueError:
        pass


def hooked(run: str) -> None:
    sys.excepthook = lambda *error: print("hook of the user", error[0].__name__)
    raises(run)


def exits(run: str) -> None:
    steps(*begin(run), 30)
    sys.exit(3)


def trains_on(run: str) -> None:
    try:
        raise ValueError("of an earlier cell")
    except ValueError as error:
        sys.last_value = error
        steps(*begin(run), 30)


def waits(run: str) -> None:
    guard = begin(run)
    steps(*guard, 30)
    ready()


def waits_in_c(run: str) -> None:
    """No instruction of Python follows."""
    guard = begin(run)
    steps(*guard, 30)
    print("ready", flush=True)
    # A deadlock, with the interpreter's lock held.
    library, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(256)
    library.pthread_mutex_init(mutex, None)
    for _ in range(2):
        library.pthread_mutex_lock(mutex)


def handled(run: str) -> None:
    """The user's own handler, set before the run."""

    def stop(number, frame):
        print("handler of the user", flush=True)
        os._exit(7)

    signal.signal(signal.SIGTERM, stop)
    waits(run)


def handled_later(run: str) -> None:
    guard = begin(run)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(8))
    assert before == signal.SIG_DFL
    steps(*guard, 30)
    ready()


def chained(run: str) -> None:
    """faulthandler passes the signal on to the handler before it."""
    guard = begin(run)
    faulthandler.register(signal.SIGTERM, chain=True)
    steps(*guard, 30)
    ready()


def ended_before(run: str) -> None:
    model, optimizer, guard = begin(run)
    steps(model, optimizer, guard, 30)
    guard.close()
    ready()


def forks(run: str) -> None:
    """A child that ends in every way leaves the run alone."""
    model, optimizer, guard = begin(run)
    steps(model, optimizer, guard, 10)
    for end in (lambda: sys.exit(0), guard.close, lambda: steps(model, optimizer, guard, 5)):
        child = os.fork()
        if not child:
            end()
            sys.exit(0)
        assert os.waitpid(child, 0)[1] == 0
    # A child is killed by the signal, as it would have been.
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    child.terminate()
    child.join(30)
    assert child.exitcode == -signal.SIGTERM, child.exitcode
    steps(model, optimizer, guard, 10)


def workers(run: str) -> None:
    data = [(x[0], y[0]) for x, y in batches(64)]
    for context in ("fork", "spawn"):
        model, optimizer, guard = begin(f"{run}-{context}")
        loader = torch.utils.data.DataLoader(
            data, batch_size=8, num_workers=2, multiprocessing_context=context
        )
        for _ in range(3):
            for x, y in loader:
                learn(nn.functional.cross_entropy(model(x), y), optimizer, guard)
        guard.close()


def child(run: str) -> None:
    """A process of multiprocessing trains, and fails."""
    for context in ("fork", "spawn"):
        process = multiprocessing.get_context(context).Process(
            target=raises, args=(f"{run}-{context}",)
        )
        process.start()
        process.join(120)
        assert process.exitcode == 1


def several(run: str) -> None:
    first, second = begin(run), begin(run)
    steps(*first, 30)
    steps(*second, 20, at_inf=10)
    second[2].close()
    ready()


def endless(run: str) -> None:
    """Trains until it is killed; alarms come from step 300 on."""
    model, optimizer, guard = begin(run)
    data = list(batches(64))
    step = 0
    while True:
        x, y = data[step % 64]
        learn(loss_of(model, x * math.inf if step >= 300 else x, y), optimizer, guard)
        print(step, flush=True)
        step += 1


if __name__ == "__main__":
    globals()[sys.argv[1]](sys.argv[2])
