"""The Segmentation panel on the bench: models that are only listed, labels that the test paints, and its worker."""

from __future__ import annotations

import numpy as np

from Testing.module.panels.anomaly_bench import ORGAN, SHAPE, AnomalyBench
from Testing.module.panels.bench import Bench, box_mask, plain
from Testing.module.scene.anomaly_answers import list_model, list_mr_model
from Testing.module.scene.scenes import add_segmentation
from Testing.module.scene.segmentation_answers import (
    PARTNER,
    SEGMENTER,
    answer_learning,
    answer_segmentation,
    list_learned,
    list_segmenter,
)


class SegmentationBench(Bench):
    """The whole module widget with the Segmentation section open."""

    look_at = AnomalyBench.look_at
    load_head = AnomalyBench.load_head
    foreground = AnomalyBench.foreground

    def __init__(self, app, scene, bridge, home, **more):
        list_segmenter(home)
        list_segmenter(home, PARTNER)
        list_learned(home)
        list_model(home)
        list_mr_model(home)
        super().__init__(app, scene, bridge, **more)
        import slicer

        self.sections = slicer.util.childWidgetVariables(self.widget)
        self.sections.segmentationSection.collapsed = False
        self.sections.synthesisSection.collapsed = True
        self.turn()
        self.choose(self.ui.mapModelComboBox, SEGMENTER)

    @property
    def ui(self):
        """Widgets of the Segmentation panel."""
        return self.panels.segmentation.ui

    @property
    def message(self):
        return plain(self.ui.segmentMessageLabel)

    @property
    def hint(self):
        return plain(self.ui.segmentHintLabel)

    @property
    def result(self):
        """The segmentation that is shown."""
        return self.panels.segmentation.lesions.result

    def load_case(self, **more):
        """A CT with its liver, which is chosen by its name."""
        ct = self.load_ct(**more)
        node, ids = add_segmentation(self.scene, ct, {"liver": box_mask(SHAPE, *ORGAN)})
        self.turn()
        assert self.parameters.segmented_organ is node
        assert self.parameters.segmented_organ_id == ids["liver"]
        return ct

    def segment(self, **facts):
        """Press the button and let the worker answer; returns the result."""
        self.press(self.ui.segmentButton)
        number = len(self.bridge.requests)
        assert number, self.message
        answer_segmentation(self.bridge, number, **facts)
        self.turn()
        return self.result

    def learn_from_slices(self, model):
        """Choose the second way, with a diffusion model."""
        self.choose(self.ui.wayComboBox, "learned")
        self.choose(self.ui.mapModelComboBox, model)

    def paint(self, index=20, low=(24, 20), high=(34, 30), segment=0):
        """Press Paint, and paint a box on an axial slice."""
        import slicer

        self.press(self.ui.paintButton)
        labels = self.parameters.painted
        scan = self.panels.segmentation.inputs.scan
        segment_id = labels.GetSegmentation().GetNthSegmentID(segment)
        shape = scan.GetImageData().GetDimensions()
        mask = np.zeros(shape, np.uint8)
        if labels.GetSegmentation().GetSegment(segment_id).GetRepresentation("Binary labelmap"):
            from DiffTumorSlicerLib.scene.segments import organ_mask

            mask = organ_mask(labels, segment_id, scan).astype(np.uint8)
        mask[low[0] : high[0], low[1] : high[1], index] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask.T, labels, segment_id, scan)
        self.turn()
        return labels

    def learn(self, **facts):
        """Press the button and let the worker answer; returns the result."""
        self.press(self.ui.segmentButton)
        number = len(self.bridge.requests)
        assert number, self.message
        answer_learning(self.bridge, number, **facts)
        self.turn()
        return self.result

    def table(self):
        """What the table shows, line by line."""
        tree = self.ui.lesionTree
        return [
            [tree.topLevelItem(n).text(c) for c in range(tree.columnCount)]
            for n in range(tree.topLevelItemCount)
        ]
