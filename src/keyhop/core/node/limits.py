"""Quotas of a policy: what applications, their pairs and links may spend, in bits and in requests."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

from keyhop.core.model import Refusal, RequestError
from keyhop.core.node.context import Context
from keyhop.core.node.events import KeysWanted
from keyhop.core.policy_rules import LinkTerms, Quota, Terms
from keyhop.core.services.buckets import Bucket, Quotas


class Limits:
    def __init__(
        self, context: Context, terms: Callable[[str, str], Terms], link_terms: Callable[[str], LinkTerms]
    ) -> None:
        self.context = context
        self._terms = terms
        self._link_terms = link_terms
        self._buckets: dict[tuple[str, str], tuple[tuple[Bucket, ...], tuple[Bucket, ...]]] = {}
        """By what is limited and its name: buckets for bits and for requests."""

    def spend(self, event: KeysWanted, node: str | None) -> Quotas:
        """Raises RequestError where a quota is used up; else it is spent."""
        quotas = self.of(event, node)
        bits = event.number * event.size_bits
        wait_ns = quotas.spend(bits, self.context.now)
        if wait_ns is None:
            text = f"{bits} bit at once: more than a quota of {event.master} -> {event.slave} ever allows"
            raise RequestError(Refusal.BAD_REQUEST, text)
        if wait_ns:
            text = f"a quota of {event.master} -> {event.slave} is used up"
            raise RequestError(Refusal.RATE_LIMITED, text, retry_after_s=wait_ns / 1e9)
        return quotas

    def of(self, event: KeysWanted, node: str | None) -> Quotas:
        terms = self._terms(event.master, event.slave)
        limits = [
            self._bucket("application", event.master, terms.application_quota),
            self._bucket("pair", f"{event.master} -> {event.slave}", terms.pair_quota),
        ]
        if node is not None:
            limits.append(self._bucket("link", node, self._link_terms(node).quota))
        return Quotas(
            tuple(chain.from_iterable(bits for bits, _ in limits)),
            tuple(chain.from_iterable(requests for _, requests in limits)),
        )

    def _bucket(self, what: str, name: str, quota: Quota | None) -> tuple[tuple[Bucket, ...], tuple[Bucket, ...]]:
        if quota is None:
            return (), ()
        found = self._buckets.get((what, name))
        if found is None:
            now = self.context.now
            bits = () if quota.rate_bps is None else (Bucket(quota.rate_bps, quota.burst_bits, now),)
            requests = (
                () if quota.requests_per_s is None else (Bucket(quota.requests_per_s, quota.requests_burst, now),)
            )
            found = self._buckets[what, name] = bits, requests
        return found
