"""Results: side by side, in turn, variants, outlines, and files that say what they are."""

from __future__ import annotations

import json

import numpy as np
import pytest
import slicer

from DiffTumorSlicerLib import comparing
from DiffTumorSlicerLib.exporting import ExportError, file_stem, save_dicom, save_files
from Testing.panels.bench import ends_in_next_step
from Testing.scene.scenes import add_ct, voxels


@pytest.fixture
def views(scene):
    """Slice views as the application has them: slice nodes, what they show, and a layout."""
    made = []
    for name in ("Red", "Yellow", "Green"):
        for kind in ("vtkMRMLSliceNode", "vtkMRMLSliceCompositeNode"):
            node = getattr(slicer, kind)()
            node.SetLayoutName(name)
            node.SetSingletonTag(name)
            made.append(scene.AddNode(node))
    if scene.GetFirstNodeByClass("vtkMRMLLayoutNode") is None:
        made.append(scene.AddNode(slicer.vtkMRMLLayoutNode()))
    layout = scene.GetFirstNodeByClass("vtkMRMLLayoutNode")
    layout.SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    yield scene
    for node in made:
        scene.RemoveNode(node)


def shown(scene, names=("Red", "Yellow", "Green")):
    return [comparing.composite_of(scene, name).GetBackgroundVolumeID() for name in names]


def a_result(bench):
    ct = bench.load_ct()
    comparing.show_volume(bench.scene, ct)
    bench.place()
    return ct, bench.synthesize()


def test_a_new_result_is_shown_where_its_scan_was(bench, views):
    other = add_ct(views, name="other")
    ct = bench.load_ct()
    comparing.show_volume(views, ct)
    comparing.composite_of(views, "Green").SetBackgroundVolumeID(other.GetID())
    bench.place()
    result = bench.synthesize()
    assert shown(views) == [result.GetID(), result.GetID(), other.GetID()]


def test_before_and_after_stand_side_by_side_in_linked_views(bench, views):
    ct, result = a_result(bench)
    layout = views.GetFirstNodeByClass("vtkMRMLLayoutNode")
    _own_views(views, ("DiffTumor2A", "DiffTumor2B"))
    bench.press(bench.ui.compareButton)
    assert layout.GetViewArrangement() == comparing.LAYOUT_IDS[2]
    assert "Before" in layout.GetCurrentLayoutDescription()
    assert shown(views, ("DiffTumor2A", "DiffTumor2B")) == [ct.GetID(), result.GetID()]
    both = [comparing.composite_of(views, f"DiffTumor2{n}") for n in "AB"]
    assert all(composite.GetLinkedControl() for composite in both)
    bench.press(bench.ui.compareButton)
    assert layout.GetViewArrangement() == slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView


def test_a_layout_chosen_by_the_person_ends_the_comparison_and_stays(bench, views):
    a_result(bench)
    layout = views.GetFirstNodeByClass("vtkMRMLLayoutNode")
    bench.press(bench.ui.compareButton)
    layout.SetViewArrangement(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView)
    bench.turn()
    assert not bench.ui.compareButton.checked
    assert layout.GetViewArrangement() == slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView


def test_leaving_the_module_gives_the_views_back(bench, views):
    _, result = a_result(bench)
    layout = views.GetFirstNodeByClass("vtkMRMLLayoutNode")
    bench.press(bench.ui.compareButton)
    bench.panels.exit()
    assert layout.GetViewArrangement() == slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView
    bench.panels.enter()
    bench.press(bench.ui.blinkButton)
    bench.panels.exit()
    assert shown(views) == [result.GetID()] * 3


def test_blinking_shows_both_in_turn_and_puts_back_what_was_shown(views):
    before, after = add_ct(views, name="a"), add_ct(views, name="b")
    comparing.show_volume(views, after)
    blink = comparing.Blink(views)
    blink.start(before, after, now_s=0.0)
    seen = [shown(views)[0]]
    for tick in (0.1, 0.7, 0.9, 1.4):
        blink.tick(tick)
        seen.append(shown(views)[0])
    a, b = before.GetID(), after.GetID()
    assert seen == [a, a, b, b, a]
    blink.stop()
    assert shown(views) == [b, b, b]


def test_blinking_ends_when_a_volume_is_gone(bench, views):
    ct, _ = a_result(bench)
    bench.press(bench.ui.blinkButton)
    bench.scene.RemoveNode(ct)
    bench.turn(0.1)
    assert not bench.ui.blinkButton.checked
    assert not bench.ui.compareButton.enabled


def test_variants_stand_side_by_side_and_the_layout_comes_back(bench, views):
    bench.load_ct()
    bench.place()
    bench.press(bench.ui.variantsButton)
    for number in (1, 2, 3):
        bench.bridge.answer(number, add=-10 * number)
        bench.turn()
    layout = views.GetFirstNodeByClass("vtkMRMLLayoutNode")
    assert layout.GetViewArrangement() == comparing.LAYOUT_IDS[3]
    bench.press(bench.ui.keep1Button)
    assert layout.GetViewArrangement() == slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView
    assert shown(views) == [bench.parameters.result.GetID()] * 3


def test_variants_wait_for_a_choice_also_after_leaving(bench, views):
    bench.load_ct()
    bench.place()
    bench.press(bench.ui.variantsButton)
    for number in (1, 2, 3):
        bench.bridge.answer(number)
        bench.turn()
    bench.panels.exit()
    bench.panels.enter()
    bench.turn()
    assert bench.ui.keep3Button.visible
    bench.press(bench.ui.keep3Button)
    assert not bench.ui.variantsFrame.visible


