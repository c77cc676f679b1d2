"""ETSI GS QKD 014 V1.1.1 as it stands on the wire: paths, query forms, JSON bodies and the fixed error texts."""

from __future__ import annotations

import re
from binascii import b2a_base64
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, NamedTuple, NoReturn
from urllib.parse import parse_qsl, quote, unquote, urlencode

import msgspec

Buffer = bytes | bytearray | memoryview

SIZE_STEP_BITS = 8
SIZE_NOT_A_MULTIPLE = "size shall be a multiple of 8"
MANDATORY_UNSUPPORTED = "not all extension_mandatory parameters are supported"
MANDATORY_UNMET = "not all extension_mandatory request options could be met"
OPTIONAL_IGNORED = "not all extension_optional request options handled"
KEYS_NOT_FOUND = "one or more keys specified are not found on KME"
DATA_ACCESS_ERROR = "key data access error"
"""The texts above are those of V1.1.1 clause 6, letter for letter: clients compare them."""

UNSUPPORTED_DETAIL = "extension_mandatory_unsupported"
"""The name the standard's example gives to each parameter that `MANDATORY_UNSUPPORTED` is about."""

NUMBER_DIGITS_LIMIT = 9
QUERY_FIELDS_LIMIT = 16


class Operation(StrEnum):
    """The three methods of clause 5; the value is the last segment of the path."""

    STATUS = "status"
    ENC_KEYS = "enc_keys"
    DEC_KEYS = "dec_keys"


class BadRequest(ValueError):
    """The request is not one that the standard allows: 400, whatever the state of the key manager."""

    def __init__(self, message: str, details: tuple[dict[str, Any], ...] = ()) -> None:
        super().__init__(message)
        self.message = message
        self.details = details


class MalformedAnswer(ValueError):
    """What a server sent is not the object that the standard describes."""


class Path(NamedTuple):
    sae_id: str
    """Always the other application: the slave for status and enc_keys, the master for dec_keys."""
    operation: Operation


