"""How a program writes a model folder: read its command line, export, and say what came of it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import tyro

from difftumor.weights.cards import ModelError

logger = logging.getLogger(__name__)

SettingsT = TypeVar("SettingsT")


def run_export(
    kind: type[SettingsT],
    export: Callable[[SettingsT], dict[str, Any]],
    program: str,
    args: list[str] | None = None,
) -> int:
    """Run an export program.

    Args:
        kind: dataclass of its settings, with the folder `out`.
        export: writes the model and returns its card.
        program: module name, for --help.
        args: command line; that of the process if None.

    Returns:
        the exit code.
    """
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    settings = tyro.cli(kind, args=args, prog=f"python -m {program}")
    try:
        card = export(settings)
    except (OSError, ModelError, ValueError, KeyError) as error:
        logger.error("%s", error)
        return 1
    logger.info("wrote %s (%s)", settings.out, card["id"])  # type: ignore[attr-defined]
    return 0
