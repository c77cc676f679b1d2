"""Tables 2 and 3 of the survey of key managers, and what a composition would say in the same words."""

from __future__ import annotations

from typing import NamedTuple

from keyhop.core.designs.design import Design, LocalGlobal
from keyhop.core.policy.admission import Reservation
from keyhop.core.policy.division import EncDec, Purpose, Session
from keyhop.core.policy.fallback import Deny, Wait
from keyhop.core.policy.formatting import Identity, Kdf, SliceOnSupply, SplitMerge
from keyhop.core.policy.priority import Fifo
from keyhop.core.policy.refill import ByDemand, NoThreshold
from keyhop.core.policy.sharing import Proportional, Weighted
from keyhop.core.policy.storage import ByteStream, FixedBlock

SILENT = "-"
"""The survey does not discuss it."""
YES, NO = "Y", "N"
BY_RATES = "by registered rates"
RESERVED = "reservation"
BY_CLASS = "by class, and reservation"
FIXED, EQUAL, BYTES = "fixed blocks", "homogeneous blocks", "homogeneous bytes"
ANY_BLOCKS = frozenset({FIXED, EQUAL})
"""Two names for units of one size: those that come so, and those that are cut so."""
SESSION, ENC_DEC = "session", "enc and dec"
BY_PURPOSE = "local and global"


class Row(NamedTuple):
    """One key manager in both tables; a cell in our words where the table has a sentence."""

    years: str
    interface: str
    sharing: str
    priority: str
    fallback: str
    local_store: str
    global_store: str
    storage: str
    on_reception: str
    on_supply: str
    division: str
    thresholds: str


TABLES = {
    # Table 2: years, interface, sharing, priority, fallback. Table 3: local, global, storage, reformat twice, division,
    # thresholds. An interface stands here by the name of the door that does what the table says.
    "DARPA": Row("2002-07", "ike_qpd", NO, NO, NO, YES, NO, FIXED, NO, NO, NO, NO),
    "SECOQC": Row("2007-09", "session (rate)", RESERVED, NO, NO, YES, NO, EQUAL, YES, NO, ENC_DEC, YES),
    "NIST": Row("2008", "session (fifo)", BY_RATES, NO, NO, YES, NO, BYTES, SILENT, "in bytes", SESSION, NO),
    "QCC": Row("2008", "session (buffer)", BY_RATES, NO, NO, YES, NO, SILENT, SILENT, SILENT, SESSION, YES),
    "NEC": Row("2009", SILENT, NO, NO, NO, YES, YES, FIXED, NO, NO, ENC_DEC, NO),
    "MagiQ Technologies": Row("2010", SILENT, BY_RATES, NO, NO, YES, NO, FIXED, NO, NO, SESSION, NO),
    "SwissQuantum": Row("2009-11", SILENT, NO, NO, YES, YES, YES, SILENT, SILENT, SILENT, SESSION, SILENT),
    "QoS-supported KM": Row("2011", SILENT, BY_CLASS, YES, NO, YES, *(SILENT,) * 6),
    "NECTEC": Row("2012", SILENT, NO, NO, NO, YES, YES, SILENT, SILENT, SILENT, SESSION, NO),
    "Toshiba": Row("2016", "etsi014", BY_RATES, NO, NO, YES, YES, EQUAL, YES, NO, f"{ENC_DEC}; {SESSION}", NO),
    "NICT QKD platform": Row("2017", SILENT, NO, NO, NO, YES, YES, *(SILENT,) * 4, NO),
    "Quantum Canada": Row(
        "2018", SILENT, NO, YES, YES, YES, YES, SILENT, SILENT, SILENT, f"{BY_PURPOSE}; {ENC_DEC}", NO
    ),
    "NSFC SDQaaS": Row("2019", SILENT, RESERVED, NO, NO, YES, YES, SILENT, SILENT, SILENT, SESSION, NO),
    "NKPs DDKA-QKDN": Row("2022", SILENT, NO, YES, NO, YES, YES, "five fixed sizes", YES, NO, NO, YES),
    "KISTI": Row("2022", "etsi014", NO, NO, YES, YES, YES, SILENT, SILENT, "HKDF", SILENT, NO),
    "AIT": Row("2023", "etsi014; etsi004", NO, NO, NO, YES, SILENT, SILENT, SILENT, "split and merge", SILENT, NO),
    "Cisco": Row("2023", "skip", NO, NO, NO, YES, NO, "fixed blocks of 64 bits", YES, SILENT, SILENT, YES),
}

