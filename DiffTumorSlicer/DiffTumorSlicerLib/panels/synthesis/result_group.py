"""What was made: compare it with the scan, choose a variant, take the last tumor back, save it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from DiffTumorSlicerLib.jobs.parameter_node import ModuleParameters
from DiffTumorSlicerLib.panels.shared import settings
from DiffTumorSlicerLib.panels.shared.saving import save_as
from DiffTumorSlicerLib.scene.comparing import Blink, SideBySide, show_volume, user_composites
from DiffTumorSlicerLib.scene.geometry import SceneError
from DiffTumorSlicerLib.scene.results import input_of, segmentation_of
from DiffTumorSlicerLib.scene.volume_files import ExportError
from DiffTumorSlicerLib.session import Session
from DiffTumorSlicerLib.synthesis.exporting import can_segment, file_stem, save_dicom, save_files
from DiffTumorSlicerLib.synthesis.history import read_history
from DiffTumorSlicerLib.synthesis.results import VARIANTS, is_result

Point = tuple[float, float, float]


class ResultGroup:
    """The group "Result" of the Synthesis panel; hidden as long as there is none."""

    def __init__(
        self,
        ui: Any,
        scene: Any,
        session: Session,
        say: Callable[[str], None],
        show_ellipsoid: Callable[[bool], None],
    ) -> None:
        """Connect the group.

        Args:
            ui: widgets of the Synthesis panel.
            scene: of the results.
            session: keeps variants and takes tumors back.
            say: shows a sentence to the person.
            show_ellipsoid: shows or hides the ellipsoid with its handles.
        """
        self._ui = ui
        self._scene = scene
        self._session = session
        self._say = say
        self._show_ellipsoid = show_ellipsoid
        self._parameters: Any = None
        self._side_by_side = SideBySide(scene)
        self._blink = Blink(scene)
        self._center: Point | None = None
        self.busy = False  # a tumor is being made, so results stay as they are
        ui.resultSelector.addAttribute("vtkMRMLScalarVolumeNode", "DiffTumor.Synthetic", "1")
        ui.compareButton.connect("toggled(bool)", self._compare)
        ui.blinkButton.connect("toggled(bool)", self._toggle_blink)
        ui.removeLastButton.connect("clicked()", self.remove_last)
        ui.outlineCheckBox.connect("toggled(bool)", self._show_outlines)
        self._keep_buttons = [getattr(ui, f"keep{n}Button") for n in (1, 2, 3)]
        for index, button in enumerate(self._keep_buttons):
            button.connect("clicked()", lambda index=index: self.keep(index))
        self._menu = qt.QMenu(ui.saveButton)
        for words, action in (
            (_("NIfTI…"), lambda: self._save(".nii.gz")),
            (_("NRRD…"), lambda: self._save(".nrrd")),
            (_("DICOM series and segmentation…"), self._save_dicom),
        ):
            entry = qt.QAction(words, self._menu)
            entry.connect("triggered()", action)
            self._menu.addAction(entry)
        ui.saveButton.setMenu(self._menu)

    @property
    def result(self) -> Any:
        """The result that is worked on, or None."""
        node = self._parameters.result if self._parameters is not None else None
        return node if is_result(node) else None

    @property
    def variants(self) -> list[Any]:
        """Variants of the chosen scan that still wait for a choice."""
        volume = self._parameters.volume if self._parameters is not None else None
        name = "vtkMRMLScalarVolumeNode"
        nodes = [
            self._scene.GetNthNodeByClass(n, name)
            for n in range(self._scene.GetNumberOfNodesByClass(name))
        ]
        waiting = [node for node in nodes if node.GetAttribute(VARIANTS)]
        return [node for node in waiting if volume is not None and input_of(node) is volume][-3:]

    def set_parameter_node(self, parameters: ModuleParameters | None) -> None:
        """Follow another parameter node, or none."""
        self.leave()
        self._parameters = parameters
        self.refresh()

    def leave(self) -> None:
        """Give the views back, as when another module is opened."""
        self._ui.blinkButton.checked = False
        self._ui.compareButton.checked = False
        self._blink.stop()
        self._side_by_side.hide()

    # ------------------------------------------------------------------------------ new results

    def show_result(self, node: Any, center: Point | None) -> None:
        """Show a new result wherever its scan, or what it was before, is shown."""
        self._center = center
        source = input_of(node)
        self._show_ellipsoid(False)  # it would cover the tumor
        before = {source.GetID()} if source is not None else set()
        show_volume(self._scene, node, instead_of={*before, node.GetID()})
        self.refresh()

    def show_variants(self, nodes: list[Any], center: Point | None) -> None:
        """Put new variants side by side."""
        self._center = center
        self._ui.blinkButton.checked = False
        self._show_side_by_side(nodes)
        self.refresh()

    def keep(self, index: int) -> None:
        """Keep one variant; it becomes the result, and the others are removed."""
        variants = self.variants
        if index >= len(variants):
            return
        kept = variants[index]
        try:
            self._session.keep_variant(kept)
        except SceneError as error:
            self._say(str(error))
            return
        self._side_by_side.hide()
        self._parameters.result = kept
        self.show_result(kept, self._center)
        self._say(_("Kept as “{name}”.").format(name=kept.GetName()))

    # ---------------------------------------------------------------------------------- actions

    def remove_last(self) -> None:
        """Take the last tumor out of the result."""
        node = self.result
        if node is None:
            self._say(_("There is no result to take a tumor from. Choose one at “Put it into”."))
            return
        self.leave()
        source, name = input_of(node), node.GetName()
        showing = [
            c for c in user_composites(self._scene) if c.GetBackgroundVolumeID() == node.GetID()
        ]
        try:
            left = self._session.remove_last(node)
        except SceneError as error:
            self._say(str(error))
            return
        if left:
            self._say(_("Removed. “{name}” holds {left} more.").format(name=name, left=left))
        else:
            self._parameters.result = None
            for composite in showing:
                composite.SetBackgroundVolumeID(source.GetID() if source is not None else None)
            self._say(_("Removed. It was the only tumor, so the result is gone too."))
        self.refresh()

    def tick(self) -> None:
        """Move the pictures on; called by the module's timer."""
        self._blink.tick(time.monotonic())
        self._side_by_side.settle()
        if self._ui.blinkButton.checked and not self._blink.running:
            self._ui.blinkButton.checked = False
        if self._ui.compareButton.checked and not self._side_by_side.shown:
            self._ui.compareButton.checked = False

    def refresh(self) -> None:
        """Show the state of the scene; writes nothing."""
        node, variants = self.result, self.variants
        source = input_of(node) if node is not None else None
        self._ui.resultGroup.visible = node is not None or len(variants) > 1
        choosing = len(variants) > 1
        self._ui.variantsFrame.visible = choosing
        self._ui.resultFrame.visible = not choosing
        for index, button in enumerate(self._keep_buttons):
            button.visible = index < len(variants)
            button.enabled = not self.busy
        self._ui.saveButton.enabled = node is not None
        self._ui.removeLastButton.enabled = node is not None and not self.busy
        for name in ("compareButton", "blinkButton"):
            getattr(self._ui, name).enabled = source is not None
        count = lesions_of(node) if node is not None else 0
        if choosing:
            self._ui.resultGroup.title = _("Variants")
        elif count == 1:
            self._ui.resultGroup.title = _("Result with 1 tumor")
        elif count:
            self._ui.resultGroup.title = _("Result with {count} tumors").format(count=count)
        else:
            self._ui.resultGroup.title = _("Result")

    # ----------------------------------------------------------------------------------- inside

    def _compare(self, on: bool) -> None:
        node = self.result
        if not on:
            self._side_by_side.hide()
        elif node is not None and input_of(node) is not None:
            self._ui.blinkButton.checked = False
            self._show_side_by_side([input_of(node), node])

    def _show_side_by_side(self, nodes: list[Any]) -> None:
        titles = [_("Before"), _("After")]
        if len(nodes) == 3:
            titles = [_("Variant {number}").format(number=n) for n in (1, 2, 3)]
        self._show_ellipsoid(False)
        self._side_by_side.show(list(zip(titles, nodes, strict=False)), self._center)

    def _toggle_blink(self, on: bool) -> None:
        node = self.result
        if not on:
            self._blink.stop()
        elif node is not None and input_of(node) is not None:
            self._ui.compareButton.checked = False
            self._show_ellipsoid(False)
            self._blink.start(input_of(node), node, time.monotonic())

    def _show_outlines(self, on: bool) -> None:
        node = self.result
        segmentation = segmentation_of(node) if node is not None else None
        if segmentation is not None and segmentation.GetDisplayNode() is not None:
            segmentation.GetDisplayNode().SetVisibility(on)

    def _save(self, suffix: str) -> None:
        node = self.result
        if node is None:
            return
        save_as(
            self._ui.saveButton,
            _("Save the result"),
            file_stem(node),
            suffix,
            lambda path: save_files(self._scene, node, path),
            self._say,
        )

    def _save_dicom(self) -> None:
        node = self.result
        if node is None:
            return
        folder = qt.QFileDialog.getExistingDirectory(
            self._ui.saveButton, _("Folder for the DICOM files"), settings.last_folder()
        )
        if not folder:
            return
        settings.set_last_folder(folder)
        outlines = can_segment(node) and slicer.util.confirmYesNoDisplay(
            _(
                "Slicer writes the outlines of the tumors as a DICOM segmentation only if the synthetic "
                "images are in its DICOM database. Put both into the database, too? With No, only the images "
                "are written."
            ),
            windowTitle=_("DICOM segmentation"),
        )
        try:
            with slicer.util.WaitCursor():
                written = save_dicom(self._scene, node, Path(folder), segmentation=outlines)
        except ExportError as error:
            self._say(str(error))
            return
        names = ", ".join(part.name for part in written)
        said = _("Saved in {folder}: {names}.").format(folder=folder, names=names)
        if not outlines:
            said += " " + _("The outlines of the tumors are not in it; NIfTI and NRRD keep them.")
        self._say(said)


def lesions_of(node: Any) -> int:
    """How many tumors a result holds; 0 if its history cannot be read."""
    try:
        return sum(int(entry["lesions"]) for entry in read_history(node))
    except SceneError:
        return 0
