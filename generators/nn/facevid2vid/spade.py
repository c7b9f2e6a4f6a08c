"""The painter of face-vid2vid (SPADE, Park et al., CVPR 2019): from moved features to the picture."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from generators.nn import ops

from .layers import conv_of_enlarged

EPS = 1e-5
SLOPE = 0.2


class SpectralConv2d(nn.Module):
    """Convolution whose stored weight is divided by its largest singular value, as training left it (u and v).

    Args:
        n_in: channels of the input.
        n_out: channels of the output.
        size: of the kernel; padded so that the picture keeps its size.
        bias: whether it has one.
    """

    weight_u: Tensor
    weight_v: Tensor

    def __init__(self, n_in: int, n_out: int, size: int, *, bias: bool = True) -> None:
        super().__init__()
        count = n_in * size * size
        self.weight_orig = nn.Parameter(ops.normal(n_out, n_in, size, size, std=count**-0.5))
        self.bias = nn.Parameter(torch.zeros(n_out)) if bias else None
        self.register_buffer("weight_u", torch.full((n_out,), n_out**-0.5))
        self.register_buffer("weight_v", torch.full((count,), count**-0.5))

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, H, W) -> (B, n_out, H, W)."""
        with torch.autocast(x.device.type, enabled=False):
            weight = self.weight_orig / (self.weight_u @ (self.weight_orig.flatten(1) @ self.weight_v))
        return F.conv2d(x, weight, self.bias, padding=weight.shape[-1] // 2)


class Spade(nn.Module):
    """Scales and shifts normalised features, pixel by pixel, as a map says.

    Args:
        channels: of the features.
        n_map: channels of the map.
        inner: channels between the map and what it says.
    """

    def __init__(self, channels: int, n_map: int, inner: int) -> None:
        super().__init__()
        self.mlp_shared = nn.Sequential(nn.Conv2d(n_map, inner, 3, padding=1))
        self.mlp_gamma = nn.Conv2d(inner, channels, 3, padding=1)
        self.mlp_beta = nn.Conv2d(inner, channels, 3, padding=1)

    def forward(self, normed: Tensor, told: Tensor) -> Tensor:
        """(B, channels, times * H, times * W) as `normed` gives it, (B, n_map, H, W) -> as the first."""
        seen = self._seen(told, normed.shape[-1] // told.shape[-1])
        scale: Tensor = self.mlp_gamma(seen)
        return scale.add_(1).mul_(normed).add_(self.mlp_beta(seen))

    def _seen(self, told: Tensor, times: int) -> Tensor:
        """What `mlp_shared` makes of the map whose pixels are repeated, after a ReLU."""
        conv = cast("nn.Conv2d", self.mlp_shared[0])
        if times == 1:
            return F.relu_(conv(told))
        # Of the answers at a repeated pixel, all but the first and the last are equal.
        made = F.relu_(conv_of_enlarged(told, conv.weight, conv.bias, min(times, 3)))
        if times > 3:
            each = torch.tensor([0, *[1] * (times - 2), 2], device=told.device)
            rows, columns = (
                (3 * torch.arange(n, device=told.device)[:, None] + each).flatten() for n in told.shape[2:]
            )
            # Channels last, where picking takes a twentieth of the time.
            made = made.permute(0, 2, 3, 1)[:, rows[:, None], columns].permute(0, 3, 1, 2)
        return made


def normed(x: Tensor) -> Tensor:
    """(B, C, H, W), each channel of each sample with mean 0 and variance 1; float32 also under autocast."""
    x = x.float()
    even = x - x.mean((2, 3), keepdim=True)  # `var_mean` and `instance_norm` take three times as long on a CPU
    return even.mul_(torch.rsqrt(even.square().mean((2, 3), keepdim=True) + EPS))


class SpadeBlock(nn.Module):
    """Residual unit: (B, n_in, H, W) -> (B, n_out, H, W).

    Args:
        n_in: channels of the input.
        n_out: channels of the output.
        n_map: channels of the map.
        inner: of `Spade`.
    """

    def __init__(self, n_in: int, n_out: int, n_map: int, inner: int) -> None:
        super().__init__()
        middle = min(n_in, n_out)
        self.conv_0, self.norm_0 = SpectralConv2d(n_in, middle, 3), Spade(n_in, n_map, inner)
        self.conv_1, self.norm_1 = SpectralConv2d(middle, n_out, 3), Spade(middle, n_map, inner)
        self.conv_s = SpectralConv2d(n_in, n_out, 1, bias=False) if n_in != n_out else None
        self.norm_s = Spade(n_in, n_map, inner) if n_in != n_out else None

    def forward(self, x: Tensor, told: Tensor) -> Tensor:
        """(B, n_in, times * H, times * W), the map (B, n_map, H, W) -> (B, n_out, times * H, times * W)."""
        even = normed(x)
        y = self.conv_0(F.leaky_relu_(self.norm_0(even, told), SLOPE))
        y = self.conv_1(F.leaky_relu_(self.norm_1(normed(y), told), SLOPE))
        if self.conv_s is not None and self.norm_s is not None:
            x = self.conv_s(self.norm_s(even, told))
        return x + y


class Decoder(nn.Module):
    """Paints: (B, 4 * width, H, W) -> (B, 3, 4H, 4W) RGB in [0, 1].

    Args:
        width: channels of the last features.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        n_map, most, inner = 4 * width, 8 * width, 2 * width
        self.fc = nn.Conv2d(n_map, most, 3, padding=1)
        for index in range(6):
            self.add_module(f"G_middle_{index}", SpadeBlock(most, most, n_map, inner))
        self.up_0 = SpadeBlock(most, 4 * width, n_map, inner)
        self.up_1 = SpadeBlock(4 * width, width, n_map, inner)
        self.conv_img = nn.Conv2d(width, 3, 3, padding=1)

    def forward(self, told: Tensor) -> Tensor:
        """(B, 4 * width, H, W) -> (B, 3, 4H, 4W), float32 also under autocast."""
        told = ops.arranged(told)
        x = self.fc(told)
        for index in range(6):
            x = self.get_submodule(f"G_middle_{index}")(x, told)
        for block in (self.up_0, self.up_1):
            x = block(F.interpolate(x, scale_factor=2, mode="nearest"), told)
        colours: Tensor = self.conv_img(F.leaky_relu(x, SLOPE))
        return colours.float().sigmoid()
