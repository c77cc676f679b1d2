"""How a node comes back from its store, and how a link begins."""

from __future__ import annotations

import msgspec

from keyhop.core.machine import Drop
from keyhop.core.messages import Placement
from keyhop.core.model import Action, NodeId, PeerError, Purpose, Range, RunKind, State, run_number
from keyhop.core.node.context import Context
from keyhop.core.node.events import SecretLoaded
from keyhop.core.node.extents import Extents
from keyhop.core.node.intake import FIRST_CONTACT as FIRST_CONTACT
from keyhop.core.node.intake import Intake
from keyhop.core.node.ledger import Account, Book
from keyhop.core.node.pair import NO_LINK, Pair
from keyhop.core.node.rows import (
    BookRow,
    ExchangeRow,
    IntakeRow,
    KeyRow,
    NodeRow,
    OriginRow,
    PairRow,
    RunRow,
    SecretRow,
    SegmentRow,
    StartRow,
)
from keyhop.core.node.run import GONE, UNTOUCHED, Run, Segment
from keyhop.core.node.secrets import Secrets
from keyhop.core.node.starts import Starts
from keyhop.core.node.store import Snapshot
from keyhop.core.node.supply import Supply
from keyhop.core.node.vault import BlockName

FIRST_CONTACT_BYTES = 65_536
OPENING_SHARE_BYTES = 4096
"""Of each half of the pre-shared secret: its opening run; the rest is its tag run."""


def first_contact(context: Context, intake: Intake, event: SecretLoaded) -> None:
    """Loads a pre-shared secret: halves by order of node names, the first 4 KiB of each for openings."""
    pair = context.pairs.get(event.peer)
    name = BlockName(NodeId(event.peer), FIRST_CONTACT, 0)
    if pair is None or event.length != FIRST_CONTACT_BYTES or event.link != pair.link:
        context.vault.discard(name)
        raise PeerError(f"the first-contact secret for {event.peer} does not belong to a configured link")
    if any(run.append for run in pair.runs.values()):
        context.vault.discard(name)
        context.notice("KH-1304", f"the first-contact secret for {event.peer} was loaded before: refused", event.peer)
        return
    half = FIRST_CONTACT_BYTES // 2
    placements: list[Placement] = []
    for owner, other in sorted(((pair.own, pair.peer), (pair.peer, pair.own))):
        placements.append((run_number(RunKind.OPENING, owner, other), 0, OPENING_SHARE_BYTES))
        placements.append((run_number(RunKind.TAG, owner, other), 0, half - OPENING_SHARE_BYTES))
    intake.placing.store(pair, name, tuple(placements), 65_536, (), placed=False, account=Account.F)
    context.put(pair.row())


