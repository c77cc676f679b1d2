"""Which answers cannot stand in one design, each with the reason and with what would be legal."""

from __future__ import annotations

from collections.abc import Iterator

from keyhop.core.designs.design import Design, Formatting, LocalGlobal, fields
from keyhop.core.designs.parts import DOORS, PARTS, PROFILES, word
from keyhop.core.policy.admission import Reservation
from keyhop.core.policy.division import EncDec, Session
from keyhop.core.policy.fallback import ByCategory, Derive, Hybrid
from keyhop.core.policy.formatting import Kdf
from keyhop.core.policy.priority import ResponseWeight
from keyhop.core.policy.relay import NoRelay, RelayXor
from keyhop.core.policy.routing import NoRouting
from keyhop.core.policy.storage import ByteStream
from keyhop.core.policy.synchronisation import AppNegotiated, Lease, StampSequence, WorkingSet

RELAY_XOR_LINKS = 2
TWO_ANSWERS = frozenset({"refill", "synchronisation"})
SEVERAL_ANSWERS = frozenset({"division", "disposal"})
NOT_ITS = frozenset({"derive", "any"})
"""Entries of a category table that give key which an enemy with enough computers finds."""


def check(design: Design, longest_path_links: int = 0) -> list[str]:
    """Why this design is refused, a sentence each; empty if it stands. 0: no network is known yet."""
    malformed = list(_shape(design))
    # What is no part cannot be asked what it goes with.
    return malformed or [*_combinations(design, longest_path_links)]


def _shape(design: Design) -> Iterator[str]:
    for question, parts in PARTS.items():
        answer = getattr(design, question)
        legal = ", ".join(word(part) for part in parts)
        if isinstance(answer, LocalGlobal) and question not in TWO_ANSWERS:
            yield f"{question}: takes one answer, not a local and a global one; two are for {_list(TWO_ANSWERS)}"
        if isinstance(answer, tuple) and question not in SEVERAL_ANSWERS:
            yield f"{question}: takes one answer, not several; several are for {_list(SEVERAL_ANSWERS)}"
        if isinstance(answer, Formatting) is not (question == "formatting"):
            yield f"{question}: reception and supply are answers to formatting, which has both, and to nothing else"
            continue
        if answer == ():
            yield f"{question}: has no answer: must be one of {legal}"
        if isinstance(answer, tuple) and len(answer) == 1:
            yield f"{question}: has a list of one answer: give it alone, or two and more of {legal}"
        if isinstance(answer, tuple) and len({type(part) for part in answer}) < len(answer):
            yield f"{question}: has one part twice: each of several must be another of {legal}"
        for path, part in design.answers(question).items():
            if not isinstance(part, parts):
                yield f"{path} = {word(part)}: must be one of {legal}"
    if not design.doors:
        yield f"door: has none: must be one or more of {', '.join(DOORS)}"
    for door in design.doors:
        if door not in DOORS:
            yield f"door = {door}: must be one of {', '.join(DOORS)}"
    if ("session" in design.doors) is not (design.profile in PROFILES):
        yield f"door.profile = {design.profile!r}: must be one of {', '.join(PROFILES)} for a session, and empty else"
    known, seen = fields(design), set()
    for source, paths in design.sources.items():
        for path in paths:
            if path not in known:
                yield f"sources {source}: {path!r} is no field of this design; its fields are {_list(known)}"
            if path in seen:
                yield f"sources {source}: {path!r} has another tag already; it must have one"
            seen.add(path)


def _combinations(design: Design, longest_path_links: int) -> Iterator[str]:
    divided = [word(part) for part in design.divisions if isinstance(part, EncDec | Session)]
    for path, part in design.answers("synchronisation").items():
        if isinstance(part, WorkingSet | AppNegotiated) and divided:
            yield (
                f"{path} = {word(part)} with division = {' and '.join(divided)}: it settles who uses a key that both "
                "ends may use, and there no key is contested; legal are shared or purpose with it, or directed_pool "
                "with this division"
            )
        if isinstance(part, Lease) and not any(isinstance(division, EncDec) for division in design.divisions):
            yield (
                f"{path} = lease without division = enc_dec: only the owner of a run can lease it, and without "
                "directions no run has one; legal is enc_dec, alone or with others, or another synchronisation"
            )
        if isinstance(part, StampSequence) and not isinstance(design.storage, ByteStream):
            yield (
                f"{path} = stamp_sequence with storage = {word(design.storage)}: a stamp is the running number of a "
                "byte, and blocks have none; legal is byte_stream, or another synchronisation"
            )
    if isinstance(design.priority, ResponseWeight) and "security_level" not in design.request:
        yield (
            "priority = response_weight in a design whose requests carry no security_level: half of the weight is "
            "computed from it; legal is request = security_level, or fifo or strict_priority"
        )
    if design.promises_its:
        yield from _promise(design)
    if isinstance(design.relay, RelayXor) and longest_path_links > RELAY_XOR_LINKS:
        yield (
            f"relay = relay_xor on a path of {longest_path_links} links: the node in the middle joins the keys of its "
            f"own two links and can reach no further; legal are paths of at most {RELAY_XOR_LINKS} links, or "
            "hop_by_hop or split_path"
        )
    relayed = not isinstance(design.relay, NoRelay)
    if isinstance(design.admission, Reservation) and relayed and isinstance(design.routing, NoRouting):
        yield (
            "admission = reservation along a path with routing = no_routing: nobody knows the links on which to "
            "reserve, since paths stand in the configuration alone; legal are link_state, central_kms or sdn, or "
            "admit_all"
        )
    for question in sorted(TWO_ANSWERS):
        if isinstance(getattr(design, question), LocalGlobal) and not relayed:
            yield (
                f"{question}.global with relay = no_relay: there is no global key to which it could apply; legal is "
                "one answer, or a relay"
            )


def _promise(design: Design) -> Iterator[str]:
    why = "what it gives is only computationally secure; legal is"
    if isinstance(design.formatting.supply, Kdf) or isinstance(design.formatting.reception, Kdf):
        yield f"formatting = kdf in a design that promises ITS keys: {why} slice_on_supply, split_merge or no promise"
    weak = isinstance(design.fallback, Derive | Hybrid)
    if isinstance(design.fallback, ByCategory):
        weak = any(entry in NOT_ITS for entry in design.fallback.table)
    if weak:
        yield (
            f"fallback = {word(design.fallback)} in a design that promises ITS keys: when QKD key is short, {why} deny "
            "or wait, or no promise"
        )


def _list(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
