"""Where orders are carried out: in this process, in several, or by Ray on a cluster."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing import connection, resource_tracker
from typing import Any, Protocol

from zoo import errors
from zoo.errors import CellError, TrainingError, UsageError, ZooError, recurs
from zoo.pipeline.bench.cells import Order, Site, carry_out
from zoo.pipeline.workspace import Workspace

Line = dict[str, Any] | None


class Launcher(Protocol):
    """What orders are given to, at most `slots` at a time."""

    slots: int

    def start(self, order: Order) -> None:
        """Begin an order, or lay it ready for `wait`."""

    def wait(self) -> tuple[Order, Line]:
        """Return an order that was finished and its line; raises what it raised."""

    def close(self) -> None:
        """Let what still runs stop after its step, with a checkpoint, and return when it has."""


def launched(launcher: Launcher, orders: Sequence[Order]) -> Iterator[tuple[Order, Line]]:
    """Carry orders out, each after the one it waits for; yields them as they are finished."""
    waiting, done, running = list(orders), set[str](), 0
    try:
        while waiting or running:
            ready = [each for each in waiting if each.after is None or each.after in done]
            for order in ready[: launcher.slots - running]:
                launcher.start(order)
                waiting.remove(order)
                running += 1
            order, line = launcher.wait()
            running -= 1
            done.add(order.name)
            yield order, line
    finally:
        launcher.close()


class Here:
    """One order at a time, in this process, with its progress on display."""

    slots = 1

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._orders: list[Order] = []

    def start(self, order: Order) -> None:
        self._orders.append(order)

    def wait(self) -> tuple[Order, Line]:
        order = self._orders.pop(0)
        return order, carry_out(order, self._workspace)

    def close(self) -> None:
        pass


class Processes:
    """Processes of this machine, each of which carries out one order after the other.

    They are out of reach of the terminal's Ctrl-C: the main process passes it on, once. Where that
    was killed they stop by themselves.
    """

    def __init__(self, site: Site, jobs: int) -> None:
        self.slots = jobs
        self._site = site
        self._idle: list[tuple[Any, Any]] = []
        self._busy: dict[Any, tuple[Any, Order]] = {}

    def start(self, order: Order) -> None:
        process, pipe = self._idle.pop() if self._idle else self._begun()
        try:
            pipe.send(order)
        except OSError:
            raise _gone(process, order) from None
        self._busy[pipe] = (process, order)

    def wait(self) -> tuple[Order, Line]:
        pipe: Any = connection.wait(list(self._busy))[0]
        process, order = self._busy.pop(pipe)
        try:
            line, failed = pipe.recv()
        except EOFError:
            raise _gone(process, order) from None
        self._idle.append((process, pipe))
        if failed is not None:
            raise _error(*failed)
        return order, line

    def close(self) -> None:
        for process, _ in self._busy.values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process.pid, signal.SIGINT)
        for pipe in [pipe for _, pipe in self._idle] + list(self._busy):
            with contextlib.suppress(OSError):
                pipe.send(None)
        for process, _ in [*self._idle, *self._busy.values()]:
            process.join()
        self._idle, self._busy = [], {}

    def _begun(self) -> tuple[Any, Any]:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(self._site, theirs))
        # Ctrl-C waits until the process has left the terminal's group: see `_serve`. The tracker
        # lets it through when it is started, so that comes before.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        theirs.close()
        return process, ours


def _serve(site: Site, pipe: Any) -> None:
    """Carry out orders until there are no more: the whole life of a process of `Processes`."""
    os.setpgrp()  # Ctrl-C at the terminal is for the main process
    with contextlib.suppress(KeyboardInterrupt, EOFError, OSError):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        threading.Thread(target=_outlive, daemon=True).start()
        workspace = site.workspace()
        while (order := pipe.recv()) is not None:
            try:
                pipe.send((carry_out(order, workspace), None))
            except Exception as error:
                text = str(error) if isinstance(error, ZooError) else traceback.format_exc()
                pipe.send((None, (type(error).__name__, text, recurs(error))))


def _outlive() -> None:
    """Stop as by Ctrl-C when the main process is gone."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGINT)


