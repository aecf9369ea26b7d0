"""A bucket to test with: in this process's memory, and on a server of S3's kind, where its packages are
installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

import fsspec
import pytest

KINDS = ["memory", "s3"]


@contextmanager
def bucket(kind: str, patch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of a new bucket."""
    name = f"b{uuid4().hex[:12]}"
    if kind == "memory":
        yield f"memory://{name}"
        return
    if not (find_spec("moto") and find_spec("s3fs")):
        pytest.skip("needs moto and s3fs")
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        endpoint = f"http://127.0.0.1:{server.get_host_and_port()[1]}"
        credentials = {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
        }
        for key, value in {"AWS_ENDPOINT_URL": endpoint, **credentials}.items():
            patch.setenv(key, value)
        forget()
        fsspec.filesystem("s3").mkdir(name)
        yield f"s3://{name}"
    finally:
        server.stop()
        forget()


def forget() -> None:
    """The next file system reads the environment anew."""
    if find_spec("s3fs"):
        from s3fs import S3FileSystem

        S3FileSystem.clear_instance_cache()


def put(folder: Path, url: str) -> None:
    """Copies a folder into a bucket."""
    fs, root = fsspec.core.url_to_fs(url)
    for file in folder.rglob("*"):
        if file.is_file():
            fs.pipe_file(f"{root}/{file.relative_to(folder).as_posix()}", file.read_bytes())


def write(folder: Path, **files: str) -> None:
    """Files by name, where a double underscore is a slash and a single one a dot."""
    for key, text in files.items():
        file = folder / key.replace("__", "/").replace("_", ".")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def objects(url: str) -> dict[str, bytes]:
    """All that is at a URL."""
    fs, root = fsspec.core.url_to_fs(url, **({"use_listings_cache": False} if url.startswith("s3:") else {}))
    return {path.removeprefix(f"{root}/"): fs.cat_file(path) for path in fs.find(root)}
