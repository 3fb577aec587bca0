"""What the tumor is like: type, model, seed, and the settings that few people change."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from slicer.i18n import tr as _

from difftumor.parameters import MODELLED, SynthesisParameters
from difftumor.weights import models
from DiffTumorSlicerLib.jobs.models import best_model, fitting_models, is_modelled, takes_steps
from DiffTumorSlicerLib.jobs.parameter_node import ModuleParameters
from DiffTumorSlicerLib.panels.shared import texts
from DiffTumorSlicerLib.panels.shared.field_widgets import limits_of
from DiffTumorSlicerLib.panels.shared.widgets import chosen_of, fill_combo

LARGEST_NEW_SEED = 999_999  # short enough to be read out or written down
LARGEST_SEED = limits_of(SynthesisParameters, "seed")[1]


class TumorGroup:
    """The group "Tumor" of the Synthesis panel."""

    def __init__(
        self, ui: Any, say: Callable[[str], None], size_changed: Callable[[str, str], None]
    ) -> None:
        """Connect the group.

        Args:
            ui: widgets of the Synthesis panel.
            say: shows a sentence to the person.
            size_changed: called with the old and the new size.
        """
        self._ui = ui
        self._say = say
        self._size_changed = size_changed
        self._parameters: Any = None
        self._rows: list[dict[str, Any]] = []
        ui.sizeComboBox.connect("currentIndexChanged(int)", lambda _row: self._choose_size())
        ui.modelComboBox.connect("currentIndexChanged(int)", lambda _row: self._choose("model"))
        ui.blendComboBox.connect("currentIndexChanged(int)", lambda _row: self._choose("blend"))
        ui.grainComboBox.connect("currentIndexChanged(int)", lambda _row: self._choose("grain"))
        ui.seedEdit.connect("editingFinished()", self._write_seed)
        ui.newSeedButton.connect("clicked()", self.new_seed)
        self.read_models()

    def set_parameter_node(self, parameters: ModuleParameters | None) -> None:
        """Follow another parameter node, or none."""
        self._parameters = parameters
        self.refresh()

    def read_models(self) -> None:
        """Look which models there are; called when the Models panel changed them, and on entering."""
        try:
            self._rows = models.list_models()
        except models.ModelError as error:  # the registry of the installation cannot be read
            self._rows = []
            self._say(str(error))
        self.refresh()

    @property
    def is_installed(self) -> bool:
        """Whether the chosen model can be used at once."""
        if self._parameters is None:
            return False
        model = self._parameters.synthesis.model
        row = next((row for row in self._rows if row["id"] == model), None)
        return row is None or bool(row["installed"])

    def new_seed(self) -> None:
        """Draw another seed."""
        if self._parameters is not None:
            self._parameters.synthesis.seed = random.randint(0, LARGEST_NEW_SEED)
            self.refresh()

    def refresh(self) -> None:
        """Show the parameters; writes nothing but a model that cannot make the tumor."""
        if self._parameters is None:
            return
        asked = self._parameters.synthesis
        fill_combo(self._ui.sizeComboBox, texts.sizes(), asked.size)
        fill_combo(self._ui.modelComboBox, self._titles(asked.organ, asked.size), asked.model)
        fill_combo(self._ui.blendComboBox, _blends(), asked.blend)
        fill_combo(self._ui.grainComboBox, _grains(), asked.grain)
        if self._ui.seedEdit.text != str(asked.seed) and not self._ui.seedEdit.hasFocus():
            self._ui.seedEdit.text = str(asked.seed)
        steps, modelled = takes_steps(asked.model), is_modelled(asked.model)
        for name in ("stepsLabel", "stepsSpinBox"):
            getattr(self._ui, name).enabled = steps
        # The modeled tumor brings its own rim and noise.
        for name in ("feather", "blend", "grain"):
            getattr(self._ui, f"{name}Label").enabled = not modelled
        self._ui.featherSpinBox.enabled = not modelled and asked.blend == "feather"
        self._ui.blendComboBox.enabled = not modelled
        self._ui.grainComboBox.enabled = not modelled

    def follow_organ(self) -> None:
        """Offer the models of another organ or size, and change to one that fits if needed."""
        if self._parameters is None:
            return
        asked = self._parameters.synthesis
        if asked.model not in self._titles(asked.organ, asked.size, keep=False):
            asked.model = best_model(self._rows, asked.organ, asked.size)
            title = self._titles(asked.organ, asked.size)[asked.model]
            self._say(_("The model is now “{title}”, which fits.").format(title=title))
        self.refresh()

    def _titles(self, organ: str, size: str, keep: bool = True) -> dict[str, str]:
        """Words for each model that is offered; one that is chosen stays in the list in any case."""
        titles = {MODELLED: _("Modeled texture (needs no model file)")}
        for row in fitting_models(self._rows, organ, size):
            missing = (
                "" if row["installed"] else _("{title} (not installed)").format(title=row["title"])
            )
            titles[row["id"]] = missing or row["title"]
        chosen = self._parameters.synthesis.model if self._parameters is not None else ""
        if keep and chosen and chosen not in titles:
            titles[chosen] = chosen
        return titles

    def _choose_size(self) -> None:
        if self._parameters is not None:
            before, now = self._parameters.synthesis.size, chosen_of(self._ui.sizeComboBox)
            self._parameters.synthesis.size = now
            self.follow_organ()
            self._size_changed(before, now)

    def _choose(self, name: str) -> None:
        """Write the choice of a combo box into the parameter of its name."""
        if self._parameters is None:
            return
        value = chosen_of(getattr(self._ui, f"{name}ComboBox"))
        if value:
            setattr(self._parameters.synthesis, name, value)
        self.refresh()

    def _write_seed(self) -> None:
        if self._parameters is None:
            return
        text = self._ui.seedEdit.text.strip()
        if text.isdecimal() and int(text) <= LARGEST_SEED:
            self._parameters.synthesis.seed = int(text)
        else:
            self._say(_("A seed is a whole number from 0 up. The old one was kept."))
        self._ui.seedEdit.text = str(self._parameters.synthesis.seed)


def _blends() -> dict[str, str]:
    return {"feather": _("Soft rim"), "paper": _("As published")}


def _grains() -> dict[str, str]:
    return {
        "auto": _("As the model advises"),
        "scan": _("Of the scan"),
        "model": _("Of the model"),
    }
