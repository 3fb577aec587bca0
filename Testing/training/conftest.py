"""A data set of two tiny scans with an organ and tumors, and tiny runs on it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from training.data.scans import Data, cases_of
from training.loop.loop import train
from training.synthesis.autoencoder import AutoencoderTraining
from training.synthesis.config import AutoencoderConfig
from training.synthesis.presets import AUTOENCODER_PRESETS, DIFFUSION_PRESETS

SHAPE = (40, 36, 32)


def scan_arrays(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """CT with a bright ball (1) that holds a dark ball (2); labels of the same shape."""
    rng = np.random.default_rng(seed)
    i, j, k = np.indices(SHAPE)
    distance = np.sqrt((i - 19) ** 2 + (j - 17) ** 2 + (k - 15) ** 2)
    inner = np.sqrt((i - 22) ** 2 + (j - 17) ** 2 + (k - 15) ** 2)
    labels = (distance < 12).astype(np.uint8)
    labels[inner < 4] = 2
    ct = np.select([labels == 2, labels == 1], [60.0, 120.0], -80.0)
    return (ct + rng.normal(0, 5, SHAPE)).astype(np.int16), labels


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.eye(4) if affine is None else affine), path)


@pytest.fixture(scope="session")
def datalist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("scans")
    cases = []
    for seed in (1, 2):
        ct, labels = scan_arrays(seed)
        write_nifti(folder / f"ct{seed}.nii.gz", ct)
        write_nifti(folder / f"labels{seed}.nii.gz", labels)
        masks = {"organ": [f"labels{seed}.nii.gz:1"], "tumor": [f"labels{seed}.nii.gz:2"]}
        cases.append({"image": f"ct{seed}.nii.gz", **masks})
    path = folder / "list.json"
    path.write_text(json.dumps({"version": 1, "name": "two balls", "cases": cases}))
    return path


@pytest.fixture(scope="session")
def data(datalist: Path, tmp_path_factory: pytest.TempPathFactory) -> Data:
    return Data(datalist=datalist, cache=tmp_path_factory.mktemp("cache"), positive_share=0.5)


@pytest.fixture
def autoencoder_config(data: Data, tmp_path: Path) -> AutoencoderConfig:
    return replace(AUTOENCODER_PRESETS["tiny"][1], data=data, run=tmp_path / "autoencoder")


@pytest.fixture(scope="session")
def trained_autoencoder(data: Data, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a finished tiny run of stage 1."""
    config = replace(
        AUTOENCODER_PRESETS["tiny"][1], data=data, run=tmp_path_factory.mktemp("runs") / "stage1"
    )
    assert train(config, AutoencoderTraining, cases_of)
    return config.run


@pytest.fixture
def diffusion_config(data: Data, trained_autoencoder: Path, tmp_path: Path):
    return replace(
        DIFFUSION_PRESETS["tiny"][1],
        data=data,
        autoencoder=trained_autoencoder,
        run=tmp_path / "diffusion",
    )
