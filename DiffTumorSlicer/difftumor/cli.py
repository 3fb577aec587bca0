"""The program `difftumor`: one subcommand per task, exit codes 0 (done), 1 (failed), 2 (usage)."""

from __future__ import annotations

import os
from typing import Annotated

# Threads that wait by spinning steal the second core and count as work; set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import tyro

from difftumor.commands.anomaly import Anomaly
from difftumor.commands.demo import Demo
from difftumor.commands.doctor import Doctor
from difftumor.commands.evaluate import Evaluate
from difftumor.commands.learn import Learn
from difftumor.commands.models import Models
from difftumor.commands.phantom import MakePhantom
from difftumor.commands.replay import Replay
from difftumor.commands.segment import Segment
from difftumor.commands.study import ReaderStudy
from difftumor.commands.synthesize import Synthesize
from difftumor.console import complain
from difftumor.options import UsageError
from difftumor.worker.failures import explain_failure
from difftumor.worker.protocol import Cancelled

Command = (
    Annotated[Doctor, tyro.conf.subcommand("doctor")]
    | Annotated[Models, tyro.conf.subcommand("models")]
    | Annotated[MakePhantom, tyro.conf.subcommand("phantom")]
    | Annotated[Anomaly, tyro.conf.subcommand("anomaly")]
    | Annotated[Synthesize, tyro.conf.subcommand("synthesize")]
    | Annotated[Segment, tyro.conf.subcommand("segment")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Learn, tyro.conf.subcommand("learn")]
    | Annotated[Replay, tyro.conf.subcommand("replay")]
    | Annotated[ReaderStudy, tyro.conf.subcommand("study")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
)


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: without the program's name; None takes those of the process.

    Returns: 0 done, 1 failed or cancelled, 2 wrong usage.
    """
    try:
        command = tyro.cli(
            Command,
            prog="difftumor",
            description="Diffusion models on tumors. Research use only; never for diagnosis.",
            args=arguments,
            config=(tyro.conf.OmitSubcommandPrefixes,),
        )
    except SystemExit as stop:
        return int(stop.code or 0)
    try:
        return command.run()
    except UsageError as error:
        return _failed(str(error), 2)
    except (KeyboardInterrupt, Cancelled):
        return _failed("cancelled; what was not finished was not written", 1)
    except Exception as error:  # noqa: BLE001 (the one place where the program ends)
        failure = explain_failure(error)
        if failure.kind == "internal":
            return _failed(f"{failure.message} {failure.hint}\n{failure.details}", 1)
        return _failed(" ".join(filter(None, (failure.message, failure.hint))), 1)


def _failed(sentence: str, code: int) -> int:
    complain(f"difftumor: {sentence}")
    return code
