"""How well an autoencoder carries a scan: PSNR on phantoms of unseen seeds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from difftumor.networks.vqgan import VQGAN
from difftumor.phantom import Phantom
from difftumor.synthesis.blending import to_unit

WINDOW_WIDTH_HU = 425.0  # [-175, 250]
SMOOTHING_MM = 1.0
EDGE = 96


@dataclass(frozen=True)
class Reconstruction:
    """Crops of one phantom before and after the autoencoder, HU inside the window, (n, I, J, K)."""

    scan: NDArray[np.float32]
    clean: NDArray[np.float32]
    output: NDArray[np.float32]


def reconstruct(vqgan: VQGAN, phantom: Phantom, centers: list[NDArray[np.int64]]) -> Reconstruction:
    """Encode and decode crops of 96 mm as the synthesis does."""
    scans, cleans, outputs = [], [], []
    for center in centers:
        first = np.clip(center - EDGE // 2, 0, np.array(phantom.ct.shape) - EDGE)
        box = tuple(slice(int(a), int(a) + EDGE) for a in first)
        scan = to_unit(phantom.ct[box])
        x = torch.from_numpy(2 * scan - 1).permute(2, 0, 1)[None, None].contiguous()
        with torch.inference_mode():
            decoded = vqgan.decode(vqgan.encode(x))[0, 0].permute(1, 2, 0).numpy()
        scans.append(scan)
        cleans.append(to_unit(phantom.clean[box]))
        outputs.append(np.clip((decoded + 1) / 2, 0, 1))
    return Reconstruction(
        *(
            (np.stack(parts) * WINDOW_WIDTH_HU - 175).astype(np.float32)
            for parts in (scans, cleans, outputs)
        )
    )


def smoothed_psnr_db(truth: NDArray[np.float32], image: NDArray[np.float32]) -> float:
    """PSNR in the window's width, both smoothed by a Gaussian of 1 mm in each crop (n, I, J, K)."""
    difference = np.stack(
        [
            ndimage.gaussian_filter(a.astype(np.float64) - b, SMOOTHING_MM)
            for a, b in zip(image, truth, strict=True)
        ]
    )
    return float(20 * np.log10(WINDOW_WIDTH_HU) - 10 * np.log10(np.mean(difference**2)))


def organ_centers(phantom: Phantom) -> list[NDArray[np.int64]]:
    """Middle voxels of liver, pancreas and both kidneys (TotalSegmentator 5, 7, 2, 3)."""
    centers = []
    for label in (5, 7, 2, 3):
        places = np.argwhere(phantom.organs == label)
        if len(places):
            centers.append(places[len(places) // 2])
    return centers
