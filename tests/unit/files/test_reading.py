"""Records from YAML: what fits is read, what does not is refused with file, line and what would be legal."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keyhop.files import (
    Address,
    CheckError,
    FileError,
    Fingerprint,
    SecretUnavailable,
    Source,
    UnreadableFileError,
    parse,
    read,
    schema,
    write,
)
from keyhop.files import reading as reading_module
from keyhop.files.records import Between, Key, Name, OneOrMany, Rest
from keyhop.files.units import BITS, LENGTH, RATIO
from keyhop.files.writing import plain


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, kw_only=True)
class Fibre:
    length_km: Annotated[float, LENGTH]


@dataclass(frozen=True, kw_only=True)
class Radio:
    power: Annotated[int, Between(1, 9)] = 1


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line."""

    to: Name
    driver: str = "fibre"
    qber: Annotated[float | None, RATIO] = None
    settings: Annotated[Any, Rest(table="drivers", by="driver")] = None


@dataclass(frozen=True, kw_only=True)
class House:
    version: Annotated[Literal["house/v1"], Key("apiVersion")]
    name: Name
    colour: Colour = Colour.RED
    lines: tuple[Line, ...] = ()
    spot: tuple[float, float] | None = None
    doors: Mapping[Name, Address] = field(default_factory=dict)
    key: Source | None = None
    size_bits: Annotated[int, BITS] = 256
    tags: Annotated[tuple[str, ...], OneOrMany()] = ()
    marks: Literal["A", "B"] | Mapping[str, Literal["A", "B"]] | None = None
    open: bool = False
    plan: Path | None = None
    print: Fingerprint | None = None

    def __post_init__(self) -> None:
        if self.open and self.key is not None:
            raise CheckError("an open house has no key", "remove one of the two", "key")


TABLES: dict[str, dict[str, type[Any]]] = {"drivers": {"fibre": Fibre, "radio": Radio}}
HERE = Path("/there")
HEAD = "apiVersion: house/v1\nname: a\n"


def house(text: str) -> House:
    return parse(House, text, "h.yml", HERE, TABLES)


def refusals(text: str) -> list[str]:
    with pytest.raises(FileError) as caught:
        house(text)
    return [str(problem) for problem in caught.value.problems]


