"""NSFC MTKA, 2019: as SDQaaS, and all requests are known before any is admitted."""

from __future__ import annotations

from dataclasses import replace

from keyhop.core.designs.sdqaas import SDQAAS
from keyhop.core.policy.admission import Reservation

SDQAAS_MTKA = replace(
    SDQAAS,
    name="sdqaas.mtka",
    title="NSFC MTKA, 2019: as SDQaaS, and the order of admission is chosen over all requests",
    admission=Reservation(of="slots", order="mtka", slot_bps=1000),
)