def test_removing_the_only_tumor_shows_the_scan_again(bench, views):
    ct, _ = a_result(bench)
    bench.press(bench.ui.removeLastButton)
    assert shown(views) == [ct.GetID()] * 3


def test_outlines_can_be_switched_off(bench, views):
    _, result = a_result(bench)
    display = result.GetNodeReference("DiffTumor.Segmentation").GetDisplayNode()
    assert not display.GetVisibility2DFill()  # a fill would hide the tumor
    bench.ui.outlineCheckBox.click()
    assert not display.GetVisibility()
    bench.ui.outlineCheckBox.click()
    assert display.GetVisibility()


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha"])
def test_saved_files_hold_image_mask_and_how_it_was_made(bench, tmp_path, suffix):
    import SimpleITK

    ct, result = a_result(bench)
    files = save_files(bench.scene, result, tmp_path / f"{file_stem(result)}{suffix}")
    assert [file.name for file in files] == [
        f"CT-synthetic{suffix}", f"CT-synthetic-mask{suffix}", "CT-synthetic.json",
    ]  # fmt: skip
    image = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(files[0]))).T
    mask = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(files[1]))).T
    assert np.array_equal(image, voxels(result))
    changed = voxels(result) != voxels(ct)
    assert np.array_equal(mask.astype(bool), changed)
    made = json.loads(files[2].read_text())
    assert made["synthetic"] is True
    assert made["model"]["id"] == "modelled"
    assert len(list(tmp_path.iterdir())) == 3
    assert not any(
        bench.scene.GetNthNodeByClass(n, "vtkMRMLScalarVolumeNode").GetHideFromEditors()
        for n in range(bench.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode"))
    )


def test_what_cannot_be_saved_is_said_with_the_next_step(bench, tmp_path):
    _, result = a_result(bench)
    for path in (tmp_path / "x.png", tmp_path / "no such folder" / "x.nii.gz"):
        with pytest.raises(ExportError) as told:
            save_files(bench.scene, result, path)
        assert ends_in_next_step(str(told.value))
    assert list(tmp_path.iterdir()) == []


def test_file_names_always_say_synthetic(scene):
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT Abdomen / portal (synthetic 2)")
    assert file_stem(node) == "CT-Abdomen-portal-synthetic-2"
    node.SetName("renamed by hand")
    assert file_stem(node) == "renamed-by-hand-synthetic"


def test_dicom_descriptions_say_synthetic(bench, tmp_path, monkeypatch):
    _, result = a_result(bench)
    with pytest.raises(ExportError) as told:
        save_dicom(bench.scene, result, tmp_path)
    assert ends_in_next_step(str(told.value))
    exported = []
    plugins = {
        name: lambda: _Plugin(exported)
        for name in ("DICOMScalarVolumePlugin", "DICOMSegmentationPlugin")
    }
    monkeypatch.setattr(slicer.modules, "dicomPlugins", plugins, raising=False)
    with pytest.raises(ExportError) as told:  # the image, but no segmentation of what is no series
        save_dicom(bench.scene, result, tmp_path)
    assert ends_in_next_step(str(told.value))
    assert len(exported) == 1
    exported.clear()
    result.SetAttribute("DICOM.instanceUIDs", "1.2.3")
    folders = save_dicom(bench.scene, result, tmp_path)
    assert [folder.name for folder in folders] == [
        "CT-synthetic-image", "CT-synthetic-segmentation",
    ]  # fmt: skip
    assert all(e.tags["SeriesDescription"].startswith("SYNTHETIC") for e in exported)
    assert all(len(e.tags["SeriesDescription"]) <= 64 for e in exported)
    assert [e.directory for e in exported] == [str(folder) for folder in folders]


def test_saving_through_the_menu(bench, tmp_path, monkeypatch):
    import qt

    _, result = a_result(bench)
    entries = bench.ui.saveButton.menu().actions()
    assert [entry.text.split("…")[0] for entry in entries] == [
        "NIfTI", "NRRD", "DICOM series and segmentation",
    ]  # fmt: skip
    monkeypatch.setattr(
        qt.QFileDialog, "getSaveFileName", staticmethod(lambda *_: str(tmp_path / "mine"))
    )
    entries[0].trigger()
    assert (tmp_path / "mine.nii.gz").is_file()
    assert "mine.nii.gz" in bench.message
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", staticmethod(lambda *_: ""))
    entries[1].trigger()
    assert not list(tmp_path.glob("*.nrrd"))
    assert result.GetName() == "CT (synthetic)"


class _Exportable:
    def __init__(self):
        self.directory, self.tags = "", {}

    def setTag(self, name, value):
        self.tags[name] = value


class _Plugin:
    """What is used of a DICOM plug-in of Slicer."""

    def __init__(self, exported):
        self._exported = exported

    def examineForExport(self, item):
        assert item
        return [_Exportable()]

    def export(self, exportables):
        self._exported += exportables
        return ""


def _own_views(scene, names):
    """What the layout manager makes for our layout."""
    for name in names:
        for kind in ("vtkMRMLSliceNode", "vtkMRMLSliceCompositeNode"):
            node = getattr(slicer, kind)()
            node.SetLayoutName(name)
            node.SetSingletonTag(name)
            scene.AddNode(node)
