"""The opening of a link: HELLO, GRANT and PROOF in one direction, over two connections at once, failing at any step.

One end, the sender, proves itself to the other, the receiver; the other direction is the same in a mirror. HELLO and
GRANT are untagged: who has the TLS identity without the shared secret may send either, or play a recorded PROOF.
Positions of the opening run that a claim or a grant jumps to are remembered one by one until a PROOF verifies.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from .search import DEPTH, Broken, Found, search

RULES = {
    "own_mark_checked": "PROOF is never sent below the own mark, nor at a position used before",
    "use_durable": "the position of a PROOF is durably used before it is sent",
    "grant_durable": "a grant is durable before the receiver says it",
    "above_claim": "the receiver grants above the sender's claim too",
    "claim_moves_no_mark": "a claim moves no mark of the receiver before the PROOF verified",
    "grant_moves_no_mark": "what a grant jumps over is burnt only after the peer's PROOF verified",
    "claimed_grants_remembered": "a position granted on the strength of a claim alone is not granted again",
    "proof_covers_hellos": "PROOF is a tag over the HELLOs and GRANTs of its own connection",
    "receiver_takes_larger": "after PROOF the receiver's mark rises, durably, above granted position and told mark",
    "sender_takes_larger": "after the peer's PROOF the sender's mark rises, durably, above the position it used",
    "proof_tells_used": "PROOF tells the mark of now and the positions used above it: the receiver grants none of them",
    "dead_receiver_refused": "after a PROOF to one start of the receiver no grant of an earlier start is taken",
    "higher_start_stays": "of two incarnations that have proved themselves the higher start number stays",
    "nothing_before_proof": "an end that has just started gives out nothing before a PROOF verified",
}


class Scope(NamedTuple):
    positions: int
    crashes: int
    restores: int
    impostor_hellos: int
    """Connections to the receiver by who has the TLS identity alone."""
    impostor_grants: int
    """Grants to the sender by who has the TLS identity alone. Together with a restore of the sender they make it use
    a key twice: the limit that the security page states."""


SCOPES: tuple[Scope, ...] = (
    Scope(positions=3, crashes=0, restores=2, impostor_hellos=0, impostor_grants=0),
    Scope(positions=3, crashes=1, restores=1, impostor_hellos=0, impostor_grants=0),
    Scope(positions=3, crashes=0, restores=1, impostor_hellos=1, impostor_grants=0),
    Scope(positions=3, crashes=1, restores=0, impostor_hellos=0, impostor_grants=2),
)
if DEPTH:
    SCOPES = (
        *SCOPES,
        Scope(positions=4, crashes=1, restores=2, impostor_hellos=0, impostor_grants=0),
        Scope(positions=4, crashes=0, restores=1, impostor_hellos=2, impostor_grants=0),
        Scope(positions=4, crashes=1, restores=0, impostor_hellos=1, impostor_grants=2),
    )


class Slot(NamedTuple):
    """A connection and the one message under way in it."""

    stage: str
    """hello, grant, proof or verified"""
    start: int
    """Of the sender that opened it; -1 is the impostor."""
    claim: int
    position: int = -1
    by: int = -1
    """Start number of the receiver that granted."""
    told: tuple[int, ...] = ()
    """The sender's mark and the used positions above it, as PROOF tells them."""


class State(NamedTuple):
    start: int
    """Of the sender; kept by its anchor."""
    mark: int
    used: tuple[int, ...]
    """Positions used above the mark."""
    sender_disk: tuple[int, tuple[int, ...]]
    sender_copy: tuple[int, tuple[int, ...]]
    granted: int
    beyond: tuple[int, ...]
    """Positions granted above the mark, on claims."""
    receiver_disk: tuple[int, tuple[int, ...]]
    receiver_copy: tuple[int, tuple[int, ...]]
    receiver_start: int
    proved_to: int
    """The highest start of the receiver that the sender's process has sent a PROOF to."""
    current: int
    """The highest start number that has proved itself to the receiver."""
    opened: bool
    slots: tuple[Slot, ...]
    sent: tuple[int, ...]
    """Positions of PROOFs that went out."""
    pending: str
    crashes: int
    restores: int
    impostor_hellos: int
    impostor_grants: int


def initial() -> State:
    zero: tuple[int, tuple[int, ...]] = (0, ())
    return State(0, 0, (), zero, zero, 0, (), zero, zero, 0, -1, -1, False, (), (), "", 0, 0, 0, 0)


def wrong(s: State) -> str | None:
    return None


