"""Presets of `python -m training.segmentation.segmenter`, a row per purpose.

The published numbers are those of the code; where the paper's text differs, a comment says so.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from training.loop.config import Averaging, Hardware, Optimizer, Reporting
from training.segmentation.config import (
    Augmentation,
    SegmentationConfig,
    SegmentationData,
    SegmenterSize,
    Synthesis,
    Validation,
)

# paper: lr 2e-4 and batch 2, without mirroring
PUBLISHED = SegmentationConfig(hardware=Hardware(accelerator="cuda"))

SEGMENTATION_PRESETS: dict[str, tuple[str, SegmentationConfig]] = {
    "unet": ("the published U-Net: 2000 epochs of 211 scans, 12 crops per step", PUBLISHED),
    "nnunet": (
        "the published nnU-Net (DynUNet), the same course",
        replace(PUBLISHED, network=SegmenterSize("nnunet"), run=Path("runs/segmentation_nnunet")),
    ),
    "swinunetr": (
        "the published Swin UNETR, the same course",
        replace(
            PUBLISHED, network=SegmenterSize("swinunetr"), run=Path("runs/segmentation_swinunetr")
        ),
    ),
    "demo": (
        "the demonstration model: a small U-Net at 1.5 mm, liver phantoms, tumors of the demonstration generator",
        SegmentationConfig(
            samples=70_000,
            stages=((0, 96, 6),),
            spacing_mm=1.5,
            weight_decay=1e-4,
            batch_dice=True,  # 40 000 crops without it gave a validation Dice of 0.755, 8 000 more with it 0.803
            network=SegmenterSize("unet", (8, 16, 32, 64, 128)),
            data=SegmentationData(
                phantoms=90,  # 60 in all were used up after 60 000 crops
                healthy_phantoms=36,
                validation_phantoms=6,
                positive_share=0.9,
                tumor_share=0.6,
                workers=0,
            ),
            synthesis=Synthesis(
                early="demo-abdomen-early",
                late="modelled",
                probability=0.8,
                sizes=(0.35, 0.4, 0.25, 0.0),
                feather=(0.0, 1.2),
                window=64,
                pool=200,
            ),
            augmentation=Augmentation(flip=0.5, rotate=0.5),
            validation=Validation(every=6_000, overlap=0.25),
            optimizer=Optimizer(lr=2e-3, warmup=300, decay=40_000, clip=1.0),
            averaging=Averaging(decay=0.99, every=6, start=1_200),
            reporting=Reporting(stats=240, checkpoint=480, pictures=1_600),
        ),
    ),
    "tiny": (
        "a few seconds on a CPU, to see that everything runs",
        SegmentationConfig(
            run=Path("runs/tiny_segmentation"),
            samples=40,
            stages=((0, 32, 2),),
            network=SegmenterSize("unet", (4, 8)),
            data=SegmentationData(
                phantoms=1, healthy_phantoms=1, positive_share=1.0, tumor_share=0.5, workers=0
            ),
            synthesis=Synthesis(
                early="modelled", late="modelled", sizes=(1.0, 0.0, 0.0, 0.0), feather=(0.0, 1.0)
            ),
            validation=Validation(every=40, overlap=0.0),
            optimizer=Optimizer(lr=1e-2, warmup=4, decay=8, clip=1.0),
            averaging=Averaging(decay=0.9, every=4, start=8),
            reporting=Reporting(stats=2, checkpoint=20, pictures=20),
        ),
    ),
}
