"""Check values: the tables of the project's study of the quantum layer, computed there by a separate program that
searched for the best settings of each link; one-decoy rows with epsilon 1e-9 (SNSPD) and 1e-10 (InGaAs)."""

import dataclasses
import math

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from keyhop.emulator import rates
from keyhop.emulator.rates import AsymptoticDecoy, Gaussian, OneDecoy, plob_bits_per_pulse, presets, steady

SNSPD = OneDecoy(efficiency=0.2, dark_count_probability=1e-8, misalignment=0.01)
INGAAS = OneDecoy(efficiency=0.2, dark_count_probability=1e-6, misalignment=0.02, secrecy_epsilon=1e-10)

losses = st.floats(0.0, 90.0)


@pytest.mark.parametrize(
    ("loss_db", "kbps"),
    [(5, 6611), (10, 2063), (15, 650), (20, 205), (25, 64.8), (30, 20.4), (35, 6.4), (40, 1.96), (50, 0.127)],
)
def test_one_decoy_with_a_nanowire_detector_gives_the_rates_of_the_table(loss_db: float, kbps: float) -> None:
    assert SNSPD.at(loss_db).skr_bps / 1000 == pytest.approx(kbps, rel=0.01)


@pytest.mark.parametrize(
    ("loss_db", "kbps"), [(5, 3725), (10, 1155), (15, 359), (20, 109), (25, 30.2), (30, 5.8), (35, 0), (40, 0)]
)
def test_one_decoy_with_an_avalanche_detector_gives_the_rates_of_the_table(loss_db: float, kbps: float) -> None:
    assert INGAAS.at(loss_db).skr_bps / 1000 == pytest.approx(kbps, rel=0.01)


@pytest.mark.parametrize(("loss_db", "period_s"), [(5, 0.5), (10, 1.6), (15, 5), (20, 16), (25, 51), (30, 160)])
def test_key_comes_in_blocks_after_the_periods_of_the_table(loss_db: float, period_s: float) -> None:
    assert SNSPD.at(loss_db).block_period_s == pytest.approx(period_s, rel=0.03)


def test_at_forty_decibels_a_block_takes_half_an_hour() -> None:
    assert SNSPD.at(40).block_period_s == pytest.approx(27 * 60, rel=0.03)
    assert SNSPD.at(50).block_period_s == pytest.approx(4.7 * 3600, rel=0.03)


@pytest.mark.parametrize(("detections", "factor"), [(1e5, 3.2), (1e6, 1.5)])
def test_small_blocks_cost_rate(detections: float, factor: float) -> None:
    small = dataclasses.replace(SNSPD, block_detections=detections)
    assert SNSPD.at(20).skr_bps / small.at(20).skr_bps == pytest.approx(factor, rel=0.02)


def test_the_metro_preset_meets_the_tokyo_experiment_within_a_third() -> None:
    assert presets()["dv-metro"].at(14.5).skr_bps == pytest.approx(304e3, rel=0.33)


def test_dead_time_dominates_below_eight_decibels_and_is_nothing_at_twenty() -> None:
    dead = dataclasses.replace(INGAAS, dead_time_s=10e-9)
    assert dead.at(4).skr_bps < 0.85 * INGAAS.at(4).skr_bps
    assert dead.at(20).skr_bps > 0.99 * INGAAS.at(20).skr_bps


def test_with_a_free_running_detector_the_rate_saturates_at_its_dead_time() -> None:
    slow = dataclasses.replace(INGAAS, dead_time_s=20e-6)
    assert slow.at(0).skr_bps < 1 / 20e-6
    assert slow.at(0).skr_bps == pytest.approx(slow.at(3).skr_bps, rel=0.1)


def test_afterpulses_raise_the_error_rate_by_half_their_share() -> None:
    noisy = dataclasses.replace(SNSPD, afterpulse_probability=0.04)
    assert noisy.at(10).qber_ratio - SNSPD.at(10).qber_ratio == pytest.approx(0.02, rel=0.1)
    assert noisy.at(10).skr_bps < SNSPD.at(10).skr_bps


