"""Model meshes in gateway.yaml: what is said of servers, pools and memory fits together."""

from __future__ import annotations

import pytest

from extproc import config
from extproc.config.address import UnixAddress
from extproc.errors import ConfigError
from extproc.routing.model_meshes import mesh_model, meshes_of

TEXT = """
keys: {{hash_secret: 0123456789abcdef}}
service: {{listen: "{listen}"}}
models:
  small: {{pool: a, operations: [embeddings], context_window: 100}}
pools:
  a: {{dialect: kserve, model: x, model_mesh: gpu, clusters: {{c: {{endpoints: ["h:1", "i:1"]}}}}{more}}}
  b: {{dialect: {dialect}, model: y, model_mesh: {mesh}, clusters: {{c: {{endpoints: {servers}}}}}}}
  c: {{dialect: kserve, model: z, clusters: {{c: {{endpoints: ["h:1"]}}}}}}
model_meshes:
  gpu: {gpu}
{meshes}
"""
SERVERS = '["i:1", "h:1"]'


def text(
    gpu: str = "{max_models: 1}",
    *,
    listen: str = "unix:/run/x.sock",
    dialect: str = "kserve",
    mesh: str = "gpu",
    servers: str = SERVERS,
    more: str = "",
    meshes: str = "",
) -> str:
    return TEXT.format(gpu=gpu, listen=listen, dialect=dialect, mesh=mesh, servers=servers, more=more, meshes=meshes)


def problems(given: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        config.parse(given, {}, {})
    return [f"{problem.key}: {problem.message}" for problem in caught.value.problems]


def test_a_mesh_is_made_of_the_pools_that_name_it() -> None:
    gpu = "{memory_mb: 10, wait_s: 7, models: {x: {memory_mb: 4, keep: true}, y: {memory_mb: 6}}}"
    parsed = config.parse(text(gpu), {}, {})
    mesh = meshes_of(parsed)["gpu"]
    assert [str(server) for server in mesh.servers] == ["h:1", "i:1"]
    assert {name: (one.memory_mb, one.keep) for name, one in mesh.models.items()} == {"x": (4, True), "y": (6, False)}
    assert mesh.untouched == {"z"}
    model = mesh_model("b", parsed)
    assert model is not None
    assert (model.mesh, model.model, model.pool, model.wait_s) == ("gpu", "y", "b", 7)
    assert parsed.fallback_address == UnixAddress("/run/x.fallback.sock")


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (text("{}"), "model_meshes.gpu: give max_models or memory_mb, or both"),
        (text(mesh="cpu"), "pools.b.model_mesh: there is no model mesh cpu"),
        (text(dialect="openai"), "pools.b.model_mesh: its servers speak openai, and have no repository to load from"),
        (
            text(servers='["h:1"]'),
            "pools.b.clusters: other endpoints than pool a, which is in the same model mesh",
        ),
        (text(meshes="  cpu: {max_models: 1}"), "model_meshes.cpu: no pool is in it"),
        (text(mesh="cpu", meshes="  cpu: {max_models: 1}"), "model_meshes.cpu: "),
        (text("{max_models: 1, models: {z: {}}}"), "model_meshes.gpu.models.z: no pool of this mesh has this model"),
        (
            text("{max_models: 1, models: {x: {keep: true}}}"),
            "model_meshes.gpu.max_models: what is kept leaves no room for the others",
        ),
        (
            text("{memory_mb: 9, models: {x: {memory_mb: 9}}}"),
            "model_meshes.gpu.models.y: the mesh has memory_mb, so say what it takes",
        ),
        (
            text("{memory_mb: 9, models: {x: {memory_mb: 5, keep: true}, y: {memory_mb: 5}}}"),
            "model_meshes.gpu.models.y.memory_mb: with what is kept it never fits",
        ),
        (
            text("{max_models: 1, wait_s: 301}"),
            "model_meshes.gpu.wait_s: never reached: gateway.stream_idle_timeout_s is shorter",
        ),
        (
            text(listen="127.0.0.1:1"),
            "gateway.fallback_listen: model_meshes need it, and service.listen is no Unix socket beside it",
        ),
        (
            text(more=", health: {path: /v2/health/live}"),
            "pools.a.health.path: where models come and go, health is that of the model",
        ),
        (text(more=", tls: {ca_file: /x.pem}"), "pools.a.tls: a server's repository is asked without TLS"),
        (
            text(more=", fallback: [{pool: b}]"),
            "pools.a.fallback[0].pool: nothing waits until it is loaded: keep its model",
        ),
    ],
)
def test_what_does_not_fit_is_said(given: str, problem: str) -> None:
    assert any(one.startswith(problem) for one in problems(given)), problems(given)


def test_a_fallback_whose_model_is_kept_is_fine() -> None:
    kept = "{max_models: 2, models: {y: {keep: true}}}"
    assert config.parse(text(kept, more=", fallback: [{pool: b}]"), {}, {}).fallback_address is not None
