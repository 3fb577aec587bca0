"""`SampleData`: what a module uses to offer sample data, and a click on it.

Static methods are not in specs/slicer_api; theirs is Slicer, Modules/Scripted/SampleData/SampleData.py.
"""

from __future__ import annotations

import sys
import types
from typing import Any

import slicer


class SampleDataSource:
    """One set of sample data."""

    def __init__(
        self,
        sampleName: str | None = None,
        sampleDescription: str | None = None,
        uris: Any = None,
        fileNames: Any = None,
        nodeNames: Any = None,
        checksums: Any = None,
        loadFiles: Any = None,
        customDownloader: Any = None,
        thumbnailFileName: str | None = None,
        loadFileTypes: Any = None,
        loadFileProperties: dict[str, Any] | None = None,
        loadFileType: Any = None,
    ) -> None:
        lists = [fileNames, nodeNames, loadFiles, loadFileTypes or loadFileType, checksums]
        if isinstance(uris, str):
            uris, lists = [uris], [[one] for one in lists]
        # As in Slicer: file names have no default, all others are filled up.
        lists[1:] = [[None] * len(uris) if one is None else one for one in lists[1:]]
        if any(len(one) != len(uris) for one in lists):
            raise ValueError("All fields of sample data source must have the same length")
        self.sampleName, self.sampleDescription = sampleName, sampleDescription or sampleName
        self.uris, self.fileNames, self.nodeNames = uris, *lists[:2]
        self.customDownloader, self.thumbnailFileName = customDownloader, thumbnailFileName


class SampleDataLogic:
    """Knows the sources by category."""

    @staticmethod
    def registerCustomSampleDataSource(
        category: str = "Custom",
        sampleName: str | None = None,
        uris: Any = None,
        fileNames: Any = None,
        nodeNames: Any = None,
        customDownloader: Any = None,
        thumbnailFileName: str | None = None,
        loadFileTypes: Any = None,
        loadFiles: Any = None,
        loadFileProperties: dict[str, Any] = {},  # noqa: B006  (as in Slicer)
        checksums: Any = None,
        loadFileType: Any = None,
    ) -> None:
        source = SampleDataSource(
            sampleName,
            None,
            uris,
            fileNames,
            nodeNames,
            checksums,
            loadFiles,
            customDownloader,
            thumbnailFileName,
            loadFileTypes,
            loadFileProperties,
            loadFileType,
        )
        slicer.modules.sampleDataSources.setdefault(category, []).append(source)


def install() -> None:
    """Put the module where `import SampleData` finds it, and its sources where Slicer keeps them."""
    module = types.ModuleType("SampleData")
    module.SampleDataSource, module.SampleDataLogic = SampleDataSource, SampleDataLogic
    sys.modules["SampleData"] = module
    slicer.modules.sampledata = module
    slicer.modules.sampleDataSources = {}
