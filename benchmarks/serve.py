"""`oodream serve` under load, on this machine's loopback: 1, 8 and 64 clients, and 8 beside a hostile one.

A resnet18 at 32 pixels (random weights: only its speed matters) answers a photograph of 640 x 427 pixels
(JPEG, 95 kB) for each request; a client sends its next when it has its answer. Clients, hostile ones and the
server share the processors. Every load lasts a few seconds, so the whole takes about two minutes.

python benchmarks/serve.py
"""

from __future__ import annotations

import asyncio
import base64
import io
import multiprocessing
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import cycle, repeat
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from _bench import Row, Setting, alone

if TYPE_CHECKING:
    from oodream import Guard

__all__ = ["LINES", "busy", "load", "request", "server"]

SECONDS = 8.0
CLIENTS = (1, 8, 64)


def photograph() -> bytes:
    """A JPEG file."""
    from PIL import Image
    from sklearn.datasets import load_sample_image

    file = io.BytesIO()
    Image.fromarray(load_sample_image("china.jpg")).save(file, "JPEG", quality=90)
    return file.getvalue()


def guard_alone(guard: Guard, n: int) -> tuple[float, float]:
    """How many answers a second the guard gives without a server, and the processor's seconds for each."""
    pictures = [photograph()] * n
    began, worked = time.perf_counter(), time.process_time()
    guard.predict(pictures)
    return n / (time.perf_counter() - began), (time.process_time() - worked) / n


@contextmanager
def server(guard: Path) -> Iterator[tuple[int, int]]:
    """A server's port and process."""
    command = [sys.executable, "-m", "oodream", "serve", str(guard), "--port", "0", "--linger", "0"]
    command += ["--threads", "1"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        process.stdout.readline()
        yield int(process.stdout.readline().split("/predict")[0].rpartition(":")[2]), process.pid
    finally:
        process.terminate()
        process.wait()


def metric(port: int, name: str) -> float:
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", "/metrics")
        lines = connection.getresponse().read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


# Clients


def request(body: bytes, kind: str) -> bytes:
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}"
    return f"{head}\r\n\r\n".encode() + body


async def answer(reader: asyncio.StreamReader) -> str:
    """The status of the next answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    _, _, length = head.lower().partition(b"content-length:")
    await reader.readexactly(int(length.split(b"\r\n")[0] or 0))
    return head[9:12].decode()


async def client(
    port: int, requests: Iterator[bytes], ends: float, seconds: list[float], statuses: Counter[str]
) -> None:
    """Asks one question after the other on one connection, which it opens again where it is closed."""
    writer = None
    for sent in requests:
        if (began := time.monotonic()) > ends:
            break
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            await writer.drain()
            status = await answer(reader)
        except (OSError, EOFError):
            status, writer = "closed", None
        statuses[status] += 1
        seconds.append(time.monotonic() - began)
    if writer is not None:
        writer.close()


async def peak(process: int) -> int:
    """The most memory that the server has, until this is cancelled."""
    most, seen = 0, psutil.Process(process)
    with suppress(asyncio.CancelledError):
        while True:
            most = max(most, seen.memory_info().rss)
            await asyncio.sleep(0.05)
    return most


def busy(process: int) -> float:
    """Seconds that a process has worked, with those that it has started."""
    every = [one := psutil.Process(process), *one.children(recursive=True)]
    return sum(times.user + times.system for times in (one.cpu_times() for one in every))


@dataclass(frozen=True, kw_only=True)
class Load:
    """What clients have seen: answers a second, the seconds that each took, ascending, all but status 200;
    and what the server has done for them: seconds of the processor for an answer, pictures in a pass, bytes.
    """

    clients: int
    rate: float
    seconds: Sequence[float]
    refused: Mapping[str, int]
    worked: float
    pictures: float
    memory: int

    def row(self, what: str, reference: str, its: float) -> Row:
        """As a line of the table, beside another rate."""
        times = [1000 * self.seconds[int(share * (len(self.seconds) - 1))] for share in (0.5, 0.95, 0.99, 1)]
        refused = ", ".join(f"{k}: {n}" for k, n in self.refused.items()) or "none"
        return Row(
            what=what, value=self.rate, unit="answers a second", reference=reference, ratio=self.rate / its,
            more="median {:.0f} ms, 95 % {:.0f}, 99 % {:.0f}, worst {:.0f}".format(*times)
            + f"; processor {1000 * self.worked:.1f} ms each; {self.pictures:.1f} pictures in a pass; "
            f"{self.memory / 1e6:.0f} MB; not 200: {refused}",
        )  # fmt: skip


async def load(
    port: int, process: int, clients: int, requests: Iterable[bytes], lasts: float = SECONDS
) -> Load:
    """So many clients that share these requests, as long as there are any and the time lasts."""
    memory, worked = asyncio.create_task(peak(process)), busy(process)
    seconds: list[float] = []
    statuses: Counter[str] = Counter()
    turns, began = iter(requests), time.monotonic()
    passes, pictures = metric(port, "oodream_pass_pictures_count"), metric(port, "oodream_pass_pictures_sum")
    await asyncio.gather(*(client(port, turns, began + lasts, seconds, statuses) for _ in range(clients)))
    took = time.monotonic() - began
    passes = metric(port, "oodream_pass_pictures_count") - passes
    pictures = metric(port, "oodream_pass_pictures_sum") - pictures
    memory.cancel()
    answered = statuses.pop("200", 0)
    return Load(
        clients=clients, rate=answered / took, seconds=sorted(seconds), refused=statuses,
        worked=(busy(process) - worked) / max(1, answered), pictures=pictures / passes, memory=await memory,
    )  # fmt: skip


# Hostile clients: each function sends on one connection until the server closes it, or the time is over


def png(side: int) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (side, side)).save(file, "PNG")
    return file.getvalue()


def form(contents: list[bytes]) -> bytes:
    part = b'--b\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\n'
    return b"".join([*(part + content + b"\r\n" for content in contents), b"--b--\r\n"])


def scans(n: int) -> bytes:
    """A progressive JPEG of 25 million pixels whose last scan is repeated."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (5000, 5000)).save(file, "JPEG", progressive=True)
    content = file.getvalue()
    return content[:-2] + content[content.rfind(b"\xff\xda") : -2] * n + content[-2:]


