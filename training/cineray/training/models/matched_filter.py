"""Matched filter: one encoding model of the group, seen through a personal map, turned round to decode.

The brain of person s (rows t; v voxels; p stimulus values y) is modelled as

    x_s(t) = g(t) M_s + n_s(t),    g(t) = y(t) B

B (p, v), shared, is the ridge regression of the group's mean brain on the stimulus. M_s (v, v) is the ridge regression
of the person's scans on the group's mean brain, shrunk towards the identity: what is known of nobody is taken from
everybody (hyperalignment, Haxby et al. 2011, without the orthogonality). S_s is the scatter of the noise, part of it
the group's and part the person's own. With E_s = B M_s the decoder is

    ŷ(t) = h * (x_s(t) S_s⁻¹ E_s' D_s),    D_s = diag(‖S_s^-½ e_p‖^gain)

x S⁻¹ E' is all that the likelihood of y has to do with x, if the noise is Gaussian: the matched filter (Turin 1960),
in imaging the inverted encoding model (Brouwer & Heeger 2009). D lets values weigh more that the brain carries well.
h is a fixed high-pass over the scans of the window: slow drifts tell no clip from another. One factor brings all values
to the size of least squared error on the training rows; the pattern over values is the filter's.

Shared B and S leave the person decoded out wherever nothing of that person may be used, so they differ a little from
person to person and are folded into the subject's own read-in.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from cineray.core.config import Config
from cineray.core.errors import DataError
from cineray.training.models.base import Sizes, Trial
from cineray.training.models.group import (
    Group,
    encoder,
    least_squares_factor,
    matched_filter,
    noise_scatter,
    personal_map,
)
from cineray.training.models.linear import LinearDecoder, align, flat_brain, flat_targets

__all__ = ["MatchedFilterConfig", "MatchedFilterDecoder", "high_pass_taps", "middle_taps", "solve_person"]

Array = NDArray[np.floating]


class MatchedFilterConfig(Config):
    """Settings of the matched filter; the penalties are those of regressions on about 1500 scans of unit variance."""

    name: Literal["matched_filter"] = "matched_filter"
    person: Literal["within", "aligned", "unseen"] = "within"
    """What the fit uses of the person decoded. ``within``: scans and their labels. ``aligned``: scans of a film the
    others saw too, with the others' labels of the same moments. ``unseen``: nothing; the map of each subject is made
    from the others alone. In all three, voxels are z-scored with the subject's own training rows where it has some
    (`ViewConfig.normalise`)."""
    encoder_penalty: float = Field(default=300.0, ge=0)
    noise_penalty: float = Field(default=1000.0, gt=0)
    gain: float = Field(default=1.5, ge=0)
    map_penalty: float = Field(default=3000.0, gt=0)
    own_noise: float = Field(default=0.5, ge=0, le=1)
    """Share of the person's own noise in S; the rest is the others'."""
    high_pass: float = Field(default=0.5, ge=0, le=1)
    """How much of the running mean is taken off; 0 leaves the prediction of the window's middle scan."""
    high_pass_sd_tr: float = Field(default=4.0, gt=0)
    """Standard deviation of the running mean's Gaussian, in scans; it reaches as far as the window does."""

    def build(self, sizes: Sizes) -> "MatchedFilterDecoder":
        """One map per subject, still unsolved; voxels must mean the same in everybody (parcels)."""
        if len(set(sizes.voxels.values())) > 1:
            found = ", ".join(f"{s} {v}" for s, v in list(sizes.voxels.items())[:4])
            raise DataError(
                f"matched_filter averages brains voxel by voxel, found {found}; use parcels or model.name=srm"
            )
        return MatchedFilterDecoder(self, sizes)


