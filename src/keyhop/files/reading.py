"""From YAML 1.2 to checked records: every refusal names file, line and what would be legal."""

from __future__ import annotations

import dataclasses
import errno
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from keyhop.files.places import Source
from keyhop.files.records import Between, Field, OneOrMany, Pattern, Rest, Tables, fields_of, is_union, unwrap
from keyhop.files.units import Quantity, UnitError
from keyhop.files.words import below, nearest, shown

FILE_LIMIT_BYTES = 16 * 1024 * 1024
DEPTH_LIMIT = 32
PROBLEM_LIMIT = 20
"""After so many the reader has seen enough to start mending."""

TAG = "tag:yaml.org,2002:"
TAGS = frozenset(
    f"{TAG}{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp", "binary")
)
SOURCES = ("file", "env", "credential")

RecordT = TypeVar("RecordT")


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    file: str
    line: int
    """Counted from 1; 0: the file as a whole."""
    place: str
    """Where in the file's own words: `links[0].length`. Empty for the file as a whole."""
    what: str
    legal: str
    """What would be right, or what to do."""

    def __str__(self) -> str:
        place = f"{self.place}: " if self.place else ""
        at = f"{self.file}:{self.line}" if self.line else self.file
        return f"{at}: {place}{self.what}: {self.legal}"


class FileError(Exception):
    """The file was refused as a whole; `problems` has one entry or more, in the order of the file."""

    def __init__(self, problems: tuple[Problem, ...]) -> None:
        super().__init__("\n".join(str(problem) for problem in problems))
        self.problems = problems


class UnreadableFileError(FileError):
    """There is nothing to read: no such file, no file, or not for us."""

    def __init__(self, path: Path, error: OSError) -> None:
        what = error.strerror or "not readable"
        super().__init__((Problem(str(path), 0, "", what, _REMEDIES.get(error.errno or 0, "check its disk")),))
        self.missing = error.errno in (errno.ENOENT, errno.ENOTDIR)


_REMEDIES = {
    errno.ENOENT: "check the name",
    errno.ENOTDIR: "check the name",
    errno.ENAMETOOLONG: "check the name",
    errno.EISDIR: "name a file in it",
    errno.EACCES: "check its owner and mode, and those of its directory",
}


class CheckError(ValueError):
    """Raised by a record's own `__post_init__`: members that are right alone and wrong together."""

    def __init__(self, what: str, legal: str, *at: str | int) -> None:
        super().__init__(f"{what}: {legal}")
        self.what = what
        self.legal = legal
        self.at = at
        """The member to point at, as keys and list positions; empty for the record."""


def read(record: type[RecordT], path: Path, tables: Tables | None = None) -> RecordT:
    """Reads one file; relative paths in it start from its directory. Raises FileError."""
    try:
        with path.open("rb") as file:
            text = file.read(FILE_LIMIT_BYTES + 1)
    except OSError as error:
        raise UnreadableFileError(path, error) from None
    return parse(record, text, str(path), path.absolute().parent, tables)


def parse(
    record: type[RecordT], text: bytes | str, name: str, directory: Path, tables: Tables | None = None
) -> RecordT:
    """`name` stands for the file in refusals. Raises FileError."""
    reader = _Reader(name, directory, tables or {})
    value = reader.document(record, text)
    if reader.problems:
        raise FileError(tuple(sorted(reader.problems, key=lambda problem: problem.line)[:PROBLEM_LIMIT]))
    return value  # type: ignore[no-any-return]


class _Refused(Exception):
    """This value was reported already; what it belongs to cannot be made either."""


