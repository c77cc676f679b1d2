"""A policy file is read strictly: every refusal has its line and what would be right, every value its place."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from keyhop.core import policy_rules
from keyhop.core.label import Entropy, Trust
from keyhop.core.policy_rules import Policy
from keyhop.files import FileError, parse, write
from keyhop.files.lines import lines_of
from keyhop.files.policy import PolicyFile, load_policy, policy_schema

FULL = """\
apiVersion: keyhop/v1
rules:
  - name: vpn
    application: ["vpn-*", hq]
    peer: "vpn-*"
    key_size: {default: 512, min: 256, max: 1024}
    lifetime: 1 h
    class: guaranteed
    rate: 10 kbps
    burst: 4096 bit
    weight: 3
    category: 1
    fallback: wait 1500 ms
    combine: xor
    label: true
    quota:
      application: {rate: 20 kbps, burst: 1 Mbit, requests_per_s: 10, requests_burst: 20}
      pair: {requests_per_s: 5}
    bounds:
      max_epsilon: 1e-9
      its_only: true
      max_age: 10 min
      vendor: {wanted: [acme, bell], refused: zeta}
      min_vendors: 2
      avoid_node: GUD
      max_hops: 2
      rng: [qkd, qrng]
      min_trust: partial
  - name: phones
    between: ["phone-*", pbx]
    lifetime: 1 GB
default:
  fallback: deny
links:
  - link: "BRT-*"
    reserve: 16 kB
    floor: 12.5 %
    quota: {rate: 1 Mbps}
    full_store: replace_oldest
