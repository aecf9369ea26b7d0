"""Picture files, and folders of them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

RED, WHITE = (200, 30, 30), (255, 255, 255)


def picture(color: tuple[int, int, int] = RED, width: int = 40, height: int = 40) -> Image.Image:
    return Image.new("RGB", (width, height), color)


def save(path: Path, image: Image.Image | None = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    (image or picture()).save(path, **options)
    return path


def class_folder(root: Path, **counts: int) -> Path:
    """Class folders of pictures that are all different: red tells the class, green the number."""
    for label, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            save(root / name / f"{i:03}.png", picture((40 * label, i, 99), 8, 8))
    return root
