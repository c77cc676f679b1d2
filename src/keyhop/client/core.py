"""Requests to an ETSI GS QKD 014 key manager and the meaning of its answers, without any I/O."""

from __future__ import annotations

import hmac
import os
import re
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple, NoReturn, Self
from urllib.parse import urlsplit
from uuid import UUID

from keyhop.wire import etsi014 as wire
from keyhop.wire.etsi014 import Operation

DEFAULT_TIMEOUT_S = 10.0
DEFAULT_PORT = 443
ANSWER_LIMIT_BYTES = 4 * 1024 * 1024
"""The largest answer our own server gives is 128 keys of 16 KiB in base64."""
RETRY_LIMIT_S = 3600.0

ADDRESS_VARIABLE = "KEYHOP_ADDR"
CERT_VARIABLE = "KEYHOP_CERT"
KEY_VARIABLE = "KEYHOP_KEY"
CA_VARIABLE = "KEYHOP_CA"

_CODE = re.compile(r"KH-\d{4}")
_SHORTAGE = re.compile(r"not enough|insufficient|no keys? (left|available)|exhausted", re.IGNORECASE)
_UNKNOWN = re.compile(r"unknown|no such|not (known|registered|found)", re.IGNORECASE)


class KeyhopError(Exception):
    """Anything that kept a key from coming. No text of these errors holds a bit of a key."""

    default_code = "KH-2100"

    def __init__(
        self,
        message: str,
        *,
        http_status: int | None = None,
        code: str | None = None,
        request_id: str | None = None,
        details: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.http_status = http_status
        """None where there was no answer."""
        self.code = code or self.default_code
        self.request_id = request_id
        self.details = tuple(details)


class Unreachable(KeyhopError):
    """No answer: the key manager is not there, or the connection broke.

    If it broke after the request was sent, keys may be spent that never arrived.
    """

    default_code = "KH-4101"


class NotAuthorised(KeyhopError):
    """The key manager does not take this certificate, or the application may not have these keys."""

    default_code = "KH-4102"


class UnknownPeer(KeyhopError):
    """The key manager knows no such application."""

    default_code = "KH-2103"


class NotEnoughKey(KeyhopError):
    """There is no key to give now."""

    default_code = "KH-2101"

    def __init__(self, message: str, *, retry_after: float | None = None, **more: Any) -> None:
        super().__init__(message, **more)
        self.retry_after = retry_after
        """Seconds until another try is worth it, if the key manager said so."""


class KeyGone(KeyhopError):
    """No key of this ID: never made, fetched already, or expired. The key manager does not say which."""

    default_code = "KH-2102"


class BadRequest(KeyhopError):
    """The key manager will never grant this request, or it cannot be asked."""

    default_code = "KH-2104"


class ProtocolError(KeyhopError):
    """The answer is none that ETSI GS QKD 014 allows."""

    default_code = "KH-2105"


class Key:
    """One key. Its bits leave by `reveal()` only; `with key:` overwrites them at the end.

    Overwriting is best effort: Python may have made copies that nobody can reach.
    """

    __slots__ = ("_bits", "_id", "_wiped", "extension")

    def __init__(self, key_id: UUID, bits: bytes | bytearray, extension: Mapping[str, Any] | None = None) -> None:
        self._id = key_id
        self.extension: Mapping[str, Any] = extension or {}
        """What the key manager says of it, such as `keyhop_grade`: where the request or its policy wants that."""
        self._bits = bytearray(bits)
        self._wiped = False

    @property
    def id(self) -> UUID:
        """Names the key to the other application; not secret."""
        return self._id

    @property
    def size_bits(self) -> int:
        return len(self._bits) * 8

    @property
    def wiped(self) -> bool:
        return self._wiped

    def reveal(self) -> bytes:
        """The bits, as a copy that is yours to forget. Raises ValueError after `wipe()`."""
        if self._wiped:
            raise ValueError(f"{self!r} was wiped")
        return bytes(self._bits)

    def wipe(self) -> None:
        self._bits[:] = bytes(len(self._bits))
        self._wiped = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.wipe()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Key):
            return NotImplemented
        same = hmac.compare_digest(self._bits, other._bits)
        return same and self._id == other._id and self._wiped == other._wiped

    def __hash__(self) -> int:
        return hash(self._id)

    def __repr__(self) -> str:
        return f"<Key {str(self._id)[:4]}… {self.size_bits} bit{' wiped' if self._wiped else ''}>"

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Key is neither pickled nor copied: send its id, and let the peer fetch it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """What the key manager says about the keys of a pair of applications."""

    source_kme: str
    target_kme: str
    master: str
    slave: str
    key_size_bits: int
    """What `get_key` gives if no size is asked for."""
    stored_keys: int
    max_keys: int
    max_keys_per_request: int
    max_key_size_bits: int
    min_key_size_bits: int
    max_additional_slaves: int


