"""Which devices a network may run on, in the user's words."""

from __future__ import annotations

import re

from mmtt_build.errors import ConfigError, MmttError


def devices(text: str) -> list[str]:
    """Devices by torch's names: "auto", "cpu", "cuda", "cuda:1", "cuda:0,1", "mps".

    "auto" is the first GPU if there is one, else the CPU.

    Raises:
        ConfigError: not such a text, or a device that is not there.
        MmttError: torch is not installed.
    """
    if text == "cpu":
        return ["cpu"]
    if not re.fullmatch(r"auto|mps|cuda(:\d+(,\d+)*)?", text):
        raise ConfigError(f"--device {text!r}", "auto, cpu, cuda:0, cuda:0,1 or mps")
    try:
        import torch
    except ModuleNotFoundError as error:
        raise needs_models(error) from error
    there = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if text == "auto":
        return there[:1] or ["cpu"]
    if text == "mps":
        if not torch.backends.mps.is_available():
            raise ConfigError("no device mps on this machine", "--device cpu")
        return ["mps"]
    _, _, numbers = text.partition(":")
    wanted = list(dict.fromkeys(f"cuda:{int(number)}" for number in (numbers or "0").split(",")))
    if absent := [device for device in wanted if device not in there]:
        raise ConfigError(
            f"no device {', '.join(absent)} on this machine",
            f"torch sees {', '.join(there) or 'no GPU'}; --device auto",
        )
    return wanted


def needs_models(error: ModuleNotFoundError) -> MmttError:
    """What to say where a package of the extra `[models]` is not installed."""
    return MmttError(f"this needs the package {error.name}", "pip install 'mmtt-build[models]'")
