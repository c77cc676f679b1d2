"""The store's contract, the same for every implementation."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyhop.core.machine import Audit, Drop, DropSecret, ForgetUsed, KeepSecret, Put, Remove, Row, Save, Seal, Used
from keyhop.core.model import NodeId, Range, RunId
from keyhop.core.node.extents import Extents
from keyhop.core.node.store import Outboxed, Snapshot, Store, StoreError
from keyhop.daemon.store.memory import MemoryStore
from keyhop.daemon.store.sealing import NodeKey
from keyhop.daemon.store.sqlite import SqliteStore
from keyhop.simulator.disk import PretendDisk

RUN = RunId(NodeId("bob"), 0)
OTHER_RUN = RunId(NodeId("bob"), 1)
FAR_RUN = RunId(NodeId("carol"), 0)


class Mark(Row, frozen=True, gc=False, array_like=True, tag="mark"):
    name: str
    height: int

    @property
    def key(self) -> str:
        return self.name


class Note(Row, frozen=True, gc=False, array_like=True, tag="note"):
    name: str
    text: bytes

    @property
    def key(self) -> str:
        return self.name


ROWS = [Mark, Note]


def bits_of(range: Range) -> bytes:
    """The bits of a pretend network: the same for the same place."""
    seed = repr((range.run.peer, range.run.number)).encode()
    return hashlib.shake_128(seed).digest(range.end)[range.start :]


class Opened:
    """A store under test and the way to open it anew after a stop."""

    def __init__(self, open_store: Callable[[], Store]) -> None:
        self._open_store = open_store
        self.store = open_store()
        self.snapshot = self.store.load()

    def commit(self, *saves: Save) -> None:
        self.store.commit(saves, bits_of)

    def reopened(self) -> Snapshot:
        if not isinstance(self.store, MemoryStore | PretendDisk):
            self.store.close()
            self.store = self._open_store()
        self.snapshot = self.store.load()
        return self.snapshot


NODE_KEY = bytes(range(32))

IMPLEMENTATIONS: dict[str, Callable[[Path], Callable[[], Store]]] = {
    "memory": lambda directory: MemoryStore,
    "pretend": lambda directory: PretendDisk,
    "sqlite": lambda directory: lambda: SqliteStore(directory / "node.db", NodeKey(NODE_KEY), "alice", ROWS),
}


@pytest.fixture(params=list(IMPLEMENTATIONS))
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    opened = Opened(IMPLEMENTATIONS[request.param](tmp_path))
    yield opened
    opened.store.close()


def rows(snapshot: Snapshot) -> set[Row]:
    assert len(set(snapshot.rows)) == len(snapshot.rows)
    return set(snapshot.rows)


def test_a_new_store_is_empty(opened: Opened) -> None:
    assert opened.snapshot == Snapshot(rows=[], used=[], blocks=[], secrets=[])
    assert opened.store.outbox() == []
    assert opened.store.covering(RUN, 0) is None


def test_rows_come_back_after_a_stop(opened: Opened) -> None:
    opened.commit(Put(Mark("a", 1)), Put(Mark("b", 2)), Put(Note("a", b"\x00\xff")))
    assert rows(opened.reopened()) == {Mark("a", 1), Mark("b", 2), Note("a", b"\x00\xff")}


def test_a_row_replaces_the_one_of_its_type_and_key(opened: Opened) -> None:
    opened.commit(Put(Mark("a", 1)), Put(Note("a", b"")))
    opened.commit(Put(Mark("a", 2)))
    opened.commit(Put(Mark("a", 3)), Put(Mark("a", 4)))
    assert rows(opened.reopened()) == {Mark("a", 4), Note("a", b"")}


def test_a_removed_row_is_gone_whatever_else_it_said(opened: Opened) -> None:
    opened.commit(Put(Mark("a", 1)), Put(Note("a", b"")), Put(Mark("b", 1)))
    opened.commit(Remove(Mark("a", 99)), Remove(Mark("never there", 0)))
    assert rows(opened.reopened()) == {Note("a", b""), Mark("b", 1)}


def test_saves_act_in_their_order(opened: Opened) -> None:
    block = Range(RUN, 0, 64)
    opened.commit(
        Put(Mark("a", 1)),
        Remove(Mark("a", 1)),
        Seal(block),
        Drop(block),
        Used(Range(RUN, 0, 10)),
        ForgetUsed(Range(RUN, 0, 10)),
        KeepSecret("s", Range(RUN, 0, 32)),
        DropSecret("s"),
    )
    assert opened.reopened() == Snapshot(rows=[], used=[], blocks=[], secrets=[])
    opened.commit(
        Remove(Mark("a", 1)),
        Put(Mark("a", 2)),
        Drop(block),
        Seal(block),
        ForgetUsed(Range(RUN, 0, 10)),
        Used(Range(RUN, 0, 10)),
        DropSecret("s"),
        KeepSecret("s", Range(RUN, 0, 32)),
    )
    assert opened.reopened() == Snapshot([Mark("a", 2)], [Range(RUN, 0, 10)], [block], ["s"])


def test_an_empty_commit_is_a_commit(opened: Opened) -> None:
    opened.commit()
    assert opened.reopened() == Snapshot(rows=[], used=[], blocks=[], secrets=[])


@pytest.mark.parametrize("length", [1, 32, 1024, 65536])
def test_a_sealed_block_is_read_as_it_was(opened: Opened, length: int) -> None:
    block = Range(RUN, 17, length)
    opened.commit(Seal(block))
    assert opened.store.read(block) == bits_of(block)
    assert opened.reopened().blocks == [block]
    assert opened.store.read(block) == bits_of(block)


def test_what_is_read_is_a_copy(opened: Opened) -> None:
    block = Range(RUN, 0, 64)
    opened.commit(Seal(block))
    copy = opened.store.read(block)
    copy[:] = bytes(64)
    assert opened.store.read(block) == bits_of(block)


def test_blocks_of_several_runs_do_not_mix(opened: Opened) -> None:
    blocks = [Range(run, start, 100) for run in (RUN, OTHER_RUN, FAR_RUN) for start in (0, 100, 300)]
    opened.commit(*map(Seal, blocks))
    assert sorted(opened.reopened().blocks) == blocks
    for block in blocks:
        assert opened.store.read(block) == bits_of(block)


def test_the_block_around_a_byte_is_found(opened: Opened) -> None:
    opened.commit(Seal(Range(RUN, 100, 50)), Seal(Range(RUN, 150, 50)), Seal(Range(OTHER_RUN, 0, 1000)))
    covering = opened.store.covering
    assert covering(RUN, 99) is None and covering(RUN, 200) is None and covering(FAR_RUN, 100) is None
    assert covering(RUN, 100) == covering(RUN, 149) == Range(RUN, 100, 50)
    assert covering(RUN, 150) == covering(RUN, 199) == Range(RUN, 150, 50)
    opened.commit(Drop(Range(RUN, 100, 50)))
    assert covering(RUN, 149) is None and covering(RUN, 150) == Range(RUN, 150, 50)


def test_a_dropped_block_cannot_be_read(opened: Opened) -> None:
    block = Range(RUN, 0, 64)
    opened.commit(Seal(block), Seal(Range(RUN, 64, 64)))
    opened.commit(Drop(block), Drop(Range(FAR_RUN, 0, 64)))
    assert opened.reopened().blocks == [Range(RUN, 64, 64)]
    with pytest.raises(StoreError):
        opened.store.read(block)


@pytest.mark.parametrize(
    "wrong", [Range(RUN, 0, 63), Range(RUN, 0, 65), Range(RUN, 1, 63), Range(OTHER_RUN, 0, 64), Range(FAR_RUN, 0, 64)]
)
def test_a_block_answers_only_to_its_exact_name(opened: Opened, wrong: Range) -> None:
    opened.commit(Seal(Range(RUN, 0, 64)))
    with pytest.raises(StoreError):
        opened.store.read(wrong)


def test_a_dropped_place_can_be_sealed_anew(opened: Opened) -> None:
    block = Range(RUN, 0, 64)
    opened.commit(Seal(block))
    opened.commit(Drop(block))
    opened.store.commit([Seal(block)], lambda range: bytes(range.length))
    opened.reopened()
    assert opened.store.read(block) == bytes(64)


@pytest.mark.parametrize("start", [36, 64, 99, 100, 150, 199])
def test_a_block_over_another_is_refused(opened: Opened, start: int) -> None:
    opened.commit(Seal(Range(RUN, 100, 100)))
    with pytest.raises(StoreError, match="overlaps"):
        opened.commit(Seal(Range(RUN, start, 65)))


def test_a_block_between_two_others_is_not_refused(opened: Opened) -> None:
    opened.commit(Seal(Range(RUN, 0, 100)), Seal(Range(RUN, 150, 100)))
    opened.commit(Seal(Range(RUN, 100, 50)))
    assert opened.store.read(Range(RUN, 100, 50)) == bits_of(Range(RUN, 100, 50))


@pytest.mark.parametrize("wrong", [bytes(63), bytes(65), b""])
def test_bits_of_another_length_are_refused(opened: Opened, wrong: bytes) -> None:
    with pytest.raises(StoreError, match="must be 64"):
        opened.store.commit([Seal(Range(RUN, 0, 64))], lambda range: wrong)


def test_after_a_refusal_the_store_says_nothing_more(opened: Opened) -> None:
    opened.commit(Put(Mark("a", 1)))
    with pytest.raises(StoreError):
        opened.store.commit([Put(Mark("a", 2)), Seal(Range(RUN, 0, 64))], lambda range: b"")
    for call in (
        opened.store.load,
        lambda: opened.commit(),
        lambda: opened.store.read(Range(RUN, 0, 64)),
        lambda: opened.store.read_secret("s"),
        lambda: opened.store.covering(RUN, 0),
        opened.store.outbox,
        lambda: opened.store.written(0),
    ):
        with pytest.raises(StoreError):
            call()


def test_used_bytes_come_back_merged(opened: Opened) -> None:
    opened.commit(Used(Range(RUN, 32, 32)), Used(Range(RUN, 0, 32)), Used(Range(FAR_RUN, 5, 1)))
    opened.commit(Used(Range(RUN, 100, 10)))
    opened.commit(Used(Range(RUN, 105, 10)))
    assert sorted(opened.reopened().used) == [Range(RUN, 0, 64), Range(RUN, 100, 15), Range(FAR_RUN, 5, 1)]


def test_used_bytes_are_forgotten_where_it_is_said_and_nowhere_else(opened: Opened) -> None:
    opened.commit(Used(Range(RUN, 0, 100)), Used(Range(OTHER_RUN, 0, 100)))
    opened.commit(ForgetUsed(Range(RUN, 0, 40)))
    assert sorted(opened.reopened().used) == [Range(RUN, 40, 60), Range(OTHER_RUN, 0, 100)]


def test_used_bytes_at_the_end_of_the_positions_are_kept(opened: Opened) -> None:
    last = Range(RUN, (1 << 34) - 65536, 65536)
    opened.commit(Used(last))
    assert opened.reopened().used == [last]


def test_a_floor_may_rise_over_more_than_two_gibibytes_at_once(opened: Opened) -> None:
    last = (1 << 34) - 32
    opened.commit(Used(Range(RUN, 0, 32)), Used(Range(RUN, 1 << 33, 32)), Used(Range(RUN, last, 32)))
    opened.commit(ForgetUsed(Range(RUN, 0, last)))
    assert opened.reopened().used == [Range(RUN, last, 32)]


def test_a_secret_outlives_the_block_it_came_from(opened: Opened) -> None:
    block = Range(RUN, 0, 64)
    opened.commit(Seal(block))
    opened.commit(KeepSecret("bob/alice/1", Range(RUN, 16, 32)), Drop(block))
    assert opened.reopened().secrets == ["bob/alice/1"]
    assert opened.store.read_secret("bob/alice/1") == bits_of(Range(RUN, 16, 32))


def test_a_dropped_secret_is_gone(opened: Opened) -> None:
    opened.commit(KeepSecret("one", Range(RUN, 0, 32)), KeepSecret("two", Range(RUN, 32, 32)))
    opened.commit(DropSecret("one"), DropSecret("never there"))
    assert opened.reopened().secrets == ["two"]
    with pytest.raises(StoreError):
        opened.store.read_secret("one")


def test_a_secret_kept_again_is_the_later_one(opened: Opened) -> None:
    opened.commit(KeepSecret("one", Range(RUN, 0, 32)))
    opened.commit(KeepSecret("one", Range(RUN, 32, 32)))
    assert opened.reopened().secrets == ["one"]
    assert opened.store.read_secret("one") == bits_of(Range(RUN, 32, 32))


def test_a_secret_of_another_length_is_refused(opened: Opened) -> None:
    with pytest.raises(StoreError, match="must be 32"):
        opened.commit(KeepSecret("one", Range(RUN, 0, 33)))


def test_audit_entries_are_handed_out_once_in_order(opened: Opened) -> None:
    opened.commit(Audit(b'{"n":1}'), Audit(b'{"n":2}'))
    opened.commit(Audit(b'{"n":3}'))
    assert opened.store.outbox() == [Outboxed(1, b'{"n":1}'), Outboxed(2, b'{"n":2}'), Outboxed(3, b'{"n":3}')]
    assert opened.store.outbox() == []
    opened.commit(Audit(b'{"n":4}'))
    assert opened.store.outbox() == [Outboxed(4, b'{"n":4}')]


def test_audit_entries_that_were_not_written_come_back_after_a_stop(opened: Opened) -> None:
    opened.commit(Audit(b'{"n":1}'))
    opened.commit(Audit(b'{"n":2,"ids":["a","b"]}'), Audit(b'{"n":3}'))
    opened.store.outbox()
    opened.store.written(1)
    opened.commit()
    opened.reopened()
    assert opened.store.outbox() == [Outboxed(2, b'{"n":2,"ids":["a","b"]}'), Outboxed(3, b'{"n":3}')]


def test_audit_entries_keep_counting_over_a_stop(opened: Opened) -> None:
    opened.commit(Audit(b'{"n":1}'))
    opened.store.outbox()
    opened.store.written(1)
    opened.commit()
    opened.reopened()
    opened.commit(Audit(b'{"n":2}'))
    assert opened.store.outbox() == [Outboxed(2, b'{"n":2}')]


def test_what_fetches_leave_comes_back_with_all_else(opened: Opened) -> None:
    block = Range(RUN, 0, 128)
    opened.commit(Seal(block), Put(Mark("a", 1)), Put(Mark("b", 1)))
    opened.commit(Used(Range(RUN, 0, 32)), Audit(b'{"n":1}'), Put(Mark("a", 2)))
    opened.commit(Used(Range(RUN, 64, 32)), Used(Range(RUN, 32, 32)), Audit(b'{"n":2}'), Audit(b'{"n":3}'))
    assert [outboxed.number for outboxed in opened.store.outbox()] == [1, 2, 3]
    snapshot = opened.reopened()
    assert rows(snapshot) == {Mark("a", 2), Mark("b", 1)}
    assert snapshot.used == [Range(RUN, 0, 96)] and snapshot.blocks == [block]
    assert opened.store.outbox() == [Outboxed(n, b'{"n":%d}' % n) for n in (1, 2, 3)]


def test_later_commits_act_on_what_fetches_left(opened: Opened) -> None:
    opened.commit(Used(Range(RUN, 0, 32)), Put(Mark("a", 1)))
    opened.commit(Used(Range(RUN, 32, 64)), Put(Mark("b", 1)), Put(Mark("a", 2)))
    opened.commit(ForgetUsed(Range(RUN, 16, 32)), Remove(Mark("b", 0)))
    opened.commit(Used(Range(RUN, 20, 4)), Put(Mark("a", 3)))
    snapshot = opened.reopened()
    assert rows(snapshot) == {Mark("a", 3)}
    assert sorted(snapshot.used) == [Range(RUN, 0, 16), Range(RUN, 20, 4), Range(RUN, 48, 48)]


@pytest.mark.parametrize(
    "saves", [[Used(Range(RUN, 0, 32)), Put(Mark("a", 2))], [Remove(Mark("a", 0)), Put(Mark("b", 1))]]
)
def test_a_prepared_commit_is_one_only_when_it_is_carried_out(opened: Opened, saves: list[Save]) -> None:
    opened.commit(Seal(Range(RUN, 0, 64)), Put(Mark("a", 1)))
    opened.store.prepare(saves, bits_of)
    assert rows(opened.reopened()) == {Mark("a", 1)} and not opened.snapshot.used
    opened.store.prepare(saves, bits_of).commit()
    model = Model()
    for save in [Put(Mark("a", 1)), *saves]:
        model.save(save)
    assert rows(opened.reopened()) == set(model.rows.values())
    assert opened.snapshot.used == model.used_ranges()


RANGES = st.builds(Range, st.sampled_from([RUN, OTHER_RUN]), st.integers(0, 60), st.integers(1, 20))
BLOCKS = st.builds(Range, st.sampled_from([RUN, OTHER_RUN]), st.sampled_from(range(0, 300, 20)), st.just(20))
NAMES = st.sampled_from(["a", "b", "c"])
SAVES = st.one_of(
    st.builds(Put, st.builds(Mark, NAMES, st.integers(0, 1 << 60))),
    st.builds(Put, st.builds(Note, NAMES, st.binary(max_size=5))),
    st.builds(Remove, st.builds(Mark, NAMES, st.just(0))),
    st.builds(Used, RANGES),
    st.builds(ForgetUsed, RANGES),
    st.builds(Seal, BLOCKS),
    st.builds(Drop, BLOCKS),
    st.builds(KeepSecret, NAMES, st.builds(Range, st.just(RUN), st.integers(0, 60), st.just(32))),
    st.builds(DropSecret, NAMES),
)
FETCHES = st.one_of(st.builds(Put, st.builds(Mark, NAMES, st.integers(0, 9))), st.builds(Used, RANGES))
"""What stores may have a shorter way for."""


class Model:
    """What a store should hold, as slowly and plainly as can be."""

    def __init__(self) -> None:
        self.rows: dict[tuple[type, str], Row] = {}
        self.used: set[tuple[RunId, int]] = set()
        self.blocks: set[Range] = set()
        self.secrets: dict[str, bytes] = {}

    def save(self, save: Save) -> bool:
        """Whether the save is legal; then it is done."""
        match save:
            case Put(row=row):
                self.rows[type(row), row.key] = row
            case Remove(row=row):
                self.rows.pop((type(row), row.key), None)
            case Used(range=used):
                self.used |= {(used.run, position) for position in range(used.start, used.end)}
            case ForgetUsed(range=used):
                self.used -= {(used.run, position) for position in range(used.start, used.end)}
            case Seal(block=block):
                if block in self.blocks:
                    return False
                self.blocks.add(block)
            case Drop(block=block):
                self.blocks.discard(block)
            case KeepSecret(name=name, source=source):
                self.secrets[name] = bits_of(source)
            case DropSecret(name=name):
                self.secrets.pop(name, None)
        return True

    def used_ranges(self) -> list[Range]:
        extents: dict[RunId, Extents] = {}
        for run, position in self.used:
            extents.setdefault(run, Extents()).add(position, position + 1)
        return sorted(Range(run, low, high - low) for run, found in extents.items() for low, high in found)


@pytest.mark.parametrize("kind", list(IMPLEMENTATIONS))
@given(st.lists(st.one_of(st.none(), st.lists(SAVES, max_size=8), st.lists(FETCHES, max_size=4)), max_size=8))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_commits_and_stops_leave_what_a_plain_model_holds(
    tmp_path_factory: pytest.TempPathFactory, kind: str, commits: list[list[Save] | None]
) -> None:
    opened = Opened(IMPLEMENTATIONS[kind](tmp_path_factory.mktemp("store")))
    model = Model()
    for saves in [*commits, None]:
        if saves is not None:
            opened.commit(*[save for save in saves if model.save(save)])
            continue
        snapshot = opened.reopened()
        assert rows(snapshot) == set(model.rows.values())
        assert sorted(snapshot.used) == model.used_ranges()
        assert set(snapshot.blocks) == model.blocks
        assert sorted(snapshot.secrets) == sorted(model.secrets)
        for block in model.blocks:
            assert opened.store.read(block) == bits_of(block)
        for name, bits in model.secrets.items():
            assert opened.store.read_secret(name) == bits
    opened.store.close()
