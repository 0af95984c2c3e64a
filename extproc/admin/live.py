"""The live view's numbers: read at most once a second however many look, kept for two minutes, shown as one snapshot.

Nobody needs to look for it to go on, but then it reads seldom, and never more than a share of the time: what it costs
is bounded. Owns the history and the rates. Must not know: HTTP, or where metrics are kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

import msgspec
from msgspec import Struct
from prometheus_client.core import Metric

from extproc.admin import live_shapes as shapes
from extproc.admin.decisions import Decisions
from extproc.admin.readings import Labels, Reading, added, grown, quantile, read
from extproc.admin.shapes import Running
from extproc.config.model import GatewayConfig
from extproc.config.pools import Pool
from extproc.routing.load_board import LoadBoard, PoolLoad

INTERVAL_S = 1.0
IDLE_INTERVAL_S = 5.0
"""While nobody looks; there is some history then for who does."""

WATCHED_S = 10.0
WINDOW_S = 60.0
KEPT = 120
MOST_TEAMS = 12
MOST_VERDICTS = 16
_BUSY_SHARE = 0.1
"""Of the time, at most, is spent on reading: with very many series it reads less often."""

_NANO = 1e9
_HIT = ("hit", "semantic")
_SENT_AWAY = ("full", "shed", "too_long")
_WAITS = ("wait_s", "position")
_FAILED = ("upstream_error", "internal_error")
_Z95 = 1.959964
_encode = msgspec.json.Encoder().encode
_log = logging.getLogger(__name__)


class Sources(Protocol):
    """Where numbers come from. `metrics` may take long: it is called in a thread."""

    def metrics(self) -> Iterable[Metric]: ...
    def config(self) -> GatewayConfig: ...
    def running(self) -> Running: ...
    def waiting_bytes(self) -> int | None:
        """What has not reached the ledger yet; None where there is no ledger."""


_Point = tuple[float | None, ...]


class _Moment(Struct, frozen=True):
    reading: Reading
    wall_s: float


class LiveView:
    """Keeps reading while `run` runs; `snapshot` is for everyone who looks."""

    def __init__(self, sources: Sources, decisions: Decisions, board: LoadBoard) -> None:
        self._sources, self._decisions, self._board = sources, decisions, board
        self._moments: deque[_Moment] = deque()
        self._points: deque[_Point] = deque(maxlen=KEPT)
        self._started_s = time.time()
        self._looked_s = -math.inf
        self._looked = asyncio.Event()
        self._fresh = asyncio.Event()
        self._snapshot = b""

    async def run(self) -> None:
        """For ever. Raises nothing: what can't be read is tried again."""
        while True:
            began_s = time.monotonic()
            try:
                self._snapshot = await asyncio.to_thread(self._read)
                self._fresh.set()
            except Exception:  # such as a bug of ours: the view goes stale, and says so
                _log.exception("the live view can't be brought up to date")
            now_s = time.monotonic()
            watched = now_s - self._looked_s < WATCHED_S
            pause_s = max(INTERVAL_S if watched else IDLE_INTERVAL_S, (now_s - began_s) / _BUSY_SHARE)
            await self._pause(pause_s - (now_s - began_s), wake=not watched)

    async def snapshot(self) -> bytes:
        """The newest `Live` as JSON; who looks after nobody did waits until there is a new one."""
        now_s = time.monotonic()
        if now_s - self._looked_s >= WATCHED_S:
            self._fresh.clear()
        self._looked_s = now_s
        self._looked.set()
        await self._fresh.wait()
        return self._snapshot

    async def _pause(self, pause_s: float, *, wake: bool) -> None:
        """Until it is time again, or somebody looks after nobody did."""
        self._looked.clear()
        if not wake:
            await asyncio.sleep(pause_s)
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._looked.wait(), pause_s)

    def _read(self) -> bytes:
        self._board.look()
        now = _Moment(read(self._sources.metrics(), time.monotonic()), time.time())
        before = self._moments[-1] if self._moments else None
        self._moments.append(now)
        while now.reading.at_s - self._moments[0].reading.at_s > WINDOW_S:
            self._moments.popleft()
        if before is not None:
            self._points.append(_point(now, before.reading, self._moments[0].reading))
        return _encode(self._live(now, self._moments[0].reading))

    def _live(self, now: _Moment, old: Reading) -> shapes.Live:
        """`old` is where the window begins."""
        waiting = self._sources.waiting_bytes()
        reading = now.reading
        return shapes.Live(
            at=now.wall_s,
            started_at=self._started_s,
            window_s=round(reading.at_s - old.at_s, 3),
            process=self._sources.running(),
            degraded=tuple(sorted(set(reading.degraded))),
            in_flight=max(0, round(reading.in_flight)),
            history=_history(self._points),
            duration=_distribution(reading, old, "duration_s"),
            first_token=_distribution(reading, old, "first_token_s"),
            outcomes=tuple(
                shapes.Outcome(termination=labels[0], count=round(count))
                for labels, count in grown(reading.count("exchanges"), old.count("exchanges")).most_common()
            ),
            lookups=tuple(
                shapes.Lookup(level=labels[0], result=labels[1], count=round(count))
                for labels, count in grown(reading.count("lookups"), old.count("lookups")).most_common()
            ),
            saved_tokens=round(reading.total("saved_tokens")),
            verdicts=tuple(_verdicts(reading, old)),
            recording=waiting is not None,
            ledger_waiting_bytes=waiting or 0,
            spend=tuple(
                shapes.Spend(team=team, requests=requests, tokens=tokens, cost=_money(cost))
                for team, requests, tokens, cost in self._decisions.spent(MOST_TEAMS)
            ),
            pools=tuple(_pools(self._sources.config(), self._board.pools, reading.at_s)),
            queues=tuple(_queues(reading, old)),
            waits=tuple(_waits(reading, old)),
            arms=tuple(_arms(reading)),
            decisions=self._decisions.recent(),
        )


