"""Frames, commits, answers and books in words: names and coordinates, never a bit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from keyhop.core.machine import Put, Remove, Save
from keyhop.core.messages import (
    AgreeBlock,
    AnswerBlock,
    AnswerExchange,
    AnswerLease,
    AnswerReserve,
    Confirm,
    ExpireSegments,
    Forward,
    Grant,
    Hello,
    NameSecret,
    OfferExchange,
    Placement,
    Plain,
    Proof,
    RelayBatch,
    RequestLease,
    Reserve,
    SignedLinkState,
    Span,
    State,
    Statement,
    StoredBlock,
    decode,
    decode_link_state,
    decode_manifest,
)
from keyhop.core.model import Range, RunId, RunKind
from keyhop.core.node.ledger import ACCOUNTS, Account
from keyhop.core.node.pair import Pair
from keyhop.core.node.rows import SegmentRow
from keyhop.core.node.run import Run

RUN_NAMES = {RunKind.KEY: "key", RunKind.OPENING: "opening", RunKind.TAG: "tag"}
PIECES_TOLD = 3
TAKEN_IN = (Account.G, Account.N, Account.F)


def run_name(number: int, one: str, other: str) -> str:
    """`key a>b`: the key run that a owns."""
    owner, follower = sorted((one, other), reverse=bool(number & 1))
    return f"{RUN_NAMES[RunKind(number >> 1)]} {owner}>{follower}"


def name_of(run: RunId, node: str) -> str:
    return run_name(run.number, node, run.peer)


def spans(some: Iterable[Span]) -> str:
    """`0+1024 2048+608`; many are told together: `20 pieces, 0+5120`."""
    listed = list(some)
    joined: list[list[int]] = []
    for start, length in listed:
        if joined and joined[-1][0] + joined[-1][1] == start:
            joined[-1][1] += length
        else:
            joined.append([start, length])
    few = len(listed) <= PIECES_TOLD
    told = " ".join(f"{start}+{length}" for start, length in (listed if few else joined)) or "nothing"
    return told if few else f"{len(listed)} pieces, {told}"


def ranges(some: Sequence[Range], node: str) -> str:
    """`32+32 64+32 of key a>b`."""
    return f"{spans((range.start, range.length) for range in some)} of {name_of(some[0].run, node)}"


def placed(placements: Iterable[Placement], one: str, other: str) -> str:
    return ", ".join(f"{run_name(n, one, other)} {start}+{length}" for n, start, length in placements) or "nowhere"


def frame(kind: int, position: int, payload: bytes, sender: str, receiver: str) -> list[tuple[str, str]]:
    """(type of what is said, words), one per message; what frames the messages comes first."""
    body = decode(kind, payload)
    match body:
        case Hello():
            has = f"opening {spans(body.opening)}, tag {spans(body.tags)}"
            return [("Hello", f"HELLO start {body.start}, has {has}")]
        case Grant():
            return [("Grant", f"GRANT {body.position} of opening {receiver}>{sender}")]
        case Proof():
            return [("Proof", f"PROOF at {position}: {proof(body, sender, receiver)}")]
        case State():
            head = f"STATE at {position}, journal {body.journal}"
            if body.credit:
                head += f", credit {spans(body.credit)}"
            said = [(type(message).__name__, tagged(message, sender, receiver)) for message in body.messages]
            return [("State", head), *said]
        case Plain():
            return [(type(message).__name__, plain(message, sender)) for message in body.messages]
    raise AssertionError(f"no words for {type(body).__name__}")


def proof(body: Proof, sender: str, receiver: str) -> str:
    parts = [f"epoch {body.epoch}, journal {body.journal}"]
    parts.append(f"heard of start {body.told_start}, journal {body.told_journal}" if body.told_vouch else "never heard")
    for state in body.runs:
        if RunKind(state.run >> 1) is RunKind.KEY and state.append:
            where = f"{run_name(state.run, sender, receiver)} ends at {state.append}, floor {state.floor}"
            parts.append(f"{where}, touched {spans(state.touched)}")
    parts += [f"blocks of {module} to {highest}" for module, highest, _ in body.intake]
    if body.secrets:
        parts.append(f"secrets {' '.join(map(str, body.secrets))}")
    parts.append(f"credit {spans(body.credit)}")
    return "; ".join(parts)


def tagged(message: object, sender: str, receiver: str) -> str:
    match message:
        case AgreeBlock():
            where = placed(message.placements, sender, receiver)
            key = f"tag key {message.key_position}"
            numbers = " ".join(map(str, message.numbers))
            return f"AgreeBlock {message.module} {numbers}, {message.length} bytes, {key}: {where}"
        case AnswerBlock():
            lacking = f", lacking {' '.join(map(str, message.lacking))}" if message.lacking else ""
            return f"AnswerBlock {message.module} {message.number}: {'yes' if message.accepted else 'no'}{lacking}"
        case StoredBlock():
            return f"StoredBlock {message.module} {message.number}"
        case RequestLease():
            return f"RequestLease {message.request} for {message.purpose}: {spans(message.segments)}"
        case AnswerLease():
            return f"AnswerLease {message.request}: {'yes' if message.granted else 'no'}"
        case Statement():
            totals = {
                "delivered": message.delivered,
                "rounding": message.rounding,
                "relayed": message.relayed,
                "authentication": message.authentication,
                "expired": message.expired,
                "lost": message.lost,
            }
            used = ", ".join(f"{name} {total}" for name, total in totals.items() if total)
            return f"Statement: {used or 'nothing used'}; floor {message.floor}"
        case ExpireSegments():
            return f"ExpireSegments {spans(message.segments)}"
        case NameSecret():
            return f"NameSecret {message.epoch}, tag key {message.key_position}"
        case OfferExchange():
            return f"OfferExchange {message.number}"
        case AnswerExchange():
            return f"AnswerExchange {message.number}"
        case RelayBatch():
            payload = f"{len(message.ciphertext)} bytes under" if message.ciphertext else "the bytes themselves at"
            manifest = decode_manifest(message.manifest)
            where = placed(manifest.placements, message.source, message.destination)
            return (
                f"RelayBatch {message.source}#{message.number}: {payload} pads {spans(message.pads)}; goes to {where}"
            )
    raise AssertionError(f"no words for {type(message).__name__}")


def plain(message: object, sender: str) -> str:
    match message:
        case SignedLinkState():
            state = decode_link_state(message.statement)
            told = [f"{peer} {usable} {'up' if up else 'down'}" for peer, usable, _, up in state.links]
            return f"LinkState of {state.node}: {', '.join(told)}; serves {' '.join(state.applications)}"
        case Forward():
            way = f"Forward {message.source}>{message.destination}"
            if not message.kind:
                return f"{way}: closed"
            inside = frame(message.kind, message.position, message.payload, message.source, message.destination)
            # Who hands it on adds nothing: names will do.
            return f"{way}: " + "; ".join(words if sender == message.source else name for name, words in inside)
        case Reserve():
            return f"Reserve {message.path[0]}#{message.number}: {message.length} bytes over {'-'.join(message.path)}"
        case AnswerReserve():
            said = "reserved" if message.reserved else f"{message.at} refuses, {message.reason}"
            return f"AnswerReserve {message.path[0]}#{message.number}: {said}"
        case Confirm():
            return f"Confirm {message.path[0]}#{message.number}" + ("" if message.fingerprint else ": dead")
    return type(message).__name__


def commit(saves: Sequence[Save]) -> str:
    """The kinds of what was written, in the order of their first appearance."""
    counts: dict[str, int] = {}
    for save in saves:
        match save:
            case Put(row=row) | Remove(row=row):
                kind = type(row).__name__.removesuffix("Row").lower()
                if kind == "node":
                    # In every commit: its journal number stands in front.
                    continue
                if isinstance(row, SegmentRow) and isinstance(save, Put):
                    kind += f"[{row.mark}]"
                kind = kind if isinstance(save, Put) else f"-{kind}"
            case _:
                kind = type(save).__name__
        counts[kind] = counts.get(kind, 0) + 1
    return ", ".join(kind if count == 1 else f"{kind} x{count}" for kind, count in counts.items()) or "nothing else"


def book(run: Run) -> str:
    """`taken in G 2048 = D 64 + S 1984`: only what is not zero."""
    totals = run.book.totals
    inside = " + ".join(f"{account.name} {totals[account]}" for account in TAKEN_IN if totals[account])
    out = [f"{a.name} {totals[a]}" for a in ACCOUNTS if totals[a] and a not in TAKEN_IN]
    return f"{inside or 'nothing'} = {' + '.join([*out, f'S {run.book.stock}'])}"


def segments(run: Run) -> str:
    """Neighbouring segments of one mark stand together: `untouched 2048+4096, gone 0+1024`."""
    told: list[list[object]] = []
    end = -1
    for segment in run.segments.values():
        if told and told[-1][0] == segment.mark and end == segment.start:
            told[-1][2] = segment.end
        else:
            told.append([segment.mark, segment.start, segment.end])
        end = segment.end
    return ", ".join(f"{mark} {low}-{high}" for mark, low, high in told) or "no segments"


def look(pair: Pair, node: str) -> list[str]:
    lines = []
    for run in (pair.own_key, pair.their_key):
        head = f"{node}: {name_of(run.id, node)}"
        lines.append(f"{head}: {book(run)}; floor {run.floor}, {segments(run)}")
    return lines
