"""The live view of a demo in the terminal: links, applications, and one key for each thing a person can do."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import sys
import termios
import time
import tty
from collections.abc import Iterator

import click
from rich.console import Console, Group
from rich.layout import Layout
from rich.live import Live
from rich.table import Table
from rich.text import Text

from keyhop.emulator import demo as demos
from keyhop.emulator.applications import Conversation
from keyhop.emulator.demo import Demo, LinkView

BAR_CELLS = 5
REFRESH_HZ = 4
COLUMNS = 76
"""With fewer, the less important columns are left out."""
KEYS = "[↑↓] choose a link   [e] listen on it   [c] cut it, splice it   [q] quit"
KEYS_SHORT = "[↑↓] link   [e] listen   [c] cut, splice   [q] quit"
KEYSTROKE = re.compile(r"\x1b\[.|.")
"""An arrow key sends three characters."""
PLAIN_PERIOD_S = 5.0
STATE_STYLE = {"up": "green", "suspended": "yellow", "opening": "yellow", "down": "red", "starting": "dim"}


async def live(demo: Demo, *, plain: bool) -> None:
    """Shows the demo until `q` or Ctrl-C; without a terminal it prints a line now and then."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError):
        import signal

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, ended.set)
    if plain:
        await _plain(demo, ended)
        return
    view = View(demo)
    console = Console()
    # A screen of its own: a terminal that changes its size would leave pieces of every earlier drawing behind.
    shown = Live(
        get_renderable=lambda: view.screen(console.width),
        console=console,
        refresh_per_second=REFRESH_HZ,
        screen=True,
    )
    with shown, _keys(view, ended):
        await demos.run(demo, lambda: None, ended)
    console.print(view.last(console.width))


async def _plain(demo: Demo, ended: asyncio.Event) -> None:
    said = [0.0]

    def changed() -> None:
        if time.monotonic() - said[0] >= PLAIN_PERIOD_S:
            said[0] = time.monotonic()
            for conversation in demo.conversations:
                click.echo(_sentence(conversation))

    await demos.run(demo, changed, ended)


def _sentence(c: Conversation) -> str:
    path = "─".join(c.path) or "no path yet"
    trouble = f"; last trouble: {c.last_failure}" if c.last_failure else ""
    return f"{c.name} {c.master} → {c.slave} over {path}: {c.keys} keys, {c.messages} messages read{trouble}"


@contextlib.contextmanager
def _keys(view: View, ended: asyncio.Event) -> Iterator[None]:
    """Single keystrokes, without echo, until the block ends."""
    if not sys.stdin.isatty():
        yield
        return
    loop, descriptor = asyncio.get_running_loop(), sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)

    def read() -> None:
        try:
            # From the descriptor itself: what Python buffers would wake nobody.
            said = os.read(descriptor, 64)
        except OSError:
            said = b""
        if not said:
            # The terminal is gone.
            loop.remove_reader(descriptor)
            ended.set()
        for key in KEYSTROKE.findall(said.decode(errors="replace")):
            if key == "q":
                ended.set()
            else:
                view.press(key)

    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, read)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        with contextlib.suppress(termios.error):
            termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


