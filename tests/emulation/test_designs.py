"""Nodes of other designs: real processes, real TLS, and keys that are the same at both ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from keyhop import KeyhopError
from keyhop.core.designs import DESIGNS, not_hosted
from keyhop.emulator import lab as labs
from keyhop.emulator.lab import Lab
from tests.emulation.small_labs import PAIR, exchange, kme, make

HOSTED = sorted(name for name in DESIGNS if name != "keyhop" and not not_hosted(DESIGNS[name]))


@pytest.fixture
def lab(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Lab]:
    lab = make(tmp_path, PAIR, node_files=lambda text: f"{text}design: {request.param}\n")
    labs.start(lab, one_process=True)
    try:
        yield lab
    finally:
        labs.stop(lab)


@pytest.mark.emulation
@pytest.mark.parametrize("lab", HOSTED, indirect=True)
def test_applications_of_both_ends_get_keys_of_the_design_over_014(lab: Lab) -> None:
    keys = [*exchange(lab, "sae-a", "sae-b", 3), *exchange(lab, "sae-b", "sae-a", 2)]
    assert len({key.reveal() for key in keys}) == 5
    with kme(lab, "sae-b") as far, pytest.raises(KeyhopError):
        far.fetch_key("sae-a", keys[0].id)
