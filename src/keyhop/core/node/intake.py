"""Agreement on blocks: both ends prove to hold the same bits before a single one of them may be used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec

from keyhop.core.designs import Running
from keyhop.core.machine import Seal
from keyhop.core.messages import (
    MODULES_PER_PEER,
    AgreeBlock,
    AnswerBlock,
    Placement,
    Proof,
    ProposedBlock,
    StoredBlock,
)
from keyhop.core.model import NANOSECONDS, POSITION_LIMIT, Action, NodeId, PeerError, Range, RunKind, State
from keyhop.core.node import provenance
from keyhop.core.node.context import Context
from keyhop.core.node.events import BlockArrived
from keyhop.core.node.gathering import QUIET_NS, Gathering, Waiting
from keyhop.core.node.ledger import Account
from keyhop.core.node.link import Links
from keyhop.core.node.pair import Keyed, Pair
from keyhop.core.node.provenance import Provenance, Provenances
from keyhop.core.node.rows import IntakeRow, OriginRow
from keyhop.core.node.run import UNTOUCHED, Run, Segment
from keyhop.core.node.sizes import Sizes
from keyhop.core.node.vault import RELAY, RELAY_SENT, BlockName
from keyhop.core.policy.division import Want

FLOOR_BYTES = 4096
"""Each authentication run of a link is filled to this before anything else."""
DISTANT_FLOOR_BYTES = 1024
"""The same for a distant pair, whose every byte cost one per hop."""
TAG_LIMIT_BYTES = 32_768
BLOCKS_WAITING = 1024
"""Per peer: what a module may deliver while the link is down; older ones are destroyed."""
BLOCKS_PROPOSED = 16
"""Proposals without an answer, per peer."""
BLOCK_LIMIT_BYTES = 8 << 20
OFFER_WAIT_NS = 30 * NANOSECONDS
"""How long the follower waits for its own copy of a proposed block (ends may deliver at different times)."""
OVERTAKEN_WAIT_NS = NANOSECONDS
"""The same once a later block of that module is here: what a crash took with it holds nothing up."""
FIRST_CONTACT = "first-contact"
"""The source of the pre-shared secret of a link."""
RESERVED_SOURCES = frozenset({RELAY, RELAY_SENT, FIRST_CONTACT})
"""What the node itself keeps blocks under; a module has another name."""


class OfferEnded(msgspec.Struct, frozen=True, gc=False):
    peer: str
    module: str
    number: int
    connection: int


class GatheringEnded(msgspec.Struct, frozen=True, gc=False):
    peer: str


class Proposal(NamedTuple):
    """Blocks on their way to agreement; the message is made when there is a tag key for it."""

    names: tuple[BlockName, ...]
    blocks: tuple[Waiting, ...]
    made: list[AgreeBlock]


class Offer(NamedTuple):
    message: AgreeBlock
    key: Range
    connection: int


def seen(marks: tuple[int, int], number: int) -> bool:
    """Whether a block number was accepted before, or is too old to tell."""
    highest, recent = marks
    if number > highest:
        return False
    return highest - number >= 64 or bool(recent >> (highest - number) & 1)


def with_number(marks: tuple[int, int], number: int) -> tuple[int, int]:
    highest, recent = marks
    if number > highest:
        return number, _shifted(recent, number - highest) | 1
    return highest, recent | _shifted(1, highest - number)


def union(first: tuple[int, int], second: tuple[int, int]) -> tuple[int, int]:
    low, high = sorted((first, second))
    return high[0], high[1] | _shifted(low[1], high[0] - low[0])


def _shifted(bit_map: int, by: int) -> int:
    """What is still within the 64 bits; the distance is a peer's, and may be astronomic."""
    return bit_map << by & (1 << 64) - 1 if by < 64 else 0


NOTHING_SEEN = (-1, 0)


