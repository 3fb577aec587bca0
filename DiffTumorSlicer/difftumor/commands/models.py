"""`difftumor models`: list, download, import, verify, remove, path."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from difftumor.anomaly.files import import_pair
from difftumor.commands.console import Reporter, say
from difftumor.weights import models
from difftumor.weights.checkpoints import identify

ModelId = tyro.conf.Positional[Annotated[str, tyro.conf.arg(metavar="ID")]]


@dataclass(kw_only=True)
class ListModels:
    """Which models there are, and which are installed."""

    json: bool = False
    """Print JSON rows."""

    def run(self) -> int:
        """Do it; returns the exit code."""
        rows = models.list_models()
        if self.json:
            say(json.dumps(rows, indent=2))
            return 0
        width = max(len(row["id"]) for row in rows)
        for row in rows:
            state = _state(row)
            megabytes = f"{row['bytes'] / 1e6:.0f} MB" if row["bytes"] else ""
            say(
                f"{row['id']:{width}}  {row['task']:14} {row['organ']:24} {megabytes:>8}  {state:14} {row['licence']}"
            )
        say(f"Models folder: {models.models_folder()}")
        return 0


@dataclass(kw_only=True)
class Download:
    """Download a published model. Its license is shown and must be accepted first."""

    id: ModelId
    """From `difftumor models list`."""
    accept_licence: bool = False
    """You have read the license and accept it."""
    quiet: bool = False
    """Print results and errors only."""

    def run(self) -> int:
        """Do it; returns the exit code."""
        row = _known(self.id)
        accepted = self.accept_licence or bool(row["licence_accepted"]) or self._asked(row)
        with Reporter(self.quiet) as reporter:
            installed = models.download(
                self.id,
                accept_licence=accepted,
                callback=lambda done, total: reporter("downloading (bytes)", done, total),
            )
        say(f"{self.id} is installed in {installed.path}")
        return 0

    def _asked(self, row: dict[str, Any]) -> bool:
        if sys.stdin is None or not sys.stdin.isatty():
            return False
        say(
            f"{row['title']}: license {row['licence']} ({row['licence_url']}). Not part of this program."
        )
        try:
            return input("Do you accept it? [y/N] ").strip().lower() in ("y", "yes")
        except EOFError:
            return False


@dataclass(kw_only=True)
class Import:
    """Install a model from a file, a pair of files or a model folder on disk."""

    file: tyro.conf.Positional[Annotated[Path, tyro.conf.arg(metavar="FILE")]]
    """A published file, or a model folder made by the training programs."""
    second: tyro.conf.Positional[Annotated[Path | None, tyro.conf.arg(metavar="SECOND_FILE")]] = (
        None
    )
    """The classifier's file, for an anomaly model that is published as U-Net and classifier."""
    id: str | None = None
    """Which model it is, where the file does not tell."""
    quiet: bool = False
    """Print results and errors only."""

    def run(self) -> int:
        """Do it; returns the exit code."""
        with Reporter(self.quiet) as reporter:
            if self.second is not None:
                pair = import_pair(
                    self.file,
                    self.second,
                    self.id,
                    callback=lambda done, total: reporter("reading", done, total),
                )
                say(f"{pair.id} is installed in {pair.path}")
                return 0
            installed = models.import_file(
                self.file,
                self.id,
                identify=identify,
                callback=lambda done, total: reporter("copying (bytes)", done, total),
            )
        say(f"{installed.id} is installed in {installed.path}")
        return 0


@dataclass(kw_only=True)
class Verify:
    """Compare an installed model with its checksum."""

    id: ModelId
    """From `difftumor models list`."""

    def run(self) -> int:
        """Do it; returns 0 if the model is unchanged."""
        digest = models.verify(self.id)
        say(f"{self.id} is unchanged (SHA-256 {digest})")
        return 0


@dataclass(kw_only=True)
class Remove:
    """Delete an installed model from the models folder."""

    id: ModelId
    """From `difftumor models list`."""
    forget: bool = False
    """Also forget the checksum that was pinned when it was first installed."""

    def run(self) -> int:
        """Do it; returns the exit code."""
        freed = models.remove(self.id, forget=self.forget)
        say(f"{self.id} was removed, {freed / 1e6:.0f} MB freed")
        return 0


@dataclass(kw_only=True)
class ShowPath:
    """Print where a model lies, or the models folder."""

    id: tyro.conf.Positional[Annotated[str | None, tyro.conf.arg(metavar="ID")]] = None
    """From `difftumor models list`."""

    def run(self) -> int:
        """Do it; returns the exit code."""
        say(str(models.find_model(self.id).path if self.id else models.models_folder()))
        return 0


Action = (
    Annotated[ListModels, tyro.conf.subcommand("list")]
    | Annotated[Download, tyro.conf.subcommand("download")]
    | Annotated[Import, tyro.conf.subcommand("import")]
    | Annotated[Verify, tyro.conf.subcommand("verify")]
    | Annotated[Remove, tyro.conf.subcommand("remove")]
    | Annotated[ShowPath, tyro.conf.subcommand("path")]
)


@dataclass(kw_only=True)
class Models:
    """List, download, import, verify and remove models."""

    action: Action

    def run(self) -> int:
        """Do it; returns the exit code."""
        return self.action.run()


def _known(model_id: str) -> dict[str, Any]:
    rows = {row["id"]: row for row in models.list_models()}
    if model_id not in rows:
        models.find_model(model_id)  # raises with the nearest ids
    return rows[model_id]


def _state(row: dict[str, Any]) -> str:
    if not row["installed"]:
        return "not installed"
    return "CHANGED" if row["verified"] is False else "installed"
