"""One case of a computing command, from its options to its files: check, read, compute, describe, write."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro
from numpy.typing import NDArray

from difftumor import task
from difftumor.commands.common import CommonOptions, tell_device
from difftumor.commands.console import Reporter
from difftumor.commands.inputs import CaseFiles, CaseImages, assign_channels, read_images
from difftumor.commands.stopping import Stopping
from difftumor.images.outputs import check_outputs, staged
from difftumor.images.volumes import Volume, write_volume
from difftumor.options import UsageError
from difftumor.parameters import to_dict
from difftumor.provenance import describe, image_hash, sidecar_path, write_json
from difftumor.remedies import Remedy, with_remedy
from difftumor.weights.cards import check_target
from difftumor.weights.models import find_model
from difftumor.worker.protocol import Cancelled

SIDECAR = "sidecar"  # role of the output that comes last
MODEL = "model"  # role of a folder


@dataclass(kw_only=True)
class CaseCommand(CommonOptions):
    """Options that all computing commands share, and what each of them says in its own way.

    Attributes:
        task_name: of the task in side-cars.
        ending: of the names of results.
        table: of many cases, in the folder of the results.
        columns: of that table, between case and status at its beginning and error at its end.
        packs: dataclasses of the engine whose fields are options.
        beside: options of files that are written for each of many cases, and the ending of their names.
        single: options of a single case.
    """

    task_name: ClassVar[str]
    ending: ClassVar[str]
    table: ClassVar[str]
    columns: ClassVar[tuple[str, ...]]
    packs: ClassVar[tuple[type, ...]]
    beside: ClassVar[dict[str, str]] = {}
    single: ClassVar[tuple[str, ...]] = ()

    images: tyro.conf.Positional[Annotated[tuple[str, ...], tyro.conf.arg(metavar="IMAGE...")]] = ()
    """One CT, or for a model of several MR sequences each of them: NIfTI, NRRD, MHA, or a DICOM folder. Sequences are
    told by the names of the files (t1, t1c, t2, flair); where they are not, write t1=PATH."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")]
    """Where the result goes; of many cases a folder."""
    batch: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER")] = None
    """All cases of a folder instead; --out is then a folder too, with one table for all cases."""
    datalist: Annotated[Path | None, tyro.conf.arg(metavar="FILE.json")] = None
    """Cases of a list instead: {"cases": [{"image": PATH, "organ": "MASK:5", "name": NAME, ...options...}, ...]}."""
    organ: Annotated[str | None, tyro.conf.arg(metavar="MASK[:label]")] = None
    """Organ mask (of a head: brain mask); of a map of several organs the model's is taken. With --batch write {case}
    in its name."""
    series: str | None = None
    """Series of a DICOM folder that holds several."""
    json: bool = False
    """Print one JSON object with what became of each case, and nothing else on the standard output."""

    @property
    def place(self) -> Path:
        """Where the result goes, or the results.  Raises: UsageError: that was not said."""
        if self.out is None:
            raise UsageError("of many cases --out is the folder for the results: give it")
        return self.out

    # What each command says in its own way.

    def parameters(self) -> Any:
        """The engine's parameter pack of these options.  Raises: UsageError, ModelError."""
        raise NotImplementedError

    def record(self, parameters: Any) -> tuple[task.Task, Any]:
        """The task and its parameters; imports torch."""
        raise NotImplementedError

    def model_names(self) -> tuple[str, ...]:
        """Models that compute."""
        return (self.model,)  # type: ignore[attr-defined]

    def channels(self) -> tuple[str, ...]:
        """Images that the model takes.  Raises: ModelError."""
        return (task.SCAN,)

    def files(self) -> CaseFiles:
        """Where the case is read from.  Raises: UsageError, ModelError."""
        images = assign_channels(self.images, self.channels())
        organs, modality = self.model_facts()
        return CaseFiles(images, self.organ, modality=modality, organs=organs, series=self.series)

    def model_facts(self) -> tuple[tuple[str, ...], str]:
        """Organs that the models are for, and their modality.  Raises: ModelError: not installed."""
        cards = [find_model(model).card for model in self.model_names()]
        organs = dict.fromkeys(organ for card in cards for organ in card.get("organs") or ())
        return tuple(organs), str(cards[0].get("modality", "CT")) if cards else "CT"

    def outputs(self) -> dict[str, Path]:
        """Files by what they hold; the side-car comes last.  Raises: UsageError: options do not go together."""
        raise NotImplementedError

    def write(self, role: str, done: Done, path: Path) -> None:
        """Write one of the files."""
        raise NotImplementedError

    def values(self, parameters: Any, _result: Any) -> dict[str, Any]:
        """The parameter pack as a side-car keeps it, without gaps."""
        return to_dict(parameters)

    def facts(self, record: task.Task, images: CaseImages, result: Any) -> dict[str, Any]:
        """What a side-car says of the result."""
        output = record.output(result, images.case)
        return {"output_sha256": image_hash(output, images.grid.affine), **record.facts(result)}

    def inputs(self, images: CaseImages) -> dict[str, dict[str, Any]]:
        """What a side-car says of the inputs."""
        return images.described

    def wants_result(self) -> bool:
        """Whether the task is run at all."""
        return True

    def more(self, _done: Done, _cache: MutableMapping[str, Any], _stopping: Stopping) -> Any:
        """What else is computed of a case."""
        return None

    def rows(self, content: dict[str, Any]) -> list[dict[str, Any]]:
        """Rows of the table of many cases, from a side-car."""
        raise NotImplementedError

    def in_a_line(self, content: dict[str, Any] | None) -> str:
        """The result in words."""
        raise NotImplementedError

    def sentence(self, content: dict[str, Any] | None) -> str:
        """What is said at the end of a single case."""
        return f"{self.in_a_line(content)}: {self.out}, side-car {sidecar_path(self.place)}"

    def tell_device(self, reporter: Reporter) -> None:
        """Check the device, and say so where we chose the CPU.  Raises: DeviceError."""
        tell_device(self.device, self.model_names()[0], reporter)


