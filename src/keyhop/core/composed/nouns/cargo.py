"""What becomes of the bits of relayed key: a site says it by name, to whoever holds them, and never sees one."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from keyhop.core.composed.nouns.units import Units

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line, Run
    from keyhop.core.composed.stock.serving import Taken


ONE_LINK = "one link"
"""The part of a payload that goes over one link alone and means no pair."""

PAD = "pad"
"""The part that the whole is under, where it goes a way of its own."""


class Payload(NamedTuple):
    """Key on its way."""

    source: str
    destination: str
    number: int
    """The source's own."""
    part: str = ""
    """Where one key goes in several parts."""


class Cargo(Protocol):
    """A load is what goes beside a message, by a number of this node alone: `Kx.cargo`, 0 if there is none.

    None as an answer says that nothing can be sent: the link or the pair has begun anew meanwhile.
    """

    derives: bool
    """Whether pads may be derived from less key than they cover."""

    def draw(self, payload: Payload, bits: int) -> None:
        """Random, out of the node's generator."""

    def gather(self, payload: Payload, link: Line, units: Taken, bits: int, load: int = 0) -> int | None:
        """These units of a link are the payload; `load` came with the message that says so. Gives the load that says
        it to the other end."""

    def cover(self, payload: Payload, link: Line, pad: Taken, bits: int) -> int | None:
        """Gives a load: the payload under these units of a link."""

    def uncover(self, payload: Payload, link: Line, pad: Taken, bits: int, load: int) -> bool:
        """The inverse, at the other end; False: no such payload, or of a pair that has begun anew."""

    def keep(self, payload: Payload, load: int) -> None:
        """The load is of use only later: with the part `pad` it makes the whole."""

    def join(self, payload: Payload) -> None:
        """The payload comes out of what was kept of it and of its part `pad`."""

    def enter(self, payload: Payload, line: Line, run: Run, start: int) -> None:
        """It is the pair's key from this unit on, and nothing but that."""

    def discard(self, payload: Payload) -> None: ...

    def stamp(self, line: Line) -> int:
        """A load that says which beginning of a pair a message means, where it goes over others' links."""

    def fits(self, line: Line, load: int) -> bool:
        """Whether the pair has not begun anew since."""

    def gone(self, line: Line, run: Run, ranges: tuple[Units, ...], letter: str) -> None:
        """These units have left the stock; applications got none of them."""


class Weightless:
    """No bits at all: a simulation."""

    derives = True

    def draw(self, payload: Payload, bits: int) -> None:
        pass

    def gather(self, payload: Payload, link: Line, units: Taken, bits: int, load: int = 0) -> int | None:
        return 0

    def cover(self, payload: Payload, link: Line, pad: Taken, bits: int) -> int | None:
        return 0

    def uncover(self, payload: Payload, link: Line, pad: Taken, bits: int, load: int) -> bool:
        return True

    def keep(self, payload: Payload, load: int) -> None:
        pass

    def join(self, payload: Payload) -> None:
        pass

    def enter(self, payload: Payload, line: Line, run: Run, start: int) -> None:
        pass

    def discard(self, payload: Payload) -> None:
        pass

    def stamp(self, line: Line) -> int:
        return 0

    def fits(self, line: Line, load: int) -> bool:
        return True

    def gone(self, line: Line, run: Run, ranges: tuple[Units, ...], letter: str) -> None:
        pass
