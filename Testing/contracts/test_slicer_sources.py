"""What the module uses of Slicer and Qt exists there, and Qt stays where it belongs. Read, not run."""

from __future__ import annotations

import ast
import re
import sys

import pytest

from Testing.contracts.looping import each
from Testing.contracts.slicer_sources import (
    LIBRARY,
    MODULE_FILE,
    ROOT,
    SOURCES,
    WIDGET_KINDS,
    WITH_QT,
    calls,
    chains,
    dotted,
    imports,
    short,
    tree_of,
    widget_of,
)
from Testing.slicer_stand_in import api

pytest.importorskip("PySide6", reason="needs PySide6-Essentials")
slicer = pytest.importorskip("slicer", reason="needs slicer-core")

# At file scope: the standard library, what every Slicer has, and our own. (Extensions Index, question 9)
AT_FILE_SCOPE = {"slicer", "vtk", "numpy", "difftumor", "DiffTumorSlicerLib"}
QT = {"qt", "ctk", "PythonQt", "PySide6"}
# Never in Slicer's process: torch belongs to the worker.
NEVER = {"torch", "monai", "torchvision", "lightning", "light_the_torch"}

# What the reading of Slicer's interface lacks, each with its source.
EXCEPTIONS = {
    # Built by every release of Slicer, not by the one that was read (it had no extensions manager):
    # Slicer, Base/QTCore/qSlicerExtensionsManagerModel.h (Q_INVOKABLE isExtensionInstalled,
    # installExtensionFromServer; property interactive) and the Script repository, "Download and install
    # extension": em = slicer.app.extensionsManagerModel(); em.interactive = False.
    "slicer.app.extensionsManagerModel",
    # Modules of other extensions, asked for with hasattr before use.
    "slicer.modules.pytorchutils",  # SlicerPyTorch, PyTorchUtils/PyTorchUtils.py
    "slicer.modules.totalsegmentator",  # SlicerTotalSegmentator, TotalSegmentator/TotalSegmentator.py
    "slicer.modules.difftumorslicer",  # ours
    # DICOM was not part of the build that was read: Slicer, Modules/Scripted/DICOM/DICOM.py.
    "slicer.modules.dicom",
    "slicer.modules.dicomPlugins",
    # A ctkDICOMDatabase (isOpen, insert, fileForInstance), made by the DICOM module and used so by
    # Modules/Scripted/DICOMPlugins/DICOMSegmentationPlugin.py.
    "slicer.dicomDatabase",
}
# Modules of Slicer and of extensions that were not read; imported inside functions only.
UNREAD_MODULES = {
    "PyTorchUtils": "SlicerPyTorch, PyTorchUtils/PyTorchUtils.py: PyTorchUtilsLogic.installTorch("
    "askConfirmation, forceComputationBackend, torchVersionRequirement)",
    "TotalSegmentator": "SlicerTotalSegmentator, TotalSegmentator/TotalSegmentator.py",
    "DICOMLib": "Slicer, Modules/Scripted/DICOMLib",
    "DICOMScalarVolumePlugin": "Slicer, Modules/Scripted/DICOMPlugins/DICOMScalarVolumePlugin.py",
    "DICOMSegmentationPlugin": "Slicer, Modules/Scripted/DICOMPlugins/DICOMSegmentationPlugin.py",
    "SampleData": "described in specs/slicer_api/python.json; its static methods, which were not read: Slicer, "
    "Modules/Scripted/SampleData/SampleData.py: SampleDataLogic.registerCustomSampleDataSource(category, "
    "sampleName, uris, fileNames, nodeNames, customDownloader, thumbnailFileName, ...)",
    "psutil": "Resources/requirements.txt",
    "pydicom": "in every Slicer",
    "SimpleITK": "in every Slicer",
    "scipy": "in every Slicer",
}
# Qt's value classes, layouts and name spaces, which were not read: Qt 5.15's documentation of the class
# of this name. PythonQt wraps all of QtCore, QtGui and QtWidgets.
QT_5_CLASSES = {
    "Qt", "QBrush", "QColor", "QCursor", "QDesktopServices", "QEvent", "QFont", "QFormLayout",
    "QGridLayout", "QHBoxLayout", "QHeaderView", "QIcon", "QKeySequence", "QPalette", "QPixmap", "QPoint",
    "QShortcut", "QSize", "QSizePolicy", "QTreeWidgetItem", "QUrl", "QVBoxLayout",
}  # fmt: skip


