"""What rules and experiments say about models, pools and each other, checked.

Must not know: lines and files; it names keys.
"""

from collections.abc import Iterator, Mapping, Sequence

from extproc.config.cascade_references import broken_target, can_try
from extproc.config.document import Key
from extproc.config.experiments import Experiment, Sticky, Weight
from extproc.config.model import GatewayConfig
from extproc.config.pools import CARRIES, DialectName
from extproc.config.rules import ComplexityRange, Conditions, Rule, Target, TokenRange
from extproc.operation import Operation

Finding = tuple[Key, str]
_Pairs = frozenset[tuple[str, Operation]]


def broken_experiments(config: GatewayConfig) -> Iterator[Finding]:
    """Every contradiction in `experiments`."""
    for name, experiment in config.experiments.items():
        key: Key = ("experiments", name)
        for arm_name, arm in experiment.arms.items():
            yield from _target((*key, "arms", arm_name), Target(pool=arm.pool, model=arm.model), config)
        yield from _arms_named(key, experiment)
        yield from _weights(key, experiment)
        yield from _mirror(key, experiment, config)
        if experiment.guardrails and not config.ledger.enabled:
            yield (*key, "guardrails"), "they read the ledger, and ledger.enabled is false"
        if (experiment.sticky is Sticky.HEADER) != (experiment.header is not None):
            yield (*key, "header"), "sticky: header and header go together"
        for earlier, (index, step) in zip(experiment.ramp, list(enumerate(experiment.ramp))[1:], strict=False):
            if step.at <= earlier.at:
                yield (*key, "ramp", index, "at"), "not after the step before it"


def _arms_named(key: Key, experiment: Experiment) -> Iterator[Finding]:
    testers = experiment.testers
    named: list[tuple[Key, str]] = [((*key, "control"), experiment.control)]
    named += [((*key, "testers", "pinned", who), arm) for who, arm in testers.pinned.items()]
    for index, step in enumerate(experiment.ramp):
        named += [((*key, "ramp", index, "weights", arm), arm) for arm in step.weights]
    for place, arm in named:
        if arm not in experiment.arms:
            yield place, f"there is no arm {arm}"
    if testers.header is not None and not (testers.principals or testers.teams):
        yield (*key, "testers", "header"), "nobody may use it: name principals or teams"
    if testers.header is None and (testers.principals or testers.teams):
        yield (*key, "testers"), "without header there is nothing that they may use"


def _weights(key: Key, experiment: Experiment) -> Iterator[Finding]:
    weights: dict[str, Weight] = {name: arm.weight for name, arm in experiment.arms.items()}
    if not any(weights.values()):
        yield (*key, "arms"), "every weight is 0, so nothing would be served"
    for index, step in enumerate(experiment.ramp):
        weights |= step.weights
        if not any(weights.values()):
            yield (*key, "ramp", index, "weights"), "every weight is 0 from then on"


def _mirror(key: Key, experiment: Experiment, config: GatewayConfig) -> Iterator[Finding]:
    mirror = experiment.mirror
    if mirror is None:
        return
    place: Key = (*key, "mirror", "pool")
    if mirror.pool not in config.pools:
        yield place, f"there is no pool {mirror.pool}"
        return
    pool = config.pools[mirror.pool]
    if len(pool.clusters) > 1:
        yield place, "a mirror is one cluster, and this pool has several"
    for name in pools_of(experiment, config):
        other = config.pools[name]
        if (other.dialect, other.model) != (pool.dialect, pool.model):
            yield place, f"it can't read what is written for pool {name}: another dialect or another model upstream"


def pools_of(experiment: Experiment, config: GatewayConfig) -> Sequence[str]:
    """The pools of its arms that there are, each once."""
    arms = experiment.arms.values()
    own = [config.models[arm.model].pool for arm in arms if arm.model is not None and arm.model in config.models]
    named = dict.fromkeys([*(arm.pool for arm in arms if arm.pool is not None), *own])
    return [name for name in named if name in config.pools]


