"""The YAML dialect: types, positions, variables, and what is refused."""

import pathlib

import pytest

from extproc.config import document
from extproc.errors import ConfigError


def read(text: str, **env: str) -> document.Value:
    return document.read(text, "f.yaml", env).value


def problems(text: str, **env: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        document.read(text, "f.yaml", env)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("1", 1),
        ("-7", -7),
        ("0x1f", 31),
        ("0o17", 15),
        ("017", 17),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        # What YAML 1.1 makes of these has surprised enough people.
        ("yes", "yes"),
        ("off", "off"),
        ("1:30", "1:30"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        (".inf", ".inf"),
        ("9" * 5000, "9" * 5000),
        ("'1'", "1"),
        ('"true"', "true"),
    ],
)
def test_types_of_scalars(scalar: str, value: object) -> None:
    assert read(f"a: {scalar}") == {"a": value}


def test_every_key_and_item_has_its_line() -> None:
    read_document = document.read("a:\n  b: 1\n  c:\n    - x\n    - {d: 2}\n", "f", {})
    assert read_document.lines == {
        (): 1,
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "c"): 3,
        ("a", "c", 0): 4,
        ("a", "c", 1): 5,
        ("a", "c", 1, "d"): 5,
    }
    assert read_document.line_of(("a", "c", 1, "missing", 3)) == 5


def test_variables() -> None:
    env = {"PORT": "80", "EMPTY": "", "TEXT": "a b"}
    assert read("a: ${PORT}", **env) == {"a": 80}
    assert read("a: '${PORT}'", **env) == {"a": "80"}
    assert read("a: h:${PORT}/${TEXT}", **env) == {"a": "h:80/a b"}
    assert read("a: ${UNSET:-5}", **env) == {"a": 5}
    assert read("a: ${EMPTY:-5}", **env) == {"a": 5}
    assert read("a: ${UNSET:-}", **env) == {"a": None}
    assert read("a: ${UNSET:-unix:///x}", **env) == {"a": "unix:///x"}
    assert read("a: $${PORT} $PORT $$", **env) == {"a": "${PORT} $PORT $$"}


def test_a_variable_can_not_change_the_structure() -> None:
    hostile = "x\nb: {c: [1]}  # ${PORT} *a"
    assert read("a: ${V}", V=hostile) == {"a": hostile}


def test_a_variable_is_not_substituted_in_a_key() -> None:
    assert read("${V}: 1", V="a") == {"${V}": 1}


def test_missing_and_malformed_variables_are_told_with_their_line() -> None:
    text = "a: ${UNSET}\nb:\n  - ${1}\n  - ${OPEN\n"
    assert problems(text) == [
        "f.yaml:1: a: the environment variable UNSET is not set and has no default here",
        "f.yaml:3: b[0]: write ${NAME}, ${NAME:-default} or ${file:/path}, or $${ for a literal ${",
        "f.yaml:4: b[1]: write ${NAME}, ${NAME:-default} or ${file:/path}, or $${ for a literal ${",
    ]


def test_anchors_are_allowed() -> None:
    assert read("a: &x {b: 1}\nc: *x\n") == {"a": {"b": 1}, "c": {"b": 1}}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3: a: this key is here already, on line 1"),
        ("a: [1\n", "f.yaml:2: expected ',' or ']', but got '<stream end>'"),
        ("\n\n\t- x", "f.yaml:3: found character '\\t' that cannot start any token"),
        ("a: !!python/object:os.system x", "f.yaml:1: a: tags are not supported"),
        ("a: !!int 3", "f.yaml:1: a: tags are not supported"),
        ("? [a]\n: b", "f.yaml:1: a key has to be a string"),
        ("a: *nowhere", "f.yaml:1: found undefined alias 'nowhere'"),
        ("a: &x [*x]", "f.yaml:1: a" + "[0]" * 32 + ": nested too deeply"),
        ("[" * 40 + "]" * 40, "f.yaml:1: nested too deeply"),
        ("a: 1\n--- b", "f.yaml:2: but found another document"),
        ("", "f.yaml:1: the file is empty"),
        ("# nothing", "f.yaml:1: the file is empty"),
        ("a: 1\nb: \x00", "f.yaml:2: a character that YAML does not allow"),
        ('a: "\\UFFFFFFFF"', "f.yaml:1: an escape that is no character"),
        ('a: "\\ud800"', "f.yaml:1: a: this is not valid Unicode"),
        ("a" * (document.LIMIT_BYTES + 1), "f.yaml:1: the file is larger than 1048576 bytes"),
    ],
)
def test_what_is_refused(text: str, problem: str) -> None:
    assert problems(text) == [problem]


def test_anchors_do_not_multiply_without_bound() -> None:
    laughs = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{name}: &{name} [{', '.join([f'*{last}'] * 10)}]\n" for last, name in zip("abcdefg", "bcdefgh", strict=True)
    )
    found = problems(laughs)
    assert len(found) == 1
    assert "more than 100000 values, counting those of aliases" in found[0]


def test_a_file_gives_its_content(tmp_path: pathlib.Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret: [x]\n")
    assert read(f"a: ${{file:{secret}}}") == {"a": "s3cret: [x]"}
    assert read(f"a: redis://:${{file:{secret}}}@host") == {"a": "redis://:s3cret: [x]@host"}
    secret.write_text("0123456789")
    assert read(f"a: ${{file:{secret}}}") == {"a": "0123456789"}
    assert read(f"a: $${{file:{secret}}}") == {"a": f"${{file:{secret}}}"}


def test_a_file_that_can_not_be_used_is_a_problem_without_its_content(tmp_path: pathlib.Path) -> None:
    (tmp_path / "binary").write_bytes(b"\xff")
    (tmp_path / "large").write_bytes(b"x" * 70_000)
    for name, said in (("none", "No such file"), ("binary", "not UTF-8"), ("large", "too large")):
        with pytest.raises(ConfigError, match=said) as raised:
            read(f"a: ${{file:{tmp_path}/{name}}}")
        assert "xxx" not in str(raised.value)
    with pytest.raises(ConfigError, match="write"):
        read("a: ${file:relative}")
