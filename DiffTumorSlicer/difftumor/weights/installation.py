"""How models get onto this computer and off it again: download, import, verify, remove.  No torch here.

Nobody publishes checksums of the DiffTumor files.  So the checksum of the first copy is pinned in
`installed.json` beside it, and every later copy must have the same.
"""

from __future__ import annotations

import datetime
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from difftumor.remedies import Remedy, with_remedy
from difftumor.weights.cards import (
    CARD_NAME,
    WEIGHTS_NAME,
    Identification,
    ModelError,
    file_sha256,
    read_card,
    read_json,
    write_json,
)
from difftumor.weights.downloads import discard, exclusive, fetch, is_offline, part_of
from difftumor.weights.foreign_files import describe_foreign
from difftumor.weights.registry import (
    ACCEPTED_NAME,
    RECORD_NAME,
    InstalledModel,
    download_url,
    file_name,
    find_model,
    is_installed,
    is_licence_accepted,
    model_path,
    models_folder,
    own_models,
    pair_remedy,
    pinned,
    registered,
    registry,
    unknown,
)

Callback = Callable[[int, int], None]
Identify = Callable[[Path], Identification]

LOCK_NAME = ".lock"
BLOCK = 1 << 22


def remember_licence(model_id: str) -> None:
    """Record that the person accepts the license of a model; it holds for all models under it.

    Raises:
        ModelError: unknown model, or the models folder cannot be written.
    """
    terms = registered(model_id)["licence"]
    folder = models_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / ACCEPTED_NAME
        accepted = read_json(path) if path.is_file() else {}
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        accepted.setdefault(terms["name"], {"url": terms.get("url"), "accepted": today})
        write_json(path, accepted)
    except OSError as error:
        raise _unwritable(folder, error) from error


def download(
    model_id: str,
    *,
    accept_licence: bool = False,
    callback: Callback | None = None,
    offline: bool | None = None,
) -> InstalledModel:
    """Install a published model; an installed one is returned as it is.

    Args:
        model_id: id of the registry.
        accept_licence: the person has seen the license and accepts it; remembered per license.
        callback: callback(done, total) in bytes; may raise, which cancels and keeps what has arrived.
        offline: True forbids the network; None leaves it to DIFFTUMOR_OFFLINE and HF_HUB_OFFLINE.

    Raises:
        ModelError: unknown id, license not accepted, no network, another file than the one that was pinned,
            disk full, or another program is at it.
    """
    entry = registered(model_id)
    if entry.get("bundled") or is_installed(entry):
        return find_model(model_id)
    if entry.get("pair"):
        raise with_remedy(
            ModelError(f"{model_id} is not offered at a stable address."), pair_remedy(entry)
        )
    if offline or is_offline():
        facts = {"model": model_id, "file": file_name(entry), "page": entry["page"]}
        raise with_remedy(
            ModelError(
                f"{model_id} is not installed, and the network is off "
                f"({is_offline() or 'offline was asked for'})."
            ),
            Remedy("import_elsewhere", facts),
        )
    if accept_licence:
        remember_licence(model_id)
    elif not is_licence_accepted(entry):
        terms = entry["licence"]
        raise with_remedy(
            ModelError(
                f"{model_id} is under the license {terms['name']} ({terms.get('url', 'no link')}). "
                f"{terms.get('notice', '')}"
            ),
            Remedy("accept_license", {"model": model_id}),
        )
    target = model_path(entry)
    part = part_of(target)
    with installing(target.parent):
        if is_installed(entry):  # by another program, while we asked
            return find_model(model_id)
        url = download_url(entry)
        fetched = fetch(url, part, callback, expected_bytes=entry["approximate_bytes"])
        foreign = describe_foreign(part)
        if foreign:
            discard(part)
            raise with_remedy(
                ModelError(f"What the server gave for {file_name(entry)} {foreign.message}"),
                foreign.remedy,
            )
        _pin_and_place(entry, part, url, fetched.sha256)
    return find_model(model_id)


