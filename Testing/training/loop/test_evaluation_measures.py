"""The measures of `make evaluate`, on images whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from Testing.evaluate.lesion_texture import masked_blur, measure_texture
from Testing.evaluate.reconstruction import smoothed_psnr_db

SHAPE = (60, 60, 60)


@pytest.fixture
def ball() -> np.ndarray:
    return np.sum((np.indices(SHAPE) - 30.0) ** 2, axis=0) < 8**2


def test_psnr_of_a_constant_difference():
    truth = np.zeros((1, 20, 20, 20), np.float32)
    # 20 log10(425 / 4.25) = 40 dB; a Gaussian leaves a constant alone
    assert smoothed_psnr_db(truth, truth + 4.25) == pytest.approx(40)


def test_psnr_forgives_noise_that_smoothing_removes():
    rng = np.random.default_rng(0)
    truth = np.zeros((1, 40, 40, 40), np.float32)
    noisy = truth + rng.normal(0, 10, truth.shape).astype(np.float32)
    plain = 20 * np.log10(425 / 10)
    # A Gaussian of 1 mm keeps 1 / (2 sqrt(pi))^3 of the variance of white noise: 16.5 dB less
    assert smoothed_psnr_db(truth, noisy) == pytest.approx(plain + 16.5, abs=0.6)


def test_contrast_and_spread_of_a_lesion_like_its_surroundings(ball):
    image = 100 + np.random.default_rng(1).normal(0, 10, SHAPE)
    image[ball] -= 30
    texture = measure_texture(image, ball, np.ones(SHAPE, bool), ball)
    assert texture.contrast_hu == pytest.approx(-30, abs=1.5)
    assert texture.sd_hu == pytest.approx(10, abs=0.8)
    assert texture.band_ratios[0] == pytest.approx(1, abs=0.1)
    assert texture.band_ratios[1] == pytest.approx(1, abs=0.15)


def test_a_smoothed_lesion_lacks_the_fine_band(ball):
    from scipy import ndimage

    image = np.random.default_rng(2).normal(0, 10, SHAPE)
    image[ball] = ndimage.gaussian_filter(image, 1)[ball]
    texture = measure_texture(image, ball, np.ones(SHAPE, bool), ball)
    assert texture.band_ratios[0] < 0.4


def test_other_tumors_are_no_surroundings_and_tiny_lesions_no_answer(ball):
    image = np.random.default_rng(3).normal(0, 0.1, SHAPE)
    image[ball] -= 30
    other = np.zeros(SHAPE, bool)
    other[30, 30, 40:48] = True
    other[:, :, 45:] = True
    image[other] = -500
    texture = measure_texture(image, ball, np.ones(SHAPE, bool), ball | other)
    assert texture.contrast_hu == pytest.approx(-30, abs=0.1)
    speck = np.zeros(SHAPE, bool)
    speck[30, 30, 30] = True
    assert measure_texture(image, speck, np.ones(SHAPE, bool), speck) is None


def test_masked_blur_does_not_see_outside_the_mask(ball):
    image = np.where(ball, 7.0, 1e6)
    assert masked_blur(image, ball, 2.0)[ball] == pytest.approx(7.0)
