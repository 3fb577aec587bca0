"""Work on model files in a thread: download, import, verify, remove. The thread knows no node and no Qt."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from difftumor.weights import models
from difftumor.weights.models import Identification, ModelError
from difftumor.worker.protocol import Cancelled
from DiffTumorSlicerLib.jobs.jobs import Board, SessionError, explain
from DiffTumorSlicerLib.jobs.states import MODELS
from DiffTumorSlicerLib.jobs.wording import sentence_of
from DiffTumorSlicerLib.translation import tr as _

Report = Callable[[int, int], None]
Work = Callable[[Report], str]
OCCUPIED = _("Another model is being worked on. Wait for it, or cancel it first.")


class ModelJobs:
    """One piece of work at a time; its progress and end come to the board with `poll`."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()
        self._progress: tuple[int, int] | None = None
        self._end: dict[str, Any] | None = None

    @property
    def busy(self) -> bool:
        """Whether something is going on."""
        return self._thread is not None

    def start(self, work: Work, number: int, stage: str) -> None:
        """Begin.

        Args:
            work: called in the thread with report(done, total) in bytes, which raises Cancelled when the
                person cancels; returns a sentence for the person.
            number: of the job.
            stage: what is shown meanwhile.

        Raises:
            SessionError: something else is going on.
        """
        if self.busy:
            raise SessionError(OCCUPIED)
        self._stop.clear()
        self._progress = self._end = None
        self._board.begin(MODELS, number, stage)
        self._thread = threading.Thread(
            target=self._run, args=(work,), name="difftumor models", daemon=True
        )
        self._thread.start()

    def check_free(self) -> None:
        """Refuse while something is going on, here or in the worker (SessionError)."""
        if self._board.states[MODELS].running:
            raise SessionError(OCCUPIED)

    def cancel(self) -> bool:
        """Stop; what has been downloaded stays for the next time. False if nothing is going on."""
        if not self.busy:
            return False
        self._stop.set()
        self._board.change(MODELS, stage="stopping", remaining_s=None)
        return True

    def poll(self) -> None:
        """Carry progress and end to the board. Never blocks."""
        if self._thread is None:
            return
        if self._end is not None:
            self._thread.join()
            self._thread = None
            self._board.change(MODELS, **self._end)
        elif self._progress is not None and not self._stop.is_set():
            done, total = self._progress
            self._progress = None
            elapsed = self._board.states[MODELS].elapsed_s
            remaining = elapsed * (total - done) / done if done > 0 and elapsed > 1 else None
            self._board.change(MODELS, done=done, total=total, remaining_s=remaining)

    def close(self) -> None:
        """Stop, and wait a moment for it."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(1.0)
            self._thread = None

    # -------------------------------------------------------------------------------------- thread

    def _report(self, done: int, total: int) -> None:
        if self._stop.is_set():
            raise Cancelled
        self._progress = (done, total)

    def _run(self, work: Work) -> None:
        try:
            end = {"kind": "done", "sentence": work(self._report)}
        except Cancelled:
            end = {
                "kind": "cancelled",
                "sentence": _("Cancelled. A download goes on from here next time."),
            }
        except ModelError as error:
            end = {"kind": "failed", "sentence": sentence_of(error)}
        except Exception as error:  # noqa: BLE001 -- a panel never meets a traceback
            end = {"kind": "failed", **explain(error)}
        self._end = end


def download_work(model_id: str, accept: bool) -> Work:
    """Download a model.  Raises: SessionError: unknown, or its license is not accepted."""
    row = _row(model_id)
    if not (accept or row["licence_accepted"] or row["installed"]):
        raise SessionError(
            _(
                '"{title}" is under the license {licence} ({url}). Read it and '
                "accept it, then the download starts."
            ).format(title=row["title"], licence=row["licence"], url=row["licence_url"])
        )

    def work(report: Report) -> str:
        models.download(model_id, accept_licence=accept, callback=report)
        return _('"{title}" is installed.').format(title=row["title"])

    return work


def import_work(path: Path | str, model_id: str | None, found: Mapping[str, Any]) -> Work:
    """Copy a model from disk; `found` is what the worker has seen in it."""

    def work(report: Report) -> str:
        identification = Identification(**found)
        done = models.import_file(
            path, model_id, identify=lambda _: identification, callback=report
        )
        return _('"{title}" is installed.').format(title=done.card.get("title", done.id))

    return work


def verify_work(model_id: str) -> Work:
    """Compare a model with its checksum.  Raises: SessionError: unknown."""
    row = _row(model_id)

    def work(report: Report) -> str:
        models.verify(model_id, report)
        return _('"{title}" is unchanged.').format(title=row["title"])

    return work


def remove_work(model_id: str, forget: bool) -> Work:
    """Delete a model.  Raises: SessionError: unknown."""
    row = _row(model_id)

    def work(_report: Report) -> str:
        freed = models.remove(model_id, forget=forget)
        return _('"{title}" was removed, {size:.0f} MB are free again.').format(
            title=row["title"], size=freed / 1e6
        )

    return work


def _row(model_id: str) -> dict[str, Any]:
    row = next((row for row in models.list_models() if row["id"] == model_id), None)
    if row is None:
        raise SessionError(
            _('There is no model "{model}". Choose one of the list.').format(model=model_id)
        )
    return row
