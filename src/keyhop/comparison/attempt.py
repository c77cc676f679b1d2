"""One run as a worker does it: found by names, so that any process with the same code can."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from importlib import import_module

import msgspec

from keyhop.comparison.case import Case, Row
from keyhop.comparison.version import code_version

RUNNER = "keyhop.comparison.runner:run_case"
"""What performs a case unless somebody names another."""
ERROR_CHARACTERS = 400
THREAD_LIMITS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""One run, one thread: the workers are as many as the cores."""


class Task(msgspec.Struct, frozen=True):
    case: Case
    runner: str
    """module:function, which takes a Case and gives its Row"""
    version: str
    """Of the code that the whole sweep must have."""


class Result(msgspec.Struct, frozen=True):
    task: Task
    line: bytes = b""
    """The row; empty if there is none."""
    error: str = ""
    seconds: float = 0.0
    """What it took on the clock."""


class RunnerError(ValueError):
    """The named function cannot be had."""


def runner(name: str) -> Callable[[Case], Row]:
    """Raises RunnerError."""
    module, colon, attribute = name.partition(":")
    try:
        found = getattr(import_module(module), attribute) if colon else None
    except (ImportError, AttributeError) as error:
        raise RunnerError(f"{name} cannot be loaded: {error}") from None
    if not callable(found):
        raise RunnerError(f"{name} is no function: write module:function")
    return found  # type: ignore[no-any-return]


def attempt(task: Task) -> Result:
    """Never raises: a design that stumbles over one case shall not end the sweep."""
    if code_version() != task.version:
        return Result(task, error=f"this worker has the code {code_version()}, the sweep {task.version}")
    limit_threads()
    begun = time.perf_counter()
    try:
        row = runner(task.runner)(task.case)
        if row.case != task.case:
            raise RunnerError(f"{task.runner} gave a row of another case: {row.case}")
        return Result(task, line=row.line(), seconds=time.perf_counter() - begun)
    except Exception as error:
        text = f"{type(error).__name__}: {error}"[:ERROR_CHARACTERS]
        return Result(task, error=text, seconds=time.perf_counter() - begun)


def limit_threads() -> None:
    """Before the runner loads numerical libraries, which look once."""
    for name in THREAD_LIMITS:
        os.environ[name] = "1"
