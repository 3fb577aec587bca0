"""Schedules and samplers: by hand, against MONAI, and what must hold for any of them."""

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler
from torch import Tensor

from difftumor.diffusion.sampling import (
    ddim_timesteps,
    denormalize_latent,
    normalize_latent,
    predict_x_0,
    sample_ddim,
    sample_ddpm,
)
from difftumor.diffusion.schedules import Schedule, cosine_betas
from difftumor.worker.protocol import Cancelled

SHAPE = (2, 3, 4, 4, 4)


def draws(count: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(SHAPE, generator=generator) for _ in range(count)]


def a_denoiser(x_t: Tensor, t: Tensor) -> Tensor:
    """Some smooth function that depends on image and time."""
    return torch.sin(x_t) * 0.7 + t.view(-1, 1, 1, 1, 1) * 0.01


def knowing(x_0: Tensor, schedule: Schedule):
    """A denoiser that knows the image: it returns exactly the noise in x_t."""

    def denoise(x_t: Tensor, t: Tensor) -> Tensor:
        alpha_bar = schedule.alphas_cumprod[t].view(-1, 1, 1, 1, 1)
        return (x_t - alpha_bar.sqrt() * x_0) / (1 - alpha_bar).sqrt()

    return denoise


@pytest.fixture(params=[4, 200])
def schedule(request: pytest.FixtureRequest) -> Schedule:
    return Schedule.from_betas(cosine_betas(request.param))


def test_cosine_betas_of_four_steps_are_those_of_the_paper_code():
    expected = [0.15299, 0.41696, 0.70786, 0.9999]
    assert cosine_betas(4).tolist() == pytest.approx(expected, abs=5e-6)
    alpha_bar = Schedule.from_betas(cosine_betas(4)).alphas_cumprod
    assert alpha_bar.tolist() == pytest.approx([0.84701, 0.49384, 0.14427, 1.4427e-5], rel=1e-4)


def test_coefficients_of_two_equal_steps_by_hand():
    schedule = Schedule.from_betas(torch.tensor([0.5, 0.5], dtype=torch.float64))
    assert schedule.length == 2
    assert schedule.alphas_cumprod.tolist() == [0.5, 0.25]
    assert schedule.alphas_cumprod_prev.tolist() == [1.0, 0.5]
    # variance = beta (1 - abar_prev) / (1 - abar): 0 at t = 0, 0.5 * 0.5 / 0.75 at t = 1
    assert schedule.posterior_variance.tolist() == pytest.approx([0, 1 / 3])
    assert schedule.posterior_mean_coef1.tolist() == pytest.approx([1, 0.5 * 0.5**0.5 / 0.75])
    assert schedule.posterior_mean_coef2.tolist() == pytest.approx([0, 0.5 * 0.5**0.5 / 0.75])


def test_float32_betas_of_a_cosine_file_give_the_exact_schedule(schedule):
    again = Schedule.from_betas(schedule.betas)
    for name in Schedule.__dataclass_fields__:
        assert torch.equal(getattr(again, name), getattr(schedule, name)), name


def test_other_betas_are_taken_as_they_are():
    betas = torch.linspace(1e-4, 0.02, 10)
    schedule = Schedule.from_betas(betas)
    assert torch.equal(schedule.betas, betas)
    expected = (1 - betas.double()).cumprod(0).float()
    assert torch.allclose(schedule.alphas_cumprod, expected, rtol=1e-6)


@pytest.mark.parametrize(
    "betas", [[], [[0.1]], [0.1, 1.0], [-0.1], [float("nan")]], ids=lambda b: str(b)
)
def test_betas_that_cannot_be_a_schedule_are_refused(betas):
    with pytest.raises(ValueError, match=r"[Bb]eta"):
        Schedule.from_betas(torch.tensor(betas))


def test_a_schedule_needs_a_step():
    with pytest.raises(ValueError, match="at least 1"):
        cosine_betas(0)


@given(length=st.integers(1, 1000))
@settings(max_examples=40, deadline=None)
def test_cosine_schedules_destroy_the_image_step_by_step(length):
    schedule = Schedule.from_betas(cosine_betas(length))
    assert bool((schedule.betas > 0).all())
    assert schedule.betas.max() <= 0.9999
    assert bool((schedule.alphas_cumprod.diff() < 0).all())
    assert bool((schedule.posterior_variance <= schedule.betas * (1 + 1e-6)).all())
    total = schedule.sqrt_alphas_cumprod**2 + schedule.sqrt_one_minus_alphas_cumprod**2
    assert torch.allclose(total, torch.ones(length), atol=1e-6)


def test_noising_mixes_each_item_by_its_own_timestep(schedule):
    x_0, noise = draws(2)
    t = torch.tensor([0, schedule.length - 1])
    mixed = schedule.q_sample(x_0, t, noise)
    for i in range(2):
        alpha_bar = schedule.alphas_cumprod[t[i]]
        by_hand = alpha_bar.sqrt() * x_0[i] + (1 - alpha_bar).sqrt() * noise[i]
        assert torch.allclose(mixed[i], by_hand, atol=1e-6)
    eps, t_last = noise[1:], schedule.length - 1
    back = predict_x_0(mixed[1:], eps, t_last, schedule)
    scale = schedule.sqrt_recip_alphas_cumprod[t_last].item()
    assert torch.allclose(back, x_0[1:], atol=1e-6 * scale)


