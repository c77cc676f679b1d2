"""The node API: what a server writes, a command reads back."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import get_args

import msgspec
import pytest

from keyhop.wire import explain, manage
from keyhop.wire.manage import (
    AnyEvent,
    EventReader,
    EventsLost,
    KeyDelivered,
    Link,
    LinkChanged,
    LinksAnswer,
    LinkState,
    ManageFormatError,
    Pool,
    PoolKind,
    PoolsAnswer,
    Problem,
    Role,
    RouteAnswer,
)

NOON = datetime(2030, 1, 2, 12, 0, tzinfo=UTC)

A_LINK = Link(id="STP-BRT", ends=("BRT", "STP"), peer="BRT", state=LinkState.UP, qber=0.029, skr_bps=600.0)
A_KEY = KeyDelivered(
    at=NOON, role=Role.ENC, key_id="7f3c9a1e", master="sae-stp", slave="sae-frm", size_bits=256, path=("STP", "BRT")
)


def test_an_answer_survives_the_wire() -> None:
    answer = LinksAnswer(links=(A_LINK,))
    assert manage.decode(LinksAnswer, manage.encode(answer)) == answer


def test_every_answer_names_its_version() -> None:
    assert msgspec.json.decode(manage.encode(LinksAnswer(links=())))["apiVersion"] == "keyhop/v1"
    assert msgspec.json.decode(manage.encode(Problem(message="no")))["apiVersion"] == "keyhop/v1"


def test_an_answer_of_another_version_is_refused() -> None:
    with pytest.raises(ManageFormatError, match=r"not a LinksAnswer of keyhop/v1.*apiVersion"):
        manage.decode(LinksAnswer, b'{"apiVersion": "keyhop/v2", "links": []}')


def test_members_of_a_newer_node_are_skipped() -> None:
    body = manage.encode(RouteAnswer(chosen=None, reason="no path")).replace(b"{", b'{"weather": "fine", ', 1)
    assert manage.decode(RouteAnswer, body).reason == "no path"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"links": 1}', b"\xff", b"<html>"])
def test_what_is_no_answer_is_refused_by_name(body: bytes) -> None:
    with pytest.raises(ManageFormatError, match="not a LinksAnswer"):
        manage.decode(LinksAnswer, body)


def test_an_unknown_figure_is_null_and_not_zero() -> None:
    pool = Pool(peer="BRT", kind=PoolKind.LINK, stored_bytes=1, leasable_bytes=0, leased_bytes=0)
    written = msgspec.json.decode(manage.encode(PoolsAnswer(pools=(pool,))))["pools"][0]
    assert written["in_bps"] is None
    assert written["oldest_age_s"] is None


def test_names_in_paths_are_quoted() -> None:
    assert manage.application_path("a/b?c") == "/api/v1/applications/a%2Fb%3Fc"
    assert manage.route_path("STP", "FRM") == "/api/v1/routes/STP/FRM"
    assert explain.explain_path("a/b", "c d", None, {}) == "/api/v1/explain/a%2Fb/c%20d"
    assert explain.explain_path("a", "b", 256, {"x": 1}) == "/api/v1/explain/a/b?size=256&extensions=%7B%22x%22%3A1%7D"


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_events_are_read_back_however_they_are_split(step: int) -> None:
    events: list[AnyEvent] = [
        A_KEY,
        LinkChanged(at=NOON, link=A_LINK, before=LinkState.DOWN),
        EventsLost(at=NOON, count=3),
    ]
    stream = manage.KEEP_ALIVE.join(manage.encode_event(event, n) for n, event in enumerate(events))
    reader = EventReader()
    read = [event for at in range(0, len(stream), step) for event in reader.feed(stream[at : at + step])]
    assert read == events


def test_an_event_of_a_newer_node_is_skipped() -> None:
    reader = EventReader()
    stream = b'event: moon\ndata: {"event": "moon", "phase": 3}\n\n' + manage.encode_event(A_KEY, 2)
    assert list(reader.feed(stream)) == [A_KEY]


@pytest.mark.parametrize("data", [b"{}", b"hello", b'{"event": "key_delivered"}'])
def test_a_broken_event_is_refused(data: bytes) -> None:
    with pytest.raises(ManageFormatError, match="not an event"):
        list(EventReader().feed(b"data: " + data + b"\n\n"))


def test_an_endless_line_is_refused() -> None:
    with pytest.raises(ManageFormatError, match="longer than 65536 bytes"):
        list(EventReader().feed(b"x" * (manage.EVENT_LINE_LIMIT_BYTES + 1)))


def test_every_kind_of_event_has_its_own_name() -> None:
    kinds = get_args(AnyEvent)
    assert len({kind.__struct_config__.tag for kind in kinds}) == len(kinds)


def test_no_record_has_room_for_a_key() -> None:
    """Every member is named here or is not bytes: a field of bits could not slip in unseen."""
    for kind in (*vars(manage).values(), *vars(explain).values()):
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            for field in msgspec.structs.fields(kind):
                assert field.type is not bytes, f"{kind.__name__}.{field.name}"
                assert field.name != "key", kind.__name__


def test_a_key_id_is_shown_in_part() -> None:
    assert manage.shown_key_id("7f3c9a1e-aaaa-4bbb-8ccc-dddddddddddd") == "7f3c9a1e"
