"""The program `difftumor`: one subcommand per task, exit codes 0 (done), 1 (failed), 2 (usage).

Only the module of the named subcommand is imported, so that `difftumor --help` answers at once.
"""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from dataclasses import dataclass
from typing import Any

from difftumor import __version__

# Threads that wait by spinning steal the second core and count as work; set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

DESCRIPTION = "Diffusion models on tumors. Research use only; never for diagnosis."


@dataclass(frozen=True)
class Subcommand:
    """A subcommand by its name: where its class is, and what it does in a line."""

    name: str
    kind: str
    help: str

    def load(self) -> Any:
        """The class of its options; `run()` does it."""
        module = importlib.import_module(f"difftumor.commands.{self.name}")
        return getattr(module, self.kind)


SUBCOMMANDS = {
    command.name: command
    for command in (
        Subcommand("doctor", "Doctor", "What this computer can do: devices, models, disk, memory."),
        Subcommand("models", "Models", "List, download, import, verify and remove models."),
        Subcommand(
            "phantom", "MakePhantom", "Write an abdomen in CT or a head in MR by computation."
        ),
        Subcommand("synthesize", "Synthesize", "Put a synthetic tumor into a CT."),
        Subcommand("anomaly", "Anomaly", "Make a heat map of where an image departs from healthy."),
        Subcommand("segment", "Segment", "Segment tumors in a CT."),
        Subcommand("learn", "Learn", "Segment a case after a few labeled slices of it."),
        Subcommand("evaluate", "Evaluate", "Compare predicted tumors with references."),
        Subcommand("replay", "Replay", "Make a result again from its side-car."),
        Subcommand("study", "ReaderStudy", "Blinded reading of real and synthetic tumors."),
        Subcommand("demo", "Demo", "Show all of it on a phantom, and in your CT."),
    )
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: without the program's name; None takes those of the process.

    Returns:
        0 done, 1 failed or cancelled, 2 wrong usage.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] not in SUBCOMMANDS:
        return _without_command(words)
    try:
        command = parsed(words)
    except SystemExit as stop:
        return int(stop.code or 0)
    from difftumor.options import UsageError
    from difftumor.worker.failures import explain_failure
    from difftumor.worker.protocol import Cancelled

    try:
        return int(command.run())
    except UsageError as error:
        return _failed(str(error), 2)
    except (KeyboardInterrupt, Cancelled):
        return _failed("cancelled; what was not finished was not written", 1)
    except Exception as error:  # noqa: BLE001 (the one place where the program ends)
        failure = explain_failure(error)
        if failure.kind == "internal":
            return _failed(f"{failure.message} {failure.hint}\n{failure.details}", 1)
        return _failed(" ".join(filter(None, (failure.message, failure.hint))), 1)


def parsed(words: list[str]) -> Any:
    """The options of a subcommand.

    Args:
        words: its name, and what follows it.

    Raises:
        SystemExit: help was asked for, or the options are wrong; what is to be said was said.
    """
    import tyro

    name, *rest = words
    return tyro.cli(
        SUBCOMMANDS[name].load(),
        prog=f"difftumor {name}",
        args=rest,
        config=(tyro.conf.OmitSubcommandPrefixes,),
    )


def _without_command(words: list[str]) -> int:
    """Answer where no subcommand is named.  Returns: the exit code."""
    first = words[0] if words else ""
    if first == "--version":
        print(f"difftumor {__version__}")  # noqa: T201
        return 0
    if first in ("-h", "--help"):
        print(overview())  # noqa: T201
        return 0
    if not first:
        print(overview(), file=sys.stderr)  # noqa: T201
        return 2
    close = difflib.get_close_matches(first, SUBCOMMANDS, 1)
    hint = f"did you mean {close[0]}? All of them: " if close else "there are: "
    return _failed(f"there is no command {first!r}; {hint}{', '.join(SUBCOMMANDS)}", 2)


def overview() -> str:
    """What `difftumor --help` says."""
    width = max(map(len, SUBCOMMANDS))
    rows = "\n".join(f"  {name:{width}}  {each.help}" for name, each in SUBCOMMANDS.items())
    return (
        "usage: difftumor COMMAND [OPTIONS]\n       difftumor COMMAND --help\n       difftumor --version\n\n"
        f"{DESCRIPTION}\n\ncommands:\n{rows}"
    )


def _failed(sentence: str, code: int) -> int:
    print(f"difftumor: {sentence}", file=sys.stderr, flush=True)  # noqa: T201
    return code
