"""From checked records back to YAML that reads as the same record."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_origin

from ruamel.yaml import YAML

from keyhop.files.places import Source
from keyhop.files.records import Field, Rest, fields_of, unwrap
from keyhop.files.units import Quantity

LINE_CHARACTERS = 120


def write(record: Any) -> str:
    """YAML without what is default anyway. Paths are written as the record holds them."""
    text = io.StringIO()
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = LINE_CHARACTERS
    yaml.allow_unicode = True
    yaml.dump(plain(record), text)
    return text.getvalue()


def plain(record: Any) -> dict[str, Any]:
    """The record as the mappings, lists and scalars its file has."""
    written: dict[str, Any] = {}
    for field in fields_of(type(record)):
        value = getattr(record, field.name)
        if field.mark(Rest) is not None:
            if value is not None:
                written |= plain(value)
        elif field.required or value != field.default:
            written[field.key] = _value(field, value)
    return written


def _value(field: Field, value: Any) -> Any:
    return _plain(field.kind, field.mark(Quantity), value)


def _plain(kind: Any, quantity: Quantity | None, value: Any) -> Any:
    if quantity is not None and value is not None:
        return quantity.write(value)
    if isinstance(value, Source):
        return {value.kind: value.name}
    if dataclasses.is_dataclass(value) and not hasattr(value, "from_text"):
        return plain(value)
    if isinstance(value, Mapping):
        member, marks = unwrap(get_args(kind)[1]) if get_origin(kind) in (dict, Mapping) else (None, ())
        return {str(name): _plain(member, _quantity(marks), entry) for name, entry in value.items()}
    if isinstance(value, tuple):
        hints = get_args(kind) if get_origin(kind) is tuple else ()
        kinds = [
            unwrap(hints[0] if hints[-1] is Ellipsis else hints[at]) if hints else (None, ())
            for at in range(len(value))
        ]
        return [_plain(member, _quantity(marks), entry) for (member, marks), entry in zip(kinds, value, strict=True)]
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, bool | int | float):
        return value
    return str(value)


def _quantity(marks: tuple[Any, ...]) -> Quantity | None:
    return next((mark for mark in marks if isinstance(mark, Quantity)), None)


def relative(path: Path, directory: Path) -> Path:
    """How a file in `directory` names `path`; unchanged where it lies elsewhere."""
    return path.relative_to(directory) if path.is_relative_to(directory) else path
