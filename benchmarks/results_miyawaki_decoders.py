"""Reconstruction of pictures nobody learnt from: a matched filter, and ridge regression as its baseline.

The matched filter is the posterior mean of a linear Gaussian model. Forward, the response to a picture s is
``x = mean + W (s - mean) + noise``. W is learnt by ridge regression of the voxels on the pictures, the covariance of
the noise from the scatter of repeats of one picture around their mean, shrunk towards equal noise everywhere. Backward,
with the covariance of the training pictures times a gain as prior of s, the reconstruction is E[s | x], clipped to the
range of a picture. Ridge regression goes backward only: from the voxels straight to the pixels.

Both only need sums over a fold's training blocks: predictions are weights on the training pictures, so that a
permutation of the pictures costs little.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any, Protocol

import numpy as np
from benchmarks.results_miyawaki_data import Array, Numbers, Plan, Study
from numpy.typing import NDArray

__all__ = ["Decoded", "MatchedFilter", "Nested", "Ridge", "identified", "own_correlation"]

SHRINKAGES = (0.1, 0.3, 0.6, 0.9)
PENALTIES = (0.1, 0.3, 1.0, 3.0)
GAINS = (1.0, 3.0, 10.0, 30.0)
RIDGE_PENALTIES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)

NO_CONTRAST = 1e-6
"""Sum of squares over pixels below which a picture is a single grey: its correlations are rounding errors."""

Criterion = Callable[[NDArray[np.floating], Array, Numbers, NDArray[np.bool_]], Array]
"""Predictions (rows, pixels), pictures, the true picture of each row, (rows, pictures) candidates to (rows,) scores."""


class Decoder(Protocol):
    """Fits the folds of a plan."""

    @property
    def settings(self) -> Sequence[Any]:
        """What `weights` may be asked for."""
        ...

    def weights(self, pictures: Array, setting: Any) -> Array:
        """(rows, pictures): the prediction of each row of the plan as a sum of pictures."""
        ...


class MatchedFilter:
    """All folds of a plan (which leave out equally many pictures) at once; see the head of this file."""

    settings = tuple(product(SHRINKAGES, PENALTIES, GAINS))

    def __init__(self, study: Study, plan: Plan) -> None:
        everything = np.arange(len(study.pictures))
        self._kept = np.stack([np.setdiff1d(everything, held) for held in plan.held])
        self._count = np.bincount(study.shown, minlength=len(everything))[self._kept].astype(np.float64)
        self._rows, longest = plan.fold, np.bincount(plan.fold).max()
        self._slot = np.concatenate([np.arange(n) for n in np.bincount(plan.fold)])
        folds, pictures = self._kept.shape
        self._products = {s: (np.zeros((folds, pictures, pictures)), np.zeros((folds, pictures, longest)))
                          for s in SHRINKAGES}  # fmt: skip
        for fold in range(folds):
            for shrinkage, (own, cross) in _products(study, plan, fold, self._kept[fold]).items():
                self._products[shrinkage][0][fold] = own
                self._products[shrinkage][1][fold, :, : cross.shape[1]] = cross

    def weights(self, pictures: Array, setting: tuple[float, float, float]) -> Array:
        """Setting: shrinkage of the noise, penalty of W (in units of one block's noise), gain of the prior."""
        shrinkage, penalty, gain = setting
        own, cross = self._products[shrinkage]
        num = self._kept.shape[1]
        similar = _centred(pictures @ pictures.T, self._kept)
        similar /= np.trace(similar, axis1=1, axis2=2)[:, None, None] / num
        # W' = D' (similar + penalty / count)^-1 Y: D the training pictures, Y the mean responses, both centred.
        encoder = np.linalg.inv(similar + penalty * np.eye(num) / self._count[:, None])
        prior = gain / num * similar
        inside = np.eye(num) + encoder @ own @ encoder @ (prior @ similar)
        found = prior @ np.linalg.solve(inside, encoder @ cross)
        found += (1 - found.sum(1, keepdims=True)) / num
        out = np.zeros((len(self._rows), len(pictures)))
        kept = self._kept[self._rows]
        np.put_along_axis(out, kept, found[self._rows, :, self._slot], axis=1)
        return out


class Ridge:
    """Voxels, standardised on the training blocks, to pixels."""

    settings = RIDGE_PENALTIES

    def __init__(self, study: Study, plan: Plan) -> None:
        shape = (len(plan.fold), len(study.pictures))
        self._weights = {penalty: np.zeros(shape) for penalty in RIDGE_PENALTIES}
        for fold in range(len(plan.held)):
            blocks, rows = plan.learnt(study, fold), np.flatnonzero(plan.fold == fold)
            x = study.responses[blocks]
            mean, sd = x.mean(0), x.std(0)
            x, new = (x - mean) / sd, (study.responses[plan.block[rows]] - mean) / sd
            values, vectors = np.linalg.eigh(x @ x.T)
            picture = np.eye(len(study.pictures))[study.shown[blocks]]
            for penalty, out in self._weights.items():
                dual = new @ x.T @ vectors @ ((vectors / (values + penalty)).T @ (picture - picture.mean(0)))
                out[rows] = dual + picture.mean(0)

    def weights(self, pictures: Array, setting: float) -> Array:
        """Setting: the penalty."""
        return self._weights[setting]


@dataclass(frozen=True)
class Decoded:
    """Predictions of held-out blocks."""

    predicted: NDArray[np.float32]
    """(blocks, pixels)."""
    chosen: list[Any]
    """Setting of each outer fold."""


class Nested:
    """Leave one unit (a picture or a condition) out; settings are chosen by leaving out one unit more of the rest."""

    def __init__(self, study: Study, units: list[tuple[int, ...]], make: Callable[[Study, Plan], Decoder]) -> None:
        self._study, self._pairs = study, list(combinations(range(len(units)), 2))
        self._outer_plan = Plan.of(study, units)
        self._inner_plan = Plan.of(study, [(*units[a], *units[b]) for a, b in self._pairs])
        self._outer, self._inner = make(study, self._outer_plan), make(study, self._inner_plan)
        unit_of = np.zeros(len(study.pictures), np.int64)
        for number, members in enumerate(units):
            unit_of[list(members)] = number
        unit = unit_of[study.shown[self._inner_plan.block]]
        self._held = np.array(self._pairs)[self._inner_plan.fold].sum(1) - unit
        """(inner rows,) the unit that is the outer fold's: of the two left out, the one that the block is not of."""
        self._candidates = unit_of[None] != self._held[:, None]

    def decode(self, pictures: Array, criterion: Criterion, *, clip: bool) -> Decoded:
        """Predict every block; ``pictures`` may be permuted against what was shown."""
        plan, inner = self._outer_plan, self._inner_plan
        truth = self._study.shown[inner.block]
        scores, outer = [], []
        for setting in self._outer.settings:
            predicted = _pictures(self._inner.weights(pictures, setting), pictures, clip)
            found = criterion(predicted, pictures, truth, self._candidates)
            scores.append(np.bincount(self._held, found) / np.bincount(self._held))
            outer.append(_pictures(self._outer.weights(pictures, setting), pictures, clip))
        best = np.argmax(scores, axis=0)
        predicted = np.empty((len(plan.block), pictures.shape[1]), np.float32)
        predicted[plan.block] = np.stack(outer)[best[plan.fold], np.arange(len(plan.block))]
        return Decoded(predicted, [self._outer.settings[number] for number in best])


def own_correlation(
    predicted: NDArray[np.floating], pictures: Array, truth: Numbers, candidates: NDArray[np.bool_]
) -> Array:
    """(rows,) correlation over pixels with the true picture; 0 for a prediction without contrast."""
    centred = (pictures - pictures.mean(1, keepdims=True)).astype(predicted.dtype)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    squares = np.einsum("rp,rp->r", predicted, predicted) - predicted.sum(1) ** 2 / predicted.shape[1]
    size = np.sqrt(np.maximum(squares, NO_CONTRAST))
    return np.einsum("rp,rp->r", predicted, centred[truth]) / size


def identified(
    predicted: NDArray[np.floating], pictures: Array, truth: Numbers, candidates: NDArray[np.bool_]
) -> Array:
    """(rows,) 1 where, of the candidates, the true picture has the highest correlation over pixels."""
    centred = pictures - pictures.mean(1, keepdims=True)
    centred /= np.linalg.norm(centred, axis=1, keepdims=True)
    likeness = np.where(candidates, predicted @ centred.T, -np.inf)  # the prediction's own norm changes no order
    return (likeness.argmax(1) == truth).astype(np.float64)


def _pictures(weights: Array, pictures: Array, clip: bool) -> NDArray[np.float32]:
    predicted = weights.astype(np.float32) @ pictures.astype(np.float32)
    return np.clip(predicted, 0, 1, out=predicted) if clip else predicted


def _centred(gram: Array, kept: Numbers) -> Array:
    """(folds, kept, kept) inner products of the kept pictures less their mean."""
    part = gram[kept[:, :, None], kept[:, None, :]]
    rows = part.mean(2, keepdims=True)
    return part - rows - rows.transpose(0, 2, 1) + rows.mean(1, keepdims=True)


def _products(study: Study, plan: Plan, fold: int, kept: Numbers) -> dict[float, tuple[Array, Array]]:
    """Shrinkage -> (Y N^-1 Y', Y N^-1 (x - mean)'): Y (pictures, voxels) mean responses, x new ones, N the noise.

    N^-1 by Woodbury's identity: there are fewer blocks than voxels.
    """
    blocks = plan.learnt(study, fold)
    means = np.stack([study.responses[study.shown == number].mean(0) for number in kept])
    scatter = study.responses[blocks] - means[np.searchsorted(kept, study.shown[blocks])]
    scatter /= np.sqrt(len(blocks) - len(kept))
    centre = means.mean(0)
    both = np.concatenate([means, study.responses[plan.block[plan.fold == fold]]]) - centre
    inner, through = scatter @ scatter.T, both @ scatter.T
    plain = both[: len(kept)] @ both.T
    level = np.trace(inner) / study.responses.shape[1]
    found = {}
    for shrinkage in SHRINKAGES:
        floor = shrinkage * level
        core = np.linalg.solve(floor / (1 - shrinkage) * np.eye(len(inner)) + inner, through.T)
        product_ = (plain - through[: len(kept)] @ core) / floor
        found[shrinkage] = product_[:, : len(kept)], product_[:, len(kept) :]
    return found
