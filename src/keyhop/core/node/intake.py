"""Agreement on blocks: both ends prove to hold the same bits before a single one of them may be used."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

import msgspec

from keyhop.core.designs import Running
from keyhop.core.messages import (
    MODULES_PER_PEER,
    AgreeBlock,
    AnswerBlock,
    Placement,
    Proof,
    ProposedBlock,
    StoredBlock,
)
from keyhop.core.model import NANOSECONDS, Action, NodeId, PeerError, Range, State
from keyhop.core.node import provenance
from keyhop.core.node.block_numbers import BlockNumbers
from keyhop.core.node.context import Context
from keyhop.core.node.events import BlockArrived, BlockRepeated
from keyhop.core.node.gathering import QUIET_NS, Gathering, Waiting
from keyhop.core.node.ledger import Account
from keyhop.core.node.link import Links
from keyhop.core.node.pair import Keyed, Pair
from keyhop.core.node.placing import FLOOR_BYTES, Placing
from keyhop.core.node.run import Run
from keyhop.core.node.sizes import Sizes
from keyhop.core.node.vault import RELAY, RELAY_SENT, BlockName

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
    key_position: int
    """Of the proposal: another one of the same connection may begin with the same number."""
    overtaken: bool
    """Only what later blocks have overtaken is not waited for any longer."""


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


def _check_source(module: str) -> None:
    """Raises PeerError for what is no module: a refusal would destroy bits of ours that wait under that name."""
    if module in RESERVED_SOURCES:
        raise PeerError(f"blocks of {module!r}: this is no module's name")


class Intake:
    def __init__(self, context: Context, links: Links, design: Running, sizes: Sizes) -> None:
        self.context = context
        self.frames = links.frames
        self.sizes = sizes
        self.waiting: dict[str, dict[tuple[str, int], Waiting]] = {}
        self.gathering = Gathering()
        self._gathers: dict[str, int] = {}
        """When a timer looks after the waiting blocks of a peer."""
        self.proposed: dict[str, dict[tuple[str, int], Proposal]] = {}
        """By module and number of the first block."""
        self.offers: dict[str, dict[tuple[str, int], Offer]] = {}
        self.numbers = BlockNumbers(context)
        self.placing = Placing(context, design)
        self._newest: dict[tuple[str, str], int] = {}
        """(peer, module) -> highest number delivered in this process."""
        self.on_key: Callable[[Pair], None] = lambda pair: None
        """Set by the node: fresh key is in a run of ours."""
        self.rest_expires: Callable[[Pair], bool] = lambda pair: False
        """Set by the node: whether what fits nowhere of a block that this end proposes is booked as destroyed."""
        self.on_agreed: Callable[[Pair, int], None] = lambda pair, length: None
        """Set by the node: both ends have a block of so many bytes."""
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
        if kept or self.numbers.are_seen(event.peer, event.module, event.number):
            self.repeated(event)
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
        for offer in offers.values() if newest else ():
            if offer.message.module == event.module and self._overtaken(pair, offer.message):
                self._wait(offer, event.peer, overtaken=True)
        self._judge_ready(pair, event.module)

    def repeated(self, event: BlockArrived | BlockRepeated) -> None:
        text = f"block {event.number} of {event.module} was delivered before"
        self.context.notice("KH-1102", text, event.peer)
        self.context.count("blocks_repeated")

    # --- the lower-named end proposes ---------------------------------------------------------------------------------

    def propose(self, pair: Pair) -> None:
        context = self.context
        if not pair.leads or not pair.is_open:
            return
        here = self.waiting.get(pair.peer, {})
        proposed = self.proposed.setdefault(pair.peer, {})
        while here and len(proposed) < BLOCKS_PROPOSED:
            if self.placing.one_run:
                # Another design has the stock: it counts blocks as modules cut them.
                key = next(iter(here))
                chosen = [(key, here.pop(key))]
            elif not self.gathering.due(pair, here, context.now):
                self._look_later(pair, min(block.at for block in here.values()) + QUIET_NS)
                return
            elif not (chosen := self.gathering.take(pair.peer, here, proposed, context.now)):
                # Too far above what is under way: the answers to that come first.
                return
            names = tuple(BlockName(NodeId(pair.peer), *key) for key, _ in chosen)
            blocks = tuple(block for _, block in chosen)
            placements = self.placing.place(pair, sum(block.length for block in blocks), FLOOR_BYTES)
            if not placements:
                # A full store: nothing of the blocks is kept, at either end.
                context.count("blocks_not_taken", len(blocks))
            proposal = proposed[chosen[0][0]] = Proposal(names, blocks, [])
            context.say(pair, Keyed(self._message(pair, proposal, placements)))

    def _look_later(self, pair: Pair, due: int) -> None:
        if due < self._gathers.get(pair.peer, due + 1):
            self._gathers[pair.peer] = due
            self.context.at(due, GatheringEnded(pair.peer))

    def gathering_ended(self, event: GatheringEnded) -> None:
        self._gathers.pop(event.peer, None)
        self.propose(self.context.pairs[event.peer])

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
        if answer.lacking != tuple(
            number for number in message.numbers if number in answer.lacking and not answer.accepted
        ):
            raise PeerError(f"an answer that lacks blocks which block {answer.number} was not proposed with")
        del self.proposed[pair.peer][key]
        if answer.accepted:
            ours = [(block.epsilon, block.vendor) for block in message.blocks]
            self._take(pair, message, proposal.names, list(zip(ours, answer.said, strict=True)), placed=True)
            self.placing.know(pair, message.placements, pair.their_tags.id.number)
            if any(place[0] == pair.own_tags.id.number for place in message.placements):
                # From here on the follower may grant what of it are tag keys.
                context.say_first(pair, StoredBlock(*key))
            self._agreed(pair, message, pair.own_key)
        else:
            gone = self._gone(message, answer.lacking)
            for number in gone:
                context.vault.discard(BlockName(NodeId(pair.peer), answer.module, number))
                context.count("blocks_refused")
                context.notice(
                    "KH-1103", f"block {number} of {answer.module} differs at the two ends: destroyed", pair.peer
                )
            self.numbers.remember(pair, answer.module, *gone)
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
        fits = self.placing.check(pair, message.placements, message.segment_bytes, message.length)
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
        before = self.numbers.are_seen(pair.peer, message.module, *numbers)
        if not fits or before:
            self._refuse(pair, message, key, before)
        elif pair.current is not None:
            offer = offers[message.module, message.number] = Offer(message, key, pair.current.id)
            self._judge_ready(pair, message.module)
            if (message.module, message.number) in offers:
                self._wait(offer, pair.peer, overtaken=False)
                if self._overtaken(pair, message):
                    self._wait(offer, pair.peer, overtaken=True)

    def _missing(self, pair: Pair, message: AgreeBlock) -> tuple[int, ...]:
        """Those of the proposed blocks that our own module has not delivered."""
        here = self.waiting.get(pair.peer, {})
        return tuple(number for number in message.numbers if (message.module, number) not in here)

    def _overtaken(self, pair: Pair, message: AgreeBlock) -> tuple[int, ...]:
        """Those of the missing blocks behind which the module has delivered another."""
        newest = self._newest.get((pair.peer, message.module), -1)
        return tuple(number for number in self._missing(pair, message) if number < newest)

    def _wait(self, offer: Offer, peer: str, *, overtaken: bool) -> None:
        message, wait_ns = offer.message, OVERTAKEN_WAIT_NS if overtaken else OFFER_WAIT_NS
        ended = OfferEnded(peer, message.module, message.number, offer.connection, message.key_position, overtaken)
        self.context.at(self.context.now + wait_ns, ended)

    def _judge_ready(self, pair: Pair, module: str) -> None:
        """Those whose copies are here, each after the one before: its placements would else be passed by later ones."""
        offers = self.offers.get(pair.peer, {})
        for offered in [offered for offered in offers if offered[0] == module]:
            if self._missing(pair, offers[offered].message):
                return
            offer = offers.pop(offered)
            if pair.current is not None and pair.current.id == offer.connection:
                self._judge(pair, offer.message, offer.key)

    def _judge(self, pair: Pair, message: AgreeBlock, key: Range) -> None:
        here, module = self.waiting[pair.peer], message.module
        ours = [here[module, number] for number in message.numbers]
        names = tuple(BlockName(NodeId(pair.peer), module, number) for number in message.numbers)
        alike = [block.length for block in ours] == [block.length for block in message.blocks]
        covered = self._covered(pair, module, message.blocks)
        same = alike and self.context.vault.matches(names, key, covered, message.fingerprint)
        # While we waited for our copies, placements of another module may have passed these.
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
        self.numbers.remember(pair, message.module, *gone)
        self.context.say(pair, AnswerBlock(message.module, message.number, False, (), lacking))

    def offer_ended(self, event: OfferEnded) -> None:
        pair = self.context.pairs[event.peer]
        offer = self.offers.get(event.peer, {}).get((event.module, event.number))
        if offer is None or (offer.connection, offer.message.key_position) != (event.connection, event.key_position):
            return
        lacking = (self._overtaken if event.overtaken else self._missing)(pair, offer.message)
        if not lacking:
            if not event.overtaken:
                # It waits for another, and its own blocks may yet be pushed out by newer ones.
                self._wait(offer, event.peer, overtaken=False)
            return
        del self.offers[event.peer][event.module, event.number]
        if pair.current is not None and pair.current.id == event.connection:
            self._refuse(pair, offer.message, offer.key, lacking)
        self._judge_ready(pair, event.module)

    def stored(self, pair: Pair, message: StoredBlock) -> None:
        placements = self.placing.unconfirmed.pop((pair.peer, message.module, message.number), None)
        if placements is not None:
            self.placing.know(pair, placements, pair.their_tags.id.number)

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
        self.placing.store(pair, names[0], message.placements, message.segment_bytes, known, placed=placed)
        self.numbers.remember(pair, message.module, *message.numbers)

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

    def _check_modules(self, pair: Pair, named: set[str]) -> None:
        """A peer that invents modules would fill our store with their marks."""
        known = {module for peer, module in self.context.intake_marks if peer == pair.peer and module != RELAY}
        if len(known | named) > MODULES_PER_PEER:
            raise PeerError(f"blocks of more than {MODULES_PER_PEER} modules")

    def compared(self, pair: Pair, proof: Proof) -> None:
        self._check_modules(pair, {module for module, _, _ in proof.intake})
        for module, _, _ in proof.intake:
            _check_source(module)
        self.numbers.merge(pair, proof.intake)
        here = self.waiting.get(pair.peer, {})
        for module, number in [key for key in here if self.numbers.are_seen(pair.peer, *key)]:
            # The other end has taken or refused it without us: what one end lacks is burnt.
            del here[module, number]
            self.context.vault.discard(BlockName(NodeId(pair.peer), module, number))

    def lost(self, pair: Pair) -> None:
        unsaid: dict[tuple[str, int], Waiting] = {}
        for proposal in self.proposed.pop(pair.peer, {}).values():
            for name, block in zip(proposal.names, proposal.blocks, strict=True):
                if proposal.made:
                    # The other end may have stored it: what only one end has is burnt.
                    self.context.vault.discard(name)
                    self.context.count("blocks_lost")
                else:
                    unsaid[name.source, name.number] = block
        self.waiting[pair.peer] = {**unsaid, **self.waiting.get(pair.peer, {})}
        self.offers.pop(pair.peer, None)
        self.placing.lost(pair)
