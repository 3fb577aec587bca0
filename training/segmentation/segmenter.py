"""Stage 3: segmenters of tumors, `python -m training.segmentation.segmenter unet|nnunet|swinunetr|demo|tiny`.

Real scans with tumors, and healthy scans into which tumors are synthesized while the segmenter learns (Chen et al.
2024, section 3.3): `--synthesis.early` and `--synthesis.late` name what paints them, DiffTumor's models or `modelled`,
the baseline of Hu et al.  `--real-only` and `--synthetic-only` leave out the one or the other, `--synthesis.source`
paints with the models of another organ, and `--data.fold` says which fifth of the patients is held back.
"""

from __future__ import annotations

import logging
import math

import numpy as np
import torch
from lightning.fabric import Fabric
from monai.losses.dice import DiceCELoss
from numpy.typing import NDArray
from torch import Tensor, nn

from difftumor.networks.segmenters import (
    SegmenterArguments,
    build_segmenter,
    published_tensors,
)
from difftumor.segmentation.windows import plan_windows, predict_windows
from training.data.scans import TUMOR, Case, scaled
from training.loop.config import Stage, read_command_line
from training.loop.loop import run_program
from training.loop.measures import dice
from training.loop.runs import read_checkpoint_file, write_checkpoint_file
from training.loop.steps import passes, shares, update
from training.segmentation.batches import PICTURE, SegmentationBatches
from training.segmentation.config import SegmentationConfig
from training.segmentation.data import Crop, Scans, prepare_scans, respaced
from training.segmentation.presets import SEGMENTATION_PRESETS

BEST_NAME = "best.pt"
CLASSES = 3
PICTURE_CROPS = 4

logger = logging.getLogger(__name__)


class SegmentationTraining:
    """The Program of stage 3 (see training.loop.loop)."""

    averaged = "segmenter"

    def __init__(self, fabric: Fabric, config: SegmentationConfig, scans: Scans) -> None:
        self.fabric, self.config, self.validation = fabric, config, scans.validation
        self.validated_every = config.validation.every
        arguments = SegmenterArguments(classes=CLASSES, channels=config.network.channels)
        self.segmenter = build_segmenter(config.network.kind, arguments)
        if fabric.device.type == "cpu" and config.network.architecture != "swinunetr":
            # Half the time of a step. The types of torch do not know this argument of a module.
            self.segmenter.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        adam = config.optimizer
        optimizer = torch.optim.AdamW(
            self.segmenter.parameters(),
            adam.lr,
            betas=(adam.beta1, adam.beta2),
            weight_decay=config.weight_decay,
        )
        self.network, self.optimizer = fabric.setup(self.segmenter, optimizer)
        self.modules: dict[str, nn.Module] = {"segmenter": self.segmenter}
        self.optimizers: dict[str, torch.optim.Optimizer] = {"segmenter": self.optimizer}
        self.loss = DiceCELoss(
            to_onehot_y=True,
            softmax=True,
            squared_pred=True,
            smooth_nr=0.0,
            smooth_dr=1e-6,
            batch=config.batch_dice,
        )
        self.batches = SegmentationBatches(fabric, config, scans)

    def step(self, seen: int, step: int, stage: Stage) -> dict[str, Tensor | float]:  # noqa: ARG002 (of the protocol)
        """One step of the segmenter."""
        self.segmenter.train()
        rounds = shares(self.fabric, stage.batch, self.config.hardware.microbatch)
        images, labels = self.batches.take(step, sum(rounds), stage.edge)
        facts: dict[str, Tensor | float] = {"loss": 0.0}
        for part, share, more in passes(rounds):
            with self.fabric.no_backward_sync(self.network, enabled=more):
                loss = self.loss(self.network(images[part]).float(), labels[part])
                self.fabric.backward(loss * share)
            facts["loss"] = facts["loss"] + loss.detach() * share
        return facts | update(self.fabric, self.network, self.optimizer, self.config.optimizer.clip)

    def validate(self, network: nn.Module, seen: int) -> dict[str, float]:
        """Mean tumor Dice over the validation scans; keeps the best weights as best.pt (without scans, the last)."""
        network.eval()
        dices = [self.tumor_dice(network, case) for case in self.validation]
        mean = float(np.nanmean(dices)) if dices else math.nan
        path = self.config.run / BEST_NAME
        before = read_checkpoint_file(path)["dice"] if path.is_file() else None
        if before is None or not dices or mean > before:
            before = mean if dices else None
            content = {"model": published_tensors(network), "dice": before, "samples": seen}
            write_checkpoint_file(content, path)
        return {"validation_dice": mean, "best_dice": before} if before is not None else {}

    @torch.no_grad()
    def tumor_dice(self, network: nn.Module, case: Case) -> float:
        """Dice of a whole scan at the network's voxel size; nan where there is no tumor and none was found."""
        settings = self.config.validation
        unit = np.asarray((scaled(np.asarray(case.ct), fill=None) + 1) / 2, np.float32)
        image, labels = respaced(Crop(unit, np.asarray(case.labels)), self.config.spacing_mm)
        wanted = labels > 0 if settings.organ_only else np.ones(labels.shape, bool)
        plan = plan_windows(image.shape, (self.config.window,) * 3, settings.overlap, wanted)
        found = np.zeros(image.shape, bool)
        for rows, logits in predict_windows(
            np.ascontiguousarray(image[plan.field])[None], plan, network, self.fabric.device
        ):
            found[(rows, *plan.box[1:])] = (logits.argmax(0) == TUMOR).cpu().numpy()
        return dice(found & wanted, labels == TUMOR)

    @torch.no_grad()
    def picture(self) -> NDArray[np.float32]:
        """Fixed crops, each in the slice with most tumor: the scan, its labels, the probability of tumor."""
        edge = self.config.stages[-1][1]
        images, labels = self.batches.take(0, PICTURE_CROPS, edge, PICTURE)
        self.segmenter.eval()
        probability = self.network(images).float().softmax(1)[:, TUMOR].cpu().numpy()
        columns = []
        for image, label, found in zip(images[:, 0], labels[:, 0], probability, strict=True):
            at = int((label == TUMOR).sum(dim=(0, 1)).argmax()) or image.shape[2] // 2
            parts = (image.cpu().numpy(), label.cpu().numpy() / TUMOR, found)
            # Rows from anterior to posterior, the patient's right on the left.
            columns.append(np.concatenate([part[:, ::-1, at].T for part in parts]))
        return np.concatenate(columns, axis=1).astype(np.float32)


def main(args: list[str] | None = None) -> int:
    """Run the program; returns the exit code."""
    config = read_command_line(
        SEGMENTATION_PRESETS, "python -m training.segmentation.segmenter", args
    )
    return run_program(config, SegmentationTraining, prepare_scans)


if __name__ == "__main__":
    raise SystemExit(main())
