"""Mutants of the product, each a rule of the link left out: the world must find every one of them.

A mutant replaces one function by a wrong one. If no schedule fails under it, the checker is blind in that place.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from keyhop.core.machine import Drop
from keyhop.core.messages import AnswerLease, NameSecret
from keyhop.core.model import Purpose, Range
from keyhop.core.node import block_numbers, frames, node, opening, recovery
from keyhop.core.node.burning import Burning
from keyhop.core.node.extents import Extents
from keyhop.core.node.leases import Leases
from keyhop.core.node.merging import Merging
from keyhop.core.node.node import Node
from keyhop.core.node.pads import Pads
from keyhop.core.node.pair import Keyed, Pair
from keyhop.core.node.rows import SegmentRow
from keyhop.core.node.run import UNTOUCHED, Run
from keyhop.core.node.secrets import Secrets
from keyhop.core.node.starts import Starts
from keyhop.core.node.tags import Receiver
from keyhop.daemon.vault import NodeVault
from keyhop.simulator.disk import PretendDisk

from .run import Case, run_cases

SEEDS = 1000
"""Within so many schedules each mutant is found."""


@contextlib.contextmanager
def swapped(*swaps: tuple[Any, str, Any]) -> Iterator[None]:
    before = [
        (owner, name, owner.__dict__[name] if isinstance(owner, type) else getattr(owner, name))
        for owner, name, _ in swaps
    ]
    for owner, name, wrong in swaps:
        setattr(owner, name, wrong)
    try:
        yield
    finally:
        for owner, name, right in before:
            setattr(owner, name, right)


def removed_fsync() -> Any:
    right = PretendDisk.__init__

    def init(self: PretendDisk) -> None:
        right(self)
        self.forgets = 3

    return swapped((PretendDisk, "__init__", init))


def lease_used_before_the_acknowledgement() -> Any:
    right = Leases.want

    def want(self: Leases, pair: Pair, purpose: Purpose, size_bytes: int) -> bool:
        pending = self.pending(pair, purpose)
        asked = right(self, pair, purpose, size_bytes)
        if asked and not pending and purpose is Purpose.SUPPLY:
            for lease in self.asked.get(pair.peer, {}).values():
                if lease.purpose is Purpose.SUPPLY:
                    for start, length in lease.spans:
                        pair.stock.add(start, start + length)
        return asked

    return swapped((Leases, "want", want))


def _acknowledge_anything(self: Leases, pair: Pair, message: Any) -> None:
    run = pair.their_key
    for start, _ in message.segments:
        segment = run.segments.get(start)
        if segment is not None and segment.mark == UNTOUCHED:
            self.context.put(run.segment_row(run.set_mark(segment, Purpose(message.purpose))))
    self.context.say(pair, AnswerLease(message.request, True))


def acknowledged_without_looking_at_the_own_record() -> Any:
    return swapped((Leases, "requested", _acknowledge_anything), (Merging, "_merge_key_run", lambda *_: None))


def a_stored_free_list() -> Any:
    """The owner believes its own list of free segments, whatever the peer's record says."""
    right = Run.exactly

    def exactly(self: Run, spans: Any, mark: str) -> Any:
        if self.owned:
            return right(self, spans, mark)
        return [self.segments[start] for start, _ in spans if start in self.segments] or None

    def requested(self: Leases, pair: Pair, message: Any) -> None:
        _acknowledge_anything(self, pair, message)

    return swapped(
        (Run, "exactly", exactly), (Leases, "requested", requested), (Merging, "_merge_key_run", lambda *_: None)
    )


def a_lease_kept_over_a_restart() -> Any:
    right, commit = recovery.recover, PretendDisk.commit

    def recover(context: Any, snapshot: Any, supply: Any, secrets: Any, *more: Any) -> None:
        right(context, snapshot, supply, secrets, *more)
        for row in snapshot.rows:
            if isinstance(row, SegmentRow) and row.mark == Purpose.SUPPLY and row.peer in context.pairs:
                pair = context.pairs[row.peer]
                if pair.runs[row.run].owned:
                    pair.stock.add(row.start, row.start + row.length)

    def keeping(self: PretendDisk, saves: Any, bits: Any) -> None:
        commit(self, [save for save in saves if not isinstance(save, Drop)], bits)

    return swapped((node, "recover", recover), (PretendDisk, "commit", keeping))


def tag_positions_granted_twice() -> Any:
    right = Receiver.top_up

    def top_up(self: Receiver, mark: int) -> Any:
        return right(self, max(0, mark - 64))

    def believed(spans: Any, mark: int, present: Extents) -> int:
        return max([mark, *(start + length for start, length in spans)])

    # The sender looks, too: with its check left in, the link closes and nothing is used twice.
    return swapped(
        (Receiver, "top_up", top_up), (frames, "check_credit", believed), (opening, "check_credit", believed)
    )


