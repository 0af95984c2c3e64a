"""What istiod does with an EnvoyFilter, and Envoys as it configures them, as far as our patches need either.

Semantics as Istio documents them (EnvoyFilter's reference) and as its `envoyfilter` package has them: MERGE is
protobuf's, lists are appended; INSERT_BEFORE puts one patch after the other before what it names. Whatever a patch does
that is not known here fails: a test must not pass because a patch was passed over. Istio itself runs nowhere here.
"""

import copy
import pathlib
import threading
from collections.abc import Iterator
from typing import Any

import yaml

from extproc.stack.guardian import Guardian
from extproc.stack.probe import answers_ok
from extproc.stack.process import Process
from tests.helpers.gateways import ENVOY

Json = dict[str, Any]
_API = "type.googleapis.com/envoy"
_MANAGER = "envoy.filters.network.http_connection_manager"
_READY_TIMEOUT_S = 20.0


def gateway_base(port: int, admin: int) -> Json:
    """An ingress gateway's Envoy, with nobody's VirtualService: Istio's blackhole."""
    blackhole = {"name": "blackhole:80", "domains": ["*"]}
    return _base(admin, _listener("0.0.0.0_8080", port, "http.8080", blackhole, {}))


def sidecar_base(port: int, admin: int, app_port: int) -> Json:
    """The inbound side of a sidecar before a server on `app_port`: everything goes to it."""
    name = f"inbound|{app_port}||"
    everything = {"name": "default", "match": {"prefix": "/"}, "route": {"cluster": name, "timeout": "0s"}}
    vhost = {"name": f"inbound|http|{app_port}", "domains": ["*"], "routes": [everything]}
    base = _base(admin, _listener("virtualInbound", port, name, vhost, {"destination_port": app_port}))
    address = {"socket_address": {"address": "127.0.0.1", "port_value": app_port}}
    endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
    cluster = {"name": name, "type": "STATIC", "load_assignment": {"cluster_name": name, "endpoints": endpoints}}
    base["static_resources"]["clusters"].append(cluster)
    return base


def patched(base: Json, envoy_filter: Json, context: str) -> Json:
    """`base` with every patch of an EnvoyFilter; each has to find what it is for."""
    done = copy.deepcopy(base)
    for entry in envoy_filter["spec"]["configPatches"]:
        match, patch = entry["match"], entry["patch"]
        assert match["context"] == context
        apply = {
            "CLUSTER": _apply_cluster,
            "NETWORK_FILTER": _apply_network_filter,
            "HTTP_FILTER": _apply_http_filter,
            "VIRTUAL_HOST": _apply_virtual_host,
            "HTTP_ROUTE": _apply_route,
        }[entry["applyTo"]]
        apply(done, match, patch["operation"], copy.deepcopy(patch["value"]))
    for manager in _managers(done):
        # In Istio these say which chain is meant; here there is one, and no redirected port to tell it by.
        manager["chain"].pop("filter_chain_match", None)
    return done


class PatchedEnvoy:
    """A real Envoy with that configuration; started by its constructor."""

    def __init__(self, directory: pathlib.Path, configuration: Json) -> None:
        directory.mkdir(exist_ok=True)
        self.path = directory / "envoy.yaml"
        self.path.write_text(yaml.safe_dump(configuration, sort_keys=False))
        self._guardian = Guardian()
        command = (ENVOY, "-c", str(self.path), "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning")
        self.process = Process("envoy", command, {}, directory / "envoy.log", self._guardian)
        self.process.start()
        port = configuration["admin"]["address"]["socket_address"]["port_value"]
        self.process.wait_ready(lambda: answers_ok("127.0.0.1", port, "/ready"), _READY_TIMEOUT_S, threading.Event())

    def close(self) -> None:
        self.process.stop(2.0)
        self._guardian.close()


def _base(admin: int, listener: Json) -> Json:
    return {
        "node": {"id": "test", "cluster": "test"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}}},
        "static_resources": {"listeners": [listener], "clusters": []},
    }


