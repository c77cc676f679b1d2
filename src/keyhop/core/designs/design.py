"""What a design is: one answer to each question."""

from __future__ import annotations

from dataclasses import dataclass

from keyhop.core.policy.disposal import AgePurge
from keyhop.core.policy.division import EncDec
from keyhop.core.policy.refill import ByDemand
from keyhop.core.policy.relay import HopByHop
from keyhop.core.policy.routing import LinkState
from keyhop.core.policy.storage import ByteStream
from keyhop.core.policy.synchronisation import Lease


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """Only the questions that have more than a plain answer so far; a further answer widens a field's type."""

    name: str
    title: str
    storage: ByteStream
    division: EncDec
    refill: ByDemand
    disposal: AgePurge
    synchronisation: Lease
    relay: HopByHop
    routing: LinkState
    door: str
