"""The synthesis networks give the numbers of the published code (filled weights, see weight_filler).

Small cases lie in Testing/parity; the others are read from ../shared and skipped without it.
Tolerances are those of the fixtures' README: max |difference| / standard deviation.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from difftumor.diffusion.sampling import (
    ddim_step,
    ddim_timesteps,
    denormalize_latent,
    normalize_latent,
    sample_ddpm,
)
from difftumor.diffusion.schedules import Schedule, cosine_betas
from difftumor.networks import fast_vqgan
from difftumor.networks.fast_unet import FastDenoiser, denoiser
from difftumor.networks.latent_unet import LatentUNet
from difftumor.networks.vqgan import VQGAN
from Testing.weight_filler import fill, normal

SMALL = Path(__file__).parents[2] / "parity" / "difftumor"
TOLERANCE = 1e-4
CHAIN_TOLERANCE = 1e-3  # step t = 3 multiplies the error of eps by 263
UNSURE_MARGIN = 1e-4  # of an index: two codes are as near as float32 can tell

Load = Callable[[str], dict[str, Tensor]]


@pytest.fixture(scope="module")
def load(request: pytest.FixtureRequest) -> Load:
    """Arrays of a fixture by file name, from Testing/parity or from ../shared."""

    def load_file(name: str) -> dict[str, Tensor]:
        folder = SMALL
        if not (folder / name).is_file():
            folder = request.getfixturevalue("shared") / "parity" / "difftumor"
        with np.load(folder / name) as arrays:
            return {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}

    return load_file


@pytest.fixture(scope="module")
def vqgan() -> VQGAN:
    return fill(VQGAN()).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def unet() -> LatentUNet:
    return fill(LatentUNet(), "denoise_fn.").eval().requires_grad_(False)


@pytest.fixture(params=["modules", "fast"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both implementations of the networks, without gradients."""
    if request.param == "modules":
        monkeypatch.setattr(fast_vqgan, "usable", lambda x: False)
    with torch.inference_mode():
        yield request.param


def bound(unet: LatentUNet, condition: Tensor, path: str) -> Callable[[Tensor, Tensor], Tensor]:
    if path == "fast":
        function = denoiser(unet, condition)
        assert isinstance(function, FastDenoiser)
        return function
    return lambda x, t: unet(torch.cat([x, condition], dim=1), t)


def deviation(got: Tensor, expected: Tensor) -> float:
    assert got.shape == expected.shape
    expected = expected.double()
    return float((got.double() - expected).abs().max() / expected.std())


def network_order(volume: Tensor) -> Tensor:
    """(B, 1, X, Y, Z) -> (B, 1, Z, X, Y)."""
    return volume.permute(0, 1, 4, 2, 3)


def healthy_and_masked(ct: Tensor, tumor: Tensor) -> dict[str, Tensor]:
    healthy = network_order(2 * ct - 1)
    return {"healthy": healthy, "masked": healthy * (1 - network_order(tumor))}


def full96() -> dict[str, Tensor]:
    """The 96^3 inputs, by the formula of the fixtures' README."""
    n = 96
    i, j, k = np.meshgrid(*(np.arange(n, dtype=np.float64),) * 3, indexing="ij")
    ct = 0.5 + 0.25 * np.sin(2 * np.pi * i / 16) * np.cos(2 * np.pi * j / 12)
    ct += 0.15 * np.cos(2 * np.pi * k / 20) + 0.05 * normal("ct/full96", (n, n, n))
    inside = ((i / n - 0.55) / 0.25) ** 2 + ((j / n - 0.45) / 0.2) ** 2 + ((k / n - 0.5) / 0.3) ** 2
    ct, tumor = (
        torch.from_numpy(array.astype(np.float32))[None, None]
        for array in (ct.clip(0, 1), inside <= 1)
    )
    return {**healthy_and_masked(ct, tumor), "tumor": network_order(tumor)}


def keys(name: str) -> list[tuple[str, list[int], str]]:
    return [tuple(row) for row in json.loads((SMALL / name).read_text())]


