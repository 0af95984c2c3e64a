"""What cascades say about models and pools, and rules about cascades, checked.

Must not know: lines and files; it names keys.
"""

from collections.abc import Iterator

from extproc.config.cascades import Cascade
from extproc.config.document import Key
from extproc.config.model import GatewayConfig
from extproc.config.model_mesh_references import comes_and_goes
from extproc.config.models import Model
from extproc.config.pools import DialectName
from extproc.config.rules import Rule
from extproc.operation import Operation

Finding = tuple[Key, str]

_TELLS_LOGPROBS = frozenset({DialectName.OPENAI, DialectName.TRITON_GENERATE})
_GENERATES = frozenset({Operation.CHAT, Operation.COMPLETIONS})


def broken_cascades(config: GatewayConfig) -> Iterator[Finding]:
    """Every contradiction in `cascades`."""
    for name, cascade in config.cascades.items():
        key: Key = ("cascades", name)
        first = config.models.get(cascade.first)
        if first is None:
            yield (*key, "first"), f"there is no model {cascade.first}"
            continue
        if not _GENERATES.intersection(first.operations):
            yield (*key, "first"), f"the model {cascade.first} serves neither chat nor completions"
        pool = config.pools.get(first.pool)
        if pool is not None and cascade.min_logprob is not None and pool.dialect not in _TELLS_LOGPROBS:
            problem = f"the {pool.dialect} dialect of pool {first.pool} can't tell log-probabilities"
            yield (*key, "min_logprob"), problem


def broken_target(key: Key, rule: Rule, config: GatewayConfig) -> Iterator[Finding]:
    """What stands against trying the cascade's small model before those that the rule names. Names that don't exist are
    not found here."""
    cascade = config.cascades.get(rule.to.cascade or "")
    first = None if cascade is None else config.models.get(cascade.first)
    if cascade is None or first is None:
        return
    for name in rule.when.models or tuple(config.models):
        asked = config.models.get(name)
        if asked is None:
            continue
        if rule.when.models is not None and name == cascade.first:
            yield key, f"{name} is the model that it tries first, and would be asked again"
        elif rule.when.models is not None and asked.pool == first.pool:
            yield key, f"{name} and {cascade.first} are served by the same pool {asked.pool}"
        elif _currencies_differ(asked, first) and _GENERATES.intersection(asked.operations):
            yield key, f"the prices of {name} and {cascade.first} are in different currencies"
        elif comes_and_goes(config, asked.pool) and any(can_try(cascade, name, op, config) for op in asked.operations):
            yield key, f"of {name}, asked second, nothing waits until it is loaded: keep the model of pool {asked.pool}"


def can_try(cascade: Cascade, asked: str, operation: Operation, config: GatewayConfig) -> bool:
    """Whether the small model can be tried with an operation of the model `asked`."""
    first, model = config.models.get(cascade.first), config.models[asked]
    if first is None or first is model or first.pool == model.pool:
        return False
    return operation in _GENERATES and operation in first.operations and operation in model.operations


def _currencies_differ(one: Model, other: Model) -> bool:
    return bool(one.price and other.price and one.price.currency != other.price.currency)
