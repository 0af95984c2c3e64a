"""The generated configuration as text: the same for the same input, and free of secrets."""

import pathlib

import pytest
import yaml

from extproc import config
from extproc.mesh import bootstrap, bootstrap_yaml, write_xds
from extproc.mesh.routes import routes
from extproc.mesh.xds import STAY_S

SECRET = "not-for-envoys-eyes"
TEXT = f"""
keys: {{hash_secret: {SECRET}}}
redis: {{url: "redis://:{SECRET}@127.0.0.1"}}
models: {{m: {{pool: p, operations: [chat], context_window: 100}}}}
pools:
  p:
    dialect: openai
    model: x
    clusters:
      a: {{weight: 1, endpoints: ["127.0.0.1:1"]}}
      b: {{weight: 0, endpoints: ["127.0.0.1:2"]}}
      c: {{weight: 3, endpoints: ["127.0.0.1:3"]}}
"""
BEGIN_S = 1e9
HEALTH = ["health/live", "health/ready"]


@pytest.fixture
def loaded() -> config.GatewayConfig:
    return config.parse(TEXT, {}, {})


def test_the_same_configuration_gives_the_same_text(loaded: config.GatewayConfig) -> None:
    assert bootstrap_yaml(loaded) == bootstrap_yaml(config.parse(TEXT, {}, {}))


def test_no_secret_is_in_it(loaded: config.GatewayConfig) -> None:
    assert SECRET not in bootstrap_yaml(loaded)


def test_fields_are_spelled_as_in_envoys_documentation(loaded: config.GatewayConfig) -> None:
    outliers = yaml.safe_load(bootstrap_yaml(loaded))["static_resources"]["clusters"][1]["outlier_detection"]
    assert outliers["consecutive_5xx"] == 5


def test_every_route_to_a_pool_wants_the_stamp(loaded: config.GatewayConfig) -> None:
    every = routes(loaded).virtual_hosts[0].routes
    to_pools = [route for route in every if route.direct_response is None]
    assert [route.name for route in to_pools] == ["p"]
    for route in to_pools:
        assert route.match is not None
        (stamp,) = route.match.headers
        assert stamp.name == "x-extproc-pool"
        assert stamp.string_match is not None
        assert stamp.string_match.exact == route.name
    last = every[-1].direct_response
    assert last is not None
    assert last.status == 404


def test_a_cluster_without_weight_takes_over_from_none(loaded: config.GatewayConfig) -> None:
    resources = bootstrap(loaded).static_resources
    assert resources is not None
    order = {
        cluster.name: cluster.cluster_type.typed_config.unpack().clusters
        for cluster in resources.clusters
        if cluster.cluster_type is not None and cluster.cluster_type.typed_config is not None
    }
    assert order == {
        "p/a/first": ["p/a", "p/c"],
        "p/b/first": ["p/b", "p/a", "p/c"],
        "p/c/first": ["p/c", "p/a"],
    }


def names(directory: pathlib.Path) -> set[str]:
    resources = yaml.safe_load((directory / "cds.yaml").read_text())["resources"]
    return {cluster["name"] for cluster in resources}


def renamed(name: str) -> config.GatewayConfig:
    return config.parse(TEXT.replace("pool: p,", f"pool: {name},").replace("  p:\n", f"  {name}:\n"), {}, {})


def test_a_cluster_stays_for_a_while_after_its_last_use(loaded: config.GatewayConfig, tmp_path: pathlib.Path) -> None:
    write_xds(loaded, tmp_path, BEGIN_S)
    first = names(tmp_path)
    without = config.parse(TEXT.replace('      c: {weight: 3, endpoints: ["127.0.0.1:3"]}\n', ""), {}, {})
    for after_s in (1, 2, STAY_S):
        write_xds(without, tmp_path, BEGIN_S + after_s)
        assert names(tmp_path) == first
    write_xds(without, tmp_path, BEGIN_S + 1 + STAY_S)
    assert names(tmp_path) == first - {"p/c", "p/c/first"}


def test_the_routes_of_pools_stay_for_a_while_after_them_through_any_number_of_changes(tmp_path: pathlib.Path) -> None:
    for after_s, name in enumerate("pqrp"):
        write_xds(renamed(name), tmp_path, BEGIN_S + after_s)
    write_xds(renamed("p"), tmp_path, BEGIN_S + 4)  # the same again
    assert route_names(tmp_path) == ["leaving/q", "leaving/r", *HEALTH, "p", "nothing"]
    assert {"p/a", "q/a", "q/a/first", "r/a"} <= names(tmp_path)
    write_xds(renamed("p"), tmp_path, BEGIN_S + 2 + STAY_S)
    assert route_names(tmp_path) == ["leaving/r", *HEALTH, "p", "nothing"]
    write_xds(renamed("p"), tmp_path, BEGIN_S + 3 + STAY_S)
    assert route_names(tmp_path) == [*HEALTH, "p", "nothing"]
    assert not {"q/a", "r/a"} & names(tmp_path)


def test_a_pool_that_came_back_and_left_again_stays_for_the_whole_while(tmp_path: pathlib.Path) -> None:
    for after_s, name in ((0, "p"), (1, "q"), (STAY_S, "p"), (STAY_S + 1, "q")):
        write_xds(renamed(name), tmp_path, BEGIN_S + after_s)
    write_xds(renamed("q"), tmp_path, BEGIN_S + STAY_S + 2)
    assert route_names(tmp_path) == ["leaving/p", *HEALTH, "q", "nothing"]


def test_the_table_says_to_which_pools_it_leads(tmp_path: pathlib.Path) -> None:
    write_xds(renamed("p"), tmp_path, BEGIN_S)
    write_xds(renamed("q"), tmp_path, BEGIN_S + 1)
    (table,) = yaml.safe_load((tmp_path / "rds.yaml").read_text())["resources"]
    assert table["virtual_hosts"][0]["name"] == "pools:q,p"


def test_a_route_for_what_nobody_stamped_ends_at_once(tmp_path: pathlib.Path) -> None:
    opened = TEXT + "gateway: {default_pool: p}\nservice: {on_failure: open}\n"
    write_xds(config.parse(opened, {}, {}), tmp_path)
    assert route_names(tmp_path) == [*HEALTH, "p", "unstamped", "nothing"]
    write_xds(config.parse(TEXT, {}, {}), tmp_path)
    assert route_names(tmp_path) == [*HEALTH, "p", "nothing"]


def route_names(directory: pathlib.Path) -> list[str]:
    (table,) = yaml.safe_load((directory / "rds.yaml").read_text())["resources"]
    return [route["name"] for route in table["virtual_hosts"][0]["routes"]]


@pytest.mark.parametrize("content", ["", "a: [", "resources: 3", "resources: [{}]", "clusters: {p/a: x}\nroutes: 3"])
def test_what_others_left_in_the_directory_does_no_harm(
    loaded: config.GatewayConfig, tmp_path: pathlib.Path, content: str
) -> None:
    for name in ("cds.yaml", "rds.yaml", "leaving.yaml"):
        (tmp_path / name).write_text(content)
    write_xds(loaded, tmp_path)
    assert "p/a" in names(tmp_path)


def test_no_temporary_file_stays_behind(loaded: config.GatewayConfig, tmp_path: pathlib.Path) -> None:
    write_xds(loaded, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "bootstrap.yaml",
        "cds.yaml",
        "lds.yaml",
        "leaving.yaml",
        "rds.yaml",
    }