def state(module: torch.nn.Module) -> list[tuple[str, list[int], str]]:
    return [
        (key, list(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for key, tensor in module.state_dict().items()
    ]


TRAINING_ONLY = ("image_discriminator.", "video_discriminator.", "perceptual_model.")


def test_vqgan_has_the_published_keys(vqgan):
    published = [row for row in keys("vqgan.keys.json") if not row[0].startswith(TRAINING_ONLY)]
    assert state(vqgan) == published


def test_unet_has_the_published_keys(unet):
    assert state(unet) == keys("unet3d.keys.json")


@pytest.mark.parametrize("name", ["early", "noearly"])
def test_diffusion_files_hold_schedule_unet_and_vqgan(name, unet, vqgan):
    prefixed = {"vqgan." + key: shape for key, shape, _ in state(vqgan)}
    prefixed |= {"denoise_fn." + key: shape for key, shape, _ in state(unet)}
    published = {
        key: shape
        for key, shape, _ in keys(f"diffusion_{name}.keys.json")
        if not key.removeprefix("vqgan.").startswith(TRAINING_ONLY)
    }
    length = published["betas"][0]
    assert length == {"early": 4, "noearly": 200}[name]
    buffers = {field: [length] for field in Schedule.__dataclass_fields__}
    assert published == prefixed | buffers


def test_filled_weights_are_those_of_the_readme(vqgan, unet):
    weights = vqgan.state_dict()
    first = weights["encoder.conv_first.conv.weight"].flatten()[:3]
    assert first.tolist() == pytest.approx([-0.64429265, -0.22093761, -0.12561533], abs=1e-8)
    assert vqgan.code_range() == pytest.approx((-4.9298315, 4.0943751), abs=1e-7)
    numbers = torch.cat([p.detach().double().flatten() for p in vqgan.parameters()])
    numbers = torch.cat([numbers, vqgan.codebook.embeddings.double().flatten()])
    assert len(numbers) == 1_522_153
    assert numbers.sum().item() == pytest.approx(1038.884517, abs=1e-5)
    numbers = torch.cat([p.detach().double().flatten() for p in unet.parameters()])
    assert len(numbers) == 6_018_576
    assert numbers.square().sum().item() == pytest.approx(27913.002250, abs=1e-5)


@pytest.mark.parametrize("length", [4, 200])
def test_schedule_buffers_are_equal_bit_for_bit(length, load):
    published = load(f"schedule_T{length}.npz")
    # from our formula, and from the float32 betas that a published file contains
    for betas in (cosine_betas(length), published["betas"]):
        schedule = Schedule.from_betas(betas)
        for name, expected in published.items():
            assert torch.equal(getattr(schedule, name), expected), name


@pytest.mark.parametrize("case", ["cube32", "aniso"])
@pytest.mark.parametrize("kind", ["healthy", "masked"])
def test_vqgan_encodes_quantizes_and_decodes_as_published(case, kind, load, vqgan, path):
    expected = load(f"vqgan_{case}.npz")
    latent = vqgan.encode(healthy_and_masked(expected["ct"], expected["tumor"])[kind])
    assert deviation(latent, expected[f"{kind}_latent"]) <= TOLERANCE
    indices, codes = vqgan.quantize(latent)
    assert torch.equal(indices, expected[f"{kind}_indices"].long())
    assert deviation(codes, expected[f"{kind}_quantised"]) <= TOLERANCE
    assert deviation(vqgan.decode(latent), expected[f"{kind}_recon"]) <= TOLERANCE


def test_vqgan_in_float64_is_nearer_to_the_float64_reference(load, vqgan):
    expected = load("vqgan_cube32.npz")
    volumes = healthy_and_masked(expected["ct"], expected["tumor"])
    model = fill(VQGAN()).double()
    with torch.inference_mode():
        for kind, volume in volumes.items():
            latent = model.encode(volume.double())
            assert deviation(latent, expected[f"{kind}_latent_f64"]) <= 1e-6
        recon = model.decode(model.encode(volumes["healthy"].double()))
    assert deviation(recon, expected["healthy_recon_f64"]) <= 1e-6


@pytest.mark.parametrize("case", ["cube32", "aniso"])
def test_noising_denoising_and_ancestral_chain_as_published(case, load, vqgan, unet, path):
    volumes, expected = load(f"vqgan_{case}.npz"), load(f"ddpm_{case}.npz")
    schedule = Schedule.from_betas(cosine_betas(4))
    low, high = vqgan.code_range()
    z_0 = normalize_latent(volumes["healthy_latent"], low, high)
    assert deviation(z_0, expected["z0_norm"]) <= TOLERANCE

    for t in range(4):
        x_t = schedule.q_sample(expected["z0_norm"], torch.tensor([t]), expected["q_noise"])
        assert deviation(x_t, expected[f"q_sample_t{t}"]) <= TOLERANCE
    denoise = bound(unet, expected["cond"], path)
    for t in (0, 3):
        eps = denoise(expected[f"q_sample_t{t}"], torch.tensor([t]))
        assert deviation(eps, expected[f"eps_t{t}"]) <= TOLERANCE

    inputs = []

    def recorded(x_t: Tensor, t: Tensor) -> Tensor:
        inputs.append(x_t)
        return denoise(x_t, t)

    noise = expected["noise"]
    sample = sample_ddpm(recorded, noise[0], schedule, noise=list(noise[1:]))
    for got, reference in zip([*inputs[1:], sample], expected["chain"], strict=True):
        assert deviation(got, reference) <= CHAIN_TOLERANCE
    latent = denormalize_latent(sample, low, high)
    assert deviation(latent, expected["denorm"]) <= CHAIN_TOLERANCE
    assert torch.equal(vqgan.quantize(latent)[0], expected["sample_indices"].long())
    assert deviation(vqgan.decode(latent), expected["sample"]) <= TOLERANCE


@pytest.mark.parametrize("case", ["cube32", "aniso"])
def test_ancestral_chain_in_float64(case, load):
    volumes, expected = load(f"vqgan_{case}.npz"), load(f"ddpm_{case}.npz")
    vqgan = fill(VQGAN()).double()
    unet = fill(LatentUNet(), "denoise_fn.").double()
    low, high = vqgan.code_range()
    masked = healthy_and_masked(volumes["ct"].double(), volumes["tumor"])["masked"]
    noise = expected["noise"].double()
    with torch.inference_mode():
        latent = normalize_latent(vqgan.encode(masked), low, high)
        condition = torch.cat([latent, expected["cond"][:, 8:].double()], dim=1)
        sample = sample_ddpm(
            denoiser(unet, condition),
            noise[0],
            Schedule.from_betas(cosine_betas(4)),
            noise=list(noise[1:]),
        )
        assert deviation(sample, expected["chain_f64"][-1]) <= 1e-6
        recon = vqgan.decode(denormalize_latent(sample, low, high))
    assert deviation(recon, expected["sample_f64"]) <= 1e-6


def test_single_ddim_steps_as_published(load, unet, path):
    expected = load("ddim_cube32.npz")
    schedule = Schedule.from_betas(cosine_betas(200))
    timesteps = ddim_timesteps(200, 50)
    assert timesteps == sorted(expected["timesteps"].tolist())
    alpha_bar = schedule.alphas_cumprod[timesteps]
    assert torch.equal(alpha_bar, expected["ddim_alphas"])
    previous = [0, *timesteps[:-1]]
    assert torch.equal(
        schedule.alphas_cumprod[previous].double(), expected["ddim_alphas_prev"].double()
    )

    denoise = bound(unet, expected["cond"], path)
    for row, step in enumerate(expected["kept_steps"].tolist()):
        index = len(timesteps) - 1 - step
        t, t_previous = timesteps[index], previous[index]
        x_t = expected["x_in"][row]
        eps = denoise(x_t, torch.tensor([t]))
        x_0, direction, sigma = ddim_step(x_t, eps, t, t_previous, schedule)
        assert sigma == 0
        assert deviation(x_0, expected["pred_x0"][row]) <= TOLERANCE
        x_previous = schedule.sqrt_alphas_cumprod[t_previous] * x_0 + direction
        assert deviation(x_previous, expected["x_prev"][row]) <= TOLERANCE


@pytest.mark.parametrize("file", ["unet_trace_aniso.npz", "vqgan_trace.npz"])
def test_every_layer_as_published(file, load, vqgan, unet):
    expected = load(file)
    model = unet if file.startswith("unet") else vqgan
    modules = dict(model.named_modules())
    seen: dict[str, Tensor] = {}
    handles = [
        modules[name].register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: out}))
        for name in expected
        if name in modules
    ]
    if model is unet:  # gradients allowed: the hooks sit on the modules, not on the fast path
        inputs = torch.cat([expected["x"], expected["cond"]], dim=1)
        seen["__out__"] = unet(inputs, expected["t"])
    else:
        latent = vqgan.encode(expected["x"])
        seen["__out__"] = vqgan.decode(latent)
    for handle in handles:
        handle.remove()
    inputs_only = {"x", "t", "cond", "time_mlp"}
    assert set(expected) - inputs_only <= set(seen)
    for name, got in seen.items():
        assert deviation(got, expected[name]) <= TOLERANCE, name