def test_a_record_is_read_with_every_kind_of_member() -> None:
    read_house = house(
        HEAD
        + "colour: blue\nlines: [{to: NO, length: 80 m, qber: 2.9 %}, {to: ON, driver: radio, power: 3}]\n"
        + "spot: [1, 2.5]\ndoors: {x: '[::1]:80'}\nkey: {file: k}\nsize: 32 B\ntags: one\nmarks: {a: A}\nopen: false\n"
        + "plan: p/q\n"
    )
    assert read_house == House(
        version="house/v1",
        name="a",
        colour=Colour.BLUE,
        lines=(
            Line(to="NO", qber=0.029, settings=Fibre(length_km=0.08)),
            Line(to="ON", driver="radio", settings=Radio(power=3)),
        ),
        spot=(1.0, 2.5),
        doors={"x": Address("::1", 80)},
        key=Source("file", "/there/k"),
        tags=("one",),
        marks={"a": "A"},
        plan=Path("/there/p/q"),
    )


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("nmae: b", "h.yml:3: nmae: unknown key: did you mean name?"),
        ("zzz: b", "h.yml:3: zzz: unknown key: known here: apiVersion, name, colour"),
        ("name: b", "h.yml:3: name: written twice, first on line 2: keep one of the two"),
        ("colour: bleu", "h.yml:3: colour: 'bleu' is not known: did you mean blue?"),
        ("lines: {}", "h.yml:3: lines: a mapping stands here: write a list: [ … ]"),
        ("lines: [3]", "h.yml:3: lines[0]: '3' stands here: write a mapping"),
        ("lines: [{to: b}]", "h.yml:3: lines[0]: length is missing: write length: …"),
        ("lines: [{to: b, length: 5}]", "h.yml:3: lines[0].length: 5 has no unit: write it as 5 km"),
        ("lines: [{to: b, lenght: 5 km}]", "h.yml:3: lines[0].lenght: unknown key: did you mean length?"),
        ("lines: [{to: b, driver: radoi}]", "h.yml:3: lines[0].driver: 'radoi' is not known: did you mean radio?"),
        ("lines: [{to: b, driver: radio, length: 1 km}]", "h.yml:3: lines[0].length: unknown key: known here: to"),
        ("lines: [{to: b, driver: radio, power: 10}]", "lines[0].power: '10' is out of range: must be 1 to 9"),
        ("lines: [{to: b, driver: radio, power: 1.5}]", "lines[0].power: '1.5' stands here: write a whole number"),
        ("lines: [{to: a b, driver: radio}]", "lines[0].to: 'a b' is not a name here: must be 1 to 63 letters"),
        ("spot: [1]", "h.yml:3: spot: has 1 members: must have 2"),
        ("spot: [1, .nan]", "h.yml:3: spot[1]: '.nan' stands here: write a number"),
        ("doors: {x: '80'}", "h.yml:3: doors.x: '80' is no address: write host:port, such as 127.0.0.1:8443"),
        ("doors: {x: 'h:70000'}", "h.yml:3: doors.x: 'h:70000' is no address"),
        ("open: yes", "h.yml:3: open: 'yes' stands here: write true or false"),
        ("name2: {a: [b", "h.yml:4: not YAML"),
        ("? [a]\n: b", "a list or mapping stands where a name should: write NAME: VALUE"),
        ("plan: [x]", "h.yml:3: plan: a list stands here: write a file name"),
        ("marks: [A]", "h.yml:3: marks: a list stands here: write"),
        ("marks: C", "h.yml:3: marks: 'C' is not known: must be A or B"),
        ("print: abc", "h.yml:3: print: 'abc' is no fingerprint: write a SHA-256 fingerprint"),
        ("open: !!python/object:os.system true", "h.yml:3: open: has the tag"),
        ("tags: [&x a]\nspot: [1, *y]", "h.yml:4: not YAML: found undefined alias"),
        ("lines: &x [{to: b, driver: radio}]\ntags: *x", "used twice by an alias (*): write it out, or use kinds"),
        ("open: true\nkey: {file: k}", "h.yml:4: key: an open house has no key: remove one of the two"),
        ("--- 2", "h.yml:"),
    ],
)
def test_a_refusal_names_file_line_place_and_what_would_be_legal(text: str, refusal: str) -> None:
    assert any(line.startswith(refusal) or refusal in line for line in refusals(HEAD + text + "\n"))


def test_all_problems_are_told_at_once_in_the_order_of_the_file() -> None:
    lines = refusals("name: 'a b'\ncolour: green\nsize: 5 km\n")
    places = [line.split(": ")[1] for line in lines]
    assert sorted(places[:2]) == ["apiVersion is missing", "name"]
    assert places[2:] == ["colour", "size"]


def test_a_name_that_yaml_1_1_would_spoil_stays_a_name() -> None:
    for name in ("NO", "ON", "off", "y", "1e3", "014"):
        assert house(f"apiVersion: house/v1\nname: {name}\n").name == name


@pytest.mark.parametrize("name", ["true", "null", "~", "''"])
def test_what_is_no_text_is_refused_as_a_name(name: str) -> None:
    assert refusals(f"apiVersion: house/v1\nname: {name}\n")


@pytest.mark.parametrize(
    "key",
    [
        "hunter2hunter2",
        "{value: hunter2hunter2}",
        "[hunter2hunter2]",
        "|\n  hunter2hunter2\n",
        "{file: {hunter2hunter2: 1}}",
    ],
)
def test_an_inline_secret_is_refused_and_not_repeated(key: str) -> None:
    lines = refusals(f"{HEAD}key: {key}\n")
    assert any("{file: PATH}, {env: NAME} or {credential: NAME}" in line for line in lines)
    assert "hunter2" not in "".join(lines)


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "- a\n", "3\n", "\t", "\x00", "a: b: c", "\ud800".encode("utf-8", "surrogatepass")]
)
def test_what_is_no_mapping_is_refused(text: str | bytes) -> None:
    with pytest.raises(FileError):
        parse(House, text, "h.yml", HERE, TABLES)


def test_a_bomb_of_aliases_is_refused_at_its_first_use() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
    assert "alias" in refusals("\n".join(lines))[0]


@pytest.mark.parametrize("depth", [40, 400])
def test_deep_nesting_is_refused(depth: int) -> None:
    assert refusals("a: " + "[" * depth + "]" * depth)


