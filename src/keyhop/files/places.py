"""Where things are: addresses to listen on or call, and the places secrets are read from."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

SECRET_LIMIT_BYTES = 1 << 20
CREDENTIALS_DIRECTORY = "CREDENTIALS_DIRECTORY"
"""Set by systemd for a service with LoadCredential= or LoadCredentialEncrypted=."""

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\]")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    """A name, an IPv4 address, or an IPv6 address without its brackets."""
    port: int
    """0 asks the system for a free one."""

    FORM = "host:port, such as 127.0.0.1:8443 or [::1]:8443"
    PATTERN = r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}$"

    @classmethod
    def from_text(cls, text: str) -> Self:
        """Raises ValueError where `text` is not `host:port`."""
        host, colon, port = text.rpartition(":")
        if not colon or not _HOST.fullmatch(host) or not (port.isascii() and port.isdigit()) or int(port) > 65535:
            raise ValueError(f"{text!r} is no address")
        return cls(host.strip("[]"), int(port))

    @property
    def is_loopback(self) -> bool:
        return self.host in ("localhost", "::1") or re.fullmatch(r"127(\.[0-9]{1,3}){3}", self.host) is not None

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Fingerprint(str):
    """SHA-256 of a certificate in DER, as 64 lower-case hex digits."""

    __slots__ = ()
    FORM = "a SHA-256 fingerprint: 64 hex digits, colons allowed"
    PATTERN = r"^([0-9A-Fa-f]{2}:?){31}[0-9A-Fa-f]{2}$"

    @classmethod
    def from_text(cls, text: str) -> Self:
        digits = text.replace(":", "").lower()
        if not _FINGERPRINT.fullmatch(digits):
            raise ValueError(f"{text[:80]!r} is no fingerprint")
        return cls(digits)


class SecretUnavailable(Exception):
    """A secret cannot be read from its place; the text names the place and never the secret."""


@dataclass(frozen=True, slots=True)
class Source:
    """The place of a secret. A configuration holds places, never secrets."""

    kind: Literal["file", "env", "credential"]
    name: str
    """Path, name of the environment variable, or name of the systemd credential."""

    def __str__(self) -> str:
        return f"{{{self.kind}: {self.name}}}"

    def path(self) -> Path | None:
        """The file that holds the secret; None for an environment variable."""
        if self.kind == "file":
            return Path(self.name)
        if self.kind == "credential":
            directory = os.environ.get(CREDENTIALS_DIRECTORY)
            if not directory:
                raise SecretUnavailable(
                    f"credential {self.name}: {CREDENTIALS_DIRECTORY} is not set; "
                    "start the node by systemd with LoadCredential=, or use {file: PATH}"
                )
            return Path(directory) / self.name
        return None

    def read(self) -> bytearray:
        """The secret as it stands, for the caller to overwrite; raises SecretUnavailable."""
        path = self.path()
        if path is None:
            text = os.environ.get(self.name)
            if text is None:
                raise SecretUnavailable(f"environment variable {self.name} is not set")
            return bytearray(os.fsencode(text))
        try:
            with path.open("rb") as file:
                secret = bytearray(file.read(SECRET_LIMIT_BYTES + 1))
        except OSError as error:
            raise SecretUnavailable(f"{self.kind} {path}: {error.strerror}") from None
        if len(secret) > SECRET_LIMIT_BYTES:
            secret[:] = bytes(len(secret))
            raise SecretUnavailable(f"{self.kind} {path}: longer than {SECRET_LIMIT_BYTES} bytes")
        return secret
