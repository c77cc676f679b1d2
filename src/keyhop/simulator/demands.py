"""How each workload asks: requests, streams and faults from a demand, paths and seeds.

Every path has the same demand and its own streams. Every other stream is asked for at the last node of the path, so
that both ends ask. The streams of a path share its demand equally, except where rates are what a workload is about.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from keyhop.core.model import NANOSECONDS
from keyhop.simulator.arrivals import Purpose, Seeds, Weighted, on_off, periodic, poisson
from keyhop.simulator.record import Demand, Fault, Scenario, Stream, Trouble

KEY_BITS = 256
DEADLINE_NS = 5 * NANOSECONDS
STREAMS = 10
"""Of each path, where the definition gives no number."""

LEVELS = Weighted.of({0: 0.05, 1: 0.19, 2: 0.19, 3: 0.19, 4: 0.19, 5: 0.19})
"""Security levels asked for, whatever the size; level 0 needs no key (DDKA), so few ask for it."""

REKEYING_PAIRS = 32
REKEYING_S = 10.0
MIXED_BITS: Mapping[int, float] = MappingProxyType({128: 0.4, 256: 0.4, 1024: 0.15, 8192: 0.05})
ODD_BITS = tuple(range(8, 4097, 8))
BURST_BITS = 64 * 1024 * 8
PAD_BITS = 8192
BURST_STREAMS = 4
BURSTS_AT_LEAST = 2
DUTY = 0.1
CLASSES: tuple[tuple[str, int, float], ...] = (
    ("guaranteed", 2, 0.1),
    ("prioritised", 3, 1.0),
    ("best_effort", 5, 10.0),
)
"""Name, streams of a path, deadline in seconds."""
SITE_REQUESTS_PER_S = 10.0
ONE_WAY_NS = 10_000_000
CHURN_NS = 5 * NANOSECONDS
CHURN_WEIGHTS = (0.5, 0.5, 0.5, 0.5, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0)
"""Of the streams of a path that are there at a moment; the largest is four times the smallest."""
FAULTS_S = 600.0
"""The run that the times of faults are given for; in a shorter one they come at the same fractions of it."""
LOST_SHARE = 0.001


class Asked(NamedTuple):
    """What a workload makes its scenario from."""

    paths: tuple[tuple[str, ...], ...]
    path_bps: float
    """Demand of each path."""
    ends_ns: int
    seeds: Seeds

    def of_path(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """With a name for what is drawn for it."""
        for number, path in enumerate(self.paths):
            yield str(number), path


class _Draft(NamedTuple):
    """A demand before it has its number."""

    at_ns: int
    stream: Stream
    size_bits: int
    deadline_ns: int = DEADLINE_NS


def _stream(path: tuple[str, ...], number: int, rate_bps: float, size_bits: int = KEY_BITS) -> Stream:
    """Streams by turns ask at the first and at the last node; two after two go through the five categories."""
    one, other = path[0], path[-1]
    return Stream(
        name=f"{one}|{other}.{number:02}",
        master=other if number % 2 else one,
        slave=one if number % 2 else other,
        rate_bps=max(1, round(rate_bps)),
        size_bits=size_bits,
        category=number // 2 % 5 + 1,
    )


def _numbered(asked: Asked, drafts: Iterable[_Draft]) -> tuple[Demand, ...]:
    ordered = sorted(drafts, key=lambda draft: (draft.at_ns, draft.stream.name))
    levels = LEVELS.take_many(asked.seeds.draw(Purpose.LEVELS), len(ordered))
    return tuple(
        Demand(
            number=number,
            at_ns=draft.at_ns,
            stream=draft.stream.name,
            master=draft.stream.master,
            slave=draft.stream.slave,
            size_bits=draft.size_bits,
            deadline_ns=draft.deadline_ns,
            service_class=draft.stream.service_class,
            category=draft.stream.category,
            security_level=level,
        )
        for number, (draft, level) in enumerate(zip(ordered, levels, strict=True))
    )


def _random_requests(asked: Asked, sizes: Weighted) -> Scenario:
    """Poisson arrivals, each from one of the path's streams. Load moves the rate of arrivals."""
    mean_bits = _mean(sizes)
    streams: list[Stream] = []
    drafts: list[_Draft] = []
    for part, path in asked.of_path():
        own = [_stream(path, number, asked.path_bps / STREAMS, max(sizes.names)) for number in range(STREAMS)]
        size, who = asked.seeds.draw(Purpose.SIZES, part), asked.seeds.draw(Purpose.STREAMS, part)
        arrivals = poisson(asked.path_bps / mean_bits, asked.ends_ns, asked.seeds.draw(Purpose.ARRIVALS, part))
        drafts += [_Draft(at, own[who.randrange(STREAMS)], sizes.take(size)) for at in arrivals]
        streams += own
    return Scenario(tuple(streams), _numbered(asked, drafts))


