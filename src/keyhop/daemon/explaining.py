"""What would become of a request for key, told without taking any: the rules that decide, and what there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from keyhop.core import constraints, label, policy_rules
from keyhop.core.constraints import Constraints
from keyhop.core.epsilon import shown as epsilon_shown
from keyhop.core.label import Entropy, Label
from keyhop.core.model import NANOSECONDS, RequestError
from keyhop.core.node.choosing import REASONS_LIMIT, Choice
from keyhop.core.node.pair import Pair
from keyhop.core.policy_rules import Terms
from keyhop.daemon import policy_words
from keyhop.wire.explain import Decided, ExplainAnswer, KeyLabel, Outcome, Place, Supply

if TYPE_CHECKING:
    from keyhop.core.node.node import Node
    from keyhop.daemon.view import View


def by_rules(
    terms: Terms,
    application: str,
    peer: str,
    size_bits: int | None,
    extensions: Mapping[str, Any],
    entitle: Callable[[], object],
) -> tuple[ExplainAnswer, Constraints]:
    """What the rules alone say, and the demands on the key. `entitle` raises RequestError for who may not ask."""
    refused, key_size, demanded = None, None, terms.bounds
    details: tuple[dict[str, Any], ...] = ()
    try:
        entitle()
        asked = constraints.parse([extensions]).required
        key_size = terms.key_size(size_bits)
        demanded = terms.demands(asked)
    except RequestError as error:
        refused, details = error.message, error.details
    answer = ExplainAnswer(
        application=application,
        peer=peer,
        rule=place(terms.rule),
        refused=refused,
        details=details,
        key_size_bits=key_size,
        demands=policy_words.told(demanded),
        values={
            word: Decided(value=policy_words.shown(word, value), decided_by=place(terms.places[word]))
            for word, value in policy_words.values(terms).items()
        },
    )
    return answer, demanded


def place(found: policy_rules.Place) -> Place:
    return Place(rule=found.rule, file=found.file or None, line=found.line or None)


def explain(
    node: Node, view: View, application: str, peer: str, size_bits: int | None, extensions: Mapping[str, Any]
) -> ExplainAnswer:
    """As this node would judge the request now. Nothing is taken or counted, so quotas are not tried."""
    terms = node.supply.governed.terms(application, peer)
    answer, demanded = by_rules(
        terms, application, peer, size_bits, extensions, lambda: node.supply.entitle(application, peer)
    )
    if answer.key_size_bits is None or answer.refused is not None:
        return answer
    home = node.supply.entitle(application, peer)
    asked = _Asked(node, terms, demanded, answer.key_size_bits)
    if home == node.context.node:
        supply = _local(asked)
    else:
        supply = _distant(asked, view, home)
    return msgspec.structs.replace(answer, network=supply)


class _Asked(NamedTuple):
    node: Node
    terms: Terms
    demanded: Constraints
    size_bits: int

    @property
    def now(self) -> int:
        return self.node.context.wall_now

    def label(self, key: Label) -> KeyLabel:
        claimed = key.epsilon
        return KeyLabel(
            grade=key.grade.value,
            epsilon=None if claimed is None else float(epsilon_shown(claimed)),
            age_s=round(key.age_ns(self.now) / NANOSECONDS, 3),
            hops=key.hops,
            paths=tuple(sorted(tuple(map(str, path)) for path in key.paths)),
            vendors=tuple(sorted(key.vendors)),
            trust=key.trust.name.lower(),
        )


def _local(asked: _Asked) -> Supply:
    own = str(asked.node.context.node)
    key = label.local(asked.node.context.node, asked.now, Entropy.OS)
    unmet = constraints.admits(key, asked.demanded, asked.now)
    outcome, reason = Outcome.GIVEN, "both applications are at this node: a key is drawn when it is asked for"
    if unmet:
        outcome, reason = Outcome.REFUSED, constraints.UNMET
    if asked.terms.combine != "none":
        outcome, reason = Outcome.REFUSED, "keys of two applications at one node are combined with nothing"
    return Supply(node=own, peer_node=own, outcome=outcome, reason=reason, unmet=_unmet(unmet), label=asked.label(key))


def _distant(asked: _Asked, view: View, home: str) -> Supply:
    node, own = asked.node, str(asked.node.context.node)
    pair, route = node.context.pairs.get(home), view.paths().best(own, home)
    governed = node.supply.governed
    comes = (pair is None or not pair.direct) and governed.can_come(home)
    if pair is None or not pair.compared:
        waits = comes or asked.terms.fallback.verb == "wait" or (pair is not None and pair.direct)
        return Supply(
            node=own,
            peer_node=home,
            outcome=Outcome.WAITS if waits else Outcome.REFUSED,
            reason=f"no key is shared with node {home} yet" + (f": {route.reason}" if route.reason else ""),
            route=route,
        )
    choice = Choice(pair, asked.demanded, asked.now, _becomes(asked, pair))
    unmet = choice.unmet()
    in_hand = choice.suiting_bytes()
    kept = governed.leases.reserved_bytes(pair)
    leasable = max(0, min(choice.leasable_bytes(), pair.own_key.untouched - kept)) if pair.is_open else 0
    outcome, reason = _outcome(asked, pair, comes, bool(unmet), in_hand, leasable)
    key = _next_key(choice, pair, asked.size_bits // 8)
    return Supply(
        node=own,
        peer_node=home,
        outcome=outcome,
        reason=reason,
        unmet=_unmet(unmet),
        route=route,
        pool=next((pool for pool in view.pools() if pool.peer == home), None),
        in_hand_bytes=in_hand,
        leasable_bytes=leasable,
        label=None if key is None else asked.label(key),
    )


def _outcome(
    asked: _Asked, pair: Pair, comes: bool, unmet: bool, in_hand_bytes: int, leasable_bytes: int
) -> tuple[Outcome, str]:
    """In the order in which a request is judged (`core.node.governed`)."""
    verb, length = asked.terms.fallback.verb, asked.size_bits // 8
    waits = verb == "wait" or comes
    later = "; more may come by relay meanwhile" if comes else ""
    if unmet:
        return (Outcome.WAITS if waits else Outcome.REFUSED), f"no key in stock meets the demands{later}"
    if asked.terms.combine != "none" and asked.node.supply.governed.exchanges.live(pair) is None:
        return Outcome.WAITS, f"keys are combined with an exchange with node {pair.peer}, and there is none now"
    if in_hand_bytes >= length:
        return Outcome.GIVEN, ""
    if in_hand_bytes + leasable_bytes >= length:
        return Outcome.LEASED, "it must be reserved at both ends first"
    short = f"{in_hand_bytes + leasable_bytes} bytes are there for it, {length} are asked"
    if not pair.is_open and pair.own_key.untouched:
        short += f"; {pair.own_key.untouched} more cannot be reserved while node {pair.peer} is not connected"
    if waits:
        return Outcome.WAITS, short + later
    return (Outcome.FALLS_BACK if verb in ("hybrid", "derive") else Outcome.REFUSED), short


def _becomes(asked: _Asked, pair: Pair) -> Callable[[Label], Label]:
    """What a key of the stock is when it leaves."""
    combine = asked.terms.combine
    if combine == "none":
        return lambda key: key
    other = asked.node.supply.governed.fallbacks.exchanged(pair)
    made = label.xored if combine == "xor" else label.derived
    return lambda key: made([key, other])


def _next_key(choice: Choice, pair: Pair, length: int) -> Label | None:
    """The first that meets the demands; else the oldest."""
    oldest: Label | None = None
    for looked, (low, high) in enumerate(_blocks(pair)):
        key = choice.label(low, min(length, high - low))
        if not constraints.admits(key, choice.demanded, choice.wall_now):
            return key
        oldest = oldest or key
        if looked == REASONS_LIMIT:
            break
    return oldest


def _blocks(pair: Pair) -> Iterator[tuple[int, int]]:
    """Stretches of one origin: of the leases in hand, then of what nobody has leased."""
    spans = [*pair.stock.intervals(), *((one.start, one.end) for one in pair.own_key.segments.untouched())]
    for start, end in spans:
        for low, high, _ in pair.own_key.origins.within(start, end):
            yield low, high


def _unmet(found: tuple[constraints.Unmet, ...]) -> tuple[dict[str, str], ...]:
    return tuple({"name": one.name, "reason": one.why} for one in found)
