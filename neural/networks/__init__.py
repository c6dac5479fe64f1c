"""Networks F(x, c_noise), by configuration. Any `nn.Module` with these arguments can be used in their place."""

from ..adapters import from_diffusers
from .dit import DiT
from .kinds import build, count
from .mlp import MLP
from .unet import UNet

__all__ = ["MLP", "DiT", "UNet", "build", "count", "from_diffusers"]
