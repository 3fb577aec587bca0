"""Batches of stage 3: crops prepared ahead by threads, tumors painted on the device, a pool where that is slow."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor

from training.data.scans import Case, random_generator
from training.segmentation.config import SegmentationConfig
from training.segmentation.data import Crop, Scans, augmented, draw_crop, respaced
from training.segmentation.online_tumors import TumorPainter, Tumors

POOL_VERSION = 1
PARTS = ("images", "labels")
CROPS, PICTURE, POOL = 0, 2, 50
POOL_DRAWS = 20  # of a crop with room for tumors
AHEAD = 2  # steps that are prepared while one is computed

logger = logging.getLogger(__name__)


class Draft(NamedTuple):
    """What a thread has prepared.

    crop: at the network's voxel size; with tumors still to be painted, of 1 mm voxels.
    tumors: what the device has yet to paint, or None.
    """

    crop: Crop
    tumors: Tumors | None


class SegmentationBatches:
    """The crops of each step, a pure function of (seed, process, step).

    Args:
        fabric: process and device.
        config: of the run.
        scans: what is learned from.
    """

    def __init__(self, fabric: Fabric, config: SegmentationConfig, scans: Scans) -> None:
        self.fabric, self.config = fabric, config
        self.training = scans.training
        self.painter: TumorPainter | None = None
        self.pool: CropPool | None = None
        if scans.healthy and config.synthesis.probability:
            device = str(fabric.device)
            self.painter = TumorPainter(config.synthesis, config.data.organ, device)
            if config.synthesis.pool:
                self.pool = CropPool.prepare(fabric, config, self.painter, scans.healthy)
        self._threads: ThreadPoolExecutor | None = None
        if config.data.workers:
            self._threads = ThreadPoolExecutor(config.data.workers, "crops")
        self._ahead: dict[tuple[int, int, int], Future[list[Draft]]] = {}

    def take(self, step: int, count: int, edge: int, purpose: int = CROPS) -> tuple[Tensor, Tensor]:
        """Images (count, 1, X, Y, Z) and labels (count, 1, X, Y, Z), int64, of this process on its device.

        Args:
            step: of the run.
            count: crops.
            edge: of a crop, mm.
            purpose: separates independent uses.
        """
        if purpose == CROPS and self._threads is not None:
            drafts = self._prepared(step, count, edge)
        else:
            drafts = self.drafts(step, count, edge, purpose)
        crops = [self._finished(draft) for draft in drafts]
        images, labels = (
            torch.from_numpy(np.stack(arrays)[:, None]) for arrays in zip(*crops, strict=True)
        )
        return images.to(self.fabric.device), labels.to(self.fabric.device, torch.int64)

    def drafts(self, step: int, count: int, edge: int, purpose: int) -> list[Draft]:
        """What the threads do for one step."""
        rng = random_generator(self.config.seed, self.fabric.global_rank, step, purpose)
        return [self._draft(rng, edge) for _ in range(count)]

    def _prepared(self, step: int, count: int, edge: int) -> list[Draft]:
        """Drafts of a step, begun while earlier ones were computed; sets the threads to the next steps."""
        assert self._threads is not None
        for number in range(step, step + AHEAD + 1):
            key = (number, count, edge)
            if key not in self._ahead:
                self._ahead[key] = self._threads.submit(self.drafts, *key, CROPS)
        drafts = self._ahead[step, count, edge].result()
        self._ahead = {key: made for key, made in self._ahead.items() if key[0] > step}
        return drafts

    def _draft(self, rng: np.random.Generator, edge: int) -> Draft:
        """One crop of a scan drawn at random, all alike as published."""
        settings = self.config
        case, healthy = self.training[rng.integers(len(self.training))]
        paint = healthy and self.painter is not None
        paint = paint and rng.random() < settings.synthesis.probability
        if paint and self.pool is not None:
            return Draft(augmented(rng, self.pool.draw(rng), settings.augmentation), None)
        crop = draw_crop(rng, case, edge, settings.data, healthy=healthy)
        # Augmented before the synthesis, as published: the generator sees mirrored anatomy.
        crop = augmented(rng, crop, settings.augmentation)
        tumors = self.painter.plan(rng, crop.labels) if paint and self.painter is not None else None
        return Draft(crop if tumors else respaced(crop, settings.spacing_mm), tumors)

    def _finished(self, draft: Draft) -> Crop:
        """A draft as the network sees it."""
        if draft.tumors is None or self.painter is None:
            return draft.crop
        return respaced(self.painter.paint(draft.crop, draft.tumors), self.config.spacing_mm)


@dataclasses.dataclass(frozen=True, eq=False)
class CropPool:
    """Crops with synthesized tumors, made once and kept on disk.

    Attributes:
        images: float16 (n, X, Y, Z) at the network's voxel size, memory-mapped.
        labels: uint8 (n, X, Y, Z), memory-mapped.
    """

    images: NDArray[np.float16]
    labels: NDArray[np.uint8]

    @classmethod
    def prepare(
        cls, fabric: Fabric, config: SegmentationConfig, painter: TumorPainter, healthy: list[Case]
    ) -> CropPool:
        """Synthesize the pool's crops, each process its share, or find them in the cache."""
        edges = {edge for _, edge, _ in config.stages}
        if len(edges) > 1:
            raise ValueError("--synthesis.pool holds crops of one edge; --stages asks for several.")
        (edge,) = edges
        content = {
            "pool": POOL_VERSION,
            "edge": edge,
            "spacing": config.spacing_mm,
            "seed": config.seed,
            "synthesis": dataclasses.asdict(config.synthesis) | {"probability": None},
            "organ": config.data.organ,
            "shares": [config.data.positive_share, config.data.tumor_share],
            "cases": [case.name for case in healthy],
            "models": painter.facts,
        }
        key = json.dumps(content, sort_keys=True, default=str)
        name = f"crops-{hashlib.sha256(key.encode()).hexdigest()[:20]}"
        folder, temporary = config.data.cache / name, config.data.cache / f"part-{name}"
        if not folder.is_dir():
            if fabric.is_global_zero and not (temporary / "pool.json").is_file():
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir(parents=True)
                shape = (config.synthesis.pool, *(int(edge / config.spacing_mm),) * 3)
                for part, kind in (("images", np.float16), ("labels", np.uint8)):
                    path = temporary / f"{part}.npy"
                    np.lib.format.open_memmap(path, "w+", kind, shape).flush()
                (temporary / "pool.json").write_text(key + "\n", encoding="utf-8")
            fabric.barrier()
            _fill(fabric, config, painter, healthy, temporary)
            fabric.barrier()
            if fabric.is_global_zero:
                temporary.replace(folder)
        fabric.barrier()
        return cls(*(np.load(folder / f"{part}.npy", mmap_mode="r") for part in PARTS))

    def draw(self, rng: np.random.Generator) -> Crop:
        """One of the crops."""
        index = int(rng.integers(len(self.images)))
        return Crop(self.images[index].astype(np.float32), np.asarray(self.labels[index]))


