"""Sets of 2-D slices on disk: what the anomaly networks learn from and are measured on.

A set is a folder with memory-mapped arrays of one row per slice and `set.json`, which says how many rows are
finished; a set can be read while it grows.

    images.npy       float16 (n, C, H, W)  prepared as the engine does it, in the model's intensity range
    diseased.npy     bool (n,)             the label of the image: all that training reads beside the images
    patient.npy      int32 (n,)            row of `patients` in set.json; a patient is in one split only
    position.npy     int32 (n,)            voxel index of the slice in the patient's image
    organ.npy        bool (n, H, W)        for the evaluation only, as are the next two:
    tumor.npy        bool (n, H, W)
    look_alikes.npy  uint8 (n, H, W)       healthy dark things of a phantom, else 0
    labels.npy       uint8 (n, H, W)       parts of the tumor (brain: 1 edema, 2 necrotic core, 3 enhancing; else 1);
                                           for segmentation learned from few slices
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.anomaly.slices import SliceFormat

SET_VERSION = 1
SET_FILE = "set.json"
SPLITS = ("train", "validation", "test")
_PER_SLICE = {"diseased": "?", "patient": "<i4", "position": "<i4"}
_PER_PIXEL = {"organ": "?", "tumor": "?", "look_alikes": "|u1"}
_LABELS = "labels"  # sets of the first version of the program have none


class SliceSetError(ValueError):
    """A slice set that cannot be read or continued."""


@dataclass(frozen=True, eq=False)
class Truth:
    """What is known of the pixels of a set; never for training.

    Attributes:
        organ: bool (n, H, W).
        tumor: bool (n, H, W).
        look_alikes: uint8 (n, H, W), values of `difftumor.phantom.lookalikes.LookAlike`.
    """

    organ: NDArray[np.bool_]
    tumor: NDArray[np.bool_]
    look_alikes: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class SliceSet:
    """A slice set that was opened.

    Attributes:
        folder: of the set.
        split: "train", "validation" or "test".
        format: how the images were prepared.
        images: float16 (n, C, H, W), memory-mapped.
        diseased: bool (n,).
        patient: int32 (n,), index into `patients`.
        position: int32 (n,).
        patients: names.
        complete: False while the set is still being drawn.
        settings: the wishes it was drawn by.
    """

    folder: Path
    split: str
    format: SliceFormat
    images: NDArray[np.float16]
    diseased: NDArray[np.bool_]
    patient: NDArray[np.int32]
    position: NDArray[np.int32]
    patients: tuple[str, ...]
    complete: bool
    settings: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.images)

    def truth(self) -> Truth:
        """Masks of organ, tumor and look-alikes, for the evaluation."""
        arrays = [_opened(self.folder, name)[: len(self)] for name in _PER_PIXEL]
        return Truth(*arrays)

    def labels(self) -> NDArray[np.uint8]:
        """Parts of the tumor, uint8 (n, H, W), memory-mapped; where a set has none, all tumor is 1."""
        if (self.folder / f"{_LABELS}.npy").is_file():
            return _opened(self.folder, _LABELS)[: len(self)]
        return _opened(self.folder, "tumor")[: len(self)].astype(np.uint8)


def read_slice_set(folder: Path) -> SliceSet:
    """Open a set, finished or still growing.

    Args:
        folder: holds set.json; of a set with splits, the folder of one split.

    Raises:
        FileNotFoundError: there is no set; says how to make one.
        SliceSetError: it is damaged, empty or of another version.
    """
    facts = _read_facts(folder)
    count = facts["count"]
    if count == 0:
        raise SliceSetError(
            f"The slice set {folder} holds no slice yet. Wait until it is drawn further, or "
            "look at what training.data.slices says."
        )
    try:
        arrays = {name: _opened(folder, name)[:count] for name in ("images", *_PER_SLICE)}
        made_for = SliceFormat(**{k: _tupled(v) for k, v in facts["format"].items()})
    except (OSError, ValueError, TypeError) as error:
        raise SliceSetError(
            f"The slice set {folder} is damaged: {error}. Draw it again into another folder."
        ) from error
    if any(len(array) != count for array in arrays.values()):
        raise SliceSetError(
            f"The slice set {folder} has fewer rows than its {SET_FILE} says ({count}). "
            "Draw it again into another folder."
        )
    return SliceSet(
        folder,
        facts["split"],
        made_for,
        arrays["images"],
        np.array(arrays["diseased"]),
        np.array(arrays["patient"]),
        np.array(arrays["position"]),
        tuple(facts["patients"]),
        facts["complete"],
        facts["settings"],
    )


@dataclass(frozen=True, eq=False)
class PatientSlices:
    """The slices of one patient that join a set.

    Attributes:
        images: float32 (n, C, H, W).
        diseased: bool (n,).
        position: int (n,).
        organ, tumor: bool (n, H, W).
        look_alikes: uint8 (n, H, W).
        labels: parts of the tumor, uint8 (n, H, W); None: all tumor is 1.
    """

    images: NDArray[np.float32]
    diseased: NDArray[np.bool_]
    position: NDArray[np.int64]
    organ: NDArray[np.bool_]
    tumor: NDArray[np.bool_]
    look_alikes: NDArray[np.uint8]
    labels: NDArray[np.uint8] | None = None


class SliceSetWriter:
    """Adds patients to a set; what was added survives a crash, and the same settings continue it.

    Args:
        folder: made if it does not exist.
        split: one of SPLITS.
        made_for: how the images are prepared.
        settings: everything that decides about the slices, JSON-ready; a set is continued only with equal ones.
        capacity: most slices that can come; the files are sparse until then.

    Raises:
        SliceSetError: the folder holds a set of other settings.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        made_for: SliceFormat,
        settings: Mapping[str, Any],
        capacity: int,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}; got {split!r}")
        self.folder = folder
        wanted = {
            "version": SET_VERSION,
            "split": split,
            "format": asdict(made_for),
            "settings": dict(settings),
            "capacity": capacity,
        }
        # What JSON makes of it (tuples become lists) is what a stored set is compared with.
        wanted = json.loads(json.dumps(wanted))
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / SET_FILE).exists():
            self._facts = _read_facts(folder)
            differing = [name for name, value in wanted.items() if self._facts.get(name) != value]
            if differing:
                raise SliceSetError(
                    f"{folder} holds a slice set of other settings ({', '.join(differing)} differ). "
                    "Give the same settings to continue it, or another folder."
                )
        else:
            self._facts = {**wanted, "count": 0, "healthy": 0, "diseased": 0}
            self._facts |= {"complete": False, "patients": [], "done": []}
            size = made_for.image_size
            channels = len(made_for.channel_order)
            self._create("images", "<f2", (capacity, channels, size, size))
            for name, kind in _PER_SLICE.items():
                self._create(name, kind, (capacity,))
            for name, kind in {**_PER_PIXEL, _LABELS: "|u1"}.items():
                self._create(name, kind, (capacity, size, size))
            self._save()

    @property
    def count(self) -> int:
        """Slices so far."""
        return int(self._facts["count"])

    @property
    def healthy(self) -> int:
        """Healthy slices so far."""
        return int(self._facts["healthy"])

    @property
    def diseased(self) -> int:
        """Diseased slices so far."""
        return int(self._facts["diseased"])

    @property
    def complete(self) -> bool:
        """Whether nothing is to be added any more."""
        return bool(self._facts["complete"])

    def has(self, name: str) -> bool:
        """Whether a patient was already treated, also one without a usable slice."""
        return name in self._facts["done"]

    def add(self, name: str, slices: PatientSlices | None) -> None:
        """Append the slices of a patient; None for one that has no usable slice."""
        facts = self._facts
        if slices is not None and len(slices.images):
            first, last = self.count, self.count + len(slices.images)
            rows = {
                "images": slices.images,
                "diseased": slices.diseased,
                "patient": np.full(len(slices.images), len(facts["patients"])),
                "position": slices.position,
                "organ": slices.organ,
                "tumor": slices.tumor,
                "look_alikes": slices.look_alikes,
            }
            if (self.folder / f"{_LABELS}.npy").is_file():
                rows[_LABELS] = slices.tumor if slices.labels is None else slices.labels
            for array, values in rows.items():
                stored = np.load(self.folder / f"{array}.npy", mmap_mode="r+")
                stored[first:last] = values
                stored.flush()
            facts["patients"].append(name)
            facts["count"] = last
            facts["diseased"] += int(slices.diseased.sum())
            facts["healthy"] += int((~slices.diseased).sum())
        facts["done"].append(name)
        self._save()  # only now do the rows count

    def finish(self) -> None:
        """Cut the files to what was filled, and say that the set is complete."""
        for name in ("images", *_PER_SLICE, *_PER_PIXEL, _LABELS):
            if (self.folder / f"{name}.npy").is_file():
                _shorten(self.folder / f"{name}.npy", self.count)
        self._facts["complete"] = True
        self._save()

    def _create(self, name: str, kind: str, shape: tuple[int, ...]) -> None:
        np.lib.format.open_memmap(
            self.folder / f"{name}.npy", mode="w+", dtype=np.dtype(kind), shape=shape
        ).flush()

    def _save(self) -> None:
        temporary = self.folder / f"{SET_FILE}.part"
        temporary.write_text(json.dumps(self._facts, indent=1) + "\n", encoding="utf-8")
        temporary.replace(self.folder / SET_FILE)


