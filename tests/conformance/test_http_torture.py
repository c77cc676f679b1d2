"""What clients do to a server: pipelining, split, slow and silent requests, oversize, crowds, wrong certificates."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import random
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import loopback
import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID
from loopback import Authority, Client, Issued, MemorySupplier, Serving, client_context, request, until

from keyhop.daemon.http import BODY_BYTES_LIMIT, HEAD_BYTES_LIMIT, HELD_BYTES_LIMIT, REQUESTS_PER_TURN
from keyhop.daemon.identity import Identities, IdentitySource
from keyhop.daemon.listener import Patience
from keyhop.daemon.tls import TlsLibrary

ENC = "/api/v1/keys/bob/enc_keys"
STATUS = "/api/v1/keys/bob/status"
DEC = "/api/v1/keys/alice/dec_keys?key_ID=8d4f2b1a-6c3e-4f57-9b20-1e7a5c9d3f60"
HASTY = Patience(
    handshake_s=0.2, head_s=0.2, body_s=0.2, idle_s=0.2, answer_s=0.2, write_s=0.2, linger_s=0.2, tick_s=0.02
)
CLOSED = (ssl.SSLError, ConnectionResetError, BrokenPipeError, EOFError)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


@pytest.fixture(scope="module")
def alice(authority: Authority) -> Issued:
    return authority.sae("alice")


@pytest.fixture(scope="module")
def bob(authority: Authority) -> Issued:
    return authority.sae("bob")


@pytest.fixture(params=list(TlsLibrary))
def library(request: pytest.FixtureRequest) -> TlsLibrary:
    return TlsLibrary(request.param)


@pytest.fixture
def serving(authority: Authority, library: TlsLibrary) -> Iterator[Serving]:
    with Serving(authority, library=library) as running:
        yield running
    assert running.failures == []


@pytest.fixture
def hasty(authority: Authority) -> Iterator[Serving]:
    """A server that loses patience after 0.2 s."""
    with Serving(authority, patience=HASTY) as running:
        yield running
    assert running.failures == []


# Pipelining


def test_pipelined_requests_are_answered_in_order(serving: Serving, alice: Issued) -> None:
    with serving.client(alice) as client:
        sizes = [8 * n for n in range(8, 8 + 3 * REQUESTS_PER_TURN)]
        client.send(b"".join(request("GET", f"{ENC}?size={size}") for size in sizes))
        assert [len(client.answer().json()["keys"][0]["key"]) for _ in sizes] == [-(-n // 24) * 4 for n in sizes]


def test_pipelined_requests_of_all_kinds_are_answered_in_order(serving: Serving, alice: Issued, bob: Issued) -> None:
    with serving.client(bob) as client:
        kinds = [
            (request("GET", "/api/v1/keys/alice/status"), 200),
            (request("GET", DEC), 400),
            (request("GET", "/nowhere"), 404),
            (request("POST", "/api/v1/keys/alice/enc_keys", {"number": 2}), 200),
            (request("DELETE", "/api/v1/keys/alice/enc_keys"), 405),
            (b"POST /api/v1/keys/alice/enc_keys HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
             b"2\r\n{}\r\n0\r\n\r\n", 200),
            (request("POST", "/api/v1/keys/alice/dec_keys", b"{}"), 400),
        ]  # fmt: skip
        random.Random(1).shuffle(kinds)
        client.send(b"".join(data for data, _ in kinds * 10))
        assert [client.answer().status for _ in kinds * 10] == [status for _, status in kinds * 10]


def test_the_next_request_waits_for_the_answer_before_it(serving: Serving, bob: Issued) -> None:
    serving.supplier.hold = []
    with serving.client(bob) as client:
        client.send(request("GET", DEC) + request("GET", "/api/v1/keys/alice/status"))
        until(lambda: len(serving.supplier.hold) == 1)
        client.socket.settimeout(0.05)
        with pytest.raises(TimeoutError):
            client.answer()
        client.socket.settimeout(5)
        serving.call(serving.supplier.hold.pop())
        assert [client.answer().status, client.answer().status] == [400, 200]


def test_a_flood_of_pipelined_requests_is_held_back_not_hoarded(serving: Serving, bob: Issued) -> None:
    serving.supplier.hold = []
    flood = request("GET", "/api/v1/keys/alice/status") * 240_000
    with serving.client(bob) as client:
        client.send(request("GET", DEC))
        until(lambda: len(serving.supplier.hold) == 1)
        client.socket.settimeout(0.3)
        with contextlib.suppress(TimeoutError):
            client.socket.sendall(flood)
            pytest.fail("more than the sockets hold went in while nothing was served")
        (connection,) = serving.server.connections
        assert len(connection._buffer) < HELD_BYTES_LIMIT + 2 * 256 * 1024  # type: ignore[attr-defined]
        with serving.client(bob) as other:
            assert other.request("GET", "/api/v1/keys/alice/status").status == 200


def test_a_client_that_does_not_read_stops_being_served(serving: Serving, alice: Issued) -> None:
    large = request("POST", ENC, {"number": 128, "size": 8192})
    with serving.client(alice) as client:
        client.send(large * 200)
        time.sleep(0.3)
        served = len(serving.supplier.asked)
        assert served < 150
        for _ in range(200):
            assert len(client.answer().body) > 128 * 1024
        assert len(serving.supplier.asked) == 200


# Split requests


@pytest.mark.parametrize(
    "data",
    [
        request("GET", STATUS),
        request("POST", ENC, {"number": 2}),
        b"\r\n\r\n" + request("GET", STATUS),
        b"POST " + ENC.encode() + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b'5\r\n{"num\r\n8;x=y\r\nber": 2}\r\n0\r\nTrailer: z\r\n\r\n',
    ],
    ids=["get", "post", "empty lines", "chunked"],
)
def test_a_request_may_come_byte_by_byte(serving: Serving, alice: Issued, data: bytes) -> None:
    with serving.client(alice) as client:
        for _ in range(2):
            for byte in data:
                client.send(bytes([byte]))
            assert client.answer().status == 200


def test_requests_may_be_cut_anywhere(serving: Serving, alice: Issued) -> None:
    stream = (request("GET", STATUS) + request("POST", ENC, {"number": 1}) + request("GET", ENC)) * 30
    cuts = random.Random(7)
    with serving.client(alice) as client:
        at = 0
        while at < len(stream):
            step = cuts.choice([1, 2, 30, 150, 1000])
            client.send(stream[at : at + step])
            at += step
        assert {client.answer().status for _ in range(90)} == {200}


def test_tls_records_may_be_cut_anywhere(serving: Serving, alice: Issued) -> None:
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context(serving.authority, alice).wrap_bio(incoming, outgoing, server_hostname="localhost")
    with socket.create_connection(("127.0.0.1", serving.port), 5) as plain:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def flush() -> None:
            for byte in outgoing.read():
                plain.send(bytes([byte]))

        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                flush()
                incoming.write(plain.recv(65536))
        tls.write(request("GET", STATUS))
        tls.write(request("GET", STATUS))
        flush()
        data = b""
        while data.count(b"max_SAE_ID_count") < 2:
            try:
                data += tls.read(65536)
            except ssl.SSLWantReadError:
                incoming.write(plain.recv(65536))
        assert data.count(b"HTTP/1.1 200 OK") == 2


def test_a_head_with_its_body_in_another_segment_is_served_twice_alike(serving: Serving, alice: Issued) -> None:
    data = request("POST", ENC, {"number": 3})
    head, body = data[:-13], data[-13:]
    with serving.client(alice) as client:
        for pieces in ([data], [head, body], [data + head, body], [head + body[:4], body[4:]]):
            for piece in pieces:
                client.send(piece)
                time.sleep(0.01)
            for _ in range(b"".join(pieces).count(b"POST")):
                assert len(client.answer().json()["keys"]) == 3


def test_other_bodies_under_the_same_head_are_read_anew(serving: Serving, alice: Issued) -> None:
    with serving.client(alice) as client:
        for number in (1, 2, 3, 2, 1):
            assert len(client.request("POST", ENC, {"number": number}).json()["keys"]) == number
            assert len(client.request("POST", ENC, {"number": number + 10}).json()["keys"]) == number + 10


# Slow, silent and vanishing clients


def test_a_slow_head_is_answered_408_and_closed(hasty: Serving, alice: Issued) -> None:
    with hasty.client(alice) as client:
        client.send(b"GET /api/v1/keys/bo")
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert client.rest() == b""


def test_a_head_that_drips_does_not_gain_time(hasty: Serving, alice: Issued) -> None:
    started = time.monotonic()
    with hasty.client(alice) as client:
        with contextlib.suppress(*CLOSED):
            for byte in b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 10_000:
                client.send(bytes([byte]))
                time.sleep(0.01)
        assert time.monotonic() - started < 3


def test_requests_that_always_overlap_are_each_given_their_own_time(hasty: Serving, alice: Issued) -> None:
    data = request("GET", STATUS)
    with hasty.client(alice) as client:
        client.send(data[:20])
        end = time.monotonic() + 1.0
        while time.monotonic() < end:
            client.send(data[20:] + data[:20])
            assert client.answer().status == 200
            time.sleep(0.02)


def test_refusals_too_keep_a_connection_busy(hasty: Serving, alice: Issued) -> None:
    with hasty.client(alice) as client:
        end = time.monotonic() + 0.8
        while time.monotonic() < end:
            assert client.request("GET", "/api/v1/keys/nobody/enc_keys").status == 400
            time.sleep(0.05)


def test_a_slow_body_is_answered_408_and_closed(hasty: Serving, alice: Issued) -> None:
    with hasty.client(alice) as client:
        client.send(request("POST", ENC, {"number": 2})[:-3])
        assert client.answer().status == 408
        assert client.rest() == b""


def test_an_idle_connection_is_closed_without_an_answer(hasty: Serving, alice: Issued) -> None:
    with hasty.client(alice) as client:
        assert client.request("GET", STATUS).status == 200
        assert client.rest() == b""


def test_a_busy_connection_outlives_the_idle_time(hasty: Serving, alice: Issued) -> None:
    with hasty.client(alice) as client:
        end = time.monotonic() + 0.8
        while time.monotonic() < end:
            assert client.request("GET", STATUS).status == 200
            time.sleep(0.05)


def test_a_client_that_says_nothing_or_stops_in_the_handshake_is_cut(hasty: Serving) -> None:
    hello = ssl.MemoryBIO()
    tls = client_context(hasty.authority, None).wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    for first in (b"", hello.read()[:50]):
        with socket.create_connection(("127.0.0.1", hasty.port), 5) as plain:
            plain.send(first)
            with contextlib.suppress(ConnectionResetError):
                assert plain.recv(100) == b""
    until(lambda: hasty.server.connections == set())
    assert hasty.server.events["client_too_slow"] == 2


def test_a_client_that_leaves_its_answers_unread_is_cut(hasty: Serving, alice: Issued) -> None:
    client = hasty.client(alice)
    client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.send(request("POST", ENC, {"number": 128, "size": 8192}) * 100)
    until(lambda: hasty.server.connections == set())
    client.reset()


def test_a_supplier_that_never_answers_does_not_keep_the_connection(hasty: Serving, bob: Issued) -> None:
    hasty.supplier.hold = []
    with hasty.client(bob) as client:
        client.send(request("GET", DEC))
        assert client.rest() == b""
    # What comes after all is nobody's any more, and nobody's failure.
    hasty.call(hasty.supplier.hold.pop())


@pytest.mark.parametrize("sent", [b"", b"GET / HT", request("POST", ENC, {})[:-1], request("GET", DEC)])
def test_a_reset_at_any_point_leaves_no_connection_behind(serving: Serving, bob: Issued, sent: bytes) -> None:
    serving.supplier.hold = []
    for _ in range(20):
        client = serving.client(bob)
        client.send(sent)
        client.reset()
    until(lambda: serving.server.connections == set())
    for answer in serving.supplier.hold:
        serving.call(answer)
    with serving.client(bob) as client:
        assert client.request("GET", "/api/v1/keys/alice/status").status == 200


def test_a_client_that_ends_its_side_still_gets_its_answers(serving: Serving, bob: Issued) -> None:
    serving.supplier.hold = []
    with serving.client(bob) as client:
        client.send(request("GET", DEC) + request("GET", "/api/v1/keys/alice/status"))
        until(lambda: len(serving.supplier.hold) == 1)
        raw = socket.socket(fileno=client.socket.fileno())
        raw.shutdown(socket.SHUT_WR)
        raw.detach()
        time.sleep(0.05)
        serving.call(serving.supplier.hold.pop())
        assert [client.answer().status, client.answer().status] == [400, 200]
        assert client.rest() == b""


def test_a_half_request_at_the_end_is_dropped(serving: Serving, alice: Issued) -> None:
    with serving.client(alice) as client:
        client.send(request("GET", STATUS) + b"GET /half")
        raw = socket.socket(fileno=client.socket.fileno())
        raw.shutdown(socket.SHUT_WR)
        raw.detach()
        assert client.answer().status == 200
        assert client.rest() == b""


# Limits


def test_an_oversized_head_is_431(serving: Serving, alice: Issued) -> None:
    for head in (
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * HEAD_BYTES_LIMIT + b"\r\n\r\n",
        b"GET /" + b"y" * 4 * HEAD_BYTES_LIMIT,
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * HEAD_BYTES_LIMIT,
    ):
        with serving.client(alice) as client:
            client.send(head)
            assert client.answer().status == 431
            assert client.rest() == b""


def test_a_head_just_below_the_limit_is_read(serving: Serving, alice: Issued) -> None:
    head = f"GET {STATUS} HTTP/1.1\r\nHost: x\r\nX: ".encode()
    with serving.client(alice) as client:
        for _ in range(2):
            client.send(head + b"y" * (HEAD_BYTES_LIMIT - len(head) - 4) + b"\r\n\r\n")
            assert client.answer().status == 200


def test_an_oversized_body_is_413_before_it_is_read(serving: Serving, alice: Issued) -> None:
    with serving.client(alice) as client:
        client.send(f"POST {ENC} HTTP/1.1\r\nHost: x\r\nContent-Length: {BODY_BYTES_LIMIT + 1}\r\n\r\n".encode())
        assert client.answer().status == 413
        assert client.rest() == b""


def test_a_client_that_has_sent_its_oversized_body_still_sees_the_413(serving: Serving, alice: Issued) -> None:
    with serving.client(alice) as client:
        client.send(request("POST", ENC, b"x" * 10 * BODY_BYTES_LIMIT))
        assert client.answer().status == 413


def test_an_oversized_chunked_body_is_413(serving: Serving, alice: Issued) -> None:
    with serving.client(alice) as client:
        client.send(f"POST {ENC} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        client.send(b"1000\r\n" + b"x" * 4096 + b"\r\n" + (b"1000\r\n" + b"x" * 4096 + b"\r\n") * 16)
        assert client.answer().status == 413


def test_the_largest_body_is_read(serving: Serving, alice: Issued) -> None:
    body = b'{"number": 2}'.ljust(BODY_BYTES_LIMIT)
    with serving.client(alice) as client:
        assert client.request("POST", ENC, body).status == 200


def test_one_body_full_of_key_ids_is_judged_not_choked_on(serving: Serving, bob: Issued) -> None:
    import uuid

    ids = [{"key_ID": str(uuid.UUID(int=n))} for n in range(1100)]
    with serving.client(bob) as client:
        assert client.request("POST", "/api/v1/keys/alice/dec_keys", {"key_IDs": ids}).status == 400


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x00\x01\x02\r\n\r\n", 501),
        (b"GET / HTTP/1.1\r\nHost x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        (b"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nContent-Length: 5\r\n\r\nabcde", 400),
        (b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n", 400),
    ],
)
def test_broken_framing_is_answered_once_and_closed(serving: Serving, alice: Issued, data: bytes, status: int) -> None:
    with serving.client(alice) as client:
        client.send(data + request("GET", STATUS))
        answer = client.answer()
        assert (answer.status, answer.headers["connection"]) == (status, "close")
        assert answer.json()["message"]
        assert client.rest() == b""


def test_random_bytes_never_reach_the_loop(serving: Serving, alice: Issued) -> None:
    noise = random.Random(3)
    for _ in range(30):
        with serving.client(alice) as client:
            data = bytearray(request("POST", ENC, {"number": 2}))
            for _ in range(noise.randrange(1, 6)):
                data[noise.randrange(len(data))] = noise.randrange(256)
            with contextlib.suppress(*CLOSED):
                client.send(bytes(data) + b"\r\n\r\n")
                client.socket.settimeout(0.02)
                client.answer()
    with serving.client(alice) as client:
        assert client.request("GET", STATUS).status == 200


# Keep-alive, HTTP/1.0, Expect


def test_connection_close_is_honoured(serving: Serving, alice: Issued) -> None:
    with serving.client(alice) as client:
        answer = client.request("GET", STATUS, more="Connection: close\r\n")
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert client.rest() == b""


def test_http_1_0_closes_unless_asked_to_keep_alive(serving: Serving, alice: Issued) -> None:
    with serving.client(alice) as client:
        for _ in range(3):
            client.send(f"GET {STATUS} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".encode())
            answer = client.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "keep-alive")
        client.send(f"GET {STATUS} HTTP/1.0\r\n\r\n".encode())
        assert client.answer().headers["connection"] == "close"
        assert client.rest() == b""


def test_a_client_that_waits_for_the_go_ahead_gets_it(serving: Serving, alice: Issued) -> None:
    data = request("POST", ENC, {"number": 2}, "Expect: 100-continue\r\n")
    with serving.client(alice) as client:
        for _ in range(2):
            client.send(data[:-13])
            assert client.answer().status == 100
            client.send(data[-13:])
            assert len(client.answer().json()["keys"]) == 2
        client.send(data)
        assert client.answer().status == 200


def test_a_body_that_would_be_refused_gets_no_go_ahead(serving: Serving, alice: Issued) -> None:
    with serving.client(alice) as client:
        more = f"Expect: 100-continue\r\nContent-Length: {BODY_BYTES_LIMIT + 1}\r\n\r\n"
        client.send(f"POST {ENC} HTTP/1.1\r\nHost: x\r\n{more}".encode())
        assert client.answer().status == 413


# Crowds


def test_a_thousand_connections_are_served_at_once(authority: Authority, alice: Issued) -> None:
    async def one(port: int, context: ssl.SSLContext, gate: asyncio.Semaphore, all_open: asyncio.Event) -> int:
        async with gate:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
        opened.append(writer)
        if len(opened) == 1000:
            all_open.set()
        await all_open.wait()
        status = 0
        for _ in range(2):
            writer.write(request("GET", ENC))
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            status = int(head.split()[1])
        return status

    opened: list[asyncio.StreamWriter] = []

    async def crowd(port: int) -> list[int]:
        context, gate, all_open = client_context(authority, alice), asyncio.Semaphore(50), asyncio.Event()
        statuses = await asyncio.gather(*(one(port, context, gate, all_open) for _ in range(1000)))
        assert len(serving.server.connections) == 1000
        for writer in opened:
            writer.transport.abort()
        return statuses

    with Serving(authority) as serving:
        assert asyncio.run(crowd(serving.port)) == [200] * 1000
        until(lambda: serving.server.connections == set())
    assert serving.failures == []


def test_a_connection_above_the_limit_is_refused_and_the_others_go_on(authority: Authority, alice: Issued) -> None:
    with Serving(authority, connections_limit=3) as serving, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(serving.client(alice)) for _ in range(3)]
        with pytest.raises((ssl.SSLError, ConnectionResetError, EOFError)):
            serving.client(alice)
        assert [client.request("GET", STATUS).status for client in clients] == [200] * 3
        clients[0].reset()
        until(lambda: len(serving.server.connections) == 2)
        with serving.client(alice) as again:
            assert again.request("GET", STATUS).status == 200
        assert serving.server.events["connection_refused"] == 1


def test_a_crowd_at_the_door_delays_a_request_by_one_handshake_at_a_time(authority: Authority, alice: Issued) -> None:
    """Two hundred handshakes that arrive together take 100 ms or more; no request may wait for all of them."""
    hellos = []
    for _ in range(200):
        outgoing = ssl.MemoryBIO()
        tls = client_context(authority, alice).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        hellos.append(outgoing.read())
    with Serving(authority) as serving, contextlib.ExitStack() as stack, serving.client(alice) as client:
        client.request("GET", STATUS)
        sockets = [stack.enter_context(socket.create_connection(("127.0.0.1", serving.port))) for _ in hellos]
        until(lambda: len(serving.server.connections) == 201)
        answered_before: list[int] = []
        stop = threading.Event()

        def ask() -> None:
            while not stop.is_set():
                client.request("GET", STATUS)
                answered_before.append(len(serving.server._handshakes))

        asking = threading.Thread(target=ask)
        # The hellos lie in the server's queue before it gets to the first of them.
        serving.loop.call_soon_threadsafe(lambda: [s.send(hello) for s, hello in zip(sockets, hellos, strict=True)])
        asking.start()
        until(lambda: max(answered_before, default=0) > 0 or not asking.is_alive())
        until(lambda: not serving.server._handshakes)
        stop.set()
        asking.join()
        waiting_seen = {count for count in answered_before if count}
        assert len(waiting_seen) > 5, f"answers came while these many handshakes waited: {sorted(waiting_seen)}"


# Certificates that must be refused, versions, resumption


def refused(serving: Serving, issued: Issued | None) -> None:
    """TLS 1.3 lets a client finish first, so the refusal may show at its first read."""
    with pytest.raises(CLOSED), serving.client(issued) as client:
        client.request("GET", STATUS)
    until(lambda: "handshake_refused" in serving.events())
    assert serving.supplier.asked == []


def test_no_certificate_is_refused(serving: Serving) -> None:
    refused(serving, None)


def test_a_self_signed_certificate_is_refused(serving: Serving, authority: Authority) -> None:
    refused(serving, authority.sae("alice", self_signed=True))


def test_a_certificate_of_another_authority_is_refused(serving: Serving, tmp_path: Path) -> None:
    refused(serving, Authority(tmp_path, "another authority").sae("alice"))


def test_a_certificate_of_a_namesake_of_the_authority_is_refused(serving: Serving, tmp_path: Path) -> None:
    refused(serving, Authority(tmp_path).sae("alice"))


def test_an_expired_certificate_is_refused(serving: Serving, authority: Authority) -> None:
    day = datetime.timedelta(days=1)
    refused(serving, authority.sae("alice", started=2 * day, life=day))


def test_a_certificate_of_tomorrow_is_refused(serving: Serving, authority: Authority) -> None:
    day = datetime.timedelta(days=1)
    refused(serving, authority.sae("alice", started=-day, life=day))


def test_a_server_certificate_is_no_client_certificate(serving: Serving, authority: Authority) -> None:
    refused(serving, authority.sae("alice", usage=ExtendedKeyUsageOID.SERVER_AUTH))


def test_a_certificate_issued_by_a_client_is_refused(serving: Serving, authority: Authority, tmp_path: Path) -> None:
    """An application must not become an authority: its certificate is no CA's."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    own = authority.sae("bob")
    issuer = x509.load_pem_x509_certificate(own.certificate.read_bytes())
    issuer_key = serialization.load_pem_private_key(own.key.read_bytes(), None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey)
    forged = authority.sae("alice")
    old = x509.load_pem_x509_certificate(forged.certificate.read_bytes())
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(issuer.subject)
        .public_key(old.public_key())
        .serial_number(7)
        .not_valid_before(old.not_valid_before_utc)
        .not_valid_after(old.not_valid_after_utc)
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    chain = builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    (tmp_path / "chain.crt").write_bytes(chain + own.certificate.read_bytes())
    refused(serving, Issued(tmp_path / "chain.crt", forged.key))


