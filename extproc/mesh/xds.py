"""Envoy's configuration as files that a running Envoy follows, so that a changed gateway.yaml needs no restart.

Must not know: what is in them.
"""

import os
import pathlib
import tempfile
import time
from collections.abc import Iterable, Mapping
from typing import Any as Json

import yaml
from betterproto2 import Message
from envoy_data_plane.envoy.config.bootstrap.v3 import BootstrapDynamicResources
from envoy_data_plane.envoy.config.core.v3 import ConfigSource, PathConfigSource, WatchedDirectory
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import Rds
from envoy_data_plane.envoy.service.discovery.v3 import DiscoveryResponse
from envoy_data_plane.google.protobuf import Any

from extproc.config.model import GatewayConfig
from extproc.mesh import names, warming
from extproc.mesh.bootstrap import base, clusters, listeners
from extproc.mesh.render import plain, to_yaml
from extproc.mesh.routes import routes

_BOOTSTRAP, _LISTENERS, _ROUTES, _CLUSTERS = "bootstrap.yaml", "lds.yaml", "rds.yaml", "cds.yaml"
_LEAVING = "leaving.yaml"
"""Not for Envoy: since when what is there has not been wanted any more, in seconds since 1970, by kind and name."""

_LEAVING_ROUTE = "leaving/"
"""Before the names of routes that are kept for a pool which is gone; no pool's name has a slash."""

STAY_S = 600.0
"""What is not wanted any more goes with the first writing after so long. No worker that Envoy still takes for healthy
is as late as that, nor has a request been on its way for so long before it was stamped."""


def write_xds(config: GatewayConfig, directory: pathlib.Path, now_s: float | None = None) -> pathlib.Path:
    """Write or replace the files in `directory`; returns the path of the bootstrap to start Envoy with.

    New clusters come first, and the routes to them when a running Envoy has taken them up: a route to a cluster that
    is not there yet is a 503. What is no longer configured stays for `STAY_S`, however often this is called
    meanwhile: the service may learn of any of the changes later than Envoy. `now_s` is seconds since 1970.
    """
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    initial = base(config)
    initial.dynamic_resources = BootstrapDynamicResources(
        lds_config=_source(directory, _LISTENERS), cds_config=_source(directory, _CLUSTERS)
    )
    rds = Rds(route_config_name=names.ROUTES, config_source=_source(directory, _ROUTES))
    before = _Before(directory, time.time() if now_s is None else now_s)
    last_clusters = before.clusters()
    wanted = _response(config, clusters(config))
    needed = _names(wanted["resources"])
    wanted["resources"] += before.leaving("clusters", wanted["resources"], last_clusters)
    wanted_routes = _response(config, [routes(config)])
    _keep_leaving_routes(wanted_routes["resources"][0]["virtual_hosts"][0], before, config)
    _replace(directory / _LEAVING, to_yaml(before.since))
    _replace(directory / _CLUSTERS, to_yaml(wanted))
    if last_clusters:
        warming.await_clusters(config.gateway.admin, needed)
    _replace(directory / _ROUTES, to_yaml(wanted_routes))
    _replace(directory / _LISTENERS, to_yaml(_response(config, listeners(config, rds))))
    _replace(directory / _BOOTSTRAP, to_yaml(plain(initial)))
    return directory / _BOOTSTRAP


def _source(directory: pathlib.Path, name: str) -> ConfigSource:
    path = PathConfigSource(path=str(directory / name), watched_directory=WatchedDirectory(path=str(directory)))
    return ConfigSource(path_config_source=path)


def _response(config: GatewayConfig, resources: Iterable[Message]) -> dict[str, Json]:
    packed = [Any.pack(resource) for resource in resources]
    return plain(DiscoveryResponse(version_info=config.version, resources=packed))


class _Before:
    """What was written before, as far as it is there and can be read, and since when it has been leaving."""

    def __init__(self, directory: pathlib.Path, now_s: float) -> None:
        self._directory, self._now_s = directory, now_s
        self._since = {kind: _numbers(_read(directory / _LEAVING, kind)) for kind in ("clusters", "routes")}
        self.since: dict[str, dict[str, float]] = {}

    def clusters(self) -> list[Json]:
        return _resources(_read(self._directory / _CLUSTERS, "resources"))

    def routes_to_pools(self) -> list[Json]:
        """The routes that match a stamp, by the names they had before they were leaving. Any other route must end
        with the configuration that allowed it."""
        every = _resources(_read(self._directory / _ROUTES, "resources", 0, "virtual_hosts", 0, "routes"))
        return [{**route, "name": route["name"].removeprefix(_LEAVING_ROUTE)} for route in every if _wants_stamp(route)]

    def leaving(self, kind: str, wanted: Iterable[Json], last: Iterable[Json]) -> list[Json]:
        """Those of `last` that are not `wanted` any more and still have to stay."""
        names_wanted, since = _names(wanted), self._since[kind]
        staying = [
            resource
            for resource in last
            if resource["name"] not in names_wanted and self._now_s - since.get(resource["name"], self._now_s) < STAY_S
        ]
        self.since[kind] = {resource["name"]: since.get(resource["name"], self._now_s) for resource in staying}
        return staying


def _read(path: pathlib.Path, *where: str | int) -> Json:
    """What is at this place in the file; None if it can't be found, so that others' files do no harm."""
    try:
        found = yaml.safe_load(path.read_text())
        for key in where:
            found = found[key]
    except (OSError, yaml.YAMLError, KeyError, TypeError, IndexError):
        return None
    return found


def _resources(found: Json) -> list[Json]:
    return [item for item in found if isinstance(item, dict) and "name" in item] if isinstance(found, list) else []


def _numbers(found: Json) -> Mapping[str, float]:
    if not isinstance(found, dict):
        return {}
    return {name: value for name, value in found.items() if isinstance(value, int | float)}


def _keep_leaving_routes(host: dict[str, Json], before: _Before, config: GatewayConfig) -> None:
    leaving = before.leaving("routes", host["routes"], before.routes_to_pools())
    host["name"] = names.virtual_host_name([*config.pools, *(route["name"] for route in leaving)])
    host["routes"] = [{**route, "name": _LEAVING_ROUTE + route["name"]} for route in leaving] + host["routes"]


def _wants_stamp(route: Json) -> bool:
    return any(header["name"] == names.POOL_HEADER for header in route["match"].get("headers", ()))


def _names(resources: Iterable[Json]) -> set[str]:
    return {resource["name"] for resource in resources}


def _replace(path: pathlib.Path, text: str) -> None:
    """In one step, so that Envoy never reads half a file; not at all if nothing changes."""
    if path.is_file() and path.read_text() == text:
        return
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(text)
    os.replace(file.name, path)
