"""The kinds of models that this program knows, by the names of their tensors.  No torch here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Shapes = Mapping[str, tuple[int, ...]]

AUTOENCODER_PARTS = ("encoder.", "decoder.", "pre_vq_conv.", "post_vq_conv.")
PUBLISHED_T = {4: "early", 200: "medium and large"}


def needs_autoencoder(key: str) -> bool:
    """Whether encoding and decoding use the tensor; discriminators and counts serve training only."""
    return key.startswith(AUTOENCODER_PARTS) or key == "codebook.embeddings"


def needs_diffusion(key: str) -> bool:
    """Whether synthesis uses the tensor; the other schedule buffers follow from `betas`."""
    return (
        key == "betas"
        or key.startswith("denoise_fn.")
        or (key.startswith("vqgan.") and needs_autoencoder(key.removeprefix("vqgan.")))
    )


def size(shapes: Shapes, key: str, axis: int = 0) -> int:
    """Size of a tensor along an axis; 0 where there is none."""
    shape = shapes.get(key, ())
    return shape[axis] if axis < len(shape) else 0


@dataclass(frozen=True)
class Kind:
    """How a model is recognized, named and cut down to what inference needs.

    Attributes:
        signature: keys that all its state dicts have.
        sentence: what it is, for a person; {T}, {channels} ... are facts.
        use: what it is for.
        facts: shapes -> JSON-ready details.
        absent: beginnings of keys that it must not have.
        keep: key -> whether inference needs the tensor.
    """

    signature: tuple[str, ...]
    sentence: str
    use: str
    facts: Callable[[Shapes], dict[str, Any]] = lambda _: {}
    absent: tuple[str, ...] = ()
    keep: Callable[[str], bool] = lambda _: True

    def describe(self, shapes: Shapes) -> str:
        """The sentence with its facts in it."""
        # An unknown fact is empty; its place in the sentence closes.
        return " ".join(self.sentence.format(**self.facts(shapes)).split())


def _diffusion_facts(shapes: Shapes) -> dict[str, Any]:
    length = size(shapes, "betas")
    # A file may come without its autoencoder; then the model names another one.
    inside = "vqgan.encoder.conv_first.conv.weight" in shapes
    return {"T": length, "tumors": PUBLISHED_T.get(length, ""), "autoencoder_inside": inside}


def _network_facts(first: str, last: str) -> Callable[[Shapes], dict[str, Any]]:
    """Channels of the first and classes of the last layer."""
    return lambda shapes: {"channels": size(shapes, first, 1), "classes": size(shapes, last)}


SEGMENTATION = "segmentation"
SYNTHESIS = "tumor synthesis"
ANOMALY = "anomaly heat maps"
BRAIN = "segmentation learned from few slices"
TRAINING = "the perceptual loss of training"
GUIDED = ("input_blocks.0.0.weight", "time_embed.0.weight")

# The first that fits is taken, so a kind that contains another stands before it.
KINDS: dict[str, Kind] = {
    "difftumor_diffusion": Kind(
        ("denoise_fn.init_conv.weight", "betas"),
        "a DiffTumor diffusion checkpoint for {tumors} tumors (T = {T})",
        SYNTHESIS,
        _diffusion_facts,
        keep=needs_diffusion,
    ),
    "difftumor_autoencoder": Kind(
        ("encoder.conv_first.conv.weight", "codebook.embeddings", "post_vq_conv.conv.weight"),
        "a DiffTumor autoencoder (3-D VQGAN) without a diffusion model",
        "training of diffusion models",
        keep=needs_autoencoder,
    ),
    "segmentation_unet": Kind(
        ("model.0.conv.unit0.conv.weight", "model.2.0.conv.weight"),
        "a segmentation network (U-Net, {classes} classes)",
        SEGMENTATION,
        _network_facts("model.0.conv.unit0.conv.weight", "model.2.1.conv.unit0.conv.bias"),
    ),
    "segmentation_nnunet": Kind(
        ("input_block.conv1.conv.weight", "upsamples.0.transp_conv.conv.weight"),
        "a segmentation network (nnU-Net, {classes} classes)",
        SEGMENTATION,
        _network_facts("input_block.conv1.conv.weight", "output_block.conv.conv.bias"),
        keep=lambda key: not key.startswith("skip_layers."),  # the same tensors again
    ),
    "segmentation_swinunetr": Kind(
        ("swinViT.patch_embed.proj.weight", "out.conv.conv.weight"),
        "a segmentation network (Swin UNETR, {classes} classes)",
        SEGMENTATION,
        _network_facts("swinViT.patch_embed.proj.weight", "out.conv.conv.bias"),
    ),
    "pixel_classifier_ensemble": Kind(
        (
            "member_00.feature_classifier.0.weight",
            "member_00.feature_classifier.2.running_mean",
            "member_00.feature_classifier.6.bias",
        ),
        "a set of pixel classifiers learned from labeled slices ({channels} features, {classes} classes)",
        BRAIN,
        _network_facts(
            "member_00.feature_classifier.0.weight", "member_00.feature_classifier.6.bias"
        ),
    ),
    "brain_pixel_segmenter": Kind(
        (
            "denoise_network.input_blocks.0.0.weight",
            "denoise_network.output_blocks.0.0.in_layers.0.weight",
            "feature_classifier.0.weight",
            "feature_classifier.6.weight",
        ),
        "a brain DDPM with a pixel classifier on its features ({channels} features, {classes} classes)",
        BRAIN,
        _network_facts("feature_classifier.0.weight", "feature_classifier.6.bias"),
    ),
    "brain_pixel_classifier": Kind(
        ("0.weight", "2.running_mean", "3.weight", "5.running_mean", "6.weight"),
        "a pixel classifier on features of the brain DDPM ({channels} features, {classes} classes)",
        BRAIN,
        _network_facts("0.weight", "6.bias"),
    ),
    "guided_diffusion_pair": Kind(
        (
            "unet.input_blocks.0.0.weight",
            "unet.output_blocks.0.0.in_layers.0.weight",
            "classifier.input_blocks.0.0.weight",
            "classifier.out.2.positional_embedding",
        ),
        "a pair of guided-diffusion U-Net and classifier for anomaly maps ({channels} channels)",
        ANOMALY,
        _network_facts("unet.input_blocks.0.0.weight", "classifier.out.2.c_proj.bias"),
    ),
    "guided_diffusion_classifier": Kind(
        (*GUIDED, "out.0.weight"),
        "a guided-diffusion classifier ({channels} channels, {classes} classes)",
        ANOMALY,
        _network_facts("input_blocks.0.0.weight", "out.2.c_proj.bias"),
        absent=("output_blocks.",),
    ),
    "guided_diffusion_unet": Kind(
        (*GUIDED, "output_blocks.0.0.in_layers.0.weight", "out.2.weight", "label_emb.weight"),
        "a guided-diffusion U-Net as of Wolleb et al. ({channels} channels)",
        ANOMALY,
        _network_facts("input_blocks.0.0.weight", "label_emb.weight"),
    ),
    "brain_ddpm": Kind(
        (*GUIDED, "output_blocks.0.0.in_layers.0.weight", "out.2.weight"),
        "a diffusion U-Net without class labels, as the brain DDPM of Alshenoudy et al. "
        "({channels} channels)",
        BRAIN,
        _network_facts("input_blocks.0.0.weight", ""),
    ),
    "brain_denoiser_segmenter": Kind(
        (*GUIDED, "output_blocks.0.0.in_layers.0.weight", "out.1.weight"),
        "a brain tumor segmenter fine-tuned from the DDPM ({classes} classes)",
        BRAIN,
        _network_facts("input_blocks.0.0.weight", "out.1.bias"),
    ),
    "vgg16": Kind(
        ("features.0.weight", "features.24.weight", "features.26.weight", "features.28.weight"),
        "the VGG-16 network (ImageNet features)",
        TRAINING,
    ),
    "lpips_weights": Kind(
        ("lin0.model.1.weight", "lin4.model.1.weight"),
        "the weights of the perceptual distance LPIPS",
        TRAINING,
    ),
}
