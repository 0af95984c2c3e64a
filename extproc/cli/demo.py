"""`extproc demo`: traffic for a running gateway, so that dashboards have something to show."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

from extproc.cli.arguments import CommandFailed, add_config, add_stack_place, load_config

if TYPE_CHECKING:
    from extproc.cli.arguments import Commands
    from extproc.cli.demo_traffic import Target
    from extproc.config.model import GatewayConfig

_LONGEST_S = 3600.0
_STORE_TIMEOUT_S = 5.0


def add_commands(commands: Commands) -> None:
    demo = commands.add_parser("demo", help="send a mixture of requests to a running gateway")
    demo.add_argument("--key", help="an API key to use (default: two made for this and revoked after it)")
    demo.add_argument("--duration", type=_duration, default=60.0, metavar="S", help="seconds (default: 60)")
    demo.add_argument("--rate", type=_rate, default=10.0, metavar="N", help="requests a second (default: 10)")
    demo.add_argument("--seed", type=int, default=1, help="of the mixture: the same seed, the same requests")
    add_config(demo)
    add_stack_place(demo)
    demo.set_defaults(run=_demo)


def _duration(text: str) -> float:
    return _number(text, _LONGEST_S)


def _rate(text: str) -> float:
    from extproc.cli.demo_traffic import MOST_PER_S

    return _number(text, MOST_PER_S)


def _number(text: str, most: float) -> float:
    with contextlib.suppress(ValueError):
        if 0 < float(text) <= most:
            return float(text)
    raise argparse.ArgumentTypeError(f"a number above 0, {most:g} at most")


def _demo(arguments: argparse.Namespace) -> int:
    config = load_config(arguments)
    outcomes = asyncio.run(_send(config, arguments))
    for (kind, status), count in sorted(outcomes.items()):
        print(f"{kind:<16}{status or 'no answer':>10}{count:>8}")
    if not any(status == 200 for _, status in outcomes):
        raise CommandFailed(f"nothing was answered at http://{config.gateway.listen}")
    return 0


async def _send(config: GatewayConfig, arguments: argparse.Namespace) -> Counter[tuple[str, int]]:
    from extproc.cli import demo_traffic
    from extproc.cli.progress import shown

    async with _target(config, arguments.key) as target:
        with shown() as tell:
            return await demo_traffic.send(
                target, arguments.duration, arguments.rate, arguments.seed, lambda share: tell("sending", share)
            )


@contextlib.asynccontextmanager
async def _target(config: GatewayConfig, key: str | None) -> AsyncIterator[Target]:
    """The gateway of this configuration, with keys that work; those made here are revoked."""
    from extproc.cli.demo_traffic import Target
    from extproc.operation import Operation

    base_url = f"http://{config.gateway.listen}/v1"
    chat, embedding = (_first_model(config, operation) for operation in (Operation.CHAT, Operation.EMBEDDINGS))
    if not chat:
        raise CommandFailed("no model here can chat")
    if key is not None:
        yield Target(base_url, key, chat, embedding_model=embedding)
        return
    async with _made_keys(config) as made:
        yield Target(base_url, made["enterprise"], chat, made["free"], embedding)


def _first_model(config: GatewayConfig, operation: str) -> str:
    return next((name for name, model in config.models.items() if operation in model.operations), "")


@contextlib.asynccontextmanager
async def _made_keys(config: GatewayConfig) -> AsyncIterator[Mapping[str, str]]:
    from extproc.audit.record import Action
    from extproc.cli.audit import AdminTrail
    from extproc.config.tier import Tier
    from extproc.stores.keys import KeyHasher, KeyStore

    trail = AdminTrail(config)
    hasher = KeyHasher(config.keys.secret)
    store = KeyStore(config.redis.url.get_secret_value(), hasher, _STORE_TIMEOUT_S)
    made = []
    try:
        for tier in (Tier.ENTERPRISE, Tier.FREE):
            made.append(await store.create(name="extproc demo", team="demo", tier=tier, models=("*",)))
            trail.record(Action.KEY_CREATED, made[-1].record.id, "demo")
        yield {one.record.tier: one.text for one in made}
    finally:
        for one in made:
            await store.revoke(one.record.id)
            trail.record(Action.KEY_REVOKED, one.record.id, "demo")
        await store.close()
