"""`keyhop policy` says what a request gets and which rule decided; a wrong file or request is told why."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from pretend import Node, Run

from keyhop.cli.output import ExitCode
from keyhop.wire import manage
from keyhop.wire.explain import Decided, ExplainAnswer, KeyLabel, Outcome, Place, Supply, explain_path
from keyhop.wire.manage import Pool, PoolKind, Route

POLICY = """\
apiVersion: keyhop/v1
rules:
  - name: vpn
    application: "vpn-*"
    key_size: {max: 1024}
    class: guaranteed
    rate: 10 kbps
    bounds: {max_epsilon: 1e-9, vendor: {refused: zeta}}
default:
  fallback: wait 5 s
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.yml").write_text(POLICY, encoding="utf-8")
    return tmp_path


def test_explain_names_rule_file_and_line_of_every_value(run: Run, here: Path) -> None:
    lines = run("policy", "explain", "vpn-1", "hq", "--size", "512").stdout.splitlines()
    assert lines[:3] == [
        "vpn-1 -> hq: a key of 512 bit",
        "rule: vpn (policy.yml:3)",
        "demands: max_epsilon 1e-9; vendor.refused zeta",
    ]
    decided = {line.split()[0]: line.split(maxsplit=1)[1] for line in lines[6:]}
    assert decided["key_size.max"].split() == ["1024", "bit", "vpn", "(policy.yml:5)"]
    assert decided["rate"].split() == ["10000", "bps", "vpn", "(policy.yml:7)"]
    assert decided["fallback"].split() == ["wait", "5", "s", "default", "(policy.yml:10)"]
    assert decided["combine"].split() == ["none", "built", "in"]


def test_explain_as_json_has_the_demands_of_policy_and_request_together(run: Run, here: Path) -> None:
    result = run("policy", "explain", "vpn-1", "hq", "--extension", "keyhop_max_epsilon=1e-12", "-o", "json")
    answer = msgspec.json.decode(result.stdout)
    assert answer["refused"] is None and answer["key_size_bits"] == 256
    assert answer["demands"] == {"max_epsilon": "1e-12", "vendor.refused": "zeta"}
    assert answer["values"]["class"]["decided_by"] == {"rule": "vpn", "file": "policy.yml", "line": 6}
    assert answer["rule"] == {"rule": "vpn", "file": "policy.yml", "line": 3}


def test_a_pair_that_no_rule_names_gets_the_default(run: Run, here: Path) -> None:
    answer = msgspec.json.decode(run("policy", "explain", "phone", "hq", "-o", "json").stdout)
    assert answer["rule"] == {"rule": "default", "file": "policy.yml", "line": 9}
    assert answer["values"]["rate"]["value"] == "none"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--size", "2048"), "must be 64 to 1024"),
        (("--extension", "keyhop_max_hops=-1"), "keyhop_max_hops = -1: must be a whole number"),
        (("--extension", "acme_colour=blue"), "not all extension_mandatory parameters are supported"),
        (("--extension", "keyhop_vendor=zeta"), "no vendor is both wanted and not refused"),
    ],
)
def test_explain_says_why_a_request_would_be_refused(run: Run, here: Path, words: tuple[str, str], why: str) -> None:
    result = run("policy", "explain", "vpn-1", "hq", *words)
    assert result.exit_code == ExitCode.DONE
    assert "vpn-1 -> hq: refused:" in result.stdout and why in result.stdout


def test_an_extension_without_a_value_is_wrong_usage(run: Run, here: Path) -> None:
    result = run("policy", "explain", "a", "b", "--extension", "keyhop_max_hops")
    assert result.exit_code == ExitCode.USAGE and "write NAME=JSON" in result.stderr


def test_check_counts_what_is_there(run: Run, here: Path) -> None:
    assert run("policy", "check").stdout == "policy.yml: valid policy file, 1 rule, 0 link rules\n"
    answer = msgspec.json.decode(run("policy", "check", "policy.yml", "-o", "json").stdout)
    assert answer["valid"] is True and answer["rules"] == ["vpn"]


