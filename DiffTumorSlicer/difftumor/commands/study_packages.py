"""What statistics and audit of reader studies need beyond the rest of the program."""

from __future__ import annotations

from importlib.util import find_spec

NEEDED = {"sklearn": "scikit-learn", "statsmodels": "statsmodels"}


class PackageMissingError(ValueError):
    """A Python package is not installed; the message says how to get it."""


def need_packages() -> None:
    """Say what is missing before anything is computed.  Raises: PackageMissingError."""
    missing = [name for module, name in NEEDED.items() if find_spec(module) is None]
    if missing:
        raise PackageMissingError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not installed in this Python. "
            f"Install with: python -m pip install 'difftumor[study]' (or {' '.join(missing)})."
        )
