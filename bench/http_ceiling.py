"""What the HTTP server and the 014 door can do: requests per server CPU second beside nginx with a static answer.

`python -m bench.http_ceiling` runs every server on core 0 and the load generator on core 1, in turn, freshly started
each round. `static` gives the same bytes to every request; `door` is the whole 014 adapter over a supplier that makes
keys out of nothing. What a real node does for a key comes on top of both.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench.measure import (
    HEADING,
    SERVER_CORE,
    Load,
    Pki,
    build_loadgen,
    compare,
    free_port,
    make_pki,
    nginx,
    pinned,
    say,
)
from keyhop.daemon.http import HttpServer
from keyhop.daemon.http_framing import Head
from keyhop.daemon.identity import Identities
from keyhop.daemon.routes import Later, Route, Series
from keyhop.daemon.supply.etsi014 import Door, Keys
from keyhop.daemon.tls import TlsFiles, TlsLibrary, server_context
from keyhop.wire.etsi014 import KeyRequest, Operation, Status, build_path, encode_container, encode_key_ids

KEY_ID = "8d4f2b1a-6c3e-4f57-9b20-1e7a5c9d3f60"
STATIC_BODY = encode_container([(KEY_ID, bytes(range(32)))])
ENC_PATH = build_path("sae-bob", Operation.ENC_KEYS)
DEC_PATH = build_path("sae-alice", Operation.DEC_KEYS)
DEC_BODIES = 400_000


class EndlessSupplier:
    """Keys out of nothing. Answers of dec_keys come one turn of the loop later, as those of a group commit do."""

    def __init__(self) -> None:
        self._random = os.urandom(1 << 20)
        self._at = 0

    def enc_keys(self, caller: str, slave: str, number: int, size_bits: int | None, request: KeyRequest | None) -> Keys:
        length = (size_bits or 256) // 8
        keys = []
        for _ in range(number):
            start = self._at = (self._at + length) % ((1 << 20) - length - 16)
            name = self._random[start : start + 16].hex()
            text = f"{name[:8]}-{name[8:12]}-{name[12:16]}-{name[16:20]}-{name[20:]}"
            keys.append((text, self._random[start : start + length]))
        return keys

    def dec_keys(self, caller: str, master: str, key_ids: list[str]) -> Later:
        later = Later()
        asyncio.get_running_loop().call_soon(later.give, [(key_id, self._random[:32]) for key_id in key_ids])
        return later

    def status(self, caller: str, slave: str) -> Status:
        raise NotImplementedError


def serve(kind: str, library: TlsLibrary, port: int, files: TlsFiles) -> None:
    """The server process: `static` or `door`."""
    import uvloop

    def prepare_static(_head: Head, _caller: str) -> Route:
        return Route(lambda _body: STATIC_BODY, Series())

    async def main() -> None:
        prepare = prepare_static if kind == "static" else Door(EndlessSupplier()).prepare
        server = HttpServer(prepare, server_context(files, library), Identities())
        await server.start("127.0.0.1", port)
        await asyncio.Event().wait()

    uvloop.run(main())


@contextlib.contextmanager
def started(kind: str, library: TlsLibrary, pki: Pki) -> Iterator[tuple[int, int]]:
    port = free_port()
    command = [sys.executable, "-m", "bench.http_ceiling", "--serve", kind, "--library", library, "--port", str(port)]
    command += ["--certificate", str(pki.server.cert), "--key", str(pki.server.key), "--authority", str(pki.authority)]
    with pinned(command, core=SERVER_CORE, port=port) as process:
        yield port, process.pid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--only", nargs="*", help="static, enc_keys, post_enc_keys, dec_keys, new_connection")
    parser.add_argument("--serve", choices=["static", "door"], help=argparse.SUPPRESS)
    parser.add_argument("--library", type=TlsLibrary, default=None, choices=list(TlsLibrary))
    for name in ("--port", "--certificate", "--key", "--authority"):
        parser.add_argument(name, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        files = TlsFiles(Path(options.certificate), Path(options.key), Path(options.authority))
        serve(options.serve, options.library, int(options.port), files)
        return

    libraries = [options.library] if options.library else list(TlsLibrary)
    with tempfile.TemporaryDirectory(prefix="keyhop-bench-") as temporary:
        folder = Path(temporary)
        pki = make_pki(folder / "pki", ["sae-alice", "sae-bob"])
        loadgen = build_loadgen(folder)
        bodies, enc_bodies = folder / "dec_bodies", folder / "enc_bodies"
        bodies.write_bytes(b"".join(encode_key_ids([f"{KEY_ID[:-8]}{n:08x}"]) + b"\n" for n in range(DEC_BODIES)))
        enc_bodies.write_bytes(b'{"number": 1, "size": 256}\n' * DEC_BODIES)
        ordinary = Load(ENC_PATH, "sae-alice", options.connections, options.seconds)
        scenes = {
            "static": ("static", ordinary),
            "enc_keys": ("door", ordinary),
            "post_enc_keys": (
                "door",
                Load(ENC_PATH, "sae-alice", options.connections, options.seconds, bodies=enc_bodies),
            ),
            "dec_keys": ("door", Load(DEC_PATH, "sae-bob", options.connections, options.seconds, bodies=bodies)),
            "new_connection": ("door", Load(ENC_PATH, "sae-alice", 16, options.seconds, new_connections=True)),
        }
        for name, (kind, load) in scenes.items():
            if options.only and name not in options.only:
                continue
            servers = {"nginx": partial(nginx, folder / "nginx", pki, STATIC_BODY)}
            servers |= {f"{name} {library}": partial(started, kind, library, pki) for library in libraries}
            loads = dict.fromkeys(servers, load)
            loads["nginx"] = load if load.new_connections else ordinary
            series = compare(servers, loads, options.rounds, loadgen, pki, say)
            print(f"\n{name}: {load.connections} connections\n{HEADING}")
            for line in series.values():
                print(line.line())


if __name__ == "__main__":
    main()
