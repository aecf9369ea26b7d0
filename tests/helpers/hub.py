"""A stand-in for the hub and its client: a folder of repositories on this disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import hub_mixin
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.utils import filter_repo_objects

OWNER = "me"


@dataclass
class FolderHub:
    """Repositories are folders `root/TYPE/OWNER/NAME`; `asked` are the patterns of what was downloaded, and
    `options` what the client was told beside.
    """

    root: Path
    asked: list[Any] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def install(cls, root: Path, monkeypatch: pytest.MonkeyPatch) -> FolderHub:
        hub = cls(root)
        for module in (huggingface_hub, hub_mixin):
            monkeypatch.setattr(module, "HfApi", hub.client)
            monkeypatch.setattr(module, "hf_hub_download", hub.hf_hub_download)
        monkeypatch.setattr(huggingface_hub, "snapshot_download", hub.snapshot_download)
        return hub

    def client(self, token: str | None = None) -> FolderHub:
        self.options["token"] = token
        return self

    def create_repo(
        self, repo_id: str, *, repo_type: str = "model", private: bool | None = None, exist_ok: bool = False
    ) -> SimpleNamespace:
        repo_id = repo_id if "/" in repo_id else f"{OWNER}/{repo_id}"
        (self.root / repo_type / repo_id).mkdir(parents=True, exist_ok=exist_ok)
        self.options["private"] = private
        return SimpleNamespace(repo_id=repo_id)

    def upload_folder(
        self,
        *,
        repo_id: str,
        folder_path: Path | str,
        repo_type: str = "model",
        allow_patterns: Iterable[str] | None = None,
        ignore_patterns: Iterable[str] | None = None,
        **options: Any,
    ) -> str:
        target = self.root / repo_type / repo_id
        files = [file.relative_to(folder_path) for file in Path(folder_path).rglob("*") if file.is_file()]
        for name in filter_repo_objects(
            map(str, files), allow_patterns=allow_patterns, ignore_patterns=ignore_patterns
        ):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(Path(folder_path) / name, target / name)
        self.options |= options
        return f"https://hub.invalid/{repo_id}/commit/1"

    def hf_hub_download(self, repo_id: str, filename: str, **options: Any) -> str:
        return str(self._repository(repo_id) / filename)

    def snapshot_download(self, repo_id: str, *, allow_patterns: list[str], **options: Any) -> str:
        """A copy of what the patterns allow."""
        self.asked.append(allow_patterns)
        self.options |= options
        source, copy = self._repository(repo_id), self.root / "cache" / repo_id
        shutil.rmtree(copy, ignore_errors=True)
        copy.mkdir(parents=True)
        for name in filter_repo_objects(
            [str(file.relative_to(source)) for file in source.rglob("*") if file.is_file()],
            allow_patterns=allow_patterns,
        ):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source / name, copy / name)
        return str(copy)

    def _repository(self, repo_id: str) -> Path:
        if not (folder := self.root / "model" / repo_id).is_dir():
            response: Any = SimpleNamespace(headers={}, request=None)
            raise RepositoryNotFoundError(f"404: no such repository: {repo_id}", response=response)
        return folder
