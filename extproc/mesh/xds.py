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
from extproc.mesh.bootstrap import base, clusters
from extproc.mesh.listener import listener
from extproc.mesh.render import plain, to_yaml
from extproc.mesh.routes import routes

_BOOTSTRAP, _LISTENERS, _ROUTES, _CLUSTERS = "bootstrap.yaml", "lds.yaml", "rds.yaml", "cds.yaml"


def write_xds(config: GatewayConfig, directory: pathlib.Path) -> pathlib.Path:
    """Write or replace the files in `directory`; returns the path of the bootstrap to start Envoy with.

    Clusters come before the routes that name them. One that is no longer configured stays for one more
    generation, because Envoy may read the files in an order of its own.
    """
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    initial = base(config)
    initial.dynamic_resources = BootstrapDynamicResources(
        lds_config=_source(directory, _LISTENERS), cds_config=_source(directory, _CLUSTERS)
    )
    rds = Rds(route_config_name=names.ROUTES, config_source=_source(directory, _ROUTES))
    wanted = _response(config, clusters(config))
    wanted["resources"] += _leaving(directory, {cluster["name"] for cluster in wanted["resources"]})
    _replace(directory / _CLUSTERS, to_yaml(wanted))
    _replace(directory / _ROUTES, to_yaml(_response(config, [routes(config)])))
    _replace(directory / _LISTENERS, to_yaml(_response(config, [listener(config, rds)])))
    _replace(directory / _BOOTSTRAP, to_yaml(plain(initial)))
    return directory / _BOOTSTRAP


def _source(directory: pathlib.Path, name: str) -> ConfigSource:
    path = PathConfigSource(path=str(directory / name), watched_directory=WatchedDirectory(path=str(directory)))
    return ConfigSource(path_config_source=path)


def _response(config: GatewayConfig, resources: Iterable[Message]) -> dict[str, Json]:
    packed = [Any.pack(resource) for resource in resources]
    return plain(DiscoveryResponse(version_info=config.version, resources=packed))


def _leaving(directory: pathlib.Path, wanted: set[str]) -> list[Json]:
    """The clusters of the configuration written last that are not `wanted` any more, but none from before it:
    those that its routes name, and those that these stand for."""
    try:
        last_routes = yaml.safe_load((directory / _ROUTES).read_text())
        last = {
            cluster["name"]: cluster for cluster in yaml.safe_load((directory / _CLUSTERS).read_text())["resources"]
        }
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return []  # nothing was written yet, or nothing that Envoy could have read
    named = _strings(last_routes) & last.keys()
    named |= {name for first in named for name in _strings(last[first]) & last.keys()}
    return [cluster for name, cluster in last.items() if name in named - wanted]


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