def test_check_refuses_with_line_and_nearest_word(run: Run, here: Path) -> None:
    (here / "policy.yml").write_text(POLICY.replace("guaranteed", "garanteed").replace("wait 5", "wiat 5"))
    result = run("policy", "check")
    assert result.exit_code == ExitCode.USAGE
    assert "policy.yml:6: rules[0].class: 'garanteed' is not known: did you mean guaranteed?" in result.stderr
    assert "policy.yml:10: default.fallback" in result.stderr and "did you mean wait?" in result.stderr


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("check",), "policy.yml cannot be read"),
        (("explain", "a", "b", "--policy", "policy.yml"), "policy.yml cannot be read"),
        (("explain", "a", "b", "--config", "keyhop.yml"), "keyhop.yml cannot be read"),
        (("explain", "a", "b"), "no node to ask, and no policy.yml here (the node does not answer on 127.0.0.1:8500)"),
    ],
)
def test_a_policy_that_is_not_there_is_no_such_thing(run: Run, command: tuple[str, ...], said: str) -> None:
    result = run("policy", *command)
    assert result.exit_code == ExitCode.NO_SUCH_THING and said in result.stderr


RULE = Place(rule="default")
REFUSED_NOW = ExplainAnswer(
    application="sae-stp",
    peer="sae-frm",
    rule=Place(rule="vpn", file="policy.yml", line=3),
    key_size_bits=256,
    demands={"max_hops": "1"},
    values={"class": Decided(value="best_effort", decided_by=RULE)},
    network=Supply(
        node="STP",
        peer_node="FRM",
        outcome=Outcome.REFUSED,
        reason="no key in stock meets the demands",
        unmet=({"name": "keyhop_max_hops", "reason": "2 hops, above 1"},),
        route=Route(
            origin="STP",
            to="FRM",
            path=("STP", "BRT", "FRM"),
            hops=2,
            narrowest_link="STP-BRT",
            narrowest_bps=500.0,
            narrowest_stored_bytes=31_000,
        ),
        pool=Pool(
            peer="FRM", kind=PoolKind.RELAYED, stored_bytes=4000, leasable_bytes=0, leased_bytes=0, following_bytes=0
        ),
        label=KeyLabel(
            grade="its", age_s=41.0, hops=2, paths=(("STP", "BRT", "FRM"),), vendors=("acme",), trust="full"
        ),
    ),
)


def test_in_a_lab_the_node_of_the_application_says_what_there_is(
    run: Run, lab: Path, node: Node, other_node: Node
) -> None:
    other_node.answers[explain_path("sae-stp", "sae-frm", 256, {"keyhop_max_hops": 1})] = REFUSED_NOW
    words = ("policy", "explain", "sae-stp", "sae-frm", "--size", "256", "--extension", "keyhop_max_hops=1")
    result = run(*words)
    assert result.exit_code == ExitCode.DONE
    assert result.stdout.splitlines()[:8] == [
        "sae-stp -> sae-frm: a key of 256 bit",
        "rule: vpn (policy.yml:3)",
        "demands: max_hops 1",
        "now: a request would be refused (no key in stock meets the demands)",
        "fails: keyhop_max_hops: 2 hops, above 1",
        "path: STP-BRT-FRM, 2 hops; narrowest link STP-BRT, 0.5 kb/s, 31 kB stored",
        "stock: 0 B in hand and 0 B to reserve would do, of 4.0 kB shared with FRM",
        "oldest key: grade its, no epsilon claimed, 41s old, 2 hops, STP-BRT-FRM, trust full, vendors acme",
    ]
    told = msgspec.json.decode(run(*words, "-o", "json").stdout)
    assert told["network"]["outcome"] == "refused" and told["network"]["route"]["hops"] == 2
    assert told["values"]["class"] == {
        "value": "best_effort",
        "decided_by": {"rule": "default", "file": None, "line": None},
    }


def test_an_application_that_no_node_serves_is_no_such_thing(run: Run, lab: Path) -> None:
    result = run("policy", "explain", "nobody", "sae-frm")
    assert result.exit_code == ExitCode.NO_SUCH_THING
    assert "no node that answers serves nobody" in result.stderr and "keyhop sae list" in result.stderr


def test_a_named_file_is_explained_alone_even_in_a_lab(run: Run, lab: Path, here: Path, node: Node) -> None:
    node.answers[explain_path("vpn-1", "hq", None, {})] = REFUSED_NOW
    shown = run("policy", "explain", "vpn-1", "hq", "--policy", "policy.yml").stdout
    assert "rule: vpn (policy.yml:3)" in shown and "network: not asked (a file was named)" in shown


def test_without_a_node_the_file_here_is_explained_and_it_says_so(run: Run, here: Path) -> None:
    shown = run("policy", "explain", "vpn-1", "hq").stdout
    assert "network: not asked (the node does not answer on 127.0.0.1:8500)" in shown
    told = msgspec.json.decode(run("policy", "explain", "vpn-1", "hq", "-o", "json").stdout)
    assert told["network"] is None and "does not answer" in told["not_asked"]


