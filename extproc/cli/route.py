"""`extproc route --explain`: where a request goes, and why. Nothing is sent."""

import argparse
import asyncio
import json
import pathlib
import time
from typing import TYPE_CHECKING, Any

from extproc.cli.arguments import CommandFailed, add_config, add_stack_place, load_config

if TYPE_CHECKING:
    from extproc.cli.arguments import Commands
    from extproc.config.model import GatewayConfig
    from extproc.dialects.interface import InferenceRequest
    from extproc.routing.catalog import Model, Pool
    from extproc.routing.destinations import Destination
    from extproc.routing.experiments import Change
    from extproc.routing.rules import CompiledRule, Facts, Need

_REDIS_TIMEOUT_S = 1.0


def add_commands(commands: "Commands") -> None:
    route = commands.add_parser("route", help="explain where a request goes")
    route.add_argument("--explain", action="store_true", required=True, help="say which rule, arm and pool, and why")
    route.add_argument("--request", type=pathlib.Path, metavar="FILE", help="a request's body, as clients send it")
    route.add_argument("--path", default="/v1/chat/completions", help="the API it is sent to (default: %(default)s)")
    route.add_argument("--model", metavar="NAME", help="the model, where no file names it")
    route.add_argument("--prompt", default="", metavar="TEXT", help="what the user says, where there is no file")
    route.add_argument("--user", metavar="NAME", help="the request's `user`")
    route.add_argument("--principal", default="anonymous", metavar="ID", help="who calls (default: %(default)s)")
    route.add_argument("--team", default="anonymous", metavar="NAME", help="(default: %(default)s)")
    route.add_argument("--tier", default="free", metavar="NAME", help="(default: %(default)s)")
    route.add_argument("--header", action="append", type=_header, default=[], metavar="NAME:VALUE", help="repeatable")
    route.add_argument("--complexity", type=float, metavar="0..1", help="what the encoder is to have said")
    route.add_argument("--at", type=_moment, metavar="WHEN", help="2026-01-31T12:00 (UTC); by default now")
    route.add_argument("--no-redis", action="store_true", help="go by the weights in the file alone")
    route.add_argument("--json", action="store_true", help="as JSON")
    add_config(route)
    add_stack_place(route)
    route.set_defaults(run=_explain)


def _moment(text: str) -> float:
    from extproc.cli.usage import moment

    return moment(text)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not (name.strip() and colon):
        raise argparse.ArgumentTypeError("NAME:VALUE")
    return name.strip().lower(), value.strip()


def _explain(arguments: argparse.Namespace) -> int:
    from extproc.policies.route import Settings

    config = load_config(arguments)
    settings = config.policies.get("route")
    explained = _Explained(config, settings if isinstance(settings, Settings) else Settings(), arguments)
    report = explained.report()
    if arguments.json:
        print(json.dumps(report, indent=2))
    else:
        _print(report)
    return 0


class _Explained:
    """One request, decided by the code that decides all of them."""

    def __init__(self, config: "GatewayConfig", settings: Any, arguments: argparse.Namespace) -> None:
        from extproc.policies.route_facts import facts_of
        from extproc.principal import Principal
        from extproc.routing import catalog
        from extproc.routing.destinations import Destinations
        from extproc.routing.rules import Rules

        self._catalog = catalog.build(config)
        self._headers = dict(arguments.header)
        self._request = _request(arguments, self._headers)
        if self._request.model not in config.models:
            raise CommandFailed(f"there is no model {self._request.model} (there are: {', '.join(config.models)})")
        self._complexity = arguments.complexity
        self._principal = Principal(arguments.principal, arguments.team, arguments.tier, frozenset({"*"}))
        now_s = time.time() if arguments.at is None else arguments.at
        self._facts = facts_of(self._request, self._principal, self._headers, now_s)
        self._config, self._asks_redis = config, not arguments.no_redis
        self._changes, self._heard = _heard(config, arguments)
        self._destinations = Destinations(self._catalog, self)
        self._rules: Rules = Rules(settings.rules, self._destinations.serves)

    def of(self, experiment: str) -> "Change | None":
        """What was said of it while running."""
        return self._changes.get(experiment)

    def report(self) -> dict[str, Any]:
        from extproc.policies.route_facts import subject_of

        found, steps = self._try_rules()
        destination = self._destinations.of(
            found,
            self._facts,
            self._catalog.models[self._facts.model],
            lambda experiment: subject_of(experiment, self._request, self._headers, self._principal),
        )
        return {
            "rules": steps,
            "rule": destination.rule,
            "experiment": self._experiment(destination),
            "model": destination.model.name,
            "pool": destination.pool.name,
            "cascade": self._cascade(destination),
            "endpoints": self._endpoints(destination.model, destination.pool),
        }

    def _cascade(self, destination: "Destination") -> dict[str, Any] | None:
        cascade = destination.cascade
        if cascade is None:
            return None
        first = cascade.first
        endpoints = self._endpoints(first, first.pool)
        return {"name": cascade.name, "first": first.name, "pool": first.pool.name, "endpoints": endpoints}

    def _endpoints(self, model: "Model", pool: "Pool") -> dict[str, Any] | None:
        from extproc.cli.route_endpoints import explained_endpoints

        request = self._request
        limit = request.output_limit_tokens
        answer = (model.output_cap_tokens if limit is None else limit) * request.choices
        prompt = 0 if model.tokenizer is None else model.tokenizer.count_request(request)
        return explained_endpoints(self._config, pool.name, prompt + answer, redis=self._asks_redis)

    def _try_rules(self) -> "tuple[CompiledRule | None, list[dict[str, str]]]":
        steps = []
        for rule in self._rules.rules:
            failing = rule.failing(self._learned(rule))
            steps.append({"name": rule.name, "failed": str(failing or "")})
            if failing is None:
                return rule, steps
        return None, steps

    def _learned(self, rule: "CompiledRule") -> "Facts":
        """The facts, with what this rule needs to know."""
        from extproc.routing.rules import Need, with_known

        while isinstance(need := rule.failing(self._facts), Need):
            self._facts = with_known(self._facts, need, self._learn(need))
        return self._facts

    def _learn(self, need: "Need") -> float | None:
        from extproc.routing.rules import Need

        if need is Need.COMPLEXITY:
            if self._complexity is None:
                raise CommandFailed("a rule asks for the task's complexity: say --complexity")
            return float(self._complexity)
        tokenizer = self._catalog.models[self._request.model].tokenizer
        return None if tokenizer is None else tokenizer.count_request(self._request)

    def _experiment(self, destination: "Destination") -> dict[str, Any] | None:
        taken = destination.taken
        if taken is None:
            return None
        experiment = self._catalog.experiments[taken.experiment]
        change = self._changes.get(taken.experiment)
        holds = change is not None and change.fingerprint == experiment.fingerprint
        return {
            "name": taken.experiment,
            "arm": taken.arm,
            "why": f"drawn for its {experiment.sticky}" if taken.subject else "chosen by a tester",
            "weights": dict(experiment.in_force(change, self._facts.now_s)),
            "weights_from": change.by if change is not None and holds else f"gateway.yaml{self._heard}",
            "subject": taken.subject,
        }


