"""The Models panel: what is there, what can be had, and on what it computes."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from difftumor import models
from DiffTumorSlicerLib.geometry import SceneError
from DiffTumorSlicerLib.panels import settings, texts
from DiffTumorSlicerLib.panels.machine import MachineGroup, Requirements
from DiffTumorSlicerLib.panels.progress import Progress
from DiffTumorSlicerLib.panels.widgets import chosen_of, fill_combo, load_panel, quietly

PANEL = "models"
COLUMNS = 5
TITLE_CHARACTERS = 34  # longer titles are shown in full by the tool tip and below the list
ID_ROLE = 0x0100  # Qt.UserRole, where a row keeps the id of its model
ALL = "all"
MODEL_FILES = "*.pt *.pth *.ckpt *.safetensors *.json"


class ModelsPanel:
    """The registry as a list, and what can be done with the chosen row."""

    def __init__(
        self,
        section: Any,
        ui_folder: Path,
        scene: Any,
        session: Any,
        requirements: Requirements,
        *,
        models_changed: Callable[[], None],
    ) -> None:
        """Build the panel.

        Args:
            section: where it goes, a ctkCollapsibleButton.
            ui_folder: with ModelsPanel.ui.
            scene: the MRML scene.
            session: downloads, imports, verifies, removes and examines.
            requirements: of the worker.
            models_changed: called when there are other models than before.
        """
        self._session = session
        self._models_changed = models_changed
        self._running = False
        self._rows: dict[str, dict[str, Any]] = {}
        self.widget, self.ui = load_panel(ui_folder, "ModelsPanel", section, scene)
        ui = self.ui
        self.progress = Progress(ui.modelsProgressBar, ui.modelsProgressLabel, ui.modelsMessage)
        self.machine = MachineGroup(ui, session, requirements, self.progress.say)
        headers = [_("Model"), _("State"), _("Size"), _("Organ"), _("Licence")]
        ui.modelsTree.setHeaderLabels(headers)
        ui.modelsTree.connect("itemSelectionChanged()", self._show_chosen)
        ui.taskComboBox.connect("currentIndexChanged(int)", lambda _row: self.read_models())
        ui.downloadButton.connect("clicked()", self.download_or_cancel)
        ui.importButton.connect("clicked()", self.import_file)
        ui.verifyButton.connect("clicked()", self.verify)
        ui.removeButton.connect("clicked()", self.remove)
        ui.openFolderButton.connect("clicked()", self.open_folder)
        ui.folderButton.connect("directorySelected(QString)", self._choose_folder)
        ui.placesGroup.collapsed = True
        fill_combo(ui.taskComboBox, {ALL: _("All models"), **texts.tasks()}, "synthesis")
        settings.apply_models_folder()
        self._show_folder()
        self.read_models()

    @property
    def chosen(self) -> dict[str, Any] | None:
        """The row of `difftumor.models.list_models` that is chosen, or None."""
        items = self.ui.modelsTree.selectedItems()
        return self._rows.get(items[0].data(0, ID_ROLE)) if items else None

    def enter(self) -> None:
        """Look what has changed while another module was open."""
        self.machine.refresh()
        self.read_models()

    def choose(self, model_id: str) -> None:
        """Choose a model in the list."""
        tree = self.ui.modelsTree
        for index in range(tree.topLevelItemCount):
            item = tree.topLevelItem(index)
            if item.data(0, ID_ROLE) == model_id:
                tree.setCurrentItem(item)

    # ---------------------------------------------------------------------------------- actions

    def download_or_cancel(self) -> None:
        """Download the chosen model after its licence was accepted, or stop what is going on."""
        if self._running:
            self._session.cancel(PANEL)
            return
        row = self.chosen
        if row is None:
            self._ask_to_choose()
            return
        if row["installed"]:
            self.progress.say(_("This model is installed already."))
            return
        accepted = row["licence_accepted"] or self._accepts_licence(row)
        if not accepted:
            self.progress.say(_("Nothing was downloaded: the licence was not accepted."))
            return
        self._try(lambda: self._session.download(row["id"], accept=True))

    def import_file(self) -> None:
        """Install a model from a file; where the content does not tell which it is, the chosen row does."""
        path = qt.QFileDialog.getOpenFileName(
            self.widget,
            _("Model file, or the model.json of a model folder"),
            settings.last_folder(),
            _("Models ({patterns})").format(patterns=MODEL_FILES),
        )
        if not path:
            return
        settings.set_last_folder(str(Path(path).parent))
        row = self.chosen
        named = row["id"] if row is not None and not row["installed"] and row["url"] else None
        self._try(lambda: self._session.import_model(path, model_id=named))

    def verify(self) -> None:
        """Compare the chosen model with its checksum."""
        row = self.chosen
        if row is None or not row["installed"]:
            self.progress.say(_("Choose an installed model in the list first."))
            return
        self._try(lambda: self._session.verify(row["id"]))

    def remove(self) -> None:
        """Delete the chosen model, after asking."""
        row = self.chosen
        if row is None or not row["installed"]:
            self.progress.say(_("Choose an installed model in the list first."))
            return
        if row["bundled"]:
            self.progress.say(_("This model is part of the module; it goes with it."))
            return
        question = _("Delete “{title}” from this computer ({size})?").format(
            title=row["title"], size=texts.file_size(row["bytes"])
        )
        if slicer.util.confirmYesNoDisplay(question, windowTitle=_("Remove model")):
            self._try(lambda: self._session.remove(row["id"]))

    def open_folder(self) -> None:
        """Show the models folder in the file browser."""
        folder = models.models_folder()
        if not folder.is_dir():
            self.progress.say(_("The models folder is made with the first download or import."))
            return
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder)))

    # ---------------------------------------------------------------------------------- showing

    def follow(self, state: Any) -> None:
        """Show how a job is getting on; called by the session."""
        self.machine.follow(state)
        if state.panel != PANEL:
            return
        self._running = state.running
        self.progress.follow(state)
        if not state.running:
            self.read_models()
            self._models_changed()
        self._show_chosen()

    def read_models(self) -> None:
        """Fill the list anew; the chosen row stays chosen."""
        row = self.chosen
        chosen = row["id"] if row else ""
        task = chosen_of(self.ui.taskComboBox)
        self._rows = {row["id"]: row for row in models.list_models()}
        tree = self.ui.modelsTree
        with quietly(tree):
            tree.clear()
            for row in self._rows.values():
                if task in (ALL, "", row["task"]):
                    tree.addTopLevelItem(_item_of(row))
            self.choose(chosen)
        for column in range(COLUMNS):
            tree.resizeColumnToContents(column)
        widest = TITLE_CHARACTERS * tree.fontMetrics().averageCharWidth()
        tree.setColumnWidth(0, min(tree.columnWidth(0), widest))
        self._show_chosen()

    def _show_chosen(self) -> None:
        """Facts of the chosen model, and which buttons make sense for it."""
        row, ui = self.chosen, self.ui
        ui.modelDetails.text = _details_of(row) if row else ""
        ui.modelDetails.visible = row is not None
        ui.downloadButton.text = _("Cancel") if self._running else _("Download")
        ui.downloadButton.enabled = self._running or (
            row is not None and not row["installed"] and bool(row["url"])
        )
        installed = row is not None and row["installed"] and not self._running
        ui.verifyButton.enabled = installed
        ui.removeButton.enabled = installed and not row["bundled"]
        ui.importButton.enabled = not self._running

    def _show_folder(self) -> None:
        with quietly(self.ui.folderButton):
            self.ui.folderButton.directory = str(models.models_folder())

    def _choose_folder(self, folder: str) -> None:
        settings.set_models_folder(folder)
        self._show_folder()
        self.read_models()
        self._models_changed()
        self.progress.say(_("Models are now kept in {folder}.").format(folder=folder))

    def _accepts_licence(self, row: dict[str, Any]) -> bool:
        question = _(
            "“{title}” is under the licence {licence}:\n{url}\n\n{notice}\n\n"
            "Do you accept it and download about {size}?"
        ).format(
            title=row["title"],
            licence=row["licence"],
            url=row["licence_url"] or "",
            notice=row["licence_notice"] or "",
            size=texts.file_size(row["bytes"]),
        )
        return bool(
            slicer.util.confirmYesNoDisplay(question, windowTitle=_("Licence of the model"))
        )

    def _ask_to_choose(self) -> None:
        self.progress.say(_("Choose a model in the list first."))

    def _try(self, action: Callable[[], Any]) -> None:
        """Start a job, or say why not."""
        try:
            action()
        except (SceneError, models.ModelError) as error:
            self.progress.say(str(error))


def _item_of(row: dict[str, Any]) -> Any:
    """A row of the list."""
    size = texts.file_size(row["bytes"])
    columns = [
        _short_title(row),
        state_of(row),
        size,
        ", ".join(texts.organs().get(organ, organ) for organ in row["organs"]),
        row["licence"],
    ]
    item = qt.QTreeWidgetItem(columns)
    item.setData(0, ID_ROLE, row["id"])
    for index, text in enumerate(columns):
        item.setToolTip(index, row["title"] if index == 0 else text)
    return item


def _short_title(row: dict[str, Any]) -> str:
    """A published model without its publisher, whom the details name; its own column tells the organ."""
    _publisher, colon, rest = row["title"].partition(": ")
    return rest[:1].upper() + rest[1:] if colon and not row["bundled"] else row["title"]


def state_of(row: dict[str, Any]) -> str:
    """Installed or not, and whether it is what it was."""
    if not row["installed"]:
        return _("damaged") if row["problem"] else _("not installed")
    if row["verified"] is False:
        return _("changed")
    return _("part of the module") if row["bundled"] else _("installed, verified")


def _details_of(row: dict[str, Any]) -> str:
    """What is known of a model, as rich text."""
    lines = [
        f"<b>{escape(row['title'])}</b> ({escape(texts.tasks().get(row['task'], row['task']))})"
    ]
    if row["tumor_types"]:
        sizes = ", ".join(texts.sizes().get(kind, kind) for kind in row["tumor_types"])
        lines.append(_("Tumors: {sizes}").format(sizes=escape(sizes)))
    expected = row["expected"]
    if expected:
        lines.append(
            _(
                "Expected: {gpu} on a graphics card, {cpu} without, per {unit}; {memory:g} GB of memory"
            ).format(
                gpu=texts.duration(expected["seconds_gpu"]),
                cpu=texts.duration(expected["seconds_cpu"]),
                unit=escape(expected["per"]),
                memory=expected["memory_gb"],
            )
        )
    licence = escape(row["licence"])
    if row["licence_url"]:
        licence = f'<a href="{escape(row["licence_url"])}">{licence}</a>'
    lines.append(
        _("Licence: {licence}. {notice}").format(
            licence=licence, notice=escape(row["licence_notice"] or "")
        )
    )
    if row["page"]:
        lines.append(f'<a href="{escape(row["page"])}">{escape(_("Page of the authors"))}</a>')
    if row["problem"]:
        lines.append(f"<b>{escape(_('Please note:'))}</b> {escape(row['problem'])}")
    return "<br>".join(lines)