@dataclass(frozen=True, eq=False)
class Request:
    """A case that was asked for and can be computed.

    Attributes:
        command: its options.
        parameters: of the task.
        files: where it is read from.
        outputs: file by what it holds.
        before: side-car of a result that is made again.
    """

    command: CaseCommand
    parameters: Any
    files: CaseFiles
    outputs: dict[str, Path]
    before: dict[str, Any] | None = None

    def check(self, *, overwrite: bool) -> None:
        """Refuse outputs that cannot be written.  Raises: VolumeError, FileExistsError, FileNotFoundError."""
        files = [path for role, path in self.outputs.items() if role != MODEL]
        check_outputs(files, self.files.paths, overwrite=overwrite)
        folder = self.outputs.get(MODEL)
        if folder is not None:
            if folder.exists() and not overwrite:
                raise with_remedy(
                    FileExistsError(f"{folder} exists already."), Remedy("overwrite_folder")
                )
            check_target(folder, overwrite)
            folder.parent.mkdir(parents=True, exist_ok=True)


@dataclass(frozen=True, eq=False)
class Done:
    """A computed case.

    Attributes:
        request: what was asked for.
        images: what it was computed from.
        outcome: of the task; None if only something else was wanted.
        content: of the side-car.
        more: what else was computed (`CaseCommand.more`).
        cancelled: only a part of it is finished.
    """

    request: Request
    images: CaseImages
    outcome: task.Outcome | None = None
    content: dict[str, Any] = field(default_factory=dict)
    more: Any = None
    cancelled: bool = False

    def write_volume(self, array: NDArray[Any], path: Path, notice: str | None = None) -> None:
        """Write numbers of our own on the grid of the first image."""
        metadata = {"description": notice} if notice else None
        write_volume(plain(self.images.first, array), path, metadata=metadata)


def requested(command: CaseCommand) -> Request:
    """What a command asks for.  Raises: UsageError: options that do not go together. ModelError."""
    parameters = command.parameters()
    files = command.files()
    return Request(command, parameters, files, command.outputs())