def test_ancestral_sampling_with_the_true_noise_returns_the_image(schedule):
    x_0 = draws(1)[0].clamp(-1, 1)
    start, *noise = draws(schedule.length + 1, seed=1)
    sample = sample_ddpm(knowing(x_0, schedule), start, schedule, noise=noise)
    assert torch.allclose(sample, x_0, atol=1e-3)


def test_ancestral_samples_never_leave_the_latent_range(schedule):
    start, *noise = draws(schedule.length + 1)
    sample = sample_ddpm(a_denoiser, 10 * start, schedule, noise=noise)
    assert sample.abs().max() <= 1


def test_ddim_with_the_true_noise_keeps_only_the_noise_of_the_first_step(schedule):
    x_0, start = draws(2)
    seen = []
    denoise = knowing(x_0, schedule)

    def recorded(x_t: Tensor, t: Tensor) -> Tensor:
        seen.append(t.tolist())
        return denoise(x_t, t)

    sample = sample_ddim(recorded, start, schedule, 4)
    assert seen == [[t, t] for t in reversed(ddim_timesteps(schedule.length, 4))]
    # eps stays the same along the trajectory, so x_0 can be taken out exactly.
    last = torch.tensor([schedule.length - 1 if schedule.length == 4 else 151] * 2)
    eps = denoise(start, last)
    expected = schedule.q_sample(x_0, torch.zeros(2, dtype=torch.int64), eps)
    assert torch.allclose(sample, expected, atol=1e-3 * float(sample.std()))


def monai_scheduler(kind, schedule: Schedule, **options):
    """One of MONAI's schedulers on our betas."""
    scheduler = kind(num_train_timesteps=schedule.length, **options)
    scheduler.betas, scheduler.alphas = schedule.betas, 1 - schedule.betas
    scheduler.alphas_cumprod = schedule.alphas_cumprod
    scheduler.final_alpha_cumprod = schedule.alphas_cumprod[0]
    return scheduler


@pytest.mark.parametrize("steps", [1, 2, 5, 50, 100, 200])
def test_ddim_equals_monai_where_the_steps_divide_the_schedule(steps):
    schedule = Schedule.from_betas(cosine_betas(200))
    oracle = monai_scheduler(DDIMScheduler, schedule, clip_sample=False, set_alpha_to_one=False)
    # MONAI spaces its timesteps otherwise, but a step goes back by 200 // steps as ours does.
    oracle.set_timesteps(steps)
    x = start = draws(1)[0]
    for t in reversed(ddim_timesteps(200, steps)):
        x = oracle.step(a_denoiser(x, torch.full((2,), t)), t, x)[0]
    sample = sample_ddim(a_denoiser, start, schedule, steps)
    assert torch.allclose(sample, x, rtol=1e-4, atol=1e-4 * float(x.std()))


def test_ancestral_sampling_equals_monai():
    schedule = Schedule.from_betas(cosine_betas(20))
    oracle = monai_scheduler(DDPMScheduler, schedule, clip_sample=True)
    x = start = draws(1)[0]
    generator = torch.Generator().manual_seed(3)
    for t in range(19, -1, -1):
        x = oracle.step(a_denoiser(x, torch.full((2,), t)), t, x, generator=generator)[0]
    generator = torch.Generator().manual_seed(3)
    noise = [torch.randn(SHAPE, generator=generator) for _ in range(19)]
    sample = sample_ddpm(a_denoiser, start, schedule, noise=noise)
    assert torch.allclose(sample, x, atol=1e-4)


def reference_timesteps(length: int, steps: int) -> list[int]:
    """The rule of the published code."""
    stride = length // steps
    return [t + (1 if stride != 1 else 0) for t in range(0, length, stride)]