@pytest.mark.parametrize(
    "uris",
    [
        [],
        ["urn:keyhop:sae:alice", "urn:keyhop:sae:bob"],
        ["urn:keyhop:node:alice"],
        ["urn:keyhop:sae:"],
    ],
    ids=["none", "two", "foreign", "empty"],
)
def test_a_certificate_that_names_nobody_or_two_is_refused(
    serving: Serving, authority: Authority, uris: list[str]
) -> None:
    refused(serving, authority.issue("alice", uris=uris, dns=["alice"]))


def test_the_source_of_the_identity_belongs_to_the_listener(authority: Authority) -> None:
    issued = authority.issue("carol", uris=["urn:keyhop:sae:alice"], dns=["bob"])
    for source, name in ((IdentitySource.CN, "carol"), (IdentitySource.SAN_DNS, "bob")):
        with Serving(authority, identities=Identities(source)) as serving, serving.client(issued) as client:
            client.request("GET", ENC)
            assert serving.supplier.asked[-1][0] == name


def test_tls_1_2_is_refused(serving: Serving, alice: Issued) -> None:
    context = client_context(serving.authority, alice)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(CLOSED):
        Client(serving.port, context)
    until(lambda: "handshake_refused" in serving.events())


def test_no_session_is_resumed(serving: Serving, alice: Issued) -> None:
    context = client_context(serving.authority, alice)
    with Client(serving.port, context) as first:
        assert first.request("GET", STATUS).status == 200
        session = first.socket.session
    with Client(serving.port, context, session) as second:
        assert second.request("GET", STATUS).status == 200
        assert second.socket.session_reused is False


