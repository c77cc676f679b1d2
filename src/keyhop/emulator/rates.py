"""How much key a QKD link gives: block length, block period and QBER as functions of the loss of its fibre.

Key comes in blocks, not as a smooth stream: a finite-key model says how many bits one block of detections is worth,
and the block is there when that many detections have been made.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple, Protocol

DEFAULT_ATTENUATION_DB_PER_KM = 0.2
"""G.652 fibre at 1550 nm; deployed metropolitan fibre has 0.3 to 0.5."""

STEADY_BLOCK_S = 10.0
"""A link of given rate gives blocks of about this much time."""
BLOCK_MIN_BYTES = 256
BLOCK_MAX_BYTES = 1024 * 1024
PERIOD_LIMIT_S = 30 * 86_400.0


class KeyRate(NamedTuple):
    """What one block is worth and how long it takes. `block_bits` is 0 where no key can be had."""

    block_bits: int
    block_period_s: float
    qber_ratio: float
    """Of the basis that key is made from."""
    epsilon: float = 0.0
    """Failure probability of the block (secrecy and correctness together); 0.0 where the model has none."""

    @property
    def skr_bps(self) -> float:
        return self.block_bits / self.block_period_s


class RateModel(Protocol):
    def at(self, loss_db: float) -> KeyRate: ...


def steady(rate_bps: float, qber_ratio: float, epsilon: float = 0.0) -> KeyRate:
    """Blocks of exactly this mean rate: the power of two of bytes nearest to 10 s of it, 256 B to 1 MiB.

    Raises ValueError for a rate that would take more than 30 days for a block of 256 bytes.
    """
    lowest_bps = BLOCK_MIN_BYTES * 8 / PERIOD_LIMIT_S
    if not lowest_bps <= rate_bps < math.inf:
        raise ValueError(f"rate = {rate_bps} bit/s: must be at least {lowest_bps:.1g} bit/s")
    wanted_bytes = rate_bps * STEADY_BLOCK_S / 8
    nearest_bytes = 2 ** max(0, round(math.log2(max(1.0, wanted_bytes))))
    block_bytes = min(BLOCK_MAX_BYTES, max(BLOCK_MIN_BYTES, nearest_bytes))
    return KeyRate(block_bytes * 8, block_bytes * 8 / rate_bps, qber_ratio, epsilon)


def _steady_or_none(rate_bps: float, qber_ratio: float) -> KeyRate:
    try:
        return steady(rate_bps, qber_ratio)
    except ValueError:
        return KeyRate(0, PERIOD_LIMIT_S, qber_ratio)


def plob_bits_per_pulse(loss_db: float) -> float:
    """No protocol without a repeater gives more (Pirandola, Laurenza, Ottaviani, Banchi 2017)."""
    transmittance = 10 ** (-loss_db / 10)
    return math.inf if transmittance >= 1.0 else -math.log2(1 - transmittance)


def binary_entropy(ratio: float) -> float:
    if ratio <= 0.0 or ratio >= 1.0:
        return 0.0
    return -ratio * math.log2(ratio) - (1 - ratio) * math.log2(1 - ratio)


class Setting(NamedTuple):
    """What a one-decoy sender chooses: two intensities, how often the first, how often the key basis."""

    signal: float
    decoy: float
    signal_probability: float
    key_basis_probability: float


SETTINGS = (
    Setting(0.51, 0.155, 0.70, 0.885),
    Setting(0.50, 0.143, 0.707, 0.851),
    Setting(0.466, 0.116, 0.763, 0.681),
    Setting(0.39, 0.12, 0.658, 0.865),
    Setting(0.386, 0.11, 0.685, 0.815),
    Setting(0.44, 0.147, 0.346, 0.691),
    Setting(0.472, 0.168, 0.525, 0.813),
    Setting(0.576, 0.091, 0.88, 0.95),
)
"""Optima found by search at 1 and 2 % misalignment, low and high loss, blocks of 10^5 to 10^9 detections. The optimum
is flat: the best of these is taken for each link, which costs about 1 % against a search at the usual 10^7."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OneDecoy:
    """BB84 with one decoy intensity and finite key (Rusca et al., Appl. Phys. Lett. 112, 171104, 2018)."""

    clock_hz: float = 1e9
    efficiency: float
    """Of the receiver, detector included."""
    dark_count_probability: float
    """Per gate and detector; there are two."""
    misalignment: float
    """Error of a photon that was detected."""
    afterpulse_probability: float = 0.0
    dead_time_s: float = 0.0
    reconciliation: float = 1.16
    """What error correction leaks, in units of the Shannon limit."""
    block_detections: float = 1e7
    """Detections in the key basis that make one block."""
    secrecy_epsilon: float = 1e-9
    correctness_epsilon: float = 1e-15

    def at(self, loss_db: float) -> KeyRate:
        return _best_one_decoy(self, loss_db)

    def with_setting(self, setting: Setting, loss_db: float) -> KeyRate:
        transmittance = 10 ** (-loss_db / 10) * self.efficiency
        intensities = (setting.signal, setting.decoy)
        chances = (setting.signal_probability, 1 - setting.signal_probability)
        clicks = [1 - (1 - 2 * self.dark_count_probability) * math.exp(-transmittance * mu) for mu in intensities]
        detections = [click * (1 + self.afterpulse_probability) for click in clicks]
        errors = [
            self.dark_count_probability
            + self.misalignment * (1 - math.exp(-transmittance * mu))
            + self.afterpulse_probability * click / 2
            for mu, click in zip(intensities, clicks, strict=True)
        ]
        per_pulse = sum(chance * rate for chance, rate in zip(chances, detections, strict=True))
        dead = 1 + self.clock_hz * per_pulse * self.dead_time_s
        key_basis = setting.key_basis_probability**2
        test_basis = (1 - setting.key_basis_probability) ** 2
        pulses = self.block_detections / (key_basis * per_pulse)
        counts = _Counts(
            intensities=intensities,
            chances=chances,
            key=[pulses * key_basis * chance * rate for chance, rate in zip(chances, detections, strict=True)],
            key_errors=[pulses * key_basis * chance * rate for chance, rate in zip(chances, errors, strict=True)],
            test=[pulses * test_basis * chance * rate for chance, rate in zip(chances, detections, strict=True)],
            test_errors=[pulses * test_basis * chance * rate for chance, rate in zip(chances, errors, strict=True)],
            epsilon=self.secrecy_epsilon / 19,
        )
        qber = sum(counts.key_errors) / sum(counts.key)
        secret = counts.secret_bits() - self.reconciliation * sum(counts.key) * binary_entropy(qber)
        secret -= 6 * math.log2(19 / self.secrecy_epsilon) + math.log2(2 / self.correctness_epsilon)
        return KeyRate(
            max(0, math.floor(secret)),
            pulses * dead / self.clock_hz,
            qber,
            self.secrecy_epsilon + self.correctness_epsilon,
        )


