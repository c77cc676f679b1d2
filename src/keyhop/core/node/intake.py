"""Agreement on blocks: both ends prove to hold the same bits before a single one of them may be used."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import msgspec

from keyhop.core.designs import Running
from keyhop.core.machine import Seal
from keyhop.core.messages import MODULES_PER_PEER, AgreeBlock, AnswerBlock, Placement, Proof, StoredBlock
from keyhop.core.model import NANOSECONDS, POSITION_LIMIT, Action, NodeId, PeerError, Range, RunKind, State
from keyhop.core.node import provenance
from keyhop.core.node.context import Context
from keyhop.core.node.events import BlockArrived
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


class Waiting(NamedTuple):
    length: int
    epsilon: float
    vendor: str


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
        self.proposed: dict[str, dict[tuple[str, int], AgreeBlock | None]] = {}
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
        if key in self.proposed.get(event.peer, ()) or seen(self.marks(event.peer, event.module), event.number):
            context.notice("KH-1102", f"block {event.number} of {event.module} was delivered before", event.peer)
            context.count("blocks_repeated")
            if key not in self.proposed.get(event.peer, ()):
                context.vault.discard(name)
            return
        here[key] = Waiting(event.length, event.epsilon, event.vendor)
        if len(here) > BLOCKS_WAITING:
            oldest = next(iter(here))
            del here[oldest]
            context.vault.discard(BlockName(NodeId(event.peer), *oldest))
            context.count("blocks_overdue")
        if pair.leads:
            self.propose(pair)
            return
        offers = self.offers.get(event.peer, {})
        if event.number > self._newest.get((event.peer, event.module), -1):
            self._newest[event.peer, event.module] = event.number
            for (module, number), overtaken in offers.items():
                if module == event.module and number < event.number:
                    self._wait(overtaken, event.peer, module, number, OVERTAKEN_WAIT_NS)
        offer = offers.pop(key, None)
        if offer is not None and pair.current is not None and pair.current.id == offer.connection:
            self._judge(pair, offer.message, offer.key)

    # --- the lower-named end proposes ---------------------------------------------------------------------------------

    def propose(self, pair: Pair) -> None:
        context = self.context
        if not pair.leads or not pair.is_open:
            return
        here = self.waiting.get(pair.peer, {})
        proposed = self.proposed.setdefault(pair.peer, {})
        while here and len(proposed) < BLOCKS_PROPOSED:
            key = next(iter(here))
            waiting = here.pop(key)
            name = BlockName(NodeId(pair.peer), *key)
            placements = self.place(pair, waiting.length, FLOOR_BYTES)
            if not placements:
                # A full store: nothing of the block is kept, at either end.
                context.count("blocks_not_taken")
            proposed[key] = None
            context.say(pair, Keyed(self._proposal(pair, name, waiting, placements)))

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

    def _proposal(
        self, pair: Pair, name: BlockName, waiting: Waiting, placements: tuple[Placement, ...]
    ) -> Callable[[Range], AgreeBlock]:
        def make(key: Range) -> AgreeBlock:
            context_bytes = self._covered(pair, name, waiting.length)
            message = AgreeBlock(
                name.source,
                name.number,
                waiting.length,
                key.start,
                self.context.vault.fingerprint(name, key, context_bytes),
                placements,
                self.sizes.segment_bytes(pair, waiting.length),
                waiting.epsilon,
                waiting.vendor,
                self.rest_expires(pair),
            )
            self.proposed[pair.peer][name.source, name.number] = message
            return message

        return make

    @staticmethod
    def _covered(pair: Pair, name: BlockName, length: int) -> bytes:
        """What the fingerprint covers beside the bits: link, module, block number, length."""
        module = name.source.encode()
        return (
            pair.link
            + len(module).to_bytes(2, "big")
            + module
            + name.number.to_bytes(8, "big")
            + length.to_bytes(8, "big")
        )

    def answered(self, pair: Pair, answer: AnswerBlock) -> None:
        context = self.context
        key = (answer.module, answer.number)
        message = self.proposed.get(pair.peer, {}).pop(key, None)
        if message is None or not pair.leads:
            raise PeerError(f"an answer for block {answer.number} of {answer.module}, which was not proposed")
        name = BlockName(NodeId(pair.peer), *key)
        if answer.accepted:
            said = ((message.epsilon, message.vendor), (answer.epsilon, answer.vendor))
            known = ((message.length, self._of_block(pair, name, said)),)
            self.store(pair, name, message.placements, message.segment_bytes, known, placed=True)
            self._know(pair, message.placements, pair.their_tags.id.number)
            context.say(pair, StoredBlock(*key))
            self._agreed(pair, message, pair.own_key)
        else:
            context.vault.discard(name)
            context.count("blocks_refused")
            context.notice(
                "KH-1103", f"block {answer.number} of {answer.module} differs at the two ends: destroyed", pair.peer
            )
        self.remember(pair, answer.module, answer.number)
        self.propose(pair)

    # --- the higher-named end judges ----------------------------------------------------------------------------------

    def agree(self, pair: Pair, message: AgreeBlock) -> None:
        if pair.leads:
            raise PeerError("the higher-named end proposed a block")
        _check_source(message.module)
        key = self.frames.accept_key(pair, message.key_position)
        fits = self.check(pair, message.placements, message.segment_bytes, message.length)
        name = (message.module, message.number)
        offers = self.offers.setdefault(pair.peer, {})
        self._check_modules(pair, {message.module, *(module for module, _ in offers)})
        if len(offers) >= BLOCKS_PROPOSED:
            raise PeerError(f"more than {BLOCKS_PROPOSED} blocks proposed without waiting for an answer")
        if name in offers:
            raise PeerError(f"block {message.number} of {message.module} proposed twice")
        if not fits or seen(self.marks(pair.peer, message.module), message.number):
            self._refuse(pair, message, key)
        elif name in self.waiting.get(pair.peer, ()):
            self._judge(pair, message, key)
        elif pair.current is not None:
            offer = offers[name] = Offer(message, key, pair.current.id)
            overtaken = message.number < self._newest.get((pair.peer, message.module), -1)
            self._wait(offer, pair.peer, *name, OVERTAKEN_WAIT_NS if overtaken else OFFER_WAIT_NS)

    def _wait(self, offer: Offer, peer: str, module: str, number: int, wait_ns: int) -> None:
        self.context.at(self.context.now + wait_ns, OfferEnded(peer, module, number, offer.connection))

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
        waiting = self.waiting[pair.peer].pop((message.module, message.number))
        name = BlockName(NodeId(pair.peer), message.module, message.number)
        covered = self._covered(pair, name, message.length)
        same = waiting.length == message.length and self.context.vault.matches(name, key, covered, message.fingerprint)
        # While we waited for our copy, later placements may have passed these.
        if not same or any(start < pair.runs[number].append for number, start, _ in message.placements):
            self._refuse(pair, message, key)
            return
        self.frames.spend_key(pair, key)
        # Each end hears its own module: what both say counts, at both ends.
        said = ((message.epsilon, message.vendor), (waiting.epsilon, waiting.vendor))
        known = ((message.length, self._of_block(pair, name, said)),)
        self.store(pair, name, message.placements, message.segment_bytes, known, placed=False)
        self.remember(pair, message.module, message.number)
        self.context.say(pair, AnswerBlock(message.module, message.number, True, waiting.epsilon, waiting.vendor))
        self._agreed(pair, message, pair.their_key)

    def _of_block(self, pair: Pair, name: BlockName, said: Sequence[tuple[float, str]]) -> Provenance:
        ends = sorted((pair.own, pair.peer))
        return provenance.of_block(name.source, name.number, said, ends, self.context.wall_now)

    def _refuse(self, pair: Pair, message: AgreeBlock, key: Range) -> None:
        self.frames.spend_key(pair, key)
        self.context.vault.discard(BlockName(NodeId(pair.peer), message.module, message.number))
        self.context.count("blocks_refused")
        self.context.notice(
            "KH-1103", f"block {message.number} of {message.module} is not the same here: destroyed", pair.peer
        )
        self.remember(pair, message.module, message.number)
        self.context.say(pair, AnswerBlock(message.module, message.number, False, 0.0, ""))

    def offer_ended(self, event: OfferEnded) -> None:
        pair = self.context.pairs[event.peer]
        offer = self.offers.get(event.peer, {}).get((event.module, event.number))
        if offer is None or offer.connection != event.connection:
            return
        del self.offers[event.peer][event.module, event.number]
        if pair.current is not None and pair.current.id == event.connection:
            self._refuse(pair, offer.message, offer.key)

    def stored(self, pair: Pair, message: StoredBlock) -> None:
        placements = self.unconfirmed.pop((pair.peer, message.module, message.number), None)
        if placements is not None:
            self._know(pair, placements, pair.their_tags.id.number)

    # --- both ---------------------------------------------------------------------------------------------------------

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

    def remember(self, pair: Pair, module: str, number: int) -> None:
        self._set_marks(pair.peer, module, with_number(self.marks(pair.peer, module), number))

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
        for module, number in self.proposed.pop(pair.peer, {}):
            self.context.vault.discard(BlockName(NodeId(pair.peer), module, number))
        self.offers.pop(pair.peer, None)
        for key in [key for key in self.unconfirmed if key[0] == pair.peer]:
            del self.unconfirmed[key]
