"""The .ui files fit the parameter node, the code, and the real widgets."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

pytest.importorskip("PySide6", reason="needs PySide6-Essentials")
pytest.importorskip("slicer", reason="needs slicer-core")

from Testing import slicer_stand_in
from Testing.contracts.looping import each
from Testing.contracts.slicer_sources import (
    ALL_WIDGETS,
    MODULE,
    UI_FILES,
    WIDGET_KINDS,
    WITH_QT,
    chains,
    connections_of,
    short,
    widget_of,
)
from Testing.slicer_stand_in import api

BOUND = [widget for widget in ALL_WIDGETS if "SlicerParameterName" in widget.properties]
MRML = ("qMRML", "qSlicer")
# What a person presses, writes into or chooses from. A label says what it is; a place holder does not.
INTERACTIVE = (
    "QPushButton", "QToolButton", "QCheckBox", "QRadioButton", "QComboBox", "QSpinBox", "QDoubleSpinBox",
    "QLineEdit", "QSlider", "ctkSliderWidget", "ctkPathLineEdit", "ctkDirectoryButton",
    "qMRMLNodeComboBox", "qMRMLSegmentSelectorWidget",
)  # fmt: skip


@pytest.fixture(scope="module")
def parameters():
    slicer_stand_in.start()
    from DiffTumorSlicerLib.jobs.parameter_node import ModuleParameters

    return ModuleParameters


def test_there_are_ui_files():
    assert {path.stem for path in UI_FILES} >= {"DiffTumorSlicer", "SynthesisPanel", "VolumesPanel"}
    assert BOUND


@each("widget", BOUND, lambda w: f"{w.file}:{w.name}")
def test_every_bound_widget_can_show_its_parameter(parameters, widget):
    from Testing.slicer_stand_in.gui_connectors import kinds_of

    kind = parameters.dataType(widget.properties["SlicerParameterName"])  # raises for unknown names
    assert kinds_of(widget.kind, kind), f"{widget.kind} has no connector for {kind}"


@each("widget", BOUND, lambda w: f"{w.file}:{w.name}")
def test_a_32_bit_box_is_bound_to_what_fits_into_it(parameters, widget):
    from slicer.parameterNodeWrapper import WithinRange, findFirstAnnotation, splitAnnotations

    kind = parameters.dataType(widget.properties["SlicerParameterName"])
    within = findFirstAnnotation(splitAnnotations(kind)[1], WithinRange)
    if widget.kind in ("QSpinBox", "QSlider") and within is not None:
        assert within.maximum < 2**31


def test_no_parameter_has_two_widgets_and_no_name_is_used_twice_in_a_file():
    names = [widget.properties["SlicerParameterName"] for widget in BOUND]
    assert sorted(names) == sorted(set(names))
    every = [(widget.file, widget.name) for widget in ALL_WIDGETS]
    assert sorted(every) == sorted(set(every))


def test_a_name_means_the_same_class_in_every_file():
    # So that these tests know what `ui.name` is.
    assert {(w.name, w.kind) for w in ALL_WIDGETS} == set(WIDGET_KINDS.items())


def test_every_widget_the_code_names_is_in_a_ui_file():
    missing = {
        f"{short(path)}: {found[0]}"
        for path in WITH_QT
        for chain, _ in chains(path)
        if (found := widget_of(chain)) and found[0] not in WIDGET_KINDS
    }
    assert missing == set()


def test_every_member_of_a_widget_that_the_code_uses_is_one_of_the_real_class():
    wrong = set()
    for path in WITH_QT:
        for chain, node in chains(path):
            found = widget_of(chain)
            if not found or found[0] not in WIDGET_KINDS or not found[1]:
                continue
            allowed = api.allowed_names(WIDGET_KINDS[found[0]])
            member = found[1].split(".")[0]
            if allowed is not None and member not in allowed:
                wrong.add(f"{short(path)}:{node.lineno} {WIDGET_KINDS[found[0]]}.{member}")
    assert wrong == set()


@each("path", UI_FILES)
def test_every_widget_that_shows_nodes_gets_the_scene(path):
    top, *inner = [widget for widget in ALL_WIDGETS if widget.file == path.name]
    given = {
        c["receiver"]
        for c in connections_of(path)
        if c["sender"] == top.name
        and c["signal"] == "mrmlSceneChanged(vtkMRMLScene*)"
        and c["slot"] == "setMRMLScene(vtkMRMLScene*)"
    }
    assert {widget.name for widget in inner if widget.kind.startswith(MRML)} == given
    assert top.kind == "qMRMLWidget"


@each("path", UI_FILES)
def test_connections_in_a_ui_file_exist_in_the_real_classes(path):
    for connection in connections_of(path):
        sender, receiver = (WIDGET_KINDS[connection[end]] for end in ("sender", "receiver"))
        assert connection["signal"] in api.signal_signatures(sender)
        assert connection["slot"] in (api.described(receiver) or {}).get("slots", [])


@each("widget", ALL_WIDGETS, lambda w: f"{w.file}:{w.name}")
def test_a_ui_file_sets_only_properties_of_the_real_class(widget):
    assert api.described(widget.kind) is not None, f"{widget.kind} is not described in api.json"
    own = {"SlicerParameterName", "buddy"}  # the latter is Qt Designer's own word for a label
    assert set(widget.properties) - own <= api.property_names(widget.kind)


def test_everything_that_can_be_pressed_or_filled_in_has_a_tool_tip(parameters):
    from DiffTumorSlicerLib.panels.shared.field_widgets import WIDGETS

    told_by_fields = {
        (f"{panel}.ui", widget)
        for panel, kinds in WIDGETS.items()
        for names in kinds.values()
        for widgets in names.values()
        for widget in widgets
    } | {(f"{panel}.ui", "mapModelComboBox") for panel in ("AnomalyPanel", "SegmentationPanel")}
    written = {
        (widget.file, widget.name) for widget in ALL_WIDGETS if widget.properties.get("toolTip")
    }
    needed = {(w.file, w.name) for w in ALL_WIDGETS if w.kind in INTERACTIVE}
    assert needed - written - told_by_fields == set()
    assert written & told_by_fields == set(), "the text of a field is written down again"


def test_no_widget_has_a_style_of_its_own():
    # Slicer's light and dark themes, and the reviewers of Tier 3, want none.
    assert [widget.name for widget in ALL_WIDGETS if "styleSheet" in widget.properties] == []


def test_every_text_of_a_ui_file_ends_up_in_a_label_that_wraps_or_is_short():
    # At 150 % text a long line that does not wrap makes the panel wider than the screen.
    wide = {
        f"{widget.file}:{widget.name}"
        for widget in ALL_WIDGETS
        if widget.kind == "QLabel"
        and len(widget.properties.get("text", "")) > 60
        and widget.properties.get("wordWrap") != "true"
    }
    assert wide == set()


def test_a_long_sentence_does_not_widen_the_panel():
    """A collapsible button is as wide as its content wishes, and a wrapped label wishes for a short block of text."""
    columns = {"modalityValue", "orientationValue"}  # two beside each other, of a word each
    free = []
    for path in UI_FILES:
        for label in ElementTree.parse(path).iterfind(".//widget[@class='QLabel']"):
            if label.find("property[@name='wordWrap']") is not None:
                policy = label.find("property[@name='sizePolicy']/sizepolicy")
                if policy is None or policy.get("hsizetype") != "Ignored":
                    free.append(label.get("name"))
    assert set(free) == columns


def test_the_module_finds_all_of_its_ui_files():
    text = "".join(path.read_text(encoding="utf-8") for path in WITH_QT)
    assert {p.stem for p in UI_FILES if p.stem not in text} == set()
    assert (MODULE / "Resources" / "UI" / "DiffTumorSlicer.ui").is_file()