@lru_cache(maxsize=4096)
def _best_one_decoy(model: OneDecoy, loss_db: float) -> KeyRate:
    return max((model.with_setting(setting, loss_db) for setting in SETTINGS), key=lambda rate: rate.skr_bps)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    """Detections and errors of one block for each intensity, as expected; the bounds on what is behind them."""

    intensities: tuple[float, float]
    chances: tuple[float, float]
    key: list[float]
    key_errors: list[float]
    test: list[float]
    test_errors: list[float]
    epsilon: float
    """Of each single bound."""

    def secret_bits(self) -> float:
        """Before error correction and the finite-key constants."""
        ones = self._ones(self.key, self.key_errors)
        test_ones = self._ones(self.test, self.test_errors)
        if ones <= 0 or test_ones <= 0:
            return 0.0
        mu_1, mu_2 = self.intensities
        high, low = self._weighted(self.test_errors, +1), self._weighted(self.test_errors, -1)
        wrong_ones = max(0.0, self._emission(1) * (high[0] - low[1]) / (mu_1 - mu_2))
        phase_error = min(0.5, wrong_ones / test_ones)
        phase_error = min(0.5, phase_error + self._fluctuation(phase_error, ones, test_ones))
        return self._none_lowest(self.key) + ones * (1 - binary_entropy(phase_error))

    def _emission(self, photons: int) -> float:
        return sum(
            chance * math.exp(-mu) * mu**photons / math.factorial(photons)
            for mu, chance in zip(self.intensities, self.chances, strict=True)
        )

    def _spread(self, total: float) -> float:
        """Hoeffding."""
        return math.sqrt(total / 2 * math.log(1 / self.epsilon))

    def _weighted(self, counts: list[float], sign: int) -> list[float]:
        spread = self._spread(sum(counts))
        return [
            math.exp(mu) / chance * (count + sign * spread)
            for mu, chance, count in zip(self.intensities, self.chances, counts, strict=True)
        ]

    def _none_lowest(self, counts: list[float]) -> float:
        """At least so many detections came from pulses without a photon."""
        mu_1, mu_2 = self.intensities
        high, low = self._weighted(counts, +1), self._weighted(counts, -1)
        return max(0.0, self._emission(0) / (mu_1 - mu_2) * (mu_1 * low[1] - mu_2 * high[0]))

    def _none_highest(self, counts: list[float], errors: list[float]) -> float:
        """At most so many: half of them are errors."""
        errors_spread, spread = self._spread(sum(errors)), self._spread(sum(counts))
        return min(
            2 * (self._emission(0) * math.exp(mu) / chance * (error + errors_spread) + spread)
            for mu, chance, error in zip(self.intensities, self.chances, errors, strict=True)
        )

    def _ones(self, counts: list[float], errors: list[float]) -> float:
        """At least so many detections came from pulses with one photon."""
        mu_1, mu_2 = self.intensities
        high, low = self._weighted(counts, +1), self._weighted(counts, -1)
        none = self._none_highest(counts, errors) / self._emission(0)
        single = low[1] - (mu_2 / mu_1) ** 2 * high[0] - (mu_1**2 - mu_2**2) / mu_1**2 * none
        return self._emission(1) * mu_1 / (mu_2 * (mu_1 - mu_2)) * single

    def _fluctuation(self, ratio: float, key: float, test: float) -> float:
        """How far the error ratio of the key basis may lie above that of the test basis (gamma of Lim et al. 2014)."""
        spread = (1 - ratio) * ratio
        if spread <= 0.0:
            return 0.0
        joined = (key + test) / (key * test)
        inside = math.log2(joined / spread / self.epsilon**2)
        return math.sqrt(joined * spread / math.log(2) * inside) if inside > 0 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class AsymptoticDecoy:
    """Decoy BB84 without finite-key terms (Ma, Qi, Zhao, Lo, Phys. Rev. A 72, 012326, 2005); the numbers of GYS."""

    clock_hz: float = 2e6
    efficiency: float = 0.045
    dark_yield: float = 1.7e-6
    misalignment: float = 0.033
    reconciliation: float = 1.22
    intensity: float = 0.48
    sifting: float = 0.5

    def bits_per_pulse(self, loss_db: float) -> tuple[float, float]:
        """Key bits per pulse (0.0 where there are none) and the QBER."""
        transmittance = 10 ** (-loss_db / 10) * self.efficiency
        seen = 1 - math.exp(-transmittance * self.intensity)
        gain = self.dark_yield + seen
        qber = (self.dark_yield / 2 + self.misalignment * seen) / gain
        single_yield = self.dark_yield + transmittance
        single_gain = single_yield * self.intensity * math.exp(-self.intensity)
        single_error = min(0.5, (self.dark_yield / 2 + self.misalignment * transmittance) / single_yield)
        secret = single_gain * (1 - binary_entropy(single_error)) - gain * self.reconciliation * binary_entropy(qber)
        return max(0.0, self.sifting * secret), qber

    def at(self, loss_db: float) -> KeyRate:
        bits, qber = self.bits_per_pulse(loss_db)
        return _steady_or_none(bits * self.clock_hz, qber)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plateau:
    """A constant rate up to some loss, then falling: fielded systems of which little more is known."""

    rate_bps: float
    up_to_db: float
    slope: float = 1.0
    """dB of rate per dB of loss beyond."""
    qber_ratio: float

    def at(self, loss_db: float) -> KeyRate:
        beyond_db = max(0.0, loss_db - self.up_to_db)
        return _steady_or_none(self.rate_bps * 10 ** (-self.slope * beyond_db / 10), self.qber_ratio)


