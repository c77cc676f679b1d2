"""JSON Schema made from the records, for editors and for checks in other languages."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from keyhop.files.places import Source
from keyhop.files.reading import SOURCES
from keyhop.files.records import Between, Field, OneOrMany, Pattern, Rest, Tables, fields_of, is_union, unwrap
from keyhop.files.units import Quantity

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_PLAIN: Mapping[Any, dict[str, Any]] = {
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": ["string", "number"]},
    Path: {"type": "string", "minLength": 1},
}
"""A name such as 14 is a number to JSON and a name to us."""


def schema(record: type[Any], title: str, tables: Tables | None = None) -> dict[str, Any]:
    """A schema that refuses what the reader refuses, as far as the language of schemas can say it."""
    definitions: dict[str, Any] = {}
    top = _record(record, tables or {}, definitions)
    return {"$schema": DIALECT, "title": title, **top, "$defs": definitions}


def _record(record: type[Any], tables: Tables, definitions: dict[str, Any]) -> dict[str, Any]:
    named = [field for field in fields_of(record) if field.mark(Rest) is None]
    rest = next((field for field in fields_of(record) if field.mark(Rest) is not None), None)
    properties = {field.key: _field(field, tables, definitions) for field in named}
    required = [field.key for field in named if field.required]
    written = {"description": _description(record), "type": "object", "properties": properties, "required": required}
    if rest is None:
        return written | {"additionalProperties": False}
    mark: Rest = rest.mark(Rest)
    by = next(field for field in named if field.name == mark.by)
    choices = []
    for name, part in tables.get(mark.table, {}).items():
        inner = {field.key: _field(field, tables, definitions) for field in fields_of(part)}
        needed = [field.key for field in fields_of(part) if field.required]
        choices.append(
            written
            | {"description": _description(part)}
            | {"properties": properties | inner | {by.key: {"const": name}}, "additionalProperties": False}
            | {"required": required + needed + ([] if name == by.default or by.required else [by.key])}
        )
    return {"anyOf": choices}


def _field(field: Field, tables: Tables, definitions: dict[str, Any]) -> dict[str, Any]:
    written = _value(field.kind, field.marks, tables, definitions)
    if field.mark(OneOrMany) is not None:
        kind, marks = unwrap(get_args(field.kind)[0])
        written = {"anyOf": [_value(kind, marks, tables, definitions), written]}
    if not field.required and field.default is None:
        written = {"anyOf": [written, {"type": "null"}]}
    return written


def _value(kind: Any, marks: tuple[Any, ...], tables: Tables, definitions: dict[str, Any]) -> dict[str, Any]:
    def inside(hint: Any) -> dict[str, Any]:
        return _value(*unwrap(hint), tables, definitions)

    if is_union(kind):
        return {"anyOf": [inside(hint) for hint in get_args(kind)]}
    if get_origin(kind) is tuple:
        members = get_args(kind)
        if members[-1] is Ellipsis:
            return {"type": "array", "items": inside(members[0])}
        fixed = [inside(member) for member in members]
        return {"type": "array", "prefixItems": fixed, "minItems": len(fixed), "maxItems": len(fixed)}
    if get_origin(kind) in (dict, Mapping):
        name = next((mark for mark in unwrap(get_args(kind)[0])[1] if isinstance(mark, Pattern)), None)
        names = {"propertyNames": {"pattern": f"^({name.expression})$"}} if name else {}
        return {"type": "object", "additionalProperties": inside(get_args(kind)[1]), **names}
    if kind is Source:
        return {"oneOf": [_source(name) for name in SOURCES]}
    if dataclasses.is_dataclass(kind) and not hasattr(kind, "from_text"):
        assert isinstance(kind, type)
        if kind.__name__ not in definitions:
            definitions[kind.__name__] = {}
            definitions[kind.__name__] = _record(kind, tables, definitions)
        return {"$ref": f"#/$defs/{kind.__name__}"}
    return _scalar(kind, marks)


def _scalar(kind: Any, marks: tuple[Any, ...]) -> dict[str, Any]:
    if hasattr(kind, "from_text"):
        text = {"type": "string", "pattern": kind.PATTERN, "description": kind.FORM}
        # A kind that looks like a number is one to JSON, unless it is quoted.
        return {"anyOf": [text, {"type": "number"}]} if getattr(kind, "BARE", False) else text
    if get_origin(kind) is Literal:
        return {"enum": list(get_args(kind))}
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {"enum": [item.value for item in kind]}
    written = dict(_PLAIN[kind])
    for mark in marks:
        if isinstance(mark, Quantity):
            text = {"type": "string", "pattern": mark.pattern, "description": f"a {mark.noun} such as {mark.example}"}
            written = {"anyOf": [text, {"type": "number"}]} if mark.bare else text
        elif isinstance(mark, Pattern):
            written |= {"pattern": f"^({mark.expression})$", "description": mark.legal}
        elif isinstance(mark, Between):
            written |= {"minimum": mark.low, "maximum": mark.high}
    return written


def _source(name: str) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {name: {"type": "string", "minLength": 1}},
        "required": [name],
        "additionalProperties": False,
    }


def _description(record: type[Any]) -> str:
    """The docstring; a dataclass without one has its signature there, which helps nobody."""
    text = inspect.getdoc(record) or ""
    return "" if text.startswith(f"{record.__name__}(") else text.replace("\n", " ")
