"""Demosaicking: three colours at every site of the mosaic."""

from __future__ import annotations

from itertools import product

from ..kernel import Node, Parameter, Site, Taps, Theta, select, total, where
from ..numeric import SQ
from ..pipeline.stage import Stage
from ..stream.pixel import Pixel
from .channels import MOSAIC, RGB

__all__ = ["Bilinear", "FilterBank", "HamiltonAdamsChroma", "HamiltonAdamsGreen"]

_HORIZONTAL = [(0, -1), (0, 1)]
_VERTICAL = [(-1, 0), (1, 0)]
_DIAGONAL = [(dy, dx) for dy in (-1, 1) for dx in (-1, 1)]


def _grey(x: Taps) -> dict[str, Node]:
    """The mosaic itself in all three colours: what a bypassed demosaicker shows."""
    return {channel: x.cfa for channel in ("r", "g", "b")}


class Bilinear(Stage):
    """Each missing colour is the mean of its nearest sites: two in a line or column, or four around.

    i : SQ(2, 14)   o : 3 x SQ(2, 14), never clips   radius 1   no multiplier
    """

    i, o, radius = MOSAIC, RGB, 1

    def kernel(self, x: Taps, theta: Theta, site: Site) -> dict[str, Node]:
        def mean(offsets: list[tuple[int, int]]) -> Node:
            return total([x.at("cfa", dy, dx) for dy, dx in offsets]) >> len(offsets).bit_length() - 1

        here, across, along, around = x.cfa, mean(_HORIZONTAL), mean(_VERTICAL), mean(_DIAGONAL)
        cross = (across + along) >> 1
        return {
            "r": select(site.colour, [here, across, along, around]),
            "g": select(site.colour, [cross, here, here, cross]),
            "b": select(site.colour, [around, along, across, here]),
        }

    def bypass(self, x: Taps) -> dict[str, Node]:
        return _grey(x)


class FilterBank(Stage):
    """``y = sum_k coefficient[c, m, k] fold_k``: eight 5x5 filters, one per colour c and missing channel m.

    Filters are symmetric about both axes: ``fold_k`` is the sum of the 1, 2 or 4 taps with
    ``3 |dy| + |dx| = k``, so nine coefficients make a filter. The missing channels m = 0, 1 are, in the order
    r, g, b: of R: g, b; of Gr and Gb: r, b; of B: r, g. The colour of the site itself passes. The default is
    bilinear interpolation; the coefficients are parameters and receive gradients.

    i : SQ(2, 14)   o : 3 x SQ(2, 14)   radius 2   18 multipliers
    """

    i, o, radius = MOSAIC, RGB, 2

    FOLDS = [  # noqa: RUF012
        sorted({(sy * dy, sx * dx) for sy in (-1, 1) for sx in (-1, 1)})
        for dy, dx in product(range(3), range(3))
    ]
    """Taps of each fold."""

    _CROSS = (0, 1 / 4, 0, 1 / 4, 0, 0, 0, 0, 0)
    _AROUND = (0, 0, 0, 0, 1 / 4, 0, 0, 0, 0)
    _ACROSS = (0, 1 / 2, 0, 0, 0, 0, 0, 0, 0)
    _ALONG = (0, 0, 0, 1 / 2, 0, 0, 0, 0, 0)

    parameters = {  # noqa: RUF012
        "coefficient": Parameter(
            72,
            SQ(2, 12),
            _CROSS + _AROUND + _ACROSS + _ALONG + _ALONG + _ACROSS + _AROUND + _CROSS,
            "filter tap (2 c + m) 9 + 3 |dy| + |dx| for CFA colour c and missing channel m",
        ),
    }

    def kernel(self, x: Taps, theta: Theta, site: Site) -> dict[str, Node]:
        folds = [total([x.at("cfa", dy, dx) for dy, dx in taps]) for taps in self.FOLDS]

        def filtered(m: int) -> Node:
            terms = []
            for k, fold in enumerate(folds):
                coefficients = [theta["coefficient", (2 * c + m) * 9 + k] for c in range(4)]
                terms.append(select(site.colour, coefficients) * fold)
            return total(terms)

        here, first, second = x.cfa, filtered(0), filtered(1)
        return {
            "r": select(site.colour, [here, first, first, first]),
            "g": select(site.colour, [first, here, here, second]),
            "b": select(site.colour, [second, second, second, here]),
        }

    def bypass(self, x: Taps) -> dict[str, Node]:
        return _grey(x)


_WITH_GREEN = Pixel((("cfa", SQ(2, 14)), ("g", SQ(2, 14))))


class HamiltonAdamsGreen(Stage):
    """Green along the direction of the smaller gradient, corrected by the site's own second derivative.

    At R and B sites, with C the site and N S W E its neighbours (two letters: two away)::

        dh = |W - E| + |2C - WW - EE|    gh = (W + E)/2 + (2C - WW - EE)/4    dv, gv alike
        g = gh if dh < dv else gv if dv < dh else (gh + gv)/2

    At green sites g = C. Output: the mosaic, unchanged, and green.

    i : SQ(2, 14)   o : 2 x SQ(2, 14)   radius 2   no multiplier
    source: J. E. Adams, J. F. Hamilton, US 5652621 (1997, expired), equations for green
    """

    i, o, radius = MOSAIC, _WITH_GREEN, 2

    def kernel(self, x: Taps, theta: Theta, site: Site) -> dict[str, Node]:
        def direction(dy: int, dx: int) -> tuple[Node, Node]:
            before, after = x.at("cfa", -dy, -dx), x.at("cfa", dy, dx)
            curvature = (x.cfa << 1) - (x.at("cfa", -2 * dy, -2 * dx) + x.at("cfa", 2 * dy, 2 * dx))
            gradient = abs(before - after) + abs(curvature)
            return gradient, ((before + after) >> 1) + (curvature >> 2)

        (dh, gh), (dv, gv) = direction(0, 1), direction(1, 0)
        for node, name in ((dh, "dh"), (dv, "dv"), (gh, "gh"), (gv, "gv")):
            node.named(name)
        green = where(dh < dv, gh, where(dv < dh, gv, (gh + gv) >> 1))
        return {"cfa": x.cfa, "g": select(site.colour, [green, x.cfa, x.cfa, green])}

    def bypass(self, x: Taps) -> dict[str, Node]:
        return {"cfa": x.cfa, "g": x.cfa}


class HamiltonAdamsChroma(Stage):
    """Red and blue from the colour differences ``d = cfa - g`` of the nearest sites that have them.

    At R: b = g + mean of d at the four diagonals; at B: r alike; at Gr: r from the left and right, b from above
    and below; at Gb the other way round. Green passes.

    i : 2 x SQ(2, 14)   o : 3 x SQ(2, 14)   radius 1   no multiplier
    source: as :class:`HamiltonAdamsGreen`, red and blue by colour differences
    """

    i, o, radius = _WITH_GREEN, RGB, 1

    def kernel(self, x: Taps, theta: Theta, site: Site) -> dict[str, Node]:
        def with_difference(offsets: list[tuple[int, int]]) -> Node:
            differences = [x.at("cfa", dy, dx) - x.at("g", dy, dx) for dy, dx in offsets]
            return x.g + (total(differences) >> len(offsets).bit_length() - 1)

        across, along, around = (with_difference(o) for o in (_HORIZONTAL, _VERTICAL, _DIAGONAL))
        return {
            "r": select(site.colour, [x.cfa, across, along, around]),
            "g": x.g,
            "b": select(site.colour, [around, along, across, x.cfa]),
        }

    def bypass(self, x: Taps) -> dict[str, Node]:
        return _grey(x)
