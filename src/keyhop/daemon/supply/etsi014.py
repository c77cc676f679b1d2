"""The ETSI GS QKD 014 V1.1.1 door: from a request on the wire to the supplier and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from keyhop.core.constraints import LABEL, parse
from keyhop.core.model import Refusal, RequestError
from keyhop.daemon.http_framing import Head, HttpError
from keyhop.daemon.routes import Answer, Later, Reply, Route, Series
from keyhop.wire import etsi014 as wire
from keyhop.wire.etsi014 import BadRequest, Buffer, KeyRequest, Operation, Status

STATUS_OF = {
    Refusal.BAD_REQUEST: 400,
    Refusal.NOT_AUTHORISED: 401,
    Refusal.NOT_FOUND: 400,
    Refusal.UNSUPPORTED: 400,
    Refusal.NOT_ENOUGH_KEY: 503,
    Refusal.RATE_LIMITED: 503,
    Refusal.UNAVAILABLE: 503,
}
"""The standard knows 200, 400, 401 and 503 (clause 5); a refusal is one of the last three."""

ALLOWED = {
    Operation.STATUS: ("GET", "HEAD"),
    # HEAD promises to change nothing (RFC 9110 9.2.1), and these two give keys away.
    Operation.ENC_KEYS: ("GET", "POST"),
    Operation.DEC_KEYS: ("GET", "POST"),
}

Keys = Sequence[tuple[str, Buffer]]
"""(key ID in text form, key bytes)"""


class Labelled(NamedTuple):
    """Keys, and what is known of each as the `key_extension` of its answer."""

    keys: Keys
    extensions: Sequence[dict[str, Any]]


class Supplier(Protocol):
    """Who has the keys. Refusals are RequestError, raised or given later; what is given later is Keys or a refusal."""

    def enc_keys(
        self, caller: str, slave: str, number: int, size_bits: int | None, request: KeyRequest | None
    ) -> Keys | Later:
        """New keys; `request` only where it asks for more than number and size."""
        ...

    def dec_keys(self, caller: str, master: str, key_ids: list[str], *, labelled: bool = False) -> Later:
        """`labelled`: the answer is to say what is known of each key."""
        ...

    def status(self, caller: str, slave: str) -> Status: ...


class Door:
    """Gives the HTTP server its routes."""

    def __init__(self, supplier: Supplier, *, extensions: frozenset[str] = frozenset()) -> None:
        self._supplier = supplier
        self._extensions = extensions
        """Names of mandatory parameters that the supplier handles; all others are refused here."""
        self.series = {operation: Series() for operation in Operation}
        """For the metrics: requests and durations by method of the standard."""

    def prepare(self, head: Head, caller: str) -> Route:
        """The route for a head; raises HttpError."""
        try:
            path = wire.parse_path(head.path)
        except BadRequest as error:
            raise HttpError(400, error.message, error.details) from None
        if path is None:
            raise HttpError(404, "no such path: must be /api/v1/keys/{SAE_ID}/ and status, enc_keys or dec_keys")
        series = self.series[path.operation]
        try:
            _check_head(head, path.operation)
            respond = self._responder(head, path.operation, caller, path.sae_id)
        except BadRequest as error:
            raise HttpError(400, error.message, error.details, series=series) from None
        except HttpError as error:
            error.series = series
            raise
        return Route(respond, series, _render)

    def _responder(self, head: Head, operation: Operation, caller: str, other: str) -> Callable[[bytes], Reply | Later]:
        is_get = head.method != "POST"
        if operation is Operation.STATUS:
            return self._status(caller, other)
        if operation is Operation.ENC_KEYS:
            return self._get_enc_keys(caller, other, head.query) if is_get else self._post_enc_keys(caller, other)
        if is_get:
            return self._get_dec_keys(caller, other, head.query)
        return self._post_dec_keys(caller, other)

    def _status(self, caller: str, slave: str) -> Callable[[bytes], Reply]:
        def respond(_body: bytes) -> Reply:
            try:
                return wire.encode_status(self._supplier.status(caller, slave))
            except RequestError as error:
                return refusal(error)

        return respond

    def _get_enc_keys(self, caller: str, slave: str, query: str) -> Callable[[bytes], Reply | Later]:
        request = wire.parse_key_query(query)
        number, size_bits = request.number or 1, request.size
        enc_keys = self._supplier.enc_keys

        def respond(_body: bytes) -> Reply | Later:
            try:
                keys = enc_keys(caller, slave, number, size_bits, None)
            except RequestError as error:
                return refusal(error)
            return keys if isinstance(keys, Later) else wire.encode_container(keys)

        return respond

    def _post_enc_keys(self, caller: str, slave: str) -> Callable[[bytes], Reply | Later]:
        enc_keys = self._supplier.enc_keys

        def respond(body: bytes) -> Reply | Later:
            try:
                request = wire.decode_key_request(body)
                more = self._demands(request)
                keys = enc_keys(caller, slave, request.number or 1, request.size, more)
            except RequestError as error:
                return refusal(error)
            except BadRequest as error:
                return _error(400, error.message, error.details)
            return keys if isinstance(keys, Later) else wire.encode_container(keys)

        return respond

    def _demands(self, request: KeyRequest) -> KeyRequest | None:
        """The request if it holds more than number and size; raises BadRequest for what nobody here handles."""
        if request.extension_mandatory:
            unknown = [name for name in request.mandatory_names() if name not in self._extensions]
            if unknown:
                raise wire.unsupported(unknown)
        elif not request.additional_slave_SAE_IDs and not request.extension_optional:
            return None
        return request

    def _get_dec_keys(self, caller: str, master: str, query: str) -> Callable[[bytes], Reply | Later]:
        key_id = wire.parse_key_id_query(query)

        def respond(_body: bytes) -> Reply | Later:
            try:
                return self._supplier.dec_keys(caller, master, [key_id])
            except RequestError as error:
                return refusal(error)

        return respond

    def _post_dec_keys(self, caller: str, master: str) -> Callable[[bytes], Reply | Later]:
        dec_keys = self._supplier.dec_keys

        def respond(body: bytes) -> Reply | Later:
            try:
                key_ids, more = wire.decode_key_ids_and_more(body)
                if more and LABEL in more and LABEL in self._extensions:
                    return dec_keys(caller, master, key_ids, labelled=parse([{LABEL: more[LABEL]}]).labelled)
                return dec_keys(caller, master, key_ids)
            except RequestError as error:
                return refusal(error)
            except BadRequest as error:
                return _error(400, error.message, error.details)

        return respond


def _check_head(head: Head, operation: Operation) -> None:
    """Method, length and kind of the body. Raises HttpError or BadRequest."""
    allowed = ALLOWED[operation]
    if head.method not in allowed:
        message = f"{head.method} is not allowed here: must be {' or '.join(allowed)}"
        raise HttpError(405, message, headers=(("Allow", ", ".join(allowed)),))
    if head.method != "POST":
        if head.has_body:
            # Whoever sends one means it; to answer without having read it would give other keys than were asked for.
            raise BadRequest(f"{head.method} carries no body: use POST")
        return
    if not head.has_length and not head.chunked:
        raise HttpError(411, "a POST must say how long its body is")
    if "content-encoding" in head.headers:
        raise HttpError(415, "the body must not be compressed")
    media_type = head.headers.get("content-type", "application/json").partition(";")[0].strip().lower()
    if media_type != "application/json":
        raise HttpError(415, "Content-Type must be application/json")


def _render(outcome: Keys | Labelled | RequestError) -> Reply:
    if isinstance(outcome, Labelled):
        return wire.encode_container(outcome.keys, outcome.extensions)
    return refusal(outcome) if isinstance(outcome, RequestError) else wire.encode_container(outcome)


def refusal(error: RequestError) -> Answer:
    """The answer that the standard has for a refusal; 401 too carries a body, which the standard leaves open."""
    headers: tuple[tuple[str, str], ...] = ()
    if error.retry_after_s is not None:
        # RFC 9110 10.2.3: whole seconds; rounded up, so that the second try is not too early.
        headers = (("Retry-After", str(max(1, -int(-error.retry_after_s // 1)))),)
    return _error(STATUS_OF[error.reason], error.message, error.details, headers)


def _error(
    status: int, message: str, details: Sequence[dict[str, Any]] = (), headers: tuple[tuple[str, str], ...] = ()
) -> Answer:
    return Answer(status, wire.encode_error(message, details), headers)
