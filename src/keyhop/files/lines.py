"""On which line each member of a YAML file stands."""

from __future__ import annotations

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode

from keyhop.files.words import below


def lines_of(text: bytes | str) -> dict[str, int]:
    """Line, counted from 1, by place in the file's own words (`rules[0].class`); of a text that was read before."""
    found: dict[str, int] = {}
    node = YAML(typ="safe", pure=True).compose(text)
    if node is not None:
        _walk(node, "", found)
    return found


def _walk(node: Node, place: str, found: dict[str, int]) -> None:
    if isinstance(node, MappingNode):
        for key, value in node.value:
            inner = below(place, key.value)
            found[inner] = key.start_mark.line + 1
            _walk(value, inner, found)
    elif isinstance(node, SequenceNode):
        for number, member in enumerate(node.value):
            inner = f"{place}[{number}]"
            found[inner] = member.start_mark.line + 1
            _walk(member, inner, found)
