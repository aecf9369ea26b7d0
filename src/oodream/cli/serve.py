"""`oodream serve`."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from ..core.options import ConfigError, Range, Section
from ..deploy.serving.limits import Limits
from .console import looked_at, parse
from .listening import address, check_host, needs, read_token

if TYPE_CHECKING:
    from ..deploy.guard import Guard
    from ..runtime import Guard as GraphGuard

__all__ = ["ServeOptions", "serve"]


@dataclass(frozen=True, kw_only=True)
class ServeOptions(Section):
    """A guard over HTTP: POST /predict with pictures, GET /health, GET /metrics. SIGTERM, or Ctrl-C, ends it;
    what is under way is finished."""

    guard: Annotated[str, tyro.conf.Positional]
    """a run's folder, or an exported guard's, here or in a bucket, or "hub:OWNER/NAME"; or a graph's file,
    such as guard.onnx, which is served without PyTorch, as a folder's is where PyTorch is not installed"""
    host: str = "127.0.0.1"
    """address to serve on; one that other machines reach takes a token"""
    port: int = 8000
    """port to serve on (0: a free one)"""
    token_file: Path | None = None
    """a file whose only line is the token that clients must send"""
    proxies: tuple[str, ...] = ()
    """addresses of proxies, or networks of them, that say in X-Forwarded-For who a client is"""
    alpha: float | None = None
    """share of known images that may be flagged, in place of the guard's own"""
    plugins: bool = False
    """allow a loss or detector that is named by its module, whose code then runs"""
    device: str = "auto"
    """cpu, cuda, mps or auto; a graph runs on the processor"""
    threads: Annotated[int, Range(0, 4096)] = 0
    """threads that the network takes; 0: as many as there are cores, in PyTorch as OMP_NUM_THREADS says"""
    limits: Annotated[Limits, tyro.conf.arg(name="")] = field(default_factory=Limits)

    def __post_init__(self) -> None:
        super().__post_init__()
        for proxy in self.proxies:
            try:
                ipaddress.ip_network(proxy)
            except ValueError as error:
                raise ConfigError(
                    f"proxies are addresses, or networks such as 10.0.0.0/8: {error}."
                ) from error


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
    from ..deploy.loading import load_graph
    from ..runtime.graph import runs_on_graph

    check_host(chosen.host, token)
    guard: Guard | GraphGuard
    place = str(looked_at(chosen.guard, "guard/", "classifier/"))
    if runs_on_graph(place):
        guard = load_graph(place, chosen.device, chosen.threads)
    else:
        guard = _guard(place, chosen)
    if chosen.alpha is not None:
        guard = guard.at(chosen.alpha)
    app = create_app(guard, chosen.limits, token)
    app.state.service.try_out()
    with bind(chosen.host, chosen.port) as listening:
        url = address(listening)
        serve_app(
            app,
            listening,
            lambda: print(f"oodream: {guard.guarantee}\n  {url}/predict, /health, /metrics", flush=True),
            chosen.proxies,
        )
    print("oodream: stopped", flush=True)
    return 0


def _guard(place: str, chosen: ServeOptions) -> Guard:
    """The guard of a run, a folder or the hub, in PyTorch."""
    from ..core.device import device_of
    from ..core.parallel import use_cores
    from ..deploy.guard import Guard
    from ..run.folder import RunDir, read_manifest

    if chosen.threads:
        use_cores(chosen.threads)
    folder = Path(place)
    if read_manifest(folder):
        RunDir(folder).check_whole("guard")
    return Guard.load(place, device_of(chosen.device), chosen.plugins)
