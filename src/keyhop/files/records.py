"""What a checked record is made of: frozen dataclasses whose annotations say how the file writes each field."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import reduce
from operator import or_
from typing import Annotated, Any, Union, get_args, get_origin

from keyhop.files.units import Quantity


@dataclass(frozen=True, eq=False)
class Key:
    """The file writes the field under this name."""

    name: str


@dataclass(frozen=True, eq=False)
class Pattern:
    """A text must have this form, which `legal` tells in words."""

    expression: str
    legal: str

    def fits(self, text: str) -> bool:
        return re.fullmatch(self.expression, text) is not None


@dataclass(frozen=True, eq=False)
class Between:
    """A plain number must lie here, ends included."""

    low: int | float
    high: int | float


@dataclass(frozen=True, eq=False)
class OneOrMany:
    """A list of one may be written as its only member."""


@dataclass(frozen=True, eq=False)
class Rest:
    """All members that the record does not name make one record more, of the type that `table` has for field `by`."""

    table: str
    by: str


Tables = Mapping[str, Mapping[str, type[Any]]]
"""For each name a `Rest` mentions: the record types to choose from."""

NAME = Pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}", "1 to 63 letters, digits, '.', '_' or '-', first a letter or digit")
"""Ids of nodes, links and applications in files of ours: safe in file names, certificates and addresses."""

Name = Annotated[str, NAME]


@dataclass(frozen=True)
class Field:
    """One field of a record, as the reader needs it."""

    name: str
    key: str
    kind: Any
    marks: tuple[Any, ...]
    required: bool
    default: Any = field(default=None)

    def mark(self, kind: type[Any]) -> Any:
        return next((mark for mark in self.marks if isinstance(mark, kind)), None)


_fields: dict[type[Any], tuple[Field, ...]] = {}


def fields_of(record: type[Any]) -> tuple[Field, ...]:
    if record not in _fields:
        hints = typing.get_type_hints(record, include_extras=True)
        _fields[record] = tuple(_field(item, hints[item.name]) for item in dataclasses.fields(record))
    return _fields[record]


def _field(item: dataclasses.Field[Any], hint: Any) -> Field:
    kind, marks = unwrap(hint)
    required = item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING
    default = item.default_factory() if item.default_factory is not dataclasses.MISSING else item.default
    return Field(item.name, _key(item.name, marks), kind, marks, required, None if required else default)


def unwrap(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """A hint without Annotated and without its None, and all marks on the way; marks of list members stay inside."""
    if get_origin(hint) is Annotated:
        kind, *marks = get_args(hint)
        inner, more = unwrap(kind)
        return inner, (*marks, *more)
    if is_union(hint):
        rest = [kind for kind in get_args(hint) if kind is not type(None)]
        if len(rest) == 1:
            return unwrap(rest[0])
        return reduce(or_, rest), ()
    return hint, ()


def is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _key(name: str, marks: tuple[Any, ...]) -> str:
    for mark in marks:
        if isinstance(mark, Key):
            return mark.name
    for mark in marks:
        if isinstance(mark, Quantity) and mark.suffix:
            if not name.endswith(f"_{mark.suffix}"):
                raise TypeError(f"field {name} holds a {mark.noun} in {mark.base}: its name must end in _{mark.suffix}")
            return name.removesuffix(f"_{mark.suffix}")
    return name