ANSWERS = {
    "interface": ("door",),
    "sharing": ("admission", "sharing"),
    "priority": ("priority",),
    "fallback": ("fallback",),
    "storage": ("storage",),
    "on_reception": ("formatting.reception",),
    "on_supply": ("formatting.supply",),
    "division": ("division",),
    "thresholds": ("refill",),
}
"""Column -> the questions it speaks of; local and global stores follow from the relay and the door."""

TEXT_SAYS = {
    ("NIST", "on_reception"): "section 4.3: keys are reformatted to one byte",
    ("NICT QKD platform", "on_reception"): "section 3.11: keys are reshaped when they come in",
    ("NSFC SDQaaS", "interface"): "section 3.13: methods that create, modify and delete a service",
    ("AIT", "division"): "section 3.16: keys are made internal or external",
}
"""Cells without an entry of which a section of the survey speaks all the same."""

DEPARTURES = {
    ("nec.fixed", "thresholds"): "keys are made ahead of need, so something must say when and how many",
    ("nectec", "division"): "the text has a buffer per application and, in it, one for each direction",
    ("qcanada.working_set", "division"): "with an end to each direction nothing would be contested in a working set",
}
"""Where a design does other than its row on purpose, and why."""


def columns_of(path: str) -> list[str]:
    """The columns that speak of a dotted field."""
    return [column for column, paths in ANSWERS.items() if any(path == p or path.startswith(f"{p}.") for p in paths)]


def said(design: Design) -> Row:
    """The row that a design would get."""
    thresholds = design.refill.global_ if isinstance(design.refill, LocalGlobal) else design.refill
    return Row(
        years=TABLES[design.row].years if design.row else SILENT,
        interface="; ".join(f"{door} ({design.profile})" if door == "session" else door for door in design.doors),
        sharing=_sharing(design),
        priority=_yes(not isinstance(design.priority, Fifo)),
        fallback=_yes(not isinstance(design.fallback, Deny | Wait)),
        local_store=YES,
        global_store=_yes(design.keeps_global_key),
        storage=_storage(design),
        on_reception=_yes(not isinstance(design.formatting.reception, Identity)),
        on_supply=_on_supply(design),
        division=_division(design),
        thresholds=_yes(not isinstance(thresholds, NoThreshold | ByDemand)),
    )


def compared(design: Design) -> list[tuple[str, str, str]]:
    """(column, what the survey says, what the design does), for every column that both can speak of."""
    if not design.row:
        return []
    theirs, ours = TABLES[design.row], said(design)
    return [(column, getattr(theirs, column), getattr(ours, column)) for column in Row._fields if column != "years"]


def agrees(column: str, theirs: str, ours: str) -> bool:
    """What is silent agrees with everything; two names for equal units are one answer."""
    if theirs in (SILENT, ours):
        return True
    if column == "storage":
        return theirs in ANY_BLOCKS and ours in ANY_BLOCKS
    # A bare Y says that it is done, not how.
    return column == "on_supply" and theirs == YES and ours != NO


def disagreements(design: Design) -> list[str]:
    """Where the design does other than its row, a sentence each; also those that are meant."""
    return [
        f"{column}: the survey has {theirs!r}, {design.name} has {ours!r}"
        for column, theirs, ours in compared(design)
        if not agrees(column, theirs, ours)
    ]


def _yes(fact: bool) -> str:
    return YES if fact else NO


def _sharing(design: Design) -> str:
    """Between applications: rounds between relay flows are none of that."""
    if isinstance(design.admission, Reservation):
        return RESERVED if isinstance(design.priority, Fifo) else BY_CLASS
    return BY_RATES if isinstance(design.sharing, Proportional | Weighted) else NO


def _storage(design: Design) -> str:
    match design.storage:
        case ByteStream():
            return BYTES
        case FixedBlock(unit_bits=64):
            return "fixed blocks of 64 bits"
        case FixedBlock():
            return FIXED if isinstance(design.formatting.reception, Identity) else EQUAL
    return "five fixed sizes" if len(design.storage.sizes) == 5 else "several fixed sizes"


def _on_supply(design: Design) -> str:
    match design.formatting.supply:
        case Kdf():
            return "HKDF"
        case SplitMerge():
            return "split and merge"
        case SliceOnSupply(step=8):
            return "in bytes"
        case SliceOnSupply(step=step):
            return f"in multiples of {step} bits"
    return NO


def _division(design: Design) -> str:
    kinds: list[tuple[type, str]] = [(Purpose, BY_PURPOSE), (EncDec, ENC_DEC), (Session, SESSION)]
    found = [name for kind, name in kinds if any(isinstance(division, kind) for division in design.divisions)]
    return "; ".join(found) or NO
