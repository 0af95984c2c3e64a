"""Envoy's configuration as files that a running Envoy follows, so that a changed gateway.yaml needs no restart.

Must not know: what is in them.
"""

import os
import pathlib
import tempfile
from collections.abc import Iterable
from typing import Any as Json

import yaml
from betterproto2 import Message
from envoy_data_plane.envoy.config.bootstrap.v3 import BootstrapDynamicResources
from envoy_data_plane.envoy.config.core.v3 import ConfigSource, PathConfigSource, WatchedDirectory
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import Rds
from envoy_data_plane.envoy.service.discovery.v3 import DiscoveryResponse
from envoy_data_plane.google.protobuf import Any

from extproc.config.model import GatewayConfig
from extproc.mesh import names
from extproc.mesh.bootstrap import base, clusters, listeners
from extproc.mesh.render import plain, to_yaml
from extproc.mesh.routes import routes

_BOOTSTRAP, _LISTENERS, _ROUTES, _CLUSTERS = "bootstrap.yaml", "lds.yaml", "rds.yaml", "cds.yaml"
_LEAVING = "leaving/"
"""Before the names of routes that are kept for a pool which is gone; no pool's name has a slash."""


def write_xds(config: GatewayConfig, directory: pathlib.Path) -> pathlib.Path:
    """Write or replace the files in `directory`; returns the path of the bootstrap to start Envoy with.

    Clusters come before the routes that name them. What is no longer configured stays for one more generation:
    clusters because Envoy may read the files in an order of its own, the routes of pools because the service
    learns of the change at another moment.
    """
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    initial = base(config)
    initial.dynamic_resources = BootstrapDynamicResources(
        lds_config=_source(directory, _LISTENERS), cds_config=_source(directory, _CLUSTERS)
    )
    rds = Rds(route_config_name=names.ROUTES, config_source=_source(directory, _ROUTES))
    last_routes, last_clusters = _written_last(directory)
    wanted_routes = _response(config, [routes(config)])
    _keep_leaving_routes(wanted_routes["resources"][0]["virtual_hosts"][0], last_routes)
    wanted = _response(config, clusters(config))
    wanted["resources"] += _leaving_clusters(wanted["resources"], last_clusters, last_routes)
    _replace(directory / _CLUSTERS, to_yaml(wanted))
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


def _written_last(directory: pathlib.Path) -> tuple[list[Json], list[Json]]:
    """The routes and clusters of the configuration before this one; none if nothing was written that Envoy could
    have read. Routes that were leaving then have left now."""
    try:
        hosts = yaml.safe_load((directory / _ROUTES).read_text())["resources"][0]["virtual_hosts"]
        last_routes = [route for route in hosts[0]["routes"] if not route["name"].startswith(_LEAVING)]
        return last_routes, yaml.safe_load((directory / _CLUSTERS).read_text())["resources"]
    except (OSError, yaml.YAMLError, KeyError, TypeError, IndexError):
        return [], []


def _keep_leaving_routes(host: dict[str, Json], last: Iterable[Json]) -> None:
    """For pools that are gone: the service may stamp requests for them until it has the configuration, too.

    Only what matches a stamp stays: a route for everything else must end with the configuration that allowed it.
    """
    wanted = {route["name"] for route in host["routes"]}
    leaving = [route for route in last if route["name"] not in wanted and _wants_stamp(route)]
    host["routes"] = [{**route, "name": _LEAVING + route["name"]} for route in leaving] + host["routes"]


def _wants_stamp(route: Json) -> bool:
    return any(header["name"] == names.POOL_HEADER for header in route["match"].get("headers", ()))


def _leaving_clusters(wanted: Iterable[Json], last: Iterable[Json], last_routes: list[Json]) -> list[Json]:
    """The clusters that are not `wanted` any more but that the last routes name, and those that these stand for."""
    known = {cluster["name"]: cluster for cluster in last}
    named = _strings(last_routes) & known.keys()
    named |= {name for first in named for name in _strings(known[first]) & known.keys()}
    names_wanted = {cluster["name"] for cluster in wanted}
    return [cluster for name, cluster in known.items() if name in named - names_wanted]


def _strings(value: Json) -> set[str]:
    """Every string in it, however deep."""
    if isinstance(value, str):
        return {value}
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {text for item in inner for text in _strings(item)}


def _replace(path: pathlib.Path, text: str) -> None:
    """In one step, so that Envoy never reads half a file; not at all if nothing changes."""
    if path.is_file() and path.read_text() == text:
        return
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
        file.write(text)
    os.replace(file.name, path)