def _history(points: Iterable[_Point]) -> shapes.History:
    names = shapes.History.__struct_fields__
    columns = tuple(zip(*points, strict=True)) or ((),) * len(names)
    return shapes.History(**dict(zip(names, columns, strict=True)))


def _point(moment: _Moment, old: Reading, window: Reading) -> _Point:
    """One interval: rates since `old`, shares and quantiles since `window`. In the order of `History`."""
    now = moment.reading
    passed_s = max(now.at_s - old.at_s, 1e-3)
    ended = grown(now.count("exchanges"), old.count("exchanges"))
    tokens = grown(now.count("tokens"), old.count("tokens"))
    return (
        round(moment.wall_s, 3),
        round(ended.total() / passed_s, 3),
        round(ended[("rejected",)] / passed_s, 3),
        round(sum(ended[(name,)] for name in _FAILED) / passed_s, 3),
        round(tokens[("input",)] / passed_s, 3),
        round(tokens[("output",)] / passed_s, 3),
        _hit_share(now, window),
        _rounded(quantile(added(now.histogram("first_token_s"), window.histogram("first_token_s")), 0.95)),
        _rounded(quantile(added(now.histogram("duration_s"), window.histogram("duration_s")), 0.95)),
    )


def _hit_share(now: Reading, old: Reading) -> float | None:
    """Of the requests that came to the exact cache, how many some cache answered."""
    looked = grown(now.count("lookups"), old.count("lookups"))
    asked = sum(count for (level, _), count in looked.items() if level == "exact")
    hits = sum(count for (_, result), count in looked.items() if result in _HIT)
    return round(min(1.0, hits / asked), 4) if asked else None


def _distribution(now: Reading, old: Reading, name: str) -> shapes.Distribution:
    buckets = added(now.histogram(name), old.histogram(name))
    p50, p95, p99 = (_rounded(quantile(buckets, share)) for share in (0.5, 0.95, 0.99))
    return shapes.Distribution(
        bounds_s=tuple(bound for bound, _ in buckets if bound != math.inf),
        counts=tuple(round(count) for _, count in buckets),
        p50_s=p50,
        p95_s=p95,
        p99_s=p99,
    )


def _verdicts(now: Reading, old: Reading) -> Iterator[shapes.Verdict]:
    recent = grown(now.count("verdicts"), old.count("verdicts"))
    every = sorted(now.count("verdicts").items(), key=lambda item: (-recent[item[0]], -item[1], item[0]))
    for (policy, verdict, mode, reason), total in every[:MOST_VERDICTS]:
        count = recent[policy, verdict, mode, reason]
        yield shapes.Verdict(
            policy=policy, verdict=verdict, mode=mode, reason=reason, recent=round(count), total=round(total)
        )


