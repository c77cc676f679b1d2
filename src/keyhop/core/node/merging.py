"""What the two ends of a pair know of their runs, compared at each opening; what differs is burnt."""

from __future__ import annotations

from collections.abc import Sequence

from keyhop.core.messages import Proof, RunState
from keyhop.core.model import PeerError, RunKind
from keyhop.core.node.burning import Burning
from keyhop.core.node.context import Context
from keyhop.core.node.extents import Extents
from keyhop.core.node.pair import Pair
from keyhop.core.node.run import GONE, GONE_LIMIT, UNTOUCHED, Run


def merged_opening(run: Run, states: Sequence[RunState]) -> Extents:
    """What of an opening run neither end uses or grants again, from its mark on. Raises PeerError if it is too much."""
    (state,) = (state for state in states if state.run == run.id.number)
    gone = Extents([*run.gone, *((start, start + length) for start, length in state.touched)])
    gone.remove(0, max(run.mark, state.floor))
    if len(gone) > max(GONE_LIMIT, len(run.gone)):
        raise PeerError(f"opening run {run.id.number} in {len(gone)} pieces above its mark: {GONE_LIMIT} are kept")
    return gone


class Merging:
    def __init__(self, context: Context, burning: Burning) -> None:
        self.context = context
        self.burning = burning

    def check(self, pair: Pair, states: tuple[RunState, ...]) -> None:
        if sorted(state.run for state in states) != sorted(pair.runs):
            raise PeerError(f"PROOF names runs {[s.run for s in states]}: {sorted(pair.runs)} exist")
        for state in states:
            last = state.floor
            if last > state.append:
                raise PeerError(f"PROOF: floor {last} of run {state.run}, which ends at {state.append}")
            for start, length in state.touched:
                if start < last or start + length > state.append:
                    raise PeerError(f"PROOF: touched span {start}+{length} of run {state.run} is out of order")
                last = start + length

    def merge(self, pair: Pair, proof: Proof) -> None:
        context = self.context
        for state in proof.runs:
            run = pair.runs[state.run]
            touched = Extents((start, start + length) for start, length in state.touched)
            if run.kind is RunKind.KEY:
                self._merge_key_run(pair, run, state, touched)
            else:
                for start, end in list(touched):
                    self.burning.burn(run, start, end)
                self.burning.burn(run, max(state.append, state.floor), 1 << 40)
                if run.kind is RunKind.OPENING:
                    run.raise_mark(state.floor)
                    self.burning.burn(run, 0, run.mark)
            if state.append > run.append:
                # Positions that one end lacks are burnt, never refilled.
                run.append = state.append
            context.put(run.row())
            context.book(run)
        known = (pair.peer_epoch, pair.peer_epoch_incarnation)
        if pair.peer_epoch and (proof.epoch, proof.epoch_incarnation) != known:
            self.burning.burn_leases(pair, f"{pair.peer} began epoch {proof.epoch}")

    def _merge_key_run(self, pair: Pair, run: Run, state: RunState, touched: Extents) -> None:
        if run.owned:
            # What the follower destroyed below its floor serves nobody: an owner with a lower floor was restored.
            touched.add(0, state.floor)
        for stretch in run.segments.stretches():
            if stretch.mark == UNTOUCHED:
                for segment in stretch.segments():
                    if segment.end > state.append or touched.touches(segment.start, segment.end):
                        self.burning.burn_segment(run, segment.start)
            elif stretch.mark != GONE and run.owned:
                for segment in stretch.segments():
                    known = state.floor <= segment.start and segment.end <= state.append
                    if not known or not touched.covers(segment.start, segment.end):
                        # A lease that the follower does not know of cannot be fetched from: the follower was restored.
                        self.burning.take_back(pair, segment.start, segment.end)
                        self.burning.burn_segment(run, segment.start)
