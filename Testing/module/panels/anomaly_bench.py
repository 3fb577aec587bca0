"""The Anomaly panel on the bench: models that are only listed, organs, and a worker that is the test."""

from __future__ import annotations

import numpy as np

from Testing.module.panels.bench import Bench, box_mask, plain
from Testing.module.scene.anomaly_answers import CT_MODEL, answer_map, list_model, list_mr_model
from Testing.module.scene.scenes import add_segmentation, add_volume

SHAPE = (60, 52, 44)
ORGAN = ((20, 16, 12), (44, 40, 32))  # of the CT: slices 12 to 31


class AnomalyBench(Bench):
    """The whole module widget with the Anomaly section open and two models in the user's folder."""

    def __init__(self, app, scene, bridge, home, *, with_models=True, **more):
        if with_models:
            list_model(home)
            list_mr_model(home)
        super().__init__(app, scene, bridge, **more)
        import slicer

        self.sections = slicer.util.childWidgetVariables(self.widget)
        self.sections.anomalySection.collapsed = False
        self.sections.synthesisSection.collapsed = True
        self.turn()
        if with_models:
            self.choose(self.ui.mapModelComboBox, CT_MODEL)

    @property
    def ui(self):
        """Widgets of the Anomaly panel."""
        return self.panels.anomaly.ui

    @property
    def message(self):
        return plain(self.ui.mapMessageLabel)

    @property
    def hint(self):
        return plain(self.ui.mapHintLabel)

    def load_case(self, **more):
        """A CT with its liver, which is chosen by its name."""
        ct = self.load_ct(**more)
        node, ids = add_segmentation(self.scene, ct, {"liver": box_mask(SHAPE, *ORGAN)})
        self.turn()
        assert self.parameters.area is node
        assert self.parameters.area_segment_id == ids["liver"]
        return ct

    def load_head(self, names=("case t1", "case t1ce", "case t2", "case flair")):
        """Four sequences, which are chosen by their names."""
        rng = np.random.default_rng(2)
        nodes = [
            add_volume(self.scene, name, rng.uniform(0, 900, SHAPE).astype(np.float32))
            for name in names
        ]
        self.turn()
        return nodes

    def look_at(self, ras=(30.0, 26.0, 20.0)):
        """Slice views, without windows, that meet at a point."""
        for name, orientation in (("Red", "Axial"), ("Yellow", "Sagittal"), ("Green", "Coronal")):
            node = self.scene.GetNodeByID(f"vtkMRMLSliceNode{name}")
            if node is None:
                import slicer

                slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene, True)
                node = self.scene.CreateNodeByClass("vtkMRMLSliceNode")  # with the presets
                node.SetSingletonTag(name)
                node.SetLayoutName(name)
                node = self.scene.AddNode(node)
                composite = slicer.vtkMRMLSliceCompositeNode()
                composite.SetSingletonTag(name)
                composite.SetLayoutName(name)
                self.scene.AddNode(composite)
            node.SetOrientation(orientation)
            node.SetDimensions(300, 300, 1)
            node.SetFieldOfView(20.0, 20.0, 1.0)
            node.JumpSliceByCentering(*ras)
        self.turn()

    def make_map(self, **facts):
        """Press the button and let the worker answer; returns the map."""
        self.press(self.ui.runButton)
        number = len(self.bridge.requests)
        assert number, self.message
        answer_map(self.bridge, number, **facts)
        self.turn()
        return self.parameters.map

    @property
    def foreground(self):
        """What lies over the scan in the red view: volume node and opacity."""
        composite = self.scene.GetNodeByID("vtkMRMLSliceCompositeNodeRed")
        node_id = composite.GetForegroundVolumeID()
        return self.scene.GetNodeByID(
            node_id
        ) if node_id else None, composite.GetForegroundOpacity()