def test_an_address_that_was_given_is_not_passed_over(run: Run, here: Path, node: Node) -> None:
    address = ("--address", node.address)
    assert run("policy", "explain", "vpn-1", "hq", *address).exit_code == ExitCode.NO_SUCH_THING
    problem = manage.Problem(message="node STP runs design ait", next="see: keyhop design show ait")
    node.answers[explain_path("vpn-1", "hq", None, {})] = (409, manage.encode(problem))
    result = run("policy", "explain", "vpn-1", "hq", *address)
    assert result.exit_code == ExitCode.REFUSED and "node STP runs design ait" in result.stderr


def test_config_knows_policies_too(run: Run, here: Path) -> None:
    assert "valid policy file" in run("config", "validate", "policy.yml").stdout
    schema = msgspec.json.decode(run("config", "schema", "policy").stdout)
    assert schema["title"] == "Keyhop policy file"


NODE = """\
apiVersion: keyhop/v1
node: {id: BRT}
listen:
  etsi014: {address: "127.0.0.1:8443", cert: kme.crt, key: {file: kme.key}, client_ca: sae-ca.crt}
  peer: {address: "127.0.0.1:8444", cert: kme.crt, key: {file: kme.key}, client_ca: kme-ca.crt}
store: {path: state, node_key: {file: node.key}}
anchor: {file: anchor}
applications:
  - {id: vpn-1, peers: [hq]}
limits: {max_key_size: 512}
"""


def test_the_limits_and_applications_of_a_node_file_count_too(run: Run, here: Path) -> None:
    (here / "keyhop.yml").write_text(NODE, encoding="utf-8")
    config = ("--config", "keyhop.yml")
    shown = run("policy", "explain", "vpn-1", "hq", "--size", "1024", *config).stdout
    assert "must be 64 to 512" in shown and "limits (keyhop.yml:10)" in shown
    assert "a key of 512 bit" in run("policy", "explain", "vpn-1", "hq", "--size", "512", *config).stdout
    assert "vpn-2 is no application of node BRT" in run("policy", "explain", "vpn-2", "hq", *config).stdout
    assert "vpn-1 may not share keys with pbx" in run("policy", "explain", "vpn-1", "pbx", *config).stdout


def test_a_wrong_node_file_is_refused(run: Run, here: Path) -> None:
    (here / "keyhop.yml").write_text(NODE.replace("limits", "limts"), encoding="utf-8")
    result = run("policy", "explain", "vpn-1", "hq", "--config", "keyhop.yml")
    assert result.exit_code == ExitCode.USAGE and "did you mean limits?" in result.stderr


PAGE = Path(__file__).resolve().parents[3] / "docs" / "policy.md"


def sample(mark: str) -> str:
    fenced = PAGE.read_text(encoding="utf-8").split(f"<!-- {mark} -->\n")[1]
    return fenced.split("\n", 1)[1].split("```")[0]


def test_the_policy_of_the_documents_is_explained_as_they_say(run: Run, here: Path) -> None:
    (here / "policy.yml").write_text(sample("policy"), encoding="utf-8")
    assert run("policy", "check").exit_code == ExitCode.DONE
    shown = run("policy", "explain", "vpn-1", "vpn-2", "--size", "512", "--policy", "policy.yml").stdout
    assert shown.startswith(sample("explained"))


def test_the_documents_name_every_word_and_every_extension() -> None:
    from keyhop.core.constraints import NAMES
    from keyhop.core.policy_rules import LINK_VALUES, VALUES

    page = PAGE.read_text(encoding="utf-8")
    words = {word.split(".")[0] for word in (*VALUES, *LINK_VALUES)} | {name.removeprefix("keyhop_") for name in NAMES}
    assert [word for word in sorted(words) if f"`{word}`" not in page] == []


@pytest.mark.parametrize(
    ("words", "at", "expected"),
    [
        (
            "keyhop policy explain a b --extension keyhop_max_",
            6,
            ["keyhop_max_epsilon=", "keyhop_max_age=", "keyhop_max_hops="],
        ),
        ("keyhop policy explain a b --extension other", 6, []),
        ("keyhop policy explain sae-st", 3, ["sae-stp"]),
    ],
)
def test_extensions_and_applications_are_completed(
    run: Run, lab: Path, words: str, at: int, expected: list[str]
) -> None:
    env = {"_KEYHOP_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(at)}
    assert sorted(line.split(",")[1] for line in run(env=env).stdout.split()) == sorted(expected)
