"""Targets: what people bring. Pictures, captions, lists, class names, protocols, options."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from oodream.benchmark.explain import explain
from oodream.benchmark.locate import locate
from oodream.benchmark.protocol import SHIPPED, load_protocol
from oodream.cli.run import json_text, read_options
from oodream.config import Config
from oodream.core.errors import shown
from oodream.core.files import ASSETS
from oodream.core.options import overlay, to_json
from oodream.data import classes
from oodream.data.captions import captioned_folder
from oodream.data.folders import list_folder
from oodream.data.stream import list_files
from oodream.run.arms import read_arms
from oodream.run.generated import slug
from oodream.runtime.pictures import squares

from .mutate import mutate_bytes, mutate_text, prefixed
from .target import Read, target

__all__ = ["pictures"]

Prepared = tuple[Sequence[bytes], Read]


def pictures() -> list[bytes]:
    """Small pictures of many formats and modes."""
    rgb = Image.linear_gradient("L").resize((9, 7)).convert("RGB")
    deep = Image.new("I;16", (5, 4), 900)
    written = [
        (rgb, "PNG", {}), (rgb, "JPEG", {}), (rgb, "JPEG", {"progressive": True}), (rgb, "GIF", {}),
        (rgb, "BMP", {}), (rgb, "WEBP", {}), (rgb, "TIFF", {}), (rgb, "TIFF", {"compression": "tiff_lzw"}),
        (rgb, "PPM", {}), (rgb, "TGA", {}), (rgb, "ICO", {}), (rgb, "PCX", {}), (rgb, "SGI", {}),
        (rgb, "DDS", {}), (rgb, "JPEG2000", {}), (rgb, "IM", {}), (rgb.quantize(4), "PNG", {}),
        (rgb.convert("RGBA"), "PNG", {}), (rgb.convert("CMYK"), "JPEG", {}), (rgb.convert("1"), "TIFF", {}),
        (deep, "PNG", {}), (deep, "TIFF", {}), (rgb.convert("F"), "TIFF", {}), (rgb.convert("1"), "XBM", {}),
    ]  # fmt: skip
    files = []
    for image, kind, options in written:
        file = io.BytesIO()
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(file, kind, **options, **({"exif": exif} if kind in ("JPEG", "PNG") else {}))
        files.append(file.getvalue())
    return files


@target("pictures", mutate_bytes, short=300)
def _pictures(folder: Path) -> Prepared:
    return pictures(), lambda data: list(squares(data, 16))


@target("captions", prefixed(mutate_text))
def _captions(folder: Path) -> Prepared:
    """The first letter says which kind of index the rest is."""
    home = folder / "captioned"
    for name in ("a.png", "b.png", "sub/c.png"):
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(home / name)
    files = {"j": home / "metadata.jsonl", "c": home / "metadata.csv", "t": home / "a.txt"}

    def read(data: bytes) -> object:
        chosen = files.get(chr(data[0]) if data else "j", files["j"])
        for file in files.values():
            file.unlink(missing_ok=True)
        chosen.write_bytes(data[1:])
        return captioned_folder(home, 4)

    lines = [{"file_name": "a.png", "text": "a cat", "weight": 2}, {"file_name": "sub/c.png", "caption": "c"}]
    return [
        b"j" + b"\n".join(json.dumps(line).encode() for line in lines),
        b'cfile_name,text,weight\na.png,"a ""cat""",1.5\nsub/c.png,b,\n',
        b"ta red cat\n",
    ], read


@target("lists")
def _lists(folder: Path) -> Prepared:
    """Lists of pictures, as `oodream score` takes them."""

    def read(data: bytes) -> object:
        (folder / "list.txt").write_bytes(data)
        files = list_files([folder / "list.txt"], folder / "out.txt")
        return [(shown(path), shown(name)) for name, path in files.read()]

    return [b"a.png\nb/c.jpg\n", "a.png\r\nü.png\n".encode("utf-16"), b"\xef\xbb\xbfx.png"], read


@target("class lists")
def _class_lists(folder: Path) -> Prepared:
    file = folder / "classes.toml"

    def read(data: bytes) -> object:
        file.write_bytes(data)
        names, prompts, folders = classes.named(str(file), "a picture of a {}")
        assert len(names) == len(prompts) == len(folders)
        return [slug(name) for name in names]

    return [
        (ASSETS / "classes" / "cifar10.toml").read_bytes(),
        b'[classes]\nn01 = "kite"\nn02 = "crane"\n[prompts]\nkite = "kite bird"\n[aliases]\nbird = "kite"\n',
    ], read