def import_file(
    path: Path | str,
    id: str | None = None,
    *,
    identify: Identify,
    callback: Callback | None = None,
) -> InstalledModel:
    """Install a published file or a model folder from disk; the original stays where it is.

    Args:
        path: a weight file, or a model folder.
        id: which model it is; needed where neither content nor name tells (an early liver and an early
            kidney file look the same).  For a model folder: another name than its card's.
        identify: `checkpoints.identify`, passed in because it needs torch.
        callback: callback(done, total) in bytes; may raise, which cancels and leaves nothing behind.

    Raises:
        ModelError: no model, another model than `id`, ambiguous, or not the pinned content.
    """
    source = Path(path).expanduser()
    if not source.exists():
        raise ModelError(f"There is nothing at {source}. Check the path.")
    if source.name in (CARD_NAME, WEIGHTS_NAME) and (source.parent / CARD_NAME).is_file():
        source = source.parent
    found = identify(source)
    if source.is_dir():
        return _import_folder(source, id, callback)
    entry = _entry_for(source, found, id)
    target = model_path(entry)
    part = target.with_name(target.name + ".import")
    with installing(target.parent):
        try:
            _copy(source, part, callback)
            _pin_and_place(entry, part, "imported", None)
        finally:
            part.unlink(missing_ok=True)
    return find_model(entry["id"])


def verify(model_id: str, callback: Callback | None = None) -> str:
    """Read a model again and compare it with its checksum.

    Returns:
        SHA-256 of the weights, as it should be.

    Raises:
        ModelError: not installed, or the content has changed; says what to do.
    """
    model = find_model(model_id)
    weights = model.path / WEIGHTS_NAME if model.path.is_dir() else model.path
    found = file_sha256(weights, callback)
    if "sha256" not in model.card:
        raise with_remedy(
            ModelError(f"{weights} has no checksum to compare with (it has {found})."),
            Remedy("import_first", {"file": str(weights)}),
        )
    if found != model.card["sha256"]:
        raise with_remedy(
            ModelError(
                f"{model_id} is damaged or was changed: its sha256 is {found[:16]}… instead of "
                f"{model.card['sha256'][:16]}…."
            ),
            Remedy("get_again", {"model": model_id}),
        )
    entry = registry().get(model_id)
    if entry and "file" in entry:  # touched, but the same: the list need not warn any more
        _record(entry, weights, found, pinned(entry).get("origin", ""))
    return found


def remove(model_id: str, *, forget: bool = False) -> int:
    """Delete a model from the models folder.

    Args:
        model_id: id of the registry, or name of an own model folder.
        forget: drop the pinned checksum too, so that a changed file is accepted next time.

    Returns:
        bytes that were freed; 0 if nothing was there.

    Raises:
        ModelError: unknown, a demonstration model, or in use.
    """
    entry = registry().get(model_id)
    if entry is None and model_id not in own_models():
        raise unknown(model_id)
    if entry and entry.get("bundled"):
        raise ModelError(f"{model_id} is part of the program and is not removed.")
    folder = models_folder() / model_id
    names = [CARD_NAME, WEIGHTS_NAME]
    if entry and "file" in entry:
        target = model_path(entry)
        names = [target.name, part_of(target).name, part_of(target).name + ".json"]
        names += [RECORD_NAME] if forget else []
    if not folder.is_dir():
        return 0
    freed = 0
    try:
        with exclusive(folder / LOCK_NAME):
            for path in (folder / name for name in names):
                freed += path.stat().st_size if path.is_file() else 0
                path.unlink(missing_ok=True)
        if all(path.name == LOCK_NAME for path in folder.iterdir()):
            shutil.rmtree(folder)  # only ours was in it; a person's other files stay
    except OSError as error:
        raise ModelError(
            f"{model_id} could not be removed ({error.strerror or error}). Close the programs that use "
            "it and try again."
        ) from error
    return freed


def _entry_for(source: Path, found: Identification, model_id: str | None) -> dict[str, Any]:
    """Which model of the registry a file is.  Raises: ModelError: none, another, or several."""
    entries = [each for each in registry().values() if "file" in each]
    fitting = [each for each in entries if _fits(each, found)]
    ids = " or ".join(each["id"] for each in fitting)
    if model_id is not None:
        entry = registered(model_id)
        if entry not in fitting:
            remedy = f"It can be imported as {ids}." if ids else "The registry has no place for it."
            raise ModelError(
                f"{source.name} is {found.sentence}, not what {model_id} is ({entry['title']}). {remedy}"
            )
        return entry
    halves = [each for each in registry().values() if found.kind in each.get("parts", ())]
    if not fitting and halves:
        raise with_remedy(
            ModelError(f"{source.name} is {found.sentence}, one half of a model."),
            pair_remedy(halves[0]),
        )
    if not fitting:
        raise with_remedy(
            ModelError(f"{source.name} is {found.sentence}; the registry has no place for it."),
            Remedy("list_models"),
        )
    named = [each for each in fitting if file_name(each).lower() == source.name.lower()]
    choice = named or fitting
    if len(choice) > 1:
        raise with_remedy(
            ModelError(
                f"{source.name} is {found.sentence}, but its content does not tell which organ it is "
                "for."
            ),
            Remedy("import_as", {"file": str(source), "ids": ids}),
        )
    return choice[0]


