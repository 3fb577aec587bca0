"""Learning from slices in three steps: paint, learn, improve."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _

from difftumor.anomaly.layout import slice_axis
from difftumor.weights.models import ModelError
from difftumor.worker.private_folder import PrivateFolder
from DiffTumorSlicerLib.jobs.parameter_node import ModuleParameters
from DiffTumorSlicerLib.jobs.wording import sentence_of
from DiffTumorSlicerLib.panels.shared import texts
from DiffTumorSlicerLib.panels.shared.widgets import (
    chosen_of,
    fill_combo,
    keep_narrow,
    say,
    switch_to_module,
)
from DiffTumorSlicerLib.scene.geometry import SceneError
from DiffTumorSlicerLib.scene.results import input_of, sidecar_of
from DiffTumorSlicerLib.scene.slice_ranges import (
    AXES,
    normal_axis,
    position_of,
    show_slice,
    slice_at,
    this_slice,
)
from DiffTumorSlicerLib.scene.volume_nodes import volume_grid
from DiffTumorSlicerLib.segmentation.models import save_learned
from DiffTumorSlicerLib.segmentation.painting import (
    EDITOR,
    Painted,
    add_labels,
    is_labels,
    labels_of,
    mark_empty,
    prepare_editor,
    read_painted,
    state_of,
)
from DiffTumorSlicerLib.segmentation.results import LABELS_ROLE, SEGMENTED

MOST_LISTED = 12  # slices that are named one by one


class LearningGroup:
    """The groups "Paint", "Learn" and "Improve" of the Segmentation panel."""

    def __init__(self, ui: Any, scene: Any, say_below: Callable[[str], None], inputs: Any) -> None:
        """Connect the groups.

        Args:
            ui: widgets of the Segmentation panel.
            scene: of labels and views.
            say_below: shows a sentence to the person.
            inputs: the panel's `MapInputGroup`: images and model.
        """
        self._ui = ui
        self._scene = scene
        self._say = say_below
        self._inputs = inputs
        self._parameters: Any = None
        self._painted: Painted | None = None
        self._read: tuple[Any, ...] = ()  # what was read last
        self._problem = ""  # why the labels cannot be read
        self._folder: PrivateFolder | None = None
        self._learned = ""  # id of the result that the model in the folder belongs to
        self._seconds: float | None = None  # that the last learning took
        ui.moreLearnGroup.collapsed = True
        keep_narrow(ui.labelsSelector)
        ui.paintButton.connect("clicked()", self.paint)
        ui.paintThereButton.connect("clicked()", self.paint)
        ui.emptySliceButton.connect("clicked()", self.mark_slice)
        ui.goToSliceButton.connect("clicked()", self.go_to_suggestion)
        ui.paintedLabel.connect("linkActivated(QString)", self._go_to)
        ui.saveLearnedButton.connect("clicked()", self.save_model)
        ui.learnPlaneComboBox.connect(
            "currentIndexChanged(int)", lambda _row: self._choose("plane", ui.learnPlaneComboBox)
        )
        ui.keepPartsComboBox.connect(
            "currentIndexChanged(int)", lambda _row: self._choose("keep", ui.keepPartsComboBox)
        )

    @property
    def labels(self) -> Any:
        """The segmentation that is painted on, or None."""
        return self._parameters.painted if self._parameters is not None else None

    @property
    def model_folder(self) -> Path:
        """Where the worker leaves what it has learned, as long as the module is open."""
        if self._folder is None:
            self._folder = PrivateFolder()
        return self._folder.path / "learned"

    def set_parameter_node(self, parameters: ModuleParameters | None) -> None:
        """Follow another parameter node, or none."""
        self._parameters = parameters
        self._read, self._painted, self._problem = (), None, ""
        self._learned = ""

    def cleanup(self) -> None:
        """Remove what was learned and not saved."""
        if self._folder is not None:
            self._folder.remove()
            self._folder = None

    def next_step(self) -> str:
        """What is still missing before anything can be learned; "" if nothing is."""
        if self._problem:
            return self._problem
        if self._painted is None or not self._painted.slices:
            return _("Next: press Paint and outline the tumor on a slice.")
        return ""

    def estimate(self) -> str:
        """How long learning takes, as far as it can be told."""
        if self._seconds is None:
            return _(
                "The first time takes about a minute without a graphics card, one more slice only seconds."
            )
        return _("The last time took {time}.").format(time=texts.duration(self._seconds))

    def learned(self, node: Any, elapsed_s: float) -> None:
        """A job has ended: its model is in the folder."""
        self._learned, self._seconds = node.GetID(), elapsed_s
        labels = node.GetNodeReference(LABELS_ROLE)
        if labels is not None:
            labels.SetDisplayVisibility(
                False
            )  # the result shows the same slices as they were painted

    # ---------------------------------------------------------------------------------- actions

    def paint(self) -> None:
        """Open the Segment Editor with labels on the scan; make them where there are none."""
        scan = self._inputs.scan
        if self._parameters is None or scan is None:
            self._say(_("Choose the images first, then paint on them."))
            return
        try:
            volume_grid(scan)
        except SceneError as error:
            self._say(str(error))
            return
        model = self._inputs.model
        if self.labels is None:
            organ = "" if len(model.organs) != 1 else model.organs[0]
            self._parameters.painted = add_labels(
                self._scene, scan, brain=model.of_brain, organ=organ
            )
        prepare_editor(self._scene, self.labels, scan)
        switch_to_module(EDITOR)
        self._say(
            _(
                "Paint the tumor on the slice, completely, in the Segment Editor. Then come back to this "
                "module and press “{button}”."
            ).format(button=_("Learn from my slices"))
        )
        self.refresh()

    def mark_slice(self) -> None:
        """Tell that the slice on screen shows no tumor, or take that back."""
        scan = self._inputs.scan
        if self._parameters is None or scan is None:
            return
        try:
            grid = volume_grid(scan)
            index = this_slice(self._scene, grid, self._plane)
        except SceneError as error:
            self._say(str(error))
            return
        painted = self._painted
        if self.labels is None:
            self._say(_("Press Paint first, and outline the tumor on a slice that shows it."))
            return
        if painted is not None and index in painted.slices:
            self._say(
                _(
                    "Something is painted on this slice. Erase it in the Segment Editor if it shows no tumor."
                )
            )
            return
        mark_empty(
            self.labels, grid, self._plane, index, painted is None or index not in painted.empty
        )
        self._say("")
        self.refresh()

    def go_to_suggestion(self) -> None:
        """Let the views show the slice that would help most."""
        position = self._suggestion()
        if position is not None:
            self._show_position(position)

    def save_model(self) -> None:
        """Keep what was learned as a model of the person's own."""
        node = self._parameters.segmented if self._parameters is not None else None
        if node is None or node.GetID() != self._learned:
            self._say(_("Learn from your slices first; then the model can be saved."))
            return
        title = qt.QInputDialog.getText(
            self._ui.saveLearnedButton, _("Save what was learned"), _("Name of the model:")
        )
        if not title:
            return
        try:
            model_id = save_learned(self.model_folder, title)
        except (SceneError, ModelError) as error:
            self._say(sentence_of(error))
            return
        self._say(
            _("Saved as the model “{name}”. It is offered under “{way}”.").format(
                name=model_id, way=_("With a trained model")
            )
        )

    # ---------------------------------------------------------------------------------- showing

    def refresh(self) -> None:
        """Show labels and suggestion; writes nothing but labels of the scan where none are chosen."""
        if self._parameters is None:
            return
        ui, scan = self._ui, self._inputs.scan
        self._find_labels(scan)
        self._look(scan)
        planes = {"axial": _("Axial"), "coronal": _("Coronal"), "sagittal": _("Sagittal")}
        parts = {
            "painted": _("What is connected to my painting"),
            "all": _("All that looks like it"),
        }
        fill_combo(ui.learnPlaneComboBox, planes, self._plane)
        fill_combo(ui.keepPartsComboBox, parts, self._parameters.learning.keep)
        say(ui.paintedLabel, self._painted_words(scan))
        self._show_mark(scan)
        self._show_suggestion()

    def tick(self) -> bool:
        """Follow the slice on screen.  Returns: whether something was painted meanwhile."""
        if self._parameters is None or self.labels is None:
            return False
        self._show_mark(self._inputs.scan)
        return self._state(self._inputs.scan) != self._read

    # ------------------------------------------------------------------------------------ inside

    @property
    def _plane(self) -> Any:
        return self._parameters.learning.plane

    def _find_labels(self, scan: Any) -> None:
        """Choose the labels that belong to the scan; those of another scan are let go."""
        chosen = self.labels
        if scan is None or (
            chosen is not None and (not is_labels(chosen) or input_of(chosen) is scan)
        ):
            return
        found = labels_of(self._scene, scan)
        if chosen is not None or found:
            self._parameters.painted = found[-1] if found else None

    def _state(self, scan: Any) -> tuple[Any, ...]:
        if self.labels is None or scan is None:
            return ()
        return scan.GetID(), scan.GetMTime(), self._plane, *state_of(self.labels)

    def _look(self, scan: Any) -> None:
        """Read the labels if something about them is new."""
        state = self._state(scan)
        if state == self._read:
            return
        self._read, self._painted, self._problem = state, None, ""
        if not state:
            return
        try:
            self._painted = read_painted(self.labels, scan, self._plane)
        except SceneError as error:
            self._problem = str(error)

    def _painted_words(self, scan: Any) -> str:
        """Which slices are painted, each a link to it."""
        painted = self._painted
        if painted is None or scan is None or not painted.labelled:
            return ""
        grid = volume_grid(scan)
        words = []
        for told, indices in (
            (_("Painted: {slices}."), painted.slices),
            (_("No tumor: {slices}."), painted.empty),
        ):
            if not indices:
                continue
            positions = [position_of(grid, self._plane, index) for index in indices]
            links = [self._link(position) for position in sorted(positions)]
            if len(links) > MOST_LISTED:
                links = [
                    *links[:MOST_LISTED],
                    _("and {count} more").format(count=len(links) - MOST_LISTED),
                ]
            words.append(told.format(slices=", ".join(links)))
        return " ".join(words)

    def _link(self, position: float) -> str:
        return f'<a href="{position:.3f}">{escape(self._named(position))}</a>'

    def _named(self, position: float) -> str:
        """A slice as the views name it."""
        return f"{AXES[normal_axis(self._plane)]} {position:.1f} mm"

    def _show_mark(self, scan: Any) -> None:
        """The button says what a press does for the slice on screen."""
        button = self._ui.emptySliceButton
        marked = False
        if self._painted is not None and scan is not None:
            try:
                index = this_slice(self._scene, volume_grid(scan), self._plane)
                marked = index in self._painted.empty
            except SceneError:
                marked = False
        words = (
            _("This slice is not labeled after all") if marked else _("This slice shows no tumor")
        )
        if button.text != words:
            button.text = words
        button.enabled = self.labels is not None

    def _suggestion(self) -> float | None:
        """Position of the slice that would help most, of the result that is shown."""
        node = self._parameters.segmented if self._parameters is not None else None
        if node is None or node.GetAttribute(SEGMENTED) != "learned":
            return None
        found = sidecar_of(node).get("result", {}).get("next_slice_mm")
        return None if found is None else float(found)

    def _show_suggestion(self) -> None:
        ui, node = self._ui, self._parameters.segmented
        shown = node is not None and node.GetNodeReference(LABELS_ROLE) is not None
        ui.improveGroup.visible = shown and self._parameters.segmenting_way == "learned"
        ui.saveLearnedButton.visible = shown and node.GetID() == self._learned
        if not shown:
            return
        position = self._suggestion()
        ui.goToSliceButton.enabled = position is not None
        if position is None:
            words = _(
                "The classifiers agree on all slices. Look through them, and paint where the outline is wrong."
            )
        elif self._is_painted(position):
            words = _("{slice} is painted now. Press Learn again.").format(
                slice=self._named(position)
            )
        else:
            words = _(
                "Label next: {slice}. Go there, paint the tumor or mark that there is none, and learn again."
            ).format(slice=self._named(position))
        say(ui.suggestionLabel, words)

    def _is_painted(self, position: float) -> bool:
        scan = self._inputs.scan
        if self._painted is None or scan is None:
            return False
        return slice_at(volume_grid(scan), self._plane, position) in self._painted.labelled

    def _go_to(self, link: str) -> None:
        self._show_position(float(link))

    def _show_position(self, position: float) -> None:
        """Let the views of the plane show a slice, with the tumor of the result in view."""
        scan = self._inputs.scan
        if scan is None:
            return
        grid = volume_grid(scan)
        show_slice(
            self._scene, grid, slice_axis(grid, self._plane), slice_at(grid, self._plane, position)
        )

    def _choose(self, name: str, box: Any) -> None:
        chosen = chosen_of(box)
        if self._parameters is not None and chosen:
            setattr(self._parameters.learning, name, chosen)