def _shorten(path: Path, rows: int) -> None:
    """Cut an .npy file to its first rows in place; its header has room for any number."""
    with path.open("r+b") as file:
        version = np.lib.format.read_magic(file)
        shape, fortran, kind = np.lib.format.read_array_header_1_0(file)
        start = file.tell()
        header = io.BytesIO()
        described = {
            "shape": (rows, *shape[1:]),
            "fortran_order": fortran,
            "descr": np.lib.format.dtype_to_descr(kind),
        }
        np.lib.format.write_array_header_1_0(header, described)
        if version != (1, 0) or len(header.getvalue()) != start:
            return  # an older NumPy left no room: the rows beyond the count are simply not read
        file.seek(0)
        file.write(header.getvalue())
        size = kind.itemsize * int(np.prod((rows, *shape[1:]), dtype=np.int64))
    os.truncate(path, start + size)


def _opened(folder: Path, name: str) -> NDArray[Any]:
    return np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)


def _tupled(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _read_facts(folder: Path) -> dict[str, Any]:
    """set.json, checked.

    Raises:
        FileNotFoundError: as `read_slice_set`.
        SliceSetError: likewise.
    """
    path = folder / SET_FILE
    if not path.is_file():
        splits = [split for split in SPLITS if (folder / split / SET_FILE).is_file()]
        hint = (
            f"It has splits: name one of {', '.join(str(folder / s) for s in splits)}."
            if splits
            else "Draw one: python -m training.data.slices --help."
        )
        raise FileNotFoundError(f"There is no slice set in {folder}. {hint}")
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        version, needed = facts["version"], ("count", "split", "format", "settings", "patients")
    except (ValueError, KeyError, TypeError) as error:
        raise SliceSetError(f"{path} describes no slice set: {error!r}. Draw it again.") from error
    if version != SET_VERSION:
        raise SliceSetError(
            f"{path} has version {version}; this program reads version {SET_VERSION}. Draw it again."
        )
    if missing := [name for name in (*needed, "complete", "done") if name not in facts]:
        raise SliceSetError(f"{path} lacks {', '.join(missing)}. Draw the set again.")
    return facts