def _fits(entry: dict[str, Any], found: Identification) -> bool:
    """Whether a file can be the model of an entry, by its kind and its number of diffusion steps."""
    return entry["kind"] == found.kind and entry.get("T") == found.facts.get("T")


def _import_folder(source: Path, name: str | None, callback: Callback | None) -> InstalledModel:
    """Copy a model folder into the models folder; it appears whole or not at all."""
    card = read_card(source)
    name = name or card["id"]
    target = models_folder() / name
    if name in registry():
        raise with_remedy(
            ModelError(f"{source} calls itself {name}, as a model of the registry does."),
            Remedy("import_renamed", {"file": str(source)}),
        )
    if not name or Path(name).name != name or name.startswith("."):
        raise ModelError(f"{name!r} cannot be the name of a model: use letters, digits, - and _.")
    if target.exists():
        raise with_remedy(
            ModelError(f"There is already a model {name}."), Remedy("remove_first", {"model": name})
        )
    temporary = target.with_name(f".{name}.import")
    with installing(models_folder()):
        try:
            temporary.mkdir(exist_ok=True)
            _copy(source / WEIGHTS_NAME, temporary / WEIGHTS_NAME, callback)
            found = file_sha256(temporary / WEIGHTS_NAME)
            if found != card["sha256"]:
                raise ModelError(
                    f"The weights in {source} are not those that its {CARD_NAME} describes: the file "
                    "was changed or damaged. Get the model again."
                )
            write_json(temporary / CARD_NAME, card)
            temporary.rename(target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
    return find_model(name)


def _pin_and_place(
    entry: dict[str, Any], part: Path, origin: str, declared_sha256: str | None
) -> None:
    """Check a complete file against all that is known of it, pin its checksum, and give it its name."""
    found = file_sha256(part)
    first = pinned(entry).get("sha256")
    known = (
        (entry.get("sha256"), "the registry knows"),
        (declared_sha256, "the server announces"),
        (first, "was pinned the first time"),
    )
    for expected, who in known:
        if expected and found != expected:
            discard(part)
            error = ModelError(
                f"{file_name(entry)} is not the file that is expected: its sha256 is {found[:16]}…, "
                f"{who} {expected[:16]}…. Nothing was installed. "
                + (
                    "Either the publisher changed the file or somebody else did."
                    if expected is first
                    else "Try again."
                )
            )
            changed = Remedy("accept_changed", {"model": entry["id"]})
            raise with_remedy(error, changed if expected is first else None)
    target = model_path(entry)
    # First the pin: a crash in between leaves no file without a checksum.
    _record(entry, part, found, origin)
    part.replace(target)
    discard(part_of(target))


def _record(entry: dict[str, Any], path: Path, sha256: str, origin: str) -> None:
    """Write `installed.json`."""
    status = path.stat()
    record = {
        "id": entry["id"],
        "file": file_name(entry),
        "sha256": sha256,
        "bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "origin": origin,
        "licence": entry["licence"]["name"],
    }
    write_json(model_path(entry).parent / RECORD_NAME, record)


def _copy(source: Path, target: Path, callback: Callback | None) -> None:
    """Copy with progress."""
    total = source.stat().st_size
    done = 0
    with source.open("rb") as reader, target.open("wb") as writer:
        while block := reader.read(BLOCK):
            writer.write(block)
            done += len(block)
            if callback:
                callback(done, total)


@contextmanager
def installing(folder: Path) -> Iterator[None]:
    """Lock a folder while something is installed into it; faults of the disk become sentences."""
    try:
        with exclusive(folder / LOCK_NAME):
            yield
    except OSError as error:
        raise _unwritable(folder, error) from error


def _unwritable(folder: Path, error: OSError) -> ModelError:
    return with_remedy(
        ModelError(f"The model could not be installed in {folder} ({error.strerror or error})."),
        Remedy("models_folder"),
    )
