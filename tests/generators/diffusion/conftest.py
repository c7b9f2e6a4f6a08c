"""Tiny pipelines, built once a run, in a weights folder as a user has it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import tiny

from generators.diffusion.method import CLASSES, Diffusion
from mmtt_build.weights import Weights


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny networks run fastest so, and tests beside each other do not wait for each other's threads."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Weights]:
    """Gives a weights folder that holds at least the named checkpoints."""
    folder, weights = tmp_path_factory.mktemp("tiny"), Weights((tmp_path_factory.mktemp("weights"),))
    added: set[str] = set()

    def get(*names: str) -> Weights:
        for name in set(names) - added:
            weights.add(name, tiny.build(name, folder / name), accept=True)
            added.add(name)
        return weights

    return get


@pytest.fixture(scope="session")
def made(stock: Callable[..., Weights]) -> Callable[..., Diffusion]:
    """Gives a method with options, prepared on the CPU; by default small and short, and loaded once for all tests.

    A test that changes the loaded network asks for one of its own (`own=True`).
    """
    shared: dict[str, Diffusion] = {}

    def make(name: str, own: bool = False, **options: object) -> Diffusion:
        key = repr((name, sorted(options.items())))
        if own or key not in shared:
            kind = CLASSES[name]
            method = kind(kind.Options(**{"steps": 3, "side": 64, **options}))
            params = {"checkpoint": "", "vae": "", "few_step": "", **method.options.resolved()}
            method.prepare("cpu", stock(*method.weights(params)))
            if own:
                return method
            shared[key] = method
        return shared[key]

    return make
