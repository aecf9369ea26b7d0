"""`oodream serve`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ..deploy.serving.limits import Limits
from .console import parse
from .listening import address, check_host, needs, read_token

__all__ = ["ServeOptions", "serve"]


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """A guard over HTTP: POST /predict with pictures, GET /health, GET /metrics. SIGTERM, or Ctrl-C, ends it;
    what is under way is finished."""

    guard: Annotated[str, tyro.conf.Positional]
    """a run's folder, an exported guard's, or "hub:OWNER/NAME\""""
    host: str = "127.0.0.1"
    """address to serve on; one that other machines reach takes a token"""
    port: int = 8000
    """port to serve on (0: a free one)"""
    token_file: Path | None = None
    """a file whose only line is the token that clients must send"""
    alpha: float | None = None
    """share of known images that may be flagged, in place of the guard's own"""
    plugins: bool = False
    """allow a loss or detector that is named by its module, whose code then runs"""
    device: str = "auto"
    """cpu, cuda, mps or auto"""
    limits: Annotated[Limits, tyro.conf.arg(name="")] = field(default_factory=Limits)


def serve(args: Sequence[str]) -> int:
    """`oodream serve`: 0 when it was told to stop."""
    chosen = parse(ServeOptions, "oodream serve", args)
    token = read_token(chosen.token_file)
    try:
        from ..deploy.serving.app import create_app
        from ..deploy.serving.server import bind
        from ..deploy.serving.server import serve as serve_app
    except ModuleNotFoundError as error:
        raise needs(error, "A server", "serve") from error
    from ..core.device import device_of
    from ..deploy.guard import Guard
    from ..run.folder import RunDir, read_manifest

    check_host(chosen.host, token)
    folder = Path(chosen.guard)
    if read_manifest(folder):
        RunDir(folder).check_whole("guard")
    guard = Guard.load(chosen.guard, device_of(chosen.device), chosen.plugins)
    if chosen.alpha is not None:
        guard = guard.at(chosen.alpha)
    app = create_app(guard, chosen.limits, token)
    app.state.service.try_out()
    with bind(chosen.host, chosen.port) as listening:
        place = address(listening)
        serve_app(
            app,
            listening,
            lambda: print(f"oodream: {guard.guarantee}\n  {place}/predict, /health, /metrics", flush=True),
        )
    print("oodream: stopped", flush=True)
    return 0
