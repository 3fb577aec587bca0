"""Results: side by side, in turn, variants, outlines, and files that say what they are."""

from __future__ import annotations

import json

import numpy as np
import pytest
import slicer
import vtk

from DiffTumorSlicerLib.scene import comparing
from DiffTumorSlicerLib.scene.results import segmentation_of
from DiffTumorSlicerLib.scene.volume_files import ExportError
from DiffTumorSlicerLib.synthesis.exporting import can_segment, file_stem, save_dicom, save_files
from Testing.module.panels.bench import ends_in_next_step
from Testing.module.scene.scenes import add_ct, voxels


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


@pytest.fixture
def dicom(monkeypatch):
    """Slicer's DICOM plug-ins and database, as far as they are used; what they get is kept."""
    made = _Database()
    plugins = {
        "DICOMScalarVolumePlugin": lambda: _VolumePlugin(made),
        "DICOMSegmentationPlugin": lambda: _SegmentationPlugin(made),
    }
    monkeypatch.setattr(slicer.modules, "dicomPlugins", plugins, raising=False)
    monkeypatch.setattr(slicer, "dicomDatabase", made, raising=False)
    return made


def of_a_patient(scene, node):
    """Put a scan into patient and study, as it is after loading it from DICOM."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "patient")
    study = hierarchy.CreateStudyItem(patient, "study")
    hierarchy.SetItemAttribute(patient, "DICOM.PatientName", "Doe^Jane")
    hierarchy.SetItemAttribute(patient, "DICOM.PatientID", "17")
    hierarchy.SetItemUID(study, "DICOM", "1.2.840.5")
    hierarchy.CreateItem(study, node)
    return node


def a_result_of_a_patient(bench):
    of_a_patient(bench.scene, bench.load_ct())
    bench.place()
    return bench.synthesize()


def test_without_dicom_in_slicer_or_without_a_patient_the_next_step_is_said(
    bench, tmp_path, request
):
    _, result = a_result(bench)
    with pytest.raises(ExportError, match="no DICOM export") as told:
        save_dicom(bench.scene, result, tmp_path)
    assert ends_in_next_step(str(told.value))
    assert not can_segment(result)
    request.getfixturevalue("dicom")
    with pytest.raises(ExportError, match="no patient and study") as told:
        save_dicom(bench.scene, result, tmp_path)
    assert ends_in_next_step(str(told.value))
    assert list(tmp_path.iterdir()) == []


def test_a_dicom_series_names_its_patient_and_says_synthetic(bench, dicom, tmp_path):
    result = a_result_of_a_patient(bench)
    (folder,) = save_dicom(bench.scene, result, tmp_path)
    assert folder.name == "CT-synthetic-image"
    (exported,) = dicom.exported
    assert exported.directory == str(folder)
    assert exported.tags["PatientName"] == "Doe^Jane"
    assert exported.tags["PatientID"] == "17"
    assert exported.tags["StudyInstanceUID"] == "1.2.840.5"
    assert exported.tags["SeriesDescription"].startswith("SYNTHETIC")
    assert len(exported.tags["SeriesDescription"]) <= 64
    assert "SYNTHETIC" in exported.tags["PatientComments"]
    assert dicom.files == {}  # nothing gets into the database unasked


def test_a_dicom_segmentation_belongs_to_the_synthetic_series(bench, dicom, tmp_path):
    result = a_result_of_a_patient(bench)
    assert can_segment(result)
    folders = save_dicom(bench.scene, result, tmp_path, segmentation=True)
    assert [folder.name for folder in folders] == [
        "CT-synthetic-image", "CT-synthetic-segmentation",
    ]  # fmt: skip
    assert dicom.referenced == sorted(dicom.files)
    assert len(dicom.referenced) == 2
    assert dicom.exported[1].tags["SeriesDescription"].startswith("SYNTHETIC")
    assert result.GetAttribute("DICOM.instanceUIDs") is None  # its next tumor is not in that series
    segment = segmentation_of(result).GetSegmentation().GetNthSegment(0)
    kind = vtk.reference("")
    assert segment.GetTag("DICOM.SegmentAlgorithmType", kind)
    assert kind == "AUTOMATIC"


def test_a_dicom_plug_in_that_writes_nothing_is_noticed(bench, dicom, tmp_path):
    result = a_result_of_a_patient(bench)
    dicom.silent = True
    with pytest.raises(ExportError, match="no file was made") as told:
        save_dicom(bench.scene, result, tmp_path)
    assert ends_in_next_step(str(told.value))
    dicom.silent, dicom.full = False, True
    with pytest.raises(ExportError, match="did not take them") as told:
        save_dicom(bench.scene, result, tmp_path, segmentation=True)
    assert ends_in_next_step(str(told.value))


@pytest.mark.parametrize("agreed", [True, False])
def test_dicom_through_the_menu_asks_before_it_uses_the_database(
    bench, dicom, tmp_path, monkeypatch, agreed
):
    import qt

    a_result_of_a_patient(bench)
    monkeypatch.setattr(
        qt.QFileDialog, "getExistingDirectory", staticmethod(lambda *_: str(tmp_path))
    )
    asked = []
    monkeypatch.setattr(
        slicer.util, "confirmYesNoDisplay", lambda text, **_: asked.append(text) or agreed
    )
    bench.ui.saveButton.menu().actions()[2].trigger()
    assert "DICOM database" in asked[0]
    assert bool(dicom.files) == agreed
    assert ("outlines of the tumors are not in it" in bench.message) != agreed


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
    """Of qSlicerDICOMExportable."""

    def __init__(self, item):
        self.subjectHierarchyItemID, self.directory, self.tags = item, "", {}

    def setTag(self, name, value):
        self.tags[name] = value

    def tag(self, name):
        return self.tags.get(name, "")


class _Database:
    """Of ctkDICOMDatabase; and what the plug-ins did."""

    isOpen = True

    def __init__(self):
        self.files, self.exported, self.referenced = {}, [], []
        self.silent = self.full = False

    def insert(self, path):
        import pydicom

        if not self.full:
            self.files[str(pydicom.dcmread(path).SOPInstanceUID)] = path

    def fileForInstance(self, uid):
        return self.files.get(uid, "")


class _VolumePlugin:
    """Of Slicer's DICOMScalarVolumePlugin: patient and study are in the tags or nowhere."""

    def __init__(self, database):
        self._database = database

    def examineForExport(self, item):
        return [_Exportable(item)] if item else []

    def export(self, exportables):
        from pathlib import Path

        import pydicom
        from pydicom.uid import ExplicitVRLittleEndian

        for one in exportables:
            folder = Path(one.directory) / f"ScalarVolume_{one.subjectHierarchyItemID}"
            folder.mkdir(exist_ok=True)
            self._database.exported.append(one)
            for number in () if self._database.silent else (1, 2):
                image = pydicom.Dataset()
                image.file_meta = pydicom.dataset.FileMetaDataset()
                image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
                image.SOPInstanceUID = f"1.2.3.{number}"
                image.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
                image.PatientName = one.tag("PatientName")
                image.save_as(folder / f"IMG{number:04d}.dcm", enforce_file_format=True)
        return ""


class _SegmentationPlugin(_VolumePlugin):
    """Of Slicer's DICOMSegmentationPlugin: the images are those of the reference volume, in the database."""

    def export(self, exportables):
        from pathlib import Path

        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        for one in exportables:
            node = hierarchy.GetItemDataNode(one.subjectHierarchyItemID)
            volume = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
            uids = (volume.GetAttribute("DICOM.instanceUIDs") or "").split()
            if not uids:
                return f"VolumeNode {volume.GetName()} has no attribute DICOM.instanceUIDs"
            if not all(self._database.fileForInstance(uid) for uid in uids):
                return "Referenced volume files were not found in the DICOM database"
            self._database.referenced = sorted(uids)
            self._database.exported.append(one)
            (Path(one.directory) / "subject_hierarchy_export.SEG.dcm").write_bytes(b"SEG")
        return ""


def _own_views(scene, names):
    """What the layout manager makes for our layout."""
    for name in names:
        for kind in ("vtkMRMLSliceNode", "vtkMRMLSliceCompositeNode"):
            node = getattr(slicer, kind)()
            node.SetLayoutName(name)
            node.SetSingletonTag(name)
            scene.AddNode(node)
