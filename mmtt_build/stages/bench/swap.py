"""Benchmark of a whole E4S swap, at full size with random weights: where its time goes, and its peak of memory."""

from __future__ import annotations

import multiprocessing
import resource
import time
from collections.abc import Callable
from typing import Any

from mmtt_build.stages.bench.timing import Say

TARGET, DONOR = 5, 7
"""Drawn portraits."""


def swap(say: Say) -> None:
    """One swap with reenactment on the CPU, step by step."""
    spawn = multiprocessing.get_context("spawn")
    queue = spawn.SimpleQueue()
    process = spawn.Process(target=_time, args=(queue,))  # its own, so that the peak is of one swap
    process.start()
    seconds, megabytes, threads = queue.get()
    process.join()
    say(
        f"E4S, one whole swap: {sum(seconds.values()):.1f} s, {megabytes:,.0f} MB at the peak with all seven networks "
        f"loaded, {threads} threads"
    )
    for step, spent in seconds.items():
        say(f"  {step:<34} {spent:>9.2f} s")


def _time(queue: Any) -> None:
    import numpy as np
    import torch

    from generators.e4s import composite, crop, neural, regions
    from generators.faces import enhancer, parser
    from generators.nn import facevid2vid, gpen, net3, rrdb
    from mmtt_build import parts
    from mmtt_build.portraits import draw

    torch.manual_seed(0)
    cpu = torch.device("cpu")

    class Enhancer(enhancer.Enhancer):
        """Untrained, and finds the face where an aligned portrait has it."""

        def __init__(self) -> None:
            self.device, self.precision = cpu, "fp32"
            builders = (rrdb.build, enhancer.retinaface, gpen.build, enhancer.parsenet)
            self.networks = enhancer.Networks(*(build().eval() for build in builders))

        def _find(self, photos: Any) -> Any:
            super()._find(photos)
            points = 1024 * np.array([(0.383, 0.472), (0.617, 0.472), (0.5, 0.61), (0.4, 0.72), (0.6, 0.72)])
            box = np.array([250, 300, 770, 900], np.float32)
            return [[enhancer.Face(box, points.astype(np.float32))] for _ in photos]

    class Parser(parser.Parser):
        """Untrained."""

        def __init__(self) -> None:
            self.device, self.half, self.network = cpu, False, parser.build().eval()

    class Engine(neural.Engine):
        """Untrained."""

        def __init__(self) -> None:
            self.device, self.precision, self._net3 = cpu, "fp32", net3.build().eval()
            self._reenactment, self._enhancer, self._parser = facevid2vid.build().eval(), Enhancer(), Parser()

    engine, faces = Engine(), [draw(seed, 512) for seed in (TARGET, DONOR)]
    target, donor = (crop.cut_out(face.image, None) for face in faces)
    maps = [regions.twelve(face.labels, parts.CLASSES) for face in faces]
    shape, _ = regions.swap_masks(maps[1], maps[0])
    seconds: dict[str, float] = {}

    def timed(step: str, work: Callable[[], Any]) -> Any:
        start = time.perf_counter()
        made = work()
        seconds[step] = time.perf_counter() - start
        return made

    def blend(generated: Any) -> Any:
        return crop.put_back(faces[0].image, generated, composite.alpha(shape), None)

    timed("reenact and enhance", lambda: engine.reenact([donor], [target]))
    timed("find the parts of the donor", lambda: engine.parse([donor]))
    (made,) = timed("generate", lambda: engine.generate([(donor, maps[1])], [(target, maps[0])], [shape], [0]))
    timed("blend and put back", lambda: blend(made))
    queue.put((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, torch.get_num_threads()))
