"""Reproducible weights for parity tests, by the rule of parity/difftumor/README.md: no file involved."""

import zlib

import numpy as np
import torch
from torch import Tensor, nn


def normal(tag: str, shape: tuple[int, ...]) -> np.ndarray:
    """Standard normal float32 array that depends on `tag` only."""
    rng = np.random.Generator(np.random.PCG64(zlib.crc32(tag.encode())))
    return rng.standard_normal(size=shape, dtype=np.float32)


def filled(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Value of the tensor with the canonical key `key`."""
    n = normal(key, shape)
    name = key.rsplit(".", 1)[-1]
    if key.endswith("codebook.embeddings"):
        return n
    if name == "running_mean":
        return np.float32(0.1) * n
    if name == "running_var":
        return 1 + np.float32(0.1) * np.abs(n)
    if name == "gamma" or (name == "weight" and len(shape) == 1):
        return 1 + np.float32(0.1) * n
    if name.endswith("bias") and len(shape) == 1:
        return np.float32(0.1) * n
    return n * np.float32(1 / np.sqrt(np.prod(shape[1:])))


def is_kept(key: str, tensor: Tensor) -> bool:
    """Whether the rule leaves this tensor alone (buffers with a meaning, aliases)."""
    return (
        not tensor.is_floating_point()
        or tensor.ndim == 0
        or key.endswith(".freqs")
        or "scaling_layer" in key
        or key.startswith("skip_layers.")
    )


@torch.no_grad()
def fill(module: nn.Module, prefix: str = "") -> nn.Module:
    """Overwrite all weights of `module` in place.

    Args:
        prefix: of the canonical keys: "denoise_fn." for the U-Net, "" for the VQGAN and segmenters.
    Returns: the module.
    """
    state = module.state_dict()
    for key, tensor in state.items():
        if key.endswith("codebook.N"):
            tensor.fill_(1)
        elif key.endswith("codebook.z_avg"):
            tensor.copy_(torch.from_numpy(filled("codebook.embeddings", tuple(tensor.shape))))
        elif not is_kept(key, tensor):
            tensor.copy_(torch.from_numpy(filled(prefix + key, tuple(tensor.shape))))
    return module