def python_names(module: str) -> dict[str, object]:
    return api.read()["python"][module]


def test_there_is_something_to_read():
    assert MODULE_FILE in SOURCES
    assert len(SOURCES) > 10


@each("path", SOURCES)
def test_only_the_panels_and_the_module_file_know_qt(path):
    roots = {found.module.split(".")[0] for found in imports(path)}
    assert path in WITH_QT or not roots & QT
    assert "PySide6" not in roots


@each("path", SOURCES)
def test_nothing_third_party_is_imported_at_file_scope(path):
    roots = {found.module.split(".")[0] for found in imports(path) if found.at_file_scope}
    allowed = AT_FILE_SCOPE | set(sys.stdlib_module_names) | (QT if path in WITH_QT else set())
    assert roots - allowed == set()


@each("path", SOURCES)
def test_what_is_imported_late_is_known_and_never_torch(path):
    roots = {found.module.split(".")[0] for found in imports(path)}
    allowed = AT_FILE_SCOPE | QT | set(sys.stdlib_module_names) | set(UNREAD_MODULES)
    assert not roots & NEVER
    assert roots - allowed == set()


@each("path", SOURCES)
def test_names_imported_from_slicer_exist(path):
    for found in imports(path):
        if found.module in ("slicer.ScriptedLoadableModule", "slicer.parameterNodeWrapper", "slicer.i18n",
                            "slicer.packaging", "slicer.util", "slicer.testing"):  # fmt: skip
            assert set(found.names) - set(python_names(found.module)) == set()
        elif found.module == "slicer":
            known = set(python_names("slicer (attributes that are not vtk*, qMRML*, qSlicer*)"))
            assert [n for n in found.names if n not in known and not hasattr(slicer, n)] == []


@each("path", SOURCES)
def test_everything_used_of_the_slicer_namespace_exists(path):
    wrong = []
    plain = set(python_names("slicer (attributes that are not vtk*, qMRML*, qSlicer*)"))
    for chain, node in chains(path):
        parts = chain.split(".")
        if parts[0] != "slicer" or len(parts) < 2:
            continue
        known = ".".join(parts[:3]) in EXCEPTIONS
        if parts[1] in ("util", "packaging", "i18n") and len(parts) > 2:
            known = parts[2] in python_names(f"slicer.{parts[1]}")
        elif parts[1] in ("app", "modules") and len(parts) > 2:
            known = known or parts[2] in python_names(f"slicer.{parts[1]}")
        else:
            known = parts[1] in plain or hasattr(slicer, parts[1]) or api.described(parts[1])
        if not known:
            wrong.append(f"{short(path)}:{node.lineno} {chain}")
    assert wrong == []


@each("path", SOURCES)
def test_slicer_functions_are_called_with_arguments_that_they_have(path):
    wrong = []
    for chain, call in calls(path):
        parts = chain.split(".")
        if parts[:1] == ["slicer"] and parts[1:2] in (["util"], ["packaging"]) and len(parts) == 3:
            module, name = ".".join(parts[:2]), parts[2]
        elif parts[0] == "packaging" and len(parts) == 2:
            module, name = "slicer.packaging", parts[1]
        else:
            continue
        signature = python_names(module)[name]
        if isinstance(signature, dict):
            signature = signature.get("__init__", "(**kwargs)")
        wrong += [
            f"{short(path)}:{call.lineno} {chain}({word.arg}=)"
            for word in call.keywords
            if word.arg and "**" not in signature and f"{word.arg}" not in _parameters(signature)
        ]
    assert wrong == []


