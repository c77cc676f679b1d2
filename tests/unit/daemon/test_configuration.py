"""The node file: what a node accepts to be told, and how it refuses the rest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyhop.daemon.configuration import (
    ApplicationEntry,
    Identity,
    LinkEntry,
    NodeFile,
    Quota,
    link_id,
    load_node_file,
    node_schema,
)
from keyhop.files import Address, FileError, Fingerprint, Source, parse, write
from keyhop.files.units import LENGTH
from keyhop.files.writing import plain


@dataclass(frozen=True, kw_only=True)
class Pretend:
    length_km: Annotated[float | None, LENGTH] = None


DRIVERS: dict[str, type[Any]] = {"emulated": Pretend}

MINIMAL = """
apiVersion: keyhop/v1
node: {id: BRT}
listen:
  etsi014: {address: "0.0.0.0:8443", cert: tls/kme.crt, key: {credential: kme.key}, client_ca: tls/sae-ca.crt}
  peer: {address: "0.0.0.0:8444", cert: tls/kme.crt, key: {credential: kme.key}, client_ca: tls/kme-ca.crt}
store: {path: state, node_key: {file: node.key}}
anchor: {file: anchor}
"""

FULL = (
    MINIMAL
    + """
links:
  - {to: SIE, driver: emulated, length: 32 km, first_contact: {file: BRT-SIE.key}}
  - {to: GUD, driver: emulated, id: metro}
peers: {SIE: "kme-sie.example:8444"}
applications:
  - {id: sae-brt, peers: [sae-sie], quota: {rate: 20 kbps, burst: 8 kB, requests_per_s: 50}, self_association: true}
  - {id: vpn, certificate_fingerprint: "AB:"""
    + ":".join(["cd"] * 31)
    + """"}
directory: {sae-sie: SIE}
audit: [{file: audit.jsonl, max_size: 1 MB, sync: true}]
limits: {key_size: 512, stock: 2 MiB, horizon_hops: 12}
lifetimes: {fetch: 1 h, block: 7 d}
log: {level: debug}
"""
)


def node(text: str) -> NodeFile:
    return parse(NodeFile, text, "keyhop.yml", Path("/etc/keyhop"), {"drivers": DRIVERS})


def refusals(text: str) -> str:
    with pytest.raises(FileError) as caught:
        node(text)
    return str(caught.value)


def test_the_smallest_file_has_the_defaults_of_the_design() -> None:
    file = node(MINIMAL)
    assert file.design == "keyhop"
    assert file.node.kme_id == "BRT"
    assert file.listen.manage.address == Address("127.0.0.1", 8500)
    assert file.listen.etsi014.identity is Identity.SAN_URI
    limits = file.limits
    assert (limits.min_key_size_bits, limits.key_size_bits, limits.max_key_size_bits) == (64, 256, 8192)
    assert limits.keys_per_request == 128
    assert limits.stock_bytes == 1_048_576
    assert limits.horizon_hops == 0
    assert (file.lifetimes.fetch_s, file.lifetimes.block_s) == (86_400, 30 * 86_400)


def test_a_full_file_is_read_in_base_units() -> None:
    file = node(FULL)
    assert file.links[0] == LinkEntry(
        to="SIE",
        driver="emulated",
        first_contact=Source("file", "/etc/keyhop/BRT-SIE.key"),
        settings=Pretend(length_km=32.0),
    )
    assert file.peers == {"SIE": Address("kme-sie.example", 8444)}
    assert file.applications[0] == ApplicationEntry(
        id="sae-brt",
        peers=("sae-sie",),
        quota=Quota(rate_bps=20_000, burst_bits=64_000, requests_per_s=50.0),
        self_association=True,
    )
    assert file.applications[1].certificate_fingerprint == (Fingerprint("ab" + "cd" * 31),)
    assert file.audit[0].max_size_bytes == 1_000_000
    assert file.listen.etsi014.cert == Path("/etc/keyhop/tls/kme.crt")
    assert file.listen.etsi014.key == Source("credential", "kme.key")


