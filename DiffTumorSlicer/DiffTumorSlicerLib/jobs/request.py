"""A request: what a panel or a script asks for, checked, with all that its job and its side-cars are made of.

Each capability makes its requests (its questions, its nodes, its sentence); all that follows is here, once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from difftumor.parameters import to_dict
from difftumor.provenance import describe
from DiffTumorSlicerLib.jobs.cases import Case
from DiffTumorSlicerLib.jobs.host import Host
from DiffTumorSlicerLib.jobs.inputs import node_facts, watch
from DiffTumorSlicerLib.jobs.jobs import Answer, Job, Outcome, SessionError
from DiffTumorSlicerLib.jobs.wording import capitalized
from DiffTumorSlicerLib.translation import tr as _

WARM_MEMORY = 1_000_000_000  # of a worker that already holds the networks
NETWORKS_MEMORY = 2_500_000_000  # of a worker that loads them, at its peak; most tasks
SPARE_DISK = 64_000_000


@dataclass(frozen=True, eq=False)
class Request:
    """One task, once or several times with other parameters.

    Attributes:
        task: of the worker.
        panel: whose request it is; it takes the place of an older one of the same panel.
        button: what starts it, as it stands on the panel.
        packs: parameters, one dataclass for each time.
        case: images and organ.
        show: called with this request and the answers; adds nodes, and says how it ended.
        memory: bytes for arrays, here and in the worker.
        disk: bytes for arrays on their way.
        models: that the worker loads and keeps; none for a task without networks.
        networks: bytes of a worker that loads and runs them.
        device: as the worker names it.
        keep: as `show`, for what a request that is cancelled had finished; None: nothing is worth keeping.
        stated: what a side-car repeats of an answer.
        facts: further facts of each result.
        titles: of each pack, shown before the stage; none for one pack.
        alone: name of the only image for a task that takes one CT; "" if images go by their channels.
        labels: whole numbers that a reader painted on the grid of the case, and `labels_node` that holds them.
        more: further words to the worker.
    """

    task: str
    panel: str
    button: str
    packs: Sequence[Any]
    case: Case
    show: Callable[[Request, list[Answer]], Outcome]
    memory: float
    disk: float
    models: tuple[str, ...] = ()
    networks: float = NETWORKS_MEMORY
    device: str = "auto"
    keep: Callable[[Request, list[Answer]], Outcome | None] | None = None
    stated: tuple[str, ...] = ("lesions", "notes")
    facts: Mapping[str, Any] = field(default_factory=dict)
    titles: Sequence[str] = ()
    alone: str = ""
    labels: NDArray[np.integer[Any]] | None = None
    labels_node: Any | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    def job(self, scene: Any) -> Job:
        """What is sent, and what becomes of the answers.

        Args:
            scene: of the nodes.
        """
        arrays = self.case.arrays(alone=self.alone)
        if self.labels is not None:
            arrays["labels"] = self.labels
        shared = {"affine": self.case.grid.affine.tolist(), "device": self.device, **self.more}
        titles = self.titles or [""] * len(self.packs)
        keep = self.keep
        return Job(
            self.panel,
            self.task,
            [
                (title, {"parameters": to_dict(pack), **shared})
                for title, pack in zip(titles, self.packs, strict=True)
            ],
            lambda answers: self.show(self, answers),
            lambda: arrays,
            watch(scene, self.case.images.values(), self.button),
            of_scene=True,
            keep=None if keep is None else lambda answers: keep(self, answers),
        )

    def sidecar(self, answer: Answer, pack: Any = None) -> dict[str, Any]:
        """How a result was made (docs/formats.md).

        Args:
            answer: of the worker.
            pack: its parameters; the only ones if None.
        """
        facts = answer.metadata
        hashes = facts.get("sha256", {})
        inputs = self.case.inputs(hashes)
        if self.labels_node is not None:
            inputs["labels"] = node_facts(self.labels_node, hashes.get("labels"))
        result = {name: facts[name] for name in self.stated if name in facts}
        result |= {"output_sha256": hashes.get("output"), **self.facts}
        values = to_dict(self.packs[0] if pack is None else pack)
        made = describe(self.task, values, inputs, facts["model"], result, facts["device"])
        made["versions"] = facts.get("versions", made["versions"])  # of the Python that computed
        return made


def check_free(request: Request, host: Host, *, warm: bool) -> None:
    """Compare what a request needs with the memory and the disk that are free.

    Args:
        request: what is to be started.
        host: measures.
        warm: whether the worker holds the models already; they are part of what is in use then.

    Raises:
        SessionError: too little of either, and what helps.
    """
    needed = request.memory + (WARM_MEMORY if warm else request.networks)
    free = host.free_memory()
    if free is not None and free < needed:
        raise SessionError(
            _(
                "About {needed:.1f} GB of memory are needed and {free:.1f} GB are free. Close other "
                "programs or volumes, or crop the scan with the module Crop Volume, then try again."
            ).format(needed=needed / 1e9, free=free / 1e9)
        )
    folder = host.arrays_folder
    try:
        free_disk = host.free_disk(folder)
    except OSError as error:
        raise SessionError(
            _(
                "The folder for temporary files, {folder}, cannot be used ({why}). Choose "
                "another one in the application settings."
            ).format(folder=folder, why=error.strerror or error)
        ) from error
    disk = request.disk + SPARE_DISK
    if free_disk < disk:
        raise SessionError(
            _(
                "About {needed:.0f} MB are needed for temporary files and {free:.0f} MB are free in "
                "{folder}. Free some space on that disk, then try again."
            ).format(needed=disk / 1e6, free=free_disk / 1e6, folder=folder)
        )


def notes_of(answers: Sequence[Answer]) -> tuple[str, ...]:
    """The worker's remarks about its results as sentences, each once."""
    notes = [note for answer in answers for note in answer.metadata.get("notes", [])]
    return tuple(dict.fromkeys(capitalized(note) for note in notes))


def box_of_answer(answer: Answer) -> tuple[slice, slice, slice]:
    """The voxels of the scan that the arrays of an answer cover."""
    i, j, k = (slice(start, stop) for start, stop in answer.metadata["box"])
    return i, j, k
