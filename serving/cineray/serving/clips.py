"""What is reconstructed: one clip for each showing of a stimulus in a recording."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cineray.core.errors import DataError
from cineray.datasets.dataset import Dataset
from cineray.datasets.examples import Examples

__all__ = ["CLOCK_S", "Clip", "by_recording", "clip_scans", "clips_of", "clips_of_recording", "recording_of"]

CLOCK_S = 1e-6
"""Times closer than this are the same: they come from sums of floats."""


@dataclass(frozen=True)
class Clip:
    """A scan at which a stimulus begins; everything but ``scan`` only names it."""

    example: int
    """Number in the split, or in the recording."""
    subject: str
    run: str
    scan: int
    """In its recording."""
    stimulus_id: str
    follows: bool
    """Whether it begins where the clip before it, in the same recording, ends."""
    group: str = ""
    """Scene of the stimulus; for training and scoring, never for reconstructing."""
    showings: tuple[tuple[str, int], ...] = ()
    """Run and scan of every showing whose mean is reconstructed; empty where it is the one named above."""


def clip_scans(dataset: Dataset) -> int:
    """Scans from the beginning of one clip to the next, at least one.

    Raises:
        DataError: the stimuli are of different lengths, so that no one length can be cut out of a recording.
    """
    length_s = dataset.stimuli(["length_s"])["length_s"].to_numpy()
    if np.ptp(length_s) > CLOCK_S:
        raise DataError(
            f"the stimuli of {dataset.store.url} last {length_s.min():g} to {length_s.max():g} s, expected one length; "
            "ingest films cut into clips of one length"
        )
    return max(1, round(float(length_s[0]) / dataset.tr_s))


def clips_of(dataset: Dataset, examples: Examples) -> list[Clip]:
    """The examples at which a stimulus begins, in their order; later scans of the same showing are left out."""
    numbers = np.arange(len(examples))
    rows, runs = examples.rows(numbers), examples.run_index(numbers)
    stimuli = dataset.stimuli(["stimulus_id", "film", "onset_s", "length_s", "group"]).to_pylist()
    offset_s = dataset.samples(["offset_s"])["offset_s"].to_numpy()[rows]
    shown = dataset.gather_stimulus_rows(rows)
    step = clip_scans(dataset)
    found: list[Clip] = []
    before: tuple[int, int] | None = None
    for number in numbers[offset_s + CLOCK_S < dataset.tr_s].tolist():
        run, stimulus = dataset.runs[runs[number]], stimuli[shown[number]]
        last = stimuli[before[1]] if before and before[0] == rows[number] - step and before[0] in run.rows else None
        joined = (
            last is not None
            and last["film"] == stimulus["film"]
            and abs(last["onset_s"] + last["length_s"] - stimulus["onset_s"]) < CLOCK_S
        )
        scan = int(rows[number]) - run.first_row
        names = (run.subject, run.run, scan, stimulus["stimulus_id"])
        found.append(Clip(number, *names, follows=joined, group=stimulus["group"]))
        before = (int(rows[number]), int(shown[number]))
    return found


def clips_of_recording(subject: str, name: str, num_scans: int, step: int) -> list[Clip]:
    """A recording of unknown content, cut every ``step`` scans; a clip is named by its recording and scan."""
    return [Clip(scan, subject, name, scan, f"{name}:{scan}", follows=scan > 0) for scan in range(0, num_scans, step)]


def by_recording(clips: Iterable[Clip]) -> dict[tuple[str, str], list[Clip]]:
    """(subject, run) -> its clips, in their order."""
    found: dict[tuple[str, str], list[Clip]] = {}
    for clip in clips:
        found.setdefault((clip.subject, clip.run), []).append(clip)
    return found


def recording_of(dataset: Dataset, subject: str, run: str) -> NDArray[np.float16]:
    """(scans, voxels) of one run, as it is stored."""
    rows = next(info.rows for info in dataset.runs if (info.subject, info.run) == (subject, run))
    return dataset.gather_samples(np.array(rows))