def test_a_file_that_is_too_long_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_module, "FILE_LIMIT_BYTES", 10)
    assert "longer than 10 bytes: split it" in refusals(HEAD)[0]


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match=r"none\.yml: No such file or directory: check the name") as caught:
        read(House, tmp_path / "none.yml", TABLES)
    assert caught.value.missing


def test_a_directory_is_refused_as_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError) as caught:
        read(House, tmp_path, TABLES)
    assert str(caught.value) == f"{tmp_path}: Is a directory: name a file in it"
    assert not caught.value.missing


def test_what_concerns_the_whole_file_has_no_line() -> None:
    assert refusals("")[0].startswith("h.yml: the file is empty: ")


def test_a_secret_is_read_from_its_place_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "k").write_bytes(b"from file")
    monkeypatch.setenv("KEYHOP_TEST_SECRET", "from env")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert Source("file", str(tmp_path / "k")).read() == b"from file"
    assert Source("env", "KEYHOP_TEST_SECRET").read() == b"from env"
    assert Source("credential", "k").read() == b"from file"


def test_a_secret_that_is_not_there_is_told_by_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    with pytest.raises(SecretUnavailable, match=r"none: No such file"):
        Source("file", str(tmp_path / "none")).read()
    with pytest.raises(SecretUnavailable, match="KEYHOP_TEST_NONE is not set"):
        Source("env", "KEYHOP_TEST_NONE").read()
    with pytest.raises(SecretUnavailable, match="start the node by systemd"):
        Source("credential", "k").read()


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,10}", fullmatch=True)
figures = st.floats(0, 1000).filter(lambda value: value == 0 or value > 1e-9)
addresses = st.builds(Address, st.sampled_from(["127.0.0.1", "::1", "kme.example"]), st.integers(0, 65535))
fibres = st.builds(Line, to=names, qber=st.none() | st.floats(0.001, 1), settings=st.builds(Fibre, length_km=figures))
radios = st.builds(Line, to=names, driver=st.just("radio"), settings=st.builds(Radio, power=st.integers(1, 9)))
texts = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cc", "Cs", "Zl", "Zp", "Co", "Cn"]), min_size=1, max_size=8
)
houses = st.builds(
    House,
    version=st.just("house/v1"),
    name=names,
    colour=st.sampled_from(Colour),
    lines=st.lists(fibres | radios, max_size=3).map(tuple),
    spot=st.none() | st.tuples(st.floats(-180, 180), st.floats(-90, 90)),
    doors=st.dictionaries(names, addresses, max_size=3),
    key=st.none()
    | st.builds(Source, st.sampled_from(["env", "credential"]), names)
    | st.just(Source("file", "/there/k")),
    size_bits=st.integers(0, 1 << 20),
    tags=st.lists(texts.filter(lambda text: "\ufeff" not in text), max_size=3).map(tuple),
    marks=st.sampled_from([None, "A", {"a": "B"}]),
    plan=st.none() | names.map(lambda name: Path("/there") / name),
    print=st.none() | st.binary(min_size=32, max_size=32).map(lambda raw: Fingerprint(raw.hex())),
)


@settings(max_examples=25)
@given(houses)
def test_what_is_written_reads_as_the_same_record_and_fits_its_schema(made: House) -> None:
    assert house(write(made)) == made
    jsonschema.validate(json.loads(json.dumps(plain(made))), schema(House, "House", TABLES))


@pytest.mark.parametrize(
    "bad",
    [
        {"colour": "green"},
        {"nmae": 1},
        {"lines": [{"to": "b", "length": "5"}]},
        {"lines": [{"to": "b", "length": "5 km", "power": 3}]},
        {"lines": [{"to": "b", "driver": "radio", "power": 10}]},
        {"key": "secret"},
        {"doors": {"x": "nowhere"}},
        {"spot": [1]},
        {"open": "yes"},
    ],
)
def test_the_schema_refuses_what_the_reader_refuses(bad: dict[str, Any]) -> None:
    whole = {"apiVersion": "house/v1", "name": "a"} | bad
    with pytest.raises(FileError):
        house(json.dumps(whole))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(whole, schema(House, "House", TABLES))


def test_a_field_that_hides_its_unit_is_our_own_bug() -> None:
    @dataclass(frozen=True)
    class Wrong:
        length: Annotated[float, LENGTH] = 1.0

    with pytest.raises(TypeError, match="its name must end in _km"):
        parse(Wrong, "length: 1 km", "w.yml", HERE)
