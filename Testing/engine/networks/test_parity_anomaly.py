"""The anomaly networks and loops give the numbers of the published code (filled weights).

Small cases lie in Testing/parity/anomaly; the others are read from ../shared and skipped without it.
Tolerances are those of the fixtures' README: max |difference| / max |reference|.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difftumor.anomaly.maps import difference, otsu_threshold
from difftumor.diffusion.guided import (
    Denoise,
    add_first_noise,
    class_gradient,
    decode,
    encode,
    predict,
)
from difftumor.diffusion.learned_variance import log_variance, variational_bound
from difftumor.diffusion.schedules import Schedule, linear_betas, respace
from difftumor.networks.guided_classifier import GuidedClassifier, GuidedClassifierArguments
from difftumor.networks.guided_unet import GuidedUNet, GuidedUNetArguments
from Testing.weight_filler import fill

SMALL = Path(__file__).parents[2] / "parity" / "anomaly"
TOLERANCE = 1e-5
MAP_TOLERANCE = 1e-3  # of the maximum, which is a hundredth of the image's
LOOSE = 1e-2  # a reconstruction that rounding moves by more has no map to compare

Load = Callable[[str], dict[str, Tensor]]

SMALL_CLASSIFIER = dict(
    image_size=64,
    base_channels=64,
    channel_mult=(1, 2, 3, 4),
    res_blocks=1,
    attention_sizes=(16, 8),
)
UNETS = {
    "unet_brats256": GuidedUNetArguments(256, 4),
    "unet_chexpert256": GuidedUNetArguments(256, 1),
    "unet_ct128": GuidedUNetArguments(128, 1, channel_mult=(1, 1, 2, 3, 4)),
    "unet_small64": GuidedUNetArguments(64, 1, 32, (1, 2, 2), 1, (16,), heads=2),
    "unet_small64_4ch": GuidedUNetArguments(64, 4, 32, (1, 2, 2), 1, (16,), heads=2),
}
CLASSIFIERS = {
    "classifier_brats256": GuidedClassifierArguments(256, 4),
    "classifier_chexpert256": GuidedClassifierArguments(256, 1),
    "classifier_ct128_w64": GuidedClassifierArguments(128, 1, 64, (1, 1, 2, 3, 4)),
    "classifier_small64": GuidedClassifierArguments(in_channels=1, **SMALL_CLASSIFIER),
    "classifier_small64_4ch": GuidedClassifierArguments(in_channels=4, **SMALL_CLASSIFIER),
}


def fixture_path(request: pytest.FixtureRequest, name: str) -> Path:
    path = SMALL / name
    return path if path.is_file() else request.getfixturevalue("shared") / "parity/anomaly" / name


@pytest.fixture(scope="module")
def load(request: pytest.FixtureRequest) -> Load:
    """Arrays of a fixture by file name, from Testing/parity or from ../shared."""

    def load_file(name: str) -> dict[str, Tensor]:
        with np.load(fixture_path(request, name)) as arrays:
            return {key: torch.from_numpy(np.asarray(arrays[key])) for key in arrays.files}

    return load_file


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """The number of threads changes the last digits of sums, and long chains enlarge them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def schedule() -> Schedule:
    return Schedule.from_betas(linear_betas(1000))


def noise(seed: int, shape: tuple[int, ...]) -> Tensor:
    rng = np.random.Generator(np.random.PCG64(seed))
    return torch.from_numpy(rng.standard_normal(size=shape, dtype=np.float32))


def deviation(got: Tensor, expected: Tensor) -> float:
    assert got.shape == expected.shape
    return ((got - expected).abs().max() / expected.abs().max()).item()


def ready(network: nn.Module) -> nn.Module:
    return fill(network).eval().requires_grad_(False)


def networks(name: str) -> tuple[GuidedUNet, GuidedClassifier]:
    unet, classifier = UNETS[f"unet_{name}"], CLASSIFIERS[f"classifier_{name}"]
    return ready(GuidedUNet(unet)), ready(GuidedClassifier(classifier))


def callables(unet: GuidedUNet, classifier: GuidedClassifier):
    """What the samplers take; the label 0 is healthy."""

    def denoise(x: Tensor, t: int) -> Tensor:
        return unet(x, torch.tensor([t]), torch.tensor([0])).chunk(2, dim=1)[0]

    def guide(x: Tensor, t: int) -> Tensor:
        return class_gradient(lambda x: classifier(x, torch.tensor([t])), x, 0)

    return denoise, guide


