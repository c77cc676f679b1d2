"""How a store fails: every way a disk can refuse becomes a StoreError, and after one nothing happens any more."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from keyhop.core.node.store import Damaged, StoreError


class Guard:
    def __init__(self, path: Path) -> None:
        self._path = path
        self.failure = ""
        """Why nothing can be done; empty when all is well."""

    @contextmanager
    def __call__(self, doing: str) -> Iterator[None]:
        """Around all that touches the disk: `doing` completes the words "cannot ..."."""
        if self.failure:
            raise StoreError(self.failure)
        try:
            yield
        except StoreError as error:
            # Whoever raised it need not know which store of how many it was.
            text = str(error)
            self.failure = text if str(self._path) in text else f"{self._path}: {text}"
            raise type(error)(self.failure) from error.__cause__
        except Exception as error:
            failure = self._explain(error, doing)
            self.failure = str(failure)
            raise failure from error
        except BaseException:
            self.failure = f"{self._path} was interrupted"
            raise

    def _explain(self, error: Exception, doing: str) -> StoreError:
        if isinstance(error, sqlite3.Error):
            code = getattr(error, "sqlite_errorcode", None)
            name = getattr(error, "sqlite_errorname", None) or type(error).__name__
            if code is not None and code & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                return Damaged(f"{self._path} is damaged: {error} ({name})")
            return StoreError(f"{self._path} cannot {doing}: {error} ({name})")
        if isinstance(error, OSError):
            return StoreError(f"{self._path} cannot {doing}: {error.strerror or error}")
        return StoreError(f"{self._path} cannot {doing}: {type(error).__name__}")
