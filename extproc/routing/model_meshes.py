"""The model meshes of one configuration: which servers each has, and which models. Pure.

A mesh is made of the pools that name it. Must not know: how a model is loaded.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from extproc.config.address import TcpAddress
from extproc.config.model import GatewayConfig
from extproc.config.model_meshes import MeshedModel, ModelMesh
from extproc.model_mesh import MeshModel


class Mesh(Struct, frozen=True):
    """`models` by their names on the servers. `untouched`: those of pools that are in no mesh, on whatever server."""

    name: str
    settings: ModelMesh
    servers: tuple[TcpAddress, ...]
    models: Mapping[str, MeshedModel]
    untouched: frozenset[str] = frozenset()


def meshes_of(config: GatewayConfig) -> Mapping[str, Mesh]:
    """By name. Every pool of a mesh has the same servers: the configuration is checked for that."""
    meshes = {}
    untouched = frozenset(pool.model for pool in config.pools.values() if pool.model_mesh is None)
    for name, settings in config.model_meshes.items():
        pools = [pool for pool in config.pools.values() if pool.model_mesh == name]
        servers = dict.fromkeys(
            endpoint for pool in pools for cluster in pool.clusters.values() for endpoint in cluster.endpoints
        )
        models = {pool.model: settings.models.get(pool.model, MeshedModel()) for pool in pools}
        meshes[name] = Mesh(name, settings, tuple(servers), models, untouched)
    return meshes


def mesh_model(name: str, config: GatewayConfig) -> MeshModel | None:
    """The pool's model, if it is one that is loaded on demand."""
    pool = config.pools[name]
    if pool.model_mesh is None:
        return None
    settings = config.model_meshes[pool.model_mesh]
    return MeshModel(pool.model_mesh, pool.model, name, settings.wait_s, settings.queue_length)
