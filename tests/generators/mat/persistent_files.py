"""Writes files as NVIDIA's training code does: networks pickled with the source text of their classes.

The names in such a file lead to modules that are not installed here; while a file is written, and while it is loaded as
its own code would load it, they stand in `sys.modules`.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import sys
from collections.abc import Iterator
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import nn


def _reconstruct_persistent_obj(meta: dict[str, Any]) -> Any:
    """What the official one does first: it runs the source text."""
    exec(meta["module_src"], {})
    return meta


class EasyDict(dict[str, Any]):
    """Plain dict by another name, as in dnnlib."""


@contextlib.contextmanager
def modules() -> Iterator[None]:
    """The foreign modules are there."""
    persistence, util = ModuleType("torch_utils.persistence"), ModuleType("dnnlib.util")
    for module, thing in ((persistence, _reconstruct_persistent_obj), (util, EasyDict)):
        setattr(module, thing.__name__, thing)
        thing.__module__ = module.__name__
    names = ("torch_utils", "dnnlib")
    with mock.patch.dict(sys.modules, {n: ModuleType(n) for n in names} | {m.__name__: m for m in (persistence, util)}):
        yield


class _Pickler(pickle.Pickler):
    source = ""

    def reducer_override(self, thing: Any) -> Any:
        if isinstance(thing, nn.Module) and not type(thing).__module__.startswith("torch.nn"):
            state = dict(vars(thing))
            meta = {"type": "class", "version": 6, "module_src": self.source, "class_name": type(thing).__name__}
            return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta | {"state": state},)
        return NotImplemented


def dump(top: Any, source: str = "raise RuntimeError('the source text was run')", protocol: int = 3) -> bytes:
    """A file of networks; layers that torch itself has are stored its way.

    Args:
        top: what to store.
        source: text that stands for the source of every class.
        protocol: of the pickle; the official files have 3.
    """
    out = io.BytesIO()
    pickler = _Pickler(out, protocol)
    pickler.source = source
    with modules():
        pickler.dump(top)
    return out.getvalue()


def checkpoint(generator: nn.Module, **others: nn.Module) -> dict[str, Any]:
    """The top level of an official file around a generator, with what official ones carry besides the state dict."""
    for module in generator.modules():
        if not type(module).__module__.startswith("torch.nn"):
            vars(module).update(  # past nn.Module.__setattr__, as plain attributes
                {"weight_gain": np.sqrt(np.float64(0.5)), "weight_maskUpdater": torch.ones(1, 1, 3, 3)}
            )
    kwargs = {"synthesis_kwargs": EasyDict(channel_base=32768), "act_layer": nn.GELU, "norm_layer": nn.LayerNorm}
    vars(generator).update(
        {"_init_args": (), "_init_kwargs": EasyDict(kwargs, untrained=nn.ModuleList([nn.Softmax(1)]))}
    )
    return {
        "training_set_kwargs": {"xflip": True, "max_size": 26000},
        **others,
        "G_ema": generator,
        "augment_pipe": None,
    }
