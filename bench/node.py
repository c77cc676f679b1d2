"""A real node process for the benches, with modules that deliver as fast as wanted: `python -m bench.node CONFIG`."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from keyhop.cli.serve import run, set_up_logging
from keyhop.daemon import app
from keyhop.daemon.configuration import load_node_file
from keyhop.daemon.modules import Block, Report
from keyhop.emulator.module import DRIVERS, EmulatedSettings

BLOCK_BYTES = 1 << 20
FIREHOSE_FILE = "firehose.json"


class Firehose:
    """Delivers `bytes` in blocks of 1 MiB, paced by `pause_s`, and then goes on as `then` says, if it says anything.

    The same bits at both ends.
    """

    def __init__(self, directory: Path, after_number: int) -> None:
        told = json.loads((directory / FIREHOSE_FILE).read_text())
        self._blocks = told["bytes"] // BLOCK_BYTES
        self._pause_s = told["pause_s"]
        self._then = told.get("then")
        self._secret = (directory / "secret").read_bytes()
        self._next = after_number + 1

    async def run(self, deliver: Callable[[Block], None], report: Callable[[Report], None]) -> None:
        report(Report("up", 0.02, 1e9, self._pause_s))
        await asyncio.sleep(0.5)
        while self._next < self._blocks:
            deliver(self._block(BLOCK_BYTES))
            await asyncio.sleep(self._pause_s)
        while self._then:
            deliver(self._block(self._then["block_bytes"]))
            await asyncio.sleep(self._then["pause_s"])
        await asyncio.Event().wait()

    def _block(self, length_bytes: int) -> Block:
        nonce = self._next.to_bytes(16, "big")[::-1]
        stream = Cipher(algorithms.AES(self._secret), modes.CTR(nonce)).encryptor()
        self._next += 1
        return Block("firehose", self._next - 1, bytearray(stream.update(bytes(length_bytes))))


def main() -> None:
    path = Path(sys.argv[1])
    file = load_node_file(path, DRIVERS)
    set_up_logging("warning")

    def firehose(settings: EmulatedSettings, node: str, after: int) -> Firehose:
        return Firehose(settings.directory, after)

    app.harden()
    sys.exit(run(app.serve([(file, path.absolute().parent)], {"emulated": firehose})))


if __name__ == "__main__":
    main()