def bombs() -> list[bytes]:
    """Small requests that take long: 16 pictures of 25 million pixels, and a JPEG of 20 scans."""
    several = request(form([png(5000)] * 16), "multipart/form-data; boundary=b")
    return [several, request(scans(10), "image/jpeg")]


def huge() -> list[bytes]:
    """Bodies as large as they may be, that are no pictures, and one that is larger."""
    false_boundaries = request(b"\r\n--b" * 6_000_000, "multipart/form-data; boundary=b")
    numbers = request(b'{"images": [' + b"0," * 15_000_000 + b"0]}", "application/json")
    text = request(b'{"images": ["' + base64.b64encode(bytes(20_000_000)) + b'"]}', "application/json")
    return [
        request(bytes(32_000_000), "image/png"),
        false_boundaries,
        numbers,
        text,
        request(bytes(64_000_000), "a"),
    ]


def slow() -> list[bytes]:
    """Requests that never end."""
    return [b"POST /predict HTTP/1.1\r\nHost: a\r\nX: ", request(bytes(30_000_000), "image/png")[:1000]]


def garbage() -> list[bytes]:
    """What is no request, and bodies that are not what they say."""
    chunks = (
        b"POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 200_000
    )
    nested = request(b"[" * 1_000_000, "application/json")
    return [os.urandom(100_000), chunks, nested, request(os.urandom(100_000), "image/png")]


def greedy() -> list[bytes]:
    """Whole batches, one after the other."""
    return [request(form([photograph()] * 64), "multipart/form-data; boundary=b")]


HOSTILE: dict[str, tuple[Callable[[], list[bytes]], int]] = {
    "huge bodies": (huge, 8),
    "bombs": (bombs, 8),
    "slow, 400 connections": (slow, 400),
    "garbage": (garbage, 8),
    "batches of 64": (greedy, 8),
}


async def attack(port: int, sent: list[bytes], connections: int, trickles: bool) -> None:
    async def one(content: bytes) -> None:
        while True:
            with suppress(OSError, EOFError, asyncio.LimitOverrunError):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    writer.write(content)
                    while trickles:
                        writer.write(b"x")
                        await writer.drain()
                        await asyncio.sleep(1)
                    while True:
                        await writer.drain()
                        await answer(reader)
                        writer.write(content)
                finally:
                    writer.close()
            await asyncio.sleep(2 if trickles else 0.25)

    with suppress(asyncio.TimeoutError):
        tasks = asyncio.gather(
            *(one(content) for content, _ in zip(cycle(sent), range(connections), strict=False))
        )
        await asyncio.wait_for(tasks, SECONDS + 60)


def hostile(name: str, port: int, ready: multiprocessing.synchronize.Event) -> None:
    make, connections = HOSTILE[name]
    sent = make()
    ready.set()
    asyncio.run(attack(port, sent, connections, make is slow))


def serving(setting: Setting) -> Iterator[Row]:
    from _guards import new_guard  # not in the processes of hostile clients

    sent = repeat(request(photograph(), "image/jpeg"))
    lasts = setting.pick(SECONDS, SECONDS, 0.5)
    guard, _ = new_guard("resnet18")
    guard.save(setting.room / "guard")
    alone_rate, worked = guard_alone(guard, setting.pick(200, 200, 4))
    yield Row(
        what="`guard.predict`, no server", value=alone_rate, unit="answers a second",
        more=f"processor {1000 * worked:.1f} ms each",
    )  # fmt: skip
    with server(setting.room / "guard") as (port, process):
        asyncio.run(load(port, process, 8, sent, lasts))  # warm
        quiet = {clients: asyncio.run(load(port, process, clients, sent, lasts)) for clients in CLIENTS}
        for clients, one in quiet.items():
            yield one.row(
                f"`oodream serve`, {clients} client{'s' * (clients > 1)}", "`guard.predict`", alone_rate
            )
        spawn = multiprocessing.get_context("spawn")
        for name in setting.pick(HOSTILE, HOSTILE, ["garbage"]):
            ready = spawn.Event()
            beside = spawn.Process(target=hostile, args=(name, port, ready))
            beside.start()
            ready.wait()
            time.sleep(1)
            one = asyncio.run(load(port, process, 8, sent, lasts))
            beside.terminate()
            beside.join()
            time.sleep(1)
            yield one.row(
                f"`oodream serve`, 8 clients beside a hostile one: {name}", "8 clients alone", quiet[8].rate
            )


LINES = {"serving": serving}

if __name__ == "__main__":
    alone(LINES)
