"""Settings chosen on the training film alone: contiguous blocks of it are decoded by what the rest of it taught.

The score is that of the test, 2AFC among 20-s clips, averaged over people. Ridge baselines are chosen in the same way
and by the same score as the matched filter; the averaged brain's squared error, by comparison, asks for far too weak a
penalty, since single brains are what will be decoded.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np
from benchmarks.results_song_data import Rows
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from cineray.core.errors import DataError
from cineray.training.metrics.retrieval import two_afc
from cineray.training.metrics.similarity import clips_of, pearson_matrix
from cineray.training.models.group import Group, Moments
from cineray.training.models.matched_filter import MatchedFilterConfig, solve_person
from cineray.training.models.pooled_ridge import moments_with_bias, pooled, solve_pooled
from cineray.training.models.ridge import fit_ridge
from cineray.training.protocols.segments import standardise

Array = NDArray[np.floating]

NUM_BLOCKS = 5
GAP_S = 30.0
"""Left out on either side of a block: the haemodynamic response and slow drifts reach across its edges."""

SHARED_GRID = {
    "encoder_penalty": (100.0, 300.0, 1000.0, 3000.0),
    "noise_penalty": (300.0, 1000.0, 3000.0, 10_000.0),
    "gain": (0.0, 0.5, 1.0, 1.5, 2.0, 3.0),
}
HIGH_PASS_SD_TR = MatchedFilterConfig().high_pass_sd_tr
HIGH_PASS_GRID = (0.0, 0.25, 0.5, 0.75, 1.0)
PERSONAL_GRID = {"map_penalty": (1000.0, 3000.0, 10_000.0), "own_noise": (0.2, 0.5, 0.8)}
RIDGE_GRID = (100.0, 300.0, 1000.0, 3000.0, 10_000.0, 30_000.0, 100_000.0)
OWN_GRID = (0.1, 0.3, 1.0, 3.0)
"""Weight of the own scans in the pooled ridge: as many as all the others' together weigh 1."""

Solve = Callable[[int, str], Array]
"""Number of the block held out and person -> weights (parcels, components)."""


