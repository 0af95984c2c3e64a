"""A real, headless Chromium, driven over its own DevTools protocol: pages as a person sees them.

It is told to ask nobody but the pages it is sent to.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import os
import pathlib
import signal
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from tests.helpers.chromium import chromium

_OPTIONS = (
    "--headless",
    "--remote-debugging-port=0",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)
_TIMEOUT_S = 20.0


class Page:
    """One tab. Every method raises RuntimeError for what the browser refuses, TimeoutError for what never comes."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._session = ""
        self.complaints: list[str] = []
        """Errors and warnings on the page's console, and what its Content-Security-Policy refused."""

    async def attach(self) -> None:
        target = await self._call("Target.createTarget", url="about:blank")
        session = await self._call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = session["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self._call(f"{domain}.enable")

    async def show(self, width: int, height: int, scheme: str = "light") -> None:
        """A window of that size, where the system's colours are `light` or `dark`."""
        await self._call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False
        )
        feature = {"name": "prefers-color-scheme", "value": scheme}
        await self._call("Emulation.setEmulatedMedia", features=[feature])

    async def open(self, url: str) -> None:
        await self._call("Page.navigate", url=url)
        await self.until("location.protocol !== 'about:' && document.readyState === 'complete'")

    async def value(self, expression: str) -> Any:
        """What an expression of JavaScript is, awaited."""
        done = await self._call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in done:
            raise RuntimeError(str(done["exceptionDetails"]))
        return done["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until it holds."""
        async with asyncio.timeout(_TIMEOUT_S):
            while not await self.value(expression):  # noqa: ASYNC110 (the page is another process)
                await asyncio.sleep(0.05)

    async def type(self, text: str) -> None:
        """Into what has the focus."""
        await self._call("Input.insertText", text=text)

    async def press(self, key: str) -> None:
        """Tab, Enter."""
        code = {"Tab": 9, "Enter": 13}[key]
        facts: dict[str, Any] = {"key": key, "code": key, "windowsVirtualKeyCode": code}
        text = {"text": "\r"} if key == "Enter" else {}
        await self._call("Input.dispatchKeyEvent", type="keyDown", **facts, **text)
        await self._call("Input.dispatchKeyEvent", type="keyUp", **facts)

    async def picture(self) -> bytes:
        """The whole page as PNG."""
        done = await self._call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        return base64.b64decode(done["data"])

    async def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        await self._socket.send_json(message | ({"sessionId": self._session} if self._session else {}))
        async with asyncio.timeout(_TIMEOUT_S):
            while True:
                said = await self._socket.receive_json()
                if said.get("id") == number:
                    if "error" in said:
                        raise RuntimeError(f"{method}: {said['error']}")
                    result: dict[str, Any] = said["result"]
                    return result
                self._note(said)

    def _note(self, said: dict[str, Any]) -> None:
        parameters = said.get("params", {})
        if said.get("method") == "Log.entryAdded" and parameters["entry"]["level"] in ("error", "warning"):
            self.complaints.append(parameters["entry"]["text"])
        elif said.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(str(parameters["exceptionDetails"]))


@contextlib.asynccontextmanager
async def browsing(directory: pathlib.Path) -> AsyncIterator[Page]:
    """A browser with one tab, and a profile of its own in `directory`."""
    # Without a user namespace for its sandbox, as for root in a container, it would not start.
    sandbox = ("--no-sandbox",) if os.geteuid() == 0 else ()
    profile = directory / "profile"
    browser = chromium()
    process = await asyncio.create_subprocess_exec(
        browser.path,
        *_OPTIONS,
        *sandbox,
        f"--user-data-dir={profile}",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, **browser.environment},
    )
    try:
        address = await _address(profile / "DevToolsActivePort")
        async with aiohttp.ClientSession() as session, session.ws_connect(address, max_msg_size=1 << 26) as socket:
            page = Page(socket)
            await page.attach()
            yield page
    finally:
        # Killed, all of it: it does not reliably end when it is asked to, and has nothing to save.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def _address(file: pathlib.Path) -> str:
    """It writes its port, and the path of its own endpoint, into its profile."""
    async with asyncio.timeout(_TIMEOUT_S):
        while True:
            with contextlib.suppress(FileNotFoundError, ValueError):
                port, path = file.read_text().split()  # noqa: ASYNC240 (a few bytes)
                return f"ws://127.0.0.1:{port}{path}"
            await asyncio.sleep(0.05)
