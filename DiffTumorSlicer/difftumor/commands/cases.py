"""Which cases a command is asked for: the images on the command line, those of a folder, or those of a list."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

from difftumor.commands.run import CaseCommand
from difftumor.images.sequences import find_sequences, sequence_of
from difftumor.images.volumes import parse_mask_argument
from difftumor.options import UsageError, further_names, read_numbers, read_slices
from difftumor.provenance import sidecar_path

IMAGE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".nhdr", ".mha", ".mhd")
INPUTS = ("organ", "labels", "learned")  # options of files that lie beside the list
EXAMPLE = '{"cases": [{"image": "ct.nii.gz", "organ": "organs.nii.gz:5"}]}'


@dataclass(frozen=True)
class NamedCase:
    """A case by its name, and the command that computes it alone."""

    name: str
    command: CaseCommand


@dataclass(frozen=True)
class Found:
    """Files of a case in a folder: channel of the model -> file."""

    name: str
    files: Mapping[str, Path]


def cases_of(command: CaseCommand) -> list[NamedCase]:
    """Cases that are asked for.

    Raises:
        UsageError: none, twice the same, or options that do not go with many cases. ModelError.
    """
    if sum([bool(command.images), command.batch is not None, command.datalist is not None]) != 1:
        raise UsageError("give an image, or --batch FOLDER, or --datalist FILE.json")
    if command.images:
        return [NamedCase(Path(command.images[0]).name, command)]
    out = command.place
    for option in command.single:
        if getattr(command, option) is not None:
            raise UsageError(
                f"--{option.replace('_', '-')} is of a single case; of many there are the results in {out}, a side-car "
                f"for each, and the table {command.table}"
            )
    if out.exists() and not out.is_dir():
        raise UsageError(f"of many cases --out is a folder, but {out} is a file")
    cases = _of_folder(command) if command.batch is not None else _of_list(command)
    paths = [path.resolve() for case in cases for path in outputs_of(case.command)]
    if twice := [path for path, count in Counter(paths).items() if count > 1]:
        raise UsageError(f'several cases would write {twice[0]}. Give each its own "name" or "out"')
    if outside := [path for path in paths if path.parent != out.resolve()]:
        raise UsageError(f"a case names an output outside {out}: {outside[0]}")
    return cases


def outputs_of(command: CaseCommand) -> list[Path]:
    """Files that the options name, and the side-car."""
    named = [getattr(command, item.name) for item in fields(command) if _is_output(item.name)]
    return [*(path for path in named if path), sidecar_path(command.place)]


def _is_output(option: str) -> bool:
    return option in ("out", "report", "sheet") or option.endswith("_out")


def _placed(command: CaseCommand, name: str, **changes: Any) -> CaseCommand:
    """The command of one case, with its outputs named after it."""
    folder = command.place
    out = folder / changes.pop("out", f"{name}-{command.ending}.nii.gz")
    stem = sidecar_path(out).stem
    for option, ending in command.beside.items():
        changes.setdefault(option, out.with_name(out.name.replace(stem, stem + ending)).name)
    places = {k: folder / v if _is_output(k) and v else v for k, v in changes.items()}
    return replace(command, batch=None, datalist=None, out=out, **places)


def _of_folder(command: CaseCommand) -> list[NamedCase]:
    """Each case of a folder."""
    folder, channels = command.batch, command.channels()
    assert folder is not None
    if command.place.resolve() == folder.resolve():
        raise UsageError("--out is the folder of the images itself; give another one")
    masks = {name: getattr(command, name, None) for name in ("organ", "labels")}
    templates = {name: str(mask) for name, mask in masks.items() if mask is not None}
    cases = []
    for case in cases_in(folder, channels, templates):
        values = {name: text.replace("{case}", case.name) for name, text in templates.items()}
        if "labels" in values:
            values["labels"] = Path(values["labels"])  # type: ignore[assignment]
        images = tuple(f"{channel}={path}" for channel, path in case.files.items())
        cases.append(NamedCase(case.name, _placed(command, case.name, images=images, **values)))
    return cases


def cases_in(
    folder: Path, channels: Sequence[str], masks: Mapping[str, str] | None = None
) -> list[Found]:
    """Cases of a folder, in the order of their names.

    For a model of one image each image file is a case, and each subfolder (a DICOM series). For a model of several
    sequences the files whose names agree up to the sequence belong together ("anna-t1.nii.gz", "anna-flair.nii.gz"),
    also those of a subfolder ("anna/t1.nii.gz"). Files that are no image, or lack a sequence, are left out.

    Args:
        folder: with the images.
        channels: of the model's card.
        masks: by option, "PATH[:label]" with {case} in place of the case's name; such files are no cases themselves.

    Raises:
        UsageError: no case, or a template that is none.
    """
    if not folder.is_dir():
        raise UsageError(f"there is no folder {folder}")
    for option, template in (masks or {}).items():
        if "{case}" not in template:
            raise UsageError(
                f"--{option} is one file, {template}, for all cases of a folder. Write {{case}} where the name of the "
                f"case stands in the name of its mask, as in --{option} 'masks/{{case}}.nii.gz'"
            )
    found = _single(folder) if len(channels) == 1 else _grouped(folder, channels)
    # Of the candidates, the masks of others fall out: "anna-organs.nii.gz" beside "anna.nii.gz".
    taken = {
        parse_mask_argument(template.replace("{case}", name))[0].resolve()
        for template in (masks or {}).values()
        for name in found
    }
    cases = [
        Found(name, dict(zip(channels, files, strict=True)))
        for name, files in sorted(found.items())
        if not any(path.resolve() in taken for path in files)
    ]
    if not cases:
        what = (
            "no image (NIfTI, NRRD, MHA, or a folder of DICOM files)"
            if len(channels) == 1
            else f"no case with {', '.join(channels)} in the names of its files"
        )
        raise UsageError(f"{folder} holds {what}")
    return cases


def _single(folder: Path) -> dict[str, list[Path]]:
    """One image per case."""
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or not (path.is_dir() or _is_image(path)):
            continue
        if path.is_dir() and (not any(path.iterdir()) or any(map(_is_image, path.iterdir()))):
            continue  # of images, not of DICOM slices
        name = path.name if path.is_dir() else sidecar_path(path).stem
        if name in found:
            raise UsageError(
                f"{found[name][0].name} and {path.name} in {folder} are both the case {name}. Rename one"
            )
        found[name] = [path]
    return found


def _grouped(folder: Path, channels: Sequence[str]) -> dict[str, list[Path]]:
    """Several sequences per case, told by the names."""
    groups: dict[str, list[Path]] = {}
    for place in (folder, *sorted(p for p in folder.iterdir() if p.is_dir())):
        for path in sorted(place.iterdir()):
            if _is_image(path) and sequence_of(path.name):
                name = _before_sequence(path.name) or (place.name if place != folder else "case")
                groups.setdefault(name, []).append(path)
    found = {}
    for name, paths in groups.items():
        chosen = find_sequences([path.name for path in paths], channels)
        if len(chosen) == len(channels):
            by_name = {path.name: path for path in paths}
            found[name] = [by_name[chosen[channel]] for channel in channels]
    return found


def _before_sequence(name: str) -> str:
    """Part of a file's name before the word that tells its sequence; "" if it begins with it."""
    for match in re.finditer(r"[A-Za-z0-9]+", name):
        if sequence_of(match[0]):
            return name[: match.start()].rstrip("-_. ")
    return ""


