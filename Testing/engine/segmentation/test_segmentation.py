"""The pipeline of segmentation: published numbers on the scan's grid, its rules, and what it keeps."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import sliding_window_inference
from monai.transforms import Orientation, ResampleToMatch, Spacing

from difftumor.grids import Grid
from difftumor.parameters import SegmentationParameters, from_dict, to_dict
from difftumor.segmentation.evidence import collect_evidence
from difftumor.segmentation.model import SegmentationModel
from difftumor.segmentation.segment import (
    REACH_MM,
    SegmentationError,
    SegmentationResult,
    segment,
)
from difftumor.worker.protocol import Cancelled
from Testing.tiny_segmenter import ByHU, model_by_hu, tiny_card, tiny_unet

SHAPE = (46, 40, 30)
SPACING = np.array([0.9, 1.0, 1.6])


def grid_of(signs=(-1, -1, 1), shape=SHAPE, spacing=SPACING) -> Grid:
    affine = np.diag([*(np.asarray(signs) * spacing), 1.0])
    affine[:3, 3] = (20, -30, 5)
    return Grid(shape, affine)


GRID = grid_of()
CENTER = GRID.center_ras


def at(*offset: float) -> np.ndarray:
    """A place in the organ, mm from its center."""
    return CENTER + np.asarray(offset)


def ball(center, radius, grid=GRID):
    return np.linalg.norm(grid.centers() - np.asarray(center), axis=-1) <= radius


def case(seed=0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scan, organ and tumor: an organ of 110 HU with a tumor of 50, in air, and a tumor beside it."""
    organ = ball(CENTER, 15)
    tumor = ball(at(4, 2, 1), 6)
    scan = np.where(organ, 110, 300)
    scan[tumor | ball(at(-19, 0, 0), 2.5)] = 50
    noise = np.random.default_rng(seed).normal(0, 2, SHAPE)
    return (scan + noise).round().astype(np.int16), organ, tumor


def random_model(channel: int = 0, **fields: Any) -> SegmentationModel:
    """A small U-Net with filled weights; `channel` shifts its classes, so that models differ."""
    network = torch.nn.Sequential(tiny_unet(), Roll(channel))
    facts = {"id": f"random-{channel}", "title": "Random", "sha256": str(channel) * 64}
    return SegmentationModel(
        network, "segmentation_unet", tiny_card(**fields), facts, torch.device("cpu")
    )


class Roll(torch.nn.Module):
    def __init__(self, by: int) -> None:
        super().__init__()
        self.by = by

    def forward(self, x):
        return x.roll(self.by, dims=1)


class Counting(ByHU):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


def run(
    scan, organ, *models, grid=GRID, cache=None, callback=None, **options
) -> SegmentationResult:
    parameters = SegmentationParameters(**options)
    chosen = models or (model_by_hu(),)
    return segment(scan, grid, organ, parameters, chosen, callback, cache)


def test_the_published_pipeline_gives_the_same_labels():
    """MONAI's reorientation, spacing, windows over everything, and the way back."""
    scan, organ, _ = case()
    model = random_model()
    image = MetaTensor(scan[None].astype(np.float32), affine=GRID.affine)
    working = Spacing((1, 1, 1), mode="bilinear")(Orientation("RAS", labels=None)(image))
    unit = (working.clip(-175, 250) + 175) / 425
    with torch.inference_mode():
        logits = sliding_window_inference(
            unit.as_tensor()[None], model.window, 1, model.logits, 0.75, mode="gaussian"
        )[0].clone()
    back = ResampleToMatch(mode="bilinear", padding_mode="border")(
        MetaTensor(logits, affine=working.affine), image
    )
    expected = back.argmax(0).numpy()
    probability = back.softmax(0)[2].numpy()
    result = run(scan, organ, model, min_diameter_mm=0)
    assert np.abs(result.whole(result.probability)[organ] - probability[organ]).max() < 1e-3
    found = result.whole(result.labels)
    differ = (found[organ] == 2) != (expected[organ] == 2)
    assert differ.mean() < 1e-3  # ties, by rounding
    assert 0.02 < (expected[organ] == 2).mean() < 0.98
    assert set(np.unique(found[organ])) == {1, 2}
    assert not found[~organ].any()


