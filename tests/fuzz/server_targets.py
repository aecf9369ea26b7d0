"""Targets: requests to the server of a guard and to the studio. An answer may refuse; a fault is status 500,
an error that no handler took, and an answer that is no UTF-8.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio

from oodream.deploy.serving.app import create_app
from oodream.deploy.serving.limits import Limits
from oodream.studio.app import create_app as create_studio
from oodream.studio.studio import Studio
from tests.helpers.serving import FORM, Brightness, form, gray
from tests.helpers.studio import imagined_run

from .mutate import mutate_either, prefixed
from .target import Read, target

__all__ = ["ask"]

Prepared = tuple[Sequence[bytes], Read]
HOST = (b"host", b"127.0.0.1:8700")
TYPES = {"f": FORM["Content-Type"].encode(), "j": b"application/json", "i": b"image/png"}


async def ask(app: Any, method: str, path: str, query: str, body: bytes, kind: bytes) -> int:
    """The status of an application's answer to a request, whose text must be UTF-8."""
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": quote(path, errors="replace").encode(),
        "query_string": quote(query, safe="=&%", errors="replace").encode(), "root_path": "",
        "headers": [HOST, (b"content-type", kind), (b"content-length", str(len(body)).encode())],
        "client": ("127.0.0.1", 4), "server": ("127.0.0.1", 8700), "state": {},
    }  # fmt: skip
    messages, answer = [{"type": "http.request", "body": body, "more_body": False}], []

    async def receive() -> Any:
        return messages.pop() if messages else await anyio.sleep_forever()

    async def send(message: Any) -> None:
        answer.append(message)

    await app(scope, receive, send)
    start = next(message for message in answer if message["type"] == "http.response.start")
    content = b"".join(message.get("body", b"") for message in answer)
    headers = dict(start["headers"])
    if not headers.get(b"content-type", b"").startswith(b"image/"):
        text = content.decode()
        assert "<script>alert" not in text or headers[b"content-type"] == b"application/json", text[:200]
    assert start["status"] < 500 or start["status"] == 503, content[:200]
    return int(start["status"])


@target("bodies", prefixed(mutate_either))
def _bodies(folder: Path) -> Prepared:
    """Bodies of /predict; the first letter says of which type."""
    limits = Limits(max_megapixels=0.1, max_pictures=8, max_megabytes=2, batch_delay=0.0)
    app, loop = create_app(Brightness(), limits), asyncio.new_event_loop()
    serving = loop.create_task(app.state.service.batcher.run())

    def read(data: bytes) -> object:
        kind = TYPES.get(chr(data[0]) if data else "j", TYPES["j"])
        status = loop.run_until_complete(ask(app, "POST", "/predict", "", data[1:], kind))
        assert not serving.done(), "the network's thread lives on"
        return status

    texts = [base64.b64encode(gray(200)).decode()]
    return [
        b"f" + form(("a.png", gray(50)), ("<script>.png", gray(200))),
        b"j" + json.dumps({"images": texts}).encode(),
        b"i" + gray(9),
    ], read


ASKED = (
    ("POST", "/api/outliers/run/curation", {"rows": [0, 1], "action": "reject", "of": "OF", "since": 0}),
    ("POST", "/api/outliers/run/undo", {"since": 0}),
    ("POST", "/api/imagine/run/draw", {"recipes": [{"ends": [{"kind": "word", "text": "cat"}], "seed": 1}]}),
    ("POST", "/api/imagine/run/remove", {"numbers": [1]}),
    ("POST", "/api/imagine/run/stop", {"numbers": [1]}),
    ("POST", "/api/run", {"name": "../x", "preset": "no", "data": "/nowhere", "seeds": 1}),
    ("POST", "/api/run/run/stop", {"force": False}),
    ("POST", "/api/try/run/save", {"alpha": 0.1}),
    ("GET", "/api/outliers/run/rows/1", {"since": 1, "of": "x"}),
    ("GET", "/api/imagine/run/words", {"starts": "a"}),
    ("GET", "/api/compare/results", {"name": "run"}),
    ("GET", "/api/tasks/1", {}),
    ("GET", "/compare", {"run": "run", "with": "<script>alert(1)</script>"}),
    ("POST", "/enter", {"word": "x"}),
)  # fmt: skip
"""requests of the studio: method, path, and what the body or the query holds"""


@target("requests", prefixed(mutate_either))
def _requests(folder: Path) -> Prepared:
    """Requests to the studio: the first byte says to what, the first line is the path, the rest the body."""
    run = imagined_run(folder / "run", 4)
    studio = Studio([run], root=folder / "root", device="cpu", starts_runs=False)
    app, loop = create_studio(studio), asyncio.new_event_loop()

    def read(data: bytes) -> object:
        method = ASKED[(data[0] if data else 0) % len(ASKED)][0]
        path, _, rest = data[1:].partition(b"\n")
        query = rest.decode("utf-8", "replace") if method == "GET" else ""
        kind = b"application/x-www-form-urlencoded" if path == b"/enter" else b"application/json"
        place = "/" + path.decode("utf-8", "replace").lstrip("/")
        body = b"" if method == "GET" else rest
        status = loop.run_until_complete(ask(app, method, place, query, body, kind))
        (run / "curation.jsonl").unlink(missing_ok=True)
        return status

    seeds = []
    for i, (method, path, values) in enumerate(ASKED):
        form_like = "&".join(f"{key}={value}" for key, value in values.items())
        text = form_like if method == "GET" or path == "/enter" else json.dumps(values)
        seeds.append(bytes([i]) + f"{path}\n{text}".encode())
    return seeds, read
