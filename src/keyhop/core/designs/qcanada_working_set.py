"""Quantum Canada, 2018, with working sets: both ends serve a few shared keys from opposite ends."""

from __future__ import annotations

from dataclasses import replace

from keyhop.core.designs.qcanada import QCANADA
from keyhop.core.designs.source import C, S
from keyhop.core.policy.division import Purpose, Shared
from keyhop.core.policy.synchronisation import WorkingSet

QCANADA_WORKING_SET = replace(
    QCANADA,
    name="qcanada.working_set",
    title="Quantum Canada, 2018, with working sets: both sites serve a few shared keys from opposite ends",
    division=(Purpose(shares=(("direct", 0.4), ("own", 0.3), ("transit", 0.3))), Shared()),
    synchronisation=WorkingSet(size=64, ends="opposite"),
    sources={
        S: (
            *(path for path in QCANADA.sources[S] if path != "division"),
            "division.purpose",
            "synchronisation",
            "synchronisation.ends",
        ),
        C: tuple(path for path in QCANADA.sources[C] if path != "synchronisation"),
    },
)