@given(data=st.data())
def test_timesteps_are_as_many_as_asked_and_the_published_ones_where_those_are(data):
    length = data.draw(st.integers(1, 1000))
    steps = data.draw(st.integers(1, length))
    timesteps = ddim_timesteps(length, steps)
    assert len(timesteps) == steps
    assert timesteps == sorted(set(timesteps))
    assert timesteps[0] in (0, 1)
    assert timesteps[-1] < length
    distances = {b - a for a, b in pairwise(timesteps)}
    assert distances <= {length // steps, math.ceil(length / steps)}
    if length % steps == 0:
        assert timesteps == reference_timesteps(length, steps)


def test_timesteps_of_the_published_setting():
    assert ddim_timesteps(200, 50)[:3] == [1, 5, 9]
    assert ddim_timesteps(200, 50)[-1] == 197
    assert ddim_timesteps(4, 4) == [0, 1, 2, 3]
    assert len(ddim_timesteps(200, 60)) == 60
    assert len(reference_timesteps(200, 60)) == 67  # what the published code does


@pytest.mark.parametrize("steps", [0, -1, 201])
def test_more_steps_than_the_schedule_has_are_refused(steps):
    schedule = Schedule.from_betas(cosine_betas(200))
    with pytest.raises(ValueError, match="between 1 and the 200 steps"):
        sample_ddim(a_denoiser, draws(1)[0], schedule, steps)


def test_a_batch_is_the_same_as_its_items_one_by_one(schedule):
    start, *noise = draws(schedule.length + 1)
    together = sample_ddpm(a_denoiser, start, schedule, noise=noise)
    steps = 4
    together_ddim = sample_ddim(a_denoiser, start, schedule, steps)
    for i in range(2):
        alone = sample_ddpm(
            a_denoiser, start[i : i + 1], schedule, noise=[n[i : i + 1] for n in noise]
        )
        assert torch.equal(alone, together[i : i + 1])
        alone = sample_ddim(a_denoiser, start[i : i + 1], schedule, steps)
        assert torch.equal(alone, together_ddim[i : i + 1])


def test_noise_may_be_a_function_and_inputs_stay_as_they_were(schedule):
    start, *noise = draws(schedule.length + 1)
    before = start.clone()
    listed = sample_ddpm(a_denoiser, start, schedule, noise=noise)
    drawn = sample_ddpm(a_denoiser, start, schedule, noise=lambda i: noise[i])
    assert torch.equal(listed, drawn)
    assert torch.equal(start, before)


def test_too_little_noise_is_refused():
    schedule = Schedule.from_betas(cosine_betas(4))
    with pytest.raises(ValueError, match="needs 3 noise tensors; got 2"):
        sample_ddpm(a_denoiser, draws(1)[0], schedule, noise=draws(2))


def test_eta_adds_noise_and_must_be_given_some(schedule):
    start, *noise = draws(6)
    with pytest.raises(ValueError, match="noise tensor"):
        sample_ddim(a_denoiser, start, schedule, 4, eta=1.0)
    with pytest.raises(ValueError, match="eta"):
        sample_ddim(a_denoiser, start, schedule, 4, eta=1.5, noise=noise)
    plain = sample_ddim(a_denoiser, start, schedule, 4)
    noisy = sample_ddim(a_denoiser, start, schedule, 4, eta=1.0, noise=noise)
    again = sample_ddim(a_denoiser, start, schedule, 4, eta=1.0, noise=lambda i: noise[i])
    assert torch.equal(noisy, again)
    assert not torch.allclose(noisy, plain)


def test_eta_one_with_all_steps_has_the_posterior_variance():
    schedule = Schedule.from_betas(cosine_betas(4))
    start, zero = draws(1)[0], torch.zeros(SHAPE)
    for step, t in enumerate((3, 2, 1)):
        kicks = [zero] * 4
        kicks[step] = torch.ones(SHAPE)

        def denoise(x_t: Tensor, t_now: Tensor, t: int = t) -> Tensor:
            return torch.zeros_like(x_t)  # linear, so that the kick can be followed

        kicked = sample_ddim(denoise, start, schedule, 4, eta=1.0, noise=kicks)
        still = sample_ddim(denoise, start, schedule, 4, eta=1.0, noise=[zero] * 4)
        # With eps = 0 each later step only rescales: x_0 = x / sqrt(abar_{t-1}), sqrt(abar_0) x_0.
        gain = (schedule.alphas_cumprod[0] / schedule.alphas_cumprod[t - 1]).sqrt()
        sigma = ((kicked - still) / gain).flatten()[0].item()
        assert sigma**2 == pytest.approx(schedule.posterior_variance[t].item(), rel=1e-3)


@pytest.mark.parametrize("sampler", ["ddpm", "ddim"])
def test_progress_is_told_after_each_step_and_can_cancel(sampler):
    schedule = Schedule.from_betas(cosine_betas(8))
    start, *noise = draws(9)

    def sample(callback):
        if sampler == "ddpm":
            return sample_ddpm(a_denoiser, start, schedule, noise=noise, callback=callback)
        return sample_ddim(a_denoiser, start, schedule, 8, callback=callback)

    told = []
    sample(lambda done, total: told.append((done, total)))
    assert told == [(i, 8) for i in range(1, 9)]

    def cancel_at_three(done: int, total: int) -> None:
        if done == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        sample(cancel_at_three)


def test_latent_normalisation_maps_the_codebook_to_minus_one_and_one():
    low, high = -4.5, 3.5
    z = torch.tensor([low, high, -0.5, 5.0])
    normal = normalize_latent(z, low, high)
    assert normal.tolist() == [-1.0, 1.0, 0.0, 1.375]
    assert torch.equal(denormalize_latent(normal, low, high), z)


def test_schedules_move_between_precisions():
    schedule = Schedule.from_betas(cosine_betas(4)).to(dtype=torch.float64)
    assert schedule.betas.dtype == torch.float64
    assert schedule.to(dtype=torch.float32).length == 4
