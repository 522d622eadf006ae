"""A small Google Cloud Storage for a test: one bucket in memory, by the requests of pyarrow (JSON) and obstore (XML).

It refuses to make a file of generation 0 where there is one, and what a role of objects alone has no right to: all
that is asked of buckets themselves.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

BUCKET = "raymc-fake"


class FakeGcs(ThreadingHTTPServer):
    """`objects`: generation and content by name; `requests`: method and path of each."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, tuple[int, bytes]] = {}
        self.requests: list[str] = []
        self.lock, self.generation = threading.Lock(), 1700000000000000

    def put(self, name: str, content: bytes, expected: str | None) -> int | None:
        """The new generation; None where the file's is not the one that is expected."""
        with self.lock:
            if expected is not None and int(expected) != self.objects.get(name, (0, b""))[0]:
                return None
            self.generation += 1
            self.objects[name] = (self.generation, content)
            return self.generation

    def env(self, folder: Path) -> dict[str, str]:
        """What its clients need."""
        place = f"http://127.0.0.1:{self.server_address[1]}"
        account = {"gcs_base_url": place, "disable_oauth": True, "client_email": "", "private_key": ""}
        (folder / "account.json").write_text(json.dumps(account | {"private_key_id": ""}))
        return {"CLOUD_STORAGE_EMULATOR_ENDPOINT": place, "GOOGLE_SERVICE_ACCOUNT": str(folder / "account.json")}


class Handler(BaseHTTPRequestHandler):
    server: FakeGcs
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        url, length = urlsplit(self.path), int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length) if length else b""
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        if found := re.fullmatch(rf"(?:/(?:upload/|download/)?storage/v1)/b/{BUCKET}/o(?:/(.*))?", url.path):
            self._json(unquote(found[1] or ""), query, body)
        elif (found := re.fullmatch(rf"/{BUCKET}/(.*)", unquote(url.path))) and self.command == "PUT":
            made = self.server.put(found[1], body, self.headers.get("x-goog-if-generation-match"))
            self._answer(200 if made else 412, b"", ETag=f'"{made}"')
        else:
            self._answer(403, b"")

    do_GET = do_PUT = do_POST = do_DELETE = _serve

    def _json(self, name: str, query: dict[str, str], body: bytes) -> None:
        objects = self.server.objects
        if self.command in ("POST", "PUT"):
            self._upload(query.get("name") or query["upload_id"], body)
        elif not name:
            begin = query.get("prefix", "")
            self._row({"items": [self._facts(one) for one in sorted(objects) if one.startswith(begin)]})
        elif name not in objects:
            self._answer(404, b"{}")
        elif self.command == "DELETE":
            del objects[name]
            self._answer(204, b"")
        elif query.get("alt") == "media":
            self._answer(200, objects[name][1])
        else:
            self._row(self._facts(name))

    def _upload(self, name: str, body: bytes) -> None:
        """Begun by a request that says the name, ended by another with the content."""
        if self.command == "POST":
            place = f"http://{self.headers['Host']}/upload/storage/v1/b/{BUCKET}/o?upload_id={quote(name, safe='')}"
            self._answer(200, b"", Location=place)
        else:
            self.server.put(name, body, None)
            self._row(self._facts(name))

    def _facts(self, name: str) -> dict[str, Any]:
        generation, content = self.server.objects[name]
        written = {"timeCreated": "2026-11-29T00:00:00Z", "updated": f"2026-11-29T00:00:00.{generation % 1000000:06d}Z"}
        facts = {"kind": "storage#object", "name": name, "bucket": BUCKET, "size": str(len(content))}
        return facts | {"generation": str(generation), "metageneration": "1"} | written

    def _row(self, row: dict[str, Any]) -> None:
        self._answer(200, json.dumps(row).encode(), **{"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def fake_gcs() -> Iterator[FakeGcs]:
    server = FakeGcs()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
