"""The node asked here is a small HTTP server that answers with bytes of the test."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from keyhop.emulator import inspection, processes
from keyhop.emulator.inspection import NoAnswer
from keyhop.emulator.lab import Lab, LabNode, LabState
from keyhop.emulator.processes import Process
from keyhop.wire import manage

LINK = manage.Link(id="a-b", ends=("a", "b"), peer="b", state=manage.LinkState.UP)
DOWN = msgspec.structs.replace(LINK, state=manage.LinkState.DOWN, reason="no light: the fibre is cut")


class Node:
    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes]] = {}
        node = self

        class Door(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, body = node.answers.get(self.path, (404, b"{}"))
                self.send_response(status)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *words: object) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Door)
        self.address = f"127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True, kwargs={"poll_interval": 0.01}).start()


@pytest.fixture
def node() -> Iterator[Node]:
    node = Node()
    yield node
    node.server.shutdown()
    node.server.server_close()


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[Process]:
    process = processes.spawn(["sleep", "60"], tmp_path / "sleep.log")
    yield process
    processes.stop([process])


def lab(directory: Path, *nodes: LabNode) -> Lab:
    return Lab(directory, LabState(name="t", made_at=datetime.now(UTC), epoch_ns=0, nodes=nodes, links=()))


def lab_node(name: str, address: str, process: Process | None) -> LabNode:
    return LabNode(id=name, etsi014="127.0.0.1:1", peer="127.0.0.1:1", manage=address, process=process)


def test_a_node_that_lives_and_is_ready_is_up_with_its_links(node: Node, lives: Process, tmp_path: Path) -> None:
    node.answers = {
        "/readyz": (200, b"{}"),
        manage.LINKS_PATH: (200, manage.encode(manage.LinksAnswer(links=(LINK,)))),
    }
    (view,) = inspection.look(lab(tmp_path, lab_node("a", node.address, lives)))
    assert (view.state, view.reason, view.links) == ("up", "", (LINK,))


def test_a_node_that_lives_and_is_not_ready_is_starting_and_says_why(
    node: Node, lives: Process, tmp_path: Path
) -> None:
    node.answers = {
        "/readyz": (503, b'{"reasons": ["store is sealed"]}'),
        manage.LINKS_PATH: (200, manage.encode(manage.LinksAnswer(links=()))),
    }
    (view,) = inspection.look(lab(tmp_path, lab_node("a", node.address, lives)))
    assert view.state == "starting"
    assert "store is sealed" in view.reason


def test_a_node_that_ended_is_dead_and_one_that_was_taken_down_is_down(tmp_path: Path) -> None:
    ended = Process(pid=2**22 + 1, birth_ticks=1)
    views = inspection.look(lab(tmp_path, lab_node("a", "127.0.0.1:1", ended), lab_node("b", "127.0.0.1:1", None)))
    assert [(view.node.id, view.state) for view in views] == [("a", "dead"), ("b", "down")]
    assert "node a" in views[0].reason


def test_trouble_that_one_end_sees_is_shown(node: Node) -> None:
    first = inspection.NodeView(lab_node("a", node.address, None), "up", "", (LINK,))
    second = inspection.NodeView(lab_node("b", node.address, None), "up", "", (DOWN,))
    assert inspection.links_seen([first, second]) == {"a-b": DOWN}
    assert inspection.links_seen([second, first]) == {"a-b": DOWN}


@pytest.mark.parametrize(
    ("status", "body", "complaint"),
    [(503, b"{}", "answers 503"), (200, b"<html>", "not a LinksAnswer"), (200, b'{"links": 7}', "not a LinksAnswer")],
)
def test_an_answer_that_is_none_is_refused_and_names_the_address(
    node: Node, status: int, body: bytes, complaint: str
) -> None:
    node.answers[manage.LINKS_PATH] = (status, body)
    with pytest.raises(NoAnswer, match=complaint) as refusal:
        inspection.ask(node.address, manage.LINKS_PATH, manage.LinksAnswer)
    assert node.address in str(refusal.value)


def test_a_node_nobody_answers_for_is_no_answer_not_a_crash() -> None:
    with pytest.raises(NoAnswer, match="refused"):
        inspection.ask("127.0.0.1:1", manage.LINKS_PATH, manage.LinksAnswer)
