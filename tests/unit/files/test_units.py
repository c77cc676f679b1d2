"""Quantities: written with their unit, read exactly, refused by name."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keyhop.files import units
from keyhop.files.units import BITS, DURATION, LENGTH, LOSS, PERIOD, RATE, RATIO, SIZE, Quantity, UnitError

ALL = {name: quantity for name, quantity in vars(units).items() if isinstance(quantity, Quantity)}


@pytest.mark.parametrize(
    ("quantity", "text", "figure"),
    [
        (LENGTH, "25 km", 25.0),
        (LENGTH, "80 m", 0.08),
        (LENGTH, "6.2km", 6.2),
        (LOSS, "14.5 dB", 14.5),
        (RATE, "0.6 kbps", 600.0),
        (RATE, "2.5 Mbit/s", 2.5e6),
        (RATE, "1e3 bps", 1000.0),
        (SIZE, "64 kB", 64_000),
        (SIZE, "64 KiB", 65_536),
        (SIZE, "1.5 kB", 1500),
        (BITS, "256", 256),
        (BITS, "256 bit", 256),
        (BITS, "32 B", 256),
        (DURATION, "24 h", 86_400.0),
        (DURATION, "250 ms", 0.25),
        (RATIO, "2.9 %", 0.029),
        (RATIO, "11%", 0.11),
        (RATIO, "0 %", 0.0),
    ],
)
def test_a_quantity_is_read_in_the_unit_of_its_record(quantity: Quantity, text: str, figure: float) -> None:
    assert quantity.parse(text) == figure


@pytest.mark.parametrize(
    ("quantity", "text", "message"),
    [
        (LENGTH, "25", "25 has no unit: write it as 25 km"),
        (RATIO, "0.029", "0.029 has no unit: write it as 0.029 %"),
        (LENGTH, "25 KM", "'KM' is no unit of length: did you mean km?"),
        (SIZE, "4 kb", "'kb' is no unit of size: did you mean kB?"),
        (SIZE, "4 parsec", "'parsec' is no unit of size: units of size: B, kB"),
        (LENGTH, "far", "'far' is no length: write it as 1 km"),
        (LENGTH, "", "is no length"),
        (LENGTH, "nan km", "is no length"),
        (LENGTH, "inf km", "is no length"),
        (LENGTH, "0x10 km", "is no unit of length"),
        (LENGTH, "-1 km", "-1 km is too small: must be 0 km or more"),
        (LENGTH, "1e9 km", "1e9 km is too large: must be 100000 km or less"),
        (RATIO, "101 %", "101 % is too large: must be 100 % or less"),
        (PERIOD, "0 s", "0 s is too small: must be more than 0 s"),
        (SIZE, "1.5 B", "1.5 B is no whole number of B"),
        (BITS, "0.5", "0.5 is no whole number of bit"),
        (LENGTH, "1e999999999 km", "is no unit of length"),
        (LENGTH, "1" * 100 + " km", "is no length"),
    ],
)
def test_a_wrong_quantity_is_refused_with_what_would_be_right(quantity: Quantity, text: str, message: str) -> None:
    with pytest.raises(UnitError, match=re.escape(message)):
        quantity.parse(text)


@pytest.mark.parametrize("name", ALL)
@given(data=st.data())
def test_what_is_written_reads_as_the_same_figure(name: str, data: st.DataObject) -> None:
    quantity = ALL[name]
    low = float(quantity.minimum) if not quantity.above_minimum else 1e-6
    high = float(quantity.maximum or 1)
    if quantity.whole:
        figure: float | int = data.draw(st.integers(int(low), int(high)))
    else:
        figure = data.draw(
            st.floats(low, high, allow_subnormal=False).filter(lambda value: value == 0 or value > 1e-12)
        )
    assert quantity.parse(quantity.write(figure)) == figure


@pytest.mark.parametrize("name", ALL)
def test_the_pattern_of_the_schema_takes_every_unit(name: str) -> None:
    quantity = ALL[name]
    for unit in quantity.units:
        assert re.search(quantity.pattern, f"1 {unit}")
        assert not re.search(quantity.pattern, f"1 {unit}x")
    assert bool(re.search(quantity.pattern, "1")) == quantity.bare
    assert quantity.parse(quantity.example) >= 0


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_and_nothing_else(text: str) -> None:
    try:
        figure = LENGTH.parse(text)
    except UnitError:
        return
    assert 0 <= figure <= 100_000
