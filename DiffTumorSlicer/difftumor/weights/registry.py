"""Which models there are, and where they lie.  No torch here; nothing is changed on disk.

`Resources/models.json` lists the published files and our demonstration models.  Everything downloaded,
imported or trained lies in `models_folder()`, one folder per model.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from difftumor.remedies import Advice, Remedy, advice_of, with_remedy
from difftumor.weights.cards import (
    CARD_NAME,
    WEIGHTS_NAME,
    ModelError,
    read_card,
    read_json,
    resources_folder,
)

RECORD_NAME = "installed.json"
ACCEPTED_NAME = "accepted-licences.json"
ID_PATTERN = re.compile(r"[a-z0-9][a-z0-9._-]{0,79}", re.IGNORECASE)
HUGGING_FACE = "https://huggingface.co/"
# What the registry tells of a published file, under the names of model.json.
CARD_FIELDS = (
    *("id", "title", "task", "organs", "tumor_types", "modality", "architecture", "T", "schedule"),
    *("spacing_mm", "crop_voxels", "window_hu", "intensity_range", "channel_order", "label_names"),
    *(
        "healthy_index",
        "preparation",
        "recommended",
        "autoencoder",
        "licence",
        "citation",
        "expected",
    ),
)


@dataclass(frozen=True)
class InstalledModel:
    """A model that can be opened.

    Attributes:
        id: of the registry, or the name of the folder or file.
        path: the published file, or the model folder; for `checkpoints.read_checkpoint`.
        card: fields of model.json (for a published file: what the registry tells), with the `sha256` of
            the weights where it is known.
    """

    id: str
    path: Path
    card: dict[str, Any]


def models_folder() -> Path:
    """$DIFFTUMOR_HOME, else ~/.difftumor/models; it need not exist."""
    named = os.environ.get("DIFFTUMOR_HOME", "").strip()
    return Path(named).expanduser() if named else Path.home() / ".difftumor" / "models"


def registry() -> dict[str, dict[str, Any]]:
    """Known models by id, each with the fields of its group and source (url, page, license, citation)."""
    content = read_json(resources_folder() / "models.json")
    known = {}
    for model in content["models"]:
        source = content["sources"][model["source"]]
        entry = {**content["groups"][model["group"]], **model}
        entry |= {key: source[key] for key in ("licence", "citation", "page") if key in source}
        if "file" in model:
            entry["url"] = source["base_url"] + model["file"]
        known[model["id"]] = entry
    return known


def registered(model_id: str) -> dict[str, Any]:
    """Entry of the registry.  Raises: ModelError: unknown, with the nearest ids."""
    entry = registry().get(model_id)
    if entry is None:
        raise unknown(model_id)
    return entry


def model_path(entry: dict[str, Any]) -> Path:
    """Where the model of an entry lies or would lie: a file, or the folder of a bundled model or a pair."""
    if entry.get("bundled"):
        return resources_folder() / "Models" / str(entry["id"])
    if entry.get("pair"):
        return models_folder() / str(entry["id"])
    return models_folder() / str(entry["id"]) / file_name(entry)


def file_name(entry: dict[str, Any]) -> str:
    """Name of a published file, without its folder on the server."""
    return str(entry["file"]).rpartition("/")[2]


def download_url(entry: dict[str, Any]) -> str:
    """Address of a published file; HF_ENDPOINT names a mirror of Hugging Face, as everywhere."""
    mirror = os.environ.get("HF_ENDPOINT", "").strip().rstrip("/")
    url = str(entry["url"])
    return url.replace(HUGGING_FACE, mirror + "/", 1) if mirror else url


def pinned(entry: dict[str, Any]) -> dict[str, Any]:
    """What is remembered of a published file: sha256, bytes, mtime_ns, origin.  {} before the first time.

    It stays when the file is removed, so that the next download is compared with the first.
    """
    if is_folder(entry):
        return {}  # its card tells
    path = model_path(entry).parent / RECORD_NAME
    record = read_json(path) if path.is_file() else {}
    return record if isinstance(record, dict) else {}


def is_folder(entry: dict[str, Any]) -> bool:
    """Whether the model of an entry is a model folder, not a published file."""
    return bool(entry.get("bundled") or entry.get("pair"))


def is_installed(entry: dict[str, Any]) -> bool:
    """Whether the model of an entry can be opened."""
    path = model_path(entry)
    if is_folder(entry):
        return (path / CARD_NAME).is_file() and (path / WEIGHTS_NAME).is_file()
    return path.is_file() and "sha256" in pinned(entry)


def is_unchanged(entry: dict[str, Any]) -> bool:
    """Whether a published file is as it was when its checksum was taken (size and time of change)."""
    status = model_path(entry).stat()
    record = pinned(entry)
    return (status.st_size, status.st_mtime_ns) == (record.get("bytes"), record.get("mtime_ns"))


def own_models() -> list[str]:
    """Names of the folders in `models_folder()` that hold models outside the registry."""
    folder = models_folder()
    known = registry()
    return sorted(
        path.parent.name
        for path in (folder.glob(f"*/{CARD_NAME}") if folder.is_dir() else ())
        if path.parent.name not in known and ID_PATTERN.fullmatch(path.parent.name)
    )


def is_licence_accepted(entry: dict[str, Any]) -> bool:
    """Whether the person of this models folder has accepted the license of an entry."""
    path = models_folder() / ACCEPTED_NAME
    return path.is_file() and entry["licence"]["name"] in read_json(path)


def list_models() -> list[dict[str, Any]]:
    """One JSON-ready row per model: those of the registry, then the user's own.

    Keys: id, title, task, organ ("liver, pancreas"), organs, modality, installed, bytes (`approximate`
    until installed), verified (None until installed; False: changed since its checksum was taken),
    license (its name), licence_url, licence_notice, licence_accepted, bundled, path, url, page,
    expected, problem (a sentence, or None), advice (the same as `Advice.to_json` tells it).
    """
    rows = [_registry_row(entry) for entry in registry().values()]
    return rows + [_own_row(name) for name in own_models()]


def find_model(model: str | Path) -> InstalledModel:
    """Find a model by id or path.

    Args:
        model: id of the registry; name of a folder in `models_folder()`; path of a model folder; path
            of a published file.

    Raises:
        ModelError: unknown (with the nearest ids), not installed (with the command), or the card of its folder
            is not valid.
    """
    name = str(model)
    entry = registry().get(name)
    if entry:
        return _find_registered(entry)
    if name in own_models():
        return _open_folder(models_folder() / name)
    path = Path(model).expanduser()
    if path.name in (CARD_NAME, WEIGHTS_NAME) and (path.parent / CARD_NAME).is_file():
        path = path.parent
    if path.is_dir():
        return _open_folder(path)
    if path.is_file():
        return _open_file(path)
    raise unknown(name)


def unknown(name: str) -> ModelError:
    """The error for a name that is neither an id nor a path."""
    ids = [*registry(), *own_models()]
    if any(mark in name for mark in ("/", "\\")) or Path(name).suffix in (
        ".pt",
        ".ckpt",
        ".safetensors",
    ):
        return ModelError(f"There is no model file or folder at {name}. Check the path.")
    near = difflib.get_close_matches(name.lower(), ids, n=4, cutoff=0.4)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return with_remedy(ModelError(f"There is no model {name!r}.{hint}"), Remedy("list_models"))


def pair_remedy(entry: dict[str, Any]) -> Remedy:
    """How a model that is published as two files gets onto this computer."""
    return Remedy("import_pair", {"model": entry["id"], "page": entry["page"]})


def card_of(entry: dict[str, Any]) -> dict[str, Any]:
    """What the registry tells of a model, as fields of model.json."""
    return {key: entry[key] for key in CARD_FIELDS if key in entry}


def _find_registered(entry: dict[str, Any]) -> InstalledModel:
    """Path and card of an installed entry."""
    model_id = entry["id"]
    if not is_installed(entry):
        if entry.get("bundled"):
            raise with_remedy(
                ModelError(
                    f"The demonstration model {model_id} is missing from this installation "
                    f"({model_path(entry)})."
                ),
                Remedy("reinstall"),
            )
        missing = ModelError(f"{model_id} is not installed.")
        if entry.get("pair"):
            raise with_remedy(missing, pair_remedy(entry))
        facts = {
            "model": model_id,
            "megabytes": entry["approximate_bytes"] / 1e6,
            "licence": entry["licence"]["name"],
        }
        raise with_remedy(missing, Remedy("download", facts))
    if is_folder(entry):
        return _open_folder(model_path(entry))
    return InstalledModel(model_id, model_path(entry), _card(entry, pinned(entry)["sha256"]))


def _open_folder(path: Path) -> InstalledModel:
    card = read_card(path)
    if not (path / WEIGHTS_NAME).is_file():
        raise ModelError(f"{path} holds no {WEIGHTS_NAME}: the copy is incomplete. Get it again.")
    inside = path.resolve().parent in (models_folder().resolve(), resources_folder() / "Models")
    return InstalledModel(path.resolve().name if inside else card["id"], path, card)


def _open_file(path: Path) -> InstalledModel:
    """A weight file anywhere; one with a published name gets the registry's facts."""
    for entry in registry().values():
        if "file" in entry and path.resolve() == model_path(entry).resolve():
            return _find_registered(entry)
        if "file" in entry and path.name == file_name(entry):
            return InstalledModel(path.stem, path, _card(entry, None))
    return InstalledModel(path.stem, path, {"id": path.stem, "title": path.name})


