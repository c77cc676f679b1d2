"""What the nodes of a lab say about themselves, asked on their manage addresses."""

from __future__ import annotations

import http.client
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

from keyhop.emulator import processes
from keyhop.emulator.lab import Lab, LabNode
from keyhop.files import Address
from keyhop.wire import manage

TIMEOUT_S = 2.0
ANSWER_LIMIT_BYTES = 16 * 1024 * 1024
ASKED_AT_ONCE = 16

AnswerT = TypeVar("AnswerT", bound=manage.Answer)


class NoAnswer(Exception):
    """A node did not answer, or not in the language of this version."""


class NodeView(NamedTuple):
    node: LabNode
    state: str
    """`up`, `starting` (lives, not ready), `dead` (ended by itself) or `down` (taken down)."""
    reason: str = ""
    links: tuple[manage.Link, ...] = ()


def ask(address: str, path: str, kind: type[AnswerT], timeout_s: float = TIMEOUT_S) -> AnswerT:
    """One request to a node's own API. Raises NoAnswer."""
    found = Address.from_text(address)
    connection = http.client.HTTPConnection(found.host, found.port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read(ANSWER_LIMIT_BYTES)
        if answer.status != 200:
            raise NoAnswer(f"http://{address}{path} answers {answer.status}")
        return manage.decode(kind, body)
    except (OSError, http.client.HTTPException, manage.ManageFormatError) as error:
        raise NoAnswer(f"http://{address}{path}: {error}") from None
    finally:
        connection.close()


def look(lab: Lab) -> list[NodeView]:
    """All nodes, in the order of the lab, with the links that each of them reports."""
    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        return list(pool.map(lambda node: _look_at(lab, node), lab.state.nodes))


def _look_at(lab: Lab, node: LabNode) -> NodeView:
    if node.process is None:
        return NodeView(node, "down")
    if not processes.alive(node.process):
        return NodeView(node, "dead", processes.why_it_ended(node.id, node.process, lab.log(node.id)))
    address = Address.from_text(node.manage)
    ready, said = processes.probe(address.host, address.port)
    try:
        links = ask(node.manage, manage.LINKS_PATH, manage.LinksAnswer).links
    except NoAnswer as error:
        return NodeView(node, "starting", str(error))
    return NodeView(node, "up" if ready else "starting", "" if ready else said, links)


def links_seen(views: list[NodeView]) -> dict[str, manage.Link]:
    """Each link by its id as one of its ends reports it: the end that is less content, for trouble has one side."""
    worst: dict[str, manage.Link] = {}
    for view in views:
        for link in view.links:
            known = worst.get(link.id)
            if known is None or (known.state is manage.LinkState.UP and link.state is not manage.LinkState.UP):
                worst[link.id] = link
    return worst
