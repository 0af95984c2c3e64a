"""YAML text as plain values, each with the line it came from.

Owns the dialect: the types of YAML 1.2's core schema and nothing else, no tags, no duplicate keys, anchors
within bounds, `${NAME}` and `${NAME:-default}` from the environment, `${file:/path}` from a file. They are put into
scalars after parsing, so that no value of a variable can change the structure of the document.

Must not know: what the values mean.
"""

import dataclasses
import re
from collections.abc import Mapping

import yaml
from yaml.composer import Composer, ComposerError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

from extproc.errors import ConfigError, Problem

Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]
Key = tuple[str | int, ...]

LIMIT_BYTES = 1024 * 1024
_LIMIT_DEPTH = 32
# Counted with every alias expanded, so that anchors can't multiply a small file into a large one.
_LIMIT_NODES = 100_000

_VARIABLE = re.compile(
    r"\$\$\{|\$\{file:(?P<file>/[^}\s]+)\}|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::-(?P<default>[^}]*))?\}|\$\{"
)
_LIMIT_FILE_BYTES = 64 * 1024
_CONSTANTS: Mapping[str, bool | None] = (
    dict.fromkeys(("", "~", "null", "Null", "NULL"), None)
    | dict.fromkeys(("true", "True", "TRUE"), True)
    | dict.fromkeys(("false", "False", "FALSE"), False)
)
# Lengths are bounded because turning very long digits into a number is slow, or refused, by Python itself.
_DECIMAL = re.compile(r"[-+]?[0-9]{1,30}")
_OCTAL = re.compile(r"0o[0-7]{1,30}")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]{1,30}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]{1,30}|[0-9]{1,30}(\.[0-9]{0,30})?)([eE][-+]?[0-9]{1,4})?")


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
    """The values, and the line (from 1) of every key and list item in them; `()` is the document itself."""

    value: Value
    lines: Mapping[Key, int]

    def line_of(self, key: Key) -> int:
        """The line of `key`, or of its nearest parent that the file has."""
        while key and key not in self.lines:
            key = key[:-1]
        return self.lines.get(key, 1)


def key_text(key: Key) -> str:
    """`pools.demo.clusters.a.endpoints[0]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in key)
    return text.removeprefix(".")


def read(text: str, source: str, env: Mapping[str, str]) -> Document:
    """Parse `text`. Raises ConfigError with every problem; a syntax error hides those after it."""
    if len(text) > LIMIT_BYTES:
        raise ConfigError((Problem(source, 1, "", f"the file is larger than {LIMIT_BYTES} bytes"),))
    node = _compose(text, source)
    if node is None:
        raise ConfigError((Problem(source, 1, "", "the file is empty"),))
    construction = _Construction(source, env)
    value = construction.construct(node, ())
    if construction.problems:
        raise ConfigError(tuple(construction.problems))
    return Document(value, construction.lines)


class _Loader(Reader, Scanner, Parser, Composer, BaseResolver):
    """PyYAML without its YAML 1.1 types: every plain scalar stays a string."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)
        self._depth = 0

    def compose_node(self, parent: Node | None, index: object) -> Node | None:
        self._depth += 1
        if self._depth > _LIMIT_DEPTH:
            raise ComposerError(None, None, "nested too deeply", self.get_mark())
        node: Node | None = super().compose_node(parent, index)  # type: ignore[arg-type]  # the stub wants int, PyYAML passes a node or None
        self._depth -= 1
        return node


def _compose(text: str, source: str) -> Node | None:
    loader = None
    try:
        loader = _Loader(text)
        return loader.get_single_node()
    except ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = Problem(source, line, "", "a character that YAML does not allow")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = Problem(source, mark.line + 1 if mark else 1, "", error.problem or "this is not YAML")
    except (ValueError, OverflowError):
        # PyYAML lets those of `chr` and `int` through, for escapes such as "\UFFFFFFFF".
        problem = Problem(source, loader.line + 1 if loader else 1, "", "an escape that is no character")
    raise ConfigError((problem,))


