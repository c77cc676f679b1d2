"""Both clients over real TLS: what they send, what they repeat, and what breaks how."""

from __future__ import annotations

import asyncio
import json
import time
from base64 import b64encode
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from fake_kme import Fake, Handler, Shell, answer, client_files, hang_up

from keyhop import (
    AsyncKme,
    BadRequest,
    Key,
    KeyGone,
    Kme,
    NotAuthorised,
    NotEnoughKey,
    ProtocolError,
    Unreachable,
)
from keyhop.client import core
from keyhop.daemon import pki
from keyhop.daemon.pki import Role

IDS = [UUID(int=number, version=4) for number in range(1, 9)]


def key_answer(*numbers: int) -> Any:
    return answer(200, {"keys": [{"key_ID": str(IDS[n]), "key": b64encode(bytes([n]) * 32).decode()} for n in numbers]})


def test_a_key_comes_and_its_peer_fetches_it_by_id(fake: Fake, shell: Shell) -> None:
    fake.play(key_answer(1), key_answer(1))
    first, second = shell(
        fake.server.address,
        fake.files,
        lambda kme: kme.get_key("sae-b", size=256),
        lambda kme: kme.fetch_key("sae-a", str(IDS[1])),
    )
    assert first == second == Key(IDS[1], b"\x01" * 32)
    assert [(method, path) for method, path, _ in fake.seen] == [
        ("POST", "/api/v1/keys/sae-b/enc_keys"),
        ("POST", "/api/v1/keys/sae-a/dec_keys"),
    ]
    assert json.loads(fake.seen[0][2]) == {"number": 1, "size": 256}


def test_several_keys_come_at_once(fake: Fake, shell: Shell) -> None:
    fake.play(key_answer(1, 2, 3))
    (keys,) = shell(fake.server.address, fake.files, lambda kme: kme.get_keys("sae-b", n=3))
    assert [key.id for key in keys] == IDS[1:4]


def test_status_is_read(fake: Fake, shell: Shell) -> None:
    body = {
        "source_KME_ID": "STP",
        "target_KME_ID": "FRM",
        "master_SAE_ID": "sae-a",
        "slave_SAE_ID": "sae-b",
        "key_size": 256,
        "stored_key_count": 7,
        "max_key_count": 100,
        "max_key_per_request": 128,
        "max_key_size": 8192,
        "min_key_size": 64,
        "max_SAE_ID_count": 0,
        "status_extension": None,
    }
    fake.play(answer(200, body))
    (status,) = shell(fake.server.address, fake.files, lambda kme: kme.status("sae-b"))
    assert (status.source_kme, status.stored_keys, status.key_size_bits) == ("STP", 7, 256)


def test_calls_share_one_connection(fake: Fake, shell: Shell) -> None:
    fake.play(*(key_answer(n) for n in (1, 2, 3)))
    shell(fake.server.address, fake.files, *[lambda kme: kme.get_key("sae-b")] * 3)
    assert fake.connections == 1


def test_a_connection_that_the_server_closed_between_calls_is_replaced(fake: Fake, shell: Shell) -> None:
    def then_close(handler: Handler) -> None:
        key_answer(1)(handler)
        handler.close_connection = True

    fake.play(then_close, key_answer(2))
    call = lambda kme: kme.get_key("sae-b")  # noqa: E731
    _, second = shell(fake.server.address, fake.files, call, call, pause=0.1)
    assert second.id == IDS[2]
    assert (len(fake.seen), fake.connections) == (2, 2)


@pytest.mark.parametrize("call", [lambda kme: kme.get_key("sae-b"), lambda kme: kme.fetch_key("sae-b", IDS[1])])
def test_a_request_that_spends_keys_is_never_repeated(fake: Fake, shell: Shell, call: Any) -> None:
    fake.play(key_answer(1), hang_up, key_answer(2))
    with pytest.raises(Unreachable, match="cannot be reached"):
        shell(fake.server.address, fake.files, call, call)
    assert len(fake.seen) == 2


def test_after_a_broken_call_the_next_one_works(fake: Fake) -> None:
    fake.play(hang_up, key_answer(2))
    with Kme(fake.server.address, **fake.files) as kme:
        with pytest.raises(Unreachable):
            kme.get_key("sae-b")
        assert kme.get_key("sae-b").id == IDS[2]