"""


def read(text: str, tmp_path: Path) -> Policy:
    path = tmp_path / "policy.yml"
    path.write_text(text, encoding="utf-8")
    return load_policy(path)


def problems(text: str) -> list[str]:
    with pytest.raises(FileError) as refused:
        parse(PolicyFile, text, "policy.yml", Path("/"))
    return [str(problem) for problem in refused.value.problems]


def test_every_word_reaches_the_core_in_its_units(tmp_path: Path) -> None:
    policy = read(FULL, tmp_path)
    terms = policy.terms("hq", "vpn-7")
    assert terms == policy_rules.Terms(
        key_size_bits=512,
        min_key_size_bits=256,
        max_key_size_bits=1024,
        lifetime=policy_rules.Lifetime(duration_ns=3600 * 10**9),
        service_class=policy_rules.ServiceClass.GUARANTEED,
        rate_bps=10_000,
        burst_bits=4096,
        weight=3,
        category=1,
        fallback=policy_rules.Fallback("wait", 1_500_000_000),
        combine="xor",
        label=True,
        application_quota=policy_rules.Quota(20_000, 1_000_000, 10, 20),
        pair_quota=policy_rules.Quota(None, 1 << 20, 5, 100),
        bounds=terms.bounds,
        rule=terms.rule,
        places=terms.places,
    )
    bounds = terms.bounds
    assert (bounds.max_epsilon, bounds.its_only, bounds.max_age_ns) == (10**31, True, 600 * 10**9)
    assert (bounds.vendors_wanted, bounds.vendors_refused) == ({"acme", "bell"}, {"zeta"})
    assert (bounds.min_vendors, bounds.avoid_nodes, bounds.max_hops) == (2, {"GUD"}, 2)
    assert (bounds.rng, bounds.min_trust) == ({Entropy.QKD, Entropy.QRNG}, Trust.PARTIAL)
    link = policy.link("BRT-SIE")
    assert (link.reserve_bits, link.floor, link.full_store) == (128_000, Fraction(1, 8), "replace_oldest")
    assert link.quota == policy_rules.Quota(1_000_000, 1 << 20, None, 100)
    assert policy.terms("pbx", "phone-2").lifetime == policy_rules.Lifetime(volume_bytes=10**9)


def test_the_file_has_every_word_that_the_core_knows(tmp_path: Path) -> None:
    policy = read(FULL, tmp_path)
    assert policy.rules[0].values.keys() == policy_rules.VALUES.keys()
    assert policy.links[0].values.keys() == policy_rules.LINK_VALUES.keys()


def test_each_value_knows_its_file_and_line(tmp_path: Path) -> None:
    policy = read(FULL, tmp_path)
    lines = FULL.splitlines()
    for word, place in policy.terms("hq", "vpn-7").places.items():
        assert place.rule == "vpn" and place.file.endswith("policy.yml")
        assert f"{word.rpartition('.')[2]}:" in lines[place.line - 1]
    assert policy.terms("pbx", "phone-1").places["fallback"] == ("default", str(tmp_path / "policy.yml"), 33)
    assert policy.terms("pbx", "phone-1").rule.line == 29
    assert lines[policy.link("BRT-SIE").places["floor"].line - 1] == "    floor: 12.5 %"


def test_lines_of_an_empty_text_are_none() -> None:
    assert lines_of("") == {}


def test_an_empty_policy_is_the_built_in_one(tmp_path: Path) -> None:
    assert read("apiVersion: keyhop/v1\n", tmp_path).terms("a", "b").key_size_bits == 256


def test_what_was_read_is_written_so_that_it_reads_the_same() -> None:
    once = parse(PolicyFile, FULL, "policy.yml", Path("/"))
    assert parse(PolicyFile, write(once), "policy.yml", Path("/")) == once


def test_the_schema_agrees_with_the_reader() -> None:
    schema = policy_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    check = jsonschema.Draft202012Validator(schema)
    document: Any = YAML(typ="safe", pure=True).load(FULL)
    assert list(check.iter_errors(document)) == []
    document["rules"][0]["fallback"] = "wiat 5 s"
    document["rules"][0]["bounds"]["max_epsilon"] = "small"
    document["rules"][1]["clas"] = "guaranteed"
    assert len(list(check.iter_errors(document))) == 3


RULE = "apiVersion: keyhop/v1\nrules:\n  - name: one\n    {}\n"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("clas: guaranteed", "unknown key: did you mean class?"),
        ("class: garanteed", "did you mean guaranteed?"),
        ("class: guaranteed", "write rate: 10 kbps"),
        ("rate: 10 kbps", "the class is best_effort"),
        ("rate: 10", "has no unit"),
        ("rate: 0.5 bps", "must be 1 bit/s or more"),
        ("fallback: wiat 5 s", "did you mean wait?"),
        ("fallback: wait", "wait for how long is missing"),
        ("fallback: wait 5", "has no unit"),
        ("fallback: wait 0 s", "too small"),
        ("fallback: deny 5 s", "is no fallback"),
        ("lifetime: 5", "has no unit"),
        ("lifetime: 5 km", "is no unit"),
        ("lifetime: 0 B", "is no lifetime"),
        ("lifetime: -1 h", "too small"),
        ("combine: and", "must be one of none, xor, kdf"),
        ("category: 6", "must be 1 to 5"),
        ("weight: 0", "must be 1 to 1000"),
        ("key_size: {max: 100}", "multiple of 8"),
        ("key_size: {min: 512}", "min <= default <= max"),
        ("key_size: {maximum: 512}", "did you mean max?"),
        ("quota: {pair: {}}", "limits nothing"),
        ("quota: {pair: {rate: 0.1 bps}}", "must be 1 bit/s or more"),
        ("quota: {par: {rate: 1 bps}}", "did you mean pair?"),
        ("bounds: {max_epsilon: 0}", "write a number from 1e-40 to 1"),
        ("bounds: {max_epsilon: 1e-41}", "write a number from 1e-40 to 1"),
        ("bounds: {max_epsilon: 2}", "write a number from 1e-40 to 1"),
        ("bounds: {its_only: perhaps}", "write true or false"),
        ("bounds: {max_hop: 2}", "did you mean max_hops?"),
        ("bounds: {max_hops: -1}", "must be 0 to 1000"),
        ("bounds: {vendor: {wanted: x, refused: x}}", "no vendor is both wanted and not refused"),
        ("bounds: {rng: dice}", "must be one of qkd, qrng, hardware, os"),
        ("bounds: {min_trust: blind}", "must be one of full"),
        ("{bounds: {its_only: true}, fallback: derive}", "can never meet its_only"),
        ("{bounds: {max_epsilon: 1e-9}, combine: kdf}", "what leaves a KDF can never meet max_epsilon"),
        ("{application: a, between: [a, b]}", "write one or the other"),
        ("between: [a]", "must have 2"),
        ('application: "a b"', "visible ASCII"),
    ],
)
def test_a_mistake_is_refused_with_its_line_and_what_would_be_right(line: str, said: str) -> None:
    if line.startswith("{"):
        text = f"apiVersion: keyhop/v1\nrules:\n\n  - {{name: one, {line[1:]}\n"
    else:
        text = RULE.format(line)
    (problem,) = problems(text)
    assert problem.startswith(("policy.yml:4: rules[0]", "policy.yml:3: rules[0]")) and said in problem


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rules: []\n", "apiVersion is missing"),
        ("apiVersion: keyhop/v2\n", "did you mean keyhop/v1?"),
        ("apiVersion: keyhop/v1\nrule: []\n", "did you mean rules?"),
        ("apiVersion: keyhop/v1\nrules:\n  - {name: a}\n  - {name: b, peer: x}\n", "b is never reached"),
        ("apiVersion: keyhop/v1\nrules:\n  - {name: a, peer: x}\n  - {name: a}\n", "a stands here twice"),
        ("apiVersion: keyhop/v1\nrules:\n  - {name: default}\n", "cannot name a rule"),
        ("apiVersion: keyhop/v1\nrules:\n  - {peer: x}\n", "name is missing"),
        ("apiVersion: keyhop/v1\nlinks:\n  - {reserve: 1 kB}\n", "link is missing"),
        ("apiVersion: keyhop/v1\nlinks:\n  - {link: x, floor: 120 %}\n", "too large"),
        ("apiVersion: keyhop/v1\nlinks:\n  - {link: x, full_store: drop}\n", "drop"),
        ("apiVersion: keyhop/v1\ndefault: {combine: kdf, bounds: {its_only: true}}\n", "what leaves a KDF"),
    ],
)
def test_a_file_that_is_wrong_as_a_whole_is_refused(text: str, said: str) -> None:
    (problem,) = problems(text)
    assert said in problem


def test_a_conflict_with_what_is_inherited_points_at_the_rule() -> None:
    text = (
        "apiVersion: keyhop/v1\nrules:\n  - name: strict\n    bounds: {its_only: true}\ndefault: {fallback: derive}\n"
    )
    (problem,) = problems(text)
    assert problem.startswith("policy.yml:3: rules[0].fallback: fallback derive can never meet its_only")


def test_a_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="No such file"):
        load_policy(tmp_path / "policy.yml")
