"""How many files and sockets the process may have open: raised to what the node files ask for, or no start."""

from __future__ import annotations

import resource
from collections.abc import Sequence

import structlog

from keyhop.daemon.assembly import StartError
from keyhop.daemon.configuration import NodeFile

OTHER_FILES = 256
"""Of one node, beside connections of applications: store, audit log, listeners, the node API, handshakes."""
FILES_PER_LINK = 16
"""Connections with one neighbour, old and new, and the driver of its module."""

_log = structlog.get_logger("keyhop.node")


def needed(files: Sequence[NodeFile]) -> int:
    return sum(file.limits.connections + OTHER_FILES + FILES_PER_LINK * len(file.links) for file in files)


def allow(files: Sequence[NodeFile]) -> None:
    """Raises the soft limit of open files of this process. Raises StartError if the hard limit is too low.

    Where it runs out, new clients are met with silence, and the store with an error that ends the process.
    """
    wanted = needed(files)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    if most == wanted:
        return
    if len(files) > 1:
        # Several nodes in one process are an emulation: their clients will not all come at once.
        _log.warning("few_open_files", allowed=hard, wanted=wanted)
        return
    (file,) = files
    fits = file.limits.connections - (wanted - hard)
    instead = f", or set limits.connections to at most {fits}" if fits > 0 else ""
    raise StartError(
        f"limits.connections: {file.limits.connections} connections need {wanted} open files, "
        f"the system allows {hard}: raise that to {wanted} (LimitNOFILE= in systemd, ulimit -Hn in a shell){instead}"
    )
