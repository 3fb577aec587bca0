"""Three-dimensional VQGAN: CT crop <-> latent of 8 channels at a quarter of the resolution.

Chen et al., "Towards Generalizable Tumor Synthesis", CVPR 2024, section 3.1; the encoder and decoder
are those of TATS (Ge et al., ECCV 2022; MIT license).  Only what inference and the reconstruction loss
need is here; discriminators and the perceptual loss belong to the training programs.  Without gradients
on a CPU, `fast_vqgan` does the work of the modules.

Volumes are (B, 1, Z, X, Y) in [-1, 1]; latents are (B, 8, Z/4, X/4, Y/4).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from difftumor.networks import fast_vqgan
from difftumor.networks.vqgan_layers import Callback, Decoder, Encoder, SameConv

BLOCK = 128  # codes whose scores are compared at once


class Codebook(nn.Module):
    """Vectors of the quantizer.  `N` and `z_avg` are the running counts and sums of training."""

    embeddings: Tensor
    N: Tensor
    z_avg: Tensor

    def __init__(self, codes: int, dim: int) -> None:
        super().__init__()
        embeddings = torch.randn(codes, dim)
        self.register_buffer("embeddings", embeddings)
        self.register_buffer("N", torch.ones(codes))
        self.register_buffer("z_avg", embeddings.clone())

    @torch.no_grad()
    def nearest(self, vectors: Tensor) -> Tensor:
        """Index of the nearest code by squared Euclidean distance.

        The nearest code has the largest z.e - |e|^2 / 2: one matrix product of augmented vectors.  The
        whole matrix of a 96^3 crop would take 0.9 GB; in chunks it stays in the cache of a CPU (0.75 ->
        0.35 s), and the maximum of blocks before that of all is vectorized (0.35 -> 0.15 s).

        Args:
            vectors: (n, dim).

        Returns:
            int64 (n,).
        """
        codes = torch.cat([self.embeddings, -0.5 * self.embeddings.square().sum(1, True)], dim=1)
        # Rows of zeros with a bias of -inf fill the last block and are never the nearest.
        padding = -len(codes) % BLOCK
        codes = F.pad(codes, (0, 0, 0, padding))
        codes[len(codes) - padding :, -1] = -torch.inf
        rows = F.pad(vectors.to(codes.dtype), (0, 1), value=1.0)
        chunk = 64 if rows.device.type == "cpu" else 4096
        # One buffer for all chunks (up to 0.15 s); besides, autocast leaves products with `out` alone.
        scores = rows.new_empty(chunk, len(codes))
        indices = []
        for part in rows.split(chunk):
            blocks = torch.mm(part, codes.t(), out=scores[: len(part)]).unflatten(1, (-1, BLOCK))
            block = blocks.amax(2).argmax(1)
            within = blocks[torch.arange(len(part), device=rows.device), block].argmax(1)
            indices.append(block * BLOCK + within)
        return torch.cat(indices)

    def lookup(self, indices: Tensor) -> Tensor:
        """int64 (B, Z, X, Y) -> codes (B, dim, Z, X, Y)."""
        return F.embedding(indices, self.embeddings).movedim(-1, 1)


class VQGAN(nn.Module):
    """Autoencoder with a codebook; the defaults are the published configuration.

    Args:
        hidden: channels after the first convolution; the latent features have 4 times as many.
        embedding_dim: channels of the latent.
        codes: number of vectors in the codebook.
        groups: groups of the group norms; must divide 2 * hidden.
    """

    def __init__(
        self, hidden: int = 16, embedding_dim: int = 8, codes: int = 16384, groups: int = 32
    ) -> None:
        super().__init__()
        self.encoder = Encoder(hidden, groups)
        self.decoder = Decoder(hidden, groups)
        self.pre_vq_conv = SameConv(4 * hidden, embedding_dim, 1)
        self.post_vq_conv = SameConv(embedding_dim, 4 * hidden, 1)
        self.codebook = Codebook(codes, embedding_dim)

    def encode(self, x: Tensor) -> Tensor:
        """Latent of a volume, not quantized: what the diffusion model is trained on.

        Args:
            x: (B, 1, Z, X, Y), values in [-1, 1]; the three sizes are multiples of 4.

        Returns:
            (B, embedding_dim, Z/4, X/4, Y/4).

        Raises:
            ValueError: if the shape is not as above.
        """
        if x.ndim != 5 or x.shape[1] != 1 or any(n % 4 or n == 0 for n in x.shape[2:]):
            raise ValueError(
                "The autoencoder takes (B, 1, Z, X, Y) with Z, X, Y multiples of 4; "
                f"got {tuple(x.shape)}. Pad or crop the volume first."
            )
        if fast_vqgan.usable(x):
            return fast_vqgan.encode(self.encoder, self.pre_vq_conv, x)
        return self.pre_vq_conv(self.encoder(x))

    def quantize(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Replace each latent vector by the nearest code.

        Args:
            z: (B, embedding_dim, Z, X, Y).

        Returns:
            indices int64 (B, Z, X, Y); codes, the shape of z (no gradient flows to z: a training program writes
            z + (codes - z).detach()).
        """
        flat = z.detach().movedim(1, -1)
        indices = self.codebook.nearest(flat.reshape(-1, flat.shape[-1])).view(flat.shape[:-1])
        return indices, self.codebook.lookup(indices)

    def decode(
        self, z: Tensor, *, quantize: bool = True, callback: Callback | None = None
    ) -> Tensor:
        """Volume of a latent.

        Args:
            z: (B, embedding_dim, Z, X, Y).
            quantize: replace z by the nearest codes first (the published pipeline does).
            callback: called as callback(done, total) between the parts of the decoder; may raise
                Cancelled.

        Returns:
            (B, 1, 4Z, 4X, 4Y), nominally in [-1, 1], not clipped.

        Raises:
            Cancelled: from the callback.
        """
        if quantize:
            z = self.quantize(z)[1]
        if fast_vqgan.usable(z):
            return fast_vqgan.decode(self.decoder, self.post_vq_conv, z, callback)
        return self.decoder(self.post_vq_conv(z), callback)

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruction decode(encode(x)), straight-through gradient at the quantizer."""
        z = self.encode(x)
        codes = self.quantize(z)[1]
        return self.decode(z + (codes - z).detach(), quantize=False)

    def code_range(self) -> tuple[float, float]:
        """Smallest and largest number in the codebook: the scale of the normalized latent."""
        low, high = torch.aminmax(self.codebook.embeddings)
        return low.item(), high.item()
