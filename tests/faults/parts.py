"""Faults to what is made beside runs: guards and their graphs, decoders, files of answers."""

from __future__ import annotations

import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from oodream.core.errors import StoreError
from oodream.data.captions import captioned_folder
from oodream.deploy.export import export
from oodream.deploy.guard import Guard
from oodream.runtime.guard import Guard as GraphGuard
from oodream.synthesis.errors import DecoderError
from oodream.synthesis.fit_decoder import fit_decoder
from oodream.synthesis.pipeline import load_pipeline
from tests.faults import child
from tests.faults.bench import Bench
from tests.faults.campaigns import Row, damaged, last_line
from tests.helpers.guarded import clothes, guard, save_run
from tests.helpers.tiny import TINY

__all__ = ["answers", "decoders", "guards", "torch_guards"]


def torch_guards(room: Path, seed: int, folder: Path | None = None) -> Iterator[Row]:
    """Each file of an exported guard's folder damaged; then the guard is loaded."""
    if folder is None:
        export(guard(), folder := room / "guard")
    yield from damaged_files(
        folder, lambda file: Guard.load(folder).identity(), seed, read=("config.json", ".safetensors")
    )


def guards(room: Path, seed: int) -> Iterator[Row]:
    """The same of a guard in a run, and of graphs in ONNX's and OpenVINO's formats."""
    yield from torch_guards(room, seed)
    run = save_run(room / "run")
    yield from damaged_files(
        run, lambda file: Guard.load(run).identity(), seed, read=(".json", ".safetensors")
    )
    graphs = room / "graphs"
    export(guard(), graphs, onnx=True, openvino=True)
    pixels = clothes()[1].batch([0]).permute(0, 2, 3, 1).numpy()

    def answered(file: Path) -> object:
        return [str(GraphGuard.load(graphs / name).predict(pixels)) for name in ("guard.onnx", "guard.xml")]

    yield from damaged_files(graphs, answered, seed, read=(".onnx", ".xml", ".bin"))


def decoders(bench: Bench, seed: int) -> Iterator[Row]:
    """Each file of a fitted decoder damaged, and it is loaded; each file of its working state, and it is
    fitted again.
    """
    data, out, cpu = captioned_folder(bench.shapes, 32), bench.room / "fitted", torch.device("cpu")
    fit_decoder(*data, out, TINY, cpu)
    yield from damaged_files(out, lambda file: load_pipeline(str(out), cpu) is None, seed, read=("",))
    before = (out / "hashes.json").read_bytes()

    def fitted_again(file: Path) -> object:
        fit_decoder(*data, out, TINY, cpu)
        return (out / "hashes.json").read_bytes() == before

    work = out.with_name("fitted.work")
    read = (
        "identity.json",
        ".state",
        ".safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "hashes.json",
    )
    yield from damaged_files(work, fitted_again, seed, read=read)


def damaged_files(
    folder: Path, use: Callable[[Path], object], seed: int, read: tuple[str, ...]
) -> Iterator[Row]:
    """Each file of a folder cut short, and with a bit flipped: what uses the folder refuses and names a file
    in it, or says that it makes it again. Files that it does not `read`, by the ends of their names, must
    change nothing.
    """
    g, right = random.Random(seed), use(folder)
    kept = Path(shutil.copytree(folder, folder.with_name(f"{folder.name}.kept")))
    for file in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock"):
        whole = file.read_bytes()
        for how in ("cut", "flipped"):
            file.write_bytes(damaged(whole, how, g))
            with warnings.catch_warnings(record=True) as notes:
                warnings.simplefilter("always")
                try:
                    same, said = use(file) == right, ""
                except (StoreError, DecoderError) as error:
                    same, said = False, str(error)
            said = said or " ".join(str(note.message) for note in notes)
            named = file.name in said
            unread = same and not file.name.endswith(read)
            row = {"file": str(file.relative_to(folder)), "how": how, "named": named, "same": same}
            yield {**row, "said": said[:300], "good": named or unread}
            shutil.copytree(kept, folder, dirs_exist_ok=True)


def answers(bench: Bench, seed: int) -> Iterator[Row]:
    """`oodream score --out` killed with some of its parts written; each file damaged; the same command
    again gives the answers that an undisturbed one gives.
    """
    run = bench.kind("run").calm[0]
    for suffix in ("jsonl", "parquet"):
        room = bench.room / f"answers-{suffix}"
        out = room / f"results.{suffix}"
        args = ["score", str(bench.shapes), "--run", str(run), "--out", str(out), "--device", "cpu"]
        small = [child.set_to(f"oodream.deploy.{name}", 8) for name in ("resumed:PART", "scoring:BATCH")]
        child.run(args, room, *small)
        right = out.read_bytes()
        out.unlink()
        child.run(args, room, *small, child.killed("oodream.deploy.resumed:row_of", 40))
        parts = Path(shutil.copytree(out.with_name(f"{out.name}.parts"), room / "begun"))
        g = random.Random(seed)
        for name in sorted(path.name for path in parts.iterdir() if path.name != ".lock"):
            for how in ("cut", "flipped"):
                out.unlink(missing_ok=True)
                shutil.rmtree(out.with_name(f"{out.name}.parts"), ignore_errors=True)
                shutil.copytree(parts, out.with_name(f"{out.name}.parts"))
                file = out.with_name(f"{out.name}.parts") / name
                file.write_bytes(damaged(file.read_bytes(), how, g))
                ended = child.run(args, room, *small)
                named = name in ended.err and "Traceback" not in ended.err
                same = out.exists() and out.read_bytes() == right
                good = (named and (ended.code == 2 or same)) or (same and name == "pictures.txt")
                yield {
                    "file": f"{suffix}: {name}", "how": how, "code": ended.code, "named": named, "same": same,
                    "said": last_line(ended.err), "good": good,
                }  # fmt: skip