def _pools(config: GatewayConfig, loads: Mapping[str, PoolLoad], now_s: float) -> Iterator[shapes.Pool]:
    for name, pool in config.pools.items():
        load = loads.get(name, PoolLoad(None, 0, {}))
        yield shapes.Pool(
            name=name,
            dialect=str(pool.dialect),
            model=pool.model,
            measured=pool.is_measured,
            pressure=_rounded(load.pressure),
            level=load.level,
            endpoints=tuple(_endpoints(pool, load, now_s)),
        )


def _endpoints(pool: Pool, load: PoolLoad, now_s: float) -> Iterator[shapes.Endpoint]:
    for cluster_name, cluster in pool.clusters.items():
        for address in map(str, cluster.endpoints):
            said = load.endpoints.get(address)
            yield shapes.Endpoint(
                address=address,
                cluster=cluster_name,
                weight=cluster.weight,
                pressure=None if said is None else _rounded(said.pressure(pool.pressure_from, pool.full_queue)),
                queued=None if said is None else said.queued,
                running=None if said is None else said.running,
                gpu=None if said is None else _rounded(said.gpu),
                kv_cache=None if said is None else _rounded(said.kv_cache),
                age_s=None if said is None else round(max(0.0, now_s - said.at_s), 1),
            )


def _queues(now: Reading, old: Reading) -> Iterator[shapes.Queue]:
    ended = grown(now.count("admissions"), old.count("admissions"))
    requests, tokens, waiting = (now.count(f"pool_{what}") for what in ("requests", "tokens", "waiting"))
    for pool, priority in sorted(requests.keys() | {labels[:2] for labels in now.count("admissions")}):
        yield shapes.Queue(
            pool=pool,
            priority=priority,
            requests=round(requests[pool, priority]),
            tokens=round(tokens[pool, priority]),
            waiting=round(waiting[pool, priority]),
            at_once=round(ended[pool, priority, "at_once"]),
            waited=round(ended[pool, priority, "waited"]),
            refused=round(sum(ended[pool, priority, outcome] for outcome in _SENT_AWAY)),
        )


def _waits(now: Reading, old: Reading) -> Iterator[shapes.Wait]:
    for labels in sorted(now.buckets.get("wait_s", {})):
        waits, places = (added(now.histogram(name, labels), old.histogram(name, labels)) for name in _WAITS)
        yield shapes.Wait(
            priority=labels[0],
            p50_s=_rounded(quantile(waits, 0.5)),
            p95_s=_rounded(quantile(waits, 0.95)),
            position_p95=_rounded(quantile(places, 0.95)),
        )


def _arms(now: Reading) -> Iterator[shapes.Arm]:
    ended = now.count("arms")
    for experiment, arm in sorted({(experiment, arm) for experiment, arm, _ in ended}):
        labels: Labels = (experiment, arm)
        requests = sum(count for (*which, _), count in ended.items() if tuple(which) == labels)
        completed = ended[experiment, arm, "completed"]
        low, high = wilson(completed, requests)
        first_token = added(now.histogram("arm_first_token_s", labels), {})
        yield shapes.Arm(
            experiment=experiment,
            arm=arm,
            requests=round(requests),
            completed=round(completed / requests, 4) if requests else 0.0,
            low=low,
            high=high,
            first_token_p50_s=_rounded(quantile(first_token, 0.5)),
        )


def wilson(successes: float, trials: float) -> tuple[float, float]:
    """Wilson's score interval of a share, at 95 %; everything without a trial."""
    if trials <= 0:
        return 0.0, 1.0
    share, square = successes / trials, _Z95 * _Z95
    middle = share + square / (2 * trials)
    spread = _Z95 * math.sqrt(share * (1 - share) / trials + square / (4 * trials * trials))
    scale = 1 + square / trials
    return round(max(0.0, (middle - spread) / scale), 4), round(min(1.0, (middle + spread) / scale), 4)


def _money(cost_nano: Mapping[str, int]) -> dict[str, float]:
    return {currency: nano / _NANO for currency, nano in cost_nano.items()}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
