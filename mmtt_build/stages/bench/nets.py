"""Benchmark of the networks, at full size with random weights."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable
from typing import Any

from mmtt_build.stages.bench.swap import swap
from mmtt_build.stages.bench.timing import Say, heading, line, medians

ROUNDS = 2
SEEDS = (0, 1, 2, 3)

FACE = (
    (4, (256, 240, 190, 220)), (8, (256, 460, 90, 120)), (7, (126, 290, 20, 45), (386, 290, 20, 45)),
    (11, (122, 345, 8, 14), (390, 345, 8, 14)), (6, (256, 280, 130, 170)), (5, (256, 290, 30, 55)),
    (2, (196, 220, 36, 9), (316, 220, 36, 9)), (10, (200, 250, 45, 30), (312, 250, 45, 30)),
    (3, (200, 250, 24, 11), (312, 250, 24, 11)), (1, (256, 375, 45, 20)), (9, (256, 375, 30, 8)),
)  # fmt: skip
"""Regions of E4S as ellipses at 512 pixels: centre x, y, half width, half height. Later ones lie over earlier ones."""

Work = tuple[Callable[[], object], Callable[[], object], Callable[[], object], Callable[[], object]]
"""One image by ours and by the plain form; four images at once, and one after another."""


def nets(say: Say) -> None:
    """StyleGAN2, Net3 and MAT on the CPU, beside the plain form of their operators (takes minutes; needs [models])."""
    spawn = multiprocessing.get_context("spawn")
    heading(say, "networks")
    for name, of in (
        ("StyleGAN2, 1024 px", _stylegan2), ("Net3, 1024 px, 12 regions", _net3), ("MAT, 512 px, a hole of 20 %", _mat)
    ):  # fmt: skip
        queue = spawn.SimpleQueue()
        process = spawn.Process(target=_time, args=(of, queue))  # its own, so that the peak is of one network
        process.start()
        single, batch, megabytes, threads = queue.get()
        process.join()
        line(say, name, single, "plain operators")
        line(say, f"  4 images, {megabytes:,.0f} MB at the peak", batch, f"one at a time; {threads} threads")
    swap(say)


def _time(of: Callable[[], Work], queue: Any) -> None:
    import torch

    with torch.inference_mode():
        ours, plain, together, alone = of()
        ours()
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        single, batch = medians(ours, plain, ROUNDS), medians(together, alone, ROUNDS)
    queue.put((single, batch, megabytes, torch.get_num_threads()))


def _stylegan2() -> Work:
    import torch

    from generators.nn import plain, stylegan2

    torch.manual_seed(0)
    network = stylegan2.build().eval()
    latents = torch.randn(4, network.n_latent, 512)
    styles = network.styles(latents)
    each = [[style[i : i + 1] for style in styles] for i in SEEDS]
    return (
        lambda: network.synthesize(each[0]),
        lambda: plain.synthesize(network, each[0]),
        lambda: network.synthesize(styles),
        lambda: [network.synthesize(one) for one in each],
    )


def _net3() -> Work:
    import torch

    from generators.nn import net3, plain

    torch.manual_seed(0)
    network = net3.build().eval()
    images = torch.rand(4, 3, 1024, 1024) * 2 - 1
    labels = torch.zeros(1, 512, 512, dtype=torch.uint8)
    y, x = torch.meshgrid(torch.arange(512), torch.arange(512), indexing="ij")
    for region, *ellipses in FACE:
        for left, top, width, height in ellipses:
            labels[0, ((x - left) / width) ** 2 + ((y - top) / height) ** 2 < 1] = region
    many = labels.expand(4, -1, -1)

    def ours(image: torch.Tensor, its: torch.Tensor) -> torch.Tensor:
        return network.generate(network.style_codes(network.style_vectors(image, its)), its)

    def plainly(image: torch.Tensor) -> torch.Tensor:
        styles = network.styles(network.style_codes(network.style_vectors(image, labels)))
        return plain.synthesize(network.G, styles, labels)

    return (
        lambda: ours(images[:1], labels),
        lambda: plainly(images[:1]),
        lambda: ours(images, many),
        lambda: [ours(images[i : i + 1], labels) for i in SEEDS],
    )


def _mat() -> Work:
    import torch

    from generators.mat import net
    from generators.mat.net import plain

    torch.manual_seed(0)
    network = net.build().eval()
    images = torch.rand(4, 3, 512, 512) * 2 - 1
    y, x = torch.meshgrid(torch.arange(512), torch.arange(512), indexing="ij")
    hole = ((x - 256) / 120) ** 2 + ((y - 280) / 140) ** 2 < 1
    keep = (~hole).float().expand(4, 1, 512, 512).contiguous()
    drawn = network.draw([torch.Generator().manual_seed(seed) for seed in SEEDS], 512, 512)
    each = [
        (images[i : i + 1], keep[i : i + 1], {name: value[i : i + 1] for name, value in drawn.items()}) for i in SEEDS
    ]
    image, mask, own = each[0]
    return (
        lambda: network(image, mask, **own),
        lambda: plain.fill(network, image, mask, **own),
        lambda: network(images, keep, **drawn),
        lambda: [network(one, its, **random) for one, its, random in each],
    )
