"""The node file: what one key manager is told before it starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from keyhop.core.designs import DESIGNS, NotRunning, carrier, controlled, not_hosted
from keyhop.core.messages import HORIZON_LIMIT_HOPS
from keyhop.core.node.intake import RESERVED_SOURCES
from keyhop.files import Address, CheckError, Fingerprint, Source, read, schema
from keyhop.files.records import NAME, Between, Key, Name, OneOrMany, Pattern, Rest
from keyhop.files.units import BITS, PERIOD, RATE, SIZE
from keyhop.files.words import nearest

API_VERSION: Literal["keyhop/v1"] = "keyhop/v1"

DEFAULT_MANAGE_ADDRESS = Address("127.0.0.1", 8500)
DAY_S = 86_400.0
KEY_SIZE_LIMIT_BITS = 1 << 17
"""16 KiB: what a key ID has room for."""
STOCK_BYTES = (16 * 1024, 4 << 30)
"""Key kept per direction and link: up to what the lists of segments of a run are made for."""

ApplicationName = Annotated[str, Pattern(r"[!-~]{1,128}", "1 to 128 visible ASCII characters without spaces")]
"""ETSI leaves the form of a SAE ID open; this much fits in a certificate and, percent-encoded, in a path."""


class Identity(StrEnum):
    """The one place in a client certificate that names the application (ETSI GS QKD 014 leaves it open)."""

    SAN_URI = "san_uri"
    SAN_DNS = "san_dns"
    CN = "cn"
    FINGERPRINT = "fingerprint"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeEntry:
    id: Name
    name: Annotated[str | None, Pattern(r"[!-~]{1,128}", "1 to 128 visible ASCII characters without spaces")] = None
    """The KME ID that answers carry; the node's id if absent."""

    @property
    def kme_id(self) -> str:
        return self.name or self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class SupplyListener:
    """Where applications ask for keys (ETSI GS QKD 014). Only certificates issued under `client_ca` are let in."""

    address: Address
    cert: Path
    key: Source
    client_ca: Path
    identity: Identity = Identity.SAN_URI


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerListener:
    """Where other key managers connect; the same certificate is shown when this node connects to them."""

    address: Address
    cert: Path
    key: Source
    client_ca: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class ManageListener:
    """Node API, metrics and health, for this machine only: plain HTTP without a login."""

    address: Address = DEFAULT_MANAGE_ADDRESS

    def __post_init__(self) -> None:
        if not self.address.is_loopback:
            raise CheckError(
                f"{self.address} is open to other machines", "use 127.0.0.1, [::1] or localhost", "address"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalListener:
    """A socket for programs of this machine that act as applications of the node; for its own user alone."""

    socket: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Listeners:
    etsi014: SupplyListener
    peer: PeerListener
    manage: ManageListener = ManageListener()
    local: LocalListener | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkEntry:
    """A QKD link to a neighbour. The driver decides which members may follow."""

    to: Name
    driver: str
    id: Name | None = None
    vendor: Name | None = None
    """Who made the module; keys are labelled with it, and requests may want or refuse it."""
    first_contact: Source | None = None
    """The file `keyhop link key` made: loaded once, then overwritten."""
    settings: Annotated[Any, Rest(table="drivers", by="driver")] = None
    """What the driver's own record holds."""

    def __post_init__(self) -> None:
        if self.first_contact is not None and self.first_contact.kind == "env":
            raise CheckError(
                "an environment variable cannot be overwritten after it was loaded",
                "write {file: PATH} or {credential: NAME}",
                "first_contact",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What one application may take, as token buckets; absent means no limit of its own."""

    rate_bps: Annotated[float | None, RATE] = None
    """Key, averaged."""
    burst_bits: Annotated[int, BITS] = 1 << 20
    """Key, at once."""
    requests_per_s: Annotated[float | None, Between(1.0, 1_000_000.0)] = None
    requests_burst: Annotated[int, Between(1, 1_000_000)] = 100

    def __post_init__(self) -> None:
        if self.rate_bps is not None and self.rate_bps < 1:
            raise CheckError(f"{self.rate_bps:g} bit/s would never give a key", "must be 1 bit/s or more", "rate")


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationEntry:
    """An application served by this node."""

    id: ApplicationName
    certificate_fingerprint: Annotated[tuple[Fingerprint, ...], OneOrMany()] = ()
    """If given, only these certificates speak for it; two during a rotation."""
    peers: tuple[ApplicationName, ...] = ()
    """Applications it may share keys with."""
    quota: Quota = Quota()
    self_association: bool = False
    """It may ask for keys shared with itself."""

    def __post_init__(self) -> None:
        if self.id in self.peers:
            raise CheckError(f"{self.id} is its own peer", "write self_association: true instead", "peers")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreEntry:
    """Where sealed key and marks are kept: in a directory, or in memory until the process ends."""

    node_key: Source
    """32 bytes that unseal the store."""
    path: Path | None = None
    memory: bool = False

    def __post_init__(self) -> None:
        if (self.path is not None) == self.memory:
            raise CheckError(
                "both path and memory are given" if self.memory else "neither path nor memory is given",
                "write path: DIRECTORY, or memory: true",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorEntry:
    """Start number and journal key outside the store: how a restored store is recognised. Keep it out of backups."""

    file: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    file: Path
    max_size_bytes: Annotated[int, SIZE] = 64 * 1024 * 1024
    """The file is rotated there; the chain goes on."""
    sync: bool = False
    """Each record is on the disk before the key is handed out."""

    def __post_init__(self) -> None:
        if self.max_size_bytes < 4096:
            raise CheckError(f"{self.max_size_bytes} B is too small", "must be 4096 B or more", "max_size")


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    key_size_bits: Annotated[int, BITS] = 256
    """What an application gets that asks for no size."""
    min_key_size_bits: Annotated[int, BITS] = 64
    max_key_size_bits: Annotated[int, BITS] = 8192
    keys_per_request: Annotated[int, Between(1, 1024)] = 128
    stock_bytes: Annotated[int, SIZE] = 1024 * 1024
    """Kept per direction and link."""
    connections: Annotated[int, Between(1, 100_000)] = 4096
    horizon_hops: Annotated[int, Between(0, HORIZON_LIMIT_HOPS)] = 0
    """Link state goes over so many links, 0: everywhere; the same in all node files. No key is shared with applications
    farther away."""

    def __post_init__(self) -> None:
        sizes = ("min_key_size", self.min_key_size_bits), ("key_size", self.key_size_bits)
        for name, bits in (*sizes, ("max_key_size", self.max_key_size_bits)):
            if bits % 8 or not 8 <= bits <= KEY_SIZE_LIMIT_BITS:
                legal = f"must be a multiple of 8 from 8 to {KEY_SIZE_LIMIT_BITS} bit"
                raise CheckError(f"{bits} bit is no key size", legal, name)
        if not self.min_key_size_bits <= self.key_size_bits <= self.max_key_size_bits:
            legal = f"must be {self.min_key_size_bits} to {self.max_key_size_bits} bit (min_key_size to max_key_size)"
            raise CheckError(f"{self.key_size_bits} bit is out of range", legal, "key_size")
        if not STOCK_BYTES[0] <= self.stock_bytes <= STOCK_BYTES[1]:
            raise CheckError(f"{self.stock_bytes} B is out of range", "must be 16 KiB to 4 GiB", "stock")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    fetch_s: Annotated[float, PERIOD] = DAY_S
    """A key handed to one application waits so long for the other."""
    block_s: Annotated[float, PERIOD] = 30 * DAY_S
    """Stored key older than this is destroyed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    level: Literal["debug", "info", "warning", "error"] = "info"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeFile:
    """One key manager. Relative paths start from the directory of this file."""

    api_version: Annotated[Literal["keyhop/v1"], Key("apiVersion")]
    node: NodeEntry
    listen: Listeners
    store: StoreEntry
    anchor: AnchorEntry
    design: Name = "keyhop"
    controller: Annotated[str | None, NAME] = None
    """Which node decides on services, in designs that let in at one controller; the same in all node files."""
    policy: Path | None = None
    """Which applications get what: sizes, classes, quotas, bounds. Without one, whoever may ask gets what there is."""
    links: tuple[LinkEntry, ...] = ()
    peers: Mapping[Name, Address] = field(default_factory=dict)
    """Where neighbours listen; a neighbour that is absent here has to call."""
    applications: tuple[ApplicationEntry, ...] = ()
    directory: Mapping[ApplicationName, Name] = field(default_factory=dict)
    """Applications at other nodes that link state need not announce."""
    audit: tuple[AuditEntry, ...] = ()
    limits: Limits = Limits()
    lifetimes: Lifetimes = Lifetimes()
    log: Log = Log()

    def __post_init__(self) -> None:
        own = self.node.id
        _check_design(self.design)
        if self.policy is not None and self.design != "keyhop":
            what = f"a policy is for design keyhop: {self.design} shares its key by its own parts"
            raise CheckError(what, "remove the policy, or write design: keyhop", "policy")
        if self.controller is not None and not controlled(DESIGNS[self.design]):
            having = ", ".join(name for name, design in DESIGNS.items() if controlled(design))
            what = f"design {self.design} asks no controller; {having} do"
            raise CheckError(what, "remove the controller, or name such a design", "controller")
        for at, link in enumerate(self.links):
            if link.to == own:
                raise CheckError(f"a link of {own} leads to {own}", "name the neighbour", "links", at, "to")
            if link_id(own, link) in RESERVED_SOURCES:
                legal = "give the link an id of its own, at both ends"
                raise CheckError(
                    f"{link_id(own, link)} cannot name a link: the node itself uses it", legal, "links", at
                )
        _no_twice([link_id(own, link) for link in self.links], "links", "give each link an id of its own")
        _no_twice([entry.id for entry in self.applications], "applications", "keep one of the two")
        neighbours = sorted({link.to for link in self.links})
        for peer in self.peers:
            if peer not in neighbours:
                otherwise = f"links lead to: {', '.join(neighbours) or 'nowhere'}"
                raise CheckError(f"no link leads to {peer}", nearest(peer, neighbours, otherwise), "peers", peer)
        own_applications = {entry.id for entry in self.applications}
        for application, node in self.directory.items():
            if application in own_applications and node != own:
                legal = "remove it here, or in applications"
                what = f"{application} is served by this node, not by {node}"
                raise CheckError(what, legal, "directory", application)


def link_id(own: str, link: LinkEntry) -> str:
    """The name of a link is the same at both ends: what both files say, or the two nodes in order."""
    return link.id or "-".join(sorted((own, link.to)))


def load_node_file(path: Path, drivers: Mapping[str, type[Any]]) -> NodeFile:
    """`drivers` has for each driver the record of its own members in `links`. Raises keyhop.files.FileError."""
    return read(NodeFile, path, {"drivers": drivers})


def node_schema(drivers: Mapping[str, type[Any]]) -> dict[str, Any]:
    return schema(NodeFile, "Keyhop node file", {"drivers": drivers})


def _check_design(name: str) -> None:
    runs = ", ".join(design.name for design in DESIGNS.values() if not not_hosted(design))
    if name not in DESIGNS:
        raise CheckError(f"no design is called {name}", nearest(name, DESIGNS, f"nodes run: {runs}"), "design")
    try:
        carrier(DESIGNS[name])
    except NotRunning as error:
        legal = f"name one that nodes run ({runs}); keyhop design show {name} shows what this one is made of"
        raise CheckError(str(error), legal, "design") from None


def _no_twice(names: list[str], key: str, legal: str) -> None:
    for at, name in enumerate(names):
        if name in names[:at]:
            raise CheckError(f"{name} stands here twice", legal, key, at)
