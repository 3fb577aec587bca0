"""How the quantizer's codes follow the latents: moving averages, and new starts for codes nobody uses.

The buffers are those of difftumor.networks.vqgan.Codebook (van den Oord et al. 2017, appendix A.1, with the random
restarts of TATS, Ge et al. 2022).  They are saved with the model, and `N`, `z_avg` are the whole state, so a resumed
run continues exactly (code: a flag that is not saved makes a resumed run start the codebook anew).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from difftumor.networks.vqgan import Codebook

COUNT_EPS = 1e-7
TILING_NOISE = 0.01
Reduce = Callable[[Tensor], Tensor]


def commitment_loss(z: Tensor, codes: Tensor) -> Tensor:
    """Mean squared distance of latents to their codes; the gradient reaches the latents only."""
    return (z - codes.detach()).square().mean()


def perplexity(indices: Tensor, codes: int) -> Tensor:
    """exp(-sum p log(p + 1e-10)): how many codes a batch uses, weighted by how often.

    Args:
        indices: int64, any shape.
        codes: size of the codebook.
    """
    share = torch.bincount(indices.reshape(-1), minlength=codes).float() / indices.numel()
    return torch.exp(-(share * torch.log(share + 1e-10)).sum())


@torch.no_grad()
def initialize(codebook: Codebook, vectors: Tensor, rng: np.random.Generator) -> None:
    """Set the codes to random vectors of the data, each with count 1.

    Args:
        codebook: changed in place.
        vectors: latents (n, dim); fewer than there are codes are repeated with a little noise.
        rng: which vectors.
    """
    codes = _random_vectors(vectors, len(codebook.N), rng)
    codebook.embeddings.copy_(codes)
    codebook.z_avg.copy_(codes)
    codebook.N.fill_(1)


@torch.no_grad()
def update(
    codebook: Codebook,
    z: Tensor,
    indices: Tensor,
    *,
    decay: float = 0.99,
    restart_below: float = 1.0,
    limit: float = 0.0,
    rng: np.random.Generator | None = None,
    reduce: Reduce = lambda tensor: tensor,
    broadcast: Reduce = lambda tensor: tensor,
) -> int:
    """One step of the codes towards the latents that were assigned to them.

    Args:
        codebook: changed in place.
        z: latents (B, dim, Z, X, Y).
        indices: their codes, int64 (B, Z, X, Y).
        decay: share of the old counts and sums that is kept.
        restart_below: codes with a smaller count become random latents of this batch.
        limit: largest absolute value of a code; 0 for none.
        rng: which latents; without it nothing restarts.
        reduce: sum of a tensor over all processes.
        broadcast: the first process's tensor, for all processes.

    Returns:
        number of codes that were restarted.
    """
    vectors = z.detach().float().movedim(1, -1).reshape(-1, z.shape[1])
    flat = indices.reshape(-1)
    counts = torch.bincount(flat, minlength=len(codebook.N)).to(codebook.N)
    sums = torch.zeros_like(codebook.z_avg).index_add_(0, flat, vectors)
    codebook.N.mul_(decay).add_(reduce(counts), alpha=1 - decay)
    codebook.z_avg.mul_(decay).add_(reduce(sums), alpha=1 - decay)
    total = codebook.N.sum()
    weights = (codebook.N + COUNT_EPS) / (total + len(codebook.N) * COUNT_EPS) * total
    codebook.embeddings.copy_(codebook.z_avg / weights[:, None])
    restarted = 0
    if rng is not None:
        unused = restart_below > codebook.N
        restarted = int(unused.sum())
        if restarted:
            fresh = broadcast(_random_vectors(vectors, len(codebook.N), rng))
            codebook.embeddings[unused] = fresh[unused]
            # Differs from the published code, which leaves the sums: there the next update pulls the
            # code back to where nobody used it.
            codebook.z_avg[unused] = fresh[unused] * codebook.N[unused, None]
    if limit:
        codebook.embeddings.clamp_(-limit, limit)
    return restarted


def _random_vectors(vectors: Tensor, count: int, rng: np.random.Generator) -> Tensor:
    """`count` different rows of (n, dim) in random order; too few are tiled, with noise 0.01 / sqrt(dim)."""
    if len(vectors) < count:
        tiles = -(-count // len(vectors))
        noise = rng.standard_normal((tiles * len(vectors), vectors.shape[1]), dtype=np.float32)
        vectors = vectors.repeat(tiles, 1)
        scale = TILING_NOISE / vectors.shape[1] ** 0.5
        vectors = vectors + scale * torch.from_numpy(noise).to(vectors)
    chosen = rng.permutation(len(vectors))[:count]
    return vectors[torch.from_numpy(chosen).to(vectors.device)].float()
