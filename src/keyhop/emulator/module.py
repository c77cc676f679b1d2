"""The emulated QKD module: one at each end of a link, in separate processes, giving the same bits without talking.

Both ends compute block n from a secret of the lab and n, and both read the moment it is due off the machine's
monotonic clock. What an eavesdropper, a cut fibre or a fault of the module does to a block comes from the link's
control file (`control.py`), which both ends read.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import math
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
import structlog
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from keyhop.daemon.modules import Block, Report
from keyhop.emulator import control
from keyhop.emulator.control import Change, Control, ControlError, Fault, FaultName
from keyhop.emulator.rates import BLOCK_MAX_BYTES, PERIOD_LIMIT_S, binary_entropy
from keyhop.files.units import LENGTH, RATE, RATIO

LINK_FILE = "link.json"
SECRET_FILE = "secret"  # noqa: S105 (the name of a file)
SECRET_BYTES = 32

BLOCK_GRAIN_BYTES = 256
"""A block that an eavesdropper shortens keeps a multiple of this."""
PREFILL_BLOCK_BYTES = 16 * 1024
PREFILL_LIMIT_BYTES = 64 * 1024 * 1024
BUFFER_BLOCKS = 16
"""A module whose reader does not come keeps this many blocks; older ones are lost."""

INTERCEPT_RESEND_QBER = 0.25
"""An eavesdropper who intercepts and resends every pulse turns a quarter of the sifted bits (BB84, random basis)."""
DAY_SWING = 0.10
"""The QBER follows the temperature of the day by this share of its mean (assumed)."""
NOISE_SWING = 0.05
"""And jitters from second to second by at most this share (assumed)."""
DAY_S = 86_400

REPORT_PERIOD_NS = 1_000_000_000
AVERAGE_PERIODS = 8
"""The reported key rate is the mean over this many block periods."""
LATE_PERIODS = 2.5

_log = structlog.get_logger(__name__)


class EmulatedLink(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What both ends must know alike; `link.json` in the link's directory."""

    id: str
    """Name of the module in its blocks."""
    ends: tuple[str, str]
    """Both nodes, lower name first."""
    block_bytes: int
    block_period_s: float
    epoch_ns: int
    """Moment of the machine's monotonic clock at which the first block period began; may be negative."""
    qber_ratio: float = 0.02
    """Mean without an eavesdropper."""
    qber_limit_ratio: float = 0.11
    epsilon: float = 0.0
    """Of each block; 0.0 where its rate was given and no model stands behind it."""
    has_qber: bool = True
    """False for continuous variables: the same disturbance acts, but is not reported as a QBER."""
    prefill_bytes: int = 0
    """Key of the time before the lab: delivered at once, in blocks numbered below those of the grid."""

    def __post_init__(self) -> None:
        wrong = [
            f"{name} = {value}: must be {legal}"
            for name, value, good, legal in (
                ("ends", self.ends, self.ends[0] < self.ends[1], "two names, the lower one first"),
                ("block_bytes", self.block_bytes, 0 <= self.block_bytes <= BLOCK_MAX_BYTES, "up to 1 MiB"),
                ("block_period_s", self.block_period_s, 1e-3 <= self.block_period_s <= PERIOD_LIMIT_S, "1 ms to 30 d"),
                ("epsilon", self.epsilon, 0.0 <= self.epsilon < 1.0, "from 0 to below 1"),
                ("qber_ratio", self.qber_ratio, 0.0 <= self.qber_ratio <= 0.5, "from 0 to 0.5"),
                ("qber_limit_ratio", self.qber_limit_ratio, 0.0 < self.qber_limit_ratio <= 0.5, "above 0, up to 0.5"),
                ("prefill_bytes", self.prefill_bytes, 0 <= self.prefill_bytes <= PREFILL_LIMIT_BYTES, "up to 64 MiB"),
            )
            if not good
        ]
        if wrong:
            raise ValueError(f"emulated link {self.id}: " + "; ".join(wrong))

    @property
    def period_ns(self) -> int:
        return round(self.block_period_s * 1e9)

    @property
    def prefill_blocks(self) -> int:
        return -(-self.prefill_bytes // PREFILL_BLOCK_BYTES)

    def due_ns(self, number: int) -> int:
        """When block `number` is complete; those of the prefill were before the lab began."""
        return self.epoch_ns + (number - self.prefill_blocks + 1) * self.period_ns

    def next_number(self, now_ns: int) -> int:
        """The block that is being made now."""
        return self.prefill_blocks + max(0, (now_ns - self.epoch_ns) // self.period_ns)

    @property
    def bits_per_s(self) -> float:
        return self.block_bytes * 8 / self.block_period_s


@dataclass(frozen=True, slots=True, kw_only=True)
class EmulatedSettings:
    """What a link with `driver: emulated` says in a node file."""

    directory: Path
    """Of the link in its lab: both ends name the same one."""
    rate_bps: Annotated[float | None, RATE] = None
    """Mean rate of the module, for whoever sizes by it; the module itself goes by its link's file."""
    protocol: str = ""
    length_km: Annotated[float | None, LENGTH] = None
    qber_limit: Annotated[float | None, RATIO] = None


DRIVERS: Mapping[str, type[Any]] = MappingProxyType({"emulated": EmulatedSettings})
"""For the node file: the record of each driver's own members."""


def create(directory: Path, link: EmulatedLink) -> None:
    """Writes what the two ends share; the secret of an existing link stays, so that its numbers go on."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    secret = directory / SECRET_FILE
    if not secret.exists():
        descriptor = os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(descriptor, "wb") as file:
            file.write(os.urandom(SECRET_BYTES))
    fresh = directory / (LINK_FILE + ".new")
    fresh.write_bytes(msgspec.json.format(msgspec.json.encode(link), indent=2) + b"\n")
    os.replace(fresh, directory / LINK_FILE)


def read_link(directory: Path) -> EmulatedLink:
    """Raises ValueError naming the file and the member that is wrong, OSError where there is no file."""
    path = directory / LINK_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=EmulatedLink)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {error}") from None


class EmulatedModule:
    """One end of an emulated link; a ModuleDriver.

    `advance` and `status` do the work for a given moment, `run` calls them as time goes by.
    """

    def __init__(
        self,
        directory: Path,
        node: str,
        *,
        after_number: int = -1,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        """`after_number` is the last block number that intake took before a restart: blocks up to it are not repeated.

        Raises ValueError where the files of the link do not fit, OSError where they cannot be read.
        """
        self.link = read_link(directory)
        if node not in self.link.ends:
            raise ValueError(f"node {node!r} is no end of emulated link {self.link.id}: its ends are {self.link.ends}")
        secret = (directory / SECRET_FILE).read_bytes()
        if len(secret) != SECRET_BYTES:
            raise ValueError(f"{directory / SECRET_FILE}: {len(secret)} bytes, must be {SECRET_BYTES}")
        self._cipher_key = secret
        self._node = node
        self._lower_end = node == self.link.ends[0]
        self._clock = clock
        self._control_path = directory / control.CONTROL_FILE
        self._control_stamp: tuple[int, int, int] | None = None
        self._control = Control()
        self._held: list[tuple[int, int]] = []
        """Blocks that a fault delivers later: (moment, number)."""
        self._recent: list[tuple[int, int]] = []
        """Finished periods: (block number, bits), the last AVERAGE_PERIODS of them."""
        self._after = after_number
        self._prefill_next = max(0, after_number + 1)
        self._next = max(self.link.next_number(clock()), after_number + 1)
        if self.link.prefill_bytes:
            self._recent = [(-1, self.link.block_bytes * 8)] * AVERAGE_PERIODS
        self.read_control()

    def __repr__(self) -> str:
        return f"EmulatedModule({self.link.id!r} at {self._node!r}, next block {self._next})"

    async def run(self, deliver: Callable[[Block], None], report: Callable[[Report], None]) -> None:
        now_ns = self._clock()
        said, said_ns = self.status(now_ns), now_ns
        report(said)
        while True:
            now_ns = self._clock()
            self.read_control()
            delivered = False
            for block in self.advance(now_ns):
                deliver(block)
                delivered = True
            status = self.status(now_ns)
            if delivered or status.state != said.state or now_ns - said_ns >= REPORT_PERIOD_NS:
                said, said_ns = status, now_ns
                report(said)
            if self._prefill_next < self.link.prefill_blocks:
                await asyncio.sleep(0)
                continue
            wake_ns = min(self._wake_ns(), said_ns + REPORT_PERIOD_NS, now_ns + control.POLL_NS)
            await asyncio.sleep(max(0, wake_ns - self._clock()) / 1e9)

    def advance(self, now_ns: int) -> list[Block]:
        """The blocks this end hands over now: at most one of the prefill, and those whose period is over."""
        blocks = []
        if self._prefill_next < self.link.prefill_blocks:
            blocks.append(self._prefill(self._prefill_next))
            self._prefill_next += 1
        behind = self.link.next_number(now_ns) - BUFFER_BLOCKS
        if self._next < behind:
            _log.warning("module_buffer_overrun", link=self.link.id, node=self._node, lost_blocks=behind - self._next)
            self._next = behind
        while self.link.due_ns(self._next) <= now_ns:
            blocks += self._finish(self._next)
            self._next += 1
        while self._held and self._held[0][0] <= now_ns:
            _, number = heapq.heappop(self._held)
            block = self._block(number)
            if block is not None:
                blocks.append(block)
        return blocks

    def status(self, now_ns: int) -> Report:
        fibre = self._control.at(now_ns)
        qber = self._qber(now_ns, fibre)
        state, reason = "up", ""
        restart = self._fault(FaultName.RESTART_LOSES, self._next)
        if fibre.cut:
            state, reason = "down", "no light: the fibre is cut"
        elif restart is not None:
            state, reason = "down", "the module restarts"
        elif qber > self.link.qber_limit_ratio:
            measured, limit = f"{qber * 100:.1f} %", f"{self.link.qber_limit_ratio * 100:.1f} %"
            state = "suspended"
            reason = f"QBER {measured} above {limit}" if self.link.has_qber else "excess noise above its limit"
        elif self._length_bytes(fibre.eve_fraction) == 0:
            state, reason = "suspended", "no secret key can be made at this rate of errors"
        bits = sum(bits for _, bits in self._recent)
        elapsed_s = max(1, len(self._recent)) * self.link.block_period_s
        return Report(
            state=state,
            qber_ratio=None if fibre.cut or not self.link.has_qber else qber,
            skr_bps=bits / elapsed_s if state == "up" else 0.0,
            block_period_s=self.link.block_period_s,
            reason=reason,
        )

    def read_control(self) -> None:
        """Takes a new control file in; one that cannot be read leaves the link as it was, and says so."""
        try:
            found = os.stat(self._control_path)
        except FileNotFoundError:
            self._control, self._control_stamp = Control(), None
            return
        stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
        if stamp == self._control_stamp:
            return
        self._control_stamp = stamp
        try:
            self._control = control.read_file(self._control_path)
        except (ControlError, OSError) as error:
            _log.warning("module_control_refused", link=self.link.id, node=self._node, reason=str(error))

    def _wake_ns(self) -> int:
        due_ns = self.link.due_ns(self._next)
        return min(due_ns, self._held[0][0]) if self._held else due_ns

    def _finish(self, number: int) -> list[Block]:
        """The period of this block is over: what comes out at this end."""
        due_ns = self.link.due_ns(number)
        block = self._block(number)
        self._recent = [*self._recent, (number, len(block.bits) * 8 if block else 0)][-AVERAGE_PERIODS:]
        if block is None:
            return []
        if self._fault(FaultName.ONE_SIDED, number) or self._fault(FaultName.RESTART_LOSES, number):
            return []
        late = self._fault(FaultName.LATE, number)
        if late is not None:
            delay_s = late.delay_s or LATE_PERIODS * self.link.block_period_s
            heapq.heappush(self._held, (due_ns + round(delay_s * 1e9), number))
            return []
        if self._fault(FaultName.REORDERED, number):
            heapq.heappush(self._held, (self.link.due_ns(number + 1), number))
            return []
        if self._fault(FaultName.DUPLICATE_AFTER_RESTART, number):
            heapq.heappush(self._held, (self.link.due_ns(number + 1), number))
        return [block]

    def _block(self, number: int) -> Block | None:
        """The block as this end has it; None if its period gave no key."""
        length_bytes = self._yield_bytes(number)
        if length_bytes == 0:
            return None
        if self._fault(FaultName.DIFFERENT_LENGTH, number):
            length_bytes = max(1, length_bytes // 2)
        bits = self._bits(number, length_bytes)
        if self._fault(FaultName.FLIPPED_BIT, number):
            bits[length_bytes // 2] ^= 1
        return Block(module=self.link.id, number=number, bits=bits, epsilon=self.link.epsilon)

    def _prefill(self, number: int) -> Block:
        length_bytes = min(PREFILL_BLOCK_BYTES, self.link.prefill_bytes - number * PREFILL_BLOCK_BYTES)
        return Block(module=self.link.id, number=number, bits=self._bits(number, length_bytes))

    def _bits(self, number: int, length_bytes: int) -> bytearray:
        """Stretch `number` of an AES-256-CTR stream: 2^64 counter values lie between two numbers."""
        bits = bytearray(length_bytes + 15)
        counter = number.to_bytes(8, "big") + bytes(8)
        encryptor = Cipher(algorithms.AES(self._cipher_key), modes.CTR(counter)).encryptor()
        encryptor.update_into(bytes(length_bytes), bits)
        del bits[length_bytes:]
        return bits

    def _yield_bytes(self, number: int) -> int:
        """Length of the block after all that happened in its period; 0 if it was aborted. The same at both ends."""
        start_ns = self.link.due_ns(number) - self.link.period_ns
        end_ns = start_ns + self.link.period_ns
        intercepted = 0.0
        for duration_ns, fibre in self._control.during(start_ns, end_ns):
            # One look at a QBER above the limit, or at darkness, throws away the block under way.
            if fibre.cut or self._qber((start_ns + end_ns) // 2, fibre) > self.link.qber_limit_ratio:
                return 0
            intercepted += fibre.eve_fraction * duration_ns / self.link.period_ns
        return self._length_bytes(intercepted)

    def _length_bytes(self, eve_fraction: float) -> int:
        """What privacy amplification leaves of a block if this share of its pulses was intercepted.

        Asymptotically 1 - 2 h(e) of the sifted bits (Shor and Preskill 2000), scaled to the undisturbed length.
        """
        if eve_fraction == 0.0:
            return self.link.block_bytes
        undisturbed = 1 - 2 * binary_entropy(self.link.qber_ratio)
        disturbed = 1 - 2 * binary_entropy(self.link.qber_ratio + INTERCEPT_RESEND_QBER * eve_fraction)
        if undisturbed <= 0.0 or disturbed <= 0.0:
            return 0
        length_bytes = int(self.link.block_bytes * disturbed / undisturbed)
        return length_bytes - length_bytes % BLOCK_GRAIN_BYTES

    def _qber(self, now_ns: int, fibre: Change) -> float:
        seconds = (now_ns - self.link.epoch_ns) // 1_000_000_000
        phase, _ = _noise(self.link.id, -1)
        _, jitter = _noise(self.link.id, seconds)
        day = math.sin(2 * math.pi * (seconds / DAY_S + phase))
        drifting = self.link.qber_ratio * (1 + DAY_SWING * day + NOISE_SWING * (2 * jitter - 1))
        return min(0.5, drifting + INTERCEPT_RESEND_QBER * fibre.eve_fraction)

    def _fault(self, name: FaultName, number: int) -> Fault | None:
        """The fault of this name that this end shows at this block. Blocks of the prefill show none."""
        for fault in self._control.faults:
            if fault.name is not name or not fault.number <= number < fault.number + fault.count:
                continue
            if (fault.node == self._node) if fault.node else self._lower_end:
                return fault
        return None


def _noise(link_id: str, index: int) -> tuple[float, float]:
    """Two figures in [0, 1) that both ends compute alike."""
    digest = hashlib.blake2b(f"{link_id}:{index}".encode(), digest_size=16).digest()
    return int.from_bytes(digest[:8], "big") / 2**64, int.from_bytes(digest[8:], "big") / 2**64