class Request(NamedTuple):
    method: str
    path: str
    body: bytes | None
    may_repeat: bool
    """Sending it twice spends no key."""

    @property
    def headers(self) -> dict[str, str]:
        given = {"Accept": "application/json"}
        return given if self.body is None else given | {"Content-Type": "application/json"}


class Response(NamedTuple):
    status: int
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


class Endpoint(NamedTuple):
    host: str
    port: int

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"https://{host}:{self.port}"


def endpoint(address: str) -> Endpoint:
    """From `https://host:port` or `host:port`; raises BadRequest."""
    legal = "must be https://host:port"
    parts = urlsplit(address if "://" in address else f"https://{address}")
    if parts.scheme != "https":
        raise BadRequest(f"address {address!r}: {legal}; keys do not travel without TLS")
    try:
        port = parts.port
    except ValueError:
        raise BadRequest(f"address {address!r}: {legal}") from None
    if not parts.hostname or parts.path.strip("/") or parts.query or parts.username is not None:
        raise BadRequest(f"address {address!r}: {legal}")
    return Endpoint(parts.hostname, port or DEFAULT_PORT)


class Credentials(NamedTuple):
    """Where the application's certificate, its key and the key manager's authority are."""

    address: str
    cert: str
    key: str
    ca: str


def credentials_from_environment() -> Credentials:
    """From KEYHOP_ADDR, KEYHOP_CERT, KEYHOP_KEY and KEYHOP_CA; raises BadRequest naming what is missing."""
    variables = (ADDRESS_VARIABLE, CERT_VARIABLE, KEY_VARIABLE, CA_VARIABLE)
    missing = [name for name in variables if not os.environ.get(name)]
    if missing:
        raise BadRequest(f"{' and '.join(missing)} not set: give them, or use Kme(address, cert=…, key=…, ca=…)")
    return Credentials(*(os.environ[name] for name in variables))


