"""Errors of a configuration: all of them, each at its line, none with a value in it."""

import pathlib
from typing import Annotated

import pydantic
import pytest

from extproc import config
from extproc.config.address import TcpAddress, UnixAddress
from extproc.errors import ConfigError

SECRET = "hunter2-hunter2-hunter2"
VALID = """\
keys:
  hash_secret: 0123456789abcdef
models:
  chatty:
    pool: llm
    operations: [chat, completions]
    chat_template: chatml
    context_window: 8192
    tokenizer: {type: tiktoken, encoding: cl100k_base}
pools:
  llm:
    dialect: triton-generate
    model: llm
    clusters:
      a:
        weight: 1
        endpoints: ["127.0.0.1:8000"]
"""


class Guard(config.PolicySettings):
    """Refuses some."""

    limit_bytes: Annotated[int, pydantic.Field(gt=0)] = 10
    """Where it begins."""


POLICIES = {"guard": Guard, "validate": Guard}


def parse(text: str, **env: str) -> config.GatewayConfig:
    return config.parse(text, POLICIES, env)


def problems(text: str, **env: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, **env)
    return str(caught.value).splitlines()


def test_defaults() -> None:
    loaded = parse(VALID)
    assert str(loaded.gateway.listen) == "127.0.0.1:10000"
    assert loaded.service.addresses == (UnixAddress("/tmp/extproc/extproc.sock"),)
    assert loaded.pools["llm"].clusters["a"].endpoints == (TcpAddress("127.0.0.1", 8000),)
    assert loaded.policies == {"guard": Guard(), "validate": Guard()}
    assert loaded.models["chatty"].operations == ("chat", "completions")


def test_policies_have_their_own_settings() -> None:
    loaded = parse(VALID + "policies:\n  validate: {mode: shadow, limit_bytes: 3, deadline_s: 1}\n")
    assert loaded.policies["validate"] == Guard(mode=config.PolicyMode.SHADOW, limit_bytes=3, deadline_s=1)
    assert loaded.policies["guard"] == Guard()


