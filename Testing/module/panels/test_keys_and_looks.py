"""Keys that belong to the panel, words on every control, and a layout that holds large text."""

from __future__ import annotations

import ast
import re
import xml.etree.ElementTree as ElementTree

import pytest
from PySide6 import QtCore, QtGui, QtWidgets

from Testing.module.panels.bench import ROOT, UI

PANELS = ROOT / "DiffTumorSlicer" / "DiffTumorSlicerLib" / "panels"

KEYS = {
    "placeButton": ("P", QtCore.Qt.Key.Key_P),
    "hereButton": ("H", QtCore.Qt.Key.Key_H),
    "goButton": ("G", QtCore.Qt.Key.Key_G),
    "newSeedButton": ("N", QtCore.Qt.Key.Key_N),
    "variantsButton": ("V", QtCore.Qt.Key.Key_V),
}
CONTROL = QtCore.Qt.KeyboardModifier.ControlModifier
# Frames, headings and bars, which say what they are.
SILENT = (
    "QLabel", "QWidget", "qMRMLWidget", "QGroupBox", "ctkCollapsibleGroupBox", "QProgressBar",
)  # fmt: skip


def widgets_of(name):
    """(class, object name, properties) of every widget in a .ui file."""
    root = ElementTree.parse(UI / f"{name}.ui").getroot()
    for widget in root.iter("widget"):
        properties = {
            p.get("name"): "".join(p.itertext()).strip() for p in widget.findall("property")
        }
        yield widget.get("class"), widget.get("name"), properties


@pytest.mark.parametrize(
    "name", ["volumes", "anomaly", "synthesis", "segmentation", "reader_study", "models"]
)
def test_every_control_says_what_it_does(bench, name):
    panel = getattr(bench.panels, name)
    for kind, widget, _properties in widgets_of(type(panel).__name__):
        if kind in SILENT:
            continue
        tip = getattr(panel.ui, widget).toolTip
        assert re.search(r"[.?)]$", tip), f"{widget} has no tool tip"


@pytest.mark.parametrize(
    "name",
    [
        "DiffTumorSlicer",
        "VolumesPanel",
        "AnomalyPanel",
        "SynthesisPanel",
        "ReaderStudyPanel",
        "ModelsPanel",
    ],
)
def test_no_panel_brings_a_style_of_its_own(name):
    text = (UI / f"{name}.ui").read_text(encoding="utf-8")
    for word in ("styleSheet", "<color", "<palette", "fixedsize", "<pointsize"):
        assert word not in text