def _card(entry: dict[str, Any], sha256: str | None) -> dict[str, Any]:
    card = card_of(entry)
    return {**card, "sha256": sha256} if sha256 else card


def _registry_row(entry: dict[str, Any]) -> dict[str, Any]:
    """Row of the list for an entry of the registry."""
    path = model_path(entry)
    advice = None
    try:
        installed = is_installed(entry)
        size = _weight_bytes(path) if installed else entry["approximate_bytes"]
        # A model folder's checksum is compared each time it is opened.
        intact = is_folder(entry) or is_unchanged(entry) if installed else None
    except ModelError as error:
        installed, size, intact = False, entry["approximate_bytes"], None
        advice = advice_of(error)
    row = _row(entry, path, entry["organs"])
    row |= {"installed": installed, "bytes": size, "approximate": not installed, "verified": intact}
    row |= {"licence_accepted": is_licence_accepted(entry), "bundled": bool(entry.get("bundled"))}
    if intact is False:
        remedy = Remedy("verify", {"model": entry["id"]})
        advice = Advice("The file has changed since it was installed.", remedy)
    return row | {"url": entry.get("url"), "page": entry.get("page"), **_told(advice)}


def _own_row(name: str) -> dict[str, Any]:
    """Row of the list for a model folder of the user; a faulty one is listed with its problem."""
    path = models_folder() / name
    advice = None
    card: dict[str, Any] = {}
    try:
        card = _open_folder(path).card
    except ModelError as error:
        advice = advice_of(error)
    row = _row({**card, "id": name}, path, card.get("organs", []))
    row |= {"installed": advice is None, "bytes": _weight_bytes(path), "approximate": False}
    row |= {"verified": True if advice is None else None, "licence_accepted": True}
    return row | {"bundled": False, "url": None, "page": None, **_told(advice)}


def _told(advice: Advice | None) -> dict[str, Any]:
    """What is wrong with a model: in the words of the command line, and as data for the panels."""
    return {
        "problem": str(advice) if advice else None,
        "advice": advice.to_json() if advice else None,
    }


def _row(entry: dict[str, Any], path: Path, organs: list[str]) -> dict[str, Any]:
    """The part of a row that registry and cards share."""
    terms = entry.get("licence", {})
    return {
        "id": entry["id"],
        "title": entry.get("title", entry["id"]),
        "task": entry.get("task", ""),
        "organ": ", ".join(organs),
        "organs": list(organs),
        "modality": entry.get("modality"),
        "tumor_types": entry.get("tumor_types", []),
        "licence": terms.get("name", ""),
        "licence_url": terms.get("url"),
        "licence_notice": terms.get("notice"),
        "expected": entry.get("expected"),
        "path": str(path),
    }


def _weight_bytes(path: Path) -> int:
    """Size of a weight file, or of the one in a model folder."""
    weights = path / WEIGHTS_NAME if path.is_dir() else path
    return weights.stat().st_size if weights.is_file() else 0
