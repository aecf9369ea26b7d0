"""`oodream studio`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..core.storage import is_url
from .console import looked_at, parse, working_in
from .listening import address, check_host, needs, read_token

__all__ = ["StudioOptions", "studio"]

ROOT = Path("runs")


@dataclass(frozen=True, kw_only=True)
class StudioOptions:
    """A page in the browser: look at a run's outliers and choose among them, imagine others, try pictures,
    compare runs, start some. Ctrl-C ends it.
    """

    runs: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    """run folders, or those of guards, to try pictures on, here or in a bucket (default: all below runs/)"""
    host: str = "127.0.0.1"
    """address to serve on; one that other machines reach takes a token"""
    port: int = 8700
    """port to serve on (0: a free one)"""
    token_file: Path | None = None
    """a file whose only line is the token that is asked for"""
    plugins: bool = False
    """allow extensions that a run names by their modules, whose code then runs"""
    device: str = "auto"
    """cpu, cuda, mps or auto"""


def studio(args: Sequence[str]) -> int:
    """`oodream studio`: 0 when it was told to stop."""
    chosen = parse(StudioOptions, "oodream studio", args)
    token = read_token(chosen.token_file)
    try:
        from ..deploy.serving.server import bind, is_loopback, serve
        from ..studio.app import create_app
    except ModuleNotFoundError as error:
        raise needs(error, "The studio", "studio") from error
    from ..run.folder import read_manifest
    from ..studio.studio import Studio, holds_guard, runs_below

    check_host(chosen.host, token)
    local = is_loopback(chosen.host)  # runs are started for the machine's own people alone
    with ExitStack() as stack:
        folders = [stack.enter_context(_opened(place)) for place in chosen.runs] or runs_below(ROOT)
        for folder in folders if chosen.runs else ():
            if not read_manifest(folder) and not holds_guard(folder):
                from ..run.artifacts import Run

                Run.open(folder)  # says what is wrong with it
        app = create_app(Studio(folders, ROOT, chosen.device, chosen.plugins, local), token)
        listening = stack.enter_context(bind(chosen.host, chosen.port))
        count = f"{len(folders)} run{'' if len(folders) == 1 else 's'}"
        place = address(listening)
        serve(app, listening, lambda: print(f"oodream: studio, {count}\n  {place}/", flush=True))
    print("oodream: stopped", flush=True)
    return 0


@contextmanager
def _opened(place: str) -> Iterator[Path]:
    """A run's or a guard's folder. A run in a bucket is worked in, for what people choose belongs to it; of a
    guard in one there is a copy here.
    """
    from ..run.sync import is_kept

    if is_url(place) and is_kept(place):
        with working_in(place) as folder:
            yield folder
    else:
        yield looked_at(place)
