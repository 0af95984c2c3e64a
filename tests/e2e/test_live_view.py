"""The live view as a person sees it: a real Chromium, the real service, requests through a real Envoy."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.helpers.administered import administered
from tests.helpers.browser import Page, browsing
from tests.helpers.limited import Limited, ask
from tests.helpers.redis import RedisServer

TOKEN = "a-token-of-enough-letters"
SECRET_WORDS = "the walrus sings at midnight"
POLICY = """
budgets: {team-money: {amount: "2", per: day, scope: team}}
keys: {bob: {requests_per_minute: 1}}
"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Limited]:
    running = Limited(tmp_path_factory.mktemp("gateway"), {"alice": "pro", "bob": "free"}, POLICY)
    yield running
    running.close()


@pytest.fixture
async def page(tmp_path: pathlib.Path) -> AsyncIterator[Page]:
    async with browsing(tmp_path) as tab:
        yield tab


async def test_what_happens_is_seen_and_never_what_was_said(gateway: Limited, page: Page) -> None:
    await page.show(1440, 900)
    await page.open(f"http://localhost:{gateway.gateway.ports.service_admin}/")
    await page.until("document.querySelector('#decisions .empty') !== null")
    assert await page.value("document.querySelector('#status').textContent") == "Ready"
    async with gateway.client() as client:
        answers = [await ask(client, "alice", f"[[tokens=20]] {SECRET_WORDS} {n}") for n in range(5)]
        answers += [await ask(client, "bob", SECRET_WORDS) for _ in range(2)]
    assert [answer.status for answer in answers] == [200] * 6 + [429]
    await page.until("document.querySelectorAll('#decisions tbody tr').length === 7")
    rows = await page.value("[...document.querySelectorAll('#decisions tbody tr')].map((row) => row.innerText)")
    assert sum("completed" in row for row in rows) == 6
    (refused,) = [row for row in rows if "429" in row]
    assert "bob" in refused
    assert "rate limit exceeded" in refused
    await page.until("document.querySelector('#verdicts tbody tr') !== null")
    await page.until("document.querySelector('#first-token .histogram') !== null")
    await page.until("document.querySelector('#spend tbody').innerText.includes('EUR')")
    assert SECRET_WORDS not in await page.value("document.documentElement.outerHTML")
    assert page.complaints == []


async def test_it_says_that_its_numbers_are_old(tmp_path: pathlib.Path, own_redis: RedisServer, page: Page) -> None:
    (tmp_path / "service").mkdir()
    with administered(tmp_path / "service", own_redis.url) as running:
        await page.open(running.url)
        await page.until("document.querySelector('#status').textContent === 'Ready'")
        running.process.pause()
        await page.until("document.body.hasAttribute('data-stale')")
        assert await page.value("document.querySelector('#status').textContent") == "Not answering"
        running.process.resume()
        await page.until("document.querySelector('#status').textContent === 'Ready'")
        assert not await page.value("document.body.hasAttribute('data-stale')")


async def test_a_token_is_asked_for_by_keyboard_and_kept_in_the_tab_alone(
    tmp_path: pathlib.Path, own_redis: RedisServer, page: Page
) -> None:
    (tmp_path / "service").mkdir()
    with administered(tmp_path / "service", own_redis.url, f"admin_token: {TOKEN} #anywhere") as running:
        await page.open(running.url)
        await page.until("document.activeElement.id === 'token'")
        await page.type("wrong-" + TOKEN)
        await page.press("Enter")
        await page.until("document.querySelector('#sign-in-error').textContent !== ''")
        assert await page.value("document.querySelector('#view').hidden")
        await page.value("document.querySelector('#token').focus()")
        await page.type(TOKEN)
        await page.press("Enter")
        await page.until("!document.querySelector('#view').hidden")
        assert await page.value("document.cookie + JSON.stringify(localStorage)") == '{"extproc-theme":"system"}'


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
async def test_it_can_be_read(gateway: Limited, page: Page, scheme: str, width: int) -> None:
    """Every text has the contrast that WCAG 2.2 asks for (AA, 4.5:1), and nothing is wider than the window."""
    await page.show(width, 900, scheme)
    await page.open(f"http://localhost:{gateway.gateway.ports.service_admin}/")
    await page.until("document.querySelector('#pools tbody tr') !== null")
    assert await page.value(_WEAK_TEXTS) == []
    assert await page.value("document.documentElement.scrollWidth <= innerWidth")


_WEAK_TEXTS = """
(() => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 1, height: 1 });
  const brush = canvas.getContext("2d", { willReadFrequently: true });
  const light = (colour) => {
    brush.clearRect(0, 0, 1, 1);
    brush.fillStyle = colour;
    brush.fillRect(0, 0, 1, 1);
    const linear = [...brush.getImageData(0, 0, 1, 1).data].slice(0, 3).map((value) => value / 255)
      .map((value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4));
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const ground = (node) => {
    const own = getComputedStyle(node).backgroundColor;
    return own === "rgba(0, 0, 0, 0)" && node.parentElement ? ground(node.parentElement) : own;
  };
  return [...document.querySelectorAll("body *")]
    .filter((node) => node.getClientRects().length
      && [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()))
    .filter((node) => {
      const style = getComputedStyle(node);
      const ink = node.tagName === "text" ? style.fill : style.color;
      const pair = [light(ink), light(ground(node))].sort((a, b) => b - a);
      return (pair[0] + 0.05) / (pair[1] + 0.05) < 4.5;
    })
    .map((node) => node.tagName + ": " + node.textContent.slice(0, 40));
})()
"""