def test_a_broken_status_call_is_repeated_once_on_a_new_connection(fake: Fake) -> None:
    fake.play(key_answer(1), hang_up, answer(503, {"message": "sealed"}))
    with Kme(fake.server.address, **fake.files) as kme:
        kme.get_key("sae-b")
        with pytest.raises(Unreachable, match="sealed"):
            kme.status("sae-b")
    assert [method for method, _, _ in fake.seen] == ["POST", "GET", "GET"]


def test_refusals_become_errors(fake: Fake, shell: Shell) -> None:
    fake.play(answer(503, {"message": "not enough key"}, Retry_After="3"))
    with pytest.raises(NotEnoughKey) as caught:
        shell(fake.server.address, fake.files, lambda kme: kme.get_key("sae-b"))
    assert caught.value.retry_after == 3.0
    fake.play(answer(400, {"message": "one or more keys specified are not found on KME"}))
    with pytest.raises(KeyGone):
        shell(fake.server.address, fake.files, lambda kme: kme.fetch_key("sae-b", IDS[1]))


def test_want_of_key_is_waited_for_only_if_asked(fake: Fake, shell: Shell) -> None:
    none_yet = answer(503, {"message": "not enough key"})
    fake.play(none_yet, none_yet, key_answer(1))
    (key,) = shell(fake.server.address, fake.files, lambda kme: kme.get_key("sae-b", wait=2.0))
    assert key.id == IDS[1]
    fake.play(none_yet, key_answer(1))
    with pytest.raises(NotEnoughKey):
        shell(fake.server.address, fake.files, lambda kme: kme.get_key("sae-b"))
    assert len(fake.server.scripts) == 1


def test_nobody_there_is_unreachable(fake: Fake, shell: Shell) -> None:
    with pytest.raises(Unreachable, match=r"https://localhost:1 cannot be reached"):
        shell("https://localhost:1", fake.files, lambda kme: kme.status("sae-b"))


def test_silence_is_unreachable_in_time(fake: Fake, shell: Shell) -> None:
    fake.play(lambda handler: time.sleep(1.0))
    with pytest.raises(Unreachable, match="did not answer in time"):
        shell(fake.server.address, fake.files, lambda kme: kme.get_key("sae-b"), timeout=0.2)


def test_a_server_of_another_authority_gets_nothing(fake: Fake, shell: Shell, certificates: Path) -> None:
    files = fake.files | {"ca": pki.authority_certificate(certificates, Role.SAE)}
    with pytest.raises(Unreachable, match=r"its certificate was refused .*; is `ca` its authority\?"):
        shell(fake.server.address, files, lambda kme: kme.get_key("sae-b"))
    assert fake.seen == []


def test_a_certificate_that_the_server_refuses_is_not_authorised(fake: Fake, shell: Shell, certificates: Path) -> None:
    """Where the server resets the connection, its reason may be lost; then the message is a guess."""
    files = client_files(certificates, "olga", Role.OPERATOR)
    with pytest.raises((NotAuthorised, Unreachable), match="refused our certificate"):
        shell(fake.server.address, files, lambda kme: kme.get_key("sae-b"))
    assert fake.seen == []


def test_a_redirect_is_not_followed(fake: Fake, shell: Shell) -> None:
    fake.play(answer(307, {"message": "elsewhere"}, Location="https://localhost:1/"), key_answer(1))
    with pytest.raises(ProtocolError):
        shell(fake.server.address, fake.files, lambda kme: kme.get_key("sae-b"))
    assert len(fake.seen) == 1


def test_an_endless_answer_is_cut_off(fake: Fake, shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "ANSWER_LIMIT_BYTES", 1000)
    fake.play(answer(200, b" " * 2000))
    with pytest.raises(Unreachable, match="more than 1000 bytes"):
        shell(fake.server.address, fake.files, lambda kme: kme.get_key("sae-b"))


@pytest.mark.parametrize(("name", "message"), [("cert", "cert and key: "), ("ca", "ca: ")])
def test_files_that_are_none_are_named(fake: Fake, tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "nonsense").write_text("nonsense")
    for path in (tmp_path / "nonsense", tmp_path / "absent"):
        for kind in (Kme, AsyncKme):
            with pytest.raises(BadRequest) as caught:
                kind(fake.server.address, **(fake.files | {name: path}))
            assert message in str(caught.value) and str(path) in str(caught.value)


