"""Which room does what for a line of a design: the one place where parts become behaviour."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keyhop.core.composed.relay.central import Reported
from keyhop.core.composed.relay.demand_sharing import ByClient, DemandSharing
from keyhop.core.composed.relay.forecast import Forecast
from keyhop.core.composed.relay.relaying import HopWise, Relaying, Unconnected
from keyhop.core.composed.relay.reserved import Reserving
from keyhop.core.composed.relay.reshaping import Classes, Forwarding, Reshaped
from keyhop.core.composed.relay.slots import ServicePools, Slots
from keyhop.core.composed.relay.split_relay import SplitRelay
from keyhop.core.composed.relay.streams import ByStream, Streams
from keyhop.core.composed.relay.stretching import Stretching
from keyhop.core.composed.relay.supplements import Supplements
from keyhop.core.composed.relay.two_paths import TwoPaths
from keyhop.core.composed.relay.xor_relay import XorRelay
from keyhop.core.composed.stock.buffers import Loaded, Loads
from keyhop.core.composed.stock.dealing import Common, Dealing, Directed
from keyhop.core.composed.stock.disposal import AtOnce, Bounded, ByAge, Disposal, InBatches, Rule
from keyhop.core.composed.stock.fifos import Fifos
from keyhop.core.composed.stock.negotiated import Negotiated
from keyhop.core.composed.stock.owner import Owned, owner_of
from keyhop.core.composed.stock.pulling import Intake, Pulled, below
from keyhop.core.composed.stock.purposes import Purposed
from keyhop.core.composed.stock.records import Records
from keyhop.core.composed.stock.refills import Buffers, DirectedBuffers, FromBuffer, Split
from keyhop.core.composed.stock.serving import RECORD_NS, Asked, FromPool, Serving
from keyhop.core.composed.stock.sessions import DealtSessions, FromOwnPool, OwnedSessions
from keyhop.core.composed.stock.sizes import FromSizes, Sized, SizedByDemand, below_low
from keyhop.core.composed.stock.working_sets import TakenFirst, sets_of
from keyhop.core.composed.talk.agreement import Agreement, Compared, Stamped, Trusted
from keyhop.core.designs.design import Access, LocalGlobal
from keyhop.core.policy.admission import Reservation
from keyhop.core.policy.disposal import AgePurge, EraseInBatches
from keyhop.core.policy.division import EncDec, Purpose, Session
from keyhop.core.policy.fallback import Derive
from keyhop.core.policy.formatting import Kdf, SplitMerge
from keyhop.core.policy.priority import ResponseWeight
from keyhop.core.policy.refill import ByDemand, LowHigh, PerSession, PullBelow, Sated
from keyhop.core.policy.relay import HopByHop, NoRelay, RelayXor, SplitPath
from keyhop.core.policy.routing import CentralKms, LinkState, Sdn
from keyhop.core.policy.sharing import DeficitRoundRobin, Proportional, Weighted
from keyhop.core.policy.storage import FixedBlock, MultiSizeBlock
from keyhop.core.policy.synchronisation import (
    AppNegotiated,
    ProposeAccept,
    StampSequence,
    StoreLoad,
    TwoPhaseCommit,
    VerifyBatch,
    WorkingSet,
)

if TYPE_CHECKING:
    from keyhop.core.composed.line import Line
    from keyhop.core.composed.site import Site
    from keyhop.core.designs.parts import Refill, Synchronisation


class NotYet(NotImplementedError):
    """A part that no room carries out."""


def intake_of(line: Line) -> Intake:
    match line.design.refill:
        case PullBelow() as part:
            return Pulled(line, below(line, part))
        case LowHigh() as part if isinstance(line.design.storage, MultiSizeBlock) and not line.distant:
            return Pulled(line, below_low(line, part))
    return Bounded(line, _disposals(line)[0])


def disposal_of(line: Line) -> Disposal:
    match _disposals(line)[0]:
        case EraseInBatches() as part:
            return InBatches(part)
        case AgePurge() as part if not isinstance(_answers(line)[0], TwoPhaseCommit):
            return ByAge(line, part, tags=0 if isinstance(line.design.routing, CentralKms) else 1)
    return AtOnce()


def _disposals(line: Line) -> tuple[Rule, ...]:
    disposal = line.design.disposal
    return disposal if isinstance(disposal, tuple) else (disposal,)


def agreement_of(line: Line) -> Agreement:
    match line.design.synchronisations.local:
        case StampSequence() as part:
            return Stamped(line, part)
        case StoreLoad() as part:
            return Compared(line, period_ns=part.store_ns, retries=part.store_retries, words=("STORE", "STORE-DONE"))
        case VerifyBatch() as part:
            units = part.n * _key_units(line)
            return Compared(line, units=units, whole_batch=part.check == "mac", words=_words(line))
        case AppNegotiated():
            return Trusted(line)
    return Compared(line, words=("AGREE", "")) if line.design.compares else Trusted(line)


def dealing_of(line: Line) -> Dealing:
    _, access = _answers(line)
    if access is Access.TAKEN:
        return sets_of(line)
    if isinstance(storage := line.design.storage, MultiSizeBlock):
        return SizedByDemand(line, storage) if storage.split == "demand" else Sized(line, storage)
    if owner_of(line):
        return Common(line)
    if _reshapes(line):
        return Classes(line)
    if isinstance(_refill(line), Sated) and not line.distant:
        return Loads(line)
    if line.distant and not line.design.keeps_global_key:
        return ByStream(line)
    if line.distant and isinstance(sharing := line.design.sharing, Weighted) and sharing.ceiling == "path":
        return ByClient(line)
    if sessions := _sessions_of(line):
        return sessions
    if (purposes := _purposes(line)) is not None and not line.distant and _is(line, EncDec):
        return Purposed(line, purposes)
    if line.distant or access is Access.OWNED or any(isinstance(part, EncDec) for part in line.design.divisions):
        return Directed(line)
    return Common(line)


def _reshapes(line: Line) -> bool:
    """Whether keys are cut and joined by name, each time with the peer's word."""
    _, access = _answers(line)
    return isinstance(line.design.formatting.supply, SplitMerge) and access is Access.ASKED and not line.distant