@pytest.fixture(scope="module")
def small() -> dict[str, tuple[GuidedUNet, GuidedClassifier]]:
    return {name: networks(name) for name in ("small64", "small64_4ch")}


@pytest.mark.parametrize("name", [*UNETS, *CLASSIFIERS])
def test_state_dict_is_that_of_the_published_file(name, request):
    expected = json.loads(fixture_path(request, f"{name}.keys.json").read_text())
    with torch.device("meta"):
        network = GuidedUNet(UNETS[name]) if name in UNETS else GuidedClassifier(CLASSIFIERS[name])
    got = [
        [key, list(tensor.shape), str(tensor.dtype).removeprefix("torch.")]
        for key, tensor in network.state_dict().items()
    ]
    assert got == expected


@pytest.mark.parametrize("t", [100, 500])
@pytest.mark.parametrize("name", ["small64", "small64_4ch"])
def test_one_evaluation_of_the_networks(name, t, load, small, schedule):
    unet, classifier = small[name]
    expected = load(f"{name}_single.npz")
    times = torch.tensor([t])
    x_t = schedule.q_sample(expected["x"], times, noise(1234, expected["x"].shape))
    assert deviation(x_t, expected[f"t{t}_xt"]) < 1e-6
    with torch.no_grad():
        output = unet(x_t, times, torch.tensor([0]))
    assert deviation(output, expected[f"t{t}_net"]) < TOLERANCE
    variance = log_variance(output.chunk(2, dim=1)[1], times, schedule)
    assert deviation(variance, expected[f"t{t}_log_variance"]) < TOLERANCE
    levels = respace(linear_betas(1000), 1000)
    denoise, guide = callables(unet, classifier)
    x_0, _ = predict(denoise, x_t, t, levels)
    assert deviation(x_0, expected[f"t{t}_pred_xstart"]) < TOLERANCE
    upwards = encode(denoise, x_t, levels, t + 1, start=t)
    assert deviation(upwards, expected[f"t{t}_reverse_next"]) < TOLERANCE
    logits = classifier(x_t, times)
    # Log-odds near 0 are what is left of large sums: float32 rounds the sums, so the bound is one of log-odds. Relative
    # to logits of 0.04 another processor's kernels already differ by 1.5e-5 (Intel Sapphire Rapids).
    assert (logits - expected[f"t{t}_logits"]).abs().max() < TOLERANCE
    assert deviation(logits.log_softmax(-1), expected[f"t{t}_logprob"]) < TOLERANCE
    gradient = guide(x_t, t)
    assert deviation(gradient, expected[f"t{t}_grad"]) < TOLERANCE


@pytest.mark.parametrize("t", [0, 100, 500, 999])
def test_training_losses(t, load, small, schedule):
    unet, classifier = small["small64"]
    expected = load("small64_losses.npz")
    x_0 = load("small64_single.npz")["x"]
    eps, times = noise(1234, x_0.shape), torch.tensor([t])
    x_t = schedule.q_sample(x_0, times, eps)
    output = unet(x_t, times, torch.tensor([0]))
    mse = ((output.chunk(2, dim=1)[0] - eps) ** 2).flatten(1).mean(1)
    bound = variational_bound(output, x_0, x_t, times, schedule)
    assert mse.tolist() == pytest.approx(expected[f"t{t}_mse"].tolist(), rel=1e-5)
    assert bound.tolist() == pytest.approx(expected[f"t{t}_vb"].tolist(), rel=1e-5)
    assert (mse + bound).tolist() == pytest.approx(expected[f"t{t}_loss"].tolist(), rel=1e-5)
    logits = classifier(x_t, times)
    for y in (0, 1):
        entropy = F.cross_entropy(logits, torch.tensor([y]))
        assert entropy.item() == pytest.approx(expected[f"t{t}_ce_y{y}"].item(), rel=1e-5)


# name, steps, level, tolerance of the latent and the first decoding step, of the reconstruction
PIPELINES = [
    ("small64_pipeline_ddim1000_L6", 1000, 6, 1e-4, 1e-4),
    ("small64_4ch_pipeline_ddim1000_L6", 1000, 6, 1e-4, 1e-4),
    ("small64_4ch_pipeline_ddim50_L6", 50, 6, 1e-4, 1e-4),
    ("small64_pipeline_ddim50_L6", 50, 6, 1e-4, 1e-3),
    ("small64_pipeline_ddim50_L12", 50, 12, 1e-3, 1e-1),
]


