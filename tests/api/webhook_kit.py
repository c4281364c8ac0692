"""A server of few words, on the other end of a webhook."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable

OK = b"HTTP/1.1 204 No Content\r\n\r\n"


class Listener:
    """A server of few words: `answer(connection)` is all it does, after it has read a request."""

    def __init__(self, answer: Callable[[socket.socket], None], context: ssl.SSLContext | None = None) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self.connections = 0
        self._answer, self._context = answer, context
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.closing = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> Listener:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()

    def _serve(self) -> None:
        while not self.closing.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            try:
                if self._context is not None:
                    connection = self._context.wrap_socket(connection, server_side=True)
                with connection:
                    self.requests.append(read(connection))
                    self._answer(connection)
            except OSError:
                continue


def read(connection: socket.socket) -> tuple[dict[str, str], bytes]:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head, _, content = data.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    headers = {"": lines[0]} | {n.lower(): v for n, _, v in (line.partition(": ") for line in lines[1:])}
    while len(content) < int(headers["content-length"]):
        content += connection.recv(65536)
    return headers, content


def saying(answer: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(answer)
