"""DiffTumorSlicer: synthetic tumors in a CT, and heat maps of anomalies, by diffusion models. Research use only.

Registration with Slicer and nothing else: what a panel shows is in `DiffTumorSlicerLib.panels`, what is
done in `DiffTumorSlicerLib.session`, and what is computed in the package `difftumor`, in a process of its own.
"""

from __future__ import annotations

import sys
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

from DiffTumorSlicerLib.jobs import environment
from DiffTumorSlicerLib.jobs.host import Host
from DiffTumorSlicerLib.jobs.parameter_node import ModuleParameters, open_parameters
from DiffTumorSlicerLib.jobs.states import JobState
from DiffTumorSlicerLib.scene.segments import find_segment
from DiffTumorSlicerLib.session import Session

# Written by release/fill_in.py from release/owner.json.
CONTRIBUTORS = ["FILL-IN NAME (FILL-IN ORGANIZATION)"]
REPOSITORY = "https://github.com/FILL-IN/SlicerDiffTumor"

Callback = Callable[[JobState], None] | None

_sample_phantom: Any = None  # made at the first click in Sample Data


class DiffTumorSlicer(ScriptedLoadableModule):
    """What Slicer shows of the module before it is opened."""

    def __init__(self, parent: Any) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("DiffTumor Slicer")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Image Synthesis")]
        parent.dependencies = []
        parent.contributors = CONTRIBUTORS
        parent.helpText = _(
            "Puts a realistic synthetic tumor where you place an ellipsoid in a CT; the CT stays as it was. "
            "Shows as a heat map where a CT or an MR examination departs from healthy. "
            "Research use only, never for diagnosis: every result is marked as synthetic. "
            'See the <a href="{url}">tutorial</a>.'
        ).format(url=f"{REPOSITORY}#readme")
        parent.acknowledgementText = _(
            "Methods: DiffTumor (Chen et al., CVPR 2024), modeled tumors (Hu et al., CVPR 2023), and diffusion "
            "models for anomaly detection (Wolleb et al., MICCAI 2022; Babaei et al., 2024); please cite "
            "them. The authors of DiffTumor mention pending patents; their weights are licensed CC BY-NC-ND 4.0 "
            "and not part of this extension."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)


def registerSampleData() -> None:
    """Offer phantoms in the module Sample Data; they are computed here, so there is nothing to download."""
    if not hasattr(slicer.modules, "sampledata"):
        return  # a Slicer that was built without that module
    from SampleData import SampleDataLogic

    icons = Path(__file__).resolve().parent / "Resources" / "Icons"
    for name, kind, picture in (
        ("Phantom abdomen", "abdomen", "PhantomAbdomen.png"),
        ("Phantom abdomen with a lesion", "lesion", "PhantomLesion.png"),
        ("Phantom head", "head", "PhantomHead.png"),
    ):
        SampleDataLogic.registerCustomSampleDataSource(
            category="DiffTumor Slicer",
            sampleName=name,
            uris=[],
            fileNames=[],
            customDownloader=lambda _source=None, kind=kind: makeSamplePhantom(kind),
            thumbnailFileName=str(icons / picture),
        )


def makeSamplePhantom(kind: str = "abdomen") -> None:
    """Add a phantom and its segments to the scene; called by the module Sample Data.

    Args:
        kind: of `jobs.sample_phantom`: "abdomen", "lesion" or "head".
    """
    from DiffTumorSlicerLib.panels.shared import (
        sample_data,  # Qt; not needed at startup
        settings,  # Qt; not needed at startup
    )

    global _sample_phantom
    if _sample_phantom is None:
        _sample_phantom = sample_data.SamplePhantom(slicer.mrmlScene)
    _sample_phantom.start(environment.worker_python(settings.python()), kind)


class DiffTumorSlicerWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The module's panel: loads the .ui file and hands everything else to `Panels`."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: DiffTumorSlicerLogic | None = None
        self.panels: Any = None

    def setup(self) -> None:
        """Build the panel. Needs no torch, no network and no main window."""
        from DiffTumorSlicerLib.panels import Panels
        from DiffTumorSlicerLib.panels.shared import settings

        ScriptedLoadableModuleWidget.setup(self)
        ui_widget = slicer.util.loadUI(self.resourcePath("UI/DiffTumorSlicer.ui"))
        self.layout.addWidget(ui_widget)
        ui_widget.setMRMLScene(slicer.mrmlScene)
        worker = environment.WorkerPython(settings.python)
        self.logic = DiffTumorSlicerLogic(python=worker.python())
        self.panels = Panels(
            ui_widget,
            self.logic.session,
            scene=slicer.mrmlScene,
            ui_folder=Path(self.resourcePath("UI")),
            requirements=worker,
        )
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(scene, scene.EndImportEvent, self.onSceneEndClose)
        self.initializeParameterNode()

    def initializeParameterNode(self) -> None:
        """Give the panels the scene's parameter node."""
        if self.logic is None or self.panels is None:
            return
        self.panels.set_parameter_node(self.logic.getParameterNode())
        if self.logic.notice:
            slicer.util.warningDisplay(self.logic.notice)

    def enter(self) -> None:
        """The module is opened."""
        self.initializeParameterNode()
        if self.panels is not None:
            self.panels.enter()

    def exit(self) -> None:
        """Another module is opened; running jobs go on."""
        if self.panels is not None:
            self.panels.exit()

    def cleanup(self) -> None:
        """The module is unloaded or reloaded, or Slicer ends: nothing of it stays behind."""
        self.removeObservers()
        if self.panels is not None:
            self.panels.cleanup()
            self.panels = None
        if self.logic is not None:
            self.logic.close()
            self.logic = None

    def onSceneStartClose(self, _caller: Any, _event: Any) -> None:
        """The parameter node goes with the scene."""
        if self.panels is not None:
            self.panels.set_parameter_node(None)

    def onSceneEndClose(self, _caller: Any, _event: Any) -> None:
        """A scene was closed or loaded: take its parameter node, if somebody looks."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onReload(self) -> None:
        """Reload the library and the engine too, not only this file."""
        folder = str(Path(__file__).resolve().parent)
        for name, module in list(sys.modules.items()):
            ours = name.partition(".")[0] in ("DiffTumorSlicerLib", "difftumor")
            if ours and str(getattr(module, "__file__", "")).startswith(folder):
                del sys.modules[name]
        ScriptedLoadableModuleWidget.onReload(self)


class DiffTumorSlicerLogic(ScriptedLoadableModuleLogic):
    """What scripts use; no window needed. The nodes that are given are never changed.

        logic = DiffTumorSlicerLogic()
        result = logic.synthesize(volumeNode, roiNode, organ="liver", seed=7)

    `synthesize`, `anomalyMap`, `segment` and `learn` have in common:

    Args:
        segmentationNode: holds the organ, or the brain.
        segmentId: its segment, by its id or its name; not needed if there is only one.
        device: "auto", "cpu", "cuda", "cuda:1" or "mps".
        callback: without it they wait, with the window alive, and return the result. With it they return the number
            of the job at once (`session.cancel(number)` stops it), and callback(state) is called on every change
            until `state.running` is False; `state.kind`, `state.sentence` and `state.result_node_id` tell the end.
        **parameters: fields of the dataclass that each method names; what is not given is as the model recommends.

    Raises:
        ValueError: what was asked cannot be done, as a sentence.
        RuntimeError: it failed or was cancelled, as a sentence.
    """

    def __init__(self, python: str | None = None) -> None:
        """Prepare; no process is started before the first job.

        Args:
            python: interpreter for the worker; Slicer's own if None.
        """
        ScriptedLoadableModuleLogic.__init__(self)
        self._python = python
        host = Host(python=python or environment.worker_python())
        self.session = Session(slicer.mrmlScene, host=host)
        self.notice = ""  # what is to be said about the parameter node that was opened last
        self._follower: Any = None  # made with the first callback

    def getParameterNode(self) -> ModuleParameters:
        """Typed access to the scene's parameter node."""
        parameters, self.notice = open_parameters(
            ScriptedLoadableModuleLogic.getParameterNode(self)
        )
        return parameters

    def synthesize(
        self,
        volumeNode: Any,
        roiNode: Any = None,
        *,
        segmentationNode: Any = None,
        segmentId: str = "",
        into: Any = None,
        device: str = "auto",
        callback: Callback = None,
        **parameters: Any,
    ) -> Any:
        """Put a synthetic tumor into a copy of a volume.

        Args:
            volumeNode: the CT, a vtkMRMLScalarVolumeNode.
            roiNode: Box ROI whose inscribed ellipsoid is the tumor's place; None for random places (then
                give `size` and an organ segment).
            segmentationNode: holds the organ, which the tumor is clipped to; optional with an ROI.
            into: result of an earlier call, to which another tumor is added.
            **parameters: of `difftumor.parameters.SynthesisParameters`: model, organ, seed, steps, feather_mm, size,
                count ...

        Returns:
            the volume node with the tumor.
        """
        organ = self._organ(segmentationNode, segmentId)
        more = {"roi_node": roiNode, "into": into, "device": device, **organ}
        return self._ask(self.session.synthesize, parameters, volumeNode, callback, **more)

    def anomalyMap(
        self,
        images: Any,
        segmentationNode: Any = None,
        segmentId: str = "",
        *,
        device: str = "auto",
        callback: Callback = None,
        **parameters: Any,
    ) -> Any:
        """Make a heat map of where an image departs from healthy.

        Args:
            images: the CT, a vtkMRMLScalarVolumeNode, or MR sequences, {"t1": node, "t1c": node, "t2": node,
                "flair": node}.
            **parameters: of `difftumor.parameters.AnomalyParameters`: model, noise_level, guidance_scale, steps,
                plane, slices, map_kind ...

        Returns:
            the volume node with the map, 0 to 1; its side-car (`DiffTumorSlicerLib.scene.results.sidecar_of`)
            holds the probability of disease for each slice.
        """
        more = {"device": device, **self._organ(segmentationNode, segmentId)}
        return self._ask(self.session.anomaly, parameters, images, callback, **more)

    def segment(
        self,
        images: Any,
        segmentationNode: Any = None,
        segmentId: str = "",
        *,
        device: str = "auto",
        callback: Callback = None,
        **parameters: Any,
    ) -> Any:
        """Segment the tumors of a case with trained models, or with what was learned before.

        Args:
            images: as of `anomalyMap`.
            **parameters: of `difftumor.parameters.SegmentationParameters`: models (or one `model`), overlap,
                min_diameter_mm ...

        Returns:
            the segmentation node, with one segment for each lesion.
        """
        if "model" in parameters:
            parameters["models"] = (parameters.pop("model"),)
        more = {"device": device, **self._organ(segmentationNode, segmentId)}
        return self._ask(self.session.segment, parameters, images, callback, **more)

    def learn(
        self,
        images: Any,
        labelsNode: Any,
        segmentationNode: Any = None,
        segmentId: str = "",
        *,
        modelFolder: Path | None = None,
        device: str = "auto",
        callback: Callback = None,
        **parameters: Any,
    ) -> Any:
        """Learn from the painted slices of a case, and segment its other slices.

        Args:
            images: as of `anomalyMap`.
            labelsNode: segmentation painted on some slices of the images, one segment per label.
            modelFolder: where to write what was learned; `segment` takes this folder as `model`.
            **parameters: of `difftumor.parameters.LearningParameters`: model, plane, keep, members ...

        Returns:
            the segmentation node, with one segment for each label.
        """
        organ = self._organ(segmentationNode, segmentId)
        more = {"labels_node": labelsNode, "model_folder": modelFolder, "device": device, **organ}
        return self._ask(self.session.learn, parameters, images, callback, **more)

    def close(self) -> None:
        """End the worker; running jobs count as cancelled."""
        if self._follower is not None:
            self._follower.stop()
        self.session.close()

    def _organ(self, node: Any, segment: str) -> dict[str, Any]:
        return {"segmentation_node": node, "segment_id": find_segment(node, segment)}

    def _ask(
        self,
        request: Callable[..., int],
        parameters: Any,
        images: Any,
        callback: Callback,
        **more: Any,
    ) -> Any:
        """Start a request of the session; wait for its node, or let a callback follow it."""
        environment.prepare(self._python or "")
        number = request(parameters, images, **more)
        if callback is not None:
            if self._follower is None:
                from DiffTumorSlicerLib.panels.shared.follower import Follower

                self._follower = Follower(self.session)
            self._follower.follow(number, callback)
            return number
        state = self.session.wait(number, pump=slicer.app.processEvents)
        if state.kind != "done":
            raise RuntimeError(state.sentence)
        return slicer.mrmlScene.GetNodeByID(state.result_node_id)