def broken_rules(config: GatewayConfig, rules: Sequence[Rule], key: Key) -> Iterator[Finding]:
    """Every contradiction in `rules`, which stand at `key`: names that don't exist, and rules that nothing reaches."""
    seen: dict[str, int] = {}
    reached: list[tuple[Rule, _Pairs]] = []
    for index, rule in enumerate(rules):
        place: Key = (*key, index)
        if rule.name in seen:
            yield (*place, "name"), "another rule has this name"
        seen[rule.name] = index
        findings = [*_target((*place, "to"), rule.to, config), *_conditions((*place, "when"), rule.when, config)]
        findings += broken_target((*place, "to", "cascade"), rule, config)
        yield from findings
        if findings:
            continue
        pairs = _pairs(rule, config)
        if not pairs:
            yield place, "no model that it is for can be served there"
            continue
        for earlier, taken in reached:
            if pairs <= taken and _covers(earlier.when, rule.when):
                yield place, f"never reached: rule {earlier.name} takes all that would come here"
                break
        reached.append((rule, pairs))


def _target(key: Key, target: Target, config: GatewayConfig) -> Iterator[Finding]:
    sections: Mapping[str, Mapping[str, object]] = {
        "model": config.models,
        "pool": config.pools,
        "experiment": config.experiments,
        "cascade": config.cascades,
    }
    for kind, known in sections.items():
        named = getattr(target, kind)
        if named is not None and named not in known:
            yield (*key, kind), f"there is no {kind} {named}"


def _conditions(key: Key, when: Conditions, config: GatewayConfig) -> Iterator[Finding]:
    for index, name in enumerate(when.models or ()):
        if name not in config.models:
            yield (*key, "models", index), f"there is no model {name}"
        elif when.prompt_tokens is not None and config.models[name].tokenizer is None:
            yield (*key, "prompt_tokens"), f"the model {name} has no tokenizer, so nobody can count"


def _pairs(rule: Rule, config: GatewayConfig) -> _Pairs:
    """The models and operations that the rule can take."""
    models = config.models if rule.when.models is None else {name: config.models[name] for name in rule.when.models}
    return frozenset(
        (name, operation)
        for name, model in models.items()
        for operation in model.operations
        if can_serve(rule.to, name, operation, config)
    )


def can_serve(target: Target, name: str, operation: Operation, config: GatewayConfig) -> bool:
    """Whether an operation of the model `name` can go to the target; of an experiment, to all of its arms."""
    if target.experiment is not None:
        arms = config.experiments[target.experiment].arms.values()
        return all(can_serve(Target(pool=arm.pool, model=arm.model), name, operation, config) for arm in arms)
    if target.cascade is not None:
        return can_try(config.cascades[target.cascade], name, operation, config)
    if target.model is not None:
        return operation in config.models[target.model].operations
    assert target.pool is not None, "a target has one of the four"
    dialect = config.pools[target.pool].dialect
    renders_here = dialect is DialectName.TRITON_GENERATE and operation is Operation.CHAT
    return operation in CARRIES[dialect] and not (renders_here and not config.models[name].renders)


def _covers(wide: Conditions, narrow: Conditions) -> bool:
    """Every request that meets `narrow` meets `wide`."""
    sets = ((getattr(wide, name), getattr(narrow, name)) for name in ("models", "principals", "teams", "tiers"))
    if not all(ours is None or (theirs is not None and set(theirs) <= set(ours)) for ours, theirs in sets):
        return False
    headers = (narrow.headers or {}).items()
    if not all((name, value) in headers or (value == "*" and name in dict(headers))
               for name, value in (wide.headers or {}).items()):  # fmt: skip
        return False
    same = ((getattr(wide, name), getattr(narrow, name)) for name in ("images", "tools", "time_of_day"))
    if not all(ours is None or ours == theirs for ours, theirs in same):
        return False
    return _within(narrow.prompt_tokens, wide.prompt_tokens) and _within(narrow.complexity, wide.complexity)


def _within(narrow: TokenRange | ComplexityRange | None, wide: TokenRange | ComplexityRange | None) -> bool:
    if wide is None:
        return True
    if narrow is None or narrow.min < wide.min:
        return False
    return wide.max is None or (narrow.max is not None and narrow.max <= wide.max)
