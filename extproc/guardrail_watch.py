"""Looks after the experiments' guardrails, in the supervisor: reads the ledger as it grows, and takes out arms.

Each replica does it, and comes to the same; the one that is first writes. Owns how far the ledger was read. Must not
know: how a guardrail is judged.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from extproc.audit.record import Action, Entry
from extproc.config.experiments import Experiment
from extproc.config.model import GatewayConfig
from extproc.errors import DependencyError
from extproc.experiments.guardrails import Tally
from extproc.experiments.outcomes import outcome_of
from extproc.routing.experiments import Change, experiment_of
from extproc.stores.experiments import ExperimentStore
from extproc.stores.ledger import Ledger, Retention

_IDLE_S = 5.0
_SKEW_S = 60.0
"""Redis's clock may be so far behind ours."""
BY = "guardrail"
_log = logging.getLogger(__name__)


class _Watched:
    """One experiment since `since_s`, and how far its requests have been counted."""

    def __init__(self, name: str, settings: Experiment, since_s: float) -> None:
        self.name = name
        self.since_s = since_s
        self.tally = Tally(settings)
        self.after = str(max(0, int((since_s - _SKEW_S) * 1000)))

    async def read(self, ledger: Ledger) -> None:
        async for last, records in ledger.pages_after(self.after):
            for record in records:
                outcome = outcome_of(record, self.name)
                if outcome is not None and outcome.time_s >= self.since_s:
                    self.tally.add(outcome)
            self.after = last


class GuardrailWatch:
    """Watches until cancelled. `record` keeps an audit record."""

    def __init__(self, config: GatewayConfig, record: Callable[[Entry], None]) -> None:
        self._record = record
        self._config = config
        self._watched: dict[str, _Watched] = {}

    def change(self, config: GatewayConfig) -> None:
        """From now on watch these."""
        self._config = config
        self._watched.clear()

    async def run(self) -> None:
        """For ever. Without Redis nothing is known, and nothing is taken out."""
        while True:
            experiments = self._config.experiments.values()
            if experiments:
                try:
                    await self.look(self._config)
                except DependencyError as error:
                    _log.warning("guardrails can't be looked at", extra={"reason": str(error)})
                except (ValueError, KeyError):
                    _log.exception("guardrails can't be looked at")
            await asyncio.sleep(min((one.guardrail_interval_s for one in experiments), default=_IDLE_S))

    async def look(self, config: GatewayConfig) -> None:
        """Once, at all of them. Raises StoreUnavailable."""
        url, timeout_s = config.redis.url.get_secret_value(), config.redis.timeout_s
        store = ExperimentStore(url, timeout_s)
        ledger = Ledger(url, timeout_s, Retention(config.ledger.max_age_days, config.ledger.max_records))
        try:
            changes = await store.changes()
            for name, settings in config.experiments.items():
                began_s = await store.begin(name, settings.fingerprint, time.time())
                if settings.guardrails:
                    await self._look_at(name, settings, changes.get(name), began_s, store, ledger)
        finally:
            await store.close()
            await ledger.close()

    async def _look_at(
        self,
        name: str,
        settings: Experiment,
        said: Change | None,
        began_s: float,
        store: ExperimentStore,
        ledger: Ledger,
    ) -> None:
        change = said if said is not None and said.fingerprint == settings.fingerprint else None
        since_s = began_s if change is None else change.since_s
        watched = self._watched.get(name)
        if watched is None or watched.since_s != since_s:
            watched = self._watched[name] = _Watched(name, settings, since_s)
        await watched.read(ledger)
        weights = dict(experiment_of(name, settings).in_force(change, time.time()))
        broken = {arm: why for arm, why in watched.tally.broken().items() if weights.get(arm)}
        if not broken:
            return
        weights |= dict.fromkeys(broken, 0.0)
        if not any(weights.values()):
            weights[settings.control] = 1.0
        pulled = {**(change.pulled if change is not None else {}), **broken}
        if await store.change(name, said, Change(settings.fingerprint, weights, BY, time.time(), since_s, pulled)):
            for arm, why in broken.items():
                self._note(name, arm, why)

    def _note(self, experiment: str, arm: str, why: str) -> None:
        subject, version = f"{experiment}/{arm}", self._config.version
        _log.error("an arm broke a guardrail and is taken out", extra={"arm": subject, "guardrail": why})
        self._record(
            Entry(
                time_s=time.time(),
                actor="service",
                action=Action.ARM_PULLED,
                subject=subject,
                reason=why.partition(" ")[0],
                config_version=version,
            )
        )