def _key_units(line: Line) -> int:
    """Units of the run in one key of the store."""
    storage = line.design.storage
    return storage.unit_bits // line.run.unit_bits if isinstance(storage, FixedBlock) else 1


def _words(line: Line) -> tuple[str, str]:
    return ("NEW_KEY_BATCH" if _reshapes(line) else "VERIFY", "")


def _purposes(line: Line) -> Purpose | None:
    return next((part for part in line.design.divisions if isinstance(part, Purpose)), None)


def _sessions_of(line: Line) -> Dealing | None:
    """Pools per session, if this design has them on such a line."""
    session = next((part for part in line.design.divisions if isinstance(part, Session)), None)
    synchronisation, access = _answers(line)
    if session is None:
        return None
    if isinstance(synchronisation, ProposeAccept) and not line.distant:
        refill, sharing = _refill(line), line.design.sharing
        if isinstance(refill, PerSession) and isinstance(sharing, Proportional):
            return Buffers(line, synchronisation, refill, sharing)
        if isinstance(refill, LowHigh) and _is(line, EncDec):
            return DirectedBuffers(line, synchronisation, refill)
    if access is Access.OWNED:
        if session.deal == "slots" and line.distant:
            return ServicePools(line, session)
        return OwnedSessions(line, session) if session.deal == "turn" and not _is(line, EncDec) else None
    if line.distant:
        return None
    sharing = line.design.sharing
    match session.deal, synchronisation:
        case "credit", TwoPhaseCommit() if isinstance(sharing, Weighted):
            disposal = line.design.disposal
            purge = next(
                (p for p in (disposal if isinstance(disposal, tuple) else (disposal,)) if isinstance(p, AgePurge)),
                AgePurge(),
            )
            return Records(line, sharing, synchronisation, purge)
        case "quota", _ if isinstance(sharing, Proportional):
            return Fifos(line, sharing)
    return DealtSessions(line)


def _is(line: Line, kind: type) -> bool:
    return any(isinstance(part, kind) for part in line.design.divisions)


