"""The OpenAPI document of the admin API, made from its endpoints. Must not know: what they do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Any

import msgspec

from extproc.admin.endpoints import Endpoint
from extproc.admin.problems import Error

_REF = "#/components/schemas/{name}"
_ALWAYS: Mapping[int, str] = {
    400: "The request is not as documented.",
    401: "The admin token is missing or wrong.",
    403: "This interface may not be used from there.",
    500: "A bug of ours; the log has more.",
    503: "Redis or the audit log can't be reached, or too much is asked at once. `retry-after` says when to try again.",
}
_OF_BODIES: Mapping[int, str] = {413: "The body is too large.", 415: "The body is not JSON."}

Schema = dict[str, Any]


def document(endpoints: Sequence[Endpoint]) -> Schema:
    """OpenAPI 3.1."""
    types = [Error, *(endpoint.takes for endpoint in endpoints), *(endpoint.gives for endpoint in endpoints)]
    _, components = msgspec.json.schema_components(types, ref_template=_REF)
    paths: dict[str, Schema] = {}
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint, components)
    in_path = {endpoint.takes.__name__: endpoint.in_path for endpoint in endpoints if endpoint.has_body}
    inputs = {endpoint.takes.__name__ for endpoint in endpoints if not endpoint.has_body}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "extproc admin API",
            "version": "1",
            "description": "Keys, limits, caches, experiments and the process of one extproc service.",
        },
        "security": [{"token": []}, {}],
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {
                name: _body(one, in_path.get(name, frozenset()))
                for name, one in sorted(components.items())
                if name not in inputs
            },
        },
    }


def _operation(endpoint: Endpoint, components: Mapping[str, Schema]) -> Schema:
    refusals = {**_ALWAYS, **(_OF_BODIES if endpoint.has_body else {}), **endpoint.refusals}
    answers = {str(status): _answer(when, Error.__name__) for status, when in sorted(refusals.items())}
    operation: Schema = {"operationId": endpoint.name, "summary": endpoint.summary}
    if endpoint.has_body:
        schema = {"$ref": _REF.format(name=endpoint.takes.__name__)}
        if endpoint.in_path:
            operation["parameters"] = _parameters(endpoint, components[endpoint.takes.__name__], endpoint.in_path)
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    else:
        taken = components[endpoint.takes.__name__]
        operation["parameters"] = _parameters(endpoint, taken, taken["properties"].keys())
    operation["responses"] = {str(endpoint.status): _answer("Done.", endpoint.gives.__name__), **answers}
    return operation


def _body(schema: Schema, in_path: Set[str]) -> Schema:
    """What of an input comes in the body."""
    if not in_path:
        return schema
    properties = {name: one for name, one in schema["properties"].items() if name not in in_path}
    return {**schema, "properties": properties, "required": [name for name in schema["required"] if name in properties]}


def _parameters(endpoint: Endpoint, taken: Schema, names: Set[str]) -> list[Schema]:
    required = set(taken.get("required", ()))
    return [
        {
            "name": name,
            "in": "path" if name in endpoint.in_path else "query",
            "required": name in required,
            "schema": schema,
        }
        for name, schema in taken["properties"].items()
        if name in names
    ]


def _answer(when: str, name: str) -> Schema:
    return {"description": when, "content": {"application/json": {"schema": {"$ref": _REF.format(name=name)}}}}