@pytest.mark.parametrize(
    ("name", "refusal"),
    [
        ("keyhops", "design: no design is called keyhops: did you mean keyhop?"),
        ("zzz", "design: no design is called zzz: nodes run: keyhop, darpa, "),
    ],
)
def test_a_design_that_no_node_runs_is_refused_where_it_stands(name: str, refusal: str) -> None:
    said = refusals(f"{MINIMAL}design: {name}\n")
    line = len(MINIMAL.splitlines()) + 1
    assert said.startswith(f"keyhop.yml:{line}: {refusal}")


@pytest.mark.parametrize("name", ["keyhop", "cisco", "toshiba.2019", "ddka"])
def test_the_designs_that_nodes_run_may_be_named(name: str) -> None:
    assert node(f"{MINIMAL}design: {name}\n").design == name


def test_a_link_has_one_name_at_both_ends() -> None:
    link = node(FULL).links[0]
    assert link_id("BRT", link) == link_id("SIE", LinkEntry(to="BRT", driver="emulated")) == "BRT-SIE"
    assert link_id("BRT", node(FULL).links[1]) == "metro"


@pytest.mark.parametrize(
    ("old", "new", "refusal"),
    [
        ("to: GUD", "to: BRT", "keyhop.yml:12: links[1].to: a link of BRT leads to BRT: name the neighbour"),
        (
            "to: GUD, driver: emulated, id: metro",
            "to: SIE, driver: emulated",
            "keyhop.yml:12: links[1]: BRT-SIE stands here twice: give each link an id",
        ),
        (
            "id: metro",
            "id: relay",
            "keyhop.yml:12: links[1]: relay cannot name a link: the node itself uses it: give the link an id",
        ),
        ("{SIE: ", "{SEI: ", "peers.SEI: no link leads to SEI: did you mean SIE?"),
        ("driver: emulated, id", "driver: emulatd, id", "'emulatd' is not known: did you mean emulated?"),
        ("length: 32 km", "length: 32 kn", "links[0].length: 'kn' is no unit of length: did you mean km?"),
        ("id: vpn", "id: sae-brt", "applications[1]: sae-brt stands here twice: keep one of the two"),
        ("peers: [sae-sie]", "peers: [sae-brt]", "sae-brt is its own peer: write self_association: true instead"),
        ("{sae-sie: SIE}", "{vpn: SIE}", "directory.vpn: vpn is served by this node, not by SIE"),
        ("key_size: 512", "key_size: 100", "limits.key_size: 100 bit is no key size: must be a multiple of 8"),
        ("key_size: 512", "key_size: 16384", "limits.key_size: 16384 bit is out of range: must be 64 to 8192 bit"),
        ("horizon_hops: 12", "horizon_hops: 255", "limits.horizon_hops: '255' is out of range: must be 0 to 254"),
        ("stock: 2 MiB", "stock: 2 kB", "limits.stock: 2000 B is out of range: must be 16 KiB to 4 GiB"),
        ("stock: 2 MiB", "stock: 5 GiB", "must be 16 KiB to 4 GiB"),
        ("max_size: 1 MB", "max_size: 1 B", "audit[0].max_size: 1 B is too small: must be 4096 B or more"),
        ("path: state", "path: state, memory: true", "store: both path and memory are given"),
        ("path: state, ", "", "store: neither path nor memory is given: write path: DIRECTORY, or memory: true"),
        ("{file: node.key}", "0123456789abcdef", "store.node_key: the secret itself must not stand in this file"),
        ("{file: BRT-SIE.key}", "{env: K}", "an environment variable cannot be overwritten after it was loaded"),
        ("fetch: 1 h", "fetch: 0 s", "lifetimes.fetch: 0 s is too small: must be more than 0 s"),
        ("level: debug", "level: verbose", "log.level: 'verbose' is not known: must be one of debug, info"),
        ("keyhop/v1", "keyhop/v2", "apiVersion: 'keyhop/v2' is not known: did you mean keyhop/v1?"),
        ("anchor: {file: anchor}", "", "anchor is missing: write anchor: …"),
        ("node: {id: BRT}", "node: {id: B T}", "node.id: 'B T' is not a name here"),
        ("rate: 20 kbps", "rate: 20", "quota.rate: 20 has no unit: write it as 20 bps"),
    ],
)
def test_a_wrong_file_is_refused_with_what_would_be_right(old: str, new: str, refusal: str) -> None:
    assert old in FULL
    assert refusal in refusals(FULL.replace(old, new, 1))


