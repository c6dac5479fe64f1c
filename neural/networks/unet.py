"""diffusers' `UNet2DModel` behind the interface F(x, c_noise), for images of any size.

Its defaults want 3 channels, sides divisible by 8 and channels divisible by 32; here blocks, attention and group sizes
follow from the event, images are padded to a multiple of the coarsest block and cropped again. Its time embedding is
made for steps 0 … 999 and is given 100 c_noise = 25 ln σ, as a float.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from optimal.packages import required

from .labels import rows_of

__all__ = ["UNet"]

_TIME = 100.0


class UNet(nn.Module):
    """F(x, c_noise) for images (C, H, W), the last layer 0 at the start.

    Args:
        event: (C, H, W).
        channels: of each resolution, finest first; each further one halves the sides. Multiples of 4.
        layers: residual blocks of each resolution.
        attention: sides, in pixels, at which blocks have self-attention, 8 values a head.
        classes: labels that it can be given; 0: it takes none.

    Raises:
        ValueError: an event that is no image, or channels that are no multiples of 4.
    """

    def __init__(
        self,
        event: tuple[int, ...],
        channels: tuple[int, ...] = (32, 64),
        layers: int = 2,
        attention: tuple[int, ...] = (),
        classes: int = 0,
    ):
        super().__init__()
        if len(event) != 3:
            raise ValueError(f"a UNet works on images, events of shape (C, H, W), got {event}")
        if not channels or any(c % 4 or c < 4 for c in channels):
            raise ValueError(f"the channels of a UNet must be multiples of 4, got {channels}")
        required("a UNet", "diffusers")
        # Heavy to import, and needed by nobody who has points.
        from diffusers.models.unets.unet_2d import UNet2DModel

        stride = 2 ** (len(channels) - 1)
        height, width = (-(-side // stride) * stride for side in event[1:])
        self.event, self.classes = tuple(event), classes
        self.padding = (width - event[2], height - event[1])
        sides = [max(height, width) // 2**i for i in range(len(channels))]
        attends = [side in attention for side in sides]
        groups = math.gcd(32, *(c // 4 for c in channels)) if min(channels) >= 16 else math.gcd(*channels) // 2
        self.net = UNet2DModel(
            sample_size=(height, width),
            in_channels=event[0],
            out_channels=event[0],
            down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends),
            up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
            block_out_channels=tuple(channels),
            layers_per_block=layers,
            norm_num_groups=groups,
            attention_head_dim=8 if all(c % 8 == 0 for c in channels) else 4,
            add_attention=any(attends),
            num_class_embeds=classes + 1 if classes else None,
        )
        nn.init.zeros_(self.net.conv_out.weight)
        assert self.net.conv_out.bias is not None
        nn.init.zeros_(self.net.conv_out.bias)

    def forward(self, x: Tensor, c_noise: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """(B, C, H, W), like x; c_noise (B,); class_labels (B,) int64, −1 for none."""
        if x.shape[1:] != self.event:
            raise ValueError(f"this network is for images of shape {self.event}, got {tuple(x.shape[1:])}")
        right, bottom = self.padding
        padded = nn.functional.pad(x, (right // 2, right - right // 2, bottom // 2, bottom - bottom // 2))
        labels = rows_of(class_labels, self.classes, x) if self.classes else None
        out = self.net(padded, _TIME * c_noise, class_labels=labels).sample
        return out[
            ..., bottom // 2 : out.shape[-2] - (bottom - bottom // 2), right // 2 : out.shape[-1] - (right - right // 2)
        ]
