"""Where runs are done: processes of this machine, or a Dask cluster. A worker that dies costs time, not rows."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from time import monotonic
from typing import Any, NamedTuple, Protocol

from keyhop.comparison.attempt import Result, Task, attempt
from keyhop.comparison.case import run_id

ATTEMPTS_LIMIT = 3
"""A case that was held by so many dying workers is given up."""
AHEAD = 2
"""Tasks per worker that are handed out: enough that none waits for the next."""
BEAT_S = 1.0
"""How long nothing ends before it is told what is underway."""


class ExecutorError(Exception):
    """Runs cannot be done there; the text says what would help."""


class Underway(NamedTuple):
    """Nothing has ended for a while."""

    tasks: tuple[tuple[Task, float], ...]
    """What workers are at, and for how many seconds."""


class Executor(Protocol):
    def results(self, tasks: Iterable[Task]) -> Iterator[Result | Underway]:
        """One result for each task, as they come. Whoever stops listening ends the workers by closing the iterator."""
        ...


@dataclass(frozen=True)
class Processes:
    workers: int

    def results(self, tasks: Iterable[Task]) -> Iterator[Result | Underway]:
        waiting = deque[Task]()
        more = iter(tasks)
        deaths = Counter[Task]()
        held: dict[Future[Result], Task] = {}
        began: dict[Future[Result], float] = {}
        pool = self._pool()
        try:
            while True:
                broken = False
                while not broken and self._has_room(held, waiting, deaths):
                    task = waiting.popleft() if waiting else next(more, None)
                    if task is None:
                        break
                    try:
                        held[pool.submit(attempt, task)] = task
                    except BrokenProcessPool:
                        waiting.appendleft(task)
                        broken = True
                if not held and not broken:
                    return
                # Workers take tasks in the order in which they were handed out.
                began = {future: began.get(future, monotonic()) for future in islice(held, self.workers)}
                ended = wait(held, timeout=BEAT_S, return_when=FIRST_COMPLETED).done
                if not ended and not broken:
                    yield Underway(tuple((held[future], monotonic() - since) for future, since in began.items()))
                for future in ended:
                    if isinstance(future.exception(), BrokenProcessPool):
                        broken = True
                        continue
                    del held[future]
                    yield future.result()
                if broken:
                    for task in held.values():
                        deaths[task] += 1
                        if deaths[task] < ATTEMPTS_LIMIT:
                            waiting.append(task)
                        else:
                            yield Result(task, error=f"its worker died {deaths[task]} times")
                    held.clear()
                    _end(pool)
                    pool = self._pool()
        finally:
            _end(pool)

    def _has_room(self, held: dict[Future[Result], Task], waiting: deque[Task], deaths: Counter[Task]) -> bool:
        """What a dead worker held runs alone, so that the next death has one suspect."""
        if any(deaths[task] for task in (*held.values(), *islice(waiting, 1))):
            return not held
        return len(held) < self.workers * AHEAD

    def _pool(self) -> ProcessPoolExecutor:
        # Not by fork: this process may have threads.
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(self.workers, context, _settle)


def _settle() -> None:
    """In a new worker. Ctrl-C is for the process that asked, which then ends its workers."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    # A parent that is killed says nothing; its workers would wait for work for ever.
    threading.Thread(target=follow, daemon=True).start()


def _end(pool: ProcessPoolExecutor) -> None:
    """At once: no row is lost by it, as rows are written by the process that asked."""
    processes = list((pool._processes or {}).values())
    pool.shutdown(wait=False, cancel_futures=True)
    for process in processes:
        process.kill()
    for process in processes:
        process.join()


@dataclass(frozen=True)
class Dask:
    workers: int
    """Of a cluster of our own on this machine; a given scheduler has its own."""
    scheduler: str = ""
    """tcp://HOST:PORT or tls://HOST:PORT; empty: a cluster on the loopback address for as long as it is needed."""
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    patience_s: float = 60.0
    """For the scheduler to answer, and for its first worker."""

    def __post_init__(self) -> None:
        """Raises ExecutorError. A scheduler runs what anyone sends who can connect to it."""
        files = (self.tls_ca, self.tls_cert, self.tls_key)
        if any(files) and not (all(files) and self.scheduler.startswith("tls://")):
            raise ExecutorError(
                "TLS takes --tls-ca, --tls-cert and --tls-key together, and a --scheduler tls://HOST:PORT"
            )
        if self.scheduler.startswith("tls://") and not all(files):
            raise ExecutorError(f"{self.scheduler} takes --tls-ca, --tls-cert and --tls-key")
        if self.scheduler.startswith("tcp://") and not _is_loopback(self.scheduler):
            raise ExecutorError(
                f"{self.scheduler} is another machine, and tcp proves nobody's name: use tls://HOST:PORT"
            )
        if self.scheduler and not self.scheduler.startswith(("tcp://", "tls://")):
            raise ExecutorError(f"{self.scheduler} is no scheduler: write tls://HOST:PORT, or tcp://127.0.0.1:PORT")

    def results(self, tasks: Iterable[Task]) -> Iterator[Result]:
        distributed = _distributed()
        with self._client(distributed) as client:
            try:
                client.wait_for_workers(1, timeout=self.patience_s)
            except TimeoutError:
                raise ExecutorError(
                    f"no worker came to {self.scheduler or 'the cluster'} in {self.patience_s:g} s"
                ) from None
            more = iter(tasks)
            held: dict[Any, Task] = {}
            finished = distributed.as_completed()
            while True:
                ahead = max(1, len(client.scheduler_info(n_workers=-1)["workers"])) * AHEAD
                for task in islice(more, max(0, ahead - len(held))):
                    future = client.submit(attempt, task, key=run_id(task.case, task.version), pure=False)
                    held[future] = task
                    finished.add(future)
                if not held:
                    return
                future = next(finished)
                task = held.pop(future)
                try:
                    yield future.result()
                except (distributed.scheduler.KilledWorker, CancelledError) as error:
                    yield Result(task, error=f"its workers died: {type(error).__name__}")
                future.release()

    def _client(self, distributed: Any) -> Any:
        if self.scheduler:
            security = None
            if self.tls_ca:
                security = distributed.Security(
                    tls_ca_file=self.tls_ca,
                    tls_client_cert=self.tls_cert,
                    tls_client_key=self.tls_key,
                    require_encryption=True,
                )
            try:
                return distributed.Client(self.scheduler, security=security, timeout=self.patience_s)
            except OSError as error:
                raise ExecutorError(f"the scheduler {self.scheduler} does not answer: {error}") from None
        return _own_cluster(distributed, self.workers)


def _own_cluster(distributed: Any, workers: int) -> Any:
    cluster = distributed.LocalCluster(
        n_workers=workers,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address=None,
        silence_logs=logging.ERROR,
    )
    client = distributed.Client(cluster)
    close = client.close

    def close_both(*arguments: Any, **options: Any) -> Any:
        answer = close(*arguments, **options)
        cluster.close()
        return answer

    client.close = close_both
    return client


def _distributed() -> Any:
    try:
        import distributed
    except ImportError:
        raise ExecutorError("Dask is not installed: pip install 'keyhop[sweep]'") from None
    return distributed


def _is_loopback(address: str) -> bool:
    from keyhop.files import Address

    try:
        return Address.from_text(address.partition("://")[2]).is_loopback
    except ValueError:
        return False
