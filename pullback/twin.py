"""Tuning the float64 twin: the same descent on real numbers, for comparison. Needs torch."""

from __future__ import annotations

import numpy as np
import torch

from pullback.backend import GoldenBackend, psnr
from pullback.raw import Crop, Raw
from pullback.sim.golden.twin import Twin
from pullback.tune import Masters, Measure, Split

__all__ = ["TwinObjective"]


class TwinObjective:
    """The squared loss of the unrounded pipeline, differentiated by autograd: no codes, no cuts but saturation.

    It takes the place of a :class:`~pullback.tune.BackendObjective` in :func:`~pullback.tune.fit`.
    """

    def __init__(self, backend: GoldenBackend, raw: Raw) -> None:
        self.pipeline = backend.pipeline
        self._twin = Twin(backend.golden, rounding=False)
        self._cfa = raw.cfa
        self._raw = torch.tensor(np.ldexp(raw.codes.astype(np.float64), -16))
        self._target = torch.tensor(np.ldexp(np.moveaxis(raw.target, -1, 0).astype(np.float64), -12))

    def measure(self, masters: Masters, patch: Crop, scale: int) -> Measure:
        """See :class:`~pullback.tune.Objective`; real numbers need no scale."""
        theta = {key: torch.tensor(value, requires_grad=True) for key, value in masters.items()}
        rows, columns = slice(patch.y, patch.y + patch.height), slice(patch.x, patch.x + patch.width)
        picture = self._twin(self._raw[rows, columns], theta, cfa=self._cfa)
        loss = self._twin.loss(picture, self._target[:, rows, columns]) / picture.numel()
        gradients = torch.autograd.grad(loss, list(theta.values()))
        return Measure(
            loss=float(loss.detach()),
            gradient={key: g.numpy() for key, g in zip(theta, gradients, strict=True)},
        )

    @torch.no_grad()
    def held_out_psnr(self, masters: Masters, split: Split) -> float:
        """PSNR against the target over the held-out part, its upper edge with its true neighbours."""
        theta = {key: torch.tensor(value) for key, value in masters.items()}
        picture = self._twin(self._raw, theta, cfa=self._cfa)
        squares, samples = 0.0, 0
        for crop in split.probes():
            rows, columns = slice(crop.y, crop.y + crop.height), slice(crop.x, crop.x + crop.width)
            difference = picture[:, rows, columns] - self._target[:, rows, columns]
            squares += float((difference * difference).sum())
            samples += difference.numel()
        return psnr(squares * 4096**2, samples)  # as of codes of UQ(0, 12)