def _gone(process: Any, order: Order) -> TrainingError:
    process.join()
    return TrainingError(
        f"The process of '{order.name}' ended with status {process.exitcode}. Type the same command"
        " again to go on, with fewer --jobs if memory ran out."
    )


def _error(name: str, text: str, again: bool) -> ZooError:
    """Return an error that was raised in another process: ours by its kind and message.

    `again` says whether it recurs.
    """
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, ZooError):
        known: ZooError = kind.__new__(kind, text)
        known._recurs = again
        return known
    return (CellError if again else TrainingError)(f"A cell failed.\n{text}")


class Ray:
    """Tasks of a Ray cluster, or of a Ray that is started on this machine.

    The nodes share the runs folder and the data folder under the same paths.
    """

    def __init__(self, site: Site, jobs: int | None, threads: int, gpu: bool) -> None:
        try:
            import ray
        except ImportError:
            raise UsageError("Ray is not installed. Type: pip install 'plugzoo[ray]'") from None
        self._ray: Any = ray
        self._running: dict[Any, Order] = {}
        self._ours = not ray.is_initialized()
        if self._ours:
            ray.init(log_to_driver=False, include_dashboard=False, logging_level="error")
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        fitting = [n for n in nodes if n.get("CPU", 0) >= threads and (not gpu or n.get("GPU"))]
        if not fitting:  # Ray would wait for such a node for ever
            self.close()
            most = int(max((node.get("CPU", 0) for node in nodes), default=0))
            raise UsageError(
                f"No node of the Ray cluster has {threads} CPUs{' and a GPU' if gpu else ''}; the"
                f" largest has {most} CPUs. Type fewer --threads{', or --device cpu' * gpu}."
            )
        self.slots = jobs or sum(int(node["CPU"]) // threads for node in fitting)
        needs = {"num_cpus": threads, "num_gpus": 1 if gpu else 0, "max_retries": 0}
        self._remote = ray.remote(**needs)(_carry_out_there)
        self._site = site

    def start(self, order: Order) -> None:
        self._running[self._remote.remote(order, self._site)] = order

    def wait(self) -> tuple[Order, Line]:
        done, _ = self._ray.wait(list(self._running), num_returns=1)
        order = self._running.pop(done[0])
        try:
            return order, self._ray.get(done[0])
        except self._ray.exceptions.RayTaskError as error:
            cause = error.cause
            text = str(cause if isinstance(cause, ZooError) else error)
            raise _error(type(cause).__name__, text, recurs(cause)) from None
        except self._ray.exceptions.RayError as error:
            raise TrainingError(
                f"Ray lost '{order.name}': {error} Type the same command again to go on."
            ) from None

    def close(self) -> None:
        for reference in self._running:
            self._ray.cancel(reference)  # a KeyboardInterrupt there: it stops after its step
        if self._running:
            self._ray.wait(list(self._running), num_returns=len(self._running), timeout=60)
        self._running = {}
        if self._ours:
            self._ray.shutdown()


def _carry_out_there(order: Order, site: Site) -> Line:
    return carry_out(order, site.workspace())


LAUNCHERS = ("local", "ray")


def launcher_of(
    name: str, workspace: Workspace, jobs: int | None, threads: int, device: str
) -> Launcher:
    """Return the launcher of a name; raises `UsageError` where there is none, or it cannot be."""
    if jobs is not None and jobs < 1:
        raise UsageError(f"jobs: {jobs} is not allowed. Allowed: a whole number from 1.")
    if name == "ray":
        return Ray(Site.of(workspace), jobs, threads, device.startswith("cuda"))
    if name != "local":
        raise UsageError(f"Unknown launcher '{name}'. Launchers: {', '.join(LAUNCHERS)}.")
    return Here(workspace) if jobs in (None, 1) else Processes(Site.of(workspace), jobs or 1)
