"""The link's safety rules, searched exhaustively: all together they hold, and each one left out is seen to fail."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import pytest

from . import blocks, leases, opening, restore, tags
from .search import DEPTH, Broken, Found, search

MODELS = {"leases": leases, "tags": tags, "opening": opening, "blocks": blocks, "restore": restore}

# A search within the wrong bounds visits everything and finds nothing, so it is written down where a rule's absence
# shows: the number of the scope, 0 where none is given.
SHOWN_IN = {
    ("leases", "epoch_from_start_number"): 1,
    ("leases", "union_at_owner"): 1,
    ("leases", "union_at_follower"): 1,
    ("tags", "own_mark_checked"): 1,
    ("opening", "use_durable"): 1,
    ("opening", "grant_durable"): 1,
    ("opening", "claim_moves_no_mark"): 2,
    ("opening", "grant_moves_no_mark"): 3,
    ("opening", "proof_covers_hellos"): 2,
    ("blocks", "number_seen_refused"): 2,
    ("blocks", "bits_seen_refused"): 1,
    ("blocks", "seen_durable"): 4,
    ("blocks", "numbers_told"): 2,
    ("blocks", "larger_mark_taken"): 3,
    ("restore", "code_checked"): 2,
    ("restore", "epoch_from_start_number"): 1,
}

SABOTAGES = {
    "a removed fsync": [
        ("leases", "durable_before_acknowledging"),
        ("leases", "durable_before_use"),
        ("leases", "used_durable"),
        ("tags", "grant_durable"),
        ("tags", "mark_durable"),
        ("opening", "use_durable"),
        ("opening", "grant_durable"),
        ("blocks", "seen_durable"),
    ],
    "a lease used before the acknowledgement": [("leases", "acknowledged_first")],
    "acknowledging without looking at the own record": [("leases", "own_record_untouched")],
    "a stored free list": [("leases", "no_stored_free_list")],
    "a lease kept over a fork": [("leases", "made_after_fork")],
    "tag positions granted twice": [("tags", "never_granted_twice")],
    "a retry with new plaintext under the same pad": [("leases", "same_ciphertext")],
    "a block accepted twice": [("blocks", "number_seen_refused"), ("blocks", "bits_seen_refused")],
    "dec_keys outside an acknowledged lease": [("leases", "serve_acknowledged_only")],
    "swapped directions": [("leases", "owner_allocates")],
}

pytestmark = pytest.mark.timeout(0 if DEPTH else 120)


def without(name: str, rule: str) -> Found:
    model = MODELS[name]
    found: Found = model.explore(model.SCOPES[SHOWN_IN.get((name, rule), 0)], rule)
    return found


def all_scopes() -> Iterator[Any]:
    for name, model in MODELS.items():
        for scope in model.SCOPES:
            bounds = ",".join(f"{field}={value}" for field, value in scope._asdict().items())
            yield pytest.param(model, scope, id=f"{name}-{bounds}")


@pytest.mark.parametrize(("model", "scope"), list(all_scopes()))
def test_with_all_rules_on_no_invariant_fails_in_the_whole_state_space(model: ModuleType, scope: Any) -> None:
    found = model.explore(scope)
    print(f"{model.__name__} {scope}: {found}")
    assert found.broken is None, str(found)
    assert found.complete, f"the bounds are too wide to search: {found}"
    assert found.states > 1000, f"the model does next to nothing: {found}"


@pytest.mark.parametrize(("name", "rule"), [(name, rule) for name, model in MODELS.items() for rule in model.RULES])
def test_without_one_rule_an_invariant_fails(name: str, rule: str) -> None:
    found = without(name, rule)
    print(f"{name} without {rule}: {found}")
    assert found.broken, f"'{MODELS[name].RULES[rule]}' is not seen to matter: the model is too weak ({found})"


def test_every_sabotage_is_the_absence_of_a_rule_that_is_seen_to_fail() -> None:
    assert len(SABOTAGES) == 10
    for sabotage, rules in SABOTAGES.items():
        for name, rule in rules:
            assert rule in MODELS[name].RULES, f"{sabotage}: {name} has no rule {rule}"


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_an_unknown_rule_cannot_be_left_out(model: ModuleType) -> None:
    with pytest.raises(ValueError, match="unknown rules"):
        model.explore(model.SCOPES[0], "no_such_rule")


def test_old_bits_under_a_new_number_deceive_two_ends_that_were_both_restored() -> None:
    # Not a rule but a limit that docs/security.md states: when this search finds nothing any more, the limit is gone.
    assert blocks.explore(blocks.KNOWN_LIMIT).broken == "I1: block 1 was accepted twice"


def test_a_stolen_tls_identity_and_a_restored_sender_use_an_opening_key_twice() -> None:
    # The other stated limit: who holds the TLS identity can grant a restored sender a position it has forgotten.
    scope = opening.Scope(positions=3, crashes=0, restores=1, impostor_hellos=0, impostor_grants=2)
    found = search(opening.initial(), opening.Opening(scope, frozenset(), limit=True).steps, opening.wrong)
    assert found.broken
    assert found.broken.startswith("I6: opening key"), str(found)


def test_of_two_restores_at_once_no_rule_can_know() -> None:
    # The third limit: both ends forget together. The models keep restores apart by one opening; without that they fail.
    scope = leases.Scope(segments=1, crashes=0, restores=2, expiries=0, forks=0)
    model = leases.Leases(scope, frozenset(), together=True)
    found = search(leases.initial(1), model.steps, leases.wrong)
    assert found.broken
    assert found.broken.startswith(("I1", "I5")), str(found)


def test_the_search_finds_the_shortest_way() -> None:
    found = search(
        0, lambda n: [("add 1", n + 1), ("double", n * 2), ("add 3", n + 3)], lambda n: "ten" if n == 10 else None
    )
    assert found.broken == "ten"
    assert len(found.trace) == 4 and found.complete


def test_the_search_reports_a_step_that_breaks_an_invariant_itself() -> None:
    found = search(0, lambda n: [("on", n + 1)] if n < 3 else [("off the edge", Broken("fell"))], lambda _: None)
    assert found.broken == "fell"
    assert found.trace == ("on", "on", "on", "off the edge")


def test_the_search_says_when_it_did_not_see_everything() -> None:
    assert not search(0, lambda n: [("add 1", n + 1)], lambda _: None, max_states=100).complete
    assert search(0, lambda n: [("add 1", (n + 1) % 50)], lambda _: None, max_states=100).complete