CONNECTIONS = 2


class Opening:
    def __init__(self, scope: Scope, off: frozenset[str], limit: bool = False) -> None:
        unknown = off - RULES.keys()
        if unknown:
            raise ValueError(f"unknown rules {sorted(unknown)}")
        self.scope = scope
        self.off = off
        # Forged grants and a restored sender together are the limit that docs/security.md states.
        self.sender_restored = limit or not scope.impostor_grants

    def on(self, rule: str) -> bool:
        return rule not in self.off

    def steps(self, s: State) -> Iterator[tuple[str, State | Broken]]:
        if len(s.slots) < CONNECTIONS:
            yield f"sender connects, HELLO claims {s.mark}", opens(s, Slot("hello", s.start, s.mark))
            if s.impostor_hellos < self.scope.impostor_hellos:
                for claim in range(self.scope.positions):
                    more = s._replace(impostor_hellos=s.impostor_hellos + 1)
                    yield f"impostor connects, HELLO claims {claim}", opens(more, Slot("hello", -1, claim))
        for slot in dict.fromkeys(s.slots):
            rest = closed(s, slot)
            yield f"the connection of {slot} breaks", rest
            yield from self.advance(s, rest, slot)
        if s.opened or not self.on("nothing_before_proof"):
            if s.opened:
                yield "receiver supplies", s
            else:
                yield "receiver supplies", Broken("I7: a just started end supplies before any PROOF verified")
        yield from self.faults(s)

    def advance(self, s: State, rest: State, slot: Slot) -> Iterator[tuple[str, State | Broken]]:
        if slot.stage == "hello":
            yield f"receiver receives {slot}", self.grant(rest, slot)
        elif slot.stage == "grant" and slot.start == -1:
            if slot.position in s.sent and not self.on("proof_covers_hellos"):
                yield (
                    f"impostor plays the recorded PROOF at {slot.position}",
                    Broken("I6: an impostor has proved itself"),
                )
        elif slot.stage == "grant":
            yield f"sender receives {slot}", self.prove(rest, slot)
            if s.impostor_grants < self.scope.impostor_grants:
                for position in range(self.scope.positions):
                    forged = slot._replace(position=position)
                    more = rest._replace(impostor_grants=s.impostor_grants + 1)
                    yield f"sender receives a forged {forged}", self.prove(more, forged, forged=True)
        elif slot.stage == "proof":
            yield f"receiver receives {slot}", self.verify(rest, slot)
        elif slot.stage == "verified":
            yield f"sender has verified the receiver's PROOF in {slot}", self.sender_takes(rest, slot)

    def grant(self, s: State, slot: Slot) -> State | Broken:
        position = max(s.granted, slot.claim) if self.on("above_claim") else s.granted
        while position in s.beyond:
            position += 1
        if position >= self.scope.positions:
            return s
        granted, beyond = s.granted, s.beyond
        if position == granted or not self.on("claim_moves_no_mark"):
            if position > granted and slot.start == -1:
                return Broken(f"an unproved claim moves the receiver's mark from {granted} to {position + 1}")
            granted = position + 1
        elif self.on("claimed_grants_remembered"):
            beyond = tuple(sorted({*beyond, position}))
        while granted in beyond:
            granted += 1
        s = s._replace(granted=granted, beyond=tuple(each for each in beyond if each > granted))
        if self.on("grant_durable"):
            s = s._replace(receiver_disk=(s.granted, s.beyond))
        return opens(s, slot._replace(stage="grant", position=position, by=s.receiver_start))

    def prove(self, s: State, slot: Slot, forged: bool = False) -> State | Broken:
        position = slot.position
        if slot.by < s.proved_to and self.on("dead_receiver_refused"):
            return s
        if self.on("own_mark_checked") and (position < s.mark or position in s.used):
            if forged:
                return s
            if position < slot.claim:
                return Broken(f"the grant of {position} is below the claim of {slot.claim}: refused, and no way on")
            if slot.by == s.receiver_start and not s.slots and self.next_grant(s) == position:
                return Broken(f"the grant of {position} is refused and would come again for ever")
            return s
        if position in s.sent:
            return Broken(f"I6: opening key {position} masks two PROOFs")
        mark, used = s.mark, tuple(sorted({*s.used, position}))
        if not self.on("grant_moves_no_mark"):
            if position > mark and forged:
                return Broken(f"an unproved grant moves the sender's mark from {mark} to {position + 1}")
            mark = max(mark, position + 1)
        s = self.save_sender(s, mark, used, "use_durable")
        # A forged grant came from the impostor, who keeps the PROOF.
        sent = s._replace(sent=tuple(sorted((*s.sent, position))))
        if forged or slot.by != s.receiver_start:
            return sent
        told = (s.mark, *s.used) if self.on("proof_tells_used") else ()
        return opens(sent._replace(proved_to=slot.by), slot._replace(stage="proof", told=told))

    def next_grant(self, s: State) -> int:
        after = self.grant(s, Slot("hello", s.start, s.mark))
        return after.slots[0].position if isinstance(after, State) and after.slots else -1

    def save_sender(self, s: State, mark: int, used: tuple[int, ...], rule: str = "") -> State:
        while mark in used:
            mark += 1
        used = tuple(each for each in used if each > mark)
        s = s._replace(mark=mark, used=used)
        return s._replace(sender_disk=(mark, used)) if rule not in self.off else s

    def verify(self, s: State, slot: Slot) -> State | Broken:
        if slot.start < s.current:
            if self.on("higher_start_stays"):
                return s
            return Broken(f"incarnation {slot.start} takes the link from incarnation {s.current}")
        granted, beyond = s.granted, s.beyond
        if self.on("receiver_takes_larger"):
            granted = max(granted, slot.position + 1, *slot.told[:1])
            beyond = tuple(sorted({*beyond, *slot.told[1:]}))
        while granted in beyond:
            granted += 1
        beyond = tuple(each for each in beyond if each > granted)
        s = s._replace(granted=granted, beyond=beyond, receiver_disk=(granted, beyond), current=slot.start, opened=True)
        if s.pending == "receiver":
            s = s._replace(pending="")
        return opens(s, slot._replace(stage="verified", told=())) if slot.start == s.start else s

    def sender_takes(self, s: State, slot: Slot) -> State:
        if s.pending == "sender":
            s = s._replace(pending="")
        if not self.on("sender_takes_larger"):
            return s
        return self.save_sender(s, max(s.mark, slot.position + 1), s.used)

    def faults(self, s: State) -> Iterator[tuple[str, State]]:
        if s.crashes < self.scope.crashes:
            crashed = s._replace(crashes=s.crashes + 1)
            yield "sender crashes and starts", start_sender(crashed)
            yield "receiver crashes and starts", start_receiver(crashed)
        if s.restores == self.scope.restores:
            return
        restored = s._replace(restores=s.restores + 1)
        if restored.restores == self.scope.restores:
            # Copies that cannot come back any more need no telling apart.
            restored = restored._replace(sender_copy=(0, ()), receiver_copy=(0, ()))
        if s.pending != "receiver" and self.sender_restored:
            disk = restored._replace(sender_disk=s.sender_copy, pending="sender")
            yield f"sender is restored to {s.sender_copy} and starts", start_sender(disk)
            if s.sender_copy != s.sender_disk:
                yield "sender's store is copied", s._replace(sender_copy=s.sender_disk)
        if s.pending != "sender":
            disk = restored._replace(receiver_disk=s.receiver_copy, pending="receiver")
            yield f"receiver is restored to {s.receiver_copy} and starts", start_receiver(disk)
            if s.receiver_copy != s.receiver_disk:
                yield "receiver's store is copied", s._replace(receiver_copy=s.receiver_disk)


def opens(s: State, slot: Slot) -> State:
    return s._replace(slots=tuple(sorted((*s.slots, slot))))


def closed(s: State, slot: Slot) -> State:
    at = s.slots.index(slot)
    return s._replace(slots=s.slots[:at] + s.slots[at + 1 :])


def start_sender(s: State) -> State:
    """What the dead process has sent may still arrive."""
    mark, used = s.sender_disk
    under_way = tuple(slot for slot in s.slots if slot.start == -1 or slot.stage in ("hello", "proof"))
    return s._replace(start=s.start + 1, mark=mark, used=used, proved_to=-1, slots=under_way)


def start_receiver(s: State) -> State:
    granted, beyond = s.receiver_disk
    under_way = tuple(slot for slot in s.slots if slot.start != -1 and slot.stage in ("grant", "verified"))
    return s._replace(
        receiver_start=s.receiver_start + 1,
        granted=granted,
        beyond=beyond,
        current=-1,
        opened=False,
        slots=under_way,
    )


def explore(scope: Scope, *off: str) -> Found:
    """Search with these rules off."""
    return search(initial(), Opening(scope, frozenset(off)).steps, wrong)