def serving_of(line: Line) -> Serving:
    synchronisation, access = _answers(line)
    if isinstance(synchronisation, WorkingSet):
        return TakenFirst(line, synchronisation)
    if isinstance(line.dealing, Sized) and isinstance(storage := line.design.storage, MultiSizeBlock):
        return FromSizes(line, storage, line.dealing)
    if isinstance(line.dealing, Buffers):
        return FromBuffer(line, line.dealing)
    if isinstance(line.dealing, OwnedSessions):
        return FromOwnPool(line, line.dealing)
    if isinstance(line.design.formatting.supply, SplitMerge) and access is Access.OWNED:
        return Split(line)
    if line.distant:
        return FromPool(line)
    if isinstance(synchronisation, StoreLoad) and isinstance(refill := _refill(line), Sated):
        return Loaded(line, synchronisation, refill)
    if owner := owner_of(line):
        return Owned(line, owner, waits=not isinstance(line.design.relay, RelayXor))
    if _reshapes(line) and isinstance(form := line.design.formatting.supply, SplitMerge):
        return Reshaped(line, form, _purposes(line) or Purpose(shares=(("internal", 0),)), _key_units(line))
    match synchronisation:
        case AppNegotiated() as part:
            return Negotiated(line, part)
        case ProposeAccept(by="asker"):
            return Asked(line, kept_ns=RECORD_NS)
    return Asked(line) if access is Access.ASKED else FromPool(line)


def relaying_of(site: Site) -> Relaying:
    match site.design.relay:
        case NoRelay():
            return Unconnected()
        case HopByHop() as part if site.design.profile == "rate":
            admission, routing = site.design.admission, site.design.routing
            if isinstance(admission, Reservation) and isinstance(routing, LinkState):
                return Streams(site, part, admission, routing)
        case HopByHop() as part if isinstance(sharing := site.design.sharing, Weighted) and sharing.ceiling == "path":
            if isinstance(routing := site.design.routing, LinkState):
                return DemandSharing(site, part, sharing, routing)
        case HopByHop() as part if isinstance(slots := site.design.admission, Reservation) and slots.of == "slots":
            if isinstance(sdn := site.design.routing, Sdn):
                return Slots(site, part, slots, site.network.controller(slots, sdn))
        case HopByHop() as part if isinstance(demand := site.design.refill, ByDemand) and demand.forecast == "rate":
            if isinstance(rounds := site.design.sharing, DeficitRoundRobin):
                return Forecast(site, part, demand, rounds)
        case HopByHop(queued=True) as part if isinstance(site.design.admission, Reservation):
            return Reserving(site, part, site.design.admission)
        case HopByHop() as part if isinstance(site.design.formatting.supply, SplitMerge):
            return Forwarding(site, part)
        case HopByHop() as part if isinstance(storage := site.design.storage, MultiSizeBlock):
            refill, priority = site.design.refill, site.design.priority
            if isinstance(refill, LowHigh) and isinstance(priority, ResponseWeight):
                return Supplements(site, part, storage, refill, priority)
        case HopByHop() as part if isinstance(derive := site.design.fallback, Derive):
            form = site.design.formatting.supply
            return Stretching(site, part, derive, form if isinstance(form, Kdf) else Kdf())
        case HopByHop(paths="one") as part if isinstance(central := site.design.routing, CentralKms):
            return Reported(site, part, central)
        case HopByHop(paths="one") as part:
            return HopWise(site, part)
        case HopByHop() as part:
            return TwoPaths(site, part)
        case SplitPath() as split:
            return SplitRelay(site, split)
        case RelayXor():
            refill = site.design.refill
            return XorRelay(site, refill if isinstance(refill, LowHigh) else None)
    raise NotYet(f"{site.design.name}: nothing carries out {site.design.relay}")


def _refill(line: Line) -> Refill:
    answer = line.design.refill
    if isinstance(answer, LocalGlobal):
        return answer.global_ if line.distant else answer.local
    return answer


def _answers(line: Line) -> tuple[Synchronisation, Access]:
    synchronisations, accesses = line.design.synchronisations, line.design.access
    if line.distant:
        return synchronisations.global_, accesses.global_
    return synchronisations.local, accesses.local