class MatchedFilterDecoder(LinearDecoder):
    """Linear read-in of every subject, then one high-pass for all; where nothing is needed of a subject, any will do.

    Training rows that all subjects have are used; there must be two subjects with such rows at least.
    """

    advice = "train on scans of this subject, or set model.person=unseen"
    taps: Tensor

    def __init__(self, config: MatchedFilterConfig, sizes: Sizes) -> None:
        super().__init__(Sizes(sizes.voxels, 1, sizes.targets))
        self.config, self.subjects = config, list(sizes.voxels)
        self.middle = torch.from_numpy(middle_taps(sizes.scans)).float()
        taps = high_pass_taps(sizes.scans, config.high_pass, config.high_pass_sd_tr)
        self.register_buffer("taps", torch.from_numpy(taps).float())

    def forward(self, brain: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Every subject's map runs, in the order of ``brain``, with zero rows if need be."""
        return super().forward({s: _weighted(x, self.taps) for s, x in brain.items()})

    def fit(self, trials: Iterable[Trial]) -> None:
        """One map per subject, from the scan in the middle of each window."""
        rows = [replace(t, brain=_weighted(t.brain, self.middle.to(t.brain.device))) for t in trials]
        aligned = align(rows)
        places = aligned.common()
        if len(rows) < 2 or len(places) < 2:
            raise DataError(
                f"{len(places)} training rows are common to {len(rows)} subjects; matched_filter needs one film seen "
                "by at least two"
            )
        at = {t.subject: aligned.rows_at(t.subject, places) for t in rows}
        brains = {t.subject: flat_brain(t)[at[t.subject]].astype(np.float64) for t in rows}
        labels = {t.subject: flat_targets(t, self.shapes)[at[t.subject]].astype(np.float64) for t in rows}
        group = Group(brains, labels)
        for subject in self.subjects:
            if self.config.person == "unseen" or subject in group.people:
                self._solve(subject, group)

    def _solve(self, subject: str, group: Group) -> None:
        weights = solve_person(group, subject, self.config)
        within, others = self.config.person == "within", group.others(subject)
        label = np.mean([group.mean_label[s] for s in ([subject] if within else others)], axis=0)
        unseen = self.config.person == "unseen"
        brain = np.mean([group.mean_brain[s] for s in (others if unseen else [subject])], axis=0)
        self.map_of(subject).solve(weights.T, label - float(self.taps.sum()) * brain @ weights)


def solve_person(group: Group, subject: str, c: MatchedFilterConfig) -> Array:
    """Weights (voxels, values) of one person, who may be missing from the group if ``c.person`` is ``unseen``."""
    rows = others = group.without(subject)
    shared = group.all / len(group.people) if c.person == "within" else others
    encoding = encoder(shared, c.encoder_penalty)
    noise = noise_scatter(others, encoding)
    if c.person != "unseen":
        encoding = encoding @ personal_map(*group.response(subject), c.map_penalty)
        rows = group.people[subject].own if c.person == "within" else group.labelled_by_others(subject)
        noise = (1 - c.own_noise) * noise + c.own_noise * noise_scatter(rows, encoding)
    weights = matched_filter(encoding, noise, c.noise_penalty, c.gain)
    return weights * least_squares_factor(rows, weights)


def middle_taps(scans: int) -> NDArray[np.float64]:
    """(scans,) weights that take the middle scan, or the mean of the two in the middle of an even window."""
    middle = np.abs(np.arange(scans) - (scans - 1) / 2) <= 0.5
    return middle / middle.sum()


def high_pass_taps(scans: int, amount: float, sd_tr: float) -> NDArray[np.float64]:
    """(scans,) weights of the middle less ``amount`` times a Gaussian running mean over the window."""
    running = np.exp(-0.5 * ((np.arange(scans) - (scans - 1) / 2) / sd_tr) ** 2)
    return middle_taps(scans) - amount * running / running.sum()


def _weighted(brain: Tensor, taps: Tensor) -> Tensor:
    """(rows, scans, voxels) to (rows, 1, voxels)."""
    return torch.einsum("nsv,s->nv", brain, taps)[:, None]
