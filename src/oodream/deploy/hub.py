"""Guards as models of the Hugging Face hub, by its client's mixin: `push_to_hub`, `from_pretrained`,
`save_pretrained`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from huggingface_hub import ModelCard, ModelHubMixin

from ..core.results import Row
from .card import card
from .measured import Measurements
from .stored import HUB, fetched, read, write

if TYPE_CHECKING:
    from .guard import Guard

__all__ = ["OnHub"]

DOWNLOAD = ("revision", "cache_dir", "force_download", "local_files_only", "token")


class OnHub(ModelHubMixin):
    """What a guard is on the hub: the files of `Guard.save` and a model card; JSON and safetensors alone.

    `Guard.from_pretrained` takes the repository OWNER/NAME, or a folder, and with `device` and `plugins` what
    `Guard.load` does; its other options are those of the hub's client.
    """

    # With a configuration of its own the mixin leaves the guard's fields alone; `config.json` is ours.
    _hub_mixin_config = {"library_name": "oodream"}  # noqa: RUF012

    def push_to_hub(
        self, repo_id: str, *, rows: Sequence[Row] = (), license: str | None = None, **options: Any
    ) -> str:
        """Uploads the guard to OWNER/NAME, which is made if there is none, and returns the commit's address.

        `rows` are measurements for the card (`Run.rows`), and `license` is an identifier of the hub's; the
        other options (`private`, `token`, `commit_message`, `branch`, `create_pr`, ...) are those of its
        client.
        """
        name = repo_id if "/" in repo_id else f"OWNER/{repo_id}"
        measured = Measurements.of_rows(rows)
        kwargs = {"place": HUB + name, "measured": measured, "license": license}
        return str(super().push_to_hub(repo_id, model_card_kwargs=kwargs, **options))

    def generate_model_card(self, *_: Any, place: str = "guard", **options: Any) -> ModelCard:
        """The model card; options are as in `card`."""
        return card(cast("Guard", self), place, **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        write(cast("Guard", self), save_directory)

    @classmethod
    def _from_pretrained(
        cls, *, model_id: str, device: str = "cpu", plugins: bool = False, **options: Any
    ) -> Any:
        download = {key: options[key] for key in DOWNLOAD if key in options}
        folder = Path(model_id) if Path(model_id).is_dir() else fetched(model_id, **download)
        return cls(**read(folder, device, plugins))