class View:
    def __init__(self, demo: Demo) -> None:
        self.demo = demo
        self.order = sorted(demo.links)
        self.chosen = 0
        self.message = ""

    def press(self, key: str) -> None:
        link = self.order[self.chosen]
        if key in ("j", "\x1b[B"):
            self.chosen = (self.chosen + 1) % len(self.order)
        elif key in ("k", "\x1b[A"):
            self.chosen = (self.chosen - 1) % len(self.order)
        elif key == "e":
            self.demo.toggle_eve(link)
            on = self.demo.links[link].eve
            self.message = f"somebody listens on {link}: errors climb" if on else f"nobody listens on {link} any more"
        elif key == "c":
            self.demo.toggle_cut(link)
            self.message = f"{link} is cut" if self.demo.links[link].cut else f"{link} is spliced"

    def render(self, columns: int = COLUMNS) -> Group:
        """All there is to see, below each other."""
        return Group(*self._body(columns), Text(), *self._foot(columns))

    def last(self, columns: int) -> Group:
        """What stays in the terminal when nothing can be done any more."""
        return Group(*self._body(columns))

    def screen(self, columns: int) -> Layout:
        """The same for a terminal of its own: what can be done stays in sight where there are too few lines."""
        foot = self._foot(columns)
        layout = Layout()
        layout.split_column(Layout(Group(*self._body(columns))), Layout(Group(*foot), size=len(foot)))
        return layout

    def _body(self, columns: int) -> list[Table | Text]:
        title = self.demo.topology.title or self.demo.topology.name
        parts: list[Table | Text] = [
            _line(f"{title} · an emulation: do not protect real data with it", style="dim"),
            self._links(columns),
            Text(),
            self._applications(columns),
            Text(),
        ]
        parts += [_last_words(c) for c in self.demo.conversations]
        parts += [_line(why.partition("\n")[0], style="red") for why in self.demo.dead.values()]
        return parts

    def _foot(self, columns: int) -> list[Text]:
        keys = KEYS if columns >= COLUMNS else KEYS_SHORT
        chosen = self.demo.links[self.order[self.chosen]]
        why = f"{chosen.id}: {chosen.reason}" if chosen.reason else ""
        return [_line(why, style="yellow"), _line(self.message, style="bold"), _line(keys, style="dim")]

    def _links(self, columns: int) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim", width=columns)
        wide = columns >= COLUMNS
        for head in ("  LINK", "STATE", "QBER", "SKR", "POOL", *([""] if wide else [])):
            table.add_column(head, no_wrap=True)
        # The one that gives way; below the tables it stands whole for the chosen link.
        table.add_column("REMARK", no_wrap=True, ratio=1)
        for at, name in enumerate(self.order):
            link = self.demo.links[name]
            table.add_row(
                ("▸ " if at == self.chosen else "  ") + ("─".join(link.ends) if name == "-".join(link.ends) else name),
                Text(link.state, style=STATE_STYLE.get(link.state, "")),
                "" if link.qber is None else f"{link.qber * 100:.1f} %",
                rate(link.skr_bps),
                *([bar(link)] if wide else []),
                size(link.stored_bytes),
                Text(link.reason, style="yellow"),
            )
        return table

    def _applications(self, columns: int) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim")
        wide = columns >= COLUMNS
        for head in (
            "APP",
            "BETWEEN",
            "PATH",
            *(["REKEY"] if wide else []),
            "LAST KEY",
            *(["MESSAGES"] if wide else []),
        ):
            table.add_column(head, no_wrap=head != "PATH", overflow="fold" if head == "PATH" else "ellipsis")
        for c in self.demo.conversations:
            age = time.monotonic() - c.last_key_at
            ago = "now" if age < 1 else f"{age:.0f} s ago" if wide else f"{age:.0f} s"
            last = f"{c.last_key_id}… {ago}" if c.last_key_id else "none yet"
            table.add_row(
                c.name,
                f"{c.master} ⇄ {c.slave}",
                "─".join(c.path) or ("none now" if c.keys else "…"),
                *([f"{c.rekey_s:.0f} s"] if wide else []),
                last,
                *([str(c.messages)] if wide else []),
            )
        return table


def _line(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _last_words(c: Conversation) -> Text:
    """A line of its own: beside the path and the key it would not fit into 80 columns."""
    if c.last_failure and (not c.messages or (c.failures and not c.last_key_id)):
        return _line(f"{c.name}  {c.last_failure}", style="yellow")
    if not c.last_text:
        return _line(f"{c.name}  waits for its first key", style="dim")
    return _line(f'{c.name}  "{c.last_text}" {c.last_bytes} B encrypted, read and answered ✓')


def rate(bps: float | None) -> str:
    if bps is None:
        return ""
    return f"{bps / 1e6:.1f} Mb/s" if bps >= 1e6 else f"{bps / 1e3:.1f} kb/s" if bps else "0"


def size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def bar(link: LinkView) -> str:
    filled = round(BAR_CELLS * min(1.0, link.stored_bytes / link.capacity_bytes)) if link.capacity_bytes else 0
    return "▓" * filled + "░" * (BAR_CELLS - filled)