class Choice:
    """The training film cut into blocks, once for everything that is chosen on it."""

    def __init__(self, brains: Rows, labels: Rows, *, tr_s: float, clip_s: float) -> None:
        self.brains, self.subjects = brains, list(brains)
        self.clip = round(clip_s / tr_s)
        self.labels = labels
        num = len(next(iter(brains.values())))
        self.parts = list(blocks(num, round(GAP_S / tr_s)))
        if (fewest := min(len(kept) for kept, _ in self.parts)) < self.clip:
            raise DataError(
                f"a training film of {num} scans leaves {fewest} to learn from while a block is held out, expected at "
                f"least {self.clip}; use a longer one"
            )
        self.groups = [Group(*({s: x[kept] for s, x in rows.items()} for rows in (brains, labels)))
                       for kept, _ in self.parts]  # fmt: skip
        self.moments = [{s: moments_with_bias(x[kept], labels[s][kept]) for s, x in brains.items()}
                        for kept, _ in self.parts]  # fmt: skip
        self.candidates = {s: clips_of(y, self.clip) for s, y in labels.items()}

    def matched_filter(self) -> dict[str, dict[str, Any]]:
        """Protocol row -> settings that differ from the defaults; the shared ones are chosen where nothing is own."""
        base = MatchedFilterConfig(person="unseen")
        settings = [dict(zip(SHARED_GRID, values, strict=True)) for values in product(*SHARED_GRID.values())]
        scores = {}
        for at, changes in enumerate(settings):
            solve = partial(self._filter, base.model_copy(update=changes))
            for amount, score in self._scores(solve, HIGH_PASS_GRID).items():
                scores[at, amount] = score

        def best(allowed: Callable[[dict[str, float]], bool]) -> dict[str, float]:
            every = {key: {**settings[key[0]], "high_pass": key[1]} for key in scores}
            return every[max((key for key in scores if allowed(every[key])), key=scores.__getitem__)]

        shared = best(lambda _: True)
        found = {
            "unseen": shared,
            "unseen_no_gain": best(lambda one: one["gain"] == 0),
            "unseen_no_high_pass": best(lambda one: one["high_pass"] == 0),
        }
        for name, person in (("unseen_aligned", "aligned"), ("within", "within")):
            found[name] = shared | self._personal(base.model_copy(update={**shared, "person": person}))
        return found

    def ridge_within(self) -> float:
        """Penalty of a regression on the person's own scans."""
        return self._penalty(lambda person, kept: self.brains[person][kept])

    def ridge_unseen(self) -> float:
        """Penalty of a regression on the mean of the others."""
        total = np.sum(list(self.brains.values()), axis=0)
        return self._penalty(lambda person, kept: standardise((total - self.brains[person])[kept]))

    def pooled(self, own_weights: Sequence[float]) -> tuple[dict[str, float], dict[str, float]]:
        """Settings of the pooled ridge: as it is, and with the strength of a high-pass chosen along with the rest."""
        scores: dict[tuple[float, float, float], float] = {}
        for own in own_weights:
            pools = [{s: pooled(moments, s, own) for s in self.subjects} for moments in self.moments]
            for penalty in RIDGE_GRID:
                found = self._scores(partial(_pooled_weights, pools, penalty), HIGH_PASS_GRID)
                scores |= {(own, penalty, amount): score for amount, score in found.items()}
        plain = max((key for key in scores if key[-1] == 0), key=scores.__getitem__)
        filtered = max(scores, key=scores.__getitem__)
        return _pooled_settings(*plain), _pooled_settings(*filtered)

    def _personal(self, config: MatchedFilterConfig) -> dict[str, Any]:
        settings = [dict(zip(PERSONAL_GRID, values, strict=True)) for values in product(*PERSONAL_GRID.values())]
        configs = [config.model_copy(update=changes) for changes in settings]
        scores = [self._scores(partial(self._filter, c), (c.high_pass,))[c.high_pass] for c in configs]
        return settings[int(np.argmax(scores))]

    def _penalty(self, rows: Callable[[str, NDArray[np.int64]], Array]) -> float:
        scores = []
        for penalty in RIDGE_GRID:
            of_person = []
            for s in self.subjects:
                # No bias: the mean label of all other blocks leans away from that of the block.
                fits = [fit_ridge(rows(s, kept), self.labels[s][kept], penalty)[0] for kept, _ in self.parts]
                held = [self.brains[s][held] @ w.T for (_, held), w in zip(self.parts, fits, strict=True)]
                of_person.append(self._score(s, np.concatenate(held)))
            scores.append(np.mean(of_person))
        return RIDGE_GRID[int(np.argmax(scores))]

    def _filter(self, config: MatchedFilterConfig, at: int, subject: str) -> Array:
        return solve_person(self.groups[at], subject, config)

    def _scores(self, solve: Solve, amounts: Sequence[float]) -> dict[float, float]:
        """Strength of the high-pass -> mean over people of the score."""
        found: dict[float, list[float]] = {amount: [] for amount in amounts}
        for s in self.subjects:
            held = np.concatenate([self.brains[s][held] @ solve(at, s) for at, (_, held) in enumerate(self.parts)])
            running = gaussian_filter1d(held, HIGH_PASS_SD_TR, axis=0, mode="nearest")
            for amount, scores in found.items():
                scores.append(self._score(s, held - amount * running))
        return {amount: float(np.mean(scores)) for amount, scores in found.items()}

    def _score(self, subject: str, predicted: Array) -> float:
        return float(two_afc(pearson_matrix(clips_of(predicted, self.clip), self.candidates[subject])).mean())


def blocks(num: int, gap: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Rows to learn from and rows of the block, which together with the gaps make up all of ``num``."""
    rows = np.arange(num)
    for held in np.array_split(rows, NUM_BLOCKS):
        yield rows[(rows < held[0] - gap) | (rows > held[-1] + gap)], held


def _pooled_weights(pools: list[dict[str, Moments]], penalty: float, at: int, subject: str) -> Array:
    return solve_pooled(pools[at][subject], penalty)[0]


def _pooled_settings(own: float, penalty: float, high_pass: float) -> dict[str, float]:
    return {"own": own, "penalty": penalty, "high_pass": high_pass}
