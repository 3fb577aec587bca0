"""Through all cases of a command: one that fails is told and the rest goes on; what is finished is not made again."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from difftumor.commands.cases import NamedCase, cases_of
from difftumor.commands.console import Reporter, complain, say
from difftumor.commands.inputs import read_images
from difftumor.commands.resuming import (
    ChangedCase,
    changed_inputs,
    changed_request,
    is_whole,
    sidecar_of,
)
from difftumor.commands.run import (
    SIDECAR,
    CaseCommand,
    Done,
    Request,
    requested,
    run_one,
    run_request,
)
from difftumor.commands.stopping import Stopping
from difftumor.devices import DeviceError
from difftumor.images.outputs import check_outputs
from difftumor.images.staging import clear_remains, staged
from difftumor.locks import try_lock
from difftumor.options import UsageError
from difftumor.weights.models import ModelError
from difftumor.worker.failures import explain_failure
from difftumor.worker.protocol import Cancelled, is_disk_full

LOCK = ".difftumor-running"
UNFINISHED = "cancelled: what is finished was written, {missing} slices are missing"


@dataclass(eq=False)
class Row:
    """What became of a case: done, kept (it was finished before), failed or cancelled."""

    name: str
    status: str
    words: str = ""
    error: str = ""
    outputs: dict[str, str] = field(default_factory=dict)
    lines: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        told = {"name": self.name, "status": self.status, "outputs": self.outputs}
        return {**told, "words": self.words, "error": self.error or None}

    def for_table(self) -> list[dict[str, Any]]:
        """Lines of the table, one at least."""
        ends = {"case": self.name, "status": self.status, "error": self.error}
        return [{**line, **ends} for line in self.lines or [{}]]


def run_cases(command: CaseCommand) -> int:
    """Compute all cases that are asked for.  Returns: the exit code."""
    cases = cases_of(command)
    if not command.images:
        return _many(command, cases)
    (case,) = cases
    try:
        done = _alone(command)
    except UsageError:
        raise
    except (Exception, KeyboardInterrupt) as error:
        if command.json:
            stopped = isinstance(error, Cancelled | KeyboardInterrupt)
            row = Row(case.name, "cancelled" if stopped else "failed", error=_worded(error))
            _print_summary(command, [row], None)
        raise
    row = _row(case.name, done, "cancelled" if done.cancelled else "done")
    if command.json:
        _print_summary(command, [row], None)
    else:
        say(command.sentence(done.content or None))
    if done.cancelled:
        missing = done.content["result"]["unfinished"]
        complain("difftumor: " + UNFINISHED.format(missing=missing))
    return 1 if done.cancelled else 0


def _alone(command: CaseCommand) -> Done:
    """A single case."""
    requested(command).check(overwrite=command.overwrite)
    with Reporter(command.quiet) as reporter:
        command.tell_device(reporter)
        return run_one(command, {}, reporter)


def _many(command: CaseCommand, cases: Sequence[NamedCase]) -> int:
    """Case after case; the table is written anew after each."""
    folder = command.place
    table = folder / command.table
    if table.is_dir():
        raise UsageError(f"{table} is a folder, where the table should go")
    requests, broken = _prepared(cases)
    rows: list[Row] = []
    stopped = False
    folder.mkdir(parents=True, exist_ok=True)
    check_outputs([table], [], overwrite=True)
    with _alone_in(folder), Reporter(command.quiet) as reporter, Stopping(reporter) as stopping:
        clear_remains([table])
        command.tell_device(reporter)
        run = _Run({}, {}, broken, stopping, len({case.command.model_names() for case in cases}))
        for number, (case, request) in enumerate(zip(cases, requests, strict=True), start=1):
            reporter.note(f"case {number} of {len(cases)}: {case.name}")
            try:
                rows.append(run.one(case, request))
            except Cancelled:
                stopped = True
                break
            except Exception as error:  # whatever is wrong with one case, the others go on
                if run.stops_all(case, error):
                    raise
                rows.append(Row(case.name, "failed", error=_worded(error)))
                complain(f"case {number} of {len(cases)} ({case.name}) failed: {rows[-1].error}")
            else:
                reporter.note(f"{case.name}: {rows[-1].words}")
            _write_table(rows, command, table)
            if stopping.asked or rows[-1].status == "cancelled":
                stopped = len(rows) < len(cases) or rows[-1].status == "cancelled"
                break
        if rows or not stopped:
            _write_table(rows, command, table)
    return _told(command, rows, len(cases), table, stopped=stopped)


def _told(
    command: CaseCommand, rows: Sequence[Row], count: int, table: Path, *, stopped: bool
) -> int:
    """The end of many cases in words.  Returns: the exit code."""
    failed = [row for row in rows if row.status == "failed"]
    finished = sum(row.status in ("done", "kept") for row in rows)
    if command.json:
        _print_summary(command, rows, table, stopped=stopped)
    else:
        say(f"{finished} of {count} cases are done, in {table.parent}; table {table}")
    if failed:
        width = max(len(row.name) for row in failed)
        listed = "\n".join(f"  {row.name:{width}}  {row.error}" for row in failed)
        complain(f"failed cases ({len(failed)}):\n{listed}")
    if stopped:
        complain("difftumor: cancelled; the same command continues with the cases that are missing")
    return 1 if failed or stopped else 0


@dataclass(eq=False)
class _Run:
    """What cases of a run share.

    Attributes:
        cache: models, and what they said.
        hashes: of weights, by model.
        broken: models that cannot be used -> why.
        stopping: progress.
        different: how many different models (or ensembles) are asked for.
    """

    cache: MutableMapping[str, Any]
    hashes: MutableMapping[str, str | None]
    broken: dict[tuple[str, ...], ModelError]
    stopping: Stopping
    different: int

    def one(self, case: NamedCase, request: Request | None) -> Row:
        """A case: kept if it was finished before by the same request, else computed.

        Raises:
            ChangedCase: something else was computed before, and may not be replaced.
        """
        if request is None or case.command.model_names() in self.broken:
            return Row(case.name, "failed", error=str(self.broken[case.command.model_names()]))
        clear_remains(list(request.outputs.values()))
        overwrite, images = request.command.overwrite, None
        content = (
            sidecar_of(request) if not overwrite or request.outputs[SIDECAR].is_file() else None
        )
        if content is not None:
            changed = changed_request(content, request, self.hashes)
            if not changed:
                images = read_images(request.files, self.stopping.reporter)
                changed = changed_inputs(content, images, request)
            if changed and not overwrite:
                raise ChangedCase(
                    f"{request.outputs[SIDECAR]} tells of another result: {changed}. Choose another --out, or add "
                    "--overwrite."
                )
            if not changed and is_whole(content, request):
                done = Done(request, images, content=content)  # type: ignore[arg-type]
                return _row(case.name, done, "kept")
            overwrite = True  # of this very case a part is missing, or it may be replaced
        request.check(overwrite=overwrite)
        done = run_request(request, self.cache, self.stopping, overwrite=overwrite, images=images)
        return _row(case.name, done, "cancelled" if done.cancelled else "done")

    def stops_all(self, case: NamedCase, error: Exception) -> bool:
        """Whether what went wrong with one case goes wrong with all."""
        if isinstance(error, ModelError):
            self.broken[case.command.model_names()] = error
            return self.different == 1
        return isinstance(error, DeviceError) or (
            isinstance(error, OSError) and is_disk_full(error)
        )


def _prepared(
    cases: Sequence[NamedCase],
) -> tuple[list[Request | None], dict[tuple[str, ...], ModelError]]:
    """What each case asks for. A model that cannot be used is told once; None where a case needs it.

    Raises:
        UsageError: options of a case do not go together.
        ModelError: no case can be computed.
    """
    requests: list[Request | None] = []
    broken: dict[tuple[str, ...], ModelError] = {}
    for number, case in enumerate(cases, start=1):
        try:
            requests.append(requested(case.command))
        except UsageError as error:
            raise UsageError(f"case {number} ({case.name}): {error}") from None
        except ModelError as error:
            broken.setdefault(case.command.model_names(), error)
            requests.append(None)
    if not any(requests):
        raise next(iter(broken.values()))
    for reason in broken.values():
        complain(str(reason))
    return requests, broken


def _row(name: str, done: Done, status: str) -> Row:
    """What is told of a finished case."""
    command, content = done.request.command, done.content or None
    outputs = {role: str(path) for role, path in done.request.outputs.items()}
    row = Row(name, status, command.in_a_line(content), outputs=outputs)
    if content is not None and SIDECAR in done.request.outputs:
        row.lines = command.rows(content)
    return row


def _worded(error: BaseException) -> str:
    """An error in a sentence."""
    if isinstance(error, ValueError | OSError | ModelError | DeviceError):
        return str(error)
    if isinstance(error, Cancelled | KeyboardInterrupt) or not isinstance(error, Exception):
        return "cancelled"
    failure = explain_failure(error)
    return " ".join(filter(None, (failure.message, failure.hint)))


def _write_table(rows: Sequence[Row], command: CaseCommand, path: Path) -> None:
    """Replace the table as a whole: what was finished is kept, whatever comes."""
    columns = ["case", "status", *command.columns, "error"]
    with (
        staged([path], overwrite=True) as (stand_in,),
        stand_in.open("w", newline="", encoding="utf-8") as file,
    ):
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(line for row in rows for line in row.for_table())


def _print_summary(
    command: CaseCommand, rows: Sequence[Row], table: Path | None, *, stopped: bool = False
) -> None:
    """The JSON object of `--json`."""
    counts = {
        status: sum(row.status == status for row in rows) for status in ("done", "kept", "failed")
    }
    told = {
        "task": command.task_name,
        **counts,
        "cancelled": stopped or any(row.status == "cancelled" for row in rows),
        "table": str(table) if table is not None else None,
        "cases": [row.to_dict() for row in rows],
    }
    say(json.dumps(told, indent=2))


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Keep other runs out of the folder of the results.  Raises: FileExistsError: one is at work there."""
    path = folder / LOCK
    with path.open("ab") as file:
        if try_lock(file.fileno()) is False:
            raise FileExistsError(
                f"Another run of difftumor writes into {folder}. Wait for its end, or choose another --out."
            )
        try:
            yield
        finally:
            with suppress(OSError):  # one that is open cannot go everywhere
                path.unlink()
