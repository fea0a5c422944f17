"""From a recording as measured to one a model can eat: voxels chosen, drift removed, scaled, paired with its stimulus.

Every step looks at **one run of one subject** only, so no statistic can travel from a test run into a training run.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from cineray.core.config import Config
from cineray.core.errors import ConfigError, DataError
from cineray.datasets.drift import drift_basis, remove_drift
from cineray.datasets.sources.base import Recording

__all__ = ["SignalConfig", "pair_with_lag", "prepare", "prepared", "usable_voxels"]

CLOCK_S = 1e-6
"""Onsets closer than this are the same instant: they come from sums and products of floats."""

FLAT = 1e-7
"""A voxel whose sd is below this share of its largest value holds rounding error, not signal (float32 has 6e-8)."""


class SignalConfig(Config):
    """What is done to each run before it is stored; recorded in the manifest."""

    lag_s: float = Field(default=0.0, ge=0)
    """Haemodynamic lag: the scan at ``t`` is paired with the stimulus shown at ``t - lag_s``. 0 where the stimulus
    features already carry the delay (song) or the samples are betas; 4 to 6 s for plain time series."""
    detrend: int | None = Field(default=None, ge=0, le=8)
    """Order of the polynomial removed from each voxel (4 in the published cc2017 preparation)."""
    high_pass_s: float | None = Field(default=None, gt=0)
    """Slowest period kept: slower discrete cosines are removed (128 s is customary)."""
    zscore: Literal["run", "causal", "none"] = "run"
    """``run``: mean 0 and sd 1 (ddof 0) for each voxel over all scans of its own run. ``causal``: each scan by the mean
    and sd of the scans of its run up to it, as a scanner could while it measures; drift cannot be removed then."""
    calibration_s: float = Field(default=60.0, gt=0)
    """Of ``causal``: the first so many seconds of each run only give mean and sd, and are paired with no stimulus."""
    voxels: tuple[tuple[int, int], ...] = ()
    """Half-open ranges of voxel columns to keep, in this order; empty keeps all of them."""
    bad_voxels: Literal["refuse", "drop"] = "refuse"
    """``drop`` removes a voxel from **all** runs of a subject if it is not finite or (where it would be z-scored)
    constant in any of them."""

    @model_validator(mode="after")
    def _consistent(self) -> "SignalConfig":
        if self.zscore != "causal" and self.calibration_s != type(self).model_fields["calibration_s"].default:
            raise ConfigError(
                "signal.calibration_s is set, but only zscore=causal calibrates; leave it out or ask for that"
            )
        if self.zscore == "causal" and not (self.detrend is None and self.high_pass_s is None):
            raise ConfigError(
                "zscore=causal knows only the past, expected no removal of drift, which is fitted to whole runs; set "
                "signal.detrend and signal.high_pass_s to null"
            )
        return self

    @classmethod
    def suiting(cls, source: str) -> "SignalConfig":
        """What is done to a source (by name) unless the user says otherwise."""
        return SUITING.get(source, cls())

    def notes(self) -> dict[str, object]:
        """What the manifest remembers of the scaling. Without z-scoring here the source's own ``norm`` stands."""
        if self.zscore == "none":
            return {}
        if self.zscore == "causal":
            rule = "mean 0, sd 1 (ddof 0) per voxel over the scans of its run up to each"
            return {"norm": "causal", "norm_rule": f"{rule}, at least {self.calibration_s:g} s"}
        return {"norm": "run", "norm_rule": "mean 0, sd 1 (ddof 0) per voxel over all scans of its run"}


SUITING = {
    "song": SignalConfig(zscore="none"),  # comes z-scored, its stimulus features come delayed
    "derivatives": SignalConfig(lag_s=4.0, high_pass_s=128.0),
    "cc2017": SignalConfig(lag_s=4.0, detrend=4),  # as published
    # Betas, scaled by their source from training trials alone.
    "nsd": SignalConfig(zscore="none"),
    "bold_moments": SignalConfig(zscore="none"),
}


def prepared(
    recordings: Callable[[], Iterable[Recording]], config: SignalConfig, length_s: Mapping[str, float]
) -> Iterator[Recording]:
    """Every recording, ready to store. ``recordings`` is called twice if bad voxels are to be dropped."""
    usable = usable_voxels(recordings(), config) if config.bad_voxels == "drop" else {}
    for recording in recordings():
        yield prepare(recording, config, length_s, usable.get(recording.subject))


def prepare(
    recording: Recording,
    config: SignalConfig,
    length_s: Mapping[str, float],
    usable: NDArray[np.bool_] | None = None,
) -> Recording:
    """One run, float32: voxels chosen, drift removed, scaled, paired with the stimulus ``config.lag_s`` earlier.

    Args:
        length_s: length of every stimulus by id.
        usable: (voxels,) mask over the *chosen* voxels from `usable_voxels`, the same for all runs of a subject.
    """
    brain, bad = _without_drift(recording, config)
    if usable is not None:
        _same_voxels(recording, bad, usable)
        brain, bad = brain[:, usable], bad[usable]
    if bad.any():
        raise DataError(
            f"{_name(recording)} has {bad.sum()} of {len(bad)} voxels that are constant or not finite (first: "
            f"{int(np.argmax(bad))}), expected a signal in each; exclude them or set signal.bad_voxels=drop"
        )
    calibration = _calibration_scans(recording, config)
    if config.zscore != "none":
        brain = (brain - brain.mean(0)) / brain.std(0) if config.zscore == "run" else _causal(brain, calibration)
    limit = np.finfo(np.float16).max
    if np.abs(brain).max() > limit:
        raise DataError(
            f"{_name(recording)} reaches {np.abs(brain).max():.4g}, expected at most {limit:.0f} (float16); "
            "set signal.zscore=run"
        )
    paired = pair_with_lag(replace(recording, brain=brain.astype(np.float32)), config.lag_s, length_s)
    if not calibration:
        return paired
    rest = np.full(calibration, np.nan)
    return replace(
        paired,
        stimulus_id=[None] * calibration + paired.stimulus_id[calibration:],
        offset_s=np.concatenate([rest, paired.offset_s[calibration:]]),
    )