def test_tumor_is_found_measured_and_kept_inside_the_organ():
    scan, organ, tumor = case()
    before = scan.copy()
    result = run(scan, organ)
    assert np.array_equal(scan, before)
    found = result.whole(result.labels) == 2
    assert 2 * (found & tumor).sum() / (found.sum() + tumor.sum()) > 0.95
    assert not (found & ~organ).any()
    (row,) = result.lesions
    assert row.name == "liver tumor 1"
    assert np.linalg.norm(np.subtract(row.position_ras, at(4, 2, 1))) < 1.5
    assert np.allclose(GRID.to_ras(row.voxel), row.position_ras, atol=1e-2)
    assert row.hu_mean == pytest.approx(51, abs=2)
    assert row.organ_hu_mean == pytest.approx(110, abs=2)
    assert row.early
    assert row.mean_probability > 0.8
    assert result.facts()["settings"]["threshold"] is None
    assert result.agreement is None


def test_tumor_may_leave_the_organ_if_asked():
    scan, organ, _ = case()
    result = run(scan, organ, clip_to_organ=False, min_diameter_mm=2)
    assert len(result.lesions) == 2
    outside = result.whole(result.labels)[~organ]
    assert set(np.unique(outside)) == {0, 2}
    far = run(scan, organ & ball(at(14, 0, 0), 3), clip_to_organ=False, min_diameter_mm=2)
    assert len(far.lesions) == 1  # the other is more than 20 mm away
    found = far.whole(far.labels) == 2
    assert not (found & ~ball(at(14, 0, 0), 3 + REACH_MM + 1)).any()


def test_without_a_mask_the_networks_own_organ_is_written():
    scan, organ, tumor = case()
    result = run(scan, None, min_diameter_mm=0)
    labels = result.whole(result.labels)
    assert result.windows["computed"] == result.windows["of"]
    rest = organ & ~tumor
    assert (labels[rest] == 1).mean() > 0.9
    assert (labels[ball(CENTER, 14) & ~ball(at(4, 2, 1), 8)] == 1).all()
    assert len(result.lesions) == 2
    assert result.settings["clip_to_organ"] is False


def test_inside_the_mask_it_does_not_matter_what_else_is_computed():
    scan, organ, _ = case()
    organ &= ball(at(10, 0, 0), 4)
    model = random_model(crop_voxels=[16, 16, 16])
    masked = run(scan, organ, model, min_diameter_mm=0)
    assert masked.windows["computed"] < masked.windows["of"]
    everywhere = run(scan, None, model, min_diameter_mm=0)
    a, b = masked.whole(masked.probability)[organ], everywhere.whole(everywhere.probability)[organ]
    assert np.abs(a - b).max() < 1e-5


def test_small_pieces_are_removed_by_the_stated_rule():
    scan, organ, _ = case()
    scan[organ & ball(at(-8, -4, 0), 2.2)] = 50
    both = run(scan, organ, min_diameter_mm=2)
    assert len(both.lesions) == 2
    assert both.lesions[1].equivalent_diameter_mm < 6
    one = run(scan, organ)
    assert len(one.lesions) == 1
    assert one.settings["min_diameter_mm"] == 6  # as the published script: 3 mm of radius
    assert "1 piece of less than 6 mm" in one.notes[-1]
    assert (one.whole(one.labels)[organ & ball(at(-8, -4, 0), 2.2)] == 1).all()
    kept = run(scan, organ, model_by_hu(recommended={"min_diameter_mm": 2}))
    assert len(kept.lesions) == 2