def test_the_stdlib_sends_no_session_ticket_at_all(authority: Authority, alice: Issued) -> None:
    with Serving(authority, library=TlsLibrary.STDLIB) as serving, serving.client(alice) as client:
        client.request("GET", STATUS)
        session = client.socket.session
        assert session is None or not session.has_ticket


def test_alpn_is_fixed(serving: Serving, alice: Issued) -> None:
    context = client_context(serving.authority, alice)
    context.set_alpn_protocols(["h2", "http/1.1"])
    with Client(serving.port, context) as client:
        assert client.socket.selected_alpn_protocol() == "http/1.1"
        assert client.request("GET", STATUS).status == 200


def test_plain_http_gets_no_answer(serving: Serving) -> None:
    with socket.create_connection(("127.0.0.1", serving.port), 5) as plain:
        plain.send(request("GET", STATUS))
        with contextlib.suppress(ConnectionResetError):
            assert b"HTTP" not in plain.recv(1000)
    until(lambda: serving.events() == ["handshake_refused"])


def test_a_client_may_send_its_requests_with_the_end_of_the_handshake(serving: Serving, alice: Issued) -> None:
    body = b'{"number": 1}'.ljust(BODY_BYTES_LIMIT)
    with serving.client(alice) as client:
        client.send(request("POST", ENC, body) * 5)
        assert {client.answer().status for _ in range(5)} == {200}


