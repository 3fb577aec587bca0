"""The program `difftumor`: one subcommand per task, exit codes 0 (done), 1 (failed), 2 (usage)."""

from __future__ import annotations

import os
import sys
from typing import Annotated

# Threads that wait by spinning steal the second core and count as work; set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import tyro

from difftumor.commands.demo import Demo
from difftumor.commands.doctor import Doctor
from difftumor.commands.models import Models
from difftumor.commands.phantom import MakePhantom
from difftumor.commands.replay import Replay
from difftumor.commands.synthesize import Synthesize, UsageError
from difftumor.devices import DeviceError
from difftumor.models import ModelError
from difftumor.protocol import Cancelled, is_disk_full

Command = (
    Annotated[Doctor, tyro.conf.subcommand("doctor")]
    | Annotated[Models, tyro.conf.subcommand("models")]
    | Annotated[MakePhantom, tyro.conf.subcommand("phantom")]
    | Annotated[Synthesize, tyro.conf.subcommand("synthesize")]
    | Annotated[Replay, tyro.conf.subcommand("replay")]
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
        return _failed("cancelled; nothing was written", 1)
    except MemoryError:
        return _failed(
            "the machine ran out of memory; close other programs or use a smaller scan", 1
        )
    except (ValueError, ModelError, DeviceError, FileNotFoundError) as error:
        return _failed(str(error), 1)
    except OSError as error:
        if is_disk_full(error):
            return _failed(
                f"the disk is full ({error.filename or 'output folder'}); free some space", 1
            )
        return _failed(f"{error.strerror or error}: {error.filename or ''}".rstrip(": "), 1)


def _failed(sentence: str, code: int) -> int:
    print(f"difftumor: {sentence}", file=sys.stderr)  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
