"""Words for people go through `tr`, imported as `_` so that Slicer's collection of texts finds them.

Whole sentences with named places: `_('"{name}" is empty.').format(name=...)`. Names of nodes, files and
DICOM descriptions stay English: that they say "synthetic" must not depend on who reads them. So do the
sentences of the engine, a program of its own, which has no Slicer.
"""

from __future__ import annotations

try:
    from slicer.i18n import tr
except ImportError:  # MRML without the application, as in a browser session

    def tr(text: str) -> str:
        """The text as it is."""
        return text


__all__ = ["tr"]