class _Reader:
    def __init__(self, name: str, directory: Path, tables: Tables) -> None:
        self._name = name
        self._directory = directory
        self._tables = tables
        self._seen: set[int] = set()
        self.problems: list[Problem] = []

    def document(self, record: type[Any], text: bytes | str) -> Any:
        try:
            if len(text) > FILE_LIMIT_BYTES:
                raise self._refuse(0, "", f"longer than {FILE_LIMIT_BYTES} bytes", "split it")
            try:
                node = YAML(typ="safe", pure=True).compose(text)
            except MarkedYAMLError as error:
                mark = error.problem_mark or error.context_mark
                line = mark.line + 1 if mark else 0
                raise self._refuse(
                    line, "", f"not YAML: {error.problem}", "check indent, brackets and quotes"
                ) from None
            except (YAMLError, UnicodeDecodeError, RecursionError) as error:
                what = f"not YAML ({type(error).__name__})"
                raise self._refuse(0, "", what, "write UTF-8 text without control characters") from None
            if node is None:
                raise self._refuse(0, "", "the file is empty", "see `keyhop config schema` for what belongs here")
            self._check_tree(node, "", 0)
            return self._record(record, node, "")
        except _Refused:
            return None

    def _refuse(self, at: Node | int, place: str, what: str, legal: str) -> _Refused:
        line = at if isinstance(at, int) else at.start_mark.line + 1
        self.problems.append(Problem(self._name, line, place, what, legal))
        return _Refused()

    def _check_tree(self, node: Node, place: str, depth: int) -> None:
        """What holds for every file, whatever it describes. An alias would let ten lines become a billion."""
        if id(node) in self._seen:
            raise self._refuse(node, place, "used twice by an alias (*)", "write it out, or use kinds")
        self._seen.add(id(node))
        if depth > DEPTH_LIMIT:
            raise self._refuse(node, place, "nested too deeply", f"at most {DEPTH_LIMIT} levels")
        if str(node.tag) not in TAGS:
            raise self._refuse(node, place, f"has the tag {shown(str(node.tag))}", "write it without a tag")
        if isinstance(node, MappingNode):
            self._check_keys(node, place)
            for key, value in node.value:
                self._check_tree(value, below(place, key.value), depth + 1)
        elif isinstance(node, SequenceNode):
            for number, member in enumerate(node.value):
                self._check_tree(member, f"{place}[{number}]", depth + 1)

    def _check_keys(self, node: MappingNode, place: str) -> None:
        first: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, ScalarNode):
                raise self._refuse(key, place, "a list or mapping stands where a name should", "write NAME: VALUE")
            if key.value in first:
                what = f"written twice, first on line {first[key.value]}"
                self._refuse(key, below(place, key.value), what, "keep one of the two")
            first.setdefault(key.value, key.start_mark.line + 1)

    def _record(self, record: type[Any], node: Node, place: str) -> Any:
        entries = self._mapping(node, place)
        fields = {field.key: field for field in fields_of(record) if field.mark(Rest) is None}
        rest = next((field for field in fields_of(record) if field.mark(Rest) is not None), None)
        values: dict[str, Any] = {}
        refused = False
        left: dict[str, tuple[Node, Node]] = {}
        for key, (key_node, value_node) in entries.items():
            if key not in fields:
                left[key] = key_node, value_node
                continue
            try:
                values[fields[key].name] = self._field(fields[key], value_node, below(place, key))
            except _Refused:
                refused = True
        if rest is not None:
            chosen = self._rest_record(rest, fields, entries, values, refused, node, place)
            if chosen is not None:
                known = [field.key for field in fields_of(chosen)]
                mine = {key: left.pop(key) for key in list(left) if key in known}
                refused |= not self._fill_rest(rest, chosen, mine, values, node, place)
                fields = fields | dict.fromkeys(known, rest)
            else:
                refused = True
                left.clear()  # what belongs here is not known
        for key, (key_node, _) in left.items():
            self._refuse(key_node, below(place, key), "unknown key", nearest(key, fields))
        for field in fields.values():
            if field.required and field.key not in entries and field is not rest:
                self._refuse(
                    node, place, f"{field.key} is missing", f"write {field.key}: {_only_value(field.kind) or '…'}"
                )
                refused = True
        if left or refused:
            raise _Refused
        return self._make(record, values, node, place)

    def _rest_record(
        self,
        rest: Field,
        fields: Mapping[str, Field],
        entries: Mapping[str, tuple[Node, Node]],
        values: Mapping[str, Any],
        refused: bool,
        node: Node,
        place: str,
    ) -> type[Any] | None:
        """The record type that the deciding member asks for; None if it was refused."""
        mark: Rest = rest.mark(Rest)
        by = next(field for field in fields.values() if field.name == mark.by)
        if by.name not in values:
            if by.key in entries or by.required:
                return None
            choice = by.default
        else:
            choice = values[by.name]
        table = self._tables.get(mark.table, {})
        if choice in table:
            return table[choice]
        at = entries[by.key][1] if by.key in entries else node
        legal = f"known here: {', '.join(sorted(table)) or 'none'}"
        self._refuse(at, below(place, by.key), f"{shown(str(choice))} is not known", nearest(str(choice), table, legal))
        return None

    def _fill_rest(
        self,
        rest: Field,
        record: type[Any],
        entries: Mapping[str, tuple[Node, Node]],
        values: dict[str, Any],
        node: Node,
        place: str,
    ) -> bool:
        part = MappingNode(f"{TAG}map", list(entries.values()), node.start_mark, node.end_mark)
        try:
            values[rest.name] = self._record(record, part, place)
        except _Refused:
            return False
        return True

    def _make(self, record: type[Any], values: dict[str, Any], node: Node, place: str) -> Any:
        try:
            return record(**values)
        except CheckError as error:
            for step in error.at:
                node, place = _step(node, place, step)
            raise self._refuse(node, place, error.what, error.legal) from None

    def _field(self, field: Field, node: Node, place: str) -> Any:
        if is_null(node) and not field.required and field.default is None:
            return None
        if field.mark(OneOrMany) is not None and not isinstance(node, SequenceNode):
            member, marks = unwrap(get_args(field.kind)[0])
            return (self._value(member, marks, node, place),)
        return self._value(field.kind, field.marks, node, place)

    def _value(self, kind: Any, marks: tuple[Any, ...], node: Node, place: str) -> Any:
        if is_union(kind):
            return self._union(kind, node, place)
        origin = get_origin(kind)
        if origin is tuple:
            return self._tuple(get_args(kind), node, place)
        if origin in (dict, Mapping) or kind in (dict, Mapping):
            return self._dictionary(get_args(kind), node, place)
        if kind is Source:
            return self._source(node, place)
        if dataclasses.is_dataclass(kind) and not hasattr(kind, "from_text"):
            assert isinstance(kind, type)
            return self._record(kind, node, place)
        return self._scalar(kind, marks, node, place)

    def _union(self, kind: Any, node: Node, place: str) -> Any:
        """A union has at most one kind for each shape of node, so that the shape decides."""
        for hint in get_args(kind):
            inner, marks = unwrap(hint)
            if isinstance(node, _shape(inner)):
                return self._value(inner, marks, node, place)
        shapes = " or ".join(_shape_word(unwrap(hint)[0]) for hint in get_args(kind))
        raise self._refuse(node, place, f"{_word(node)} stands here", f"write {shapes}")

    def _tuple(self, members: tuple[Any, ...], node: Node, place: str) -> tuple[Any, ...]:
        if not isinstance(node, SequenceNode):
            raise self._refuse(node, place, f"{_word(node)} stands here", "write a list: [ … ]")
        if members[-1] is Ellipsis:
            hints = [members[0]] * len(node.value)
        elif len(members) != len(node.value):
            raise self._refuse(node, place, f"has {len(node.value)} members", f"must have {len(members)}")
        else:
            hints = list(members)
        values = []
        refused = False
        for number, (hint, member) in enumerate(zip(hints, node.value, strict=True)):
            kind, marks = unwrap(hint)
            try:
                values.append(self._value(kind, marks, member, f"{place}[{number}]"))
            except _Refused:
                refused = True
        if refused:
            raise _Refused
        return tuple(values)

    def _dictionary(self, hints: tuple[Any, ...], node: Node, place: str) -> dict[str, Any]:
        (name_kind, name_marks), (kind, marks) = unwrap(hints[0]), unwrap(hints[1])
        values = {}
        refused = False
        for key, (key_node, value_node) in self._mapping(node, place).items():
            try:
                name = self._scalar(name_kind, name_marks, key_node, below(place, key))
                values[name] = self._value(kind, marks, value_node, below(place, key))
            except _Refused:
                refused = True
        if refused:
            raise _Refused
        return values

    def _mapping(self, node: Node, place: str) -> dict[str, tuple[Node, Node]]:
        if isinstance(node, MappingNode):
            return {key.value: (key, value) for key, value in node.value}
        raise self._refuse(node, place, f"{_word(node)} stands here", "write a mapping: {NAME: VALUE, …}")

    def _source(self, node: Node, place: str) -> Source:
        """Nothing of the value is repeated: somebody may have put the secret itself here."""
        legal = "write {file: PATH}, {env: NAME} or {credential: NAME}"
        if not isinstance(node, MappingNode) or len(node.value) != 1:
            raise self._refuse(node, place, "the secret itself must not stand in this file", legal)
        key, value = node.value[0]
        if key.value not in SOURCES:
            raise self._refuse(key, place, "not a place a secret can be read from", legal)
        if not isinstance(value, ScalarNode) or not value.value or is_null(value) or "\n" in value.value:
            raise self._refuse(value, below(place, key.value), "not a name", legal)
        name = str(self._directory / value.value) if key.value == "file" else value.value
        if key.value == "credential" and "/" in name:
            raise self._refuse(value, below(place, key.value), "a credential is named without '/'", legal)
        return Source(key.value, name)

    def _scalar(self, kind: Any, marks: tuple[Any, ...], node: Node, place: str) -> Any:
        if not isinstance(node, ScalarNode):
            raise self._refuse(node, place, f"{_word(node)} stands here", f"write {_shape_word(kind)}")
        text: str = node.value
        for mark in marks:
            if isinstance(mark, Quantity):
                try:
                    return mark.parse(text)
                except UnitError as error:
                    raise self._refuse(node, place, error.what, error.legal) from None
        value = self._plain(kind, text, node, place)
        for mark in marks:
            if isinstance(mark, Pattern) and not mark.fits(text):
                raise self._refuse(node, place, f"{shown(text)} is not a name here", f"must be {mark.legal}")
            if isinstance(mark, Between) and not mark.low <= value <= mark.high:
                raise self._refuse(node, place, f"{shown(text)} is out of range", f"must be {mark.low} to {mark.high}")
        return value

    def _plain(self, kind: Any, text: str, node: ScalarNode, place: str) -> Any:
        if hasattr(kind, "from_text"):
            try:
                return kind.from_text(text)
            except ValueError as error:
                raise self._refuse(node, place, str(error), f"write {kind.FORM}") from None
        if get_origin(kind) is Literal or (isinstance(kind, type) and issubclass(kind, Enum)):
            return self._choice(kind, text, node, place)
        tag = str(node.tag).removeprefix(TAG)
        if kind is bool and tag == "bool":
            return text.lower() == "true"
        if kind is int and tag == "int" and text.removeprefix("-").isdecimal() and len(text) < 20:
            return int(text)
        if kind is float and tag in ("int", "float") and text.lower().lstrip("+-") not in (".inf", ".nan"):
            return float(text)
        if kind is Path and text and tag != "null":
            return self._directory / text
        if kind is str and (tag not in ("null", "bool") or node.style):
            return text
        raise self._refuse(node, place, f"{shown(text)} stands here", f"write {_shape_word(kind)}")

    def _choice(self, kind: Any, text: str, node: ScalarNode, place: str) -> Any:
        choices = {str(choice): choice for choice in get_args(kind)} or {item.value: item for item in kind}
        if text not in choices:
            legal = f"must be {' or '.join(choices)}" if len(choices) < 3 else f"must be one of {', '.join(choices)}"
            raise self._refuse(node, place, f"{shown(text)} is not known", nearest(text, choices, legal))
        return choices[text]