def test_both_clients_are_made_from_the_environment(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEYHOP_ADDR", fake.server.address)
    for name in ("cert", "key", "ca"):
        monkeypatch.setenv(f"KEYHOP_{name.upper()}", str(fake.files[name]))
    fake.play(key_answer(1), key_answer(2))
    with Kme.from_env() as kme:
        assert kme.get_key("sae-b").id == IDS[1]

    async def run() -> Key:
        async with AsyncKme.from_env() as kme:
            return await kme.get_key("sae-b")

    assert asyncio.run(run()).id == IDS[2]


def test_an_interrupted_call_leaves_no_answer_for_the_next(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.play(key_answer(1), key_answer(2))
    with Kme(fake.server.address, **fake.files) as kme:
        with monkeypatch.context() as patch:
            patch.setattr("http.client.HTTPSConnection.getresponse", _interrupt)
            with pytest.raises(KeyboardInterrupt):
                kme.get_key("sae-b")
        # The next call has a connection of its own: only the order of the calls makes it the second.
        _until(lambda: len(fake.seen) == 1)
        assert kme.get_key("sae-b").id == IDS[2]


def _interrupt(_: object) -> None:
    raise KeyboardInterrupt


def _until(condition: Any) -> None:
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_session_keeps_a_fresh_key(fake: Fake) -> None:
    fake.play(*(key_answer(n) for n in (1, 2, 3)))
    announced: list[UUID] = []
    renewed: list[UUID] = []
    with Kme(fake.server.address, **fake.files) as kme:
        with kme.session("sae-b", rekey=0.05, announce=announced.append) as session:
            first = session.current
            assert first.id == IDS[1] and announced == [IDS[1]]
            session.on_rekey(lambda key: renewed.append(key.id))
            _until(lambda: len(renewed) >= 2)
            assert session.current.id == IDS[3]
            assert session.previous is not None and session.previous.id == IDS[2]
            assert first.wiped
            last = session.current
        assert last.wiped
    assert announced[:3] == IDS[1:4]


def test_a_session_goes_on_with_its_key_when_none_comes(fake: Fake) -> None:
    fake.play(key_answer(1), answer(503, {"message": "not enough key"}), key_answer(2))
    with Kme(fake.server.address, **fake.files) as kme, kme.session("sae-b", rekey=0.05, announce=print) as session:
        _until(lambda: session.last_error is not None)
        assert isinstance(session.last_error, NotEnoughKey)
        assert session.current.id == IDS[1] and not session.current.wiped
        _until(lambda: session.current.id == IDS[2])
        assert session.last_error is None


def test_a_key_that_could_not_be_announced_is_not_used(fake: Fake) -> None:
    fake.play(key_answer(1))

    def fail(_: UUID) -> None:
        raise ConnectionError("peer away")

    with (
        Kme(fake.server.address, **fake.files) as kme,
        pytest.raises(ConnectionError),
        kme.session("sae-b", announce=fail),
    ):
        pytest.fail("the session began without a key")


def test_an_asyncio_session_keeps_a_fresh_key(fake: Fake) -> None:
    fake.play(key_answer(1), answer(503, {"message": "not enough key"}), *(key_answer(n) for n in (2, 3)))
    announced: list[UUID] = []
    renewed: list[UUID] = []

    async def announce(key_id: UUID) -> None:
        announced.append(key_id)

    async def run() -> None:
        async with AsyncKme(fake.server.address, **fake.files) as kme:
            async with kme.session("sae-b", rekey=0.05, announce=announce) as session:
                enough = asyncio.Event()

                def renew(key: Key) -> None:
                    renewed.append(key.id)
                    if key.id == IDS[3]:
                        enough.set()

                session.on_rekey(renew)
                await asyncio.wait_for(enough.wait(), 5)
                last = session.current
            assert last.wiped

    asyncio.run(run())
    assert announced == IDS[1:4]
    assert renewed == IDS[2:4]


def test_a_session_outside_a_with_block_has_no_key(fake: Fake) -> None:
    with Kme(fake.server.address, **fake.files) as kme:
        session = kme.session("sae-b", announce=print)
        with pytest.raises(RuntimeError, match="has not begun"):
            _ = session.current
        with pytest.raises(ValueError, match=r"rekey = 0: must be 0\.05 s or more"):
            kme.session("sae-b", rekey=0, announce=print)