class DiffTumorSlicerTest(ScriptedLoadableModuleTest):
    """The self-test: `ctest`, or Reload and Test in Slicer's developer mode."""

    def setUp(self) -> None:
        """Start from an empty scene."""
        slicer.mrmlScene.Clear(0)

    def runTest(self, **_kwargs: Any) -> None:
        """Run the tests below; fails if there are none."""
        names = unittest.TestLoader().getTestCaseNames(type(self))
        suite = unittest.TestSuite(type(self)(name) for name in names)
        result = unittest.TextTestRunner(verbosity=2).run(suite)
        if (
            not result.wasSuccessful()
            or result.testsRun == 0
            or len(result.skipped) == result.testsRun
        ):
            raise RuntimeError(
                f"{len(result.failures) + len(result.errors)} of {result.testsRun} self-tests failed, "
                f"{len(result.skipped)} were skipped."
            )

    def test_opens_in_an_empty_scene(self) -> None:
        """The panel builds with no torch, no network and no main window."""
        widget = slicer.modules.difftumorslicer.createNewWidgetRepresentation().self()
        assert widget.panels is not None
        widget.cleanup()

    def test_parameters_survive_closing_and_opening_a_scene(self) -> None:
        """What was chosen is there again after saving and loading."""
        logic = DiffTumorSlicerLogic()
        logic.getParameterNode().synthesis.seed = 12345
        folder = slicer.util.tempDirectory()
        slicer.util.saveScene(f"{folder}/scene.mrb")
        slicer.mrmlScene.Clear(0)
        slicer.util.loadScene(f"{folder}/scene.mrb", {"clear": True})
        assert logic.getParameterNode().synthesis.seed == 12345
        logic.close()

    def test_puts_a_tumor_into_a_copy_of_a_volume(self) -> None:
        """The whole way through the worker, with the modeled tumor that needs no weights."""
        if (lack := environment.find_lack()) is not None:
            self.skipTest(lack.sentence)
        volume, roi = _test_scene()
        before = slicer.util.arrayFromVolume(volume).copy()
        logic = DiffTumorSlicerLogic()
        result = logic.synthesize(volume, roi, model="modelled", seed=1, device="cpu")
        logic.close()
        assert (slicer.util.arrayFromVolume(volume) == before).all()
        assert (slicer.util.arrayFromVolume(result) != before).any()
        assert "synthetic" in result.GetName()


def _test_scene() -> tuple[Any, Any]:
    """A block of soft tissue in air, and an ROI in its middle."""
    import numpy as np

    voxels = np.full((64, 64, 64), -1000, np.int16)
    voxels[8:-8, 8:-8, 8:-8] = 100 + np.random.default_rng(0).integers(-10, 10, (48, 48, 48))
    to_ras = vtk.vtkMatrix4x4()
    for axis in range(3):
        to_ras.SetElement(axis, axis, 2.0)
    volume = slicer.util.addVolumeFromArray(voxels, name="test CT")
    volume.SetIJKToRASMatrix(to_ras)
    roi = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "place")
    roi.SetCenter(63, 63, 63)
    roi.SetSize(24, 20, 28)
    return volume, roi