def test_a_threshold_of_probability_instead_of_the_greatest_class():
    scan, organ, _ = case()
    sure, unsure = (run(scan, organ, tumor_threshold=t) for t in (0.9, 0.1))
    argmax = run(scan, organ)
    volumes = [r.lesions[0].volume_mm3 for r in (sure, argmax, unsure)]
    assert volumes == sorted(volumes)
    assert volumes[0] < volumes[2]
    assert (sure.probability[sure.labels == 2] >= 0.9).all()


def test_several_models_and_their_agreement():
    scan, organ, _ = case()
    one, other = random_model(0), random_model(1)
    both = run(scan, organ, one, other, min_diameter_mm=0)
    apart = [run(scan, organ, model, min_diameter_mm=0) for model in (one, other)]
    # On the working grid it is the mean of the probabilities.
    plan = (scan, GRID, organ, (one, other), 0.75, False, lambda *_: None)
    evidence = collect_evidence(*plan)
    single = [collect_evidence(*plan[:3], (m,), *plan[4:]) for m in (one, other)]
    mean = sum(np.exp(e.log_probability) for e in single)
    assert np.allclose(np.exp(evidence.log_probability), mean, atol=1e-5)
    says = [r.whole(r.labels)[organ] == 2 for r in (*apart, both)]
    expected = ((says[0] == says[2]).astype(float) + (says[1] == says[2])) / 2
    agreement = both.whole(both.agreement)[organ]
    assert (agreement == expected).mean() > 0.999  # members are kept in half precision
    assert len(np.unique(agreement)) > 1
    assert all(row.agreement is not None for row in both.lesions)


def test_mirror_images_are_averaged():
    scan, organ, _ = case()
    plain, mirrored = (run(scan, organ, flips=on) for on in (False, True))
    assert np.allclose(plain.probability, mirrored.probability, atol=1e-5)  # voxel by voxel
    model = random_model()
    once = run(scan, organ, model)
    eight = run(scan, organ, model, flips=True)
    assert np.abs(once.probability - eight.probability).max() > 0.01
    # A symmetric scan of one window gives a symmetric result only with mirror images.
    part = (slice(8, 36), slice(6, 34), slice(1, 29))
    symmetric = np.maximum(scan[part], scan[part][::-1])
    mask, grid = np.ones(symmetric.shape, bool), grid_of(shape=(28, 28, 28), spacing=np.ones(3))
    one, all_eight = (
        run(symmetric, mask, model, grid=grid, flips=on).probability for on in (False, True)
    )
    assert np.abs(all_eight - all_eight[::-1]).max() < 1e-5
    assert np.abs(one - one[::-1]).max() > 0.01


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 0, 2)])
@pytest.mark.parametrize("flip", [(), (0,), (1, 2)])
def test_the_orientation_of_the_file_does_not_matter(axes, flip):
    scan, organ, _ = case()
    model = random_model()
    expected = run(scan, organ, model, min_diameter_mm=0)
    whole = expected.whole(expected.probability)
    affine = GRID.affine.copy()
    for axis in flip:
        affine[:3, 3] += affine[:3, axis] * (SHAPE[axis] - 1)
        affine[:3, axis] *= -1
    affine[:3, :3] = affine[:3, list(axes)]
    turned = Grid(tuple(SHAPE[a] for a in axes), affine)

    def moved(array):
        return np.flip(array, flip).transpose(axes)

    got = run(moved(scan), moved(organ), model, grid=turned, min_diameter_mm=0)
    assert np.abs(got.whole(got.probability) - moved(whole)).max() < 1e-5


def test_what_the_networks_said_is_kept_for_the_next_request():
    scan, organ, _ = case()
    model = model_by_hu()
    model.network = network = Counting()
    cache: dict[str, Any] = {}
    run(scan, organ, model, cache=cache)
    first = network.calls
    again = run(scan, organ, model, cache=cache, tumor_threshold=0.3, min_diameter_mm=1)
    assert network.calls == first
    fresh = run(scan, organ, model, tumor_threshold=0.3, min_diameter_mm=1)
    assert np.array_equal(again.labels, fresh.labels)
    calls = network.calls
    run(scan, organ, model, cache=cache, overlap=0.5)
    assert network.calls > calls
    calls = network.calls
    run(scan + np.int16(1), organ, model, cache=cache, overlap=0.5)
    assert network.calls > calls
    assert len(cache) == 1


