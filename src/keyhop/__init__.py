"""A key management system that turns QKD links into a network that delivers keys."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from keyhop.client.asynchronous import AsyncKme, AsyncSession
    from keyhop.client.core import (
        BadRequest,
        Key,
        KeyGone,
        KeyhopError,
        NotAuthorised,
        NotEnoughKey,
        ProtocolError,
        Status,
        UnknownPeer,
        Unreachable,
    )
    from keyhop.client.sync import Kme, Session

__version__ = "0.1.0"

__all__ = [
    "AsyncKme",
    "AsyncSession",
    "BadRequest",
    "Key",
    "KeyGone",
    "KeyhopError",
    "Kme",
    "NotAuthorised",
    "NotEnoughKey",
    "ProtocolError",
    "Session",
    "Status",
    "UnknownPeer",
    "Unreachable",
    "__version__",
]

_ROOMS = {
    "AsyncKme": "asynchronous",
    "AsyncSession": "asynchronous",
    "Kme": "sync",
    "Session": "sync",
}


def __getattr__(name: str) -> Any:
    """Loads what is asked for on first use, so that `from keyhop import Kme` does without aiohttp."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"keyhop.client.{_ROOMS.get(name, 'core')}"), name)
    globals()[name] = value
    return value