def _fill(
    fabric: Fabric,
    config: SegmentationConfig,
    painter: TumorPainter,
    healthy: list[Case],
    folder: Path,
) -> None:
    """Fill this process's share of a pool; crops that an earlier, interrupted run made are kept."""
    images, labels = (np.load(folder / f"{part}.npy", mmap_mode="r+") for part in PARTS)
    for index in range(fabric.global_rank, len(images), fabric.world_size):
        if labels[index].any():
            continue
        rng = random_generator(config.seed, 0, index, POOL)
        for _ in range(POOL_DRAWS):
            case = healthy[rng.integers(len(healthy))]
            crop = draw_crop(rng, case, config.stages[-1][1], config.data, healthy=True)
            tumors = painter.plan(rng, crop.labels)
            if tumors is not None:
                break
        else:
            raise ValueError(
                f"In {POOL_DRAWS} crops of healthy scans no tumor found room in the organ. Check the organ "
                "masks of --data.healthy, or make the crops in --stages larger."
            )
        made = respaced(painter.paint(crop, tumors), config.spacing_mm)
        images[index] = made.image
        images.flush()
        labels[index] = made.labels  # last: says that the crop is complete
        labels.flush()
        if fabric.is_global_zero and index % 20 < fabric.world_size:
            logger.info("synthesized about %d of %d crops", index, len(images))
