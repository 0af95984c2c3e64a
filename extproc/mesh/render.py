"""Typed messages as the YAML that Envoy reads.

Must not know: what is in them.
"""

import typing

import yaml
from betterproto2 import Casing, Message


def plain(message: Message) -> dict[str, typing.Any]:
    """The message in protobuf's JSON form, with its fields' names as in Envoy's documentation."""
    # betterproto's own casings misspell names with digits (`consecutive_5xx`); it only ever calls them.
    names_as_they_are = typing.cast("Casing", _proto_name)
    return message.to_dict(casing=names_as_they_are)


def to_yaml(content: dict[str, typing.Any]) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)


def _proto_name(attribute: str) -> str:
    return attribute.rstrip("_")
