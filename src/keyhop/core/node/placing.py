"""Where agreed bits go: positions in runs, cut into segments, stored with what is known of where they come from."""

from __future__ import annotations

from collections.abc import Iterable

from keyhop.core.designs import Running
from keyhop.core.machine import Seal
from keyhop.core.messages import Placement, Span
from keyhop.core.model import POSITION_LIMIT, PeerError, Range, RunKind
from keyhop.core.node.context import Context
from keyhop.core.node.ledger import Account
from keyhop.core.node.pair import Pair
from keyhop.core.node.provenance import Provenance, Provenances
from keyhop.core.node.rows import OriginRow
from keyhop.core.node.run import UNTOUCHED, Run, Segment
from keyhop.core.node.vault import BlockName
from keyhop.core.policy.division import Want

FLOOR_BYTES = 4096
"""Each authentication run of a link is filled to this before anything else."""
DISTANT_FLOOR_BYTES = 256
"""The same for a tag run of a distant pair, whose every byte cost one per hop; its opening runs have half of that."""
TAG_LIMIT_BYTES = 32_768
PADS_COUNTED_BYTES = 2048


class Placing:
    def __init__(self, context: Context, design: Running) -> None:
        self.context = context
        self.design = design
        self.one_run = False
        """Set by the node: another design has the stock, and all of it lies in the proposer's run."""
        self.unconfirmed: dict[tuple[str, str, int], tuple[Placement, ...]] = {}
        """Blocks that are stored here, until the other end says that it has stored them too."""

    def lost(self, pair: Pair) -> None:
        for key in [key for key in self.unconfirmed if key[0] == pair.peer]:
            del self.unconfirmed[key]

    def place(self, pair: Pair, length: int, floor_bytes: int, *, own_only: bool = False) -> tuple[Placement, ...]:
        """Says where a block goes and raises the append marks, durably before the proposal leaves.

        Relayed key goes to the source's own runs alone: two sources that relay to each other never meet.
        """
        openings = (pair.own_opening,) if own_only else (pair.own_opening, pair.their_opening)
        tags = (pair.own_tags,) if own_only else (pair.own_tags, pair.their_tags)
        keys = (pair.own_key,) if own_only or self.one_run else (pair.own_key, pair.their_key)
        limit = self.context.settings.stock_limit_bytes
        if self.one_run:
            # What both directions may hold.
            limit *= 2
        # Beyond their floors tag runs are filled no further than key runs: what is wanted now comes first.
        tag_limit = TAG_LIMIT_BYTES
        if not self.one_run:
            tag_limit = max(floor_bytes, min(TAG_LIMIT_BYTES, *(run.untouched for run in keys)))
        if own_only:
            floors = self.distant_floors(pair, floor_bytes)
        else:
            floors = [Want(run.id.number, run.available(), floor_bytes) for run in (*tags, *openings)]
        dealt = self.design.division.deal(
            length,
            floors=floors,
            tags=[Want(run.id.number, run.available(), tag_limit) for run in tags if not own_only],
            keys=[Want(run.id.number, self._stock_bytes(pair, run), limit) for run in keys],
        )
        placements = []
        for number, take in dealt:
            run = pair.runs[number]
            if run.append + take > POSITION_LIMIT:
                self.context.notice("KH-2301", f"run {number} with {pair.peer} is at its end", pair.peer)
                continue
            placements.append((number, run.append, take))
            run.place(run.append, take)
            self.context.put(run.row())
        return tuple(placements)

    def _stock_bytes(self, pair: Pair, run: Run) -> int:
        """What a direction has; where that is little, with its pads that nobody has used: they wait for the other's.

        Not many of them count: the owner of a run may have lost a lease that is remembered here.
        """
        stock = run.untouched
        if self.one_run:
            return stock + pair.hosted.total()
        if stock >= PADS_COUNTED_BYTES:
            return stock
        return stock + min(PADS_COUNTED_BYTES, pair.pads.total() if run.owned else run.pads_bytes())

    @staticmethod
    def distant_floors(pair: Pair, tags_bytes: int) -> list[Want]:
        """What a batch brings of authentication keys, where much is lacking: to say that they are there costs one.

        What a connection was granted ends with it, so what counts is what none was.
        """
        floors = (
            (pair.own_tags, tags_bytes, DISTANT_FLOOR_BYTES // 2),
            (pair.own_opening, tags_bytes // 2, DISTANT_FLOOR_BYTES // 4),
        )
        return [
            Want(run.id.number, here, floor)
            for run, floor, spare in floors
            if (here := run.grantable()) < floor - spare
        ]

    def check(self, pair: Pair, placements: tuple[Placement, ...], segment_bytes: int, length: int) -> bool:
        """Raises PeerError unless the placements are legal; False if they are below our append marks.

        The latter happens to honest peers: both ends may append to a run at the same time, one of them by relay.
        """
        if segment_bytes & (segment_bytes - 1) or not 1024 <= segment_bytes <= 65_536:
            raise PeerError(f"segments of {segment_bytes} bytes: a power of two from 1024 to 65536 is legal")
        marks: dict[int, int] = {}
        fits = True
        if sum(take for _, _, take in placements) > length:
            raise PeerError(f"placements of more than the {length} bytes of the block")
        for number, start, take in placements:
            run = pair.runs.get(number)
            if run is None or take <= 0 or start < marks.get(number, 0) or start + take > POSITION_LIMIT:
                raise PeerError(f"placement of {take} bytes at {start} of run {number}: out of order or no such run")
            fits = fits and start >= run.append
            marks[number] = start + take
        return fits

    def store(
        self,
        pair: Pair,
        name: BlockName,
        placements: tuple[Placement, ...],
        segment_bytes: int,
        known: Iterable[tuple[int, Provenance]],
        *,
        placed: bool,
        account: Account = Account.G,
        offset: int = 0,
        mark: str = UNTOUCHED,
    ) -> tuple[Span, ...]:
        """Cuts an agreed block, from byte `offset` on, into runs, durably with this step; gives its key segments.

        `known`: (length, where they come from) of the block's bytes, from its first on. `mark`: what the segments are
        leased for from the start.
        """
        context = self.context
        origins = Provenances()
        spans: list[Span] = []
        at = 0
        for length, origin in known:
            origins.add(at, at + length, origin)
            at += length
        for number, start, take in placements:
            run = pair.runs[number]
            if not placed:
                run.append = max(run.append, start + take)
            piece_limit = segment_bytes if run.kind is RunKind.KEY else 65_536
            position, end = start, start + take
            if run.kind is RunKind.KEY:
                self._know_origins(run, start - offset, origins.within(offset, offset + take))
            while position < end:
                length = min(piece_limit, end - position)
                target = Range(run.id, position, length)
                context.vault.place(name, offset, target)
                # The owner of a lease has it in memory alone.
                stored = mark == UNTOUCHED or not run.owned or run.kind is not RunKind.KEY
                if stored:
                    context.save(Seal(target))
                else:
                    context.vault.hold(target)
                if run.kind is RunKind.KEY:
                    segment = Segment(position, length, mark, stored=stored, born=context.born_now)
                    run.insert_segment(segment)
                    context.put(run.segment_row(segment))
                    spans.append((position, length))
                else:
                    run.present.add(position, position + length)
                    run.keep_block(position, length)
                offset += length
                position += length
            run.book.take_in(account, take)
            context.put(run.row())
            context.book(run)
        context.vault.discard(name)
        if not placed and any(place[0] == pair.their_tags.id.number for place in placements):
            # Else the other end does not speak of it again.
            self.unconfirmed[pair.peer, name.source, name.number] = placements
        return tuple(spans)

    def _know_origins(self, run: Run, shift: int, parts: Iterable[tuple[int, int, Provenance | None]]) -> None:
        """Where the bytes of a placement come from; `shift`: from the block's bytes to the run's."""
        for low, high, origin in parts:
            if origin is not None:
                run.origins.add(low + shift, high + shift, origin)
                self.context.put(OriginRow(run.id.peer, run.id.number, low + shift, high - low, origin))

    def know(self, pair: Pair, placements: tuple[Placement, ...], tags: int) -> None:
        """Both ends have these bytes of the peer's tag run: they may be granted."""
        receiver = pair.current.receiver if pair.current else None
        for number, start, take in placements:
            if number == tags and receiver is not None:
                receiver.common.add(start, start + take)
