"""Images of examples: images themselves, lines of series, central slices of volumes."""

from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

Renderer = Literal["image", "lines", "slice", "none"]

RENDERER_OF: dict[int, Renderer] = {3: "image", 2: "lines", 4: "slice"}
"""The renderer of data by the number of its axes."""
LINES_HEIGHT, LINES_WIDTH = 64, 128
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf")


def draw_images(x: Tensor, low: float, high: float) -> Tensor:
    """Images (B, C, H, W) as pixels (B, 1 or 3, H, W') uint8; ``low`` is black and ``high`` white.

    One channel is grey and three are RGB. For other numbers, the channels are grey images side by side,
    W' = C W.
    """
    scale = 255.0 / max(high - low, 1e-30)
    pixels = (scale * (x - low)).nan_to_num(0.0).round().clamp(0, 255).to(torch.uint8)
    return pixels if x.shape[1] in (1, 3) else pixels.transpose(1, 2).flatten(2)[:, None]


def draw_slices(x: Tensor, low: float, high: float) -> Tensor:
    """The central slices of volumes (B, C, D, H, W), as :func:`draw_images`."""
    return draw_images(x[:, :, x.shape[2] // 2], low, high)


def draw_lines(x: Tensor, low: float, high: float) -> Tensor:
    """Series (B, C, L) as lines on white, one colour per channel: pixels (B, 3, 64, 128) uint8."""
    height = 1 + (LINES_HEIGHT - 3) * ((high - x.cpu().double()) / max(high - low, 1e-30)).clamp(0, 1)
    across = np.linspace(1, LINES_WIDTH - 2, x.shape[-1]).tolist()
    images = []
    for series in height.nan_to_num(LINES_HEIGHT / 2).tolist():
        image = Image.new("RGB", (LINES_WIDTH, LINES_HEIGHT), "white")
        draw = ImageDraw.Draw(image)
        for channel, values in enumerate(series):
            draw.line(list(zip(across, values, strict=True)), fill=COLOURS[channel % len(COLOURS)])
        images.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
    return torch.stack(images)


DRAW = {"image": draw_images, "slice": draw_slices, "lines": draw_lines}