def test_the_settings_shipped_are_all_possible() -> None:
    for setting in rates.SETTINGS:
        assert 0 < setting.decoy < setting.signal < 1
        assert 0 < setting.signal_probability < 1
        assert 0.5 < setting.key_basis_probability < 1


@pytest.mark.parametrize(
    ("length_km", "bits"), [(0, 2.55e-3), (20, 9.62e-4), (50, 2.23e-4), (100, 1.72e-5), (120, 4.81e-6), (140, 2.46e-7)]
)
def test_asymptotic_decoy_gives_the_check_values(length_km: float, bits: float) -> None:
    assert AsymptoticDecoy().bits_per_pulse(0.21 * length_km)[0] == pytest.approx(bits, rel=0.01)


def test_asymptotic_decoy_ends_at_one_hundred_and_forty_two_kilometres() -> None:
    assert AsymptoticDecoy().bits_per_pulse(0.21 * 141.5)[0] > 0
    assert AsymptoticDecoy().bits_per_pulse(0.21 * 142.5)[0] == 0
    assert AsymptoticDecoy().at(0.21 * 142.5).block_bits == 0


@pytest.mark.parametrize(
    ("length_km", "shared", "known", "key"),
    [
        (5, 0.7627, 0.3347, 0.38989),
        (25, 0.4037, 0.2919, 0.09163),
        (50, 0.1537, 0.1232, 0.02287),
        (80, 0.0418, 0.0346, 0.00513),
    ],
)
def test_gaussian_modulation_gives_the_check_values(length_km: float, shared: float, known: float, key: float) -> None:
    assert Gaussian().informations(0.2 * length_km) == pytest.approx((shared, known), abs=1e-4)
    assert Gaussian().bits_per_symbol(0.2 * length_km) == pytest.approx(key, rel=0.01)


def test_gaussian_modulation_gives_the_figures_of_the_twenty_five_kilometre_experiment() -> None:
    lodewyck = Gaussian(
        variance=18.5, excess_noise=0.005, efficiency=0.606, electronic_noise=0.041, reconciliation=0.898
    )
    loss_db = -10 * math.log10(0.302)
    assert lodewyck.informations(loss_db) == pytest.approx((1.0436, 0.9020), abs=1e-3)
    assert lodewyck.bits_per_symbol(loss_db) == pytest.approx(0.0352, rel=0.01)


def test_the_finite_size_of_a_block_limits_the_reach_of_continuous_variables() -> None:
    def reach_km(symbols: float) -> int:
        model = Gaussian(block_symbols=symbols)
        return max(km for km in range(150) if model.at(0.2 * km).block_bits)

    assert 15 < reach_km(1e6) < 35
    assert 35 < reach_km(1e8) < 75
    assert reach_km(1e6) < reach_km(1e7) < reach_km(1e8)


def test_the_cow_preset_goes_through_its_two_measured_points() -> None:
    assert presets()["cow"].at(16.4).skr_bps == pytest.approx(600)
    assert presets()["cow"].at(51.9).skr_bps == pytest.approx(3.18)


def test_the_legacy_preset_is_constant_and_then_falls_ten_decibels_in_twenty_five_kilometres() -> None:
    legacy = presets()["dv-legacy"]
    assert legacy.at(1).skr_bps == legacy.at(5.5).skr_bps == 1000
    assert legacy.at(10.5).skr_bps == pytest.approx(100)


def test_the_entangled_preset_gives_two_kilobits_at_sixteen_kilometres() -> None:
    assert presets()["entangled"].at(3.2).skr_bps == pytest.approx(2000)


def test_presets_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        presets()["dv-metro"] = SNSPD  # type: ignore[index]


@pytest.mark.parametrize("name", sorted(presets()))
@given(low=losses, more=st.floats(0.0, 30.0))
@settings(max_examples=60, deadline=None)
def test_more_loss_never_gives_more_key(name: str, low: float, more: float) -> None:
    model = presets()[name]
    assert model.at(low + more).skr_bps <= model.at(low).skr_bps * (1 + 1e-9)