def test_endless_handshake_bytes_are_cut(serving: Serving) -> None:
    with socket.create_connection(("127.0.0.1", serving.port), 5) as plain:
        # A handshake record of 16 KiB after another, all of one message that never ends.
        record = struct.pack("!BHH", 22, 0x0301, 16384) + b"\x01\xff\xff\xff" + bytes(16380)
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            plain.sendall(record * 2000)
            pytest.fail("thirty megabytes of handshake were taken")
    until(lambda: serving.server.connections == set())


def test_key_updates_are_followed_in_both_directions(serving: Serving, alice: Issued) -> None:
    if shutil.which("openssl") is None:
        pytest.fail("the command openssl, which can ask for key updates, is not installed: apt-get install openssl")
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{serving.port}", "-brief", "-crlf"]
    command += ["-cert", str(alice.certificate), "-key", str(alice.key), "-CAfile", str(serving.authority.file)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as client:
        assert client.stdin is not None and client.stdout is not None
        for said in (b"K\n", f"GET {STATUS} HTTP/1.1\nHost: x\n\n".encode(), b"K\n", b"k\n", b"K\n"):
            # It looks for its one-letter commands at the beginning of what one read gives it.
            client.stdin.write(said)
            client.stdin.flush()
            time.sleep(0.1)
        client.stdin.write(f"GET {STATUS} HTTP/1.1\nHost: x\nConnection: close\n\n".encode())
        client.stdin.flush()
        said_back = client.stdout.read()
    assert said_back.count(b"KEYUPDATE") == 4
    assert said_back.count(b"HTTP/1.1 200 OK") == 2
    assert serving.reports == []


def test_garbage_in_a_session_ends_it_and_no_other(serving: Serving, alice: Issued) -> None:
    with serving.client(alice) as other:
        for garbage in (
            b"\x17\x03\x03\x00\x20" + bytes(32),
            b"GET / HTTP/1.1\r\n\r\n",
            b"\x15\x03\x03\x00\x02\x01\x00",
        ):
            with serving.client(alice) as client:
                assert client.request("GET", STATUS).status == 200
                raw = socket.socket(fileno=client.socket.fileno())
                raw.send(garbage)
                raw.detach()
                with contextlib.suppress(*CLOSED):
                    assert client.socket.recv(100) == b""
            assert other.request("GET", STATUS).status == 200
        until(lambda: serving.server.events["record_refused"] == 3)


def test_reports_of_one_tick_are_limited_but_all_are_counted(authority: Authority) -> None:
    with Serving(authority, patience=Patience(tick_s=60)) as serving:
        for _ in range(30):
            with socket.create_connection(("127.0.0.1", serving.port)) as plain:
                plain.send(b"nonsense\r\n")
        until(lambda: serving.server.events["handshake_refused"] == 30)
        assert len(serving.reports) == 10


# Renewal and drain


def test_a_renewed_context_serves_new_connections_and_leaves_the_old_ones(
    serving: Serving, authority: Authority, alice: Issued, tmp_path: Path
) -> None:
    from keyhop.daemon.tls import TlsFiles, server_context

    with serving.client(alice) as old:
        first = old.socket.getpeercert(binary_form=True)
        renewed = authority.server()
        files = TlsFiles(renewed.certificate, renewed.key, authority.file)
        serving.call(lambda: setattr(serving.server, "context", server_context(files, serving.library)))
        with serving.client(alice) as new:
            assert new.socket.getpeercert(binary_form=True) != first
            assert new.request("GET", STATUS).status == 200
        assert old.request("GET", STATUS).status == 200


def test_drain_answers_what_is_under_way_closes_the_idle_and_lets_nobody_in(
    serving: Serving, alice: Issued, bob: Issued
) -> None:
    serving.supplier.hold = []
    with serving.client(alice) as idle, serving.client(bob) as busy:
        assert idle.request("GET", STATUS).status == 200
        busy.send(request("GET", DEC))
        until(lambda: len(serving.supplier.hold) == 1)
        draining = asyncio.run_coroutine_threadsafe(serving.server.drain(5), serving.loop)
        assert idle.rest() == b""
        with pytest.raises((OSError, EOFError)):
            serving.client(alice)
        serving.call(serving.supplier.hold.pop())
        answer = busy.answer()
        assert (answer.status, answer.headers["connection"]) == (400, "close")
        assert busy.rest() == b""
        busy.socket.close()
        draining.result(5)
        assert serving.server.connections == set()


def test_drain_cuts_what_does_not_end_in_time(serving: Serving, bob: Issued) -> None:
    serving.supplier.hold = []
    with serving.client(bob) as client:
        client.send(request("GET", DEC))
        until(lambda: len(serving.supplier.hold) == 1)
        asyncio.run_coroutine_threadsafe(serving.server.drain(0.05), serving.loop).result(5)
        assert client.rest() == b""


def test_two_servers_may_share_a_port(authority: Authority, alice: Issued) -> None:
    with Serving(authority) as first, Serving(authority) as second:
        host, port = first.call(lambda: first.server.start("127.0.0.1", 0, reuse_port=True))
        assert second.call(lambda: second.server.start(host, port, reuse_port=True)) == (host, port)
        for _ in range(40):
            with Client(port, client_context(authority, alice)) as client:
                client.request("GET", ENC)
        assert first.supplier.asked and second.supplier.asked


# What a request costs the kernel


def test_a_keep_alive_request_costs_one_read_and_one_write(library: TlsLibrary, tmp_path: Path) -> None:
    """Nothing is mapped, no descriptor is armed anew, and the answer leaves in one piece."""
    if shutil.which("strace") is None:
        pytest.fail("strace is not installed, and this test counts system calls with it: apt-get install strace")
    authority = Authority(tmp_path / "pki")
    issued = authority.server()
    issued.certificate.rename(authority.folder / "server.crt")
    issued.key.rename(authority.folder / "server.key")
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-o", trace, sys.executable, loopback.__file__, authority.folder, library]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    port, server_process = map(int, process.stdout.readline().split())
    try:
        with Client(port, client_context(authority, authority.sae("alice"))) as client:

            def calls(count: int) -> Counter[str]:
                before = trace.read_bytes().count(b"\n")
                for _ in range(count):
                    assert client.request("GET", STATUS).status == 200
                lines = trace.read_text().splitlines()[before:]
                return Counter(line.split()[1].partition("(")[0] for line in lines)

            calls(200)
            counted = calls(500)
    finally:
        # strace passes no signal on, it ends with the process it watches.
        os.kill(server_process, signal.SIGTERM)
        process.wait(10)
    slack = 25
    reads = sum(counted[name] for name in ("read", "recvfrom", "recvmsg", "readv"))
    writes = sum(counted[name] for name in ("write", "sendto", "sendmsg", "writev"))
    assert 500 <= reads <= 500 + slack, counted
    assert 500 <= writes <= 500 + slack, counted
    assert sum(counted[name] for name in ("mmap", "munmap", "mremap", "madvise")) <= 2, counted
    # One client that waits for each answer: the loop sleeps once for each request, and that is all.
    waits = sum(counted[name] for name in ("epoll_wait", "epoll_pwait", "epoll_pwait2"))
    assert sum(counted.values()) - reads - writes - waits <= slack, counted


def test_the_memory_supplier_of_these_tests_gives_no_key_twice() -> None:
    supplier = MemorySupplier()
    first, second = (supplier.enc_keys("alice", "bob", 1, None, None) for _ in range(2))
    assert first[0] != second[0]
