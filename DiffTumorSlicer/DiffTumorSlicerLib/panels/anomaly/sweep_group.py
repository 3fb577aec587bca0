"""The sheet: one slice with several N and S as a table of pictures, of which one is taken."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _

from DiffTumorSlicerLib.anomaly.request import Cell
from DiffTumorSlicerLib.anomaly.sheet_pictures import picture_of, write_png
from DiffTumorSlicerLib.jobs.case_models import CaseModel
from DiffTumorSlicerLib.jobs.jobs import SessionError
from DiffTumorSlicerLib.jobs.parameter_node import ModuleParameters
from DiffTumorSlicerLib.panels.shared import settings

TABLE_PIXELS, LARGEST_PICTURE = 330, 150  # of all pictures of a row together, and of one
MOST_VALUES = 5


class SweepGroup:
    """The group "Try several N and S on this slice" of the Anomaly panel."""

    def __init__(
        self,
        ui: Any,
        say: Callable[[str], None],
        start: Callable[[], None],
        take: Callable[[Cell], None],
    ) -> None:
        """Connect the group.

        Args:
            ui: widgets of the Anomaly panel.
            say: shows a sentence to the person.
            start: starts the job.
            take: called with the cell that was pressed.
        """
        self._ui = ui
        self._say = say
        self._take = take
        self._parameters: Any = None
        self._cells: list[Cell] = []
        self._plane = "axial"
        self._look: tuple[Any, ...] = ()
        self._widgets: list[Any] = []
        self._buttons: list[Any] = []  # one for each cell
        self._folder = tempfile.TemporaryDirectory(prefix="difftumor-sheet-")
        ui.sweepButton.connect("clicked()", start)
        ui.saveSheetButton.connect("clicked()", self.save)
        self._show_cells()

    def set_parameter_node(self, parameters: ModuleParameters | None) -> None:
        """Follow another parameter node, or none; the sheet of another scene goes."""
        self._parameters = parameters
        self.clear()

    def set_model(self, model: CaseModel) -> None:
        """Propose values around those of a model."""
        noise, scale = model.recommended["noise_level"], model.recommended["guidance_scale"]
        levels = sorted({max(1, min(999, round(noise * part))) for part in (0.5, 1, 2)})
        scales = sorted({float(f"{scale * part:.2g}") for part in (0.3, 1, 3)})
        self._ui.sweepNoiseEdit.text = ", ".join(str(level) for level in levels)
        self._ui.sweepScaleEdit.text = ", ".join(f"{value:g}" for value in scales)

    def wanted(self) -> tuple[list[int], list[float]]:
        """The N and S that are to be tried.

        Raises:
            SessionError: what was written cannot be read.
        """
        levels = _numbers(self._ui.sweepNoiseEdit.text, "N")
        if any(level != int(level) for level in levels):
            raise SessionError(_("N is a whole number. Write for instance 100, 250, 500."))
        return [int(level) for level in levels], _numbers(self._ui.sweepScaleEdit.text, "S")

    def show(self, report: dict[str, Any]) -> None:
        """Show the pictures of a sheet (`anomaly.request.sweep_request`)."""
        self._cells, self._plane, self._look = list(report["cells"]), report["plane"], ()
        self._ui.sweepGroup.collapsed = False
        self.refresh()

    def clear(self) -> None:
        """Forget the sheet."""
        self._cells, self._look = [], ()
        self._show_cells()

    def refresh(self) -> None:
        """Draw the pictures as the map looks now: colors, threshold, opacity."""
        if self._parameters is None or not self._cells:
            return
        asked = self._parameters
        look = (asked.map_colors, asked.anomaly.threshold, asked.map_opacity)
        if look != self._look:
            self._look = look
            self._show_cells()
        chosen = (asked.anomaly.noise_level, asked.anomaly.guidance_scale)
        for button, cell in zip(self._buttons, self._cells, strict=True):
            button.checked = (cell.noise_level, cell.guidance_scale) == chosen

    def cleanup(self) -> None:
        """Remove the pictures from disk."""
        self._folder.cleanup()

    def save(self) -> None:
        """Save the table as one picture."""
        if not self._cells:
            return
        name = f"{_plain(self._cells[0].source.GetName())}-anomaly-sheet.png"
        chosen = qt.QFileDialog.getSaveFileName(
            self._ui.saveSheetButton,
            _("Save the sheet"),
            str(Path(settings.last_folder()) / name),
            "*.png",
        )
        if not chosen:
            return
        path = Path(chosen if chosen.lower().endswith(".png") else f"{chosen}.png")
        settings.set_last_folder(str(path.parent))
        if self._ui.sweepFrame.grab().save(str(path)):
            self._say(_("Saved in {folder}: {names}.").format(folder=path.parent, names=path.name))
        else:
            self._say(
                _(
                    "The sheet could not be written to {folder}. Choose a folder that is yours."
                ).format(folder=path.parent)
            )

    # ------------------------------------------------------------------------------------ inside

    def _show_cells(self) -> None:
        """Build the table anew."""
        layout = self._ui.sweepFrame.layout()
        for widget in self._widgets:
            layout.removeWidget(widget)
            widget.hide()
            widget.deleteLater()
        self._widgets, self._buttons = [], []
        for name in ("sweepFrame", "sweepHintLabel", "saveSheetButton"):
            getattr(self._ui, name).visible = bool(self._cells)
        if not self._cells or self._parameters is None:
            return
        levels = sorted({cell.noise_level for cell in self._cells})
        scales = sorted({cell.guidance_scale for cell in self._cells})
        for column, scale in enumerate(scales, start=1):
            self._add(qt.QLabel(_("S {scale}").format(scale=f"{scale:g}")), 0, column)
        for row, level in enumerate(levels, start=1):
            self._add(qt.QLabel(_("N {level}").format(level=level)), row, 0)
        side = min(TABLE_PIXELS // len(scales), LARGEST_PICTURE)
        for number, cell in enumerate(self._cells):
            at = levels.index(cell.noise_level) + 1, scales.index(cell.guidance_scale) + 1
            self._buttons.append(self._button(cell, number, side))
            self._add(self._buttons[-1], *at)

    def _button(self, cell: Cell, number: int, side: int) -> Any:
        path = Path(self._folder.name) / f"{number}.png"
        asked = self._parameters
        look = (asked.map_colors, asked.anomaly.threshold, asked.map_opacity)
        picture = picture_of(cell, self._plane, *look, side)
        write_png(picture, path)
        button = qt.QToolButton()
        button.icon = qt.QIcon(qt.QPixmap(str(path)))
        button.iconSize = qt.QSize(picture.shape[1], picture.shape[0])
        button.autoRaise = True
        button.checkable = True
        button.toolTip = _(
            "N {level}, S {scale}: the map's largest value is {highest} in the model's units. Press to take "
            "this N and S and to see the map in the views."
        ).format(
            level=cell.noise_level, scale=f"{cell.guidance_scale:g}", highest=f"{cell.highest:.2g}"
        )
        button.connect("clicked()", lambda cell=cell: self._take_cell(cell))
        return button

    def _take_cell(self, cell: Cell) -> None:
        self._take(cell)
        self.refresh()  # a second press leaves it chosen

    def _add(self, widget: Any, row: int, column: int) -> None:
        self._ui.sweepFrame.layout().addWidget(widget, row, column)
        self._widgets.append(widget)


def _numbers(text: str, name: str) -> list[float]:
    """Numbers with commas or spaces between them."""
    words = text.replace(";", ",").replace(",", " ").split()
    try:
        values = [float(word) for word in words]
    except ValueError as error:
        raise SessionError(
            _("{name} must be numbers with commas between them, such as 10, 30, 100.").format(
                name=name
            )
        ) from error
    if not 1 <= len(values) <= MOST_VALUES:
        raise SessionError(
            _("Write one to {most} values of {name}.").format(most=MOST_VALUES, name=name)
        )
    return values


def _plain(name: str) -> str:
    plain = "".join(c if c.isalnum() or c in "-_" else "-" for c in name)
    return "-".join(filter(None, plain.split("-")))