def recording(denoise: Denoise, seen: list[Tensor]) -> Denoise:
    """The same function; what it is called with is kept."""

    def record(x: Tensor, t: int) -> Tensor:
        seen.append(x)
        return denoise(x, t)

    return record


def check_map(x: Tensor, result: Tensor, expected: dict[str, Tensor], run: str) -> None:
    """The published map of a reconstruction, and what its two thresholds mark."""
    heat = difference("absolute", x.numpy(), result.numpy(), None, np.ones(x.shape[1]))[0]
    otsu = otsu_threshold(heat)
    assert otsu == pytest.approx(expected[f"{run}_otsu"].item(), rel=1e-2)
    scaled = (heat - heat.min()) / (heat.max() - heat.min())
    masks = {"maskotsu": heat > expected[f"{run}_otsu"].item(), "mask35": scaled > 0.35}
    few = heat.size // 200  # pixels next to the threshold may flip
    if f"{run}_map" in expected:
        wanted = expected[f"{run}_map"]
        assert deviation(torch.from_numpy(heat), wanted) < MAP_TOLERANCE
        for name, mask in masks.items():
            assert np.count_nonzero(mask != expected[f"{run}_{name}"].numpy()) <= few, name
    else:
        wanted = expected[f"{run}_map_s2"]
        assert deviation(torch.from_numpy(heat[::2, ::2]), wanted) < MAP_TOLERANCE
        assert heat.mean() == pytest.approx(expected[f"{run}_map_mean"].item(), rel=1e-4)
        for name, mask in masks.items():
            share = expected[f"{run}_{name}_area"].item()
            assert abs(mask.sum() - share * mask.size) <= few, name


@pytest.mark.parametrize("pipeline", PIPELINES, ids=lambda pipeline: pipeline[0])
def test_encoding_and_guided_decoding_as_published(pipeline, load, small):
    name, steps, level, of_latent, of_result = pipeline
    expected = load(f"{name}.npz")
    denoise, guide = callables(*small[name.partition("_pipeline")[0]])
    levels = respace(linear_betas(1000), steps)
    x = expected["x"]
    start = add_first_noise(x, noise(4321, x.shape), levels)
    assert deviation(start, expected["x0_noised"]) < 1e-6
    latent = encode(denoise, start, levels, level, start=1)
    assert deviation(latent, expected["latent"]) < of_latent
    runs = [key.removesuffix("_rec") for key in expected if key.endswith("_rec")]
    for run in runs:
        scale = float(run.removeprefix("nonoise_").removesuffix("_mapped").removeprefix("S"))
        # "_mapped": the classifier is told the original timestep, as it should be.
        options = {"guide_timesteps": levels.timesteps} if run.endswith("_mapped") else {}
        begin = latent
        if run.startswith("nonoise"):
            begin = encode(denoise, x, levels, level, start=1)
            assert deviation(begin, expected["nonoise_latent"]) < of_latent
        seen: list[Tensor] = []
        result = decode(
            recording(denoise, seen), guide, begin, levels, level, scale,
            reference_compat=True, **options,
        )  # fmt: skip
        assert deviation(result, expected[f"{run}_rec"]) < of_result, run
        if f"{run}_map" in expected and of_result < LOOSE:
            check_map(x, result, expected, run)
        if not run.startswith("nonoise"):
            assert deviation(seen[1], expected[f"{run}_first_decode"]) < of_latent


# The full-size networks.  What is dear beside what it adds is left to `make soak`.
DEAR = pytest.mark.soak


@pytest.fixture(scope="module")
def all_threads(one_thread: None) -> Iterator[None]:
    """The tolerances of short chains do not need one thread."""
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def brats(all_threads: None) -> tuple[GuidedUNet, GuidedClassifier]:
    return networks("brats256")


@pytest.fixture(scope="module")
def slice_247(shared: Path) -> Tensor:
    """The slice of Wolleb's repository that the fixtures were made of, (1, 4, 256, 256)."""
    folder = shared / "data/mr_brats2020_wolleb/testing/000247"
    files = {path.name.split("_")[3]: path for path in folder.glob("*.nii.gz")}
    planes = [nib.load(files[name]).get_fdata().squeeze() for name in ("t1", "t1ce", "t2", "flair")]
    return F.pad(torch.from_numpy(np.stack(planes)).float()[None], (8, 8, 8, 8))


