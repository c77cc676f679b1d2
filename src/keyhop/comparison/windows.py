"""Broken promises to streams, counted in windows of a second."""

from __future__ import annotations

from collections import defaultdict

from keyhop.comparison.tally import matched, supplied
from keyhop.core.model import NANOSECONDS
from keyhop.simulator.record import Record, Stream, Verdict

WINDOW_NS = NANOSECONDS


def violations(record: Record, *, admitted_only: bool = False) -> dict[str, float | None]:
    """By class, the share of the one-second windows of its streams in which something promised was not kept.

    A stream's windows are the whole ones between its joining and its leaving or the end of the run. One is violated if

    - in it the deadline of a request passed without a key, or a request was refused, as such a key comes too late; or
    - a stream with `min_bps` got less than that much in it, though a request waited from its beginning to its end. A
      stream that asks for less than it was promised is not deprived.

    None: no stream of the class had a window. What a design cannot serve at all is no promise. `admitted_only` leaves
    out the streams that were not admitted; None for all classes where the design has no admission.
    """
    streams = {stream.name: stream for stream in record.scenario.streams}
    classes: dict[str, float | None] = dict.fromkeys(sorted({stream.service_class for stream in streams.values()}))
    if admitted_only:
        if record.admitted is None:
            return classes
        streams = {name: stream for name, stream in streams.items() if name in record.admitted}
    broken = _broken(record, streams)
    for service_class in classes:
        count = total = 0
        for name, stream in streams.items():
            if stream.service_class == service_class:
                windows = _windows(record, stream)
                total += len(windows)
                count += sum(window in windows for window in broken[name])
        classes[service_class] = count / total if total else None
    return classes


def _windows(record: Record, stream: Stream) -> range:
    end_ns = round(record.seconds * NANOSECONDS)
    ends_ns = end_ns if stream.ends_ns is None else min(stream.ends_ns, end_ns)
    return range(-(-stream.starts_ns // WINDOW_NS), ends_ns // WINDOW_NS)


def _broken(record: Record, streams: dict[str, Stream]) -> defaultdict[str, set[int]]:
    broken: defaultdict[str, set[int]] = defaultdict(set)
    got_bits: defaultdict[tuple[str, int], int] = defaultdict(int)
    deprived: defaultdict[str, set[int]] = defaultdict(set)
    """Windows through which a request of a stream that was promised something waited."""
    for demand, outcome in matched(record):
        stream = streams.get(demand.stream)
        if stream is None or outcome.verdict is Verdict.UNSERVABLE:
            continue
        due_ns = demand.at_ns + demand.deadline_ns
        late = not supplied(outcome)
        if late:
            broken[stream.name].add(min(outcome.done_ns, due_ns) // WINDOW_NS)
        if stream.min_bps:
            if not late:
                got_bits[stream.name, outcome.done_ns // WINDOW_NS] += demand.size_bits
            ends = min(outcome.done_ns, due_ns) // WINDOW_NS
            deprived[stream.name].update(range(-(-demand.at_ns // WINDOW_NS), ends))
    for name, waited in deprived.items():
        least = streams[name].min_bps * WINDOW_NS // NANOSECONDS
        broken[name] |= {window for window in waited if got_bits[name, window] < least}
    return broken
