"""Asking nodes on their manage addresses, and what their refusals mean to a command."""

from __future__ import annotations

import http.client
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import msgspec

from keyhop.cli.output import ExitCode, Failure, fail, say
from keyhop.cli.settings import settings
from keyhop.files.places import Address
from keyhop.wire import manage

if TYPE_CHECKING:
    from keyhop.emulator.lab import Lab

ADDRESS_VARIABLE = "KEYHOP_MANAGE"
DEFAULT_ADDRESS = "127.0.0.1:8500"
TIMEOUT_S = 5.0
ANSWER_LIMIT_BYTES = 16 * 1024 * 1024
ASKED_AT_ONCE = 16

AnswerT = TypeVar("AnswerT", bound=manage.Answer)


class Target(NamedTuple):
    node: str
    """Empty where only the address is known."""
    address: str


def targets() -> list[Target]:
    """Whom the command means: `--address`, the environment, all nodes of a lab around here, or the usual address."""
    given = settings().address or (None if settings().lab else os.environ.get(ADDRESS_VARIABLE))
    if given:
        return [Target("", _checked(given))]
    directory = lab_directory()
    if directory is None:
        return [Target("", DEFAULT_ADDRESS)]
    lab = open_lab(directory)
    return [Target(node.id, node.manage) for node in lab.state.nodes]


def lab_directory() -> Path | None:
    from keyhop.emulator.lab import find_lab

    return settings().lab or find_lab(Path.cwd())


def open_lab(directory: Path) -> Lab:
    from keyhop.emulator.lab import LabError, NoLabError
    from keyhop.emulator.lab import open_lab as load

    try:
        return load(directory)
    except LabError as error:
        missing = isinstance(error, NoLabError)
        fail(error.what, "", error.next_step, ExitCode.NO_SUCH_THING if missing else ExitCode.FAILED)


def _checked(address: str) -> str:
    bare = address.removeprefix("http://").rstrip("/")
    try:
        return str(Address.from_text(bare))
    except ValueError:
        fail(f"{address!r} is no address", "", f"write {Address.FORM}", ExitCode.USAGE)


def ask(target: Target, path: str, kind: type[AnswerT], said: object = None) -> AnswerT:
    """GET, or POST of what is said, as JSON. Raises Failure with the exit code for what went wrong."""
    found = Address.from_text(target.address)
    connection = http.client.HTTPConnection(found.host, found.port, timeout=TIMEOUT_S)
    try:
        if said is None:
            connection.request("GET", path, headers={"Accept": "application/json"})
        else:
            connection.request("POST", path, msgspec.json.encode(said), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        body = answer.read(ANSWER_LIMIT_BYTES + 1)
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        name = f"node {target.node}" if target.node else "the node"
        fail(f"{name} does not answer on {target.address}", reason, _how_to_reach(target), ExitCode.UNREACHABLE)
    finally:
        connection.close()
    if answer.status != 200:
        raise _refused(target, path, answer.status, body)
    try:
        if len(body) > ANSWER_LIMIT_BYTES:
            raise manage.ManageFormatError(f"longer than {ANSWER_LIMIT_BYTES} bytes")
        return manage.decode(kind, body)
    except manage.ManageFormatError as error:
        what = f"http://{target.address}{path} gives no answer this version reads"
        fail(what, str(error), "compare: keyhop version, keyhop status", ExitCode.REFUSED)


def ask_all(path: str, kind: type[AnswerT]) -> list[tuple[Target, AnswerT]]:
    """From every target that answers, and word of those that do not; fails if none does."""
    answers, failures = try_all(lambda target: ask(target, path, kind))
    if not answers:
        raise failures[0][1]
    for target, failure in failures:
        say(f"missing here: {target.node or target.address} ({failure.what})")
    return answers


ResultT = TypeVar("ResultT")


def try_all(
    question: Callable[[Target], ResultT],
) -> tuple[list[tuple[Target, ResultT]], list[tuple[Target, Failure]]]:
    """The same question to every target at once: answers and failures, in the order of the targets."""
    asked = targets()
    if settings().verbose:
        say(f"asking {', '.join(target.address for target in asked)}")
    answers: list[tuple[Target, ResultT]] = []
    failures: list[tuple[Target, Failure]] = []
    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        futures = [pool.submit(question, target) for target in asked]
    for target, future in zip(asked, futures, strict=True):
        try:
            answers.append((target, future.result()))
        except Failure as failure:
            failures.append((target, failure))
    return answers, failures


def find(
    paths: Callable[[Target], list[str]], kind: type[AnswerT], what: str, list_command: str
) -> tuple[Target, AnswerT]:
    """The first target that knows one of its paths; fails with exit 5 if all say there is no such thing."""
    missing: Failure | None = None
    for target in targets():
        for path in paths(target):
            try:
                return target, ask(target, path, kind)
            except Failure as failure:
                if missing is None or failure.exit_code != ExitCode.NO_SUCH_THING:
                    missing = failure
    if missing is None or missing.exit_code == ExitCode.NO_SUCH_THING:
        fail(f"no such {what}", "", f"see: {list_command}", ExitCode.NO_SUCH_THING)
    raise missing


def _how_to_reach(target: Target) -> str:
    if target.node:
        return "start the lab again, or see: keyhop lab inspect"
    if target.address == DEFAULT_ADDRESS:
        return f"give --address HOST:PORT, set {ADDRESS_VARIABLE}, or start a lab: keyhop lab up secoqc"
    return f"is it running? give --address HOST:PORT, or set {ADDRESS_VARIABLE}"


def _refused(target: Target, path: str, status: int, body: bytes) -> Failure:
    try:
        problem = manage.decode(manage.Problem, body)
    except manage.ManageFormatError:
        problem = manage.Problem(message=f"http://{target.address}{path} answered {status}")
    codes = {
        401: ExitCode.NOT_AUTHORISED,
        403: ExitCode.NOT_AUTHORISED,
        404: ExitCode.NO_SUCH_THING,
        400: ExitCode.USAGE,
    }
    next_step = problem.next or "see: keyhop status"
    return Failure(problem.message, "", next_step, codes.get(status, ExitCode.REFUSED), problem.code)