def check_indices(got: Tensor, expected: Tensor, margin: Tensor) -> None:
    differs = got != expected.long()
    assert not bool((differs & (margin >= UNSURE_MARGIN)).any())
    assert int(differs.sum()) <= 15


def test_full_size_vqgan_as_published(load, vqgan, path):
    expected, inputs = load("full96_vqgan.npz"), full96()
    for kind in ("healthy", "masked"):
        latent = vqgan.encode(inputs[kind])
        assert deviation(latent, expected[f"{kind}_latent"]) <= TOLERANCE
        check_indices(
            vqgan.quantize(latent)[0], expected[f"{kind}_indices"], expected[f"{kind}_index_margin"]
        )
        if kind == "masked" and path == "modules":
            continue  # half of the time of this file; the healthy volume has shown it
        # The stored indices: one permitted flip would change the volume around it.
        codes = vqgan.codebook.lookup(expected[f"{kind}_indices"].long())
        recon = vqgan.decode(codes, quantize=False)
        assert deviation(recon[..., ::3, ::3, ::3], expected[f"{kind}_recon_s3"]) <= TOLERANCE
        if kind == "healthy":
            assert deviation(recon[0, 0, 48], expected["healthy_recon_z48"]) <= TOLERANCE


def test_full_size_sampling_as_published(load, vqgan, unet, path):
    volumes, expected = load("full96_vqgan.npz"), load("full96_unet.npz")
    schedule = Schedule.from_betas(cosine_betas(4))
    low, high = vqgan.code_range()
    mask = expected["cond_mask"].float()
    assert torch.equal(2 * full96()["tumor"][..., ::4, ::4, ::4] - 1, mask)
    condition = torch.cat([normalize_latent(volumes["masked_latent"], low, high), mask], dim=1)
    denoise = bound(unet, condition, path)

    shape = (1, 8, 24, 24, 24)
    z_0 = normalize_latent(volumes["healthy_latent"], low, high)
    q_noise = torch.from_numpy(normal("full96/qnoise", shape))
    for t in (0, 3):
        x_t = schedule.q_sample(z_0, torch.tensor([t]), q_noise)
        eps = denoise(x_t, torch.tensor([t]))
        assert deviation(eps, expected[f"eps_t{t}"]) <= TOLERANCE

    draws = [torch.from_numpy(normal(f"full96/noise/{k}", shape)) for k in range(5)]
    inputs = []

    def recorded(x_t: Tensor, t: Tensor) -> Tensor:
        inputs.append(x_t)
        return denoise(x_t, t)

    sample = sample_ddpm(recorded, draws[0], schedule, noise=draws[1:])
    for got, reference in zip(
        [*inputs[1:], sample], load("full96_chain.npz")["chain"], strict=True
    ):
        assert deviation(got, reference) <= CHAIN_TOLERANCE

    decoded = load("full96_sample.npz")
    indices = vqgan.quantize(denormalize_latent(sample, low, high))[0]
    assert int((indices != decoded["sample_indices"].long()).sum()) <= 15
    if path == "fast":
        codes = vqgan.codebook.lookup(decoded["sample_indices"].long())
        volume = vqgan.decode(codes, quantize=False)
        assert deviation(volume[..., ::3, ::3, ::3], decoded["sample_s3"]) <= TOLERANCE
        assert deviation(volume[0, 0, 48], decoded["sample_z48"]) <= TOLERANCE