class KeyRequest(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Key request (clause 6.2). A null member counts as absent, an unknown one is ignored."""

    number: int | None = None
    size: int | None = None
    """Bits."""
    additional_slave_SAE_IDs: list[str] | None = None
    extension_mandatory: list[dict[str, Any]] | None = None
    extension_optional: list[dict[str, Any]] | None = None

    def mandatory_names(self) -> list[str]:
        """Names of all mandatory parameters; an element may hold several."""
        return [name for element in self.extension_mandatory or () for name in element]


class KeyId(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    key_ID: str
    key_ID_extension: dict[str, Any] | None = None


class KeyIds(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Key IDs (clause 6.4)."""

    key_IDs: list[KeyId]
    key_IDs_extension: dict[str, Any] | None = None


class Status(msgspec.Struct, frozen=True, gc=False, omit_defaults=True, kw_only=True):
    """Status (clause 6.1); sizes in bits, counts in keys."""

    source_KME_ID: str
    target_KME_ID: str
    master_SAE_ID: str
    slave_SAE_ID: str
    key_size: int
    stored_key_count: int
    max_key_count: int
    max_key_per_request: int
    max_key_size: int
    min_key_size: int
    max_SAE_ID_count: int
    status_extension: dict[str, Any] | None = None


class Key(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One delivered key; `key` is base64 on the wire."""

    key_ID: str
    key: bytes
    key_ID_extension: dict[str, Any] | None = None
    key_extension: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"Key(key_ID={self.key_ID!r}, key=<{len(self.key) * 8} bits>)"

    def __rich_repr__(self) -> Any:
        yield "key_ID", self.key_ID
        yield "key", f"<{len(self.key) * 8} bits>"


class KeyContainer(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Key container (clause 6.3)."""

    keys: list[Key]
    key_container_extension: dict[str, Any] | None = None


class Error(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Error (clause 6.5)."""

    message: str = ""
    """Mandatory in the standard; servers that leave it out exist, so its absence is no second error."""
    details: list[dict[str, Any]] | None = None


_PATH = re.compile(r"/api/v1/keys/([^/]*)/(status|enc_keys|dec_keys)")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
_UUID = re.compile(r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}")
_is_uuid = _UUID.fullmatch
_BODY_ONLY = {
    Operation.ENC_KEYS: frozenset({"additional_slave_SAE_IDs", "extension_mandatory", "extension_optional"}),
    Operation.DEC_KEYS: frozenset({"key_IDs", "key_ID_extension", "key_IDs_extension"}),
}
"""Members that a GET cannot carry: POST is mandatory for them (clauses 5.2 and 5.3)."""

_key_request = msgspec.json.Decoder(KeyRequest)
_key_ids = msgspec.json.Decoder(KeyIds)
_container = msgspec.json.Decoder(KeyContainer)
_status = msgspec.json.Decoder(Status)
_error = msgspec.json.Decoder(Error)
_encode = msgspec.json.Encoder().encode
_UNREADABLE = (msgspec.MsgspecError, RecursionError)
"""A body of nothing but brackets ends in the second."""


def parse_path(path: str) -> Path | None:
    """The application and the method a path names; None if it is no path of this interface.

    Raises BadRequest where the SAE ID is empty or not URL-encoded UTF-8.
    """
    match = _PATH.fullmatch(path)
    if match is None:
        return None
    encoded, operation = match.groups()
    if not encoded:
        raise BadRequest("the SAE ID in the path is empty")
    if _BAD_ESCAPE.search(encoded):
        raise BadRequest("the SAE ID in the path is not URL-encoded: % must be followed by two hex digits")
    try:
        return Path(unquote(encoded, errors="strict"), Operation(operation))
    except UnicodeDecodeError:
        raise BadRequest("the SAE ID in the path is not URL-encoded UTF-8") from None


def build_path(sae_id: str, operation: Operation) -> str:
    """The path for a method; raises ValueError for an SAE ID that no path can name."""
    if sae_id in ("", ".", ".."):
        raise ValueError(f"SAE ID {sae_id!r} cannot stand in a path: URL rules take it for a directory")
    return f"/api/v1/keys/{quote(sae_id, safe='')}/{operation}"


def parse_key_query(query: str) -> KeyRequest:
    """The GET form of Get key: `number` and `size`, each at most once."""
    if not query:
        return _PLAIN_REQUEST
    fields = _query_fields(query, Operation.ENC_KEYS)
    return _checked(KeyRequest(_query_number(fields, "number"), _query_number(fields, "size")))


def parse_key_id_query(query: str) -> str:
    """The GET form of Get key with key IDs: exactly one `key_ID`; gives the UUID in lower case."""
    if query.startswith("key_ID=") and _is_uuid(query[7:]):
        return query[7:].lower()
    values = _query_fields(query, Operation.DEC_KEYS).get("key_ID", [])
    if len(values) != 1:
        raise BadRequest(f"key_ID is given {len(values)} times in the query: must be once; use POST for more keys")
    if not _is_uuid(values[0]):
        raise BadRequest("key_ID in the query is not a UUID")
    return values[0].lower()


def _query_fields(query: str, operation: Operation) -> dict[str, list[str]]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=QUERY_FIELDS_LIMIT, errors="strict")
    except ValueError:
        raise BadRequest(f"the query is not URL-encoded UTF-8 of at most {QUERY_FIELDS_LIMIT} fields") from None
    fields: dict[str, list[str]] = {}
    for name, value in pairs:
        if name in _BODY_ONLY[operation]:
            raise BadRequest(f"{name} cannot be given in a query: use POST")
        fields.setdefault(name, []).append(value)
    return fields


def _query_number(fields: dict[str, list[str]], name: str) -> int | None:
    values = fields.get(name)
    if values is None:
        return None
    if len(values) != 1:
        raise BadRequest(f"{name} is given {len(values)} times in the query: must be at most once")
    text = values[0]
    # int() would also take signs, blanks, underscores and digits of other scripts.
    if not (text.isascii() and text.isdigit() and len(text) <= NUMBER_DIGITS_LIMIT):
        raise BadRequest(f"{name} in the query must be a decimal number of at most {NUMBER_DIGITS_LIMIT} digits")
    return int(text)


_PLAIN_REQUEST = KeyRequest()


def decode_key_request(body: Buffer) -> KeyRequest:
    """A Key request body, checked as far as that needs no knowledge of the key manager.

    An empty body counts as `{}`: all items are optional. Raises BadRequest.
    """
    if not body:
        return _PLAIN_REQUEST
    try:
        return _checked(_key_request.decode(body))
    except _UNREADABLE as error:
        _refuse("key request", error)


def _checked(request: KeyRequest) -> KeyRequest:
    if request.number is not None and request.number < 1:
        raise BadRequest(f"number = {request.number}: must be 1 or more")
    if request.size is not None:
        if request.size % SIZE_STEP_BITS:
            raise BadRequest(SIZE_NOT_A_MULTIPLE)
        if request.size < SIZE_STEP_BITS:
            raise BadRequest(f"size = {request.size}: must be {SIZE_STEP_BITS} or more")
    return request


def decode_key_ids(body: Buffer) -> list[str]:
    """The key IDs of a body, in its order and in lower case: each a UUID, none twice. Raises BadRequest."""
    return decode_key_ids_and_more(body)[0]


def decode_key_ids_and_more(body: Buffer) -> tuple[list[str], dict[str, Any] | None]:
    """As `decode_key_ids`, and the extension of the whole list."""
    try:
        asked = _key_ids.decode(body)
    except _UNREADABLE as error:
        _refuse("key IDs", error)
    return _checked_ids(asked), asked.key_IDs_extension


def _checked_ids(asked: KeyIds) -> list[str]:
    ids = [entry.key_ID.lower() for entry in asked.key_IDs]
    if len(ids) == 1 and _is_uuid(ids[0]):
        return ids
    if not ids:
        raise BadRequest("key_IDs is empty: must name one key or more")
    if not all(map(_is_uuid, ids)):
        # The value is not repeated: a client that mixed up its fields may have sent a key here.
        index = next(index for index, text in enumerate(ids) if not _is_uuid(text))
        raise BadRequest(f"key_IDs[{index}].key_ID is not a UUID")
    if len(ids) > 1 and len(set(ids)) != len(ids):
        raise BadRequest("key_IDs names a key twice")
    return ids


def _refuse(what: str, error: Exception) -> NoReturn:
    """msgspec names the place and the type, never the value, so its text may be passed on."""
    raise BadRequest(f"{what}: {error}") from None


def unsupported(names: Sequence[str]) -> BadRequest:
    """The refusal for mandatory parameters nobody here knows (clause 6.2), one detail for each."""
    return BadRequest(MANDATORY_UNSUPPORTED, tuple({UNSUPPORTED_DETAIL: name} for name in names))


def encode_container(keys: Sequence[tuple[str, Buffer]], extensions: Sequence[dict[str, Any]] = ()) -> bytes:
    """A Key container of (key ID, key bytes). Key IDs are UUIDs, so nothing in them needs escaping.

    `extensions`: the `key_extension` of each key, if any has one.
    """
    if extensions:
        told = [
            b'{"key_ID":"%b","key":"%b","key_extension":%b}'
            % (i.encode(), b2a_base64(key, newline=False), _encode(more))
            for (i, key), more in zip(keys, extensions, strict=True)
        ]
        return b'{"keys":[%b]}' % b",".join(told)
    if len(keys) == 1:
        ((key_id, key),) = keys
        return b'{"keys":[{"key_ID":"%b","key":"%b"}]}' % (key_id.encode(), b2a_base64(key, newline=False))
    entries = [b'{"key_ID":"%b","key":"%b"}' % (i.encode(), b2a_base64(key, newline=False)) for i, key in keys]
    return b'{"keys":[%b]}' % b",".join(entries)


def encode_status(status: Status) -> bytes:
    return _encode(status)


def encode_error(message: str, details: Sequence[dict[str, Any]] = ()) -> bytes:
    """An Error body; without details the member is left out."""
    return _encode(Error(message, list(details) or None))


def encode_key_request(request: KeyRequest) -> bytes:
    return _encode(request)


def encode_key_ids(key_ids: Sequence[str]) -> bytes:
    return _encode(KeyIds([KeyId(key_id) for key_id in key_ids]))


def key_query(number: int | None = None, size_bits: int | None = None) -> str:
    """The query of a simple Get key, without the question mark."""
    return urlencode({name: value for name, value in (("number", number), ("size", size_bits)) if value is not None})


def key_id_query(key_id: str) -> str:
    return urlencode({"key_ID": key_id})


def decode_container(body: Buffer) -> KeyContainer:
    """Raises MalformedAnswer, whose text says where, never what."""
    try:
        return _container.decode(body)
    except _UNREADABLE as error:
        raise MalformedAnswer(f"key container: {error}") from None


def decode_status(body: Buffer) -> Status:
    try:
        return _status.decode(body)
    except _UNREADABLE as error:
        raise MalformedAnswer(f"status: {error}") from None


def decode_error(body: Buffer) -> Error:
    try:
        return _error.decode(body)
    except _UNREADABLE as error:
        raise MalformedAnswer(f"error: {error}") from None