def _mean(sizes: Weighted) -> float:
    weights = (above - below for below, above in zip((0.0, *sizes.sums), sizes.sums, strict=False))
    return sum(size * weight for size, weight in zip(sizes.names, weights, strict=True)) / sizes.sums[-1]


def aes_rekey(asked: Asked) -> Scenario:
    """32 pairs of applications on each path take a 256-bit key in each period, at a phase of their own.

    Load moves the period and leaves the number of pairs; it is 10 s where the demand of a path is 819.2 bit/s.
    """
    period_ns = REKEYING_PAIRS * KEY_BITS / asked.path_bps * NANOSECONDS
    streams = [
        _stream(path, number, asked.path_bps / REKEYING_PAIRS)
        for path in asked.paths
        for number in range(REKEYING_PAIRS)
    ]
    drafts = [
        _Draft(at, stream, KEY_BITS)
        for stream in streams
        for at in periodic(period_ns, asked.ends_ns, asked.seeds.draw(Purpose.PHASES, stream.name))
    ]
    return Scenario(tuple(streams), _numbered(asked, drafts))


def mixed_size(asked: Asked) -> Scenario:
    """Load moves the rate of arrivals."""
    return _random_requests(asked, Weighted.of(MIXED_BITS))


def odd_size(asked: Asked) -> Scenario:
    """Sizes of whole bytes, all equally likely. Load moves the rate of arrivals."""
    return _random_requests(asked, Weighted.of(dict.fromkeys(ODD_BITS, 1.0)))


def otp_burst(asked: Asked) -> Scenario:
    """Four streams per path take pads of 8192 bits, 64 KiB to a burst, in one tenth of the time and evenly there.

    Load moves the time between bursts. The bursts of a run are a whole number and its demand is exact, so a burst has
    some bits more or less; in a run with room for less than two bursts of each stream bursts are smaller.
    """
    keys = asked.path_bps * asked.ends_ns / NANOSECONDS / PAD_BITS / BURST_STREAMS
    bursts = max(BURSTS_AT_LEAST, round(keys * PAD_BITS / BURST_BITS))
    streams = []
    drafts: list[_Draft] = []
    for path in asked.paths:
        for number in range(BURST_STREAMS):
            stream = _stream(path, number, asked.path_bps / BURST_STREAMS, PAD_BITS)
            stream = stream._replace(category=1)  # the one-time pad takes nothing but fresh key
            count = math.floor((number + 1) * keys + 0.5) - math.floor(number * keys + 0.5)
            draw = asked.seeds.draw(Purpose.PHASES, stream.name)
            drafts += [_Draft(at, stream, PAD_BITS) for at in on_off(count, bursts, DUTY, asked.ends_ns, draw)]
            streams.append(stream)
    return Scenario(tuple(streams), _numbered(asked, drafts))


def three_classes(asked: Asked) -> Scenario:
    """Poisson; 2, 3 and 5 of a path's ten equal streams are of the classes. Load moves the rate of arrivals.

    A guaranteed stream is promised its registered rate.
    """
    streams: list[Stream] = []
    drafts: list[_Draft] = []
    for part, path in asked.of_path():
        own: list[tuple[Stream, int]] = []
        for name, count, deadline_s in CLASSES:
            for _ in range(count):
                stream = _stream(path, len(own), asked.path_bps / STREAMS)._replace(service_class=name)
                promised = stream.rate_bps if name == "guaranteed" else 0
                own.append((stream._replace(min_bps=promised), round(deadline_s * NANOSECONDS)))
        who = asked.seeds.draw(Purpose.STREAMS, part)
        for at in poisson(asked.path_bps / KEY_BITS, asked.ends_ns, asked.seeds.draw(Purpose.ARRIVALS, part)):
            stream, deadline_ns = own[who.randrange(STREAMS)]
            drafts.append(_Draft(at, stream, KEY_BITS, deadline_ns))
        streams += [stream for stream, _ in own]
    return Scenario(tuple(streams), _numbered(asked, drafts))