def test_cancel_and_progress():
    scan, organ, _ = case()
    told = []

    def callback(stage, done, total):
        told.append((stage, done, total))
        if done == 3:
            raise Cancelled

    cache: dict[str, Any] = {}
    with pytest.raises(Cancelled):
        run(scan, organ, model_by_hu(), model_by_hu(), callback=callback, cache=cache)
    assert [done for _, done, _ in told] == [0, 1, 2, 3]
    assert {stage for stage, _, _ in told} == {"segmenting"}
    assert cache == {}
    finished = []
    both = run(scan, organ, model_by_hu(), model_by_hu(),
               callback=lambda stage, *counts: finished.append((stage, *counts)))  # fmt: skip
    counts = [counts for stage, *counts in finished if stage == "segmenting"]
    assert counts[-1] == [both.windows["computed"]] * 2
    assert counts == sorted(counts)


def test_the_same_request_gives_the_same_bytes():
    scan, organ, _ = case()
    one, two = (run(scan, organ, random_model()) for _ in range(2))
    assert one.labels.tobytes() == two.labels.tobytes()
    assert one.probability.tobytes() == two.probability.tobytes()
    assert one.facts() == two.facts()


def test_bad_input_is_refused_with_the_remedy():
    scan, organ, _ = case()
    with pytest.raises(SegmentationError, match="organ mask is empty"):
        run(scan, np.zeros(SHAPE, bool))
    with pytest.raises(SegmentationError, match="not numbers"):
        run(np.where(organ, np.nan, scan.astype(np.float32)), organ)
    with pytest.raises(ValueError, match="organ mask has shape"):
        run(scan, organ[1:])


def test_a_scan_smaller_than_a_window():
    scan, organ, _ = case()
    part = (slice(14, 36), slice(10, 32), slice(10, 20))
    grid = GRID.cropped(part)
    result = run(scan[part], organ[part], grid=grid)
    assert len(result.lesions) == 1
    assert result.windows == {"computed": 1, "of": 1}


@pytest.mark.parametrize("axis", [0, 2])
def test_a_single_slice_is_repeated_to_both_sides(axis):
    scan, organ, tumor = case()
    middle = SHAPE[axis] // 2
    part = tuple(slice(middle, middle + 1) if d == axis else slice(None) for d in range(3))
    result = run(scan[part], organ[part], grid=GRID.cropped(part))
    assert result.whole(result.labels).shape == scan[part].shape
    found = result.whole(result.labels) == 2
    assert 2 * (found & tumor[part]).sum() / (found.sum() + tumor[part].sum()) > 0.9
    assert "single slice" in result.notes[0]
    everywhere = run(scan[part], None, grid=GRID.cropped(part))
    assert (everywhere.whole(everywhere.labels)[tumor[part]] == 2).mean() > 0.9


def test_parameters():
    parameters = SegmentationParameters(("a", "b"), overlap=0.5, tumor_threshold=0.4)
    assert from_dict(SegmentationParameters, to_dict(parameters)) == parameters
    assert from_dict(SegmentationParameters, {"models": ["a"]}).models == ("a",)
    assert SegmentationParameters().overlap == 0.75
    assert replace(parameters, overlap=0.25).models == ("a", "b")
    for wrong, words in (
        ({"models": ()}, "one or several"),
        ({"models": "a"}, "one or several"),
        ({"models": ("a", "a")}, "named twice"),
        ({"overlap": 0.95}, "overlap must be 0 to 0.9"),
        ({"flips": 1}, "flips must be true or false"),
        ({"min_diameter_mm": -1}, "min_diameter_mm"),
        ({"tumor_threshold": 2}, "tumor_threshold"),
    ):
        with pytest.raises(ValueError, match=words):
            SegmentationParameters(**wrong)