def a_pad_used_again() -> Any:
    """A retry with new plaintext under the same pad."""
    right = Pads.take

    def take(self: Pads, pair: Pair, length: int, *more: Any) -> Any:
        taken = right(self, pair, length, *more)
        for start, size in taken or ():
            pair.pads.add(start, start + size)
        return taken

    return swapped((Pads, "take", take))


def a_block_accepted_twice() -> Any:
    return swapped((block_numbers, "seen", lambda marks, number: False))


def dec_keys_outside_a_lease() -> Any:
    def leased(self: Run, start: int, end: int, purpose: Purpose) -> Any:
        segment = self.segments.at(start)
        return [segment] if segment is not None and end <= segment.end else None

    return swapped((Run, "leased", leased))


def swapped_directions() -> Any:
    return swapped((Pair, "their_key", property(lambda self: self.own_key)))


def the_used_map_not_looked_at() -> Any:
    return swapped((Extents, "touches", lambda self, start, end: False))


def a_restore_ignored() -> Any:
    return swapped((Node, "_found_restored", lambda *_: None), (Starts, "check", lambda *_: True))


def proof_not_compared() -> Any:
    """Each end keeps to its own record, whatever the other's PROOF says of the runs."""
    return swapped((Merging, "merge", lambda *_: None))


def a_burn_forgotten() -> Any:
    return swapped((Burning, "burn_leases", lambda *_: None))


def behind_judged_by_the_number_of_today() -> Any:
    right = Starts.check

    def check(self: Starts, pair: Pair, proof: Any) -> bool:
        ahead = proof.told_start > self.context.start or proof.told_journal > self.context.journal
        return right(self, pair, proof) if ahead else True

    return swapped((Starts, "check", check))


def a_secret_numbered_by_count() -> Any:
    """A restored issuer counts up to numbers that its peer holds other bits under."""

    def name(self: Secrets, pair: Pair) -> None:
        epoch = max(pair.secrets[self.context.node], default=0) + 1

        def make(key: Range) -> NameSecret:
            self._keep(pair, self.context.node, epoch, key)
            return NameSecret(epoch, key.start)

        self.context.say(pair, Keyed(make))

    return swapped((Secrets, "_name", name))


def a_block_taken_unequal() -> Any:
    return swapped((NodeVault, "matches", lambda *_: True))


def a_tag_position_accepted_twice() -> Any:
    return swapped((Receiver, "accept", lambda self, position: None))


class Sabotage(NamedTuple):
    make: Callable[[], Any]
    nodes: int | None = None
    """How many nodes it takes to show."""


SABOTAGES = (
    Sabotage(removed_fsync, 2),
    Sabotage(lease_used_before_the_acknowledgement, 2),
    Sabotage(acknowledged_without_looking_at_the_own_record, 2),
    Sabotage(a_stored_free_list, 2),
    Sabotage(a_lease_kept_over_a_restart, 2),
    Sabotage(tag_positions_granted_twice, 2),
    Sabotage(a_pad_used_again, 3),
    Sabotage(a_block_accepted_twice, 2),
    Sabotage(dec_keys_outside_a_lease, 2),
    Sabotage(swapped_directions, 2),
    Sabotage(the_used_map_not_looked_at, 2),
    Sabotage(a_restore_ignored, 2),
    Sabotage(proof_not_compared, 2),
    Sabotage(a_burn_forgotten, 2),
    Sabotage(behind_judged_by_the_number_of_today, 2),
    Sabotage(a_secret_numbered_by_count, 2),
    Sabotage(a_block_taken_unequal, 2),
    Sabotage(a_tag_position_accepted_twice, 2),
)


def hunt(sabotage: Sabotage, jobs: int, seeds: int = SEEDS) -> tuple[int, str] | None:
    """(schedules it took, what was found), or None if nobody noticed."""
    with sabotage.make():
        for tried in range(0, seeds, 8 * jobs):
            cases = [Case(seed, sabotage.nodes, None) for seed in range(tried, min(seeds, tried + 8 * jobs))]
            for result in run_cases(cases, jobs):
                if result.wrong:
                    return result.case.seed + 1, result.kind
    return None


def hunt_all(jobs: int) -> int:
    whole = [result for result in run_cases([Case(seed) for seed in range(8 * jobs)], jobs) if result.wrong]
    if whole:
        print(f"0 passed, 1 failed: schedules fail without a sabotage: {whole[0].case.command}")
        return 1
    missed = 0
    for sabotage in SABOTAGES:
        began = time.monotonic()
        found = hunt(sabotage, jobs)
        missed += found is None
        outcome = f"found by schedule {found[0]}: {found[1]}" if found else f"NOT FOUND in {SEEDS} schedules"
        print(f"{sabotage.make.__name__}: {outcome} ({time.monotonic() - began:.1f} s)", flush=True)
    print(f"{len(SABOTAGES) - missed} passed, {missed} failed")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(hunt_all(2))