@each("path", SOURCES)
def test_members_of_the_application_that_are_asked_for_by_name_exist(path):
    wrong = []
    for chain, call in calls(path):
        if chain not in ("getattr", "hasattr") or not isinstance(call.args[1], ast.Constant):
            continue
        owner, name = dotted(call.args[0]), call.args[1].value
        if owner in ("slicer.app", "slicer.modules"):
            known = name in python_names(owner) or f"{owner}.{name}" in EXCEPTIONS
            wrong += [] if known else [f"{short(path)}:{call.lineno} {owner}.{name}"]
    assert wrong == []


def _parameters(signature: str) -> list[str]:
    head = signature.rpartition(" -> ")[0] or signature
    return [part.split(":")[0].split("=")[0].strip(" ()*") for part in head.split(",")]


@each("path", WITH_QT)
def test_qt_classes_and_their_members_exist(path):
    wrong = [
        f"{short(path)}:{node.lineno} {chain}"
        for chain, node in chains(path)
        if chain.split(".")[0] in ("qt", "ctk") and not _is_in_qt(*chain.split(".")[1:3])
    ]
    assert wrong == []


def _is_in_qt(name: str, member: str = "") -> bool:
    """Whether a class and its member are in Slicer's Qt; what was not read, is looked up in Qt 6."""
    from PySide6 import QtCore, QtGui, QtWidgets

    if api.described(name) is not None:
        return not member or member in api.allowed_names(name)
    kinds = [getattr(library, name, None) for library in (QtCore, QtGui, QtWidgets)]
    kind = next((kind for kind in kinds if kind is not None), None)
    return name in QT_5_CLASSES and (not member or hasattr(kind, member))


@each("path", WITH_QT)
def test_signals_are_connected_by_a_signature_that_exists(path):
    every = {s for name in api.read()["widgets"] for s in api.signal_signatures(name)}
    wrong = []
    for node in ast.walk(tree_of(path)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if node.func.attr not in ("connect", "disconnect") or not node.args:
            continue
        first = node.args[0]
        if not (isinstance(first, ast.Constant) and isinstance(first.value, str)):
            wrong.append(
                f"{short(path)}:{node.lineno} connect by signature: x.connect('sig(type)', f)"
            )
            continue
        signals = every
        found = widget_of(f"{dotted(node.func.value)}.connect")
        if found and found[0] in WIDGET_KINDS:
            signals = set(api.signal_signatures(WIDGET_KINDS[found[0]]))
        if first.value not in signals:
            wrong.append(f"{short(path)}:{node.lineno} {first.value}")
    assert wrong == []


@each("path", WITH_QT)
def test_nobody_asks_whether_something_is_an_instance_of_a_qt_class(path):
    # PythonQt does not reproduce Qt's class hierarchy: isinstance(slicer.qSlicerWidget(), qt.QWidget) is
    # False (specs/slicer.md, II.6).
    asked = [
        f"{short(path)}:{call.lineno}"
        for chain, call in calls(path)
        if chain in ("isinstance", "issubclass")
        and any(dotted(n).split(".")[0] in ("qt", "ctk") for a in call.args for n in ast.walk(a))
    ]
    assert asked == []


@each("path", SOURCES)
def test_nothing_deprecated_or_broken_is_used(path):
    # specs/slicer.md, section 0.
    text = path.read_text(encoding="utf-8")
    words = ("import imp\n", "QTextCodec", "QRegExp", "QDesktopWidget", "from PythonQt", "AddFiducial",
             "GetNumberOfFiducials", "SetMasterRepresentation", "arrayFromSegment(", "getModuleGui",
             "_executePythonModule", "toVTKString", "processEvents(", "launchConsoleProcess",
             "multiprocessing", "returnNode", "slicer.util.getNode(")  # fmt: skip
    allowed = {MODULE_FILE: ("processEvents(",)}.get(path, ())
    assert [word for word in words if word in text and word not in allowed] == []


@each("path", SOURCES)
def test_strings_for_people_are_translated_whole(path):
    # `_(f"...")` cannot be translated: the string differs at each call.
    formatted = [
        f"{short(path)}:{call.lineno}"
        for chain, call in calls(path)
        if chain in ("_", "translate") and any(isinstance(a, ast.JoinedStr) for a in call.args)
    ]
    assert formatted == []


# What begins as a sentence and ends as one; node names and DICOM descriptions do not.
SENTENCE = re.compile(r"""["“A-Z{].* .*[.…?:]$""", re.DOTALL)


@each("path", SOURCES)
def test_no_sentence_for_people_escapes_translation(path):
    tree = tree_of(path)
    said = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and dotted(node.func) in ("_", "translate")
    ]
    beyond = [node.body[0] for node in ast.walk(tree) if _is_documented(node)]
    # The engine's words and those of a panel for them, and what only developers read.
    beyond += [
        n for n in tree.body if isinstance(n, ast.AnnAssign) and dotted(n.target) == "_RULES"
    ]
    beyond += [n for n in tree.body if getattr(n, "name", "") == "DiffTumorSlicerTest"]
    known = {id(inner) for node in [*said, *beyond] for inner in ast.walk(node)}
    wrong = [
        f"{short(path)}:{node.lineno} {text}"
        for node in ast.walk(tree)
        if id(node) not in known and SENTENCE.match(text := _words_of(node))
    ]
    assert wrong == []