class _Construction:
    """Turns nodes into values, collecting problems and lines on the way."""

    def __init__(self, source: str, env: Mapping[str, str]) -> None:
        self.problems: list[Problem] = []
        self.lines: dict[Key, int] = {}
        self._source = source
        self._env = env
        self._nodes = 0

    def construct(self, node: Node, key: Key) -> Value:
        self.lines.setdefault(key, node.start_mark.line + 1)
        self._nodes += 1
        if len(key) > _LIMIT_DEPTH:  # an alias inside the very value it names
            self._problem(node, key, "nested too deeply")
            return None
        if self._nodes > _LIMIT_NODES:
            if self._nodes == _LIMIT_NODES + 1:
                self._problem(node, key, f"more than {_LIMIT_NODES} values, counting those of aliases")
            return None
        if node.tag not in {BaseResolver.DEFAULT_SCALAR_TAG, BaseResolver.DEFAULT_SEQUENCE_TAG} and (
            node.tag != BaseResolver.DEFAULT_MAPPING_TAG
        ):
            self._problem(node, key, "tags are not supported")
            return None
        if isinstance(node, ScalarNode):
            return self._scalar(node, key)
        if isinstance(node, SequenceNode):
            return [self.construct(item, (*key, index)) for index, item in enumerate(node.value)]
        return self._mapping(node, key)

    def _problem(self, node: Node, key: Key, message: str) -> None:
        self.problems.append(Problem(self._source, node.start_mark.line + 1, key_text(key), message))

    def _mapping(self, node: Node, key: Key) -> dict[str, Value]:
        assert isinstance(node, MappingNode)
        result: dict[str, Value] = {}
        for name_node, value_node in node.value:
            if not isinstance(name_node, ScalarNode) or not _is_encodable(name_node.value):
                self._problem(name_node, key, "a key has to be a string")
                continue
            name = name_node.value
            if name in result:
                first = self.lines[*key, name]
                self._problem(name_node, (*key, name), f"this key is here already, on line {first}")
                continue
            self.lines[*key, name] = name_node.start_mark.line + 1
            result[name] = self.construct(value_node, (*key, name))
        return result

    def _scalar(self, node: ScalarNode, key: Key) -> Value:
        text = _VARIABLE.sub(lambda match: self._substitute(match, node, key), node.value)
        if not _is_encodable(text):
            self._problem(node, key, "this is not valid Unicode")
            return None
        # Quoted and block scalars are strings, whatever they look like, and a password of digits is no number.
        return text if node.style is not None or "${file:" in node.value else _typed(text)

    def _substitute(self, match: re.Match[str], node: ScalarNode, key: Key) -> str:
        if match[0] == "$${":
            return "${"
        name, default = match["name"], match["default"]
        if match["file"] is not None:
            return self._content(match["file"], node, key)
        if name is None:
            self._problem(node, key, "write ${NAME}, ${NAME:-default} or ${file:/path}, or $${ for a literal ${")
            return ""
        if default is not None:
            return self._env.get(name) or default
        if name not in self._env:
            self._problem(node, key, f"the environment variable {name} is not set and has no default here")
        return self._env.get(name, "")

    def _content(self, path: str, node: ScalarNode, key: Key) -> str:
        """A secret, as orchestrators mount them; the line break that editors put behind it is none of it."""
        try:
            with open(path, "rb") as file:
                content = file.read(_LIMIT_FILE_BYTES + 1)
            if len(content) <= _LIMIT_FILE_BYTES:
                return content.decode().rstrip("\r\n")
            problem = f"the file {path} is too large"
        except UnicodeDecodeError:
            problem = f"the file {path} is not UTF-8"
        except OSError as error:
            problem = f"the file {path}: {error.strerror}"
        self._problem(node, key, problem)
        return ""


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _typed(text: str) -> Value:
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _DECIMAL.fullmatch(text):
        return int(text)
    if _OCTAL.fullmatch(text) or _HEXADECIMAL.fullmatch(text):
        return int(text, 0)
    return float(text) if _FLOAT.fullmatch(text) else text
