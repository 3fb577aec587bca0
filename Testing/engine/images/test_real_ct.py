"""Early tumors in a real portal-venous CT (89 DICOM slices): grid, untouched voxels, volume, seed."""

from __future__ import annotations

import json
import tarfile

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from difftumor.cli import main
from difftumor.images.volumes import read_volume
from difftumor.weights.models import ModelError, find_model

# Places chosen on the images: liver segment VIII, head of the pancreas, upper pole of the right kidney.
PLACES = {
    ("liver", 8): (75.0, 10.0, -255.0),
    ("pancreas", 10): (22.0, 37.0, -319.0),
    ("kidney", 12): (60.0, -28.0, -301.0),
}


@pytest.fixture(scope="module")
def scan(dicom):
    return read_volume(dicom)


@pytest.fixture(scope="module")
def dicom(shared, tmp_path_factory):
    archive = shared / "data" / "ct_hcc048" / "hcc048_dicom.tar.xz"
    if not archive.is_file():
        pytest.skip(f"no {archive}")
    folder = tmp_path_factory.mktemp("hcc048")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return next(p.parent for p in folder.rglob("*") if p.is_file())


def model() -> str:
    """The demonstration model; the baseline where a checkout has none."""
    try:
        return find_model("demo-abdomen-early").id
    except ModelError:
        return "modelled"


def synthesize(dicom, out, organ, radius, center, *more: str) -> None:
    code = main(["synthesize", str(dicom), "--out", str(out), "--model", model(), "--quiet",
                 "--anatomy", organ, "--center", *map(str, center), "--radii", *[str(radius)] * 3,
                 "--mask-out", str(out.with_name("mask-" + out.name)), *more])  # fmt: skip
    assert code == 0


@pytest.mark.parametrize(("organ", "radius"), PLACES)
def test_early_tumor_in_a_real_ct(dicom, scan, tmp_path, organ, radius):
    center = PLACES[organ, radius]
    out = tmp_path / "tumor.nii"
    synthesize(dicom, out, organ, radius, center)
    image, mask = nib.load(out), nib.load(tmp_path / "mask-tumor.nii")
    after = np.asarray(image.dataobj)
    # The input's grid and voxel type.
    assert after.shape == scan.array.shape
    assert after.dtype == np.int16
    assert np.allclose(image.affine, scan.affine, atol=1e-4)
    # Nothing differs far from the tumor: beyond 4 sigma of the feather, 1.5 mm.
    tumor = np.asarray(mask.dataobj).astype(bool)
    middle = np.linalg.solve(image.affine, [*center, 1.0])[:3]
    reach = np.ceil((radius + 4 * 1.5 + 1) / scan.grid.spacing)
    near = tuple(slice(int(m - r), int(m + r) + 2) for m, r in zip(middle, reach, strict=True))
    changed = after != scan.array
    assert changed[near].sum() == changed.sum()
    assert tumor[near].sum() == tumor.sum()
    before, after, tumor = scan.array[near], after[near], tumor[near]
    # The mask is the analytic ball, by an independent computation, within 2 % in volume.
    index = np.indices(after.shape).reshape(3, -1) + [[part.start] for part in near]
    ras = image.affine[:3, :3] @ index + image.affine[:3, 3:]
    ball = (((ras - np.array(center)[:, None]) ** 2).sum(0) <= radius**2).reshape(after.shape)
    assert (ball != tumor).sum() <= 2
    voxel = abs(np.linalg.det(image.affine[:3, :3]))
    assert tumor.sum() * voxel == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.02)
    # Outside the feathered region not one voxel differs.
    weight = gaussian_filter(ball.astype(np.float32), 1.5 / scan.grid.spacing, mode="nearest")
    assert np.array_equal(after[weight == 0], before[weight == 0])
    # And a tumor is there: darker than this portal-venous parenchyma was, in nearly every voxel changed.
    assert after[tumor].mean() < before[tumor].mean() - 10
    facts = json.loads((tmp_path / "tumor.json").read_text())["result"]["lesions"][0]
    assert facts["volume_mm3"] == pytest.approx(tumor.sum() * voxel, rel=1e-3)


def test_the_same_seed_gives_the_same_file_and_another_seed_another(dicom, tmp_path):
    center = PLACES["liver", 8]
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        synthesize(dicom, tmp_path / f"{name}.nii", "liver", 8, center, "--seed", str(seed))
    first, same, other = ((tmp_path / f"{n}.nii").read_bytes() for n in "abc")
    assert first == same
    assert first != other
