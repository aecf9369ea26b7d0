"""`oodream decode`: the images of a run that was begun, on as many processes and machines as there are;
mending and redrawing them.

Nothing is exchanged between processes. Each decodes its own rows into the run folder, every file whole or not
at all; `oodream run` finds them there and goes on. On machines of one kind a row's image is the same whoever
decodes it; `verify` tells where it is not. Only the run folder and the decoder are needed, and no data, but
for decoders that look at known images.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..core.device import device_of
from ..core.distributed import Shard
from ..core.errors import StoreError
from ..core.sealed import damaged
from ..core.types import Decoder, Json
from ..synthesis.decode import make_decoder
from .artifacts import Run
from .facts import section_inputs
from .folder import inputs_hash
from .generated import GeneratedFiles
from .job import known_of
from .lacking import imagines_nothing
from .layout import TWINS, imagined_stage
from .plan import drawn_after
from .reading import Lines
from .twins import has_twins, twin_files

__all__ = ["BegunRun", "decode_shard", "open_begun", "open_decoder", "redraw", "verify"]


@dataclass(frozen=True, kw_only=True)
class BegunRun:
    """A run whose vectors have been sampled, with its decoder and the inputs of its images' stage."""

    run: Run
    decoder: Decoder
    inputs: Json

    @property
    def stage(self) -> str:
        """The stage of the images or latents."""
        return imagined_stage(self.run.config.decode.output)

    @property
    def drawn(self) -> list[tuple[str, GeneratedFiles]]:
        """The stages that draw, each with its files: what is imagined, and its twins where it has some."""
        twins = [(TWINS, twin_files(self.run))] if has_twins(self.run) else []
        return [(self.stage, self.run.files), *twins]


def open_begun(path: Path, device: str, output: str = "", plugins: bool = False) -> BegunRun:
    """The run in a folder, as its files describe it.

    `output` may ask for "images" or "latents" other than the run's own; they lie beside those. Raises
    StoreError unless the run's vectors have been sampled, and where it imagines nothing.
    """
    run = Run.open(path, plugins)
    if lacking := imagines_nothing(run):
        raise StoreError(f"{path} has nothing to decode: {lacking}.")
    if run.stamp("vectors") is None:
        raise StoreError(f"{path} has no vectors yet. Sample them with: {run.command} --until vectors")
    if output:
        decode = replace(run.config.decode, output=output)  # type: ignore[arg-type]
        run = Run(path, replace(run.config, decode=decode), run.command, plugins)
    decoder, after = open_decoder(run, device), {}
    for stage in drawn_after(run.config.decode):
        if (stamp := run.stamp(stage)) is None:
            raise StoreError(f"{path} has no {stage} yet. Make it with: {run.command} --until {stage}")
        after[stage] = inputs_hash(stamp["inputs"])
    inputs = {"decode": section_inputs(run.config)["decode"], "after": after}
    return BegunRun(run=run, decoder=decoder, inputs=inputs)


def open_decoder(run: Run, device: str) -> Decoder:
    """The decoder of a run that has its class vectors.

    Raises StoreError where its weights are others than the run was begun with, and what `make_decoder`
    raises.
    """
    config, book = run.config, run.book
    decode = config.decode if config.decode.tile else replace(config.decode, tile=run.tile)
    known = known_of(run)
    decoder = make_decoder(decode, book.names, book.prompts, config.size, device_of(device), known=known)
    if decoder.book.space != book.space:
        raise StoreError(
            f"{config.decode.source} holds other weights than the decoder that {run.folder.path} was begun "
            "with. Restore them, or begin another run."
        )
    return decoder


def decode_shard(begun: BegunRun, part: Shard) -> int:
    """Decodes this part's rows that have no file yet, of what is imagined and of its twins; returns how many.
    Others may work on other parts meanwhile.
    """
    count, folder = 0, begun.run.folder
    for stage, files in begun.drawn:
        if folder.is_done(stage, begun.inputs):
            continue
        folder.begin(stage, begun.inputs)
        rows = files.missing(part, begun.decoder)
        files.decode(begun.decoder, rows)
        count += len(rows)
    return count


def verify(begun: BegunRun, say: Callable[[str], None]) -> int:
    """Decodes missing and damaged files of finished sets again; returns how many rows there were.

    Raises StoreError when one comes out with other bytes than were recorded: another processor or library
    then decodes here.
    """
    run = begun.run
    if not all(run.folder.is_done(stage, begun.inputs) for stage, _ in begun.drawn):
        raise StoreError(
            f"The images of {run.folder.path} are not all decoded yet. Go on with: {run.command}"
        )
    with run.folder.locked():
        return sum(_mended(begun, stage, files, say) for stage, files in begun.drawn)


def _mended(begun: BegunRun, stage: str, files: GeneratedFiles, say: Callable[[str], None]) -> int:
    run = begun.run
    lines = run.provenance if stage == begun.stage else Lines(files.record, stage)
    bad = damaged((files.path(line["row"]), line["hash"]) for line in lines)
    recorded = {line["row"]: line["hash"] for line in lines if files.path(line["row"]) in bad}
    rows = list(recorded)
    mended = {files.path(m): m for m in reversed(rows)}
    for file in sorted(mended):
        say(f"  row {mended[file]}: {file}")
    files.decode(begun.decoder, rows)
    files.forget_notes()
    still = damaged((file, recorded[m]) for file, m in mended.items())
    if differing := [m for m in rows if files.path(m) in still]:
        raise StoreError(
            f"{len(differing)} of {len(rows)} images came out with other bytes than were recorded (row "
            f"{differing[0]} first): another processor or library decodes here. "
            f"To have all from this one: {run.command} --redo {stage}"
        )
    return len(rows)


def redraw(begun: BegunRun, rows: Sequence[int], out: Path) -> list[Path]:
    """Decodes single rows into `out`, whatever the run folder holds."""
    count = len(begun.run.vectors)
    if beyond := [m for m in rows if not 0 <= m < count]:
        raise ValueError(f"There is no row {beyond[0]}: the run has rows 0 to {count - 1}.")
    files = begun.run.files
    files.decode(begun.decoder, list(rows), out)
    return [out / files.alone(m) for m in rows]
