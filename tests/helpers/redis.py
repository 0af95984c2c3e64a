"""A real Redis for tests: its own socket and data, and the ways in which it can fail."""

import pathlib
import threading

import redis as redis_library

from extproc.stack import redis
from extproc.stack.guardian import Guardian
from extproc.stack.process import Process

_START_TIMEOUT_S = 10.0
_STOP_GRACE_S = 5.0


class RedisServer:
    """Started by its constructor. Keeps its data over `stop` and `start`."""

    def __init__(self, directory: pathlib.Path, *options: str) -> None:
        self.socket = directory / "redis.sock"
        self.url = f"unix://{self.socket}"
        self._guardian = Guardian()
        command = (*redis.ensure_server(), *redis.server_arguments(self.socket, directory), *options)
        self._process = Process("redis", command, {}, directory / "redis.log", self._guardian)
        self.start()

    def start(self) -> None:
        self._process.start()
        self._process.wait_ready(lambda: redis.is_ready(self.socket), _START_TIMEOUT_S, threading.Event())

    def stop(self) -> None:
        self._process.stop(_STOP_GRACE_S)

    def pause(self) -> None:
        """Hang: connections stay open, nothing is answered."""
        self._process.pause()

    def resume(self) -> None:
        self._process.resume()

    def client(self) -> redis_library.Redis:
        """A connection of the test's own; close it."""
        return redis_library.Redis.from_url(self.url)

    def flush(self) -> None:
        """Forget everything."""
        with self.client() as client:
            client.flushall()

    def close(self) -> None:
        self.stop()
        self._guardian.close()