def test_a_configuration_can_not_be_changed() -> None:
    with pytest.raises(pydantic.ValidationError):
        parse(VALID).gateway.max_body_bytes = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("context_window", "context_windw",
         "8: models.chatty.context_windw: unknown key; did you mean context_window?"),
        ("weight: 1", "wieght: 1", "16: pools.llm.clusters.a.wieght: unknown key; did you mean weight?"),
        ("pools:", "pool:", "10: pool: unknown key; did you mean pools?"),
        ("    context_window: 8192\n", "", "4: models.chatty.context_window: this key is required"),
        ("8192", "'8192'", "8: models.chatty.context_window: Input should be a valid integer"),
        ("8192", "true", "8: models.chatty.context_window: Input should be a valid integer"),
        ("weight: 1", "weight: 0", "14: pools.llm.clusters: every weight is 0, so nothing would be served"),
        ("pool: llm", "pool: nowhere", "5: models.chatty.pool: there is no pool nowhere"),
        ("    tokenizer: {type: tiktoken, encoding: cl100k_base}\n", "",
         "7: models.chatty.chat_template: nothing renders it without a tokenizer"),
        ("    chat_template: chatml\n", "",
         "4: models.chatty: chat over triton-generate needs a chat_template, because the server takes one text"),
        ("triton-generate", "kserve",
         "6: models.chatty.operations[0]: the kserve dialect of pool llm carries embeddings, infer"),
        ("[chat, completions]", "[chat, chat]", "6: models.chatty.operations: an operation is named twice"),
        ("[chat, completions]", "[chat, infer]",
         "6: models.chatty.operations[1]: the triton-generate dialect of pool llm carries chat, completions"),
        ("8192", "8192\n    max_output_tokens: 9000",
         "9: models.chatty.max_output_tokens: more than the context_window"),
        ('["127.0.0.1:8000"]', '["127.0.0.1:8000", "127.0.0.1:8000"]',
         "17: pools.llm.clusters.a.endpoints[1]: cluster a has it already"),
        ('["127.0.0.1:8000"]', '["127.0.0.1:8000"]\n        metrics: ["127.0.0.1:8002", "127.0.0.1:8012"]',
         "18: pools.llm.clusters.a.metrics: one for each of `endpoints`, in their order"),
        ("    clusters:", "    gpu_aware: {gpu: 0}\n    clusters:", "14: pools.llm.gpu_aware: balancing is weighted"),
        ("    clusters:", "    balancing: gpu_aware\n    clusters:",
         "16: pools.llm.clusters.a: gpu_aware needs its metrics"),
        ('model: llm\n    clusters:\n      a:\n        weight: 1\n        endpoints: ["127.0.0.1:8000"]',
         'model: llm\n    balancing: least_tokens\n    clusters: {a: {endpoints: ["triton:8000"]}}',
         "15: pools.llm.clusters.a.endpoints[0]: with least_tokens it has to be an IP address"),
        ("127.0.0.1:8000", "127.0.0.1", "17: pools.llm.clusters.a.endpoints[0]: write host:port or [ipv6]:port"),
        ("127.0.0.1:8000", "127.0.0.256:8000",
         "17: pools.llm.clusters.a.endpoints[0]: the host is neither a name nor an IP address"),
        ("hash_secret: 0123456789abcdef", "hash_secret: short", "1: keys: the secret has at least 16 characters"),
        ("  hash_secret: 0123456789abcdef\n", "  static: {}\n",
         "1: keys: give hash_secret or hash_secret_file, one of them"),
        ("hash_secret: 0123456789abcdef", "hash_secret_file: nowhere",
         "2: keys.hash_secret_file: there is no file nowhere"),
        ("type: tiktoken, encoding: cl100k_base", "type: huggingface, file: nowhere",
         "9: models.chatty.tokenizer.file: there is no file nowhere"),
        ("type: tiktoken, encoding: cl100k_base", "type: tiktoken",
         "9: models.chatty.tokenizer: give encoding or file, one of them"),
        ("type: tiktoken, encoding: cl100k_base", "type: tikkoken",
         "9: models.chatty.tokenizer: type has to be 'tiktoken', 'huggingface', 'sentencepiece'"),
        ("type: tiktoken, encoding: cl100k_base", "type: huggingface, fiel: x",
         "9: models.chatty.tokenizer.fiel: unknown key; did you mean file?"),
        ("chatml", "{fiel: x}", "7: models.chatty.chat_template.fiel: unknown key; did you mean file?"),
    ],
)  # fmt: skip
def test_each_problem_is_told_at_its_line(old: str, new: str, problem: str) -> None:
    assert old in VALID
    assert f"gateway.yaml:{problem}" in problems(VALID.replace(old, new, 1))


@pytest.mark.parametrize(
    ("section", "problem"),
    [
        ("service: {on_failure: open}", "service.on_failure: open needs gateway.default_pool"),
        ("gateway: {default_pool: nowhere}", "gateway.default_pool: there is no pool nowhere"),
        (
            "gateway: {default_pool: llm}",
            "gateway.default_pool: without the service nothing translates, so its dialect has to be openai",
        ),
        ("gateway: {listen: '127.0.0.1:9901'}", "gateway.admin: gateway.listen listens there already"),
        (
            "gateway: {stream_idle_timeout_s: 60}",
            "pools.llm.idle_timeout_s: never reached: gateway.stream_idle_timeout_s is shorter",
        ),
        ("service: {listen: 'unix:relative'}", "service.listen: a Unix socket is written unix:/absolute/path"),
        (
            "service: {listen: 'unix:/" + "x" * 100 + "'}",
            "service.listen: the path of a Unix socket has at most 100 bytes",
        ),
        ("redis: {url: 'http://x'}", "redis.url: a Redis URL begins with redis://, rediss:// or unix://"),
        ("policies: {gaurd: {}}", "policies.gaurd: unknown key; did you mean guard?"),
        ("policies: {guard: {limit_byte: 1}}", "policies.guard.limit_byte: unknown key; did you mean limit_bytes?"),
        ("policies: {guard: {limit_bytes: 0}}", "policies.guard.limit_bytes: Input should be greater than 0"),
        ("telemetry: {tracing: {sampling_percent: 101}}", "telemetry.tracing.otlp_grpc: this key is required"),
    ],
)
def test_each_problem_of_the_other_sections(section: str, problem: str) -> None:
    found = [line.split(" ", 1)[1] for line in problems(f"{VALID}{section}\n")]
    assert problem in found


