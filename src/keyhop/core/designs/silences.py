"""Where the survey is silent or says two things, and what was chosen then."""

from __future__ import annotations

from typing import NamedTuple


class Silence(NamedTuple):
    rows: tuple[str, ...]
    """Rows of the survey's tables; none: it concerns all."""
    open: str
    chosen: str


SILENCES = (
    Silence(("SECOQC",), "How large a block is stands nowhere.", "256 bits, as in public Q3P code."),
    Silence(
        ("Quantum Canada",),
        "The text deals rounds to relay flows, Table 2 has no sharing.",
        "Both hold if sharing means sharing between applications.",
    ),
    Silence(
        ("Quantum Canada",),
        "Table 2 has request priority; section 4.2 says that classes only choose a fallback.",
        "Requests are ordered by category; `fifo` is the other reading.",
    ),
    Silence(
        ("NICT QKD platform",),
        "Table 3 leaves the division of keys open, section 4.3 thinks directions likely.",
        "`enc_dec`, and it counts as ours.",
    ),
    Silence(
        ("KISTI",),
        "HKDF stretches short key in need, and yet every supplied key comes from it.",
        "Two answers: `derive` as fallback, `kdf` as formatting.",
    ),
    Silence(
        ("NECTEC",),
        "There are buffers per application and buffers per direction; which is inside which is open.",
        "Applications outside, directions inside.",
    ),
    Silence(
        ("QoS-supported KM",),
        "No protocol is given, and what is guaranteed may be an amount or a rate.",
        "An amount; `of = rate` is the other reading.",
    ),
    Silence(
        ("NSFC SDQaaS",),
        "MTKA knows all requests beforehand, SDQaaS takes them as they come.",
        "Two designs that differ in the order of admission.",
    ),
    Silence(
        ("Cisco",),
        "Hexadecimal text saves nothing against raw bytes, only against text of single bits.",
        "Stored as hexadecimal text, as it says; its cost is a figure to show.",
    ),
    Silence(
        ("Cisco",),
        "Nothing says how a requested size is met.",
        "As many rows as it takes, oldest first; the rest of the last one is booked as rounding.",
    ),
    Silence(
        ("SECOQC", "Toshiba"),
        "Admission and the ceiling of a path both need the rate that a path can carry; neither is given.",
        "One estimate for both: the smallest free rate of its links.",
    ),
    Silence(
        ("DARPA",),
        "Table 2 names list, reserve and obtain, but agreement between the two ends is left to IKE.",
        "Nothing is said between the key managers.",
    ),
    Silence(
        ("SECOQC",),
        "All messages of LOAD are authenticated and come in three stages; in public code one is not, and two suffice.",
        "All are authenticated, two or three of them.",
    ),
    Silence(
        ("NEC",),
        "Keys allocated ahead have no thresholds in Table 3, though something must say when to make them.",
        "Key on demand follows the table; `nec.fixed` has marks of ours.",
    ),
    Silence(
        ("Toshiba",),
        "Table 3 has no thresholds, but its links are SECOQC's, which refill below one.",
        "The local part keeps SECOQC's refill; the row is read as that of the global part.",
    ),
    Silence(
        ("AIT",),
        "Table 2 has no fallback, section 3.16 speaks of hybrids with post-quantum keys.",
        "None; a hybrid is another design.",
    ),
    Silence(
        ("SECOQC",),
        "Sharing is by reservation, and yet a rate may later be lowered.",
        "A rate is admitted or refused at set-up; nothing is promised for later.",
    ),
    Silence(
        ("KISTI",),
        "Smaller keys come from a larger one, so that a stored key may be much larger than 256 bits.",
        "256 bits; other sizes are a matter for comparison.",
    ),
    Silence(
        ("Cisco",),
        "A block of 64 bits kept as text may be 64 bits of key or of text.",
        "64 bits of key, which are 16 characters.",
    ),
    Silence(
        ("Cisco",),
        "No global store, though experiments with relay are mentioned.",
        "No relay.",
    ),
    Silence(
        ("NKPs DDKA-QKDN", "NSFC SDQaaS"),
        "Both allocate dynamically, but Table 2 counts only SDQaaS as sharing.",
        "As the table has it: first come among those that wait.",
    ),
    Silence(
        (),
        "Section 2.2 says that synchronised key ids help to find malicious requests.",
        "An id that is forged, foreign or repeated is refused by the first key manager that sees it.",
    ),
    Silence(
        ("NECTEC",),
        "How the first relay node learns which local key it is to pass on, and where to, is not said.",
        "A message of its own (ROUTE) names range and path; no key is in it.",
    ),
    Silence(
        ("NICT QKD platform",),
        "In 2011 key managers could encrypt user data themselves, which crosses the boundary of key supply.",
        "Not offered: nothing but key leaves a key manager.",
    ),
    Silence(
        ("NKPs DDKA-QKDN",),
        "In what ratio keys of the five sizes are to be prepared is not defined.",
        "Equal bits; shares by demand are the other answer, and the study compares both.",
    ),
    Silence(
        ("SwissQuantum",),
        "Nothing says when key from QKD is trusted to be back.",
        "When 16 units are stored, so that it does not come and go.",
    ),
    Silence(
        ("QCC",),
        "Both ends must refill alike, and how they agree on it is not described.",
        "The master names the ranges and the other end accepts or refuses.",
    ),
)


def silences(row: str) -> list[Silence]:
    """Those of one row of the tables."""
    return [silence for silence in SILENCES if row in silence.rows]
