"""Two applications of a demo: messages under keys that each fetches from its own key manager by ETSI 014.

Between the two goes a datagram on loopback: key ID, nonce, ciphertext. The key itself never does.
"""

from __future__ import annotations

import asyncio
import os
import time
from dataclasses import dataclass, field
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from keyhop.client.asynchronous import AsyncKme
from keyhop.client.core import Key, KeyhopError
from keyhop.emulator.lab import Lab

NONCE_BYTES = 12
KEY_WAIT_S = 10.0
MESSAGE_PERIOD_S = 1.0
ANSWER_WAIT_S = 5.0


@dataclass
class Conversation:
    """What the two have said so far; read by the live view."""

    name: str
    master: str
    slave: str
    rekey_s: float
    size_bits: int
    keys: int = 0
    messages: int = 0
    """Sent, read at the far end and answered."""
    failures: int = 0
    last_failure: str = ""
    last_key_id: str = ""
    last_key_at: float = 0.0
    last_text: str = ""
    last_bytes: int = 0
    first_key_s: float | None = None
    """From the first request to the first key that both ends hold."""
    path: tuple[str, ...] = ()
    began: float = field(default_factory=time.monotonic)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.arrived: asyncio.Queue[tuple[bytes, tuple[str, int]]] = asyncio.Queue(64)

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        if not self.arrived.full():
            self.arrived.put_nowait((data, address))


async def _socket() -> tuple[asyncio.DatagramTransport, _Datagrams, tuple[str, int]]:
    transport, protocol = await asyncio.get_running_loop().create_datagram_endpoint(
        _Datagrams, local_addr=("127.0.0.1", 0)
    )
    return transport, protocol, transport.get_extra_info("sockname")


def client(lab: Lab, application: str) -> AsyncKme:
    """The SDK, with the certificate of one application and the address of its own key manager."""
    issued, authority = lab.credentials(application)
    address = lab.serving(application).etsi014
    return AsyncKme(f"https://{address}", cert=issued.certificate, key=issued.key, ca=authority)


def _sealed(key: Key, text: str, sender: str) -> bytes:
    nonce = os.urandom(NONCE_BYTES)
    return key.id.bytes + nonce + ChaCha20Poly1305(key.reveal()).encrypt(nonce, text.encode(), sender.encode())


def _opened(key: Key, data: bytes, sender: str) -> str:
    nonce, ciphertext = data[16 : 16 + NONCE_BYTES], data[16 + NONCE_BYTES :]
    return ChaCha20Poly1305(key.reveal()).decrypt(nonce, ciphertext, sender.encode()).decode()


async def talk(lab: Lab, conversation: Conversation) -> None:
    """Runs both applications until cancelled: a message each second, a fresh key every `rekey_s`."""
    c = conversation
    near, inbox, _ = await _socket()
    far, far_inbox, far_address = await _socket()
    async with client(lab, c.master) as master_kme, client(lab, c.slave) as slave_kme:
        answering = asyncio.create_task(_answer(slave_kme, c, far, far_inbox))
        key: Key | None = None
        try:
            while True:
                began = time.monotonic()
                try:
                    if key is None or began - c.last_key_at >= c.rekey_s:
                        if key is not None:
                            key.wipe()
                        key = await master_kme.get_key(c.slave, size=c.size_bits, wait=KEY_WAIT_S)
                        c.last_key_at = time.monotonic()
                        c.last_key_id = str(key.id)[:8]
                        c.keys += 1
                    text = f"message {c.messages + 1} from {c.master}"
                    near.sendto(_sealed(key, text, c.master), far_address)
                    data, _ = await asyncio.wait_for(inbox.arrived.get(), ANSWER_WAIT_S)
                    answer = _opened(key, data, c.slave)
                    if answer != f"read: {text}":
                        raise ValueError(f"{c.slave} answered something else")
                    c.messages += 1
                    c.last_text, c.last_bytes = text, len(data)
                    if c.first_key_s is None:
                        c.first_key_s = time.monotonic() - c.began
                except (KeyhopError, TimeoutError, InvalidTag, ValueError) as error:
                    c.failures += 1
                    c.last_failure = str(error) or type(error).__name__
                    key = None
                await asyncio.sleep(max(0.05, MESSAGE_PERIOD_S - (time.monotonic() - began)))
        finally:
            answering.cancel()
            near.close()
            far.close()


async def _answer(kme: AsyncKme, c: Conversation, transport: asyncio.DatagramTransport, inbox: _Datagrams) -> None:
    """The slave: fetches each key once, by the ID in the datagram."""
    key: Key | None = None
    while True:
        data, address = await inbox.arrived.get()
        try:
            key_id = UUID(bytes=data[:16])
            if key is None or key.id != key_id:
                if key is not None:
                    key.wipe()
                key = await kme.fetch_key(c.master, key_id)
            text = _opened(key, data, c.master)
        except (KeyhopError, InvalidTag, ValueError) as error:
            c.last_failure = f"{c.slave}: {error}"
            continue
        transport.sendto(_sealed(key, f"read: {text}", c.slave), address)


async def deliver_once(lab: Lab, master: str, slave: str, count: int) -> int:
    """Fetches `count` keys at both ends, one after the other; gives how many were equal. Raises KeyhopError."""
    equal = 0
    async with client(lab, master) as near, client(lab, slave) as far:
        for _ in range(count):
            with await near.get_key(slave, wait=KEY_WAIT_S) as key, await far.fetch_key(master, key.id) as same:
                equal += key == same
    return equal