def test_static_keys_are_checked() -> None:
    key = f'{{hash: "{"0" * 64}", team: t, models: [chatty, nobody]}}'
    text = VALID.replace("models:", f"  static:\n    one: {key}\n    two: {key}\nmodels:", 1)
    assert [line.split(": ", 1)[1] for line in problems(text)] == [
        "keys.static.one.hash: another key has the same hash",
        "keys.static.one.models[1]: there is no model nobody",
        "keys.static.two.hash: another key has the same hash",
        "keys.static.two.models[1]: there is no model nobody",
    ]


def test_all_problems_are_told_in_the_order_of_the_file() -> None:
    text = VALID.replace("8192", "none").replace("weight: 1", "weight: x").replace("dialect", "dialekt")
    assert [line.split(":")[1] for line in problems(text)] == ["8", "11", "12", "16"]


def test_no_secret_is_ever_shown() -> None:
    loaded = parse(VALID.replace("0123456789abcdef", SECRET) + f"redis: {{url: 'redis://:{SECRET}@h'}}\n")
    assert loaded.keys.secret == SECRET.encode()
    assert SECRET not in repr(loaded) + str(loaded) + loaded.model_dump_json() + loaded.version
    wrong = [
        f"keys: {{hash_secret: {SECRET}, static: {{k: {{hash: {SECRET}, team: t}}}}}}\n",
        f"keys: {{hash_secret: [{SECRET}]}}\n",
        f"redis: {{url: {SECRET}}}\n",
        f"gateway: {{listen: {SECRET}, admin: 1, max_body_bytes: {SECRET}}}\n",
        f"models: {{m: {{tokenizer: {{type: {SECRET}}}}}}}\n",
        f"telemetry: {{log_level: {SECRET}}}\n",
    ]
    for text in wrong:
        assert SECRET not in "\n".join(problems(text.replace(SECRET, "${V}"), V=SECRET))


def test_a_secret_may_be_in_a_file(tmp_path: pathlib.Path) -> None:
    (tmp_path / "secret").write_text(SECRET + "\n")
    path = tmp_path / "gateway.yaml"
    path.write_text(VALID.replace("hash_secret: 0123456789abcdef", "hash_secret_file: secret"))
    assert config.load(path, POLICIES, {}).keys.secret == SECRET.encode()


def test_the_version_names_the_content() -> None:
    assert parse(VALID).version == parse(f"# a comment\n{VALID}").version
    assert parse(VALID).version != parse(VALID.replace("8192", "8193")).version
    assert parse(VALID).version == parse(VALID.replace("0123456789abcdef", SECRET)).version
    assert len(parse(VALID).version) == 12


def test_several_workers_have_sockets_of_their_own() -> None:
    loaded = parse(VALID + "service: {workers: 2, listen: 'unix:/run/x.sock'}\n")
    assert [str(address) for address in loaded.service.addresses] == ["unix:/run/x.0.sock", "unix:/run/x.1.sock"]
    shared = parse(VALID + "service: {workers: 2, listen: '[::1]:9000'}\n")
    assert [str(address) for address in shared.service.addresses] == ["[::1]:9000"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "No such file or directory"), (b"a: \xff", "the file is not UTF-8"), (b"", "the file is empty")],
)
def test_unreadable_files(tmp_path: pathlib.Path, content: bytes | None, problem: str) -> None:
    path = tmp_path / "gateway.yaml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=problem) as caught:
        config.load(path, POLICIES, {})
    assert str(caught.value).startswith(f"{path}:1: ")


def test_a_byte_order_mark_is_no_error(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text("\ufeff" + VALID)
    assert config.load(path, POLICIES, {}) == parse(VALID)