def tls_context(
    cert: str | os.PathLike[str], key: str | os.PathLike[str], ca: str | os.PathLike[str]
) -> ssl.SSLContext:
    """Trusts this authority alone and shows the certificate to the server. Raises BadRequest for unusable files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    # ETSI GS QKD 014 asks for 1.2 or higher; our own key managers take 1.3 only.
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_verify_locations(ca)
    except OSError as error:
        raise _unusable("ca", str(ca), error) from None
    try:
        context.load_cert_chain(cert, key)
    except OSError as error:
        raise _unusable("cert and key", f"{cert} and {key}", error) from None
    return context


def _unusable(name: str, files: str, error: OSError) -> BadRequest:
    reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
    return BadRequest(f"{name}: {files} cannot be used as PEM files ({reason or type(error).__name__})")


def ask_status(peer: str) -> Request:
    return Request("GET", _path(peer, Operation.STATUS), None, may_repeat=True)


def ask_new_keys(
    peer: str,
    number: int = 1,
    size_bits: int | None = None,
    *,
    additional: Sequence[str] = (),
    mandatory: Mapping[str, Any] | None = None,
    optional: Mapping[str, Any] | None = None,
) -> Request:
    """By POST, which no layer below repeats on its own; a repeated request would spend keys."""
    if number < 1:
        raise BadRequest(f"n = {number}: must be 1 or more")
    if size_bits is not None and (size_bits < 8 or size_bits % 8):
        raise BadRequest(f"size = {size_bits}: must be a multiple of 8 bit")
    body = wire.KeyRequest(
        number=number,
        size=size_bits,
        additional_slave_SAE_IDs=list(additional) or None,
        extension_mandatory=[{name: value} for name, value in (mandatory or {}).items()] or None,
        extension_optional=[{name: value} for name, value in (optional or {}).items()] or None,
    )
    return Request("POST", _path(peer, Operation.ENC_KEYS), wire.encode_key_request(body), may_repeat=False)


def ask_keys_by_id(master: str, key_ids: Sequence[UUID]) -> Request:
    if not key_ids:
        raise BadRequest("no key ID given: must be one or more")
    if len(set(key_ids)) != len(key_ids):
        raise BadRequest("a key ID is given twice")
    body = wire.encode_key_ids([str(key_id) for key_id in key_ids])
    return Request("POST", _path(master, Operation.DEC_KEYS), body, may_repeat=False)


def as_uuid(key_id: UUID | str) -> UUID:
    """Raises BadRequest. The text is not repeated: somebody may have mixed up an ID and a key."""
    if isinstance(key_id, UUID):
        return key_id
    try:
        return UUID(key_id)
    except ValueError:
        raise BadRequest("the key ID is not a UUID such as 8d4f2b1a-6c3e-4f57-9b20-1e7a5c9d3f60") from None


def read_status(response: Response) -> Status:
    _check(response, Operation.STATUS)
    try:
        answer = wire.decode_status(response.body)
    except wire.MalformedAnswer as error:
        raise _protocol_error(response, str(error)) from None
    return Status(
        source_kme=answer.source_KME_ID,
        target_kme=answer.target_KME_ID,
        master=answer.master_SAE_ID,
        slave=answer.slave_SAE_ID,
        key_size_bits=answer.key_size,
        stored_keys=answer.stored_key_count,
        max_keys=answer.max_key_count,
        max_keys_per_request=answer.max_key_per_request,
        max_key_size_bits=answer.max_key_size,
        min_key_size_bits=answer.min_key_size,
        max_additional_slaves=answer.max_SAE_ID_count,
    )


def read_new_keys(response: Response, number: int, size_bits: int | None) -> list[Key]:
    _check(response, Operation.ENC_KEYS)
    keys = _keys(response)
    if len(keys) != number or len({key.id for key in keys}) != number:
        raise _protocol_error(response, f"{len(keys)} keys came where {number} different ones were asked for")
    if size_bits is not None and any(key.size_bits != size_bits for key in keys):
        raise _protocol_error(response, f"a key came that is not {size_bits} bit long")
    return keys


def read_keys_by_id(response: Response, key_ids: Sequence[UUID]) -> list[Key]:
    """In the order they were asked for."""
    _check(response, Operation.DEC_KEYS)
    keys = {key.id: key for key in _keys(response)}
    if set(keys) != set(key_ids):
        raise _protocol_error(response, "other keys came than were asked for")
    return [keys[key_id] for key_id in key_ids]


def _path(other: str, operation: Operation) -> str:
    try:
        return wire.build_path(other, operation)
    except ValueError as error:
        raise BadRequest(str(error)) from None


def _keys(response: Response) -> list[Key]:
    try:
        container = wire.decode_container(response.body)
        keys = [Key(UUID(entry.key_ID), entry.key, entry.key_extension) for entry in container.keys]
    except wire.MalformedAnswer as error:
        raise _protocol_error(response, str(error)) from None
    except ValueError:
        raise _protocol_error(response, "a key_ID is not a UUID") from None
    if any(key.size_bits == 0 for key in keys):
        raise _protocol_error(response, "a key came without bits")
    return keys


def _check(response: Response, operation: Operation) -> None:
    """Raises what a refusal means. Servers differ in codes, so their texts are looked at where codes are not enough."""
    if response.status == 200:
        return
    try:
        error = wire.decode_error(response.body)
    except wire.MalformedAnswer:
        error = wire.Error()
    message = error.message or f"the key manager answered {response.status} without a reason"
    code = next((match[0] for entry in error.details or () for match in _codes(entry)), None)
    more: dict[str, Any] = {
        "http_status": response.status,
        "code": code,
        "request_id": response.headers.get("x-request-id"),
        "details": error.details or (),
    }
    if response.status in (401, 403):
        raise NotAuthorised(message, **more)
    if operation is Operation.DEC_KEYS and (response.status in (404, 503) or message == wire.KEYS_NOT_FOUND):
        if response.status == 503 and message != wire.KEYS_NOT_FOUND:
            raise Unreachable(message, **more)
        raise KeyGone(message, **more)
    if operation is Operation.ENC_KEYS and (response.status == 503 or _SHORTAGE.search(message)):
        raise NotEnoughKey(message, retry_after=_retry_after(response), **more)
    if response.status == 404 or (response.status == 400 and "SAE" in message and _UNKNOWN.search(message)):
        raise UnknownPeer(message, **more)
    if 400 <= response.status < 500:
        raise BadRequest(message, **more)
    if response.status in (502, 503, 504):
        raise Unreachable(message, **more)
    raise ProtocolError(message, **more)


def _codes(entry: Mapping[str, Any]) -> list[re.Match[str]]:
    found = (_CODE.fullmatch(value) for value in entry.values() if isinstance(value, str))
    return [match for match in found if match]


def _retry_after(response: Response) -> float | None:
    """Seconds; the other form, a date, is of no use to clocks that differ."""
    text = response.headers.get("retry-after", "")
    return min(float(text), RETRY_LIMIT_S) if text.isascii() and text.isdigit() else None


def _protocol_error(response: Response, message: str) -> ProtocolError:
    request_id = response.headers.get("x-request-id")
    return ProtocolError(message, http_status=response.status, request_id=request_id)


FIRST_PAUSE_S = 0.25
PAUSE_LIMIT_S = 5.0


class Patience:
    """How long to pause before asking again for key that was not there. Nothing was spent by the refused request."""

    def __init__(self, wait_s: float | None) -> None:
        self._left_s = wait_s or 0.0
        self._next_s = FIRST_PAUSE_S

    def pause_s(self, error: NotEnoughKey) -> float:
        """Raises `error` when the patience is at its end."""
        pause_s = error.retry_after if error.retry_after is not None else self._next_s
        if pause_s > self._left_s:
            raise error
        self._left_s -= pause_s
        self._next_s = min(self._next_s * 2, PAUSE_LIMIT_S)
        return pause_s
