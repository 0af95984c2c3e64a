"""The admin API's endpoints: each is a few lines between its types (`shapes.py`) and what the command line does, too
(`extproc.operations`).

A new group of endpoints is a class like these, here or in a file of its own, and a line in `endpoints_of`. Must not
know: aiohttp.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence

from msgspec import UNSET, UnsetType

from extproc.admin import shapes
from extproc.admin.endpoints import Call, Endpoint, Input
from extproc.admin.experiments_api import ExperimentsApi
from extproc.admin.models_api import ModelsApi
from extproc.admin.problems import Problem
from extproc.admin.process import Process
from extproc.audit.record import Action
from extproc.limits import FOREVER_MS, Measure
from extproc.operations import cache, keys, limits, usage
from extproc.operations.trail import ActionTrail
from extproc.stores.answer_census import Which
from extproc.stores.keys import KeyRecord
from extproc.usage_summary import Summary
from extproc.usage_summary import Usage as Sum

BASE = "/api/v1"
MOST_GROUPS = 1000
_MONEY = "money_nano"


class KeysApi:
    """API keys in Redis."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def endpoints(self) -> Sequence[Endpoint]:
        return (
            Endpoint(
                method="GET",
                path=f"{BASE}/keys",
                name="listKeys",
                summary="List API keys, without their text.",
                takes=shapes.WhichKeys,
                gives=shapes.Keys,
                handle=self.list,
            ),
            Endpoint(
                method="POST",
                path=f"{BASE}/keys",
                name="createKey",
                summary="Make an API key.",
                takes=shapes.NewKey,
                gives=shapes.CreatedKey,
                handle=self.create,
                status=201,
                refusals={409: "A model is not configured."},
            ),
            Endpoint(
                method="DELETE",
                path=f"{BASE}/keys/{{id}}",
                name="revokeKey",
                summary="End an API key, at once and everywhere; again is harmless.",
                takes=shapes.OneKey,
                gives=shapes.Key,
                handle=self.revoke,
                refusals={404: "There is no such key."},
            ),
        )

    async def list(self, call: Call[shapes.WhichKeys]) -> shapes.Keys:
        asked = call.input
        records = await keys.every(self._process.config())
        if asked.after is not UNSET:
            at = next((at for at, record in enumerate(records) if record.id == asked.after), len(records))
            records = records[at + 1 :]
        records = [record for record in records if asked.team in (UNSET, record.team)]
        return shapes.Keys(keys=tuple(map(_key, records[: asked.limit])), more=len(records) > asked.limit)

    async def create(self, call: Call[shapes.NewKey]) -> shapes.CreatedKey:
        asked, config = call.input, self._process.config()
        trail = ActionTrail(config, call.actor)
        try:
            made = await keys.create(
                config, trail, name=asked.name, team=asked.team, tier=asked.tier, models=asked.models
            )
        except keys.UnknownModels as error:
            raise Problem(409, "model_not_configured", str(error), "models") from None
        return shapes.CreatedKey(key=made.text, hash=made.record.hash, record=_key(made.record))

    async def revoke(self, call: Call[shapes.OneKey]) -> shapes.Key:
        config = self._process.config()
        record = await keys.revoke(config, ActionTrail(config, call.actor), call.input.id)
        if record is None:
            raise Problem(404, "no_such_key", f"there is no key {call.input.id}", "id")
        return _key(record)