@dataclass(frozen=True, slots=True, kw_only=True)
class ThroughPoints:
    """Exponential in the loss, through two measured points (loss in dB, rate in bit/s)."""

    near: tuple[float, float]
    far: tuple[float, float]
    qber_ratio: float

    def at(self, loss_db: float) -> KeyRate:
        share = (loss_db - self.near[0]) / (self.far[0] - self.near[0])
        return _steady_or_none(self.near[1] * (self.far[1] / self.near[1]) ** share, self.qber_ratio)


def _thermal_entropy(photons: float) -> float:
    if photons <= 0.0:
        return 0.0
    return (photons + 1) * math.log2(photons + 1) - photons * math.log2(photons)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaussian:
    """GG02 with reverse reconciliation, homodyne, trusted detector, collective attacks (Lodewyck et al., Phys. Rev. A
    76, 042305, 2007); finite size as Leverrier, Grosshans, Grangier, Phys. Rev. A 81, 062343, 2010."""

    clock_hz: float = 1e8
    variance: float = 4.0
    """Of the modulation, in shot-noise units."""
    excess_noise: float = 0.01
    efficiency: float = 0.6
    electronic_noise: float = 0.01
    reconciliation: float = 0.95
    block_symbols: float = 1e8
    """Half of them are given up to estimate the channel."""
    epsilon: float = 1e-10

    def informations(self, loss_db: float) -> tuple[float, float]:
        """Bits per symbol: what both ends share, and what the eavesdropper can know of it."""
        return self._informations(10 ** (-loss_db / 10), self.excess_noise)

    def _informations(self, transmittance: float, excess_noise: float) -> tuple[float, float]:
        total = self.variance + 1
        line = 1 / transmittance - 1 + excess_noise
        detector = (1 + self.electronic_noise) / self.efficiency - 1
        noise = line + detector / transmittance
        shared = 0.5 * math.log2((total + noise) / (1 + noise))
        a = total**2 * (1 - 2 * transmittance) + 2 * transmittance + transmittance**2 * (total + line) ** 2
        b = transmittance**2 * (total * line + 1) ** 2
        root = math.sqrt(b)
        c = (a * detector + total * root + transmittance * (total + line)) / (transmittance * (total + noise))
        d = root * (total + root * detector) / (transmittance * (total + noise))
        known = 0.0
        for one, two, sign in ((a, b, 1), (c, d, -1)):
            middle = math.sqrt(max(0.0, one**2 - 4 * two))
            for square in ((one + middle) / 2, (one - middle) / 2):
                known += sign * _thermal_entropy((math.sqrt(max(1.0, square)) - 1) / 2)
        return shared, known

    def bits_per_symbol(self, loss_db: float) -> float:
        """Asymptotic; below 0 there is no key."""
        shared, known = self.informations(loss_db)
        return self.reconciliation * shared - known

    def at(self, loss_db: float) -> KeyRate:
        kept = self.block_symbols / 2
        transmittance = 10 ** (-loss_db / 10)
        # What is estimated from the other half may be off by 6.5 standard deviations, to the bad side.
        received = math.sqrt(self.efficiency * transmittance)
        noise = 1 + self.electronic_noise + self.efficiency * transmittance * self.excess_noise
        lowest = received - 6.5 * math.sqrt(noise / (kept * self.variance))
        highest_noise = noise * (1 + 6.5 * math.sqrt(2 / kept))
        period_s = self.block_symbols / self.clock_hz
        if lowest <= 0.0:
            return KeyRate(0, period_s, 0.0, self.epsilon)
        worst_transmittance = lowest**2 / self.efficiency
        worst_excess = (highest_noise - 1 - self.electronic_noise) / lowest**2
        shared, _ = self.informations(loss_db)
        _, known = self._informations(worst_transmittance, worst_excess)
        finite = 7 * math.sqrt(math.log2(2 / self.epsilon) / kept)
        secret = kept * (self.reconciliation * shared - known - finite)
        return KeyRate(max(0, math.floor(secret)), period_s, 0.0, self.epsilon)