def recover(context: Context, snapshot: Snapshot, supply: Supply, secrets: Secrets, known: Starts) -> None:
    """Rebuilds what a node knows. Leases of an earlier process are over: what of them is in doubt counts as given."""
    blocks: dict[tuple[str, int], dict[int, int]] = {}
    for run_id, start, length in snapshot.blocks:
        blocks.setdefault((run_id.peer, run_id.number), {})[start] = length
    for row in snapshot.rows:
        if isinstance(row, PairRow):
            pair = context.pairs.get(row.peer)
            if pair is None:
                if row.link != NO_LINK:
                    context.notice(
                        "KH-1305", f"the store knows a link to {row.peer} that the configuration does not", row.peer
                    )
                    continue
                pair = context.pairs[row.peer] = Pair(context.node, NodeId(row.peer), row.link, direct=False)
            pair.peer_epoch, pair.peer_epoch_incarnation = row.peer_epoch, row.peer_epoch_incarnation
            pair.peer_start = row.peer_start
            pair.peer_journal, pair.peer_vouch = row.peer_journal, row.peer_vouch
    segments: dict[tuple[str, int], list[SegmentRow]] = {}
    starts: dict[int, StartRow] = {}
    last = 0
    for row in snapshot.rows:
        match row:
            case NodeRow():
                context.epoch, context.epoch_incarnation = row.epoch, row.epoch_incarnation
                context.journal, context.relay_number = row.journal, row.relay_number
                last = row.start
            case StartRow():
                starts[row.start] = row
            case RunRow() if row.peer == context.node:
                supply.local.run.append = row.append
            case RunRow() if row.peer in context.pairs:
                run = context.pairs[row.peer].runs[row.run]
                run.append, run.floor, run.mark = row.append, row.floor, max(row.sent, row.granted)
                run.gone = Extents((start, start + length) for start, length in row.gone)
            case SegmentRow():
                segments.setdefault((row.peer, row.run), []).append(row)
            case OriginRow() if row.peer in context.pairs:
                context.pairs[row.peer].runs[row.run].origins.add(row.start, row.start + row.length, row.known)
                # Key is not younger after a restart because the machine's clock went back.
                context.wall_ahead_ns = max(context.wall_ahead_ns, row.known.born - context.now)
            case IntakeRow():
                context.intake_marks[row.peer, row.module] = (row.highest, row.recent)
            case SecretRow() if row.peer in context.pairs:
                pair = context.pairs[row.peer]
                pair.secrets[row.issuer].append(row.epoch)
                pair.secrets[row.issuer].sort()
                if row.issuer == context.node and row.confirmed:
                    secrets.confirmed[row.peer] = max(row.epoch, secrets.confirmed.get(row.peer, 0))
            case BookRow() if row.peer in context.pairs:
                context.pairs[row.peer].runs[row.run].book = Book(row.totals)
            case ExchangeRow():
                supply.exchanges.numbers[row.peer] = row.number
            case KeyRow():
                supply.local.recall(row)
            case _:
                pass
    if last in starts:
        starts[last] = StartRow(last, starts[last].incarnation, context.journal)
        context.put(starts[last])
    known.rows = starts
    known.record()
    for used in snapshot.used:
        if used.run.peer in context.pairs:
            context.pairs[used.run.peer].runs[used.run.number].used.add(used.start, used.end)
    for pair in context.pairs.values():
        for run in pair.runs.values():
            if run.kind is RunKind.KEY:
                own = segments.get((run.id.peer, run.id.number), [])
                _recover_key_run(context, run, own, blocks.get((run.id.peer, run.id.number), {}))
            else:
                _recover_authentication_run(context, run, blocks.get((run.id.peer, run.id.number), {}))


def _recover_key_run(context: Context, run: Run, rows: list[SegmentRow], blocks: dict[int, int]) -> None:
    missing = run.book.stock
    pads = 0
    for row in sorted(rows, key=lambda row: row.start):
        mark, end = row.mark, row.start + row.length
        if mark == UNTOUCHED:
            missing -= row.length
        elif mark != GONE and not run.owned:
            missing -= row.length - sum(b - a for a, b in run.used.within(row.start, end))
        elif mark != GONE:
            if mark == Purpose.PAD:
                pads += row.length
            mark = GONE
            context.put(msgspec.structs.replace(row, mark=mark))
        spent_at = None if mark == UNTOUCHED else context.spent_now
        segment = Segment(row.start, row.length, mark, row.start in blocks, context.born_now, spent_at)
        run.insert_segment(segment)
    if missing > 0:
        # In doubt after a crash: pads count as relayed, the rest as delivered.
        relayed = min(pads, missing)
        run.book.move(State.RESERVED_INTERNAL, Action.RELAY, relayed)
        run.book.move(State.RESERVED_APP, Action.SUPPLY, missing - relayed)
        context.book(run)


def _recover_authentication_run(context: Context, run: Run, blocks: dict[int, int]) -> None:
    for start, length in sorted(blocks.items()):
        if start + length <= run.mark:
            context.save(Drop(Range(run.id, start, length)))
            continue
        run.keep_block(start, length)
        run.present.add(max(start, run.mark), start + length)
    for start, end in run.gone:
        run.present.remove(start, end)
    in_doubt = run.book.stock - run.present.total()
    if in_doubt > 0:
        run.book.move(State.STORED, Action.AUTHENTICATE, in_doubt)
        context.book(run)
