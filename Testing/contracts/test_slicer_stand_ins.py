"""The stand-ins show Python what Slicer shows, and nothing more."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

pytest.importorskip("PySide6", reason="needs PySide6-Essentials")
pytest.importorskip("slicer", reason="needs slicer-core")

from PySide6 import QtCore, QtWidgets

from Testing import slicer_stand_in
from Testing.contracts.looping import each
from Testing.slicer_stand_in import api, ctk_module, functions
from Testing.slicer_stand_in.parameter_node_wrapper import NAMES

slicer_stand_in.start()

from Testing.slicer_stand_in import application, mrml_widgets, scripted_module  # noqa: E402

STAND_INS = {
    **ctk_module.CLASSES,
    **mrml_widgets.CLASSES,
    "slicer.app": application.Application,
    "qSlicerModuleManager": application._ModuleManager,
    "qSlicerScriptedLoadableModule": scripted_module._ScriptedModule,
    "qSlicerScriptedLoadableModuleWidget": scripted_module._ScriptedModuleWidget,
}
try:
    from Testing.slicer_stand_in import plot_views, views

    STAND_INS |= {
        "qMRMLSliceView": views._SliceView,
        "qMRMLThreeDView": views._ThreeDView,
        "qMRMLSliceWidget": views._SliceWidget,
        "qMRMLThreeDWidget": views._ThreeDWidget,
        "qMRMLPlotView": plot_views._PlotView,
        "qMRMLPlotWidget": plot_views._PlotWidget,
        "slicer.app.layoutManager()": views._LayoutManager,
    }
except ImportError:
    pass  # trame-slicer is not installed; its own tests say so
# Functions that Qt calls, overridden for drawing and layout.
CALLED_BY_QT = {"sizeHint", "minimumSizeHint", "hitButton"}
PYTHON_OF_CPP = {
    "bool": "bool", "int": "int", "double": "double", "QString": "QString", "QStringList": "QStringList",
    "QIcon": "QIcon",
}  # fmt: skip
# Flags and lists of strings come to Python as an int and a list.
LOOSE = {"Filters": "int", "QStringList": "QVariantList"}


def own_members(kind: type) -> dict[str, object]:
    """What our class and its bases of ours define."""
    members: dict[str, object] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("Testing."):
            members |= {k: v for k, v in vars(base).items() if not k.startswith("_")}
    members.pop("staticMetaObject", None)
    return members


def cpp_types(signature: str) -> list[str]:
    inside = signature.partition("(")[2].rstrip(")")
    return inside.split(",") if inside else []


def test_the_description_is_a_part_of_what_was_read_off_slicer(shared):
    specification = shared / "specs" / "slicer_api"
    ours = api.read()
    whole = api.part_of(specification, list(ours["widgets"]), list(ours["python"]))
    assert ours == json.loads(json.dumps(whole))


def test_the_description_stays_small():
    assert api.API_FILE.stat().st_size < 250_000


@each("name", list(STAND_INS))
def test_a_stand_in_has_nothing_that_the_real_class_has_not(name):
    invented = {
        key
        for key in own_members(STAND_INS[name])
        if key not in api.allowed_names(name)
        and key not in CALLED_BY_QT
        and not key.endswith("Event")
    }
    assert invented == set()


@each("name", list(STAND_INS))
def test_properties_have_the_real_types_and_are_settable_where_the_real_ones_are(name):
    real = api.described(name).get("properties", {})
    meta = STAND_INS[name].staticMetaObject
    for key, member in own_members(STAND_INS[name]).items():
        if not isinstance(member, QtCore.Property):
            continue
        assert key in real, f"{key} is no property of {name}"
        wanted = real[key].removesuffix(" (read only)")
        ours = meta.property(meta.indexOfProperty(key)).typeName()
        assert ours in (PYTHON_OF_CPP.get(wanted, wanted), LOOSE.get(wanted)), key
        if real[key].endswith("(read only)"):
            assert member.fset is None, key


@each("name", list(STAND_INS))
def test_signals_have_the_real_signatures(name):
    real = api.signal_signatures(name)
    for key, member in own_members(STAND_INS[name]).items():
        if not isinstance(member, QtCore.Signal):
            continue
        for overload in str(member).split(";"):
            types = [
                {"PyObject": "*", "double": "double"}.get(t, t) for t in cpp_types(overload.strip())
            ]
            fitting = [
                one
                for one in real
                if one.split("(")[0] == key
                and len(cpp_types(one)) == len(types)
                and all(t == "*" or t == r for t, r in zip(types, cpp_types(one), strict=True))
            ]
            assert fitting, f"{name}.{overload}"


@each("name", list(STAND_INS))
def test_functions_are_slots_or_are_seen_from_python(name):
    entry = api.described(name)
    seen = set(entry.get("python", ())) | api.names_of(entry.get("slots", []))
    for key, member in own_members(STAND_INS[name]).items():
        if inspect.isfunction(member) and key not in CALLED_BY_QT and not key.endswith("Event"):
            assert key in seen, f"{name}.{key}() cannot be called from Python"


@pytest.mark.parametrize("module", ["i18n", "packaging", "testing"])
def test_functions_have_the_real_signatures(module):
    import slicer

    real = api.read()["python"][f"slicer.{module}"]
    for key, member in vars(getattr(slicer, module)).items():
        if not inspect.isfunction(member):
            continue
        signature = real[key].rpartition(" -> ")[0] or real[key]
        wanted = [p.split(":")[0].split("=")[0].strip(" ()") for p in _split_arguments(signature)]
        ours = list(inspect.signature(member).parameters)
        assert ours == [name for name in wanted if not name.startswith("_")], key


def _split_arguments(signature: str) -> list[str]:
    """Arguments of "(a, b: 'dict[str, int]' = 1)"; commas inside brackets do not part them."""
    parts, depth = [""], 0
    for letter in signature.strip()[1:-1]:
        depth += (letter in "[(") - (letter in "])")
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return [part for part in parts if part.strip()]


def test_scripted_module_classes_have_the_real_methods():
    import slicer

    for name, methods in api.read()["python"]["slicer.ScriptedLoadableModule"].items():
        ours = getattr(slicer.ScriptedLoadableModule, name)
        for key, function in vars(ours).items():
            if key.startswith("_") or not inspect.isfunction(function):
                continue
            assert key in methods, f"{name}.{key}"
            wanted = [p.split("=")[0].strip() for p in _split_arguments(methods[key])]
            taken = [
                {inspect.Parameter.VAR_KEYWORD: "**", inspect.Parameter.VAR_POSITIONAL: "*"}.get(p.kind, "")
                + p.name
                for p in inspect.signature(function).parameters.values()
            ]  # fmt: skip
            assert taken == wanted, f"{name}.{key}"


def test_sample_data_takes_the_real_arguments():
    import SampleData

    real = api.read()["python"]["SampleData"]["SampleDataSource"]["__init__"]
    wanted = [part.split("=")[0].strip() for part in _split_arguments(real)]
    assert list(inspect.signature(SampleData.SampleDataSource.__init__).parameters) == wanted


def test_the_parameter_node_wrapper_has_only_real_names():
    assert set(NAMES) <= set(api.read()["python"]["slicer.parameterNodeWrapper"])


def test_every_wrapped_qt_class_hides_what_qt_5_has_not():
    import qt

    button = qt.QPushButton("Go")
    with pytest.raises(AttributeError, match="Slicer's QPushButton has no 'setScreen'"):
        button.setScreen(None)
    with pytest.raises(AttributeError, match="has no property 'colour'"):
        button.colour = "red"
    with pytest.raises(TypeError, match="not callable"):
        button.text()
    with pytest.raises(ValueError, match="no signal 'pushed"):
        button.connect("pushed()", print)


def test_slots_get_as_many_values_as_pythonqt_hands_them():
    import qt

    seen = []

    class Panel:
        def pressed(self, checked):
            seen.append(("method", checked))

    button = qt.QPushButton("Go")
    button.checkable = True
    button.connect("clicked(bool)", lambda: seen.append("nothing"))
    # The default counts as an argument that is wanted: a well-known trap of PythonQt.
    button.connect("clicked(bool)", lambda model="mine": seen.append(model))
    button.connect("clicked(bool)", Panel().pressed)  # kept alive by the connection
    button.clicked.connect(lambda *values: seen.append(values))
    button.click()
    assert seen == ["nothing", True, ("method", True), (True,)]
    assert slicer_stand_in.slot_errors() == []


def test_what_a_slot_raises_is_kept_for_the_test(capsys):
    import qt

    button = qt.QPushButton("Go")
    button.connect("clicked()", lambda: 1 / 0)
    button.click()
    assert "ZeroDivisionError" in capsys.readouterr().err
    assert [type(error) for error in slicer_stand_in.slot_errors()] == [ZeroDivisionError]


def test_connections_end_with_disconnect():
    import qt

    seen = []
    box = qt.QSpinBox()
    box.connect("valueChanged(int)", seen.append)
    box.value = 3
    assert box.disconnect("valueChanged(int)", seen.append)
    box.value = 4
    assert seen == [3]


def test_nothing_of_the_stand_ins_is_packaged():
    cmake = Path(__file__).parents[2] / "DiffTumorSlicer" / "CMakeLists.txt"
    assert "slicer_stand_in" not in cmake.read_text(encoding="utf-8")
    assert isinstance(functions.asked_to_install, list)
    assert QtWidgets.QApplication.instance() is not None
