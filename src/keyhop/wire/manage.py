"""The node API as JSON: what a node answers on its manage address, and the events it streams.

Plain HTTP on loopback. Every answer is one of the `*Answer` records below and carries `apiVersion`; keys are in
snake case, rates in bit/s (`_bps`), sizes in bytes, ages in seconds, moments in UTC as ISO 8601. A figure that is
not known is null, never 0. No record has room for a bit of a key; of a key ID only the first characters are shown.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from typing import Literal, TypeVar, get_args
from urllib.parse import quote

import msgspec

API_VERSION: Literal["keyhop/v1"] = "keyhop/v1"

PREFIX = "/api/v1"
STATUS_PATH = f"{PREFIX}/status"
LINKS_PATH = f"{PREFIX}/links"
POOLS_PATH = f"{PREFIX}/pools"
ROUTES_PATH = f"{PREFIX}/routes"
APPLICATIONS_PATH = f"{PREFIX}/applications"
ALARMS_PATH = f"{PREFIX}/alarms"
EVENTS_PATH = f"{PREFIX}/events"
OPENAPI_PATH = f"{PREFIX}/openapi.json"
RESTORED_PATH = f"{PREFIX}/restored"
"""POST with a `DeclareRestored`: this node's store is an old copy of itself."""
HEALTH_PATH = "/healthz"
READY_PATH = "/readyz"
METRICS_PATH = "/metrics"

KEY_ID_SHOWN = 8
"""Characters of a key ID that leave the node by this door: enough to match two lines, too few to ask for the key."""

EVENT_LINE_LIMIT_BYTES = 64 * 1024
"""A longer line in the event stream is not ours."""


def link_path(link: str) -> str:
    return f"{LINKS_PATH}/{quote(link, safe='')}"


def pool_path(peer: str) -> str:
    return f"{POOLS_PATH}/{quote(peer, safe='')}"


def route_path(origin: str, to: str) -> str:
    """Ends are nodes or applications; an application stands for the node that serves it."""
    return f"{ROUTES_PATH}/{quote(origin, safe='')}/{quote(to, safe='')}"


def application_path(application: str) -> str:
    return f"{APPLICATIONS_PATH}/{quote(application, safe='')}"


def shown_key_id(key_id: str) -> str:
    return key_id[:KEY_ID_SHOWN]


