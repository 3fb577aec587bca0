"""Latents for stage 2: of whole crops, of the same crops without their tumors, and a stored pool of both."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from lightning.fabric import Fabric
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from difftumor.diffusion.sampling import normalize_latent
from difftumor.networks.vqgan import VQGAN
from difftumor.weights.checkpoints import read_checkpoint
from training.data.scans import Case, draw_tumor_crop, random_generator
from training.loop.runs import CHECKPOINT_NAME, read_checkpoint_file
from training.synthesis.config import DiffusionConfig

POOL_VERSION = 1
POOL_PURPOSE = 50
FACTOR = 4  # voxels per latent voxel

logger = logging.getLogger(__name__)


class Pair(NamedTuple):
    """What the denoiser learns from.

    target: normalized latent of the scan, (B, dim, Z, X, Y).
    condition: normalized latent of the scan without the tumor's voxels, and the mask in {-1, 1},
        (B, dim + 1, Z, X, Y).
    """

    target: Tensor
    condition: Tensor


@torch.no_grad()
def encode_pair(vqgan: VQGAN, ct: Tensor, mask: Tensor) -> Pair:
    """Encode crops with and without their tumors.

    Args:
        vqgan: frozen; its codebook's extremes scale the latents.
        ct: (B, 1, Z, X, Y) in [-1, 1].
        mask: tumor mask of the same shape, 0 or 1.
    """
    scale = vqgan.code_range()
    # Masked voxels become 0 (37.5 HU), not the lowest value, as the published code multiplies in [-1, 1].
    target, masked = (
        normalize_latent(vqgan.encode(x).float(), *scale) for x in (ct, ct * (1 - mask))
    )
    small = functional.interpolate(2 * mask - 1, size=target.shape[-3:], mode="nearest")
    return Pair(target, torch.cat([masked, small], dim=1))


def load_autoencoder(path: Path) -> VQGAN:
    """The frozen autoencoder of a stage 1 run (its averaged weights), or of a published file.

    Args:
        path: run folder, or a file that difftumor.weights.checkpoints reads.

    Raises:
        FileNotFoundError: if there is neither.
        RunError, ModelError, ValueError: if it holds no autoencoder.
    """
    if path.is_dir():
        stored = read_checkpoint_file(path / CHECKPOINT_NAME)
        state = stored["ema"]
        settings = json.loads((path / "config.json").read_text(encoding="utf-8"))["network"]
        if not bool(state["codebook.N"].any()):
            raise ValueError(
                f"The autoencoder in {path} has no codebook yet ({stored['samples']} samples); "
                "train it beyond --codebook.start."
            )
    else:
        if not path.is_file():
            raise FileNotFoundError(f"There is no autoencoder {path}. Train stage 1 first.")
        wanted = ("encoder.", "decoder.", "pre_vq_conv.", "post_vq_conv.", "codebook.")
        tensors = read_checkpoint(path).tensors
        state = {key: value for key, value in tensors.items() if key.startswith(wanted)}
        settings = {}
    vqgan = VQGAN(**settings)
    vqgan.load_state_dict(state)
    return vqgan.requires_grad_(False).eval()


@dataclass(frozen=True, eq=False)
class LatentPool:
    """Latents of many crops, encoded once; training draws windows around the tumors in them.

    Attributes:
        target: float16 (n, dim, Z, X, Y), memory-mapped.
        condition: float16 (n, dim + 1, Z, X, Y), memory-mapped.
    """

    target: NDArray[np.float16]
    condition: NDArray[np.float16]

    @classmethod
    def prepare(
        cls, config: DiffusionConfig, fabric: Fabric, vqgan: VQGAN, cases: list[Case]
    ) -> LatentPool:
        """Encode config.pool crops of config.pool_edge mm, or find them in the cache."""
        content = {
            "pool": POOL_VERSION,
            "count": config.pool,
            "edge": config.pool_edge,
            "seed": config.seed,
            "data": dataclasses.asdict(config.data),
            "cases": [case.name for case in cases],
            "autoencoder": fingerprint(vqgan),
            "precision": config.hardware.precision,
        }
        key = json.dumps(content, sort_keys=True, default=str)
        name = f"latents-{hashlib.sha256(key.encode()).hexdigest()[:20]}"
        folder, temporary = config.data.cache / name, config.data.cache / f"part-{name}"
        if not folder.is_dir():
            if fabric.is_global_zero:
                shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir(parents=True)
                _allocate(config, vqgan, temporary)
            fabric.barrier()
            _encode_pool(config, fabric, vqgan, cases, temporary)
            fabric.barrier()
            if fabric.is_global_zero:
                (temporary / "pool.json").write_text(key + "\n", encoding="utf-8")
                temporary.replace(folder)
        fabric.barrier()
        return cls(*(np.load(folder / f"{part}.npy", mmap_mode="r") for part in Pair._fields))

    def draw(self, rng: np.random.Generator, edge: int) -> Pair:
        """A random window that holds some tumor, if the crop has any.

        Args:
            rng: which.
            edge: of the window, in latent voxels.

        Returns:
            float32 tensors without batch axis.
        """
        index = int(rng.integers(len(self.target)))
        window = take_window(rng, self.condition[index, -1] > 0, edge)
        return Pair(
            *(
                torch.from_numpy(array[index][(slice(None), *window)].astype(np.float32))
                for array in (self.target, self.condition)
            )
        )


def take_window(
    rng: np.random.Generator, mask: NDArray[np.bool_], edge: int
) -> tuple[slice, slice, slice]:
    """Cubic window of `edge` voxels inside an array that contains a random voxel of the mask."""
    room = np.array(mask.shape) - edge
    if (room < 0).any():
        raise ValueError(f"A window of {edge} does not fit into latents of {mask.shape}.")
    places = np.argwhere(mask)
    if len(places):
        place = places[rng.integers(len(places))]
        low = np.clip(place - edge + 1, 0, room)
        high = np.clip(place, 0, room)
        # Not at the very border: half of the window's edge lies on both sides on average.
        first = np.round(rng.triangular(low - 0.5, (low + high) / 2, high + 0.5)).astype(int)
        first = np.clip(first, low, high)
    else:
        first = rng.integers(room + 1)
    return tuple(slice(int(a), int(a) + edge) for a in first)  # type: ignore[return-value]


def _allocate(config: DiffusionConfig, vqgan: VQGAN, folder: Path) -> None:
    """Write empty target.npy and condition.npy."""
    dim, edge = vqgan.codebook.embeddings.shape[1], config.pool_edge // FACTOR
    for name, channels in zip(Pair._fields, (dim, dim + 1), strict=True):
        shape = (config.pool, channels, edge, edge, edge)
        np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.float16, shape).flush()


def _encode_pool(
    config: DiffusionConfig, fabric: Fabric, vqgan: VQGAN, cases: list[Case], folder: Path
) -> None:
    """Fill this process's share of target.npy and condition.npy."""
    arrays = [np.load(folder / f"{name}.npy", mmap_mode="r+") for name in Pair._fields]
    for index in range(fabric.global_rank, config.pool, fabric.world_size):
        rng = random_generator(config.seed, 0, index, POOL_PURPOSE)
        crop = draw_tumor_crop(rng, cases, config.pool_edge, config.data)
        ct, mask = (torch.from_numpy(part)[None, None].to(fabric.device) for part in crop)
        with fabric.autocast():
            pair = encode_pair(vqgan, ct, mask)
        for array, part in zip(arrays, pair, strict=True):
            array[index] = part[0].float().cpu().numpy()
        if fabric.is_global_zero and index % 50 < fabric.world_size:
            logger.info("encoded about %d of %d crops", index, config.pool)
    for array in arrays:
        array.flush()


def fingerprint(vqgan: VQGAN) -> str:
    """Hash of an autoencoder's values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(vqgan.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:20]
