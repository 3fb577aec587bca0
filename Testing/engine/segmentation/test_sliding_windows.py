"""Sliding windows give what MONAI's plain call gives, from fewer windows and in bounded memory."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.utils import compute_importance_map, dense_patch_slices
from monai.inferers import sliding_window_inference
from monai.inferers.utils import _get_scan_interval

from difftumor.segmentation.windows import gaussian_weights, plan_windows, predict_windows
from difftumor.worker.protocol import Cancelled

CPU = torch.device("cpu")
SIZE = (16, 12, 16)


def network(x):
    """Three classes that depend on the place in the window, so that the windows disagree."""
    place = torch.linspace(-1, 1, x.shape[-1])
    return torch.cat([x * 3, x.mean((2, 3, 4), keepdim=True) + place + 0 * x, x**2 - 1], dim=1)


def image_of(shape, seed=0):
    return np.random.default_rng(seed).random((1, *shape), np.float32)


def plain(image, overlap, size=SIZE, batch=1):
    """MONAI's call, as the published evaluation makes it."""
    return sliding_window_inference(
        torch.from_numpy(image)[None], size, batch, network, overlap, mode="gaussian"
    )[0].numpy()


def ours(image, plan, batch=1, callback=None):
    part = np.ascontiguousarray(image[(slice(None), *plan.field)])
    result = np.full((3, *image.shape[1:]), np.nan, np.float32)
    last = 0
    for rows, logits in predict_windows(part, plan, network, CPU, batch, callback):
        assert rows.start >= last
        last = rows.stop
        result[(slice(None), rows, *plan.box[1:])] = logits
    return result


def ball(shape, center, radius):
    at = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return np.linalg.norm(at - np.asarray(center), axis=-1) <= radius


@pytest.mark.parametrize("overlap", [0, 0.25, 0.5, 0.75])
@pytest.mark.parametrize(
    "shape", [(40, 33, 21), (16, 12, 16), (17, 50, 16), (9, 40, 11), (5, 5, 5)]
)
def test_the_whole_volume_is_as_with_monai(shape, overlap):
    image = image_of(shape)
    got = ours(image, plan_windows(shape, SIZE, overlap))
    np.testing.assert_allclose(got, plain(image, overlap), atol=1e-6)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("overlap", [0.5, 0.75])
def test_inside_the_mask_it_is_as_with_monai_from_fewer_windows(overlap, batch):
    shape = (64, 48, 40)
    image, mask = image_of(shape), ball(shape, (20, 30, 18), 8)
    plan = plan_windows(shape, SIZE, overlap, mask)
    got = ours(image, plan, batch)
    np.testing.assert_allclose(got[:, mask], plain(image, overlap, batch=batch)[:, mask], atol=1e-6)
    assert len(plan) < plan.total / 2
    assert plan.total == len(plan_windows(shape, SIZE, overlap))


@settings(max_examples=25, deadline=None)
@given(
    shape=st.tuples(*[st.integers(3, 40)] * 3),
    overlap=st.sampled_from([0.0, 0.3, 0.5, 0.6, 0.75, 0.9]),
    seed=st.integers(0, 99),
    voxels=st.integers(1, 12),
)
def test_any_scattered_mask(shape, overlap, seed, voxels):
    rng = np.random.default_rng(seed)
    mask = np.zeros(shape, bool)
    mask[tuple(rng.integers(0, shape, (voxels, 3)).T)] = True
    image = image_of(shape, seed)
    got = ours(image, plan_windows(shape, SIZE, overlap, mask))
    np.testing.assert_allclose(got[:, mask], plain(image, overlap)[:, mask], atol=1e-6)


@pytest.mark.parametrize("overlap", [0, 0.3, 0.5, 0.7, 0.75, 0.95])
@pytest.mark.parametrize("shape", [(97, 300, 96), (320, 199, 411)])
def test_windows_lie_where_monai_puts_them(shape, overlap):
    size = (96, 96, 96)
    step = _get_scan_interval(shape, size, 3, (overlap,) * 3)
    expected = [[part.start for part in s] for s in dense_patch_slices(shape, size, step)]
    assert plan_windows(shape, size, overlap).starts.tolist() == expected


@pytest.mark.parametrize("size", [(96, 96, 96), (16, 12, 17)])
def test_weights_are_those_of_monai(size):
    expected = compute_importance_map(size, "gaussian", 0.125)
    torch.testing.assert_close(gaussian_weights(size), expected)


def test_two_distant_organs_leave_out_what_lies_between():
    shape = (200, 20, 20)
    mask = np.zeros(shape, bool)
    mask[3, 4, 5] = mask[190, 10, 10] = True
    image = image_of(shape)
    plan = plan_windows(shape, SIZE, 0.5, mask)
    got = ours(image, plan)
    np.testing.assert_allclose(got[:, mask], plain(image, 0.5)[:, mask], atol=1e-6)
    assert np.isnan(got[:, 60:120]).all()
    assert len(plan) <= 2 * 2**3


def test_cancel_is_asked_for_each_batch():
    shape = (40, 24, 16)
    plan = plan_windows(shape, SIZE, 0.5)
    told = []

    def cancel(done, total):
        told.append((done, total))
        if done == 5:
            raise Cancelled

    with pytest.raises(Cancelled):
        ours(image_of(shape), plan, callback=cancel)
    assert told == [(n, len(plan)) for n in range(6)]


def test_the_sums_do_not_grow_with_the_volume(monkeypatch):
    made = []
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *a, **k: made.append(a) or zeros(*a, **k))
    for length in (64, 640):
        made.clear()
        ours(image_of((length, 12, 16)), plan_windows((length, 12, 16), SIZE, 0.5))
        sizes = [np.prod(shape) for (shape,) in made]
        assert sum(sizes) == (3 + 1) * np.prod(SIZE)


def test_wrong_wishes_are_refused():
    with pytest.raises(ValueError, match="overlap"):
        plan_windows((20, 20, 20), SIZE, 1.0)
    with pytest.raises(ValueError, match="no voxel is wanted"):
        plan_windows((20, 20, 20), SIZE, 0.5, np.zeros((20, 20, 20), bool))
    with pytest.raises(ValueError, match="shape"):
        plan_windows((20, 20, 20), SIZE, 0.5, np.ones((20, 20, 21), bool))
    plan = plan_windows((20, 20, 20), SIZE, 0.5)
    with pytest.raises(ValueError, match="the windows look at"):
        next(predict_windows(image_of((20, 20, 19)), plan, network, CPU))
