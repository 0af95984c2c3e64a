"""Which of a pool's endpoints a request had better go to, where the service chooses: what is pending at each, how busy
each is, and who is out. Whatever is taken is given back once.

Pure: what others have pending, what servers say of themselves and who answered come in from outside, and so does the
time. Envoy has the last word: it tries the endpoints in the order that is given here, and any other after them. But it
tries them whether or not it finds them healthy, so those that fail have to be kept back here (docs/routing.md). Must
not know: requests, Redis, Envoy.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Collection, Iterable, Mapping

from msgspec import Struct

from extproc.config.balancing import Balancing, GpuAware
from extproc.routing.pressure import EndpointLoad

SHORTEST_OUT_S = 1.0
"""An endpoint that failed is out for so long; each further failure doubles it."""

NEAR = 0.1
"""Endpoints are as good as the best one if they are busier by no more than this share of the request itself. One of
them is taken by chance, so that workers which know the same don't all take the same."""

_ALTERNATIVES = 16
_OUT = 1e12
"""More than any sum of tokens: who is out comes last, and among all that are out the order is the usual one."""


class Terms(Struct, frozen=True):
    """What the configuration says of a pool. `weights`: what each endpoint is to take of the requests, by address, the
    mean being 1. `attempts`: so many endpoints are named; `longest_out_s`: no failure counts for longer."""

    balancing: Balancing
    weights: Mapping[str, float]
    attempts: int = 3
    gpu_aware: GpuAware = GpuAware()
    full_queue: int = 16
    longest_out_s: float = 10.0


class _Failing(Struct):
    """`times` in a row. `out` until `until_s`; then one request is to try it. `tried`: it is out because one does."""

    until_s: float
    times: int = 1
    out: bool = True
    tried: bool = False