class Record(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Readers skip members they do not know, so that a newer node can be asked by an older command."""


class Answer(Record, frozen=True, gc=False, kw_only=True):
    api_version: Literal["keyhop/v1"] = msgspec.field(name="apiVersion", default=API_VERSION)


class LinkState(StrEnum):
    UP = "up"
    OPENING = "opening"
    DOWN = "down"
    SUSPENDED = "suspended"
    """The module gives no key, or an operator disabled it; what is stored can still be used."""


class Health(StrEnum):
    HEALTHY = "healthy"
    DEGRADED = "degraded"
    SEALED = "sealed"


class PoolKind(StrEnum):
    LINK = "link"
    RELAYED = "relayed"
    LOCAL = "local"


class Severity(StrEnum):
    """As ITU-T X.733 has them."""

    CRITICAL = "critical"
    MAJOR = "major"
    MINOR = "minor"
    WARNING = "warning"
    CLEARED = "cleared"


class AlarmState(StrEnum):
    RAISED = "raised"
    ACKNOWLEDGED = "acknowledged"
    CLEARED = "cleared"


class Role(StrEnum):
    """Which side of a key asked: the one that chose it (`enc`), or the one that named its ID (`dec`)."""

    ENC = "enc"
    DEC = "dec"


class Stock(Record, frozen=True, gc=False, kw_only=True):
    """One direction of a link: the run that `owner` allocates from."""

    owner: str
    stored_bytes: int
    capacity_bytes: int
    oldest_age_s: float | None = None


class Link(Record, frozen=True, gc=False, kw_only=True):
    id: str
    ends: tuple[str, str]
    """Both nodes, in the order of their names."""
    peer: str
    state: LinkState
    reason: str = ""
    """Why it is not up, as a sentence; empty when it is."""
    alarm: str = ""
    """Code of the alarm behind `reason`, such as KH-1203."""
    emulated: bool = False
    driver: str = ""
    protocol: str = ""
    length_km: float | None = None
    qber: float | None = None
    """Quantum bit error rate as a ratio: 0.029 is 2.9 %."""
    qber_limit: float | None = None
    skr_bps: float | None = None
    """Secret key the module gives, averaged over the last blocks."""
    net_bps: float | None = None
    """Change of the stock: taken in, less everything used."""
    block_period_s: float | None = None
    stock: tuple[Stock, ...] = ()
    """One entry for each direction."""
    stored_bytes: int = 0
    """Both directions together."""
    capacity_bytes: int = 0
    threshold_bytes: int = 0
    age_s: float = 0.0
    """How long it has been in this state."""


class Flows(Record, frozen=True, gc=False, kw_only=True):
    """Where the bytes of a pool came from and went to since the store was made."""

    in_bytes: int = 0
    delivered_bytes: int = 0
    relayed_bytes: int = 0
    authentication_bytes: int = 0
    wasted_bytes: int = 0
    """Rounding: bytes of a segment that no key fitted into."""
    expired_bytes: int = 0
    lost_bytes: int = 0
    """Burnt: holes, leases that a restart ended, blocks that differed."""


class Pool(Record, frozen=True, gc=False, kw_only=True):
    node: str = ""
    """Whose view this is; empty: the node that was asked."""
    peer: str
    kind: PoolKind
    stored_bytes: int
    """In stock at this end, leased or not."""
    leasable_bytes: int
    """Ours to allocate, not leased yet."""
    leased_bytes: int
    """Ours, reserved at both ends, to be given out from memory."""
    following_bytes: int = 0
    """The peer's to allocate."""
    threshold_bytes: int = 0
    """Below it the pool is refilled, or supply is held back."""
    capacity_bytes: int = 0
    oldest_age_s: float | None = None
    in_bps: float | None = None
    out_bps: float | None = None
    flows: Flows = Flows()


class Route(Record, frozen=True, gc=False, kw_only=True):
    origin: str
    to: str
    path: tuple[str, ...]
    """All nodes, both ends included; empty if there is no path."""
    hops: int
    cost: float | None = None
    feasible: bool = True
    reason: str = ""
    """Why it is not feasible, or why this one was not chosen."""
    narrowest_link: str = ""
    narrowest_bps: float | None = None
    narrowest_stored_bytes: int | None = None


class Application(Record, frozen=True, gc=False, kw_only=True):
    id: str
    node: str
    """The node that serves it."""
    state: Literal["active", "suspended"] = "active"
    peers: tuple[str, ...] = ()
    """Applications it may share keys with."""
    delivered_enc: int = 0
    delivered_dec: int = 0
    delivered_bytes: int = 0
    refused: int = 0
    last_refusal: str = ""
    last_key_id: str = ""
    """First characters of the ID of the last key it got."""
    last_key_age_s: float | None = None
    last_peer: str = ""
    last_path: tuple[str, ...] = ()
    certificate_expires_at: datetime | None = None


class Alarm(Record, frozen=True, gc=False, kw_only=True):
    id: str
    code: str
    severity: Severity
    state: AlarmState
    object: str
    """What it is about: `link STP-BRT`, `node STP`."""
    summary: str
    cause: str = ""
    remedy: str = ""
    """What to do, as a sentence or a command."""
    first_seen_at: datetime | None = None
    last_seen_at: datetime | None = None
    count: int = 1


class StatusAnswer(Answer, frozen=True, gc=False, kw_only=True):
    node: str
    name: str
    version: str
    design: str
    health: Health
    reasons: tuple[str, ...] = ()
    """Why it is not healthy: one sentence each."""
    ready: bool = True
    """Applications are served."""
    emulated: bool = False
    """At least one link gives emulated key."""
    started_at: datetime | None = None
    uptime_s: float = 0.0
    links_up: int = 0
    links_total: int = 0
    applications: int = 0
    keys_delivered: int = 0
    keys_refused: int = 0
    keys_per_s: float | None = None
    stored_bytes: int = 0
    alarms_active: int = 0
    audit_head: str = ""
    etsi014_address: str = ""
    design_notes: tuple[str, ...] = ()
    """What this design cannot promise."""


class LinksAnswer(Answer, frozen=True, gc=False, kw_only=True):
    links: tuple[Link, ...]


class LinkAnswer(Answer, frozen=True, gc=False, kw_only=True):
    link: Link


class PoolsAnswer(Answer, frozen=True, gc=False, kw_only=True):
    pools: tuple[Pool, ...]


class PoolAnswer(Answer, frozen=True, gc=False, kw_only=True):
    pools: tuple[Pool, ...]
    """All pools shared with this peer: a neighbour may have a link pool and a relayed one."""


class RoutesAnswer(Answer, frozen=True, gc=False, kw_only=True):
    routes: tuple[Route, ...]
    """The chosen route to each node this one knows."""


class RouteAnswer(Answer, frozen=True, gc=False, kw_only=True):
    chosen: Route | None
    """None: no path at all; `reason` says why."""
    alternatives: tuple[Route, ...] = ()
    reason: str = ""


class ApplicationsAnswer(Answer, frozen=True, gc=False, kw_only=True):
    applications: tuple[Application, ...]


class ApplicationAnswer(Answer, frozen=True, gc=False, kw_only=True):
    application: Application


class AlarmsAnswer(Answer, frozen=True, gc=False, kw_only=True):
    alarms: tuple[Alarm, ...]


class HealthAnswer(Answer, frozen=True, gc=False, kw_only=True):
    """The loop turns. Nothing more: a process that answers this is not to be restarted for it."""

    node: str


class ReadyAnswer(Answer, frozen=True, gc=False, kw_only=True):
    """With status 200 if applications are served, else 503."""

    node: str
    ready: bool
    reasons: tuple[str, ...] = ()
    """Why not: one sentence each."""


class DeclareRestored(Record, frozen=True, gc=False, kw_only=True):
    """What an operator says of a node whose store was put back from a copy."""

    node: str
    """Must be the node that is asked: whoever types the wrong address burns nothing."""


class RestoredAnswer(Answer, frozen=True, gc=False, kw_only=True):
    """All open keys and leases are burnt and every link opens anew."""

    node: str
    epoch: int
    """The one that begins now."""


class Problem(Answer, frozen=True, gc=False, kw_only=True):
    """Body of every answer that is not 200, but for `ReadyAnswer`: 400, 403, 404 (no such thing), 405, 415, 503."""

    message: str
    """What was refused, naming the thing and the value."""
    next: str = ""
    """What to do now."""
    code: str = ""


class Event(Record, frozen=True, gc=False, kw_only=True, tag_field="event"):
    """One line of data in the stream at `EVENTS_PATH`; `event` names its kind."""

    at: datetime


class KeyDelivered(Event, frozen=True, gc=False, kw_only=True, tag="key_delivered"):
    role: Role
    key_id: str
    """First characters only."""
    master: str
    slave: str
    size_bits: int
    path: tuple[str, ...] = ()
    """Nodes the key crossed, both ends included."""
    grade: str = ""


class KeyRefused(Event, frozen=True, gc=False, kw_only=True, tag="key_refused"):
    role: Role
    master: str
    slave: str
    reason: str


class LinkChanged(Event, frozen=True, gc=False, kw_only=True, tag="link_changed"):
    link: Link
    before: LinkState


class LinkMeasured(Event, frozen=True, gc=False, kw_only=True, tag="link_measured"):
    """Figures of a link, sent at each block and at least every few seconds."""

    link: Link


class RouteChanged(Event, frozen=True, gc=False, kw_only=True, tag="route_changed"):
    route: Route
    before: tuple[str, ...] = ()


class AlarmChanged(Event, frozen=True, gc=False, kw_only=True, tag="alarm_changed"):
    alarm: Alarm


class EventsLost(Event, frozen=True, gc=False, kw_only=True, tag="events_lost"):
    """The reader was too slow: read the lists again."""

    count: int


AnyEvent = KeyDelivered | KeyRefused | LinkChanged | LinkMeasured | RouteChanged | AlarmChanged | EventsLost

_encoder = msgspec.json.Encoder()
_event_decoder: msgspec.json.Decoder[AnyEvent] = msgspec.json.Decoder(AnyEvent)

KEEP_ALIVE = b": still here\n\n"
"""Sent when there is nothing to say, so that a reader can tell a quiet node from a dead one."""


class ManageFormatError(ValueError):
    """What arrived is not what this file describes."""


AnswerT = TypeVar("AnswerT", bound=Answer)


def encode(answer: Answer) -> bytes:
    return _encoder.encode(answer)


def decode(kind: type[AnswerT], body: bytes) -> AnswerT:
    """Raises ManageFormatError naming the place that does not fit."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ManageFormatError(f"not a {kind.__name__} of {API_VERSION}: {error}") from None


def encode_event(event: AnyEvent, number: int) -> bytes:
    """One server-sent event; `number` rises by one for each, so that a gap can be seen."""
    tag = event.__struct_config__.tag
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (number, str(tag).encode(), _encoder.encode(event))


class EventReader:
    """Turns the bytes of the stream back into events, wherever they were split."""

    def __init__(self) -> None:
        self._buffer = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> Iterator[AnyEvent]:
        """Yields the events that are complete now; kinds this version does not know are skipped."""
        *lines, self._buffer = (self._buffer + chunk).split(b"\n")
        if len(self._buffer) > EVENT_LINE_LIMIT_BYTES:
            raise ManageFormatError(f"a line of the event stream is longer than {EVENT_LINE_LIMIT_BYTES} bytes")
        for line in lines:
            line = line.removesuffix(b"\r")
            if line.startswith(b"data:"):
                self._data.append(line[5:].removeprefix(b" "))
            elif not line and self._data:
                data, self._data = b"\n".join(self._data), []
                event = _decode_event(data)
                if event is not None:
                    yield event


_known_tags = frozenset(str(kind.__struct_config__.tag) for kind in get_args(AnyEvent))


class _Tagged(msgspec.Struct):
    event: str


def _decode_event(data: bytes) -> AnyEvent | None:
    try:
        if msgspec.json.decode(data, type=_Tagged).event not in _known_tags:
            return None
        return _event_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ManageFormatError(f"not an event of {API_VERSION}: {error}") from None