def usable_voxels(recordings: Iterable[Recording], config: SignalConfig) -> dict[str, NDArray[np.bool_]]:
    """Subject -> (chosen voxels,) mask of those with a signal in every run."""
    usable: dict[str, NDArray[np.bool_]] = {}
    for recording in recordings:
        bad = _without_drift(recording, config)[1]
        before = usable.setdefault(recording.subject, np.ones_like(bad))
        _same_voxels(recording, bad, before)
        usable[recording.subject] = before & ~bad
    for subject, mask in usable.items():
        if not mask.any():
            raise DataError(f"{subject} has no voxel with a signal in all of its runs; look for an empty or broken run")
    return usable


def pair_with_lag(recording: Recording, lag_s: float, length_s: Mapping[str, float]) -> Recording:
    """Pair the scan at ``t`` with what was shown at ``t - lag_s``; the brain array is not touched.

    A showing lasts for ``length_s`` of its stimulus or until the next one, so the lag need not be a whole number of
    scans. A scan whose ``t - lag_s`` lies before the first showing, in a pause or after the end is at rest (None and
    nan).
    """
    if lag_s == 0:
        return recording
    showings = sorted(_showings(recording))
    start = np.array([begun for begun, _ in showings])
    ids: list[str | None] = []
    offsets = np.full(len(recording.onset_s), np.nan)
    for scan, moment in enumerate(recording.onset_s - lag_s):
        last = int(np.searchsorted(start, moment + CLOCK_S, side="right")) - 1
        name = showings[last][1] if last >= 0 else None
        into = moment - start[last] if name is not None else np.nan
        on = name is not None and into < length_s[name] - CLOCK_S
        ids.append(name if on else None)
        offsets[scan] = max(into, 0.0) if on else np.nan
    return replace(recording, stimulus_id=ids, offset_s=offsets)


def _showings(recording: Recording) -> Iterable[tuple[float, str]]:
    """The log, or what can be read off the pairing: each scan's stimulus began ``offset_s`` before the scan."""
    if recording.showings is not None:
        return recording.showings
    start_s = recording.onset_s - recording.offset_s
    return [(float(t), name) for t, name in zip(start_s, recording.stimulus_id, strict=True) if name is not None]


def _without_drift(recording: Recording, config: SignalConfig) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """(scans, chosen voxels) less drift, and which of them are not finite or (if they will be scaled) constant."""
    measured = np.asarray(_chosen(recording, config), np.float64)
    bad = ~np.asarray(np.isfinite(measured).all(0))
    measured = np.where(bad, 0, measured)
    basis = drift_basis(recording.onset_s, recording.tr_s, config.detrend, config.high_pass_s)
    brain = remove_drift(measured, basis)
    if config.zscore != "none":
        scaling = brain[: _calibration_scans(recording, config) or None]
        bad |= scaling.std(0) <= FLAT * np.abs(measured).max(0)
    return brain, bad


def _calibration_scans(recording: Recording, config: SignalConfig) -> int:
    """How many scans at the beginning only give mean and sd; 0 where the scaling is not causal."""
    if config.zscore != "causal":
        return 0
    num = int(np.sum(recording.onset_s - recording.onset_s[0] < config.calibration_s - CLOCK_S))
    if not 2 <= num < len(recording.onset_s):
        raise DataError(
            f"{_name(recording)} has {num} of {len(recording.onset_s)} scans in the {config.calibration_s:g} s that "
            "calibrate it, expected two at least, and some after them; change signal.calibration_s"
        )
    return num


def _causal(brain: NDArray[np.float64], calibration: int) -> NDArray[np.float64]:
    """Each scan of (scans, voxels) by mean and sd of the scans up to it, or of the first ``calibration`` if later."""
    shifted = brain - brain[:calibration].mean(0)  # the sums of squares of large values would lose the variance
    num = np.arange(1, len(brain) + 1)[:, None]
    mean = np.cumsum(shifted, axis=0) / num
    sd = np.sqrt(np.maximum(np.cumsum(shifted**2, axis=0) / num - mean**2, 0))
    mean[: calibration - 1], sd[: calibration - 1] = mean[calibration - 1], sd[calibration - 1]
    return (shifted - mean) / sd


def _chosen(recording: Recording, config: SignalConfig) -> NDArray[np.floating]:
    """(scans, chosen voxels)."""
    voxels = recording.brain.shape[1]
    for first, end in config.voxels:
        if not 0 <= first < end <= voxels:
            raise DataError(
                f"{_name(recording)} has {voxels} voxels and signal.voxels asks for [{first}, {end}); choose a range "
                "inside it"
            )
    if not config.voxels:
        return recording.brain
    return recording.brain[:, np.concatenate([np.arange(*pair) for pair in config.voxels])]


def _same_voxels(recording: Recording, found: NDArray[np.bool_], expected: NDArray[np.bool_]) -> None:
    if len(found) != len(expected):
        raise DataError(
            f"{_name(recording)} has {len(found)} voxels, another run of {recording.subject} has {len(expected)}; "
            "a subject's voxels must be the same in all runs"
        )


def _name(recording: Recording) -> str:
    return f"{recording.subject}, run '{recording.run}'"
