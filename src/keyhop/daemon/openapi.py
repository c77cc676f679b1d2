"""The node API described for programs: an OpenAPI 3.1 document made from the very records that are sent."""

from __future__ import annotations

from functools import cache
from typing import Any, get_args

import msgspec

from keyhop import __version__
from keyhop.wire import manage as wire
from keyhop.wire.explain import EXPLAIN_PATH, ExplainAnswer
from keyhop.wire.manage import (
    AlarmsAnswer,
    Answer,
    AnyEvent,
    ApplicationAnswer,
    ApplicationsAnswer,
    DeclareRestored,
    HealthAnswer,
    LinkAnswer,
    LinksAnswer,
    PoolAnswer,
    PoolsAnswer,
    Problem,
    ReadyAnswer,
    RestoredAnswer,
    RouteAnswer,
    RoutesAnswer,
    StatusAnswer,
)

READ: dict[str, tuple[type[Answer], str]] = {
    wire.HEALTH_PATH: (HealthAnswer, "Whether the process lives."),
    wire.READY_PATH: (ReadyAnswer, "Whether applications are served; 503 and why if not."),
    wire.STATUS_PATH: (StatusAnswer, "The node in one record."),
    wire.LINKS_PATH: (LinksAnswer, "All links of this node."),
    wire.LINKS_PATH + "/{link}": (LinkAnswer, "One link."),
    wire.POOLS_PATH: (PoolsAnswer, "Key shared with each other node."),
    wire.POOLS_PATH + "/{peer}": (PoolAnswer, "Key shared with one node."),
    wire.ROUTES_PATH: (RoutesAnswer, "The chosen route to each node this one knows."),
    wire.ROUTES_PATH + "/{origin}/{to}": (
        RouteAnswer,
        "The route between two nodes or applications, and the next best.",
    ),
    wire.APPLICATIONS_PATH: (ApplicationsAnswer, "Applications served here."),
    wire.APPLICATIONS_PATH + "/{application}": (ApplicationAnswer, "One application."),
    EXPLAIN_PATH + "/{application}/{peer}": (
        ExplainAnswer,
        "What would become of a request for key (`size` in bits, `extensions` as JSON), which rule decides, and what "
        "there is for it. Nothing is taken.",
    ),
    wire.ALARMS_PATH: (AlarmsAnswer, "What is wrong, and what was."),
}
"""Path to the answer of a GET."""

OTHERS = (Problem, DeclareRestored, RestoredAnswer)


@cache
def description() -> bytes:
    return msgspec.json.format(msgspec.json.encode(document()), indent=2)


def document() -> dict[str, Any]:
    kinds: list[type] = [*dict.fromkeys(kind for kind, _ in READ.values()), *OTHERS, *get_args(AnyEvent)]
    schemas, components = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    schema_of = dict(zip(kinds, schemas, strict=True))
    paths: dict[str, Any] = {
        path: {"get": _operation(path, summary, schema_of[kind], schema_of[Problem])}
        for path, (kind, summary) in READ.items()
    }
    paths[wire.READY_PATH]["get"]["responses"]["503"] = _response("Not ready.", schema_of[ReadyAnswer])
    paths[wire.METRICS_PATH] = {"get": _text("Metrics for Prometheus, OpenMetrics if asked for.", "text/plain")}
    events = {"oneOf": [schema_of[kind] for kind in get_args(AnyEvent)]}
    stream = _text("Server-sent events; the data of each is one of these records.", "text/event-stream")
    stream["responses"]["200"]["content"]["text/event-stream"] = {"schema": events}
    paths[wire.EVENTS_PATH] = {"get": stream}
    restored = _operation(
        wire.RESTORED_PATH, "Says that this node's store is an old copy.", schema_of[RestoredAnswer], schema_of[Problem]
    )
    body = {"required": True, "content": {"application/json": {"schema": schema_of[DeclareRestored]}}}
    paths[wire.RESTORED_PATH] = {"post": {**restored, "requestBody": body}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Keyhop node API",
            "version": __version__,
            "description": "Read-only but for one call, on loopback, without a login. No record has room for key bits.",
        },
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(path: str, summary: str, answer: dict[str, Any], problem: dict[str, Any]) -> dict[str, Any]:
    names = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    operation: dict[str, Any] = {
        "summary": summary,
        "responses": {"200": _response("As asked.", answer), "default": _response("Refused.", problem)},
    }
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    return operation


def _response(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def _text(summary: str, kind: str) -> dict[str, Any]:
    content = {kind: {"schema": {"type": "string"}}}
    return {"summary": summary, "responses": {"200": {"description": "As asked.", "content": content}}}