def run_request(
    request: Request,
    cache: MutableMapping[str, Any],
    stopping: Stopping,
    *,
    overwrite: bool,
    images: CaseImages | None = None,
    accept: Callable[[Done], None] = lambda _done: None,
) -> Done:
    """Read, compute and write a case; a cancel keeps what the task has finished.

    Args:
        cache: models, and what they said.
        stopping: shows the progress, and stops.
        overwrite: replace existing outputs.
        images: if they were read already.
        accept: called before anything is written; may raise.

    Raises:
        Cancelled: before anything was finished. Errors of reading, of the task, of writing.
    """
    command, before = request.command, request.before
    reporter = stopping.reporter
    if images is None:
        images = read_images(request.files, reporter)
    done = Done(request, images)
    if command.wants_result():
        record, parameters = command.record(request.parameters)
        case = images.case
        if before is not None:
            case = replace(case, before=before["result"])
        outcome, cancelled = _compute(record, case, parameters, command.device, cache, stopping)
        for note in outcome.result.notes:
            reporter.note(f"Note: {note}")
        facts = command.facts(record, images, outcome.result)
        facts["notes"] = list(dict.fromkeys([*images.notes, *outcome.result.notes]))
        values = command.values(request.parameters, outcome.result)
        model = outcome.model.get("features_of", outcome.model)
        content = describe(
            command.task_name, values, command.inputs(images), model, facts, outcome.device
        )
        asked = to_dict(request.parameters)
        left = [name for name, value in asked.items() if value is None and values[name] is not None]
        if before is not None:
            left = before.get("left_to_model", [])
        if left:
            content["left_to_model"] = left
        done = replace(done, outcome=outcome, content=content, cancelled=cancelled)
    if not done.cancelled:
        done = replace(done, more=command.more(done, cache, stopping))
    accept(done)
    outputs = {
        role: path
        for role, path in request.outputs.items()
        if not (role == "sheet" and done.cancelled)
    }
    with staged(list(outputs.values()), overwrite=overwrite) as stand_ins:
        for role, stand_in in zip(outputs, stand_ins, strict=True):
            if role == SIDECAR:
                write_json(done.content, stand_in)
            else:
                command.write(role, done, stand_in)
    return done


def run_one(command: CaseCommand, cache: MutableMapping[str, Any], reporter: Reporter) -> Done:
    """Compute a single case, as a part of another command.  Raises: as `run_request`."""
    request = requested(command)
    request.check(overwrite=command.overwrite)
    with Stopping(reporter) as stopping:
        return run_request(request, cache, stopping, overwrite=command.overwrite)


def _compute(
    record: task.Task,
    case: task.Case,
    parameters: Any,
    device: str,
    cache: MutableMapping[str, Any],
    stopping: Stopping,
) -> tuple[task.Outcome, bool]:
    """Run the task.

    Returns:
        the outcome, or what was finished of it before a cancel, and whether it was cancelled.

    Raises:
        Cancelled: before anything was finished.
    """
    kept: list[task.Outcome] = []

    def keep(partial: task.Outcome) -> None:
        kept[:] = [partial]

    try:
        return task.run_task(record, case, parameters, device, cache, stopping, keep), False
    except Cancelled:
        if not kept:
            raise
        return kept[0], True


def plain(first: Volume, array: NDArray[Any]) -> Volume:
    """Numbers of our own on the input's grid; the input's scaling of stored values does not apply."""
    storage = replace(first.storage, dtype=array.dtype, slope=1.0, intercept=0.0)
    return replace(first, array=array, storage=storage)


def report(content: dict[str, Any], schema: str) -> dict[str, Any]:
    """What a person or a spreadsheet wants to know of a case, from its side-car."""
    result = content["result"]
    return {
        "schema": schema,
        "schema_version": 1,
        "notice": "Research use only: never for diagnosis.",
        "images": {role: entry["path"] for role, entry in content["inputs"].items()},
        "model": content["model"],
        "device": content["device"],
        "versions": content["versions"],
        **{key: value for key, value in result.items() if key != "output_sha256"},
    }