def _is_image(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(IMAGE_SUFFIXES)


def _of_list(command: CaseCommand) -> list[NamedCase]:
    """Each case of a list; paths of inputs are relative to the list, those of outputs to --out."""
    datalist = command.datalist
    assert datalist is not None
    try:
        entries = json.loads(datalist.read_text(encoding="utf-8"))["cases"]
    except (UnicodeDecodeError, json.JSONDecodeError, KeyError, TypeError) as error:
        raise UsageError(
            f"{datalist} is no datalist ({error!r}). It should read {EXAMPLE}"
        ) from None
    if not isinstance(entries, list):
        raise UsageError(f'"cases" of {datalist} must be a list')
    if not entries:
        raise UsageError(f"{datalist} lists no case")
    wheres = [f"case {number} of {datalist}" for number in range(1, len(entries) + 1)]
    names = _names(entries, wheres, datalist.parent)
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise UsageError(f'several cases of {datalist} are called {twice[0]}. Give each a "name"')
    return [
        _of_entry(command, entry, name, where, datalist.parent)
        for entry, name, where in zip(entries, names, wheres, strict=True)
    ]


def _names(entries: Sequence[Any], wheres: Sequence[str], folder: Path) -> list[str]:
    """Name of each entry: its "name", else that of its output, else that of its image.

    Many data sets call every image `ct.nii.gz`; such images are told apart by their folders.

    Raises:
        UsageError: an entry is none, or its name is no file name.
    """
    names, images = [], []
    for entry, where in zip(entries, wheres, strict=True):
        if not isinstance(entry, Mapping) or not {"image", "images"} & set(entry):
            raise UsageError(f"{where} names no image. A list should read {EXAMPLE}")
        word = _image_words(dict(entry), where, folder)[0]
        images.append(Path(word.partition("=")[2] if "=" in word else word))
        name = entry.get("name")
        if name is None and isinstance(entry.get("out"), str) and entry["out"]:
            name = sidecar_path(Path(entry["out"])).stem
        if name is not None and (not isinstance(name, str) or not name or Path(name).name != name):
            raise UsageError(f"{where} is called {name!r}, which is no file name")
        names.append(name)
    shared = Counter(sidecar_path(image).stem for image in images)
    stems = [sidecar_path(image).stem for image in images]
    return [
        name or (f"{image.parent.name}-{stem}".lstrip("-") if shared[stem] > 1 else stem)
        for name, stem, image in zip(names, stems, images, strict=True)
    ]


def _of_entry(
    command: CaseCommand, entry: Mapping[str, Any], name: str, where: str, folder: Path
) -> NamedCase:
    """One entry of a list.  Raises: UsageError: unknown options, or values of the wrong kind."""
    further = further_names(*command.packs)
    values = {further.get(key, key): value for key, value in entry.items() if key != "name"}
    words = _image_words(values, where, folder)
    hints = get_type_hints(type(command))
    known = {item.name for item in fields(command)} - {"datalist", "batch", "images", "json"}
    if unknown := sorted(set(values) - known):
        raise UsageError(f"{where} has unknown options: {', '.join(unknown)}")
    values = {key: _value(hints[key], key, value, where) for key, value in values.items()}
    for key in INPUTS:
        if values.get(key):
            values[key] = type(values[key])(folder / values[key])
    return NamedCase(name, _placed(command, name, images=words, **values))


def _image_words(values: dict[str, Any], where: str, folder: Path) -> tuple[str, ...]:
    """The images of an entry as words of the command line, taken out of it."""
    image, images = values.pop("image", None), values.pop("images", None)
    if images is None:
        images = [image]
    elif image is not None:
        raise UsageError(f'{where} has "image" and "images": give one of them')
    named = images.items() if isinstance(images, Mapping) else [("", word) for word in images]
    if not all(isinstance(path, str) and path for _, path in named) or not named:
        raise UsageError(f"{where}: images must be texts, got {images!r}")
    words = []
    for channel, path in named:
        before, equals, rest = path.partition("=")
        if not channel and equals and not (folder / path).exists():
            channel, path = before, rest
        words.append(f"{channel}={folder / path}" if channel else str(folder / path))
    return tuple(words)


def _value(hint: Any, option: str, value: Any, where: str) -> Any:
    """A value of JSON as the option takes it; numbers are checked by the parameter pack later."""
    kinds = {hint, *get_args(hint)}
    if kinds & {str, Path} and value is not None and not isinstance(value, str):
        raise UsageError(f"{where}: {option} must be a text, got {value!r}")
    if hint is bool and not isinstance(value, bool):
        raise UsageError(f"{where}: {option} must be true or false, got {value!r}")
    if isinstance(value, str):
        if Path in kinds:
            return Path(value)
        if tuple[str, ...] in kinds:
            return (value,)
        if tuple[int, int] in kinds:
            return read_slices(value)
        if tuple[int, ...] in kinds:
            return read_numbers(value)
    return tuple(value) if isinstance(value, list) else value