def test_every_word_for_the_person_can_be_translated():
    """What the panels' code shows goes through `_`; the .ui files are translated as a whole."""
    shown = []
    for path in sorted(PANELS.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            values = []
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") in ("say", "_say"):
                values = node.args
            elif isinstance(node, ast.Assign) and any(
                getattr(target, "attr", "") in ("text", "title", "toolTip")
                for target in node.targets
            ):
                values = [node.value]
            shown += [
                f"{path.name}:{v.lineno} {v.value!r}"
                for v in values
                if isinstance(v, ast.Constant) and isinstance(v.value, str) and v.value
            ]
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "_":
                assert isinstance(node.args[0], ast.Constant), f"{path.name}:{node.lineno}"
    assert shown == []


def test_the_notice_is_always_there(bench):
    import slicer

    ui = slicer.util.childWidgetVariables(bench.widget)
    notice = ui.noticeLabel.text
    for words in ("Research use only", "not a medical device", "pending patents", "non-commercial"):
        assert words in notice
    assert ui.noticeLabel.visible


def test_keys_stand_on_their_buttons(bench):
    for name, (key, _) in KEYS.items():
        assert getattr(bench.ui, name).text.endswith(f"({key})")
    assert bench.ui.synthesizeButton.text == "Synthesize (Ctrl+Return)"
    assert bench.ui.removeLastButton.text.endswith("(Ctrl+Backspace)")


def test_keys_press_their_buttons(bench):
    bench.load_ct()
    bench.place()
    pressed = []
    for name in KEYS:
        getattr(bench.ui, name).connect("clicked()", lambda name=name: pressed.append(name))
    _focus(bench, bench.ui.modelComboBox)
    for name, (_, key) in KEYS.items():
        bench.key(bench.ui.modelComboBox, key)
        assert pressed[-1:] == [name], name
    bench.panels.synthesis.cancel()


def test_control_return_starts_and_escape_cancels(bench):
    bench.load_ct()
    bench.place()
    _focus(bench, bench.ui.synthesizeButton)
    bench.key(bench.ui.synthesizeButton, QtCore.Qt.Key.Key_Return, CONTROL)
    assert list(bench.bridge.requests) == [1]
    bench.key(bench.ui.synthesizeButton, QtCore.Qt.Key.Key_Return, CONTROL)
    assert list(bench.bridge.requests) == [1]  # a second press is no cancel
    assert not bench.bridge.stopped
    bench.key(bench.ui.synthesizeButton, QtCore.Qt.Key.Key_Escape)
    assert bench.bridge.stopped == [1]


def test_letters_can_be_typed_where_text_belongs(bench):
    _focus(bench, bench.ui.seedEdit)
    bench.ui.seedEdit.text = ""
    bench.key(bench.ui.seedEdit, QtCore.Qt.Key.Key_N)
    assert bench.ui.seedEdit.text == "n"


def test_keys_rest_while_another_widget_has_the_keyboard(bench):
    bench.load_ct()
    outside = QtWidgets.QWidget()
    edit = QtWidgets.QPushButton("elsewhere", outside)
    outside.show()
    outside.activateWindow()
    edit.setFocus()
    bench.app.processEvents()
    bench.key(edit, QtCore.Qt.Key.Key_P)
    assert not bench.ui.placeButton.checked
    outside.deleteLater()


def test_nothing_of_the_keys_stays_after_the_panel(bench):
    panel = bench.panels.synthesis.widget
    assert panel.actions()
    bench.panels.cleanup()
    assert not panel.actions()


@pytest.mark.parametrize(("scale", "widest"), [(1.0, 430), (1.5, 640)])
def test_nothing_is_cut_off_and_the_panel_stays_narrow(bench, scale, widest):
    """At 100 % and 150 % text, with everything shown that a panel can show."""
    import slicer

    before = QtWidgets.QApplication.font()
    font = QtGui.QFont(before)
    font.setPointSizeF(font.pointSizeF() * scale)
    QtWidgets.QApplication.setFont(font)
    try:
        bench.load_ct()
        bench.place()
        bench.synthesize()
        modules = slicer.util.childWidgetVariables(bench.widget)
        modules.modelsSection.collapsed = False
        bench.ui.moreGroup.collapsed = False
        bench.models.placesGroup.collapsed = False
        bench.panels.models.choose("difftumor-liver-early")
        bench.turn()
        width = QtWidgets.QWidget.minimumSizeHint(bench.widget).width()
        assert width <= widest
        height = QtWidgets.QWidget.heightForWidth(bench.widget, width)
        bench.widget.resize(width, max(height, bench.widget.sizeHint().height()))
        bench.turn()
        short = []
        for ui in (bench.ui, bench.volumes, bench.models):
            for widget in vars(ui).values():
                if isinstance(widget, QtWidgets.QAbstractButton) and widget.visible:
                    metrics = QtWidgets.QWidget.fontMetrics(widget)
                    if metrics.horizontalAdvance(widget.text) > QtWidgets.QWidget.width(widget):
                        short.append((widget.name, widget.text))
        assert short == []
    finally:
        QtWidgets.QApplication.setFont(before)


def _focus(bench, widget):
    bench.widget.activateWindow()
    widget.setFocus()
    bench.app.processEvents()
