"""A server of a test as seen over a slow line: each request of one method arrives later than it was sent."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

from tests.server_process import free_port


class SlowProxy:
    """Passes on to a port of the loopback; requests that begin with `method` wait `seconds` before that.

    `requests`: the first line of each request, in order.
    """

    def __init__(self, target: int, method: str, seconds: float) -> None:
        self.target, self.method, self.seconds = target, method.encode(), seconds
        self.port, self.requests = free_port(), list[str]()
        self._listening = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = self._listening.accept()
                there = socket.create_connection(("127.0.0.1", self.target))
                threading.Thread(target=self._pass, args=(here, there, True), daemon=True).start()
                threading.Thread(target=self._pass, args=(there, here, False), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, is_request: bool) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(1 << 16):
                first = content.split(b"\r\n", 1)[0]
                if is_request and first.endswith(b" HTTP/1.1"):
                    self.requests.append(first.decode())
                    if first.startswith(self.method):
                        time.sleep(self.seconds)
                target.sendall(content)
        for each in (source, target):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        source.close()


@contextlib.contextmanager
def slow_proxy(target: int, method: str, seconds: float) -> Iterator[SlowProxy]:
    proxy = SlowProxy(target, method, seconds)
    try:
        yield proxy
    finally:
        proxy.close()