def _step(node: Node, place: str, step: str | int) -> tuple[Node, str]:
    """Goes to a member; stays where the file has none, as a default may be what is wrong."""
    if isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], f"{place}[{step}]"
    if isinstance(node, MappingNode):
        return next((value for key, value in node.value if key.value == step), node), below(place, str(step))
    return node, place


def is_null(node: Node) -> bool:
    return isinstance(node, ScalarNode) and str(node.tag) == f"{TAG}null"


def _only_value(kind: Any) -> str:
    """Where a single word is legal."""
    legal = get_args(kind) if get_origin(kind) is Literal else ()
    return str(legal[0]) if len(legal) == 1 else ""


def _word(node: Node) -> str:
    if isinstance(node, MappingNode):
        return "a mapping"
    if isinstance(node, SequenceNode):
        return "a list"
    return "nothing" if is_null(node) else shown(node.value)


def _shape(kind: Any) -> type[Node]:
    if get_origin(kind) is tuple:
        return SequenceNode
    if kind is Source or get_origin(kind) in (dict, Mapping):
        return MappingNode
    if dataclasses.is_dataclass(kind) and not hasattr(kind, "from_text"):
        return MappingNode
    return ScalarNode


def _shape_word(kind: Any) -> str:
    if _shape(kind) is SequenceNode:
        return "a list: [ … ]"
    if _shape(kind) is MappingNode:
        return "a mapping: {NAME: VALUE, …}"
    words = {bool: "true or false", int: "a whole number", float: "a number", Path: "a file name"}
    return words.get(kind, "text, in quotes if it looks like true, false or null")
