"""A segmentation on screen: its table, where a click leads to each lesion, and what can be done with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from DiffTumorSlicerLib.jobs.parameter_node import ModuleParameters
from DiffTumorSlicerLib.panels.segmentation.lesion_words import (
    columns,
    details_of,
    facts_of,
    item_of,
    row_of,
)
from DiffTumorSlicerLib.panels.segmentation.overlay_group import OverlayGroup
from DiffTumorSlicerLib.panels.shared import settings
from DiffTumorSlicerLib.panels.shared.saving import save_as
from DiffTumorSlicerLib.panels.shared.widgets import keep_narrow, quietly, say
from DiffTumorSlicerLib.scene.geometry import SceneError
from DiffTumorSlicerLib.scene.placing import show_position
from DiffTumorSlicerLib.scene.results import input_of
from DiffTumorSlicerLib.scene.segments import organ_mask
from DiffTumorSlicerLib.scene.volume_files import ExportError, plain_name
from DiffTumorSlicerLib.scene.volume_nodes import modality_of
from DiffTumorSlicerLib.segmentation.exporting import (
    write_dicom_segmentation,
    write_lesion_table,
    write_segmentation_files,
)
from DiffTumorSlicerLib.segmentation.measuring import measure_again
from DiffTumorSlicerLib.segmentation.results import (
    SEGMENTED,
    is_draft,
    is_segmented,
    keep,
    lesions_of,
    overlays_of,
    remove_segmented,
    results_of,
)

TABLES = (".csv", ".json")
MOST_LINES = 8  # of the table without scrolling


class LesionGroup:
    """The group "Result" of the Segmentation panel; hidden as long as there is none."""

    def __init__(
        self, ui: Any, scene: Any, say_below: Callable[[str], None], organ: Callable[[], Any]
    ) -> None:
        """Connect the group.

        Args:
            ui: widgets of the Segmentation panel.
            scene: of the results.
            say_below: shows a sentence to the person.
            organ: returns segmentation and segment of the organ, for the contrast.
        """
        self._ui = ui
        self._scene = scene
        self._say = say_below
        self._organ = organ
        self._parameters: Any = None
        self._filled: tuple[Any, ...] = ()
        self._rows: list[dict[str, Any]] = []
        self.busy = False
        self.overlays = OverlayGroup(ui, scene)
        ui.segmentedSelector.addAttribute("vtkMRMLSegmentationNode", SEGMENTED)
        keep_narrow(ui.segmentedSelector)
        ui.lesionTree.connect("itemSelectionChanged()", self._show_chosen)
        ui.lesionTree.connect(
            "itemClicked(QTreeWidgetItem*,int)", lambda item, _column: self._go_to(row_of(item))
        )
        ui.outlinesCheckBox.connect("toggled(bool)", self._show_outlines)
        ui.keepResultButton.connect("clicked()", self.keep)
        ui.resultNameEdit.connect("returnPressed()", self.keep)
        ui.measureButton.connect("clicked()", self.measure)
        ui.removeSegmentationButton.connect("clicked()", self.remove)
        self._menu = qt.QMenu(ui.saveSegmentationButton)
        for words, action in (
            (_("Table as CSV…"), lambda: self._save(".csv")),
            (_("Table as JSON…"), lambda: self._save(".json")),
            (_("Segmentation as NIfTI…"), lambda: self._save(".nii.gz")),
            (_("Segmentation as NRRD…"), lambda: self._save(".nrrd")),
            (_("DICOM segmentation…"), self._save_dicom),
        ):
            entry = qt.QAction(words, self._menu)
            entry.connect("triggered()", action)
            self._menu.addAction(entry)
        ui.saveSegmentationButton.setMenu(self._menu)

    @property
    def result(self) -> Any:
        """The result that is shown and worked on, or None."""
        node = self._parameters.segmented if self._parameters is not None else None
        return node if is_segmented(node) and input_of(node) is not None else None

    def set_parameter_node(self, parameters: ModuleParameters | None) -> None:
        """Follow another parameter node, or none."""
        self._parameters = parameters
        self._filled = ()
        self.overlays.set_parameter_node(parameters)
        self.refresh()

    def choose(self, node: Any) -> None:
        """Work on a new result, and show it instead of the others of its scan."""
        scan = input_of(node)
        for other in results_of(self._scene, scan):
            other.SetDisplayVisibility(other is node)
        self._parameters.segmented = node
        if node.GetAttribute(SEGMENTED) == "learned":
            self._parameters.overlay = "uncertainty"
        elif self._parameters.overlay not in overlays_of(node):
            self._parameters.overlay = ""
        self._filled = ()
        self.refresh()

    # ---------------------------------------------------------------------------------- actions

    def keep(self) -> None:
        """Make the result the person's own, under the name that was written."""
        node = self.result
        if node is None:
            return
        keep(node, self._ui.resultNameEdit.text)
        self._say(_("Kept as “{name}”.").format(name=node.GetName()))
        self.refresh()

    def measure(self) -> None:
        """Measure the segments as they are now."""
        node = self.result
        if node is None:
            return
        area, segment_id = self._organ()
        try:
            with slicer.util.WaitCursor():
                organ = (
                    organ_mask(area, segment_id, input_of(node)) if area and segment_id else None
                )
                count = measure_again(node, organ)
        except SceneError as error:
            self._say(str(error))
            return
        self._say(_("Measured again: {count} segments.").format(count=count))
        self._filled = ()
        self.refresh()

    def remove(self) -> None:
        """Remove the result with its overlays."""
        node = self.result
        if node is None:
            return
        scan, name = input_of(node), node.GetName()
        self.overlays.hide()
        remove_segmented(self._scene, node)
        left = results_of(self._scene, scan)
        self._parameters.segmented = left[-1] if left else None
        if left:
            left[-1].SetDisplayVisibility(True)
        self._say(_("“{name}” was removed.").format(name=name))
        self.refresh()

    # ---------------------------------------------------------------------------------- showing

    def refresh(self) -> None:
        """Show the state of the scene; writes nothing but the look of the overlay."""
        node, ui = self.result, self._ui
        ui.lesionGroup.visible = node is not None
        self.overlays.refresh(node)
        if node is None:
            self._filled = ()
            return
        rows = lesions_of(node)
        state = (node.GetID(), node.GetName(), str(rows))
        if state != self._filled:
            self._filled = state
            self._fill(rows, modality_of(self._scene, input_of(node)) or _modality(rows))
            ui.resultNameEdit.text = node.GetName()
            ui.resultNameEdit.setCursorPosition(0)  # the name's beginning is seen
            say(ui.segmentedFactsLabel, facts_of(node, rows))
        ui.keepResultButton.text = _("Keep") if is_draft(node) else _("Rename")
        ui.removeSegmentationButton.enabled = not self.busy
        display = node.GetDisplayNode()
        with quietly(ui.outlinesCheckBox):
            ui.outlinesCheckBox.checked = display is not None and bool(display.GetVisibility())

    def _fill(self, rows: list[dict[str, Any]], modality: str) -> None:
        """Write the table; the chosen row stays chosen."""
        tree = self._ui.lesionTree
        chosen = self._chosen()
        self._rows = rows
        with quietly(tree):
            tree.clear()
            tree.setHeaderLabels(list(columns(modality)))
            for number, row in enumerate(rows):
                item = item_of(row, number)
                tree.addTopLevelItem(item)
                if chosen is not None and row["segment"] == chosen["segment"]:
                    tree.setCurrentItem(item)
        last = tree.columnCount - 1
        tree.setColumnHidden(last, all(row["mean_probability"] is None for row in rows))
        for column in range(tree.columnCount):
            tree.resizeColumnToContents(column)
        self._fit_height(len(rows))
        tree.visible = bool(rows)
        self._show_details()

    def _fit_height(self, lines: int) -> None:
        """Make the table as high as its lines, up to `MOST_LINES`."""
        tree = self._ui.lesionTree
        # Two lines more: the head, and a scroll bar below where the panel is narrow.
        tree.setFixedHeight((min(lines, MOST_LINES) + 2) * round(1.4 * tree.fontMetrics().height()))

    def _chosen(self) -> dict[str, Any] | None:
        items = self._ui.lesionTree.selectedItems()
        number = row_of(items[0]) if items else -1
        return self._rows[number] if 0 <= number < len(self._rows) else None

    def _show_chosen(self) -> None:
        """A row was chosen, by mouse or key."""
        row = self._chosen()
        if row is not None:
            self._go_to(self._rows.index(row))
        self._show_details()

    def _show_details(self) -> None:
        row = self._chosen()
        say(self._ui.lesionDetailsLabel, details_of(row) if row is not None else "")

    def _go_to(self, number: int) -> None:
        """Let all views show a lesion."""
        if 0 <= number < len(self._rows):
            show_position(self._scene, tuple(self._rows[number]["position_ras"]))

    def _show_outlines(self, on: bool) -> None:
        node = self.result
        if node is not None:
            node.SetDisplayVisibility(on)

    # ------------------------------------------------------------------------------------- files

    def _save(self, suffix: str) -> None:
        node = self.result
        if node is None:
            return

        def write(path: Path) -> list[Path]:
            if suffix in TABLES:
                return write_lesion_table(node, path)
            return write_segmentation_files(self._scene, node, path)

        button = self._ui.saveSegmentationButton
        save_as(button, _("Save the result"), plain_name(node), suffix, write, self._say)

    def _save_dicom(self) -> None:
        node = self.result
        if node is None:
            return
        folder = qt.QFileDialog.getExistingDirectory(
            self._ui.saveSegmentationButton, _("Folder for the DICOM files"), settings.last_folder()
        )
        if not folder:
            return
        settings.set_last_folder(folder)
        try:
            with slicer.util.WaitCursor():
                written = write_dicom_segmentation(self._scene, node, Path(folder))
        except (ExportError, SceneError) as error:
            self._say(str(error))
            return
        self._say(_("Saved in {folder}: {names}.").format(folder=folder, names=written.name))


def _modality(rows: list[dict[str, Any]]) -> str:
    """CT unless no value looks like HU of soft tissue."""
    return "CT" if all(-200 < row["hu_mean"] < 400 for row in rows) else "MR"
