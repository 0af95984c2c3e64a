"""Envoy's hashing balancers in Python, for simulations with more endpoints than can be run: the same endpoint for the
same key, which tests/e2e/test_affinity.py holds them to.

After Envoy 1.40: `ring_hash_lb.cc`, `maglev_lb.cc`, `thread_aware_lb_impl.cc`; XXH64 after its specification.
"""

import bisect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np

MAGLEV_SIZE = 65_537
_MASK = (1 << 64) - 1
_PRIMES = (
    0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5,
)  # fmt: skip
_STRIPE = 32


def _rotated(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (64 - bits))) & _MASK


def _round(accumulator: int, lane: int) -> int:
    return _rotated((accumulator + lane * _PRIMES[1]) & _MASK, 31) * _PRIMES[0] & _MASK


def _stripes(data: bytes, seed: int) -> int:
    """The state after all whole stripes of 32 bytes."""
    lanes = [seed + _PRIMES[0] + _PRIMES[1], seed + _PRIMES[1], seed, seed - _PRIMES[0]]
    for start in range(0, len(data) - _STRIPE + 1, _STRIPE):
        for index in range(4):
            at = start + 8 * index
            lanes[index] = _round(lanes[index] & _MASK, int.from_bytes(data[at : at + 8], "little"))
    state = sum(_rotated(lane, bits) for lane, bits in zip(lanes, (1, 7, 12, 18), strict=True)) & _MASK
    for lane in lanes:
        state = ((state ^ _round(0, lane)) * _PRIMES[0] + _PRIMES[3]) & _MASK
    return state


def xxh64(data: bytes, seed: int = 0) -> int:
    state = _stripes(data, seed) if len(data) >= _STRIPE else seed + _PRIMES[4]
    state = (state + len(data)) & _MASK
    rest = data[len(data) // _STRIPE * _STRIPE :]
    while len(rest) >= 8:
        state ^= _round(0, int.from_bytes(rest[:8], "little"))
        state = (_rotated(state, 27) * _PRIMES[0] + _PRIMES[3]) & _MASK
        rest = rest[8:]
    if len(rest) >= 4:
        state ^= int.from_bytes(rest[:4], "little") * _PRIMES[0] & _MASK
        state = (_rotated(state, 23) * _PRIMES[1] + _PRIMES[2]) & _MASK
        rest = rest[4:]
    for byte in rest:
        state = _rotated(state ^ (byte * _PRIMES[4] & _MASK), 11) * _PRIMES[0] & _MASK
    state = (state ^ (state >> 33)) * _PRIMES[1] & _MASK
    state = (state ^ (state >> 29)) * _PRIMES[2] & _MASK
    return state ^ (state >> 32)


class Table(Protocol):
    """Where a key goes."""

    def pick(self, key_hash: int) -> str: ...


class Ring:
    """Every endpoint on a ring many times, by its weight; a key belongs to the next one."""

    def __init__(self, weights: Mapping[str, float], least_size: int) -> None:
        total = sum(weights.values())
        share = min(weights.values()) / total
        scale = math.ceil(share * least_size) / share
        points: list[tuple[int, str]] = []
        target = 0.0
        for endpoint, weight in weights.items():
            target += scale * weight / total
            number = 0
            while len(points) < target:
                points.append((xxh64(f"{endpoint}_{number}".encode()), endpoint))
                number += 1
        points.sort()
        self._hashes = [point for point, _ in points]
        self._endpoints = [endpoint for _, endpoint in points]

    def pick(self, key_hash: int) -> str:
        return self._endpoints[bisect.bisect_left(self._hashes, key_hash) % len(self._endpoints)]


class Maglev:
    """A table of places that the endpoints take in turns, each in an order of its own."""

    def __init__(self, weights: Mapping[str, float], size: int = MAGLEV_SIZE) -> None:
        self._places: list[str | None] = [None] * size
        total = sum(weights.values())
        shares = {endpoint: weight / total for endpoint, weight in sorted(weights.items())}
        most = max(shares.values())
        due = dict.fromkeys(shares, 0.0)
        at = {endpoint: xxh64(endpoint.encode()) % size for endpoint in shares}
        skip = {endpoint: xxh64(endpoint.encode(), 1) % (size - 1) + 1 for endpoint in shares}
        taken, turn = 0, 0
        while taken < size:
            turn += 1
            for endpoint, share in shares.items():
                if taken == size or turn * share < due[endpoint]:
                    continue
                due[endpoint] += most
                place = at[endpoint]
                while self._places[place] is not None:
                    place = (place + skip[endpoint]) % size
                self._places[place] = endpoint
                at[endpoint] = (place + skip[endpoint]) % size
                taken += 1

    def pick(self, key_hash: int) -> str:
        endpoint = self._places[key_hash % len(self._places)]
        assert endpoint is not None
        return endpoint


class Bounded:
    """A table under a bound: an endpoint with more than its share of the requests in flight is passed over.

    `active` tells how many an endpoint has; the order of the others belongs to the key.
    """

    def __init__(self, table: Table, weights: Mapping[str, float], percent: int, active: Callable[[str], int]) -> None:
        total = sum(weights.values())
        self._table, self._percent, self._active = table, percent, active
        self._shares = {endpoint: weight / total for endpoint, weight in weights.items()}

    def pick(self, key_hash: int) -> str:
        first = self._table.pick(key_hash)
        slots = ((sum(map(self._active, self._shares)) + 1) * self._percent + 99) // 100
        if self._load(first, slots) <= 1:
            return first
        others = [endpoint for endpoint in _shuffled(list(self._shares), key_hash) if endpoint != first]
        loads = {endpoint: self._load(endpoint, slots) for endpoint in (first, *others)}
        return next((endpoint for endpoint in others if loads[endpoint] <= 1), min(loads, key=lambda one: loads[one]))

    def _load(self, endpoint: str, slots: int) -> float:
        return self._active(endpoint) / max(math.ceil(slots * self._shares[endpoint]), 1)


def _shuffled(endpoints: Sequence[str], seed: int) -> list[str]:
    random = np.random.MT19937()
    random._legacy_seeding(seed & 0xFFFFFFFF)  # that of std::mt19937
    order = list(endpoints)
    for index in range(len(order)):
        left = len(order) - index
        jump = left
        while jump >= left:
            jump = int(random.random_raw()) // ((1 << 32) // left)
        order[index], order[index + jump] = order[index + jump], order[index]
    return order