@pytest.mark.parametrize(
    "address", ["0.0.0.0:8500", "10.0.0.1:8500", "kme.example:8500", "127.evil.example:8500", "[::]:1"]
)
def test_the_manage_address_is_never_open_to_other_machines(address: str) -> None:
    text = FULL.replace("listen:\n", f'listen:\n  manage: {{address: "{address}"}}\n')
    assert "is open to other machines: use 127.0.0.1, [::1] or localhost" in refusals(text)


def test_a_file_on_disk_is_read_with_paths_from_its_directory(tmp_path: Path) -> None:
    (tmp_path / "keyhop.yml").write_text(FULL)
    assert load_node_file(tmp_path / "keyhop.yml", DRIVERS).anchor.file == tmp_path / "anchor"


def test_no_driver_no_link() -> None:
    with pytest.raises(FileError, match="'emulated' is not known: known here: none"):
        parse(NodeFile, FULL, "keyhop.yml", Path("/etc/keyhop"), {"drivers": {}})


names = st.from_regex(r"[A-Z]{1,4}", fullmatch=True).filter(lambda name: name != "BRT")
quotas = st.builds(
    Quota,
    rate_bps=st.none() | st.floats(1, 1e9),
    burst_bits=st.integers(0, 1 << 30),
    requests_per_s=st.none() | st.floats(1, 1e5),
)
applications = st.builds(ApplicationEntry, id=st.from_regex(r"sae[!-~]{1,8}", fullmatch=True), quota=quotas)
link_entries = st.builds(
    LinkEntry,
    to=names,
    driver=st.just("emulated"),
    settings=st.builds(Pretend, length_km=st.none() | st.floats(0.1, 500)),
)


@settings(max_examples=25)
@given(
    links=st.lists(link_entries, max_size=4, unique_by=lambda link: link.to),
    entries=st.lists(applications, max_size=3, unique_by=lambda entry: entry.id),
)
def test_what_is_written_reads_as_the_same_node_and_fits_the_schema(
    links: list[LinkEntry], entries: list[ApplicationEntry]
) -> None:
    base = node(MINIMAL)
    made = NodeFile(
        api_version="keyhop/v1",
        node=base.node,
        listen=base.listen,
        store=base.store,
        anchor=base.anchor,
        links=tuple(links),
        applications=tuple(entries),
    )
    assert node(write(made)) == made
    jsonschema.validate(plain(made), node_schema(DRIVERS))


def test_a_policy_is_a_file_beside_it_and_for_our_own_design_alone() -> None:
    assert node(f"{MINIMAL}policy: policy.yml\n").policy.name == "policy.yml"  # type: ignore[union-attr]
    said = refusals(f"{MINIMAL}policy: policy.yml\ndesign: darpa\n")
    assert "policy: a policy is for design keyhop: darpa shares its key by its own parts" in said


def test_a_controller_is_named_for_designs_that_have_one() -> None:
    assert node(f"{MINIMAL}design: sdqaas\ncontroller: frm\n").controller == "frm"
    assert node(f"{MINIMAL}design: sdqaas\n").controller is None
    said = refusals(f"{MINIMAL}design: nict\ncontroller: frm\n")
    assert "controller: design nict asks no controller; sdqaas, sdqaas.mtka do" in said
