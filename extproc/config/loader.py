"""gateway.yaml from disk to a checked GatewayConfig, with every problem at its line.

Must not know: what any policy's settings are; they come with the call.
"""

import difflib
import functools
import json
import os
import pathlib
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any

import pydantic
import pydantic_core

from extproc.config import document
from extproc.config.document import Document, Key, key_text
from extproc.config.model import GatewayConfig
from extproc.config.policy import PolicySettings
from extproc.config.references import Finding, broken_references
from extproc.config.section import Section
from extproc.errors import ConfigError, Problem

PolicyTypes = Mapping[str, type[PolicySettings]]
Check = Callable[[GatewayConfig], Iterable[Finding]]


def load(
    path: pathlib.Path,
    policy_settings: PolicyTypes,
    env: Mapping[str, str] | None = None,
    checks: Sequence[Check] = (),
) -> GatewayConfig:
    """The configuration in the file at `path`; `env` is the process's own environment unless given.

    `checks` find what only others than this package can know to be wrong.

    Raises ConfigError, also for a file that can't be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(document.LIMIT_BYTES + 1)
    except OSError as error:
        raise ConfigError((Problem(str(path), 1, "", error.strerror or "cannot be read"),)) from None
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError((Problem(str(path), line, "", "the file is not UTF-8"),)) from None
    return parse(text, policy_settings, env, source=str(path), base=path.parent, checks=checks)


def parse(
    text: str,
    policy_settings: PolicyTypes,
    env: Mapping[str, str] | None = None,
    *,
    source: str = "gateway.yaml",
    base: pathlib.Path | None = None,
    checks: Sequence[Check] = (),
) -> GatewayConfig:
    """The configuration in `text`; files that it names are relative to `base`. Raises ConfigError."""
    read = document.read(text, source, os.environ if env is None else env)
    model = config_type(policy_settings)
    try:
        # As JSON because pydantic's strict mode takes the strings of enums and paths only from JSON.
        config = model.model_validate_json(json.dumps(read.value), context={"base": base or pathlib.Path()})
    except pydantic.ValidationError as error:
        problems = [_problem(detail, model, read, source) for detail in error.errors(include_url=False)]
    else:
        findings = list(broken_references(config)) or [finding for check in checks for finding in check(config)]
        problems = [Problem(source, read.line_of(key), key_text(key), message) for key, message in findings]
        if not problems:
            return config
    raise ConfigError(tuple(sorted(problems, key=lambda problem: (problem.line, problem.key))))


def config_type(policy_settings: PolicyTypes) -> type[GatewayConfig]:
    """GatewayConfig whose `policies` are exactly those of `policy_settings`, each with its own settings."""
    return _config_type(tuple(policy_settings.items()))


@functools.lru_cache(maxsize=16)
def _config_type(policy_settings: tuple[tuple[str, type[PolicySettings]], ...]) -> type[GatewayConfig]:
    # By alias, because a policy may well be called as something that pydantic's models have: `validate`.
    fields: dict[str, Any] = {
        f"policy_{name}": (
            settings,
            pydantic.Field(alias=name, default_factory=settings, description=_first_line(settings)),
        )
        for name, settings in policy_settings
    }
    names = [name for name, _ in policy_settings]
    policies = pydantic.create_model(
        "Policies", __base__=Section, __doc__="The steps of a request's journey.", **fields
    )
    as_mapping = Annotated[  # one object with fixed keys in the file and the schema, a mapping in the program
        policies,
        pydantic.AfterValidator(lambda sections: {name: getattr(sections, f"policy_{name}") for name in names}),
        pydantic.PlainSerializer(
            lambda mapping: {name: settings.model_dump(mode="json") for name, settings in mapping.items()}
        ),
    ]
    description = GatewayConfig.model_fields["policies"].description
    return pydantic.create_model(
        "GatewayConfig",
        __base__=GatewayConfig,
        __doc__=GatewayConfig.__doc__,
        policies=(as_mapping, pydantic.Field(default_factory=policies, description=description)),
    )


def _first_line(settings: type[PolicySettings]) -> str | None:
    return settings.__doc__.strip().splitlines()[0] if settings.__doc__ else None


def _problem(detail: pydantic_core.ErrorDetails, model: type[Section], read: Document, source: str) -> Problem:
    key = _key_in_file(detail["loc"], detail["type"], read.value)
    return Problem(source, read.line_of(key), key_text(key), _message(detail, model, key))


def _key_in_file(location: Iterable[str | int], kind: str, value: document.Value) -> Key:
    """pydantic's location without the parts that are its own: names of a union's members, `[key]`."""
    key: list[str | int] = []
    *parents, last = location or ("",)
    for part in parents:
        if isinstance(value, dict) and part in value:
            value = value[str(part)]
        elif isinstance(value, list) and isinstance(part, int):
            value = value[part]
        else:
            continue
        key.append(part)
    inside = _is_inside(last, value)
    return (*key, last) if inside or kind == "missing" else tuple(key)


def _is_inside(part: str | int, value: document.Value) -> bool:
    return part in value if isinstance(value, dict) else isinstance(value, list) and isinstance(part, int)


def _message(detail: pydantic_core.ErrorDetails, model: type[Section], key: Key) -> str:
    context = detail.get("ctx", {})
    match detail["type"]:
        case "extra_forbidden":
            close = difflib.get_close_matches(str(key[-1]), sorted(_known_keys(model, key[:-1])), n=1)
            return f"unknown key; did you mean {close[0]}?" if close else "unknown key"
        case "missing":
            return "this key is required"
        case "value_error":
            return str(context["error"])
        case "union_tag_invalid" | "union_tag_not_found":  # pydantic's own text repeats the value
            tags = context.get("expected_tags", "one of the documented values")
            return f"{str(context['discriminator']).strip(chr(39))} has to be {tags}"
        case _:
            return detail["msg"]


def _known_keys(model: type[Section], key: Key) -> set[str]:
    types: list[Any] = [model]
    for part in key:
        types = [inner for outer in types for inner in _inner_types(outer, part)]
    sections = [kind for kind in _plain_types(types) if _is_section(kind)]
    return {field.alias or name for section in sections for name, field in section.model_fields.items()}


def _inner_types(annotation: Any, part: str | int) -> list[Any]:
    result = []
    for kind in _plain_types([annotation]):
        if _is_section(kind):
            fields = kind.model_fields.items()
            result += [field.annotation for name, field in fields if part == (field.alias or name)]
        elif isinstance(part, int) or typing.get_origin(kind) is not None:
            result += typing.get_args(kind)[-1:] if isinstance(part, str) else typing.get_args(kind)[:1]
    return result


def _plain_types(annotations: Iterable[Any]) -> list[Any]:
    """Every type behind aliases, `Annotated` and unions."""
    result = []
    for annotation in annotations:
        origin = typing.get_origin(annotation)
        if origin is Annotated:
            result += _plain_types(typing.get_args(annotation)[:1])
        elif origin in {typing.Union, types.UnionType}:
            result += _plain_types(typing.get_args(annotation))
        else:
            result.append(annotation)
    return result


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)
