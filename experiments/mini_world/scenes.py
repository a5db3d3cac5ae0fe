"""Backgrounds of the embedded model's world: 15 named scenes, SVG drawings with random details."""

from collections.abc import Callable

import numpy as np

from mace_exp.mini.captions import SCENES

_COLOURS = {
    "red": "#d8322e",
    "blue": "#2f66d0",
    "green": "#37a446",
    "yellow": "#f2cf3a",
    "purple": "#8a3fb0",
    "white": "#f6f6f4",
}


def scene_svg(scene: str, generator: np.random.Generator) -> str:
    """Draw a scene as SVG on a 96 x 96 canvas; horizon, tints and items are random.

    Raises:
        KeyError: the scene is not one of `captions.SCENES`.
    """
    body = _DRAWINGS[scene](generator)
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 96 96">{body}</svg>'


def _shade(colour: str, generator: np.random.Generator, spread: float = 0.07) -> str:
    rgb = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], dtype=float)
    rgb = rgb * (1 + generator.uniform(-spread, spread)) + generator.uniform(-6, 6, 3)
    return "#" + "".join(f"{int(v):02x}" for v in rgb.clip(0, 255))


def _rect(y: float, colour: str, height: float = 96) -> str:
    return f'<rect x="0" y="{y:.1f}" width="96" height="{height:.1f}" fill="{colour}"/>'


def _circle(x: float, y: float, radius: float, colour: str) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{colour}"/>'


def _polygon(points: list[tuple[float, float]], colour: str) -> str:
    text = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polygon points="{text}" fill="{colour}"/>'


def _plain(name: str) -> Callable[[np.random.Generator], str]:
    return lambda generator: _rect(0, _shade(_COLOURS[name], generator))


def _hill(base: float, height: float, colour: str, generator: np.random.Generator) -> str:
    x = generator.uniform(0, 96)
    return f'<ellipse cx="{x:.1f}" cy="{base:.1f}" rx="55" ry="{height:.1f}" fill="{colour}"/>'


def _tree(x: float, base: float, size: float, colour: str) -> str:
    height = size * 0.4
    trunk = (
        f'<rect x="{x - 1.5:.1f}" y="{base - height:.1f}" width="3" height="{height:.1f}" '
        'fill="#6b4423"/>'
    )
    return trunk + _circle(x, base - size * 0.65, size * 0.38, colour)


def _fir(x: float, base: float, size: float, colour: str) -> str:
    return _polygon([(x - size * 0.3, base), (x + size * 0.3, base), (x, base - size)], colour)


def _park(g: np.random.Generator) -> str:
    horizon = g.uniform(50, 62)
    ground = _rect(0, _shade("#9fd4f0", g)) + _rect(horizon, _shade("#6cbf4b", g))
    return ground + "".join(
        _tree(x, horizon + 3, g.uniform(24, 34), "#2f8a3c") for x in g.uniform(4, 92, 3)
    )


def _beach(g: np.random.Generator) -> str:
    horizon = g.uniform(38, 48)
    sea = (
        _rect(0, _shade("#aee3f5", g))
        + _rect(horizon, _shade("#1f9bc4", g))
        + _rect(horizon + 22, _shade("#f0d799", g))
    )
    return sea + _circle(g.uniform(8, 88), g.uniform(8, 18), 8, "#ffe34d")


def _snow(g: np.random.Generator) -> str:
    horizon = g.uniform(50, 60)
    ground = (
        _rect(0, _shade("#b9c9dc", g))
        + _hill(horizon + 8, 18, "#dfe9f3", g)
        + _rect(horizon, "#f4f8fc")
    )
    firs = "".join(_fir(x, horizon + 4, g.uniform(18, 26), "#7e9db5") for x in g.uniform(4, 92, 2))
    return (
        ground + firs + "".join(_circle(x, y, 1.6, "#ffffff") for x, y in g.uniform(0, 96, (9, 2)))
    )


def _desert(g: np.random.Generator) -> str:
    horizon = g.uniform(52, 62)
    ground = (
        _rect(0, _shade("#f8d9a0", g))
        + _hill(horizon + 6, 20, "#d99a4e", g)
        + _rect(horizon, _shade("#e3aa5c", g))
    )
    x = g.uniform(8, 88)
    cactus = (
        f'<rect x="{x:.1f}" y="{horizon - 18:.1f}" width="5" height="24" rx="2.5" fill="#4c8c4a"/>'
    )
    return ground + cactus


def _forest(g: np.random.Generator) -> str:
    ground = _rect(0, _shade("#5d8f68", g)) + _rect(74, _shade("#3d5b34", g))
    firs = sorted(g.uniform(0, 96, 6))
    return ground + "".join(
        _fir(x, g.uniform(74, 82), g.uniform(48, 66), _shade("#1e5633", g)) for x in firs
    )


def _city(g: np.random.Generator) -> str:
    picture = _rect(0, _shade("#c3cfd9", g))
    for x in np.arange(-4, 96, 17) + g.uniform(-2, 2):
        top = g.uniform(18, 48)
        wall = _shade("#6f7f92", g, 0.15)
        picture += f'<rect x="{x:.1f}" y="{top:.1f}" width="15" height="80" fill="{wall}"/>'
        picture += f'<rect x="{x + 4:.1f}" y="{top + 5:.1f}" width="7" height="4" fill="#f7e28b"/>'
    return picture + _rect(82, "#4a4f57")


def _mountains(g: np.random.Generator) -> str:
    picture = _rect(0, _shade("#b6dcf2", g))
    for x in g.permutation([12, 48, 84]) + g.uniform(-8, 8, 3):
        top = g.uniform(12, 28)
        picture += _polygon([(x - 36, 78), (x + 36, 78), (x, top)], _shade("#7c7f93", g))
        picture += _polygon([(x - 9, top + 17), (x + 9, top + 17), (x, top)], "#ffffff")
    return picture + _rect(76, _shade("#7fae66", g))


def _night(g: np.random.Generator) -> str:
    sky = _rect(0, _shade("#151c3d", g)) + _hill(98, 26, "#0b1024", g)
    moon_x, moon_y = g.uniform(10, 86), g.uniform(9, 20)
    moon = _circle(moon_x, moon_y, 7, "#f5f0c8")
    return sky + moon + "".join(_circle(x, y, 1.3, "#ffffff") for x, y in g.uniform(0, 84, (10, 2)))


def _sunset(g: np.random.Generator) -> str:
    bands = ("#6a3d7c", "#b0487a", "#e8694e", "#f7a14a")
    sky = "".join(_rect(16 * i, _shade(colour, g, 0.04)) for i, colour in enumerate(bands))
    return sky + _circle(g.uniform(15, 81), 64, 13, "#ffd95a") + _rect(66, _shade("#3b2750", g))


_DRAWINGS: dict[str, Callable[[np.random.Generator], str]] = dict(
    zip(
        SCENES,
        (
            *(_park, _beach, _snow, _desert, _forest, _city, _mountains, _night, _sunset),
            *(_plain(name) for name in ("red", "blue", "green", "yellow", "purple", "white")),
        ),
        strict=True,
    )
)
