"""What goes into a simulated run and what comes out of it: demands, faults, outcomes, books."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from keyhop.simulator.blocks import BLOCK_NS


class Stream(NamedTuple):
    """One pair of applications, known from `starts_ns` to `ends_ns`; designs with sessions register it."""

    name: str
    master: str
    """The node whose application asks."""
    slave: str
    """The node whose application then wants the same key."""
    rate_bps: int
    """Registered mean demand."""
    size_bits: int
    """The largest key it asks for."""
    service_class: str = "best_effort"
    category: int = 3
    starts_ns: int = 0
    ends_ns: int | None = None
    min_bps: int = 0
    """What it shall get in every second in which it waits for that much; 0 promises nothing."""


class Demand(NamedTuple):
    """One request for a key of `size_bits`."""

    number: int
    at_ns: int
    stream: str
    master: str
    """The node it is asked at; `slave` is where the other copy is wanted."""
    slave: str
    size_bits: int
    deadline_ns: int
    """From asking to both ends holding the key."""
    service_class: str = "best_effort"
    category: int = 3
    security_level: int = 5


class Trouble(StrEnum):
    LINK_STOPS = "link_stops"
    """The quantum link `where` ("A|B") makes no key for `for_ns`."""
    MESSAGES_LOST = "messages_lost"
    """Of the messages between key managers this share is lost from now on."""
    CHUNK_LOST = "chunk_lost"
    """The next block of the link `where` reaches only the first-named end."""
    NODE_RESTARTS = "node_restarts"
    """The key manager `where` loses its memory and is back after `for_ns`."""


class Fault(NamedTuple):
    at_ns: int
    trouble: Trouble
    where: str = ""
    for_ns: int = 0
    share: float = 0.0


class Scenario(NamedTuple):
    """Everything a run is fed with: the same for every design, made from a seed."""

    streams: tuple[Stream, ...]
    demands: tuple[Demand, ...]
    """By time."""
    faults: tuple[Fault, ...] = ()
    rate_changes: tuple[tuple[int, str, int], ...] = ()
    """(at_ns, stream, new registered rate in bit/s)"""
    one_way_delay_ns: int | None = None
    """Of messages between neighbouring key managers, where the workload sets it; None: as the network has it."""
    block_ns: int = BLOCK_NS
    """Between two blocks of a link, on average."""


class Verdict(StrEnum):
    SUPPLIED = "supplied"
    """Both ends hold the key."""
    REFUSED = "refused"
    TIMED_OUT = "timed_out"
    """Asked for or given at one end, but not held by both by the deadline."""
    UNSERVABLE = "unservable"
    """This design cannot serve such a request at all: n/a, never counted as a failure."""


class Outcome(NamedTuple):
    """What became of one demand."""

    number: int
    verdict: Verdict
    done_ns: int
    """When both ends held it, or when it was refused or given up."""
    its: bool = False
    equal: bool = True
    """False: both ends got a key, and not the same."""
    attempts: int = 1


class EndBook(NamedTuple):
    """The ledger of one end of one pair, in bits (letters as in the two books; `docs/concepts.md`)."""

    node: str
    peer: str
    kind: str
    """local or global"""
    G: int = 0
    N: int = 0
    D: int = 0
    O: int = 0  # noqa: E741 the ledger's letter
    C: int = 0
    R: int = 0
    T: int = 0
    A: int = 0
    X: int = 0
    Y: int = 0
    S: int = 0
    F: int = 0
    """Derived and exchanged bits, outside the equation."""
    burnt: int = 0
    """Tag bits of all messages, those from pre-shared key too."""

    @property
    def balanced(self) -> bool:
        if self.kind == "local":
            return self.G == self.D + self.O + self.C + self.R + self.T + self.A + self.X + self.Y + self.S
        return self.N + self.T == self.D + self.O + self.C + self.A + self.X + self.Y + self.S


class Record(NamedTuple):
    """One run."""

    seconds: float
    scenario: Scenario
    outcomes: tuple[Outcome, ...]
    """One for each demand, in the order of their numbers."""
    books: tuple[EndBook, ...]
    messages: int = 0
    """Between key managers."""
    serves: int = 0
    """Keys taken at an end to be given away, retries too."""
    collided: int = 0
    """Keys destroyed because both ends had taken them."""
    events: int = 0
    reserved_bit_ns: int = 0
    """Stock that was reserved for somebody and not used, over time."""
    stock_bit_ns: int = 0
    exposed_bit_ns: int = 0
    """Used key that was still present, over time."""
    peak_stored_bytes: int = 0
    resync_ns: tuple[int, ...] = ()
    """For each fault: from the first difference to the next equal key."""
    admitted: frozenset[str] | None = None
    """Streams that were admitted; None: the design has no admission."""
    cpu_ns: int | None = None
    """Processor time of all key managers; None: not measured, as in a simulated run."""