@target("class names")
def _class_names(folder: Path) -> Prepared:
    """Lines of names, each of a folder of pictures; the first line is the prompt's template."""
    picture = folder / "picture.png"
    Image.new("RGB", (2, 2)).save(picture)
    count = 0

    def read(data: bytes) -> object:
        nonlocal count
        count += 1
        home = folder / f"names-{count}"
        home.mkdir()
        template, *lines = data.split(b"\n")
        made = []
        for line in lines[:4]:
            name = line[:200].replace(b"/", b"").replace(b"\0", b"")
            if name and name not in (b".", b"..") and name not in made:
                made.append(name)
                place = Path(str(home)) / name.decode("utf-8", "surrogateescape")
                place.mkdir()
                for i in range(2):
                    (place / f"{i}.png").symlink_to(picture)
        try:
            listing, _ = list_folder(home)
            words = template.decode("utf-8", "replace")
            classes.prompts_for(listing.classes, {}, words)
            classes.spans_for(listing.classes, {}, words)
            for name in listing.classes:
                name.encode()
                assert name.isprintable() or not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in name), name
                assert slug(name)
                assert not {*slug(name)} & {*"/\\.:\0"}
                assert len(slug(name).encode()) < 250
        finally:
            _remove(home)
        return None

    return [
        b"a photo of a {}\ncat\ndog", "{} im Bild\nStraßenbahn\n信号機".encode(),
        b"{}\n<script>alert(1)</script>\n{0.__class__}", b"x {} y\n\xff\xfe\n'; DROP TABLE x; --",
        b"{}\nCON\nnul", "{}\na‮b\n\x1b[2J".encode(),
    ], read  # fmt: skip


def _remove(home: Path) -> None:
    for place in home.glob("*"):
        for file in place.iterdir():
            file.unlink()
        place.rmdir()
    home.rmdir()


@target("protocols")
def _protocols(folder: Path) -> Prepared:
    file, root = folder / "protocol.toml", folder / "root"
    (root / "images").mkdir(parents=True)
    Image.new("RGB", (2, 2)).save(root / "images" / "a.png")
    (root / "list.txt").write_text("a.png 0\n")
    (folder / "elsewhere").mkdir()
    Image.new("RGB", (2, 2)).save(folder / "elsewhere" / "b.png")
    (root / "out").symlink_to(folder / "elsewhere")

    def read(data: bytes) -> object:
        file.write_bytes(data)
        located = locate(load_protocol(str(file)), [root])
        for one in located.found:
            for path in one.files:
                assert path.resolve().is_relative_to(root.resolve()), path
        return explain(located)

    small = b"""size = 32
classes = ["cat", "dog"]
fpr95 = "fpr95_id"
notes = ["small"]
[[sets]]
name = "a"
group = "train"
list = "list.txt"
images = "images"
count = 1
[[sets]]
name = "b"
group = "test"
folders = ["images", "other"]
source = "web"
[[sets]]
name = "c"
group = "near"
hub = "somebody/images"
[[sets]]
name = "d"
group = "far"
data = "cifar10"
of = ["cat"]
[sources.web]
url = "https://example.com"
md5 = "0"
"""
    return [small, *(path.read_bytes() for path in sorted(SHIPPED.glob("*.toml"))[:2])], read


@target("options")
def _options(folder: Path) -> Prepared:
    """A file of `--config`, and one of `--arms`."""
    file = folder / "options.json"

    def read(data: bytes) -> object:
        file.write_bytes(data)
        config = overlay(Config(), read_options(file))
        text = json.dumps(to_json(config))
        assert overlay(Config(), json.loads(text)) == config, "a configuration is read as it was written"
        return text

    some = {"train": {"optimisation": {"lr": 0.1, "epochs": 2}}, "sample": {"options": {"k": 3}}, "seeds": 2}
    return [json.dumps(to_json(Config())).encode(), json.dumps(some).encode()], read


@target("arms")
def _arms(folder: Path) -> Prepared:
    def read(data: bytes) -> object:
        file = folder / "arms.json"
        file.write_bytes(data)
        return [overlay(Config(), options) for options in read_arms(json_text(file)).values()]

    return [b'{"a": {"regularize": {"ratio": 1.0}}, "b": {"seeds": 2, "sample": {"sampler": "knn"}}}'], read