def both_ends(asked: Asked) -> Scenario:
    """Poisson requests of 256 bits at each end of a path, one stream each.

    What makes collisions is how many requests come at one site while a message is under way from the other: 10/s times
    10 ms. That product stays: load moves the rate of arrivals, and the delay of messages the other way, whatever the
    network's. Where a path's demand is 5120 bit/s it is 10/s and 10 ms to the letter.
    """
    per_s = asked.path_bps / 2 / KEY_BITS
    streams = [_stream(path, number, asked.path_bps / 2) for path in asked.paths for number in range(2)]
    drafts = [
        _Draft(at, stream, KEY_BITS)
        for stream in streams
        for at in poisson(per_s, asked.ends_ns, asked.seeds.draw(Purpose.ARRIVALS, stream.name))
    ]
    delay_ns = max(1, round(ONE_WAY_NS * SITE_REQUESTS_PER_S / per_s))
    return Scenario(tuple(streams), _numbered(asked, drafts), one_way_delay_ns=delay_ns)


def churn(asked: Asked) -> Scenario:
    """Poisson requests of 256 bits; every 5 s one of a path's ten streams leaves, another joins at the rate that became
    free, and two of those that stay exchange their rates, which differ by a factor of 2 or 4.

    So the demand of a path is the same at every moment; load moves it.
    """
    unit_bps = asked.path_bps / sum(CHURN_WEIGHTS)
    streams: list[Stream] = []
    drafts: list[_Draft] = []
    changes: list[tuple[int, str, int]] = []
    for part, path in asked.of_path():
        churn, who = asked.seeds.draw(Purpose.CHURN, part), asked.seeds.draw(Purpose.STREAMS, part)
        made = [_stream(path, number, weight * unit_bps) for number, weight in enumerate(CHURN_WEIGHTS)]
        present, weights = list(range(len(made))), list(CHURN_WEIGHTS)
        choice = Weighted.of(dict(zip(present, weights, strict=True)))
        turn_ns = CHURN_NS
        for at in poisson(asked.path_bps / KEY_BITS, asked.ends_ns, asked.seeds.draw(Purpose.ARRIVALS, part)):
            while at >= turn_ns:
                place = churn.randrange(len(present))
                made[present[place]] = made[present[place]]._replace(ends_ns=turn_ns)
                present[place] = len(made)
                made.append(_stream(path, len(made), weights[place] * unit_bps)._replace(starts_ns=turn_ns))
                staying = [index for index in range(len(present)) if index != place]
                one = churn.choice(staying)
                other = churn.choice([index for index in staying if weights[index] != weights[one]])
                weights[one], weights[other] = weights[other], weights[one]
                for index in (one, other):
                    changes.append((turn_ns, made[present[index]].name, max(1, round(weights[index] * unit_bps))))
                choice = Weighted.of(dict(zip(present, weights, strict=True)))
                turn_ns += CHURN_NS
            drafts.append(_Draft(at, made[choice.take(who)], KEY_BITS))
        streams += made
    return Scenario(tuple(streams), _numbered(asked, drafts), rate_changes=tuple(sorted(changes)))


def fault(asked: Asked) -> Scenario:
    """Poisson requests of 256 bits. Load moves the rate of arrivals.

    One message in a thousand between key managers is lost, always. In a run of 600 s or more the middle link of the
    first path (of two, the first) loses a chunk at its second end at 100 s and stops from 200 s to 260 s; the key
    manager in the middle (of two, the second) restarts at 400 s and is back after 10 s.
    """
    path = asked.paths[0]
    middle = (len(path) - 2) // 2
    link = "|".join(path[middle : middle + 2])
    short = min(1.0, asked.ends_ns / NANOSECONDS / FAULTS_S)

    def at(seconds: float) -> int:
        return round(seconds * short * NANOSECONDS)

    faults = (
        Fault(0, Trouble.MESSAGES_LOST, share=LOST_SHARE),
        Fault(at(100), Trouble.CHUNK_LOST, link),
        Fault(at(200), Trouble.LINK_STOPS, link, for_ns=at(60)),
        Fault(at(400), Trouble.NODE_RESTARTS, path[len(path) // 2], for_ns=at(10)),
    )
    return _random_requests(asked, Weighted.of({KEY_BITS: 1.0}))._replace(faults=faults)