class LimitsApi:
    """Limits, budgets and what is spent."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._summing = asyncio.Lock()

    def endpoints(self) -> Sequence[Endpoint]:
        return (
            Endpoint(
                method="GET",
                path=f"{BASE}/principals/{{principal}}/limits",
                name="readLimits",
                summary="A caller's limits and budgets, and what is left of each.",
                takes=shapes.Whose,
                gives=shapes.Standings,
                handle=self.standings,
                refusals={404: "There is no such caller."},
            ),
            Endpoint(
                method="GET",
                path=f"{BASE}/usage",
                name="readUsage",
                summary="What was used and what it costs, summed up from the ledger; one at a time.",
                takes=shapes.WhichUsage,
                gives=shapes.Usage,
                handle=self.usage,
            ),
        )

    async def standings(self, call: Call[shapes.Whose]) -> shapes.Standings:
        config, asked = self._process.config(), call.input
        principal = await limits.find_principal(config, asked.principal)
        if principal is None:
            raise Problem(404, "no_such_principal", f"there is no key {asked.principal}", "principal")
        found = await limits.standings(config, principal, _text(asked.model))
        return shapes.Standings(
            principal=principal.id,
            team=principal.team,
            tier=str(principal.tier),
            mode=str(limits.mode(config)),
            limits=tuple(map(_standing, found)),
        )

    async def usage(self, call: Call[shapes.WhichUsage]) -> shapes.Usage:
        asked = call.input
        since_s = None if asked.since is UNSET else asked.since
        until_s = None if asked.until is UNSET else asked.until
        by = tuple(dict.fromkeys(asked.by.split(",")))
        summary = Summary(by, since_s, until_s)
        async with self._summing:  # it reads the whole ledger: two would take twice as long
            unreadable = await usage.sum_up(self._process.config(), summary, since_s)
        groups = sorted(summary.groups(), key=lambda one: -one[1].requests)
        return shapes.Usage(
            groups=tuple(_group(dict(zip(by, values, strict=True)), one) for values, one in groups[:MOST_GROUPS]),
            total=_group({}, summary.total),
            left_out=max(0, len(groups) - MOST_GROUPS),
            unreadable_records=unreadable,
        )


class CacheApi:
    """Kept answers."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def endpoints(self) -> Sequence[Endpoint]:
        return (
            Endpoint(
                method="GET",
                path=f"{BASE}/cache",
                name="readCache",
                summary="Kept answers by tenant, model and namespace.",
                takes=shapes.WhichAnswers,
                gives=shapes.CacheStats,
                handle=self.stats,
            ),
            Endpoint(
                method="POST",
                path=f"{BASE}/cache/purge",
                name="purgeCache",
                summary="Forget kept answers, at once and everywhere.",
                takes=shapes.Purge,
                gives=shapes.Purged,
                handle=self.purge,
                refusals={409: "Nothing was named, and `all` was not said."},
            ),
        )

    async def stats(self, call: Call[shapes.WhichAnswers]) -> shapes.CacheStats:
        held = await cache.held(self._process.config(), _which(call.input))
        groups = sorted(held.items(), key=lambda item: -item[1].size_bytes)
        shown = tuple(
            shapes.HeldAnswers(
                tenant=tenant, model=model, namespace=namespace, entries=one.entries, bytes=one.size_bytes
            )
            for (tenant, model, namespace), one in groups[:MOST_GROUPS]
        )
        return shapes.CacheStats(
            groups=shown,
            entries=sum(one.entries for one in held.values()),
            bytes=sum(one.size_bytes for one in held.values()),
            left_out=max(0, len(groups) - MOST_GROUPS),
        )

    async def purge(self, call: Call[shapes.Purge]) -> shapes.Purged:
        which, config = _which(call.input), self._process.config()
        if which == Which() and not call.input.all:
            raise Problem(409, "nothing_named", "name a tenant, model or namespace, or say all", "all")
        return shapes.Purged(forgotten=await cache.purge(config, ActionTrail(config, call.actor), which))


class ProcessApi:
    """The process itself."""

    def __init__(self, process: Process) -> None:
        self._process = process

    def endpoints(self) -> Sequence[Endpoint]:
        return (
            Endpoint(
                method="GET",
                path=f"{BASE}/process",
                name="readProcess",
                summary="The configuration's version, and whether every worker is ready.",
                takes=Input,
                gives=shapes.Running,
                handle=self.running,
            ),
            Endpoint(
                method="POST",
                path=f"{BASE}/process/drain",
                name="drain",
                summary="End the process as SIGTERM does: no new requests, those in flight may end.",
                takes=Input,
                gives=shapes.Draining,
                handle=self.drain,
                status=202,
            ),
        )

    async def running(self, call: Call[Input]) -> shapes.Running:
        return self._process.running()

    async def drain(self, call: Call[Input]) -> shapes.Draining:
        config = self._process.config()
        await ActionTrail(config, call.actor).note(Action.DRAINED, "")
        self._process.drain()
        return shapes.Draining(grace_s=config.service.drain_timeout_s)


def endpoints_of(process: Process) -> Sequence[Endpoint]:
    """Every endpoint of the admin API, in the order of its documentation."""
    groups = (
        KeysApi(process),
        LimitsApi(process),
        CacheApi(process),
        ModelsApi(process, BASE),
        ExperimentsApi(process, BASE),
        ProcessApi(process),
    )
    return tuple(endpoint for group in groups for endpoint in group.endpoints())


def _key(record: KeyRecord) -> shapes.Key:
    return shapes.Key(
        id=record.id,
        name=record.name,
        team=record.team,
        tier=record.tier,
        models=record.models,
        created=record.created.isoformat(),
        revoked=record.revoked,
    )


def _standing(one: limits.Standing) -> shapes.Standing:
    limit, state = one.limit, one.state
    forever = state.reset_ms >= FOREVER_MS
    return shapes.Standing(
        name=limit.name,
        unit=_MONEY if limit.measure is Measure.MONEY else str(limit.measure),
        amount=limit.amount,
        used=max(0, limit.amount - state.remaining),
        remaining=state.remaining,
        resets_in_s=None if forever else math.ceil(state.reset_ms) / 1000,
        shadow=limit.shadow,
    )


def _group(values: dict[str, str], one: Sum) -> shapes.UsageGroup:
    return shapes.UsageGroup(
        group=values,
        requests=one.requests,
        prompt_tokens=one.prompt_tokens,
        cached_tokens=one.cached_tokens,
        completion_tokens=one.completion_tokens,
        saved_tokens=one.saved_tokens,
        cost_nano=one.cost_nano,
    )


def _which(asked: shapes.WhichAnswers | shapes.Purge) -> Which:
    return Which(_or_any(asked.tenant), _or_any(asked.model), _or_any(asked.namespace))


def _or_any(value: str | UnsetType) -> str | None:
    return None if value is UNSET else value


def _text(value: str | UnsetType) -> str:
    return "" if value is UNSET else value
