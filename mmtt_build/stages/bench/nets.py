"""Benchmark of the networks, at full size with random weights."""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable
from typing import Any

from mmtt_build.stages.bench.timing import Say, heading, line, medians

ROUNDS = 2
SEEDS = (0, 1, 2, 3)

Work = tuple[Callable[[], object], Callable[[], object], Callable[[], object], Callable[[], object]]
"""One image by ours and by the plain form; four images at once, and one after another."""


def nets(say: Say) -> None:
    """StyleGAN2 and MAT on the CPU, beside the plain form of their operators (takes minutes; needs [models])."""
    spawn = multiprocessing.get_context("spawn")
    heading(say, "networks")
    for name, of in (("StyleGAN2, 1024 px", _stylegan2), ("MAT, 512 px, a hole of 20 %", _mat)):
        queue = spawn.SimpleQueue()
        process = spawn.Process(target=_time, args=(of, queue))  # its own, so that the peak is of one network
        process.start()
        single, batch, megabytes, threads = queue.get()
        process.join()
        line(say, name, single, "plain operators")
        line(say, f"  4 images, {megabytes:,.0f} MB at the peak", batch, f"one at a time; {threads} threads")


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
