"""Where key must not be: a scenario of four real nodes with faults, and a search for every key in all they left behind.

Invariants I8 (a relay keeps nothing) and I9 (no piece of eight bytes of any key outside the answers that supply it).
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import resource
import signal
import ssl
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from leak_search import PIECE_BYTES, Leaks, as_integer_digits
from programs import end_all_in, keyhop, until
from small_labs import emulated, exchange, heard, kill, kme, link_place, make, process_of

from keyhop import Key, KeyhopError
from keyhop.daemon import linkkey
from keyhop.emulator import control, module
from keyhop.emulator import lab as labs
from keyhop.emulator.control import Fault, FaultName
from keyhop.emulator.lab import Lab
from keyhop.wire import manage

pytestmark = pytest.mark.emulation

NET = """apiVersion: keyhop/v1
name: line
nodes:
  a: {sae: [sae-a]}
  b: {sae: [sae-b]}
  c: {}
  d: {sae: [sae-d]}
links:
  - {id: ab, ends: [a, b], length: 25 km, rate: 40 kbps}
  - {id: bc, ends: [b, c], length: 25 km, rate: 40 kbps}
  - {id: cd, ends: [c, d], length: 25 km, rate: 40 kbps}
"""
RELAYS = ("b", "c")
QUIET_S = 2.5
"""Delivered bits are overwritten within a second, batches under way are done in a fraction of one."""
MEMORY_PIECE_BYTES = 16


@dataclass
class Evidence:
    """What the scenario left behind, by where it was found."""

    place: Path
    lab: Lab
    files: dict[str, bytes] = field(default_factory=dict)
    """Moment and path below the place -> content."""
    answers: dict[str, bytes] = field(default_factory=dict)
    """Refusals of the 014 door, with their heads."""
    apis: dict[str, bytes] = field(default_factory=dict)
    """Node -> all that its manage address said."""
    events: dict[str, bytes] = field(default_factory=dict)
    outputs: dict[str, bytes] = field(default_factory=dict)
    """Of commands."""
    processes: dict[str, bytes] = field(default_factory=dict)
    """Command lines and environments."""
    keys: list[Key] = field(default_factory=list)
    """All that were delivered."""
    global_keys: list[Key] = field(default_factory=list)
    """Those of them that crossed the relay nodes."""
    first_contacts: list[bytes] = field(default_factory=list)
    memory: dict[str, list[str]] = field(default_factory=dict)
    """Relay node and moment -> places in its memory where a global key lies."""
    memory_unread: str = ""
    aborted: int = 0
    """How the kernel says that the aborted node ended: CLD_KILLED or CLD_DUMPED."""
    core_limits: dict[str, str] = field(default_factory=dict)


# --- the scenario -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def evidence(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Evidence]:
    place = tmp_path_factory.mktemp("leaks")
    (place / "tmp").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(place / "tmp"))
        lab = make(place, NET, node_files=lambda text: text + "log: {level: debug}\n")
        evidence = Evidence(place, lab)
        usual, most = resource.getrlimit(resource.RLIMIT_CORE)
        try:
            # As a careless operator has it: only the node itself forbids a core.
            resource.setrlimit(resource.RLIMIT_CORE, (most, most))
            play(evidence)
        finally:
            resource.setrlimit(resource.RLIMIT_CORE, (usual, most))
            labs.stop(labs.open_lab(lab.directory))
            end_all_in(place)
        take_files(evidence, "end")
        yield evidence


def play(evidence: Evidence) -> None:
    lab = evidence.lab
    read_first_contacts(evidence)
    labs.start(lab)
    readers = [EventReader(lab.node(node.id).manage) for node in lab.state.nodes]
    deliver(evidence, 20)
    ask_wrongly(evidence)
    time.sleep(QUIET_S)
    look_into_memory(evidence, "after the relay")
    take_files(evidence, "running")
    ask_apis(evidence, "running")
    take_processes(evidence)

    show_faults(evidence)
    kill(lab, "b")
    ask_without_path(evidence)
    labs.restart_node(lab, "b")
    fill_the_audit_log(evidence)
    deliver(evidence, 10)
    time.sleep(QUIET_S)
    look_into_memory(evidence, "after faults and restarts")
    ask_apis(evidence, "after faults")
    take_outputs(evidence)
    abort(evidence, "c")
    for node, reader in zip(lab.state.nodes, readers, strict=True):
        evidence.events[node.id] = bytes(reader.said)


def read_first_contacts(evidence: Evidence) -> None:
    for path in sorted(evidence.lab.directory.rglob("first-contact-*.key")):
        evidence.first_contacts.append(bytes(linkkey.read(path).secret))


def deliver(evidence: Evidence, count: int) -> None:
    """Over the relays in both directions, short keys and long ones; over one link; some that nobody fetches."""
    lab = evidence.lab
    over_relays = exchange(lab, "sae-a", "sae-d", count)
    over_relays += exchange(lab, "sae-d", "sae-a", count)
    over_relays += exchange(lab, "sae-a", "sae-d", 2, size=2048)
    with kme(lab, "sae-a") as near:
        over_relays += near.get_keys("sae-d", n=4, wait=10)
    evidence.global_keys += over_relays
    evidence.keys += over_relays + exchange(lab, "sae-a", "sae-b", count)


class EventReader:
    """Reads the event stream of a node until the node ends."""

    def __init__(self, address: str) -> None:
        self.said = bytearray()
        self._address = address
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        host, port = self._address.rsplit(":", 1)
        while True:
            connection = http.client.HTTPConnection(host, int(port), timeout=30)
            try:
                connection.request("GET", manage.EVENTS_PATH)
                answer = connection.getresponse()
                while line := answer.readline():
                    self.said += line
            except (OSError, http.client.HTTPException):
                # The node is down: it may come back.
                time.sleep(0.3)
            finally:
                connection.close()


def ask_wrongly(evidence: Evidence) -> None:
    """Requests with something wrong in them, some of which carry the key itself where its name belongs."""
    lab, key = evidence.lab, evidence.global_keys[0]
    text = base64.b64encode(key.reveal()).decode()
    in_url = base64.urlsafe_b64encode(key.reveal()).decode()
    own, wanted = "/api/v1/keys/sae-d", json.dumps({"key_IDs": [{"key_ID": str(key.id)}]})
    as_number = int.from_bytes(key.reveal(), "big")
    requests = {
        "unknown application": ("sae-a", "a", "GET", "/api/v1/keys/sae-x/enc_keys", None),
        "unknown path": ("sae-a", "a", "GET", "/api/v2/keys", None),
        "wrong method": ("sae-a", "a", "DELETE", f"{own}/enc_keys", None),
        "wrong size": ("sae-a", "a", "GET", f"{own}/enc_keys?size=7", None),
        "too many": ("sae-a", "a", "GET", f"{own}/enc_keys?number=100000", None),
        "no JSON": ("sae-a", "a", "POST", f"{own}/enc_keys", "{"),
        "unknown extension": (
            "sae-a", "a", "POST", f"{own}/enc_keys", '{"extension_mandatory": [{"x": 1}]}',
        ),
        "an id fetched before": ("sae-d", "d", "POST", "/api/v1/keys/sae-a/dec_keys", wanted),
        "an id of somebody else": ("sae-b", "b", "POST", "/api/v1/keys/sae-a/dec_keys", wanted),
        "a wrong master": ("sae-d", "d", "POST", "/api/v1/keys/sae-b/dec_keys", wanted),
        "at a relay": ("sae-a", "c", "GET", f"{own}/enc_keys", None),
        "at another node": ("sae-a", "b", "POST", "/api/v1/keys/sae-a/dec_keys", wanted),
        "a key as its own id": ("sae-d", "d", "GET", f"/api/v1/keys/sae-a/dec_keys?key_ID={in_url}", None),
        "a key in a body": (
            "sae-d", "d", "POST", "/api/v1/keys/sae-a/dec_keys", json.dumps({"key_IDs": [{"key_ID": text}]}),
        ),
        "keys sent back": (
            "sae-d", "d", "POST", "/api/v1/keys/sae-a/dec_keys",
            json.dumps({"keys": [{"key_ID": str(key.id), "key": text}]}),
        ),
        "a key after broken JSON": ("sae-d", "d", "POST", "/api/v1/keys/sae-a/dec_keys", f'{{"key": "{text}"'),
        "a key as an extension": (
            "sae-a", "a", "POST", f"{own}/enc_keys", json.dumps({"extension_mandatory": [{"seed": text}]}),
        ),
        "a key as a number": ("sae-a", "a", "GET", f"{own}/enc_keys?number={as_number}", None),
        "a key as a size": ("sae-a", "a", "POST", f"{own}/enc_keys", json.dumps({"size": text})),
    }  # fmt: skip
    for name, (application, node, method, path, body) in requests.items():
        status, said = ask(lab, application, node, method, path, body)
        assert status >= 400, f"{name}: {status}"
        evidence.answers[name] = said


def ask(lab: Lab, application: str, node: str, method: str, path: str, body: str | None = None) -> tuple[int, bytes]:
    """One request of an application to any node: status, and all that came back."""
    issued, authority = lab.credentials(application)
    context = ssl.create_default_context(cafile=str(authority))
    context.load_cert_chain(issued.certificate, issued.key)
    host, port = lab.node(node).etsi014.rsplit(":", 1)
    connection = http.client.HTTPSConnection(host, int(port), timeout=10, context=context)
    try:
        headers = {} if body is None else {"Content-Type": "application/json"}
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        return answer.status, f"{answer.status} {answer.reason}\n{answer.headers}".encode() + answer.read()
    finally:
        connection.close()


def ask_without_path(evidence: Evidence) -> None:
    with kme(evidence.lab, "sae-a") as near:
        try:
            while True:
                key = near.get_key("sae-d", size=8192)
                evidence.keys.append(key)
        except KeyhopError as error:
            evidence.answers["no path"] = f"{error!r} {error} {error.details}".encode()


def show_faults(evidence: Evidence) -> None:
    """One end gives other bits than the other: the block is destroyed, and an alarm tells of it."""
    lab = evidence.lab
    for link, name, node in (("ab", FaultName.FLIPPED_BIT, "a"), ("bc", FaultName.DUPLICATE_AFTER_RESTART, "b")):
        first = emulated(lab, link).next_number(time.monotonic_ns()) + 1
        control.add_fault(lab.directory, link, Fault(name=name, number=first, count=2))
        code = "KH-1103" if name is FaultName.FLIPPED_BIT else "KH-1102"
        until(lambda node=node, code=code: heard(lab, node, code), 10.0, f"{name} at {node}")
        control.clear_faults(lab.directory, link)


def fill_the_audit_log(evidence: Evidence) -> None:
    """Node a with an audit log on a full disk: it serves nothing, and says so without a key."""
    lab, config = evidence.lab, evidence.lab.config("a")
    usual = config.read_text()
    kill(lab, "a", signal.SIGTERM)
    config.write_text(usual.replace("audit.jsonl", "/dev/full"))
    assert config.read_text() != usual
    labs.restart_node(lab, "a")

    def refused() -> bool:
        status, said = ask(lab, "sae-a", "a", "GET", "/api/v1/keys/sae-b/enc_keys")
        evidence.answers["full audit"] = said
        return status == 503 and b"audit" in said

    until(refused, 10.0, "the refusal of a node without an audit log")
    kill(lab, "a", signal.SIGTERM)
    config.write_text(usual)
    labs.restart_node(lab, "a")


def ask_apis(evidence: Evidence, moment: str) -> None:
    for node in evidence.lab.state.nodes:
        said = bytearray()
        host, port = node.manage.rsplit(":", 1)
        for path in (
            manage.HEALTH_PATH, manage.READY_PATH, manage.METRICS_PATH, manage.OPENAPI_PATH, manage.STATUS_PATH,
            manage.LINKS_PATH, manage.link_path("ab"), manage.link_path("bc"), manage.POOLS_PATH,
            manage.pool_path("a"), manage.pool_path("d"), manage.ROUTES_PATH, manage.route_path("a", "d"),
            manage.APPLICATIONS_PATH, manage.application_path("sae-a"), manage.ALARMS_PATH, "/api/v1/nothing",
        ):  # fmt: skip
            connection = http.client.HTTPConnection(host, int(port), timeout=10)
            connection.request("GET", path)
            answer = connection.getresponse()
            said += str(answer.headers).encode() + answer.read()
            connection.close()
        evidence.apis[f"{node.id} {moment}"] = bytes(said)


def take_files(evidence: Evidence, moment: str) -> None:
    """All files of the lab, what was sent to temporary places, and where a core would lie."""
    for path in sorted(evidence.place.rglob("*")):
        if path.is_file() and not path.is_symlink():
            evidence.files[f"{moment}: {path.relative_to(evidence.place)}"] = path.read_bytes()


def take_processes(evidence: Evidence) -> None:
    for node in evidence.lab.state.nodes:
        directory = Path(f"/proc/{process_of(evidence.lab, node.id).pid}")
        evidence.processes[node.id] = (directory / "cmdline").read_bytes() + (directory / "environ").read_bytes()
        limits = (directory / "limits").read_text().splitlines()
        evidence.core_limits[node.id] = next(line for line in limits if line.startswith("Max core file size"))


def take_outputs(evidence: Evidence) -> None:
    for words in (
        ("status", "-o", "json"),
        ("link", "list"),
        ("pool", "list", "-o", "yaml"),
        ("lab", "inspect", "-o", "json"),
        ("key", "status", "sae-d", "--from", "sae-a"),
        ("ping", "sae-d", "--from", "sae-a", "-c", "2"),
        ("-v", "key", "get", "sae-d", "--from", "sae-a", "-n", "2"),
    ):
        done = keyhop(evidence.lab.directory, *words)
        evidence.outputs[" ".join(words)] = (done.stdout + done.stderr).encode()


def abort(evidence: Evidence, node: str) -> None:
    """As a bug in a library would."""
    pid = process_of(evidence.lab, node).pid
    os.kill(pid, signal.SIGABRT)
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None and ended.si_status == signal.SIGABRT
    evidence.aborted = ended.si_code


# --- memory ---------------------------------------------------------------------------------------------------------


def look_into_memory(evidence: Evidence, moment: str) -> None:
    secrets = [key.reveal() for key in evidence.global_keys]
    leaks = Leaks(secrets + [image for secret in secrets for image in as_integer_digits(secret)])
    try:
        for node in RELAYS:
            evidence.memory[f"{node} {moment}"] = search_memory(process_of(evidence.lab, node).pid, leaks, secrets)
    except PermissionError as error:
        evidence.memory_unread = f"memory of a node cannot be read: {error}"


def search_memory(pid: int, leaks: Leaks, secrets: list[bytes]) -> list[str]:
    """Places in all that the process can write to where 16 bytes or more of a secret lie."""
    found = []
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory, open(f"/proc/{pid}/maps") as maps:
        for line in maps:
            span, mode, _, _, _, *name = line.split()
            start, end = (int(edge, 16) for edge in span.split("-"))
            if not mode.startswith("rw") or name == ["[vvar]"]:
                continue
            memory.seek(start)
            content = b""
            while len(content) < end - start and (part := memory.read(end - start - len(content))):
                content += part
            for at in leaks.search_memory(content):
                around = content[max(0, at - MEMORY_PIECE_BYTES) : at + PIECE_BYTES + MEMORY_PIECE_BYTES]
                found.append(f"{start + at:x} in {name or 'anonymous memory'}: {kind(around, secrets)}")
    return found


def kind(around: bytes, secrets: list[bytes]) -> str:
    """Where a key is found, the report says in which form, but not the key."""
    for number, secret in enumerate(secrets):
        for at in range(len(secret) - MEMORY_PIECE_BYTES + 1):
            if secret[at : at + MEMORY_PIECE_BYTES] in around:
                return f"key {number} from byte {at}"
    return "a key as digits of a Python integer"


# --- what must not be found ---------------------------------------------------------------------------------------


def link_bits(lab: Lab, link: str) -> bytes:
    """All key that the emulated modules of a link have made: AES-256-CTR under the secret of the link, by block."""
    described = emulated(lab, link)
    secret = (link_place(lab, link) / module.SECRET_FILE).read_bytes()
    made = bytearray()
    for number in range(described.next_number(time.monotonic_ns()) + 2):
        length = module.PREFILL_BLOCK_BYTES if number < described.prefill_blocks else described.block_bytes
        encryptor = Cipher(algorithms.AES(secret), modes.CTR(number.to_bytes(8, "big") + bytes(8))).encryptor()
        made += encryptor.update(bytes(length))
    return bytes(made)


@pytest.fixture(scope="module")
def leaks(evidence: Evidence) -> Leaks:
    lab = evidence.lab
    secrets = [key.reveal() for key in evidence.keys]
    secrets += [link_bits(lab, link.id) for link in lab.state.links]
    secrets += evidence.first_contacts
    secrets += [(link_place(lab, link.id) / module.SECRET_FILE).read_bytes() for link in lab.state.links]
    secrets += [(lab.config(node.id).parent / "node.key").read_bytes() for node in lab.state.nodes]
    return Leaks(secrets)


def must_hold_no_key(leaks: Leaks, things: dict[str, bytes]) -> None:
    assert things
    found = {name: leaks.search(content)[:3] for name, content in things.items()}
    assert {name: places for name, places in found.items() if places} == {}


def test_the_scenario_was_what_it_should_be(evidence: Evidence, leaks: Leaks) -> None:
    assert len(evidence.global_keys) >= 60
    assert len(evidence.keys) > len(evidence.global_keys)
    assert len(evidence.first_contacts) == 6
    # Link key of local keys is what the modules made: the search knows where supplied keys come from.
    assert leaks.search(evidence.keys[-1].reveal())
    link_key = Leaks([link_bits(evidence.lab, "ab")])
    with_neighbour = [key for key in evidence.keys if key not in evidence.global_keys]
    assert any(link_key.search(key.reveal()) for key in with_neighbour)
    # Global key of `a` is the first link's own.
    assert any(link_key.search(key.reveal()) for key in evidence.global_keys)
    logs = {name: text for name, text in evidence.files.items() if name.endswith("/log")}
    assert len(logs) == 8
    # A call of a neighbour that is not there yet is told at debug level only.
    assert any(b'"level": "debug"' in text for text in logs.values())
    assert all(len(said) > 1000 for said in evidence.apis.values())
    assert all(b"event: " in said or b"data: " in said for said in evidence.events.values())


@pytest.mark.parametrize(
    "form",
    [
        lambda piece: b"key " + piece + b" end",
        lambda piece: piece[::-1],
        lambda piece: piece.hex().encode(),
        lambda piece: b"0x" + piece.hex().upper().encode(),
        lambda piece: piece.hex(" ").encode(),
        lambda piece: b"x" + piece.hex(":").encode(),
        lambda piece: b'"' + base64.b64encode(b"1" + piece) + b'"',
        lambda piece: base64.b64encode(b"22" + piece + b"3"),
        lambda piece: base64.urlsafe_b64encode(piece),
        lambda piece: b"abc" + base64.b64encode(piece),
        lambda piece: str(list(piece)).encode(),
        lambda piece: ",".join(map(str, piece)).encode(),
        lambda piece: " ".join(map(str, piece[::-1])).encode(),
        lambda piece: str(int.from_bytes(b"\1" + piece, "big")).encode(),
        lambda piece: repr(b"\1" + piece + b"\n").encode(),
        lambda piece: json.dumps(piece.decode("latin-1")).encode(),
    ],
)
def test_the_search_finds_a_planted_piece_in_every_form(form: object) -> None:
    for _ in range(50):
        secret = os.urandom(64)
        piece = secret[19 : 19 + PIECE_BYTES]
        planted = os.urandom(5) + b" before " + form(piece) + b" after"  # type: ignore[operator]
        assert Leaks([os.urandom(100), secret]).search(planted), planted
        assert not Leaks([os.urandom(164)]).search(planted)


def test_no_key_is_in_a_log(evidence: Evidence, leaks: Leaks) -> None:
    must_hold_no_key(leaks, {name: text for name, text in evidence.files.items() if name.endswith("/log")})


def test_no_key_is_in_a_refusal_even_of_a_request_that_carried_one(evidence: Evidence, leaks: Leaks) -> None:
    must_hold_no_key(leaks, evidence.answers)


def test_no_key_is_in_metrics_or_in_an_answer_of_the_node_api(evidence: Evidence, leaks: Leaks) -> None:
    must_hold_no_key(leaks, evidence.apis)


def test_no_key_is_in_the_event_stream(evidence: Evidence, leaks: Leaks) -> None:
    must_hold_no_key(leaks, evidence.events)


def test_no_key_is_in_what_commands_print(evidence: Evidence, leaks: Leaks) -> None:
    must_hold_no_key(leaks, evidence.outputs)


def test_no_key_is_in_a_command_line_or_an_environment(evidence: Evidence, leaks: Leaks) -> None:
    must_hold_no_key(leaks, evidence.processes)


def test_no_key_is_in_any_file_but_those_that_must_hold_it(evidence: Evidence, leaks: Leaks) -> None:
    holders = {
        # Stands for the quantum channel: whoever reads it has all key of that emulated link.
        *{f"{moment}: lab/links/{link}/secret" for moment in ("running", "end") for link in ("ab", "bc", "cd")},
        # Unseals the store; in the field a credential of the service manager.
        *{f"{moment}: lab/nodes/{node}/node.key" for moment in ("running", "end") for node in "abcd"},
    }
    for name in holders:
        assert leaks.search(evidence.files[name]), f"{name} is no exception any more"
    others = {name: content for name, content in evidence.files.items() if name not in holders}
    for expected in ("store/node.db", "store/node.db-wal", "slots", "anchor", "audit.jsonl", "first-contact-b.key"):
        assert any(name.startswith("running") and expected in name for name in others), f"{expected} was not searched"
    must_hold_no_key(leaks, others)


def test_nothing_is_left_in_temporary_places(evidence: Evidence) -> None:
    assert [name for name in evidence.files if ": tmp/" in name] == []


def test_a_relay_keeps_no_piece_of_a_global_key_in_memory(evidence: Evidence) -> None:
    if evidence.memory_unread:
        if os.geteuid() == 0:
            pytest.fail(evidence.memory_unread)
        pytest.skip(f"{evidence.memory_unread}; nodes forbid it to all but root (PR_SET_DUMPABLE)")
    assert len(evidence.memory) == 2 * len(RELAYS)
    assert {moment: places for moment, places in evidence.memory.items() if places} == {}


def test_the_memory_search_finds_a_key_in_a_process(tmp_path: Path) -> None:
    """This very process holds it: else an empty result above would mean nothing."""
    secret = os.urandom(32)
    held = bytearray(100) + secret
    leaks = Leaks([secret])
    assert any("key 0 from byte" in place for place in search_memory(os.getpid(), leaks, [secret]))
    assert held[-32:] == secret
    number = int.from_bytes(b"\3" * 50 + secret + b"\5" * 21, "little")
    digits = Leaks(as_integer_digits(secret))
    assert search_memory(os.getpid(), digits, [])
    assert number


def test_a_node_that_is_aborted_leaves_no_core(evidence: Evidence) -> None:
    assert evidence.aborted == os.CLD_KILLED, "the kernel says that it dumped the core"
    assert all(limit.split()[-3:] == ["0", "0", "bytes"] for limit in evidence.core_limits.values())
    assert [name for name in evidence.files if "core" in Path(name).name] == []