def _request(arguments: argparse.Namespace, headers: dict[str, str]) -> "InferenceRequest":
    from extproc.dialects.interface import InvalidRequest, RequestHead
    from extproc.dialects.registry import resolve

    if arguments.request is None and arguments.model is None:
        raise CommandFailed("say --model, or --request with a file that names one")
    head = RequestHead("POST", arguments.path, {":path": arguments.path, ":method": "POST", **headers})
    api = resolve(head).api
    if api is None:
        raise CommandFailed(f"nothing is served at {arguments.path}")
    try:
        return api.parse(head, _body(arguments))
    except InvalidRequest as error:
        raise CommandFailed(f"the request is refused: {error.rejection.message}") from None


def _body(arguments: argparse.Namespace) -> bytes:
    if arguments.request is not None:
        try:
            return bytes(arguments.request.read_bytes())
        except OSError as error:
            raise CommandFailed(f"{arguments.request}: {error.strerror}") from error
    body: dict[str, Any] = {"model": arguments.model, "messages": [{"role": "user", "content": arguments.prompt}]}
    if arguments.user is not None:
        body["user"] = arguments.user
    return json.dumps(body).encode()


def _heard(config: "GatewayConfig", arguments: argparse.Namespace) -> "tuple[dict[str, Change], str]":
    """What was said of experiments while they run; and how the weights of the file are to be taken."""
    if arguments.no_redis or not config.experiments:
        return {}, ""
    from extproc.errors import DependencyError
    from extproc.stores.experiments import ExperimentStore

    async def listen() -> "dict[str, Change]":
        store = ExperimentStore(config.redis.url.get_secret_value(), _REDIS_TIMEOUT_S)
        try:
            return dict(await store.changes())
        finally:
            await store.close()

    try:
        return asyncio.run(listen()), ""
    except DependencyError:
        return {}, " (Redis does not answer, so nobody knows what was set since)"


def _print(report: dict[str, Any]) -> None:
    for step in report["rules"]:
        print(f"rule {step['name']}: " + (f"no, {step['failed']}" if step["failed"] else "yes"))
    if report["rule"] == "default":
        print("no rule: the model's own pool")
    experiment = report["experiment"]
    if experiment is not None:
        weights = ", ".join(f"{arm} {weight:g}" for arm, weight in experiment["weights"].items())
        print(f"experiment {experiment['name']}: weights {weights}, from {experiment['weights_from']}")
        print(f"arm {experiment['arm']}: {experiment['why']}")
    cascade = report["cascade"]
    if cascade is not None:
        print(f"cascade {cascade['name']}: first model {cascade['first']} in pool {cascade['pool']}, then")
        _print_endpoints(cascade["endpoints"])
    print(f"model {report['model']}\npool {report['pool']}")
    _print_endpoints(report["endpoints"])


def _print_endpoints(report: dict[str, Any] | None) -> None:
    if report is None:
        return
    for one in report["order"]:
        busy = f", busy {one['busy']:g}" if report["strategy"] == "gpu_aware" else ""
        state = "out" if one["unhealthy"] else "first choice" if one["first_choice"] else "then"
        print(f"endpoint {one['endpoint']}: {state}, {one['pending_tokens']} tokens pending{busy}")
    for what in report["unknown"]:
        print(f"not known: {what}")
