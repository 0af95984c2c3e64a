"""Answers found by their questions, in a real Redis: what is near, what goes with what, what is learned."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extproc.caching import EntryName, Learning, Neighbourhood, Quota, Served
from extproc.clock import Clock
from extproc.stores.answers import RedisAnswers
from extproc.stores.neighbours import RedisNeighbours
from tests.helpers.redis import RedisServer
from tests.helpers.reports import Reporters, embeddings
from tests.helpers.semantic import UNSEEN, pairs

QUOTA = Quota(1000, 10**8)
LEARNING = Learning(target_error_rate=0.1, step=0.02, radius=0.9, remembered_s=60.0)
SET = "identity"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    running = RedisServer(tmp_path_factory.mktemp("redis"))
    yield running
    running.close()


@pytest.fixture(autouse=True)
def forgotten(server: RedisServer) -> None:
    server.flush()


class Shelf:
    """A store in which every answer is put under its question's vector."""

    def __init__(self, server: RedisServer, secret: bytes = b"secret") -> None:
        self.answers = RedisAnswers(server.url, 5.0, 5.0, secret, Clock())
        self.index = RedisNeighbours(self.answers)

    def name(self, title: str, tenant: str = "team:red") -> EntryName:
        return EntryName(tenant, "model", "space", self.answers.digest(title.encode()))

    async def keep(
        self, title: str, angle: float, *, identity: str = SET, tenant: str = "team:red", quota: Quota = QUOTA
    ) -> EntryName:
        name = self.name(title, tenant)
        await self.answers.put(name, b"answer", 60.0, quota)
        await self.index.add(name, identity, vector(angle), title, quota)
        return name

    async def near(
        self, angle: float, *, identity: str = SET, tenant: str = "team:red", least: float = 0.9
    ) -> Neighbourhood:
        return await self.index.near(self.name("", tenant), identity, vector(angle), 3, least, LEARNING.radius)


def vector(angle: float) -> bytes:
    """In the plane of the first two axes; the similarity of two is (1 + cos of the angle between) / 2."""
    made = np.zeros(384, "<f4")
    made[0], made[1] = np.cos(angle), np.sin(angle)
    return made.tobytes()


def run(server: RedisServer, work: object) -> None:
    async def wrapped() -> None:
        shelf = Shelf(server)
        try:
            await work(shelf)  # type: ignore[operator]
        finally:
            await shelf.answers.close()

    asyncio.run(wrapped())


def test_the_nearest_come_first_and_far_ones_not_at_all(server: RedisServer) -> None:
    async def work(shelf: Shelf) -> None:
        for title, angle in (("far", 2.0), ("near", 0.3), ("nearest", 0.1)):
            await shelf.keep(title, angle)
        found = (await shelf.near(0.0)).neighbours
        assert [one.question for one in found] == ["nearest", "near"]
        assert found[0].similarity == pytest.approx((1 + np.cos(0.1)) / 2, abs=1e-5)
        assert found[0].name == shelf.name("nearest")

    run(server, work)


def test_identities_and_tenants_are_apart(server: RedisServer) -> None:
    async def work(shelf: Shelf) -> None:
        await shelf.keep("mine", 0.0)
        assert (await shelf.near(0.0, identity="another")).neighbours == ()
        assert (await shelf.near(0.0, tenant="team:blue")).neighbours == ()
        assert len((await shelf.near(0.0)).neighbours) == 1

    run(server, work)


TENANTS = st.sampled_from(["team:a", "team:a:", "team:b", "principal:a", "team:a}v:b", "team:{a", "team:a/b", "team:"])
IDENTITIES = st.sampled_from(["i", "i:", "i:i", "{i}", ""])
PLACES = st.tuples(TENANTS, IDENTITIES)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kept=st.lists(st.tuples(PLACES, st.floats(0, 0.4)), max_size=12), asked=PLACES, angle=st.floats(0, 0.4))
def test_nobody_is_shown_what_is_not_of_his_tenant_and_identity(
    server: RedisServer, kept: list[tuple[tuple[str, str], float]], asked: tuple[str, str], angle: float
) -> None:
    """Whatever the names and however near the vectors: titles say whose they are."""
    server.flush()

    async def work(shelf: Shelf) -> None:
        titles: dict[tuple[str, str], set[str]] = {}
        for number, (place, at) in enumerate(kept):
            title = f"{number} of {place}"
            await shelf.keep(title, at, tenant=place[0], identity=place[1])
            titles.setdefault(place, set()).add(title)
        found = (await shelf.near(angle, tenant=asked[0], identity=asked[1], least=0.5)).neighbours
        assert {one.name.tenant for one in found} <= {asked[0]}
        assert {one.question for one in found} <= titles.get(asked, set())
        assert len(found) == min(3, len(titles.get(asked, set())))

    run(server, work)


