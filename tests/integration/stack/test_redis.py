"""The Redis that tests and the local stack get is really new enough."""

import socket

from tests.helpers.redis import RedisServer


def test_vector_sets_work(own_redis: RedisServer) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(own_redis.socket))
        connection.sendall(b"VADD vectors VALUES 3 1 2 3 a\r\n")
        assert connection.recv(100) == b":1\r\n"
        connection.sendall(b"VSIM vectors VALUES 3 1 2 3\r\n")
        assert connection.recv(100) == b"*1\r\n$1\r\na\r\n"


def test_data_outlives_the_server(own_redis: RedisServer) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(own_redis.socket))
        connection.sendall(b"SET k v\r\n")
        assert connection.recv(100) == b"+OK\r\n"
    own_redis.stop()
    own_redis.start()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(own_redis.socket))
        connection.sendall(b"GET k\r\n")
        assert connection.recv(100) == b"$1\r\nv\r\n"
