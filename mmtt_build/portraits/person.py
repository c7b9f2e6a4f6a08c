"""Who is drawn (`Person`, fixed by the identity) and how one shot of them differs (`Shot`, fixed by the seed).

Lengths are in shares of the frame's side, angles in radians, colours in sRGB 0-1. The ranges were chosen by
eye so that the faces sit in the frame as FFHQ and CelebA-HQ faces do; they model no population.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rng = np.random.Generator
Colour = NDArray[np.floating[Any]]

# Fair to deep, in sRGB; a person's tone is interpolated between neighbours.
_SKIN_TONES = np.array(
    [
        (236, 194, 172), (228, 182, 154), (214, 164, 132), (196, 142, 106),
        (180, 124, 86), (150, 98, 67), (120, 78, 54), (92, 60, 45),
    ],
    np.float32,
) / 255  # fmt: skip

_HAIR_COLOURS = np.array(
    [
        (33, 28, 27), (44, 32, 26), (62, 41, 28), (96, 62, 38), (138, 94, 54),
        (190, 150, 92), (222, 190, 134), (142, 66, 32), (110, 40, 26),
    ],
    np.float32,
) / 255  # fmt: skip

_IRIS_COLOURS = np.array(
    [(54, 32, 20), (86, 52, 28), (122, 84, 46), (112, 112, 66), (98, 126, 128), (92, 128, 168), (134, 150, 158)],
    np.float32,
) / 255  # fmt: skip

HAIR_STYLES = ("bald", "buzz", "short", "swept", "curly", "afro", "bob", "long", "tied")


@dataclass(frozen=True, slots=True)
class Person:
    """All that two pictures of the same person share.

    `build` holds standard normal draws that bend the bone structure; `asymmetry` makes the two sides differ.
    `age` runs from 0 (about 20 years) to 1 (about 80). `masculine` runs from 0 to 1 and shifts jaw, brows,
    lips and the likelihood of beards and hair styles.
    """

    build: NDArray[np.float32]
    asymmetry: NDArray[np.float32]
    masculine: float
    age: float
    melanin: float
    skin: Colour
    lips: Colour
    hair: Colour
    grey: float
    iris: Colour
    style: str
    hairline: float
    parting: float
    volume: float
    curl: float
    fringe: bool
    beard: float
    beard_shape: str
    freckles: float
    moles: NDArray[np.float32]
    ruddy: float
    brow_density: float
    makeup: float
    texture_seed: int


@dataclass(frozen=True, slots=True)
class Shot:
    """All that changes from one picture of a person to the next."""

    yaw: float
    pitch: float
    roll: float
    smile: float
    mouth_open: float
    eye_open: float
    brow_raise: float
    gaze: tuple[float, float]
    light: NDArray[np.float32]
    light_colour: Colour
    ambient: Colour
    rim: float
    exposure: float
    glasses: str
    hat: str
    earrings: str
    necklace: bool
    cloth: str
    cloth_colour: Colour
    lipstick: float
    jitter: NDArray[np.float32]


def sample_person(rng: Rng) -> Person:
    """Draws a person."""
    masculine = float(np.clip(rng.choice((0.12, 0.88)) + rng.normal(0, 0.12), 0, 1))
    man = masculine > 0.5
    age = float(rng.beta(1.1, 2.2))
    melanin = float(rng.uniform(0, 1))
    skin = _between(_SKIN_TONES, melanin)
    skin = np.clip(skin * (1 + rng.normal(0, (0.02, 0.025, 0.035))), 0, 1).astype(np.float32)
    lips = np.array((0.78, 0.42, 0.40), np.float32) * (1 - melanin) + np.array((0.40, 0.21, 0.19), np.float32) * melanin
    fair = melanin < 0.4
    colours = np.array((2, 3, 3, 3, 2.5, 2, 1.5, 1, 0.6)) if fair else np.array((6, 4, 2, 0.5, 0.1, 0, 0, 0, 0.1))
    hair = _HAIR_COLOURS[rng.choice(len(colours), p=colours / colours.sum())]
    irises = np.array((2, 3, 2, 1.5, 1.5, 2, 1)) if fair else np.array((6, 4, 1, 0.1, 0, 0.02, 0))
    grey = float(np.clip((age - 0.55) * 2.4 + rng.normal(0, 0.25), 0, 1)) if age > 0.48 else 0.0
    weights = (
        np.array((1.6, 2.2, 3.2, 3, 1.6, 0, 0.3, 0.5, 0.3))
        if man
        else np.array((0.08, 0.2, 0.8, 0.9, 1.0, 0, 2.8, 4.2, 2.0))
    )
    if melanin > 0.7:
        weights = weights + np.array((0.3, 1.5, 0, -0.4, 1.2, 2.0, 0, 0, 0.6))
    weights = np.clip(weights, 0, None)
    style = str(rng.choice(HAIR_STYLES, p=weights / weights.sum()))
    beard = float(rng.choice((0.0, 0.25, 0.55, 1.0), p=(0.4, 0.25, 0.15, 0.2))) if man else 0.0
    return Person(
        build=np.clip(rng.normal(0, 1, 24), -2, 2).astype(np.float32),
        asymmetry=rng.normal(0, 0.0022, (8, 2)).astype(np.float32),
        masculine=masculine,
        age=age,
        melanin=melanin,
        skin=skin,
        lips=(lips * (1 + rng.normal(0, 0.06, 3))).astype(np.float32),
        hair=hair * np.float32(rng.uniform(0.85, 1.2)),
        grey=grey,
        iris=_IRIS_COLOURS[rng.choice(len(irises), p=irises / irises.sum())] * np.float32(rng.uniform(0.85, 1.15)),
        style=style,
        hairline=float(rng.normal(0, 0.012) - (0.03 * age * rng.uniform(0, 1.2) if man else 0)),
        parting=float(rng.choice((-1, 1)) * rng.uniform(0, 0.55)),
        volume=float(rng.uniform(0.6, 1.4)),
        curl=float(rng.beta(1.2, 2.2)),
        fringe=bool(rng.random() < (0.15 if man else 0.3)),
        beard=beard,
        beard_shape=str(rng.choice(("full", "goatee", "moustache"), p=(0.6, 0.25, 0.15))),
        freckles=float(rng.uniform(0.4, 1) if rng.random() < (0.3 if melanin < 0.3 else 0.08) else 0),
        moles=rng.uniform((-0.2, -0.2, 0.5), (0.2, 0.36, 1.2), (int(rng.integers(0, 5)), 3)).astype(np.float32),
        ruddy=float(rng.uniform(0.3, 1.0)),
        brow_density=float(rng.uniform(0.55, 1.1) + 0.15 * masculine),
        makeup=0.0 if man else float(rng.beta(1.2, 1.2)),
        texture_seed=int(rng.integers(2**31)),
    )


def sample_shot(rng: Rng, person: Person) -> Shot:
    """Draws one picture's circumstances for a person."""
    man = person.masculine > 0.5
    mood = rng.choice(4, p=(0.36, 0.24, 0.3, 0.1))  # neutral, closed smile, open smile, lips apart
    smile = float(
        (rng.uniform(-0.05, 0.28), rng.uniform(0.3, 0.8), rng.uniform(0.55, 1.0), rng.uniform(0.0, 0.35))[mood]
    )
    mouth_open = float((0, 0, rng.uniform(0.35, 1.0), rng.uniform(0.25, 0.7))[mood])
    azimuth, elevation = rng.uniform(-1.0, 1.0), rng.uniform(0.2, 0.85)
    light = np.array(
        (np.sin(azimuth) * np.cos(elevation), -np.sin(elevation), np.cos(azimuth) * np.cos(elevation)),
        np.float32,
    )
    warmth = rng.uniform(-1, 1)
    key = np.array((1 + 0.08 * warmth, 1, 1 - 0.14 * warmth), np.float32)
    fill = np.array((1 - 0.05 * warmth, 1, 1 + 0.10 * warmth), np.float32) * np.float32(rng.uniform(0.26, 0.5))
    hue = rng.normal(0, 1, 3)
    cloth = np.clip(rng.choice((0.12, 0.25, 0.5, 0.85)) + 0.10 * hue, 0.03, 0.95).astype(np.float32)
    hat = str(rng.choice(("", "beanie"), p=(0.93, 0.07)))
    return Shot(
        yaw=float(np.clip(rng.normal(0, 0.17), -0.42, 0.42)),
        pitch=float(np.clip(rng.normal(0, 0.07), -0.16, 0.16)),
        roll=float(rng.normal(0, 0.05)),
        smile=smile,
        mouth_open=mouth_open,
        eye_open=float(np.clip(rng.normal(1, 0.1), 0.72, 1.22) - 0.16 * max(smile, 0)),
        brow_raise=float(rng.normal(0, 0.3)),
        gaze=(float(rng.normal(0, 0.12)), float(rng.normal(0, 0.06))),
        light=light,
        light_colour=key * np.float32(rng.uniform(0.85, 1.1)),
        ambient=fill,
        rim=float(rng.choice((0, 0.35, 0.7), p=(0.5, 0.3, 0.2))),
        exposure=float(rng.uniform(0.92, 1.12)),
        glasses=str(rng.choice(("", "round", "square", "oval"), p=(0.82, 0.05, 0.07, 0.06))),
        hat=hat,
        earrings="" if rng.random() > (0.08 if man else 0.5) else str(rng.choice(("stud", "hoop", "drop"))),
        necklace=bool(rng.random() < (0.05 if man else 0.3)),
        cloth=str(rng.choice(("crew", "vneck", "shirt", "jacket", "scoop"), p=(0.3, 0.2, 0.2, 0.2, 0.1))),
        cloth_colour=cloth,
        lipstick=float(rng.uniform(0.2, 1.0) * person.makeup),
        jitter=rng.normal(0, (0.006, 0.006, 0.012, 0.012)).astype(np.float32),
    )


def _between(stops: Colour, share: float) -> Colour:
    place = share * (len(stops) - 1)
    low = min(int(place), len(stops) - 2)
    return stops[low] + (stops[low + 1] - stops[low]) * np.float32(place - low)