def _check_source(module: str) -> None:
    """Raises PeerError for what is no module: a refusal would destroy bits of ours that wait under that name."""
    if module in RESERVED_SOURCES:
        raise PeerError(f"blocks of {module!r}: this is no module's name")


class Intake:
    def __init__(self, context: Context, links: Links, design: Running, sizes: Sizes) -> None:
        self.context = context
        self.frames = links.frames
        self.design = design
        self.sizes = sizes
        self.waiting: dict[str, dict[tuple[str, int], Waiting]] = {}
        self.gathering = Gathering()
        self._gathers: set[str] = set()
        """Peers whose waiting blocks a timer looks after."""
        self.proposed: dict[str, dict[tuple[str, int], Proposal]] = {}
        """By module and number of the first block."""
        self.offers: dict[str, dict[tuple[str, int], Offer]] = {}
        self.unconfirmed: dict[tuple[str, str, int], tuple[Placement, ...]] = {}
        """Blocks we answered yes to, until the proposer says that it has stored them too."""
        self._newest: dict[tuple[str, str], int] = {}
        """(peer, module) -> highest number delivered in this process."""
        self.on_key: Callable[[Pair], None] = lambda pair: None
        """Set by the node: fresh key is in a run of ours."""
        self.rest_expires: Callable[[Pair], bool] = lambda pair: False
        """Set by the node: whether what fits nowhere of a block that this end proposes is booked as destroyed."""
        self.on_agreed: Callable[[Pair, int], None] = lambda pair, length: None
        """Set by the node: both ends have a block of so many bytes."""
        self.one_run = False
        """Set by the node: another design has the stock, and all of it lies in the proposer's run."""
        links.handlers[AgreeBlock] = self.agree
        links.handlers[AnswerBlock] = self.answered
        links.handlers[StoredBlock] = self.stored
        links.on_compared.append(self.compared)
        links.on_open.append(self.propose)
        links.on_lost.append(self.lost)

    def arrived(self, event: BlockArrived) -> None:
        context, name = self.context, BlockName(NodeId(event.peer), event.module, event.number)
        pair = context.pairs.get(event.peer)
        here = self.waiting.setdefault(event.peer, {})
        key = (event.module, event.number)
        if pair is None or not pair.direct or not 0 < event.length <= BLOCK_LIMIT_BYTES or event.number < 0:
            context.notice(
                "KH-1101", f"block {event.number} of {event.module} is refused: {event.length} bytes", event.peer
            )
            context.vault.discard(name)
            return
        proposals = self.proposed.get(event.peer, {}).values()
        kept = key in here or any(name in proposal.names for proposal in proposals)
        if kept or seen(self.marks(event.peer, event.module), event.number):
            context.notice("KH-1102", f"block {event.number} of {event.module} was delivered before", event.peer)
            context.count("blocks_repeated")
            if not kept:
                context.vault.discard(name)
            return
        here[key] = Waiting(event.length, event.epsilon, event.vendor, context.now)
        if len(here) > BLOCKS_WAITING:
            oldest = next(iter(here))
            del here[oldest]
            context.vault.discard(BlockName(NodeId(event.peer), *oldest))
            context.count("blocks_overdue")
        if pair.leads:
            self.gathering.arrived(event.peer, event.length)
            self.propose(pair)
            return
        offers = self.offers.get(event.peer, {})
        newest = event.number > self._newest.get((event.peer, event.module), -1)
        if newest:
            self._newest[event.peer, event.module] = event.number
        for offered, offer in list(offers.items()):
            if offer.message.module != event.module:
                continue
            missing = self._missing(pair, offer.message)
            if missing and newest and missing[0] < event.number:
                self._wait(offer, event.peer, OVERTAKEN_WAIT_NS)
            elif not missing:
                del offers[offered]
                if pair.current is not None and pair.current.id == offer.connection:
                    self._judge(pair, offer.message, offer.key)

    # --- the lower-named end proposes ---------------------------------------------------------------------------------

    def propose(self, pair: Pair) -> None:
        context = self.context
        if not pair.leads or not pair.is_open:
            return
        here = self.waiting.get(pair.peer, {})
        proposed = self.proposed.setdefault(pair.peer, {})
        while here and len(proposed) < BLOCKS_PROPOSED:
            if self.one_run:
                # Another design has the stock: it counts blocks as modules cut them.
                key = next(iter(here))
                chosen = [(key, here.pop(key))]
            elif self.gathering.due(pair, here, context.now):
                chosen = self.gathering.take(pair.peer, here)
            else:
                self._look_later(pair, next(iter(here.values())).at + QUIET_NS)
                return
            names = tuple(BlockName(NodeId(pair.peer), *key) for key, _ in chosen)
            blocks = tuple(block for _, block in chosen)
            placements = self.place(pair, sum(block.length for block in blocks), FLOOR_BYTES)
            if not placements:
                # A full store: nothing of the blocks is kept, at either end.
                context.count("blocks_not_taken", len(blocks))
            proposal = proposed[chosen[0][0]] = Proposal(names, blocks, [])
            context.say(pair, Keyed(self._message(pair, proposal, placements)))

    def _look_later(self, pair: Pair, due: int) -> None:
        if pair.peer not in self._gathers:
            self._gathers.add(pair.peer)
            self.context.at(due, GatheringEnded(pair.peer))

    def gathering_ended(self, event: GatheringEnded) -> None:
        self._gathers.discard(event.peer)
        self.propose(self.context.pairs[event.peer])

    def place(self, pair: Pair, length: int, floor_bytes: int, *, own_only: bool = False) -> tuple[Placement, ...]:
        """Says where a block goes and raises the append marks, durably before the proposal leaves.

        Relayed key goes to the source's own runs alone: two sources that relay to each other never meet.
        """
        openings = (pair.own_opening,) if own_only else (pair.own_opening, pair.their_opening)
        tags = (pair.own_tags,) if own_only else (pair.own_tags, pair.their_tags)
        keys = (pair.own_key,) if own_only or self.one_run else (pair.own_key, pair.their_key)
        limit = self.context.settings.stock_limit_bytes
        dealt = self.design.division.deal(
            length,
            floors=[Want(run.id.number, run.available(), floor_bytes) for run in (*tags, *openings)],
            tags=[Want(run.id.number, run.available(), max(floor_bytes, TAG_LIMIT_BYTES)) for run in tags],
            keys=[Want(run.id.number, run.untouched, limit) for run in keys],
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

    def _message(
        self, pair: Pair, proposal: Proposal, placements: tuple[Placement, ...]
    ) -> Callable[[Range], AgreeBlock]:
        names = proposal.names
        blocks = tuple(
            ProposedBlock(name.number, block.length, block.epsilon, block.vendor)
            for name, block in zip(names, proposal.blocks, strict=True)
        )

        def make(key: Range) -> AgreeBlock:
            covered = self._covered(pair, names[0].source, blocks)
            message = AgreeBlock(
                names[0].source,
                blocks,
                key.start,
                self.context.vault.fingerprint(names, key, covered),
                placements,
                self.sizes.segment_bytes(pair, sum(block.length for block in blocks)),
                self.rest_expires(pair),
            )
            proposal.made.append(message)
            return message

        return make

    @staticmethod
    def _covered(pair: Pair, module: str, blocks: Sequence[ProposedBlock]) -> bytes:
        """What the fingerprint covers beside the bits: link, module, number and length of each block."""
        name = module.encode()
        parts = [pair.link, len(name).to_bytes(2, "big"), name]
        for block in blocks:
            parts += [block.number.to_bytes(8, "big"), block.length.to_bytes(8, "big")]
        return b"".join(parts)

    def answered(self, pair: Pair, answer: AnswerBlock) -> None:
        context = self.context
        key = (answer.module, answer.number)
        proposal = self.proposed.get(pair.peer, {}).get(key)
        if proposal is None or not proposal.made or not pair.leads:
            raise PeerError(f"an answer for block {answer.number} of {answer.module}, which was not proposed")
        message = proposal.made[0]
        if len(answer.said) != (len(message.blocks) if answer.accepted else 0):
            raise PeerError(f"an answer that tells of {len(answer.said)} blocks out of {len(message.blocks)}")
        if not set(answer.lacking) <= (set() if answer.accepted else set(message.numbers)):
            raise PeerError(f"an answer that lacks blocks which block {answer.number} was not proposed with")
        del self.proposed[pair.peer][key]
        if answer.accepted:
            ours = [(block.epsilon, block.vendor) for block in message.blocks]
            self._take(pair, message, proposal.names, list(zip(ours, answer.said, strict=True)), placed=True)
            self._know(pair, message.placements, pair.their_tags.id.number)
            context.say(pair, StoredBlock(*key))
            self._agreed(pair, message, pair.own_key)
        else:
            gone = self._gone(message, answer.lacking)
            for number in gone:
                context.vault.discard(BlockName(NodeId(pair.peer), answer.module, number))
                context.count("blocks_refused")
                context.notice(
                    "KH-1103", f"block {number} of {answer.module} differs at the two ends: destroyed", pair.peer
                )
            self.remember(pair, answer.module, *gone)
            # What differs is found by proposing each alone; those that were merely in bad company go together again.
            again = {
                (name.source, name.number): block._replace(alone=not answer.lacking)
                for name, block in zip(proposal.names, proposal.blocks, strict=True)
                if name.number not in gone
            }
            self.waiting[pair.peer] = {**again, **self.waiting.get(pair.peer, {})}
        self.propose(pair)

    @staticmethod
    def _gone(message: AgreeBlock, lacking: tuple[int, ...]) -> tuple[int, ...]:
        """The blocks of a refused proposal that both ends destroy."""
        return lacking or (message.numbers if len(message.blocks) == 1 else ())

    # --- the higher-named end judges ----------------------------------------------------------------------------------

    def agree(self, pair: Pair, message: AgreeBlock) -> None:
        if pair.leads:
            raise PeerError("the higher-named end proposed a block")
        _check_source(message.module)
        key = self.frames.accept_key(pair, message.key_position)
        fits = self.check(pair, message.placements, message.segment_bytes, message.length)
        numbers = message.numbers
        if any(later <= earlier for earlier, later in pairwise(numbers)):
            raise PeerError(f"blocks of {message.module} proposed together whose numbers do not rise")
        offers = self.offers.setdefault(pair.peer, {})
        self._check_modules(pair, {message.module, *(module for module, _ in offers)})
        if len(offers) >= BLOCKS_PROPOSED:
            raise PeerError(f"more than {BLOCKS_PROPOSED} proposals of blocks without waiting for an answer")
        for offer in offers.values():
            if offer.message.module == message.module and not set(numbers).isdisjoint(offer.message.numbers):
                raise PeerError(f"block {message.number} of {message.module}, or one with it, is proposed twice")
        marks = self.marks(pair.peer, message.module)
        before = tuple(number for number in numbers if seen(marks, number))
        missing = self._missing(pair, message)
        if not fits or before:
            self._refuse(pair, message, key, before)
        elif not missing:
            self._judge(pair, message, key)
        elif pair.current is not None:
            offer = offers[message.module, message.number] = Offer(message, key, pair.current.id)
            overtaken = missing[0] < self._newest.get((pair.peer, message.module), -1)
            self._wait(offer, pair.peer, OVERTAKEN_WAIT_NS if overtaken else OFFER_WAIT_NS)

    def _missing(self, pair: Pair, message: AgreeBlock) -> tuple[int, ...]:
        """Those of the proposed blocks that our own module has not delivered."""
        here = self.waiting.get(pair.peer, {})
        return tuple(number for number in message.numbers if (message.module, number) not in here)

    def _wait(self, offer: Offer, peer: str, wait_ns: int) -> None:
        message = offer.message
        self.context.at(self.context.now + wait_ns, OfferEnded(peer, message.module, message.number, offer.connection))

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

    def _judge(self, pair: Pair, message: AgreeBlock, key: Range) -> None:
        here, module = self.waiting[pair.peer], message.module
        ours = [here[module, number] for number in message.numbers]
        names = tuple(BlockName(NodeId(pair.peer), module, number) for number in message.numbers)
        alike = [block.length for block in ours] == [block.length for block in message.blocks]
        covered = self._covered(pair, module, message.blocks)
        same = alike and self.context.vault.matches(names, key, covered, message.fingerprint)
        # While we waited for our copies, later placements may have passed these.
        if not same or any(start < pair.runs[number].append for number, start, _ in message.placements):
            self._refuse(pair, message, key, ())
            return
        self.frames.spend_key(pair, key)
        for number in message.numbers:
            del here[module, number]
        said = [(block.epsilon, block.vendor) for block in ours]
        theirs = [(block.epsilon, block.vendor) for block in message.blocks]
        self._take(pair, message, names, list(zip(theirs, said, strict=True)), placed=False)
        self.context.say(pair, AnswerBlock(module, message.number, True, tuple(said), ()))
        self._agreed(pair, message, pair.their_key)

    def _refuse(self, pair: Pair, message: AgreeBlock, key: Range, lacking: tuple[int, ...]) -> None:
        self.frames.spend_key(pair, key)
        here = self.waiting.get(pair.peer, {})
        gone = self._gone(message, lacking)
        for number in gone:
            here.pop((message.module, number), None)
            self.context.vault.discard(BlockName(NodeId(pair.peer), message.module, number))
            self.context.count("blocks_refused")
            self.context.notice(
                "KH-1103", f"block {number} of {message.module} is not the same here: destroyed", pair.peer
            )
        self.remember(pair, message.module, *gone)
        self.context.say(pair, AnswerBlock(message.module, message.number, False, (), lacking))

    def offer_ended(self, event: OfferEnded) -> None:
        pair = self.context.pairs[event.peer]
        offer = self.offers.get(event.peer, {}).get((event.module, event.number))
        if offer is None or offer.connection != event.connection:
            return
        del self.offers[event.peer][event.module, event.number]
        if pair.current is not None and pair.current.id == event.connection:
            self._refuse(pair, offer.message, offer.key, self._missing(pair, offer.message))

    def stored(self, pair: Pair, message: StoredBlock) -> None:
        placements = self.unconfirmed.pop((pair.peer, message.module, message.number), None)
        if placements is not None:
            self._know(pair, placements, pair.their_tags.id.number)

    # --- both ---------------------------------------------------------------------------------------------------------

    def _take(
        self,
        pair: Pair,
        message: AgreeBlock,
        names: tuple[BlockName, ...],
        said: Sequence[tuple[tuple[float, str], tuple[float, str]]],
        *,
        placed: bool,
    ) -> None:
        """Stores agreed blocks. Each end hears its own module: what both say of each block counts, at both ends."""
        ends = sorted((pair.own, pair.peer))
        known = [
            (block.length, provenance.of_block(message.module, block.number, both, ends, self.context.wall_now))
            for block, both in zip(message.blocks, said, strict=True)
        ]
        self.context.vault.join(names)
        self.store(pair, names[0], message.placements, message.segment_bytes, known, placed=placed)
        self.remember(pair, message.module, *message.numbers)

    def _agreed(self, pair: Pair, message: AgreeBlock, proposers: Run) -> None:
        """Books what had no place where the proposer says so; it was discarded with the block.

        Only here is fresh key told of: a lease that is asked for before our answer leaves names what is not there yet.
        """
        rest = message.length - sum(take for _, _, take in message.placements)
        if message.rest_expires and rest:
            proposers.book.take_in(Account.G, rest)
            proposers.book.move(State.STORED, Action.EXPIRE, rest)
            self.context.count("bytes_dropped", rest)
            self.context.book(proposers)
        self.on_agreed(pair, message.length)
        if any(place[0] == pair.own_key.id.number for place in message.placements):
            self.on_key(pair)

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
    ) -> None:
        """Cuts an agreed block, from byte `offset` on, into runs, durably with this step.

        `known`: (length, where they come from) of the block's bytes, from its first on.
        """
        context = self.context
        origins = Provenances()
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
                context.save(Seal(target))
                if run.kind is RunKind.KEY:
                    segment = Segment(position, length, UNTOUCHED, stored=True, born=context.born_now)
                    run.insert_segment(segment)
                    context.put(run.segment_row(segment))
                else:
                    run.present.add(position, position + length)
                    run.keep_block(position, length)
                offset += length
                position += length
            run.book.take_in(account, take)
            context.put(run.row())
            context.book(run)
        context.vault.discard(name)
        if not placed and (account is Account.G or any(place[0] == pair.their_tags.id.number for place in placements)):
            # Of a relayed batch its source speaks again only if there are tag keys in it.
            self.unconfirmed[pair.peer, name.source, name.number] = placements

    def _know_origins(self, run: Run, shift: int, parts: Iterable[tuple[int, int, Provenance | None]]) -> None:
        """Where the bytes of a placement come from; `shift`: from the block's bytes to the run's."""
        for low, high, origin in parts:
            if origin is not None:
                run.origins.add(low + shift, high + shift, origin)
                self.context.put(OriginRow(run.id.peer, run.id.number, low + shift, high - low, origin))

    def _know(self, pair: Pair, placements: tuple[Placement, ...], tags: int) -> None:
        """Both ends have these bytes of the peer's tag run: they may be granted."""
        receiver = pair.current.receiver if pair.current else None
        for number, start, take in placements:
            if number == tags and receiver is not None:
                receiver.common.add(start, start + take)

    def _check_modules(self, pair: Pair, named: set[str]) -> None:
        """A peer that invents modules would fill our store with their marks."""
        known = {module for peer, module in self.context.intake_marks if peer == pair.peer and module != RELAY}
        if len(known | named) > MODULES_PER_PEER:
            raise PeerError(f"blocks of more than {MODULES_PER_PEER} modules")

    def marks(self, peer: str, module: str) -> tuple[int, int]:
        return self.context.intake_marks.get((peer, module), NOTHING_SEEN)

    def remember(self, pair: Pair, module: str, *numbers: int) -> None:
        marks = self.marks(pair.peer, module)
        for number in numbers:
            marks = with_number(marks, number)
        if numbers:
            self._set_marks(pair.peer, module, marks)

    def _set_marks(self, peer: str, module: str, marks: tuple[int, int]) -> None:
        self.context.intake_marks[peer, module] = marks
        self.context.put(IntakeRow(peer, module, *marks))

    def compared(self, pair: Pair, proof: Proof) -> None:
        self._check_modules(pair, {module for module, _, _ in proof.intake})
        for module, _, _ in proof.intake:
            _check_source(module)
        for module, highest, recent in proof.intake:
            marks = self.marks(pair.peer, module)
            merged = union(marks, (highest, recent))
            if merged != marks:
                self._set_marks(pair.peer, module, merged)
        here = self.waiting.get(pair.peer, {})
        for module, number in [key for key in here if seen(self.marks(pair.peer, key[0]), key[1])]:
            # The other end has taken or refused it without us: what one end lacks is burnt.
            del here[module, number]
            self.context.vault.discard(BlockName(NodeId(pair.peer), module, number))

    def lost(self, pair: Pair) -> None:
        for proposal in self.proposed.pop(pair.peer, {}).values():
            for name in proposal.names:
                self.context.vault.discard(name)
        self.offers.pop(pair.peer, None)
        for key in [key for key in self.unconfirmed if key[0] == pair.peer]:
            del self.unconfirmed[key]