def check_evaluation(
    pair: tuple[GuidedUNet, GuidedClassifier],
    x: Tensor,
    t: int,
    expected: dict[str, Tensor],
    stride: int,
    schedule: Schedule,
) -> None:
    """Compare one evaluation with a fixture that holds every n-th pixel."""
    unet, classifier = pair
    times = torch.tensor([t])
    x_t = schedule.q_sample(x, times, noise(1234, x.shape))
    with torch.no_grad():
        output = unet(x_t, times, torch.tensor([0]))
    mean, v = output.chunk(2, dim=1)
    # The network was run: what follows from its output need not run it again.
    levels = respace(linear_betas(1000), 1000)
    x_0, _ = predict(lambda *_: mean, x_t, t, levels)
    upwards = encode(lambda *_: mean, x_t, levels, t + 1, start=t)
    gradient = class_gradient(lambda x: classifier(x, times), x_t, 0)
    logits = classifier(x_t, times)
    planes = {
        "xt": x_t,
        "net": output,
        "pred_xstart": x_0,
        "log_variance": log_variance(v, times, schedule),
        "reverse_next": upwards,
        "grad": gradient,
    }
    for name, got in planes.items():
        wanted = expected[f"t{t}_{name}"]
        assert deviation(got[..., ::stride, ::stride], wanted) < TOLERANCE, name
    # Log-odds near 0 are what is left of large sums: float32 rounds the sums, so the bound is one of log-odds. Relative
    # to logits of 0.04 another processor's kernels already differ by 1.5e-5 (Intel Sapphire Rapids).
    assert (logits - expected[f"t{t}_logits"]).abs().max() < TOLERANCE
    assert deviation(logits.log_softmax(-1), expected[f"t{t}_logprob"]) < TOLERANCE
    flat, flat_gradient = output[0].flatten(1), gradient[0].flatten(1)
    assert deviation(flat.mean(1), expected[f"t{t}_net_chan_mean"]) < TOLERANCE
    assert deviation(flat.std(1), expected[f"t{t}_net_chan_std"]) < TOLERANCE
    assert deviation(flat_gradient.std(1), expected[f"t{t}_grad_chan_std"]) < TOLERANCE
    assert gradient.abs().max() == pytest.approx(expected[f"t{t}_grad_absmax"].item(), rel=1e-5)


@pytest.mark.parametrize("t", [pytest.param(100, marks=DEAR), 500])
def test_one_evaluation_of_the_full_size_ct_networks(t, load, schedule, all_threads):
    expected = load("ct128_single_stride2.npz")
    unet, classifier = UNETS["unet_ct128"], CLASSIFIERS["classifier_ct128_w64"]
    pair = ready(GuidedUNet(unet)), ready(GuidedClassifier(classifier))
    check_evaluation(pair, expected["x"], t, expected, 2, schedule)


@pytest.mark.parametrize("t", [pytest.param(100, marks=DEAR), 500])
def test_one_evaluation_of_the_full_size_brats_networks(t, load, schedule, brats, slice_247):
    expected = load("brats256_single_stride4.npz")
    assert deviation(slice_247[0, :, ::4, ::4], expected["x_s4"]) < 1e-6
    assert slice_247.sum().item() == pytest.approx(expected["x_sum"].item(), rel=1e-5)
    check_evaluation(brats, slice_247, t, expected, 4, schedule)


@pytest.mark.parametrize("scale", [100, pytest.param(1000, marks=DEAR)])
def test_pipeline_of_the_full_size_brats_networks(scale, load, brats, slice_247):
    expected = load("brats256_pipeline_ddim50_L3_mapped.npz")
    denoise, guide = callables(*brats)
    levels = respace(linear_betas(1000), 50)
    start = add_first_noise(slice_247, noise(4321, slice_247.shape), levels)
    latent = encode(denoise, start, levels, 3, start=1)
    assert deviation(latent[..., ::4, ::4], expected["latent_s4"]) < 1e-4
    result = decode(
        denoise, guide, latent, levels, 3, scale,
        reference_compat=True, guide_timesteps=levels.timesteps,
    )  # fmt: skip
    assert deviation(result[..., ::4, ::4], expected[f"S{scale}_rec_s4"]) < 1e-4
    check_map(slice_247, result, expected, f"S{scale}")