def test_a_vector_goes_with_its_answer(server: RedisServer) -> None:
    async def work(shelf: Shelf) -> None:
        name = await shelf.keep("gone", 0.0)
        await shelf.answers.delete(name)
        await shelf.keep("evicted", 0.1, quota=Quota(1, 10**8))
        await shelf.keep("stays", 0.2, quota=Quota(1, 10**8))
        assert [one.question for one in (await shelf.near(0.0)).neighbours] == ["stays"]
        with server.client() as client:
            (vectors,) = client.keys("*:v:*")
            assert client.execute_command("VCARD", vectors) == 1
            assert len(client.keys("*:q:*")) == 1
            (totals,) = client.keys("*:totals")
            counted = int(client.hget(totals, "bytes") or 0)
            assert counted > 4 * 384
            await shelf.answers.delete(shelf.name("stays"))
            assert int(client.hget(totals, "bytes") or 0) == 0

    run(server, work)


def test_what_was_written_by_another_is_not_read(server: RedisServer) -> None:
    async def work(shelf: Shelf) -> None:
        await shelf.keep("honest", 0.0)
        with server.client() as client:
            (question,) = client.keys("*:q:*")
            client.set(question, b"\x01" + bytes(16) + b"forged", keepttl=True)
        assert (await shelf.near(0.0)).neighbours == ()

    run(server, work)


def test_a_report_evicts_and_raises_the_threshold_around(server: RedisServer) -> None:
    async def work(shelf: Shelf) -> None:
        name = await shelf.keep("wrong", 0.0)
        await shelf.keep("beside", 0.1)
        await shelf.keep("elsewhere", 2.0)
        await shelf.index.served(Served("r1", name, SET, 0.96), LEARNING)
        assert not await shelf.index.wrong("team:blue", "r1", LEARNING)
        assert await shelf.index.wrong("team:red", "r1", LEARNING)
        assert not await shelf.index.wrong("team:red", "r1", LEARNING)  # once only
        around = await shelf.near(0.05)
        assert [one.question for one in around.neighbours] == ["beside"]
        assert around.threshold == pytest.approx(0.96 + 0.02 * 0.9)
        assert (await shelf.near(2.0)).threshold == 0

    run(server, work)


@pytest.mark.parametrize(("wrong_share", "least_served"), [(0.05, 500), (0.3, 1), (0.8, 1)])
def test_no_more_answers_are_wrong_than_the_target_allows(
    server: RedisServer, wrong_share: float, least_served: int
) -> None:
    """Around one question answers are wrong more often the farther they are; each wrong one is reported. Where too many
    are, none is served any more until the reports are forgotten."""
    rounds, base = 1200, 0.9
    chance = random.Random(4)

    async def work(shelf: Shelf) -> None:
        served = wrong = 0
        for number in range(rounds):
            name = shelf.name("the question")
            if not (await shelf.near(0.0)).neighbours:
                name = await shelf.keep("the question", 0.0)
            similarity = chance.uniform(base, 1.0)
            found = await shelf.near(float(np.arccos(2 * similarity - 1)), least=base)
            if not found.neighbours or similarity < max(base, found.threshold):
                continue
            served += 1
            await shelf.index.served(Served(f"r{number}", name, SET, similarity, found.lessons), LEARNING)
            if chance.random() < wrong_share * (1 - similarity) / (1 - base):
                wrong += 1
                assert await shelf.index.wrong("team:red", f"r{number}", LEARNING)
        # The bound of adaptive conformal inference: what a threshold can move, in steps, beside the target.
        allowance = (1 - base + LEARNING.step) / LEARNING.step
        assert wrong <= LEARNING.target_error_rate * served + allowance
        assert served >= least_served

    run(server, work)


def test_who_reports_wrong_answers_is_given_no_more_of_them_than_the_target(server: RedisServer) -> None:
    """On held-out questions, paraphrases and near misses, by similarity alone, which is wrong there mostly."""
    chosen = [pair for pair in pairs(UNSEEN) if pair.group < 8]
    vectors = embeddings(chosen)
    learning, least = Learning(target_error_rate=0.01, step=0.02, radius=0.9, remembered_s=60.0), 0.9

    async def asked(learning: Learning | None) -> tuple[Reporters, list[int]]:
        server.flush()
        shelf = Shelf(server)
        reporters = Reporters(shelf.answers, chosen, vectors, least, learning)
        wrong = []
        for _ in range(2):
            await reporters.ask(400)
            wrong.append(sum(one.wrong for one in reporters.outcomes.values()))
        await shelf.answers.close()
        return reporters, wrong

    _, unreported = asyncio.run(asked(None))
    assert unreported[1] - unreported[0] > 50
    reporters, wrong = asyncio.run(asked(learning))
    # The bound of adaptive conformal inference, around each question: what a threshold can move, in steps.
    allowance = (1 - least + learning.step) / learning.step
    for one in reporters.outcomes.values():
        assert one.wrong <= learning.target_error_rate * one.served + allowance
    assert wrong[1] - wrong[0] <= 2
