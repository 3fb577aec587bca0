"""The Models panel: what is there, what can be had, and on what it computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt
import slicer
from slicer.i18n import tr as _

from difftumor.weights import models
from DiffTumorSlicerLib.jobs.states import MODELS, JobState
from DiffTumorSlicerLib.panels.models.machine import MachineGroup
from DiffTumorSlicerLib.panels.models.model_rows import ID_ROLE, details_of, is_pinned_only, item_of
from DiffTumorSlicerLib.panels.shared import settings, texts
from DiffTumorSlicerLib.panels.shared.progress import Progress
from DiffTumorSlicerLib.panels.shared.surroundings import Surroundings
from DiffTumorSlicerLib.panels.shared.widgets import chosen_of, fill_combo, quietly

COLUMNS = 5
TITLE_CHARACTERS = 34  # longer titles are shown in full by the tool tip and below the list
ALL = "all"
MODEL_FILES = "*.pt *.pth *.ckpt *.safetensors *.json"


class ModelsPanel:
    """The registry as a list, and what can be done with the chosen row."""

    def __init__(self, around: Surroundings, models_changed: Callable[[], None]) -> None:
        """Build the panel.

        Args:
            around: what it stands in.
            models_changed: called when there are other models than before.
        """
        self._session = around.session
        self._requirements = around.requirements
        self._models_changed = models_changed
        self._running = False
        self._rows: dict[str, dict[str, Any]] = {}
        self.widget, self.ui = around.load("ModelsPanel")
        ui = self.ui
        self.progress = Progress(ui.modelsProgressBar, ui.modelsProgressLabel, ui.modelsMessage)
        self.machine = MachineGroup(ui, around.session, around.requirements, self.progress.say)
        headers = [_("Model"), _("State"), _("Size"), _("Organ"), _("License")]
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
        """The row of `difftumor.weights.models.list_models` that is chosen, or None."""
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
        """Download the chosen model after its license was accepted, or stop what is going on."""
        if self._running:
            self._session.cancel(self._session.states[MODELS].number)
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
            self.progress.say(_("Nothing was downloaded: the license was not accepted."))
            return
        self.progress.attempt(lambda: self._session.download(row["id"], accept=True))

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

        def start() -> None:
            self._requirements.ensure()  # the worker looks into the file
            self._session.import_model(path, model_id=named)

        self.progress.attempt(start)

    def verify(self) -> None:
        """Compare the chosen model with its checksum."""
        row = self.chosen
        if row is None or not row["installed"]:
            self.progress.say(_("Choose an installed model in the list first."))
            return
        self.progress.attempt(lambda: self._session.verify(row["id"]))

    def remove(self) -> None:
        """Delete the chosen model, or forget the checksum of one that is not there, after asking."""
        row = self.chosen
        forget = row is not None and is_pinned_only(row)
        if row is None or not (row["installed"] or forget):
            self.progress.say(_("Choose an installed model in the list first."))
            return
        if row["bundled"]:
            self.progress.say(_("This model is part of the module; choose another one to remove."))
            return
        if forget:
            question = _(
                "The checksum of “{title}” was remembered from its first download. Forget it, so that a "
                "changed file is accepted? Do so only if its authors say that they changed it."
            ).format(title=row["title"])
        else:
            question = _("Delete “{title}” from this computer ({size})?").format(
                title=row["title"], size=texts.file_size(row["bytes"])
            )
        if slicer.util.confirmYesNoDisplay(question, windowTitle=_("Remove model")):
            self.progress.attempt(lambda: self._session.remove(row["id"], forget=forget))

    def open_folder(self) -> None:
        """Show the models folder in the file browser."""
        folder = models.models_folder()
        if not folder.is_dir():
            self.progress.say(_("The models folder is made with the first download or import."))
            return
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(folder)))

    # ---------------------------------------------------------------------------------- showing

    def follow(self, state: JobState) -> None:
        """Show how a job is getting on; called by the session."""
        self.machine.follow(state)
        if state.panel != MODELS:
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
        try:
            self._rows = {row["id"]: row for row in models.list_models()}
        except models.ModelError as error:  # the registry of the installation cannot be read
            self._rows = {}
            self.progress.say(str(error))
        tree = self.ui.modelsTree
        with quietly(tree):
            tree.clear()
            for row in self._rows.values():
                if task in (ALL, "", row["task"]):
                    tree.addTopLevelItem(item_of(row))
            self.choose(chosen)
        for column in range(COLUMNS):
            tree.resizeColumnToContents(column)
        widest = TITLE_CHARACTERS * tree.fontMetrics().averageCharWidth()
        tree.setColumnWidth(0, min(tree.columnWidth(0), widest))
        self._show_chosen()

    def _show_chosen(self) -> None:
        """Facts of the chosen model, and which buttons make sense for it."""
        row, ui = self.chosen, self.ui
        ui.modelDetails.text = details_of(row) if row else ""
        ui.modelDetails.visible = row is not None
        ui.downloadButton.text = _("Cancel") if self._running else _("Download")
        ui.downloadButton.enabled = self._running or (
            row is not None and not row["installed"] and bool(row["url"])
        )
        installed = row is not None and row["installed"] and not self._running
        ui.verifyButton.enabled = installed
        forget = row is not None and is_pinned_only(row)
        ui.removeButton.text = _("Forget checksum…") if forget else _("Remove…")
        removable = row is not None and installed and not row["bundled"]
        ui.removeButton.enabled = not self._running and (forget or removable)
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
            "“{title}” is under the license {licence}:\n{url}\n\n{notice}\n\n"
            "Do you accept it and download about {size}?"
        ).format(
            title=row["title"],
            licence=row["licence"],
            url=row["licence_url"] or "",
            notice=row["licence_notice"] or "",
            size=texts.file_size(row["bytes"]),
        )
        return bool(
            slicer.util.confirmYesNoDisplay(question, windowTitle=_("License of the model"))
        )

    def _ask_to_choose(self) -> None:
        self.progress.say(_("Choose a model in the list first."))