def _is_documented(node: ast.AST) -> bool:
    return isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and bool(
        ast.get_docstring(node)
    )


def _words_of(node: ast.AST) -> str:
    """A text with {} for what is filled in; "" for anything else."""
    if isinstance(node, ast.JoinedStr):
        return "".join(str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values)
    is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
    return node.value if is_text else ""


@each("path", SOURCES)
def test_the_name_that_translates_is_not_taken_for_anything_else(path):
    taken = [n.lineno for n in ast.walk(tree_of(path)) if isinstance(n, ast.Name) and n.id == "_"
             and isinstance(n.ctx, ast.Store)]  # fmt: skip
    translates = any("tr" in found.names for found in imports(path))
    assert not translates or taken == []


def test_every_stage_of_a_job_has_words():
    from Testing import slicer_stand_in

    slicer_stand_in.start()
    from DiffTumorSlicerLib.panels.shared import texts

    engine = MODULE_FILE.parent / "difftumor"
    worker = [
        engine / f"{n}.py"
        for n in (
            "synthesis/generators",
            "synthesis/synthesize",
            "worker/serve",
            "networks/fast_vqgan",
        )
    ]
    named = {
        call.args[position].value
        for path in (*SOURCES, *worker)
        for name, call in calls(path)
        for word, position in (
            ("report", 0),
            ("progress", 0),
            ("_stage", 1),
            ("_start_model_work", 1),
        )
        if name.split(".")[-1] == word
        and len(call.args) > position
        and isinstance(call.args[position], ast.Constant)
    }
    assert {"starting", "sampling", "verifying"} <= named
    assert named - set(texts.stages()) == set()


def test_lib_takes_the_scene_from_its_caller():
    # A browser session has another scene than slicer.mrmlScene; only the module file knows that one.
    users = {
        f"{short(path)}:{node.lineno}"
        for path in SOURCES
        if path != MODULE_FILE
        for chain, node in chains(path)
        if chain.startswith("slicer.mrmlScene")
    }
    assert users == set()


def test_only_what_belongs_to_the_desktop_touches_the_application():
    # Elsewhere there is no application: a browser session uses the same library without one.
    allowed = {LIBRARY / "jobs" / "environment.py", LIBRARY / "scene" / "dicom_files.py", *WITH_QT}
    users = {
        f"{short(path)}:{node.lineno} {chain}"
        for path in SOURCES
        if path not in allowed
        for chain, node in chains(path)
        if chain.startswith(("slicer.app", "slicer.modules"))
    }
    assert users == set()


def test_the_exceptions_are_used_and_few():
    used = {".".join(chain.split(".")[:3]) for path in SOURCES for chain, _ in chains(path)}
    words = {
        node.value
        for path in SOURCES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    unused = [one for one in EXCEPTIONS if one not in used and one.split(".")[-1] not in words]
    assert unused == []
    assert len(EXCEPTIONS) < 10
    assert ROOT.is_dir()