_PRESETS: Mapping[str, RateModel] = MappingProxyType(
    {
        "dv-metro": OneDecoy(
            efficiency=0.2, dark_count_probability=1e-6, misalignment=0.02, dead_time_s=10e-9, secrecy_epsilon=1e-10
        ),
        "dv-long": OneDecoy(clock_hz=2.5e9, efficiency=0.2, dark_count_probability=1e-8, misalignment=0.01),
        # Plug and play of the SECOQC and SwissQuantum years: light goes there and back, so it falls twice as fast.
        "dv-legacy": Plateau(rate_bps=1000.0, up_to_db=5.5, slope=2.0, qber_ratio=0.03),
        # No longer held secure against zero-error attacks: for the networks that were built with it.
        "cow": ThroughPoints(near=(16.4, 600.0), far=(51.9, 3.18), qber_ratio=0.03),
        # 2 kbit/s at 16 km; that it falls with the loss beyond is assumed.
        "entangled": Plateau(rate_bps=2000.0, up_to_db=3.2, qber_ratio=0.035),
        "cv-metro": Gaussian(),
        "gys": AsymptoticDecoy(),
    }
)


def presets() -> Mapping[str, RateModel]:
    """Rate models by name. QBERs of `dv-legacy` and `cow` are assumed; continuous variables have none."""
    return _PRESETS
