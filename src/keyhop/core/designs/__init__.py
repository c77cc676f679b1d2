"""Key managers as compositions of policy parts, and the table that names them."""

from __future__ import annotations

from keyhop.core.designs.ait import AIT
from keyhop.core.designs.cisco import CISCO
from keyhop.core.designs.darpa import DARPA
from keyhop.core.designs.ddka import DDKA
from keyhop.core.designs.design import Access, Design, Formatting, LocalGlobal
from keyhop.core.designs.keyhop import KEYHOP
from keyhop.core.designs.kisti import KISTI
from keyhop.core.designs.magiq import MAGIQ
from keyhop.core.designs.nec import NEC
from keyhop.core.designs.nec_fixed import NEC_FIXED
from keyhop.core.designs.nectec import NECTEC
from keyhop.core.designs.nict import NICT
from keyhop.core.designs.nist import NIST
from keyhop.core.designs.qcanada import QCANADA
from keyhop.core.designs.qcanada_working_set import QCANADA_WORKING_SET
from keyhop.core.designs.qcc import QCC
from keyhop.core.designs.qkdnetsim_like import QKDNETSIM_LIKE
from keyhop.core.designs.qos import QOS
from keyhop.core.designs.rules import check
from keyhop.core.designs.running import (
    NotRunning,
    Running,
    carrier,
    controlled,
    hosted,
    no_relay,
    not_hosted,
    not_wired,
    on_a_node,
    running,
)
from keyhop.core.designs.sdqaas import SDQAAS
from keyhop.core.designs.sdqaas_mtka import SDQAAS_MTKA
from keyhop.core.designs.secoqc import SECOQC
from keyhop.core.designs.swissquantum import SWISSQUANTUM
from keyhop.core.designs.toshiba_2016 import TOSHIBA_2016
from keyhop.core.designs.toshiba_2019 import TOSHIBA_2019

DESIGNS: dict[str, Design] = {
    design.name: design
    for design in (
        KEYHOP,
        DARPA,
        SECOQC,
        NIST,
        QCC,
        NEC,
        NEC_FIXED,
        MAGIQ,
        SWISSQUANTUM,
        QOS,
        NECTEC,
        TOSHIBA_2016,
        TOSHIBA_2019,
        NICT,
        QCANADA,
        QCANADA_WORKING_SET,
        SDQAAS,
        SDQAAS_MTKA,
        DDKA,
        KISTI,
        AIT,
        CISCO,
        QKDNETSIM_LIKE,
    )
}

__all__ = [
    "DESIGNS",
    "Access",
    "Design",
    "Formatting",
    "LocalGlobal",
    "NotRunning",
    "Running",
    "carrier",
    "check",
    "controlled",
    "hosted",
    "no_relay",
    "not_hosted",
    "not_wired",
    "on_a_node",
    "running",
]