class Endpoints:
    """Those of one pool, for as long as the worker lives: what is pending outlasts a change of the configuration.

    Tokens pending at an endpoint are those of this worker, exactly; those of others as last heard; and for each other
    as many again as this worker has added since, because it presumably sees what this one sees, and does alike.
    """

    def __init__(self, terms: Terms, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self._own: dict[str, int] = {}
        self._own_when_heard: Mapping[str, int] = {}
        self._others: Mapping[str, int] = {}
        self._other_members = 0
        self._failing: dict[str, _Failing] = {}
        self._down: Collection[str] = frozenset()
        self._loads: Mapping[str, EndpointLoad] = {}
        self.change(terms)

    def change(self, terms: Terms) -> None:
        """From now on these."""
        self.terms = terms
        self._addresses = tuple(terms.weights)
        self._at = {address: at for at, address in enumerate(self._addresses)}
        per_token = 1.0
        if terms.balancing is Balancing.GPU_AWARE:
            per_token = terms.gpu_aware.tokens / terms.gpu_aware.full_tokens
        self._per_token = [per_token / weight for weight in terms.weights.values()]
        self._near = NEAR * per_token
        self._failing = {address: failing for address, failing in self._failing.items() if address in self._at}
        self.measured(self._loads)

    # What is pending.

    def take(self, address: str, tokens: int) -> None:
        """A request goes there. Give back as many."""
        self._own[address] = self._own.get(address, 0) + tokens
        self._rescore(address)

    def give(self, address: str, tokens: int) -> None:
        """A request that went there is over."""
        left = self._own.get(address, 0) - tokens
        assert left >= 0, "more is given back than was taken"
        if left:
            self._own[address] = left
        else:
            self._own.pop(address, None)
        self._rescore(address)

    @property
    def own(self) -> Mapping[str, int]:
        """Tokens of this worker, where it has any."""
        return self._own

    def heard(self, others: Mapping[str, int], members: int, own: Mapping[str, int]) -> None:
        """What `members` others together have pending, and what this worker had when they said so."""
        self._others, self._other_members, self._own_when_heard = others, members, own
        self._rescore_all()

    def pending(self, address: str) -> int:
        """Tokens there, of all."""
        own = self._own.get(address, 0)
        known = own + self._others.get(address, 0)
        if not self._other_members:
            return known
        return known + max(0, own - self._own_when_heard.get(address, 0)) * self._other_members

    # How servers are.

    def measured(self, loads: Mapping[str, EndpointLoad]) -> None:
        """What servers say of themselves, by address."""
        self._loads = loads
        self._busy = [0.0] * len(self._addresses)
        if self.terms.balancing is Balancing.GPU_AWARE:
            said = [busyness(loads.get(address), self.terms) for address in self._addresses]
            # Who says nothing may have a reason for it.
            most = max((busy for busy in said if busy is not None), default=0.0)
            self._busy = [most if busy is None else busy for busy in said]
        self._rescore_all()

    def busy(self, address: str) -> float:
        """By what its server says of itself; 0 where that plays no part."""
        return self._busy[self._at[address]]

    def probed(self, down: Collection[str]) -> None:
        """Whose health checks fail."""
        if down != self._down:
            self._down = down
            self._rescore_all()

    def failed(self, address: str, now_s: float) -> None:
        """It failed a request. While it is out, those that were on their way say nothing new."""
        failing = self._failing.get(address)
        if failing is None:
            if address in self._at:
                self._failing[address] = _Failing(now_s + self._out_s(1))
        elif failing.tried or not failing.out:
            failing.times, failing.out, failing.tried = failing.times + 1, True, False
            failing.until_s = now_s + self._out_s(failing.times)
        self._rescore(address)

    def answered(self, address: str) -> None:
        """It served a request."""
        if self._failing.pop(address, None) is not None:
            self._rescore(address)

    def is_out(self, address: str) -> bool:
        """It is chosen only where every other is out, too."""
        failing = self._failing.get(address)
        return address in self._down or (failing is not None and failing.out)

    def _out_s(self, times: int) -> float:
        return min(self.terms.longest_out_s, SHORTEST_OUT_S * 2.0 ** min(times - 1, 30))

    # The choice.

    def order(self, tokens: int, now_s: float) -> tuple[str, ...]:
        """Where a request of so many tokens had better go, the best first; empty for a pool without endpoints."""
        if not self._addresses:
            return ()
        if self._failing:
            self._let_back(now_s)
        near = self._near_best(tokens)
        first = near[int(self._chance() * len(near))]
        if self._failing:
            self._try(self._addresses[first], now_s)
        return tuple([self._addresses[at] for at in (first, *self._alternatives(first))])

    def best(self, tokens: int) -> tuple[str, ...]:
        """Those of which one by chance comes first in the order."""
        return tuple([self._addresses[at] for at in self._near_best(tokens)])

    def _near_best(self, tokens: int) -> list[int]:
        bound = min(self._scores) + self._near * tokens
        return [at for at, score in enumerate(self._scores) if score <= bound]

    def score(self, address: str) -> float:
        """What they are ordered by, the least first."""
        return self._scores[self._at[address]]

    def _alternatives(self, first: int) -> Iterable[int]:
        """The next best; of many endpoints the best of some."""
        count = len(self._addresses)
        some: Iterable[int] = range(count)
        if count > _ALTERNATIVES:
            some = {int(self._chance() * count) for _ in range(_ALTERNATIVES)}
        others = [at for at in some if at != first]
        return heapq.nsmallest(self.terms.attempts - 1, others, key=self._scores.__getitem__)

    def _let_back(self, now_s: float) -> None:
        for address, failing in self._failing.items():
            if failing.out and now_s >= failing.until_s:
                failing.out = failing.tried = False
                self._rescore(address)

    def _try(self, address: str, now_s: float) -> None:
        """Whether it works again, one request is enough to see."""
        failing = self._failing.get(address)
        if failing is not None and not failing.out:
            failing.out = failing.tried = True
            failing.until_s = now_s + self._out_s(failing.times)
            self._rescore(address)

    def _rescore(self, address: str) -> None:
        at = self._at.get(address)
        if at is not None:
            self._scores[at] = self._score(at)

    def _rescore_all(self) -> None:
        self._scores = [self._score(at) for at in range(len(self._addresses))]

    def _score(self, at: int) -> float:
        address = self._addresses[at]
        score = self._busy[at] + self.pending(address) * self._per_token[at]
        return score + _OUT if self.is_out(address) else score


def busyness(load: EndpointLoad | None, terms: Terms) -> float | None:
    """What a server says of itself, each as a share of what makes it full, by weight; None if it says nothing."""
    if load is None:
        return None
    weights = terms.gpu_aware
    shares = (
        (weights.queue, None if load.queued is None else min(1.0, load.queued / terms.full_queue)),
        (weights.kv_cache, load.kv_cache),
        (weights.gpu, load.gpu),
        (weights.gpu_memory, load.gpu_memory),
    )
    known = [weight * share for weight, share in shares if share is not None]
    return sum(known) if known else None


class Choice(Struct):
    """One request's. `order` is what Envoy is told, if `named`; `at` the endpoint that its tokens are counted for;
    `answered_by` the one that answered, once Envoy has said so; `undecided` while only its head says that it can."""

    endpoints: Endpoints
    order: tuple[str, ...]
    tokens: int
    at: str
    named: bool = True
    answered_by: str = ""
    undecided: bool = False
    over: bool = False

    def answered(self, status: int, address: str, now_s: float) -> None:
        """The answer begins; `address` is empty where nobody says whose it is, which says nothing of anybody.

        Who was tried before the one that could do it has failed, and so has who answers with an error of its own. A
        400 that all of them give says nothing either. Whether one that says 200 has served the request, `begun` tells.
        """
        if not address:
            return
        self.answered_by = address
        if status >= 500:
            self.endpoints.failed(address, now_s)
        if self.named and (status < 400 or status >= 500):
            for other in self._before(address):
                self.endpoints.failed(other, now_s)
        self.undecided = status < 400
        if address != self.at and not self.over:
            self.endpoints.give(self.at, self.tokens)
            self.at = address
            self.endpoints.take(address, self.tokens)

    def begun(self, failed: bool, now_s: float) -> None:
        """What follows the head begins; `failed`: with an error of the server's. Only the first time counts."""
        if not self.undecided:
            return
        self.undecided = False
        if failed:
            self.endpoints.failed(self.answered_by, now_s)
        else:
            self.endpoints.answered(self.answered_by)

    def _before(self, address: str) -> tuple[str, ...]:
        return self.order[: self.order.index(address)] if address in self.order else self.order

    def release(self) -> None:
        """The request is over, however it ended. Only the first time counts."""
        if not self.over:
            self.over = True
            self.endpoints.give(self.at, self.tokens)


def choose(endpoints: Endpoints, tokens: int, now_s: float, *, named: bool = True) -> Choice | None:
    """Take the best endpoint for a request of so many tokens; None where there is none."""
    order = endpoints.order(tokens, now_s)
    if not order:
        return None
    endpoints.take(order[0], tokens)
    return Choice(endpoints, order, tokens, order[0], named)
