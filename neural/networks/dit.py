"""diffusers' `DiTTransformer2DModel` behind the interface F(x, c_noise), for images of any size.

A transformer on patches, whose blocks are scaled, shifted and gated by the noise level (adaLN-Zero): no convolution, so
that neither nearness nor shift invariance is built in, which theories of what networks do take from the U-Net. Images
are padded to a square of whole patches and cropped again. Its time embedding is made for steps 0 … 999 and is given
100 c_noise = 25 ln σ, as a float, as that of `UNet` is. diffusers leaves the modulations as they come: here they start
at 0, as those of the published network do, so that every block is the identity at first.

References:
    Peebles, Xie 2023, "Scalable Diffusion Models with Transformers".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from optimal.packages import required

from .labels import rows_of

__all__ = ["DiT"]

_TIME = 100.0
_HEAD = 32
"""Values of an attention head."""


class DiT(nn.Module):
    """F(x, c_noise) for images (C, H, W), the last layer 0 at the start.

    Args:
        event: (C, H, W).
        width: values of a token; a multiple of 32, the values of a head.
        depth: number of blocks.
        patch: side of a patch, in pixels.
        classes: labels that it can be given; 0: it takes none.

    Raises:
        ValueError: an event that is no image, or a width that is no multiple of 32.
    """

    def __init__(self, event: tuple[int, ...], width: int = 128, depth: int = 3, patch: int = 2, classes: int = 0):
        super().__init__()
        if len(event) != 3:
            raise ValueError(f"a DiT works on images, events of shape (C, H, W), got {event}")
        if width % _HEAD or width < _HEAD:
            raise ValueError(f"the width of a DiT must be a multiple of {_HEAD}, got {width}")
        if depth < 1:
            raise ValueError(f"a DiT needs depth >= 1, got {depth}")
        required("a DiT", "diffusers")
        # Heavy to import, and needed by nobody who has points.
        from diffusers.models.transformers.dit_transformer_2d import DiTTransformer2DModel

        side = -(-max(event[1:]) // patch) * patch
        self.event, self.classes = tuple(event), classes
        self.padding = (side - event[2], side - event[1])
        self.net = DiTTransformer2DModel(
            num_attention_heads=width // _HEAD,
            attention_head_dim=_HEAD,
            in_channels=event[0],
            num_layers=depth,
            sample_size=side,
            patch_size=patch,
            num_embeds_ada_norm=max(1, classes),
        )
        for block in self.net.transformer_blocks:
            # Its rows are one a class and one for none; which rows have no label is decided where they are drawn.
            block.norm1.emb.class_embedder.dropout_prob = 0.0  # pyright: ignore
            _zero(block.norm1.linear)  # pyright: ignore
        _zero(self.net.proj_out_1)
        _zero(self.net.proj_out_2)

    def forward(self, x: Tensor, c_noise: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """(B, C, H, W), like x; c_noise (B,); class_labels (B,) int64, −1 for none."""
        if x.shape[1:] != self.event:
            raise ValueError(f"this network is for images of shape {self.event}, got {tuple(x.shape[1:])}")
        right, bottom = self.padding
        padded = nn.functional.pad(x, (0, right, 0, bottom))
        none = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        labels = rows_of(class_labels, self.classes, x) if self.classes else none
        out = self.net(padded, timestep=_TIME * c_noise, class_labels=labels).sample
        return out[..., : self.event[1], : self.event[2]]

    def matrices(self) -> list[nn.Parameter]:
        """The weights of attention and of the layers between, which Muon is for."""
        return [
            weight
            for name, weight in self.net.transformer_blocks.named_parameters()
            if weight.ndim == 2 and (".attn1." in name or ".ff." in name)
        ]


def _zero(layer: nn.Linear) -> None:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
