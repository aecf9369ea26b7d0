"""Image files, guards without a network, and a server of its own process, for tests of the server."""

from __future__ import annotations

import http.client
import io
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from PIL import Image

from oodream.models.classifier import Prediction
from tests.helpers.guarded import clothes

BOUNDARY = "boundary"


def garment(i: int) -> Image.Image:
    """A test image of the guard's data, enlarged."""
    pixels = clothes()[1].batch([i])[0].permute(1, 2, 0).numpy()
    return Image.fromarray(pixels).resize((40, 30), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def form(*files: tuple[str, bytes]) -> bytes:
    """A form's body with these files, by name."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="{name}"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, content in files
    ]
    return b"".join([*parts, f"--{BOUNDARY}--\r\n".encode()])


FORM = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


@dataclass
class Brightness:
    """A guard that is no network: the score is a picture's mean. It notes how many pictures each pass has."""

    threshold: float = 100.0
    passes: list[tuple[float, int]] = field(default_factory=list)
    added: list[float] = field(default_factory=list)
    size: int = 4
    white: float = 0.0

    @property
    def guarantee(self) -> str:
        return f"flags above {self.threshold:g}"

    def predict(self, pictures: np.ndarray | list) -> list[Prediction]:
        self.passes.append((self.threshold, len(pictures)))
        return [self._prediction(float(np.mean(picture))) for picture in pictures]

    def predict_set(self, pictures: np.ndarray | list, alpha: float) -> list[Prediction]:
        raise ValueError("This guard makes no sets.")

    def at(self, alpha: float) -> Brightness:
        if alpha < 0.01:
            raise ValueError("These can guarantee 0.01.")
        return Brightness(255 * (1 - alpha), self.passes, self.added)

    def drift(self) -> SimpleNamespace:
        latest = SimpleNamespace(share=0.25)
        return SimpleNamespace(add=self.added.extend, latest=latest, evidence=1.5)

    def _prediction(self, score: float) -> Prediction:
        flagged = score > self.threshold
        answer = "unknown" if flagged else "dark"
        return Prediction(
            answer=answer, flagged=flagged, score=score, threshold=self.threshold, likeliest="dark"
        )


def gray(value: int) -> bytes:
    """A picture whose mean is `value`."""
    return encoded(Image.new("L", (4, 4), value))


@contextmanager
def server(
    guard: Path | str, *options: str, program: Sequence[str] = (sys.executable, "-m", "oodream")
) -> Iterator[SimpleNamespace]:
    """`oodream serve` in a process of its own, with its `port` and its `process`; it is ended afterwards."""
    command = [*program, "serve", str(guard), "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        lines = [process.stdout.readline(), process.stdout.readline()]
        assert "/predict" in lines[1], process.communicate()[1]
        port = int(lines[1].split("/predict")[0].rpartition(":")[2])
        yield SimpleNamespace(process=process, port=port, said=lines[0])
    finally:
        process.kill()
        process.communicate()


def ask(
    port: int,
    path: str,
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
    seconds: float = 20,
) -> tuple[int, bytes]:
    """Status and content of an answer, on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    try:
        connection.request("GET" if body is None else "POST", path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def values(text: str) -> dict[str, float]:
    """The values of Prometheus' text, by name with labels."""
    lines: Sequence[str] = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}
