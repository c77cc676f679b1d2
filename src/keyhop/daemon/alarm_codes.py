"""The table of alarm codes: what each means, why it comes, what to do, and which one ends it.

A code is stable: scripts and pages refer to it. KH-1xxx quantum and link, KH-2xxx pool and delivery, KH-3xxx relay and
routing, KH-4xxx certificates and access, KH-5xxx node, store and audit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType

from keyhop.wire.manage import Severity

MINUTE_S = 60.0
HOUR_S = 3600.0
DAY_S = 86_400.0


class About(StrEnum):
    """What an alarm is about: the first word of its object."""

    LINK = "link"
    """The link to a neighbour; with a key manager that is none, the pair that the two form."""
    PATH = "path"
    """Relay between this node and another one."""
    NODE = "node"
    APPLICATION = "application"
    CERTIFICATE = "certificate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Code:
    severity: Severity
    about: About
    title: str
    cause: str
    remedy: str
    ends: tuple[str, ...] = ()
    """Codes about the same object that are over when this one comes."""
    quiet_s: float | None = None
    """An incident: over when it has not come again for this long. None: it lasts until another code ends it."""

    @property
    def is_news(self) -> bool:
        """Nothing to do about it: it only ends others."""
        return self.severity is Severity.CLEARED


CODES: Mapping[str, Code] = MappingProxyType(
    {
        "KH-1101": Code(
            severity=Severity.WARNING,
            about=About.LINK,
            title="A module delivered a block that cannot be taken in",
            cause="The block is empty, larger than 1 MiB, or has an impossible number.",
            remedy="Check the module's block size and firmware; the block is destroyed, the link goes on.",
            quiet_s=10 * MINUTE_S,
        ),
        "KH-1102": Code(
            severity=Severity.WARNING,
            about=About.LINK,
            title="A module delivered a block twice",
            cause="The module restarted and repeated what it had delivered before. The repetition is destroyed.",
            remedy="Nothing, if the module was restarted; otherwise check its numbering of blocks.",
            quiet_s=10 * MINUTE_S,
        ),
        "KH-1103": Code(
            severity=Severity.MINOR,
            about=About.LINK,
            title="A block differs at the two ends",
            cause="Error correction left an error, one module lost or changed the block, or somebody tampers with one.",
            remedy="The block is destroyed at both ends. If it comes again: compare the counters of both modules.",
            quiet_s=10 * MINUTE_S,
        ),
        "KH-1200": Code(
            severity=Severity.CLEARED,
            about=About.LINK,
            title="A link is up",
            cause="Both ends have proved themselves and compared what they know.",
            remedy="Nothing.",
            ends=("KH-1201", "KH-1302", "KH-1303", "KH-1306"),
        ),
        "KH-1201": Code(
            severity=Severity.MAJOR,
            about=About.LINK,
            title="A link is down",
            cause="The other key manager was stopped, the network between them is broken, or it was silent for 15 s.",
            remedy="See keyhop status at the other node, then the network between the two peer addresses. "
            "What is leased already can still be used.",
        ),
        "KH-1203": Code(
            severity=Severity.MAJOR,
            about=About.LINK,
            title="A quantum link gives no key: it is disturbed",
            cause="The error rate is above its limit: an eavesdropper, a bent or dirty fibre, a misaligned module.",
            remedy="Check fibre and module. Key in stock stays good; relayed key takes other paths.",
            ends=("KH-1204",),
        ),
        "KH-1204": Code(
            severity=Severity.MAJOR,
            about=About.LINK,
            title="A quantum link gives no key: there is no signal",
            cause="The fibre is cut, the module is off, or its driver failed.",
            remedy="Check fibre, module and the reason given. Key in stock stays good; relayed key takes other paths.",
            ends=("KH-1203",),
        ),
        "KH-1205": Code(
            severity=Severity.CLEARED,
            about=About.LINK,
            title="A quantum link gives key again",
            cause="The disturbance is over.",
            remedy="Nothing.",
            ends=("KH-1203", "KH-1204"),
        ),
        "KH-1301": Code(
            severity=Severity.MAJOR,
            about=About.LINK,
            title="A key manager broke the protocol",
            cause="A forged or damaged frame, a false state, another version, or first-contact files that do not fit "
            "together. The connection is closed and opened anew, later each time.",
            remedy="Read the reason. Compare versions at both ends; if the link numbers differ, make one first-contact "
            "file with keyhop link key and load it on both.",
            quiet_s=10 * MINUTE_S,
        ),
        "KH-1302": Code(
            severity=Severity.CRITICAL,
            about=About.LINK,
            title="No opening key is left with a neighbour",
            cause="Openings used up what both ends have: a long series of failed ones, or stores that were restored.",
            remedy="Give both nodes a new store and a new first-contact file (keyhop link key). Key in the old ones is "
            "lost.",
        ),
        "KH-1306": Code(
            severity=Severity.CRITICAL,
            about=About.LINK,
            title="Openings with a neighbour fail again and again",
            cause="Each takes a key of the few that openings have and leads to no proof: the network breaks each time, "
            "the two stores do not fit together, or somebody has the neighbour's certificate without its secret. The "
            "next opening waits, up to 10 minutes.",
            remedy="Look at the neighbour and its log; if it was the network, nothing else is to be done. If somebody "
            "else has its certificate, take the link out of the node file until that ends. If no opening can succeed "
            "any more, give both nodes a new store and a new first-contact file (keyhop link key); key in the old ones "
            "is lost.",
        ),
        "KH-1303": Code(
            severity=Severity.CRITICAL,
            about=About.LINK,
            title="No tag key is left with a neighbour",
            cause="The link gave no key for so long that authentication used up what there was.",
            remedy="Give both nodes a new store and a new first-contact file (keyhop link key). Key in the old ones is "
            "lost.",
        ),
        "KH-1304": Code(
            severity=Severity.WARNING,
            about=About.LINK,
            title="A first-contact secret was refused",
            cause="The two nodes hold common key already; a second secret would take its place in the same positions.",
            remedy="Remove first_contact from the node file, and destroy the file it names.",
            quiet_s=DAY_S,
        ),
        "KH-1305": Code(
            severity=Severity.WARNING,
            about=About.LINK,
            title="The store knows a link that the node file does not",
            cause="The link was removed from the node file, or the node file is that of another node.",
            remedy="Put the link back, or leave it: its key stays sealed and unused.",
            quiet_s=DAY_S,
        ),
        "KH-2101": Code(
            severity=Severity.WARNING,
            about=About.APPLICATION,
            title="An application was refused for lack of key",
            cause="More key is asked for than its path gives, or a link of the path is down.",
            remedy="See keyhop pool list and keyhop route list; ask for less, or set quotas for the others.",
            quiet_s=MINUTE_S,
        ),
        "KH-2104": Code(
            severity=Severity.WARNING,
            about=About.APPLICATION,
            title="A guaranteed stream has no guarantee",
            cause="A link of its path gives too little key for the rate that the policy promises, or is down. Until it "
            "has its guarantee the stream is served as best effort.",
            remedy="Promise less, or promise less to others: the notice says what could be promised.",
        ),
        "KH-2105": Code(
            severity=Severity.CLEARED,
            about=About.APPLICATION,
            title="A guaranteed stream has its guarantee",
            cause="All links of its path can promise its rate.",
            remedy="Nothing.",
            ends=("KH-2104",),
        ),
        "KH-2301": Code(
            severity=Severity.MAJOR,
            about=About.LINK,
            title="A run is at its end",
            cause="16 GiB of key were shared with this key manager in one direction: positions never wrap.",
            remedy="Make a new link with a first-contact file of its own.",
            quiet_s=DAY_S,
        ),
        "KH-2302": Code(
            severity=Severity.WARNING,
            about=About.LINK,
            title="A lease was refused",
            cause="The two ends disagree on what is still untouched. Nothing is used; the segments in doubt are burnt.",
            remedy="Nothing, if an end was just restarted; otherwise compare both ends with keyhop pool show.",
            quiet_s=10 * MINUTE_S,
        ),
        "KH-2303": Code(
            severity=Severity.MAJOR,
            about=About.LINK,
            title="The neighbour runs another design",
            cause="The node files of the two ends name different designs. They share no key.",
            remedy="Write the same design: into both node files and restart both nodes.",
            quiet_s=10 * MINUTE_S,
        ),
        "KH-2304": Code(
            severity=Severity.MAJOR,
            about=About.LINK,
            title="A hosted design failed on a link",
            cause=(
                "An error in the rooms of another design than our own, by what a neighbour has said or by a bug. What "
                "both ends shared of it is burnt at this end and the link opens anew; other links go on."
            ),
            remedy="If it comes again, look at the neighbour; a design that anybody depends on should be keyhop.",
            quiet_s=10 * MINUTE_S,
        ),
        "KH-3101": Code(
            severity=Severity.MINOR,
            about=About.PATH,
            title="Nothing is heard of a node any more",
            cause="The node is down, or every path to it is.",
            remedy="See keyhop link list at the nodes around it.",
        ),
        "KH-3100": Code(
            severity=Severity.CLEARED,
            about=About.PATH,
            title="A node is heard of again",
            cause="It is up, and a path leads to it.",
            remedy="Nothing.",
            ends=("KH-3101",),
        ),
        "KH-3102": Code(
            severity=Severity.MAJOR,
            about=About.PATH,
            title="Two nodes claim one application",
            cause="A node says that it serves an application that another one serves already. The first is believed.",
            remedy="If the application has moved, write it in the directory: of the node file; else look at that node.",
            quiet_s=10 * MINUTE_S,
        ),
        "KH-3103": Code(
            severity=Severity.MAJOR,
            about=About.PATH,
            title="Link state that its node has not signed",
            cause=(
                "A neighbour handed on what a node is said to have told, and the signature is missing, wrong, or by a "
                "certificate that is out of date or of another authority. It was dropped."
            ),
            remedy=(
                "Compare certificates, authority files and clocks of that node and of this one. If they are in order, "
                "somebody forges: look at the neighbour."
            ),
            quiet_s=10 * MINUTE_S,
        ),
        "KH-3201": Code(
            severity=Severity.WARNING,
            about=About.PATH,
            title="A relayed batch failed",
            cause="A hop of the path had too little key, went down, or did not answer in time. It is tried again.",
            remedy="If it stays: see keyhop route show, and the stock of the narrowest link.",
            quiet_s=MINUTE_S,
        ),
        "KH-3202": Code(
            severity=Severity.MINOR,
            about=About.PATH,
            title="A relayed batch was refused here",
            cause="It was changed on its way, or its source and this node disagree on where it goes.",
            remedy="If it comes again: look for a relay node that damages or forges batches.",
            quiet_s=10 * MINUTE_S,
        ),
        "KH-3301": Code(
            severity=Severity.CRITICAL,
            about=About.LINK,
            title="A neighbour named a pad that is not its own, or that is used",
            cause="The neighbour was restored from a copy without knowing it, or it is not honest. Nothing is lost.",
            remedy="Run keyhop node restored at that node if it was restored; otherwise take it out of service.",
            quiet_s=DAY_S,
        ),
        "KH-4101": Code(
            severity=Severity.WARNING,
            about=About.CERTIFICATE,
            title="A certificate of this node expires soon",
            cause="Two thirds of its life are over.",
            remedy="Issue a new one (keyhop pki issue) and restart the node.",
        ),
        "KH-4102": Code(
            severity=Severity.CRITICAL,
            about=About.CERTIFICATE,
            title="A certificate of this node has expired",
            cause="It was not renewed in time. Applications and other key managers refuse to talk to this node.",
            remedy="Issue a new one (keyhop pki issue) and restart the node.",
            ends=("KH-4101",),
        ),
        "KH-5101": Code(
            severity=Severity.MAJOR,
            about=About.NODE,
            title="This node was restored from an old copy",
            cause="The store is older than its anchor or than what a neighbour remembers, or an operator said so.",
            remedy="Nothing: open keys and leases are burnt and every link opens anew. Keep the store out of backups.",
            quiet_s=DAY_S,
        ),
        "KH-5201": Code(
            severity=Severity.WARNING,
            about=About.LINK,
            title="Leases were burnt",
            cause="One of the two ends was restored from an old copy.",
            remedy="Nothing: fresh leases follow as soon as the link is open.",
            quiet_s=HOUR_S,
        ),
        "KH-5300": Code(
            severity=Severity.CLEARED,
            about=About.NODE,
            title="The audit log is written again",
            cause="There is room on the disk, or the file may be written.",
            remedy="Nothing.",
            ends=("KH-5301",),
        ),
        "KH-5301": Code(
            severity=Severity.CRITICAL,
            about=About.NODE,
            title="The audit log cannot be written: no key is supplied",
            cause="The disk is full or broken, or the file was made read-only.",
            remedy="Make room or correct the permissions; the node goes on by itself. After a failed sync: restart it.",
        ),
    }
)
"""By code. What is not in here is no alarm: a test compares the table with the source."""