@given(loss_db=st.floats(0.0, 45.0), detections=st.floats(3e4, 1e9), factor=st.floats(1.0, 100.0))
@settings(max_examples=200, deadline=None)
def test_a_larger_block_never_gives_a_lower_rate(loss_db: float, detections: float, factor: float) -> None:
    small = dataclasses.replace(SNSPD, block_detections=detections).at(loss_db)
    large = dataclasses.replace(SNSPD, block_detections=detections * factor).at(loss_db)
    one_bit_bps = 1 / large.block_period_s
    assert large.skr_bps + one_bit_bps >= small.skr_bps


@given(
    loss_db=losses,
    efficiency=st.floats(0.01, 1.0),
    dark=st.floats(1e-10, 1e-4),
    misalignment=st.floats(0.0, 0.1),
    detections=st.floats(1e5, 1e12),
)
@settings(max_examples=1000, deadline=None)
def test_one_decoy_never_exceeds_what_a_line_without_repeaters_can_give(
    loss_db: float, efficiency: float, dark: float, misalignment: float, detections: float
) -> None:
    model = OneDecoy(
        efficiency=efficiency, dark_count_probability=dark, misalignment=misalignment, block_detections=detections
    )
    assert model.at(loss_db).skr_bps / model.clock_hz <= plob_bits_per_pulse(loss_db)


@given(
    loss_db=losses,
    variance=st.floats(0.1, 40.0),
    excess_noise=st.floats(0.0, 0.2),
    efficiency=st.floats(0.1, 1.0),
    electronic_noise=st.floats(0.0, 0.3),
)
@settings(max_examples=1000, deadline=None)
def test_gaussian_modulation_never_exceeds_what_a_line_without_repeaters_can_give(
    loss_db: float, variance: float, excess_noise: float, efficiency: float, electronic_noise: float
) -> None:
    model = Gaussian(
        variance=variance,
        excess_noise=excess_noise,
        efficiency=efficiency,
        electronic_noise=electronic_noise,
        reconciliation=1.0,
    )
    assume(loss_db > 0)
    bound = plob_bits_per_pulse(loss_db)
    assert model.bits_per_symbol(loss_db) <= bound + 1e-9
    assert model.at(loss_db).skr_bps / model.clock_hz <= bound


@pytest.mark.parametrize("name", sorted(presets()))
def test_no_preset_exceeds_what_a_line_without_repeaters_can_give(name: str) -> None:
    clock_hz = getattr(presets()[name], "clock_hz", 1e9)
    for loss_db in range(1, 100):
        assert presets()[name].at(loss_db).skr_bps / clock_hz <= plob_bits_per_pulse(loss_db)


@given(rate_bps=st.floats(0.001, 1e9))
def test_a_given_rate_is_kept_exactly_by_blocks_of_a_power_of_two(rate_bps: float) -> None:
    rate = steady(rate_bps, 0.02)
    block_bytes = rate.block_bits // 8
    assert rate.skr_bps == pytest.approx(rate_bps)
    assert block_bytes.bit_count() == 1
    assert rates.BLOCK_MIN_BYTES <= block_bytes <= rates.BLOCK_MAX_BYTES
    if rates.BLOCK_MIN_BYTES < block_bytes < rates.BLOCK_MAX_BYTES:
        assert 7 < rate.block_period_s < 14.2


@pytest.mark.parametrize(
    ("kbps", "block_bytes", "period_s"), [(0.6, 1024, 13.65), (1, 1024, 8.19), (3.1, 4096, 10.57), (10, 16384, 13.107)]
)
def test_the_links_of_vienna_give_blocks_of_about_ten_seconds(kbps: float, block_bytes: int, period_s: float) -> None:
    rate = steady(kbps * 1000, 0.03)
    assert rate.block_bits == block_bytes * 8
    assert rate.block_period_s == pytest.approx(period_s, rel=0.001)


@pytest.mark.parametrize("rate_bps", [0.0, -1.0, 1e-9, math.inf, math.nan])
def test_a_rate_that_would_never_fill_a_block_is_refused(rate_bps: float) -> None:
    with pytest.raises(ValueError, match="must be at least"):
        steady(rate_bps, 0.02)


def test_where_no_key_can_be_had_the_block_is_empty_and_its_period_finite() -> None:
    for name in presets():
        nothing = presets()[name].at(200.0)
        assert nothing.block_bits == 0
        assert 0 < nothing.block_period_s < math.inf
