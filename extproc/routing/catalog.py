"""Models and pools of one configuration version, ready to be used: tokenizer loaded, dialect chosen."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field

from extproc import tokenization
from extproc.config.model import GatewayConfig
from extproc.config.models import Model as ModelConfig
from extproc.config.pools import DialectName
from extproc.dialects.interface import PoolDialect, UpstreamModel
from extproc.dialects.registry import pool_dialect
from extproc.model_mesh import MeshModel
from extproc.operation import Operation
from extproc.routing.affinity import Affinity, affinity
from extproc.routing.experiments import Experiment, experiment_of
from extproc.routing.model_meshes import mesh_model
from extproc.tokenization import ModelTokenizer

_EARLIER_LIMIT = 16
"""Of so many pools that a model has left it is remembered that they served it."""


@dataclass(frozen=True, slots=True)
class Pool:
    """Clusters that serve one upstream model in one dialect. Which cluster and endpoint is Envoy's choice."""

    name: str
    dialect: PoolDialect
    upstream_model: str
    takes_one_text: bool = False
    """A chat has to be rendered for it."""
    affinity: Affinity | None = None
    """Makes the keys of its requests, if it is balanced by keys."""
    on_demand: MeshModel | None = None
    """Its model, if that is loaded when a request needs it."""

    @property
    def version(self) -> tuple[str, str]:
        """What its answers depend on."""
        return type(self.dialect).__name__, self.upstream_model


@dataclass(frozen=True, slots=True)
class Model:
    """A public model name. `tokenizer` None: its tokens are known only from what the upstream reports."""

    name: str
    config: ModelConfig
    pool: Pool
    tokenizer: ModelTokenizer | None
    version: str = ""
    """Stands for all that its answers depend on, whoever serves it: any setting but price and pool."""

    @property
    def output_cap_tokens(self) -> int:
        """Most tokens one answer may have."""
        return min(self.config.max_output_tokens or self.config.context_window, self.config.context_window)

    def can_use(self, pool: Pool, operation: Operation) -> bool:
        """Whether `pool` can do this operation for this model."""
        if operation not in pool.dialect.operations:
            return False
        return not (operation is Operation.CHAT and pool.takes_one_text) or self.config.renders

    def upstream(self, pool: Pool, default_output_tokens: int) -> UpstreamModel:
        """What `pool`'s dialect needs to encode a request for this model."""
        render = self.tokenizer.render_chat if self.tokenizer is not None else None
        return UpstreamModel(pool.upstream_model, default_output_tokens, render)


@dataclass(frozen=True, slots=True)
class Fallback:
    """Another pool for what one failed to answer. `model` None: it serves the same model."""

    pool: Pool
    model: Model | None = None


@dataclass(frozen=True, slots=True)
class Catalog:
    """Every model, pool and experiment, by name, and where models were served before: one each for every pool of
    another name, the latest first; and by a pool's name what to try when it fails, in order."""

    models: Mapping[str, Model]
    pools: Mapping[str, Pool]
    earlier: Mapping[str, tuple[Model, ...]]
    experiments: Mapping[str, Experiment] = field(default_factory=dict)
    fallbacks: Mapping[str, tuple[Fallback, ...]] = field(default_factory=dict)

    def served(self, name: str, reachable: Container[str] | None) -> Model | None:
        """The model as it is, or was last, in one of the `reachable` pools (None: any); None if there is none.

        Envoy learns of a change at a moment of its own. What it cannot route as configured now is served as before.
        """
        newest = self.models[name]
        if reachable is None or newest.pool.name in reachable:
            return newest
        return next((model for model in self.earlier[name] if model.pool.name in reachable), None)


def build(config: GatewayConfig, before: Catalog | None = None) -> Catalog:
    """The catalog of one configuration, which takes the place of `before`."""
    pools = {
        name: Pool(
            name,
            pool_dialect(pool.dialect),
            pool.model,
            takes_one_text=pool.dialect is DialectName.TRITON_GENERATE,
            affinity=affinity(pool.hashing, config.keys.secret),
            on_demand=mesh_model(name, config),
        )
        for name, pool in config.pools.items()
    }
    models = {
        name: Model(name, model, pools[model.pool], _tokenizer(model), _version(model))
        for name, model in config.models.items()
    }
    fallbacks = {
        name: tuple(Fallback(pools[one.pool], models.get(one.public_model or "")) for one in pool.fallback)
        for name, pool in config.pools.items()
    }
    earlier = {name: _earlier(model, before) for name, model in models.items()}
    experiments = {name: experiment_of(name, experiment) for name, experiment in config.experiments.items()}
    return Catalog(models, pools, earlier, experiments, fallbacks)


def _earlier(model: Model, before: Catalog | None) -> tuple[Model, ...]:
    if before is None or model.name not in before.models:
        return ()
    known = (before.models[model.name], *before.earlier[model.name])
    return tuple(other for other in known if other.pool.name != model.pool.name)[:_EARLIER_LIMIT]


def _version(model: ModelConfig) -> str:
    return model.model_dump_json(exclude={"price", "operations", "pool"})


def _tokenizer(model: ModelConfig) -> ModelTokenizer | None:
    return None if model.tokenizer is None else tokenization.load(model.tokenizer, model.chat_template)