def _listener(name: str, port: int, route_name: str, vhost: Json, chain_match: Json) -> Json:
    """With what of Istio's connection manager could be in our patches' way."""
    filters = [
        {"name": "envoy.filters.http.cors", "typed_config": _typed("extensions.filters.http.cors.v3.Cors")},
        {"name": "envoy.filters.http.router", "typed_config": _typed("extensions.filters.http.router.v3.Router")},
    ]
    manager = _typed(
        "extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="outbound_0.0.0.0_8080",
        route_config={"name": route_name, "virtual_hosts": [vhost], "validate_clusters": False},
        http_filters=filters,
        server_name="istio-envoy",
        use_remote_address=chain_match == {},
        forward_client_cert_details="SANITIZE_SET" if chain_match == {} else "APPEND_FORWARD",
        set_current_client_cert_details={"subject": True, "dns": True, "uri": True},
        preserve_external_request_id=True,
        normalize_path=True,
        path_with_escaped_slashes_action="KEEP_UNCHANGED",
        stream_idle_timeout="0s",
    )
    chain = {"filter_chain_match": chain_match, "filters": [{"name": _MANAGER, "typed_config": manager}]}
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    return {"name": name, "address": address, "filter_chains": [chain]}


def _typed(name: str, **fields: Any) -> Json:
    return {"@type": f"{_API}.{name}", **fields}


def _managers(configuration: Json) -> Iterator[Json]:
    for listener in configuration["static_resources"]["listeners"]:
        for chain in listener["filter_chains"]:
            yield {"chain": chain, "filter": chain["filters"][0], "config": chain["filters"][0]["typed_config"]}


def _manager_matching(configuration: Json, match: Json) -> Json:
    wanted = match["listener"]["filterChain"]
    assert wanted["filter"]["name"] == _MANAGER
    port = wanted.get("destinationPort")
    found = [
        manager
        for manager in _managers(configuration)
        if port is None or manager["chain"]["filter_chain_match"].get("destination_port") == port
    ]
    (only,) = found
    return only


def _apply_cluster(configuration: Json, match: Json, operation: str, value: Json) -> None:
    assert operation == "ADD"
    clusters = configuration["static_resources"]["clusters"]
    assert value["name"] not in {cluster["name"] for cluster in clusters}
    clusters.append(value)


def _apply_network_filter(configuration: Json, match: Json, operation: str, value: Json) -> None:
    assert operation == "MERGE"
    _merge(_manager_matching(configuration, match)["filter"], value)


def _apply_http_filter(configuration: Json, match: Json, operation: str, value: Json) -> None:
    filters = _manager_matching(configuration, match)["config"]["http_filters"]
    name = match["listener"]["filterChain"]["filter"]["subFilter"]["name"]
    (at,) = (index for index, entry in enumerate(filters) if entry["name"] == name)
    if operation == "MERGE":
        _merge(filters[at], value)
    else:
        assert operation == "INSERT_BEFORE"
        filters.insert(at, value)


def _apply_virtual_host(configuration: Json, match: Json, operation: str, value: Json) -> None:
    assert operation == "ADD"
    (manager,) = _managers(configuration)
    manager["config"]["route_config"]["virtual_hosts"].append(value)


def _apply_route(configuration: Json, match: Json, operation: str, value: Json) -> None:
    assert operation == "INSERT_BEFORE"
    (manager,) = _managers(configuration)
    wanted, config = match["routeConfiguration"], manager["config"]["route_config"]
    assert config["name"] == f"inbound|{wanted['portNumber']}||"
    (host,) = (entry for entry in config["virtual_hosts"] if entry["name"] == wanted["vhost"]["name"])
    (at,) = (
        index for index, entry in enumerate(host["routes"]) if entry.get("name") == wanted["vhost"]["route"]["name"]
    )
    host["routes"].insert(at, value)


def _merge(target: Json, source: Json) -> None:
    """protobuf's merge, on its JSON form: messages into each other, lists one after the other, else the later one."""
    for name, value in source.items():
        if isinstance(value, dict) and isinstance(target.get(name), dict):
            assert value.get("@type") == target[name].get("@type")
            _merge(target[name], value)
        elif isinstance(value, list) and name in target:
            target[name] = target[name] + value
        else:
            target[name] = value
