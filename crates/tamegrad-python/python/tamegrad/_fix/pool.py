"""Runs trials one after another, or in worker processes; the outcomes are the same."""

from __future__ import annotations

import multiprocessing
import pickle
import signal
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from .outcome import Outcome, Task
from .run import Objective, run_trial


class Pool:
    """Runs tasks. With one worker they run in this process; with more in processes that are started
    anew (``spawn``), to which the objective is passed by its name: it must be a function of a module."""

    def __init__(self, objective: Objective, workers: int) -> None:
        self._objective = objective
        self._wanted = workers
        self._workers: list[Worker] = []

    def run(self, tasks: Sequence[Task]) -> Iterator[tuple[int, Outcome]]:
        """Runs all, and gives the outcome of each with its place as soon as it is known."""
        if self._wanted <= 1:
            for place, task in enumerate(tasks):
                yield place, run_trial(self._objective, task)
            return
        waiting = list(enumerate(tasks))
        busy: dict[Connection, tuple[Worker, int]] = {}
        while waiting or busy:
            while waiting and len(busy) < self._wanted:
                worker = self._idle({w for w, _ in busy.values()})
                place, task = waiting.pop(0)
                worker.pipe.send(task)
                busy[worker.pipe] = (worker, place)
            for pipe in wait(list(busy)):
                worker, place = busy.pop(pipe)  # type: ignore[arg-type]
                yield place, self._outcome_of(worker, tasks[place])

    def _idle(self, busy: set[Worker]) -> Worker:
        idle = next((worker for worker in self._workers if worker not in busy), None)
        if idle is None:
            idle = Worker(self._objective)
            self._workers.append(idle)
        return idle

    def _outcome_of(self, worker: Worker, task: Task) -> Outcome:
        try:
            return worker.pipe.recv()
        except (EOFError, OSError):
            worker.process.join()
            self._workers.remove(worker)
            error = f"the worker process ended with exit code {worker.process.exitcode}"
            return Outcome.of(task, status="failed", error=error)

    def close(self) -> None:
        """Ends the processes, also in the middle of a trial."""
        for worker in self._workers:
            worker.process.terminate()
        for worker in self._workers:
            worker.process.join()
            worker.pipe.close()
        self._workers = []


class Worker:
    """A process that runs one task after another."""

    def __init__(self, objective: Objective) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        arguments = (theirs, objective, torch.get_num_threads())
        self.process = context.Process(target=_work, args=arguments)
        try:
            self.process.start()
        except (AttributeError, TypeError, pickle.PicklingError) as error:
            raise ValueError(
                f"objective: got one that cannot be sent to a worker process ({error}), want a function "
                "at the top level of a module; or use workers=1"
            ) from error
        theirs.close()


def _work(pipe: Any, objective: Objective, threads: int) -> None:
    # Ctrl-C reaches every process of a terminal; the search itself ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    while True:
        try:
            task = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(run_trial(objective, task))
