"""Numbers as people read them in tables; JSON has them in base units."""

from __future__ import annotations

UNKNOWN = "-"


def counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def rate(rate_bps: float | None, *, signed: bool = False) -> str:
    """`5.7 kb/s`; `+0.1 kb/s` for a change."""
    if rate_bps is None:
        return UNKNOWN
    sign = ("+" if rate_bps > 0 else "-" if rate_bps < 0 else "") if signed else ""
    value = abs(rate_bps) if signed else rate_bps
    if value == 0:
        return "0"
    for factor, unit in ((1e9, "Gb/s"), (1e6, "Mb/s"), (1e3, "kb/s")):
        if value >= factor:
            return f"{sign}{value / factor:.1f} {unit}"
    return f"{sign}{value / 1e3:.1f} kb/s" if value >= 100 else f"{sign}{value:.0f} b/s"


def size(size_bytes: int | None) -> str:
    """`31 kB`, `9.0 kB`, `512 B`."""
    if size_bytes is None:
        return UNKNOWN
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size_bytes >= factor:
            value = size_bytes / factor
            return f"{value:.1f} {unit}" if value < 10 else f"{value:.0f} {unit}"
    return f"{size_bytes} B"


def percent(ratio: float | None, digits: int = 1) -> str:
    return UNKNOWN if ratio is None else f"{ratio * 100:.{digits}f}%"


def age(seconds: float | None) -> str:
    """`41s`, `3m12s`, `5h07m`, `2d4h`."""
    if seconds is None:
        return UNKNOWN
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86_400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86_400}d{whole % 86_400 // 3600}h"


def path(nodes: tuple[str, ...] | list[str]) -> str:
    return "-".join(nodes) or UNKNOWN


def fill(stored_bytes: int, capacity_bytes: int) -> str:
    """`31 kB  ( 48%)`."""
    if capacity_bytes <= 0:
        return size(stored_bytes)
    return f"{size(stored_bytes):<6} ({round(100 * stored_bytes / capacity_bytes):3d}%)"
