"""A node may have as many files open as its file asks for, or says at its start that it may not."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from keyhop.daemon import openfiles
from keyhop.daemon.assembly import StartError
from keyhop.daemon.configuration import (
    AnchorEntry,
    Limits,
    LinkEntry,
    Listeners,
    NodeEntry,
    NodeFile,
    PeerListener,
    StoreEntry,
    SupplyListener,
)
from keyhop.files import Address, Source

ADDRESS = Address("127.0.0.1", 1)
KEY = Source("file", "key")
CONNECTIONS, LINKS = 100, 2
NEEDED = CONNECTIONS + openfiles.OTHER_FILES + LINKS * openfiles.FILES_PER_LINK


def node_file() -> NodeFile:
    return NodeFile(
        api_version="keyhop/v1",
        node=NodeEntry(id="alice"),
        listen=Listeners(
            etsi014=SupplyListener(address=ADDRESS, cert=Path("c"), key=KEY, client_ca=Path("ca")),
            peer=PeerListener(address=ADDRESS, cert=Path("c"), key=KEY, client_ca=Path("ca")),
        ),
        store=StoreEntry(node_key=KEY, memory=True),
        anchor=AnchorEntry(file=Path("anchor")),
        links=tuple(LinkEntry(to=f"n{number}", driver="any", first_contact=KEY) for number in range(LINKS)),
        limits=Limits(connections=CONNECTIONS),
    )


def _limited(soft: int, hard: int, nodes: int) -> tuple[int, int] | str:
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        openfiles.allow([node_file() for _ in range(nodes)])
    except StartError as error:
        return str(error)
    return resource.getrlimit(resource.RLIMIT_NOFILE)


Start = Callable[[int, int, int], tuple[int, int] | str]


@pytest.fixture
def start() -> Start:
    """In a process of its own: a hard limit cannot be raised again."""

    def start(soft: int, hard: int, nodes: int) -> tuple[int, int] | str:
        with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
            return pool.submit(_limited, soft, hard, nodes).result()

    return start


def test_the_soft_limit_is_raised_to_what_is_configured_and_no_further(start: Start) -> None:
    assert start(128, NEEDED + 50, 1) == (NEEDED, NEEDED + 50)


def test_a_limit_that_suffices_stays_as_it_is(start: Start) -> None:
    assert start(NEEDED + 10, NEEDED + 50, 1) == (NEEDED + 10, NEEDED + 50)


def test_a_hard_limit_that_is_just_enough_is_used_up(start: Start) -> None:
    assert start(128, NEEDED, 1) == (NEEDED, NEEDED)


def test_a_node_does_not_start_that_may_not_have_its_connections_open(start: Start) -> None:
    assert start(128, NEEDED - 40, 1) == (
        f"limits.connections: 100 connections need {NEEDED} open files, the system allows {NEEDED - 40}: "
        f"raise that to {NEEDED} (LimitNOFILE= in systemd, ulimit -Hn in a shell), "
        "or set limits.connections to at most 60"
    )


def test_no_number_of_connections_is_named_where_none_would_do(start: Start) -> None:
    said = start(64, 150, 1)
    assert isinstance(said, str)
    assert said.endswith("ulimit -Hn in a shell)")


def test_nodes_that_share_a_process_take_what_there_is(start: Start) -> None:
    assert start(128, 3 * NEEDED, 3) == (3 * NEEDED, 3 * NEEDED)
    assert start(128, 3 * NEEDED - 1, 3) == (3 * NEEDED - 1, 3 * NEEDED - 1)
