"""The driver of one node: events in, batches out, in the order that an Output asks for.

One event loop owns the node and its sockets, one thread owns the commits. What is stepped while a commit is under way
waits for it and goes into the next one, all in one: under load that is group commit. Where the disk has shown to be
quick, brief commits are made in place: to wake the thread and to be woken by it takes as long.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import NamedTuple

from keyhop.core.machine import Close, Deliver, Derived, Frame, Notice, Output, Send
from keyhop.core.model import Refusal, RequestError
from keyhop.core.node.events import Fetch, KeysFetched, Woke
from keyhop.core.node.node import Node
from keyhop.core.node.store import Prepared, Store
from keyhop.crypto.derivation import key_of
from keyhop.crypto.keyid import Coordinates
from keyhop.daemon.exchange import MlKem
from keyhop.daemon.vault import NodeVault

Bits = tuple[bytes, ...]
Answer = Callable[[Deliver, Bits], None]
Wanted = tuple[tuple[Coordinates, ...], bytes]
"""Keys by ID: what the IDs said, and the IDs as the audit record lists them."""
Answers = Callable[[Sequence[tuple[Deliver, Bits]]], None]
"""Takes what came of requests that were fed together, in their order."""

EVENTS_PER_TURN = 512
"""Stepped before sockets get their turn again; each fetch counts."""
GATHER_NS = 500_000
"""A commit waits no longer than this for requests that are just arriving; it costs the same for one as for fifty."""
SLOW_COMMIT_NS = 2_000_000
"""Where a commit takes so long, the next one waits by a timer for those that the last one answered."""
FLOCK_WAIT_LIMIT_NS = 5_000_000
"""Half of what the last commit took, and never longer than this."""
QUICK_COMMIT_NS = 500_000
"""Where brief commits take less than this on average, they are made in place."""
RETRY_S = 5.0
"""When to ask a node again that stops: it may be back by then."""


class Driver:
    """`failed` is set when the node, the vault or the store raised: then nothing more is done and the process must end.

    A crash may lose a key, it can never give one twice; so stopping is always safe.
    """

    def __init__(
        self,
        node: Node,
        vault: NodeVault,
        store: Store,
        *,
        send: Callable[[str, int, Frame], None],
        close: Callable[[str, int, str], None],
        clock: Callable[[], int] = time.monotonic_ns,
        kem: MlKem | None = None,
    ) -> None:
        self.node = node
        self.vault = vault
        self.kem = kem
        self._store = store
        self._send = send
        self._close = close
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._commits: SimpleQueue[tuple[Prepared, Batch] | None] = SimpleQueue()
        self._brief_took = SLOW_COMMIT_NS
        """What brief commits take, in nanoseconds; of each newer one an eighth."""
        # A thread of our own: an executor's future, carried over to the loop, costs three times as much per commit.
        self._thread = Thread(target=self._commit_all, name="store", daemon=True)
        self._thread.start()
        self._inbox: deque[object] = deque()
        self._turn_due = False
        self._waiting = Output()
        self._waiting_answers: list[tuple[Deliver, Bits]] = []
        self._waiting_settled: list[asyncio.Future[None]] = []
        self._committing = False
        self._gathering = False
        self._gather_until = 0
        self._flock = 0
        """Requests that the last commit answered and those that waited then: clients that were answered come back."""
        self._flock_until = 0
        self._flock_timer: asyncio.TimerHandle | None = None
        self._commit_began = 0
        self._wake: asyncio.TimerHandle | None = None
        self._wake_due: int | None = None
        self._answers: dict[int, Answer] = {}
        self._fetches: dict[int, tuple[int, Answers]] = {}
        """First request -> how many there are. One step answers all of them, in their order."""
        self._requests = 0
        self.failed: asyncio.Future[BaseException] = self._loop.create_future()
        self.on_notice: list[Callable[[Notice], None]] = []
        self.on_committed: list[Callable[[], None]] = []
        """Called after each commit, before what it sends and answers (the audit log takes its entries there)."""
        self.commits = 0
        self.durable_start = 0
        """The start number that the store holds; a node that finds itself restored takes a higher one as it runs."""
        self.stopped = False
        self._waiting.merge(node.begin())
        self._flow()

    def __repr__(self) -> str:
        waiting = len(self._answers) + sum(number for number, _ in self._fetches.values())
        return f"Driver({self.node.context.node!r}, {self.commits} commits, {waiting} requests wait)"

    # --- in -----------------------------------------------------------------------------------------------------------

    def feed(self, event: object) -> None:
        self._inbox.append(event)
        if not self._turn_due:
            self._turn_due = True
            self._loop.call_soon(self._turn)

    def ask(self, make: Callable[[int], object], answer: Answer) -> int:
        """Feeds the event that `make` gives for a fresh request number; `answer` is called once with what comes."""
        request = self._expect(answer)
        if not self.stopped:
            self.feed(make(request))
        return request

    def fetch(self, peer: str, wanted: Sequence[Wanted], audit: tuple[bytes, bytes], answer: Answers) -> None:
        """As `ask`, for requests that are judged in one step, each for itself, and have one audit record."""
        first = self._requests + 1
        self._requests += len(wanted)
        if self.stopped:
            answer(_refused(first, len(wanted)))
            return
        self._fetches[first] = (len(wanted), answer)
        self.feed(KeysFetched(peer, [Fetch(first + i, keys, ids) for i, (keys, ids) in enumerate(wanted)], audit))

    def _expect(self, answer: Answer) -> int:
        """A fresh request number. Whoever asks a driver that has stopped is told so at once."""
        self._requests += 1
        if self.stopped:
            answer(Deliver(self._requests, refusal=_stopping()), ())
        else:
            self._answers[self._requests] = answer
        return self._requests

    @property
    def backlog(self) -> int:
        """Events that wait to be stepped."""
        return len(self._inbox)

    async def settled(self) -> None:
        """Returns when all that was fed so far is stepped and durable; raises what made the driver fail."""
        done: asyncio.Future[None] = self._loop.create_future()
        self.feed(done)
        await asyncio.wait((done, self.failed), return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            raise self.failed.result()

    def _turn(self) -> None:
        self._turn_due = False
        if self.stopped:
            return
        try:
            step, batch, now = self.node.step, self._waiting, self._clock()
            left = EVENTS_PER_TURN
            while self._inbox and left > 0:
                event = self._inbox.popleft()
                if isinstance(event, asyncio.Future):
                    self._waiting_settled.append(event)
                else:
                    step(event, now, batch)
                left -= len(event.fetches) if isinstance(event, KeysFetched) else 1
            self._read_answers()
            if self._inbox:
                self._turn_due = True
                self._loop.call_soon(self._turn)
            self._flow_or_gather(now, 1)
        except Exception as error:
            self.fail(error)

    def _read_answers(self) -> None:
        """Takes the bits of fresh answers out of the vault: the commit of this very batch may drop them there."""
        answers, read = self._waiting_answers, self.vault.read
        for deliver in self._waiting.answer[len(answers) :]:
            ranges = deliver.ranges
            if deliver.derived:
                bits = tuple([read(range) if range.length else b"" for range in ranges])
            else:
                bits = (read(ranges[0]),) if len(ranges) == 1 else tuple([read(range) for range in ranges])
            if deliver.made is not None:
                bits = (key_of(bits, deliver.made.size_bits, deliver.made.derivation),)
            if deliver.derived:
                bits = tuple([self._made(*key) for key in zip(bits, deliver.derived, strict=True)])
            answers.append((deliver, bits))

    def _made(self, found: bytes, key: Derived | None) -> bytes:
        """A key that is not the bits of its range, out of these."""
        if key is None:
            return found
        if not key.view:
            return key_of((found,), key.size_bits, key.info)
        assert self.kem is not None
        pair = self.node.context.pairs[key.named.run.peer]
        return self.kem.make(found, key, ours=key.named.run.number & 1 == pair.own_key.id.number & 1)

    # --- out ----------------------------------------------------------------------------------------------------------

    def _flow_or_gather(self, now: int, passes: int) -> None:
        """Lets the loop look at its sockets `passes` times before what waits is committed.

        Requests come in flocks, because their clients were answered together. Whoever is alone waits for nothing.
        """
        if self._flock_timer is not None and len(self._waiting_answers) >= self._flock:
            self._gathered_flock()
        if self._gathering or self._committing:
            return
        if not self._waiting.save:
            self._flow()
            return
        self._gathering = True
        self._gather_until = now + GATHER_NS
        self._loop.call_soon(self._gathered, passes)

    def _gathered(self, passes: int) -> None:
        if self.stopped:
            return
        try:
            if (self._turn_due or passes > 1) and self._clock() < self._gather_until:
                self._loop.call_soon(self._gathered, 1 if self._turn_due else passes - 1)
                return
            left = self._flock_until - self._clock() if len(self._waiting_answers) < self._flock else 0
            if left > 0:
                # Half a commit's time, at most, for a commit less.
                self._flock_timer = self._loop.call_later(left / 1e9, self._gathered_flock)
                return
            self._gathering = False
            self._flow()
        except Exception as error:
            self.fail(error)

    def _gathered_flock(self) -> None:
        """All are back, or those that are not have been waited for long enough."""
        assert self._flock_timer is not None
        self._flock_timer.cancel()
        self._flock_timer, self._gathering = None, False
        try:
            self._flow()
        except Exception as error:
            self.fail(error)

    def _flow(self) -> None:
        """Commits what waits, or, where nothing is to be saved and no commit is under way, does it at once."""
        if self._committing:
            return
        start = self.node.context.start
        batch = Batch(self._waiting, self._waiting_answers, self._waiting_settled, start)
        self._waiting, self._waiting_answers, self._waiting_settled = Output(), [], []
        self._plan_wake()
        output = batch.output
        if not output.save:
            self._release(batch)
            return
        self._committing = True
        self._commit_began = self._clock()
        self.node.complete(output)
        bits = self.vault.collect(output.save)
        prepared = self._store.prepare(output.save, bits)
        if prepared.brief and self._brief_took < QUICK_COMMIT_NS:
            self._committed(self._commit(prepared), batch)
        else:
            self._commits.put((prepared, batch))

    def _commit_all(self) -> None:
        """The thread of the store: one commit at a time, until `stop`."""
        while (wanted := self._commits.get()) is not None:
            prepared, batch = wanted
            failure = self._commit(prepared)
            # The loop is closed when a process ends that could not wait.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._committed, failure, batch)

    def _commit(self, prepared: Prepared) -> BaseException | None:
        """Carries it out, here or in the thread of the store; what it raised is given."""
        began = self._clock()
        try:
            prepared.commit()
        except BaseException as error:
            return error
        if prepared.brief:
            self._brief_took += (self._clock() - began - self._brief_took) // 8
        return None

    def _committed(self, failure: BaseException | None, batch: Batch) -> None:
        self._committing = False
        if failure is not None:
            self.fail(failure)
            return
        if self.stopped:
            return
        try:
            self.commits += 1
            self.durable_start = batch.start
            self.vault.committed(batch.output.save)
            for call in self.on_committed:
                call()
            self._release(batch)
            now = self._clock()
            self._flock = len(batch.answers) + len(self._waiting_answers)
            took = now - self._commit_began
            self._flock_until = now + min(took // 2, FLOCK_WAIT_LIMIT_NS) if took >= SLOW_COMMIT_NS else 0
            # The answers go out in the next pass of the loop, so their clients can be heard after the one that follows.
            self._flow_or_gather(now, 2)
        except Exception as error:
            self.fail(error)

    def _release(self, batch: Batch) -> None:
        output = batch.output
        for sending in output.send:
            match sending:
                case Send(peer=peer, connection=connection, frame=frame):
                    self._send(peer, connection, frame)
                case Close(peer=peer, connection=connection, reason=reason):
                    self._close(peer, connection, reason)
        answers, at = batch.answers, 0
        while at < len(answers):
            deliver, bits = answers[at]
            fetches = self._fetches.pop(deliver.request, None)
            if fetches is not None:
                number, answer_all = fetches
                answer_all(answers[at : at + number])
                at += number
                continue
            at += 1
            answer = self._answers.pop(deliver.request, None)
            if answer is not None:
                answer(deliver, bits)
        for event in output.after:
            self.feed(event)
        for range in output.wipe:
            self.vault.wipe(range)
        for notice in output.notice:
            for call in self.on_notice:
                call(notice)
        for future in batch.settled:
            if not future.done():
                future.set_result(None)

    def _plan_wake(self) -> None:
        due = self.node.context.wake_at
        if due == self._wake_due:
            return
        if self._wake is not None:
            self._wake.cancel()
        self._wake_due = due
        if due is not None:
            self._wake = self._loop.call_later(max(0, due - self._clock()) / 1e9, self._awake)

    def _awake(self) -> None:
        self._wake = self._wake_due = None
        self.feed(Woke())

    def fail(self, error: BaseException) -> None:
        """No retry, no clean-up that could write: after a failed fsync the page cache is unknowable."""
        self._end()
        if not self.failed.done():
            self.failed.set_result(error)

    async def stop(self) -> None:
        """Lets the commit under way return; nothing new is begun."""
        self._end()
        self._commits.put(None)
        await self._loop.run_in_executor(None, self._thread.join)

    def _end(self) -> None:
        """Nothing is stepped any more; whoever waits for an answer is told so."""
        self.stopped = True
        self._inbox.clear()
        if self._wake is not None:
            self._wake.cancel()
        self._wake = self._wake_due = None
        if self._flock_timer is not None:
            self._flock_timer.cancel()
            self._flock_timer = None
        answers, self._answers = self._answers, {}
        for request, answer in answers.items():
            answer(Deliver(request, refusal=_stopping()), ())
        fetches, self._fetches = self._fetches, {}
        for first, (number, answer_all) in fetches.items():
            answer_all(_refused(first, number))


class Batch(NamedTuple):
    """What one commit makes possible."""

    output: Output
    answers: Sequence[tuple[Deliver, Bits]]
    settled: Sequence[asyncio.Future[None]]
    start: int
    """The node's start number, which goes into each commit."""


def _refused(first: int, number: int) -> list[tuple[Deliver, Bits]]:
    return [(Deliver(request, refusal=_stopping()), ()) for request in range(first, first + number)]


def _stopping() -> RequestError:
    return RequestError(Refusal.UNAVAILABLE, "the key manager is stopping", retry_after_s=RETRY_S)
