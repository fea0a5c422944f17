"""What would let test information into training, looked for in the rows of a finished split.

Checked: the same stimulus (or stimulus group) in two sets; stimuli of two sets closer in film time than the gap, or a
window of scans that reaches such a stimulus; one person under two names; and a recording cut into training and test
after scaling or detrending used the whole of it.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from cineray.core.errors import LeakError
from cineray.datasets.dataset import Dataset
from cineray.datasets.examples import Examples
from cineray.datasets.window import Window

__all__ = ["Clips", "check_leaks", "shown"]

CLOCK_S = 1e-6
"""Times closer than this are the same: they come from sums of floats."""

SAME_RECORDING = 0.999
"""Correlation above which two recordings are one: copies lose at most float16 rounding (1 - 1e-6), and two
presentations of one film to one person stay far below it, because the noise differs."""

PROBE_ROWS = 16
PROBE_VOXELS = 256
"""Rows and voxels compared: 4096 numbers a recording, whatever its size."""

PROBE_MIN = 32
"""With fewer numbers than this, strangers can agree by chance; such toy recordings are not compared."""


@dataclass(frozen=True)
class Clips:
    """Where each stimulus lies: one entry a row of the stimulus table."""

    stimulus_id: pa.ChunkedArray
    films: NDArray[np.str_]
    """Names that ``film`` points into, sorted."""
    film: NDArray[np.int64]
    groups: NDArray[np.str_]
    group: NDArray[np.int64]
    start_s: NDArray[np.float64]
    end_s: NDArray[np.float64]

    @classmethod
    def of(cls, stimuli: pa.Table) -> "Clips":
        """Read the metadata columns of a stimulus table."""
        films, film = np.unique(stimuli["film"].to_numpy().astype(str), return_inverse=True)
        groups, group = np.unique(stimuli["group"].to_numpy().astype(str), return_inverse=True)
        start_s, length_s = stimuli["onset_s"].to_numpy(), stimuli["length_s"].to_numpy()
        return cls(stimuli["stimulus_id"], films, film, groups, group, start_s, start_s + length_s)

    def __len__(self) -> int:
        return len(self.film)

    def near(self, mask: NDArray[np.bool_], gap_s: float) -> NDArray[np.bool_]:
        """(stimuli,) whether a stimulus overlaps, or is closer than ``gap_s`` to, one of ``mask`` in its film."""
        out = np.zeros(len(self), bool)
        for film in np.unique(self.film[mask]):
            here = np.flatnonzero(self.film == film)
            there = here[mask[here]]
            there = there[np.argsort(self.start_s[there], kind="stable")]
            # Of those that begin early enough, the one that ends last decides.
            begun = np.searchsorted(self.start_s[there], self.end_s[here] + (gap_s - CLOCK_S))
            latest_s = np.concatenate([[-np.inf], np.maximum.accumulate(self.end_s[there])])
            out[here] = latest_s[begun] > self.start_s[here] - (gap_s - CLOCK_S)
        return out

    def blocks(self, num: int) -> NDArray[np.int64]:
        """(stimuli,) block of ``num`` that a stimulus's group begins in, inside its film."""
        first_s, last_s = np.full(len(self.films), np.inf), np.full(len(self.films), -np.inf)
        np.minimum.at(first_s, self.film, self.start_s)
        np.maximum.at(last_s, self.film, self.end_s)
        _, member = np.unique(np.stack([self.film, self.group]), axis=1, return_inverse=True)
        member = member.reshape(-1)
        begins_s = np.full(member.max(initial=-1) + 1, np.inf)
        np.minimum.at(begins_s, member, self.start_s)
        length_s = np.maximum(last_s - first_s, CLOCK_S)[self.film]
        share = (begins_s[member] - first_s[self.film] + CLOCK_S) / length_s
        return np.minimum((share * num).astype(np.int64), num - 1)


def shown(
    dataset: Dataset, examples: Examples, num_stimuli: int, *, per_subject: bool
) -> dict[str | None, NDArray[np.bool_]]:
    """Which stimuli a set holds: one mask (stimuli,) for each subject, or one for all under the key None."""
    masks: dict[str | None, NDArray[np.bool_]] = {}
    for subject in examples.subjects:
        mask = masks.setdefault(subject if per_subject else None, np.zeros(num_stimuli, bool))
        for numbers in examples.chunks(examples.numbers_of(subject)):
            mask[dataset.gather_stimulus_rows(examples.rows(numbers))] = True
    return masks


def check_leaks(
    dataset: Dataset,
    clips: Clips,
    sets: Mapping[str, Examples],
    *,
    window: Window,
    gap_s: float,
    allow_shared: bool,
) -> list[str]:
    """Raise `LeakError` for the first leak; return what is allowed but must be told with the results.

    With ``allow_shared`` stimuli are compared inside each subject only.
    """
    seen = {name: shown(dataset, examples, len(clips), per_subject=allow_shared) for name, examples in sets.items()}
    for one, other in combinations(sets, 2):
        for key in seen[one]:
            _check_stimuli(clips, (one, seen[one][key]), (other, seen[other][key]), gap_s, key)
        near = {key: clips.near(mask, gap_s) for key, mask in seen[other].items()}
        _check_windows(dataset, sets[one], (one, other), near, window)
    _check_people(dataset, sets)
    return [*_cut_recordings(dataset, sets), *(_shared_stimuli(seen) if allow_shared else [])]


def _check_stimuli(
    clips: Clips,
    one: tuple[str, NDArray[np.bool_]],
    other: tuple[str, NDArray[np.bool_]],
    gap_s: float,
    subject: str | None,
) -> None:
    sets = f"both {one[0]} and {other[0]}" + (f" of subject '{subject}'" if subject else "")
    if (both := one[1] & other[1]).any():
        raise LeakError(
            f"stimulus '{_first_id(clips, both)}' ({both.sum()} in all) is in {sets}; select by film, block or group, "
            "or set allow_shared_stimuli if the sets differ in subjects"
        )
    if len(groups := np.intersect1d(clips.group[one[1]], clips.group[other[1]])):
        raise LeakError(
            f"stimulus group '{clips.groups[groups[0]]}' ({len(groups)} in all) is in {sets}; "
            "a group is never divided: select whole groups"
        )
    if (close := one[1] & clips.near(other[1], gap_s)).any():
        raise LeakError(
            f"stimulus '{_first_id(clips, close)}' of {one[0]} is closer than {gap_s:g} s to a stimulus of {other[0]} "
            "in its film; leave a gap between the sets"
        )


def _check_windows(
    dataset: Dataset,
    examples: Examples,
    names: tuple[str, str],
    near: Mapping[str | None, NDArray[np.bool_]],
    window: Window,
) -> None:
    """No scan in a window of ``examples`` shows a stimulus that is ``near`` the other set's."""
    reach = np.arange(window.first, window.last + 1)
    for index, run, first, num in zip(*_columns(examples), strict=True):
        recording, subject = dataset.runs[run], examples.subjects[index]
        scans = np.arange(first, first + num)[:, None] + reach
        scans = np.clip(scans, recording.first_row, recording.first_row + recording.num_rows - 1)
        shown_rows, place = np.unique(scans, return_inverse=True)
        clip = dataset.gather_stimulus_rows(shown_rows)
        bad = (clip >= 0) & near[subject if subject in near else None][clip]
        if (found := bad[place.reshape(scans.shape)].any(1)).any():
            scan = first - recording.first_row + int(np.flatnonzero(found)[0])
            raise LeakError(
                f"the window of scan {scan} of run '{recording.run}' of subject '{subject}', in {names[0]}, reaches a "
                f"stimulus of {names[1]} or one within the gap; leave the sets further apart or narrow view.window"
            )


def _columns(examples: Examples) -> list[list[int]]:
    """Subject, run, first row and rows of each range."""
    return [x.tolist() for x in (examples.subject, examples.run, examples.first_row, examples.num_rows)]


def _first_id(clips: Clips, mask: NDArray[np.bool_]) -> str:
    return clips.stimulus_id[int(np.flatnonzero(mask)[0])].as_py()


def _check_people(dataset: Dataset, sets: Mapping[str, Examples]) -> None:
    """No two names (of people or of runs) for one recording across two sets."""
    people, recordings = _members(dataset, sets)
    for one, other in _same_recordings(dataset, people):
        a, b = dataset.runs[one], dataset.runs[other]
        different = a.subject != b.subject
        of_a = people[a.subject] if different else recordings[one]
        of_b = people[b.subject] if different else recordings[other]
        if of_a and of_b and len(of_a | of_b) > 1:
            raise LeakError(
                f"run '{a.run}' of subject '{a.subject}' and run '{b.run}' of subject '{b.subject}' are the same "
                f"recording under two names and meet in {' and '.join(sorted(of_a | of_b))}; remove one of them"
            )


def _members(
    dataset: Dataset, sets: Mapping[str, Examples]
) -> tuple[dict[str, frozenset[str]], dict[int, frozenset[str]]]:
    """Sets that each subject, and each recording (index into ``dataset.runs``), has rows in."""
    people: dict[str, frozenset[str]] = defaultdict(frozenset)
    recordings: dict[int, frozenset[str]] = defaultdict(frozenset)
    for name, examples in sets.items():
        for index in np.unique(examples.run).tolist():
            recordings[index] |= {name}
            people[dataset.runs[index].subject] |= {name}
    return people, recordings


def _same_recordings(dataset: Dataset, people: Mapping[str, frozenset[str]]) -> Iterator[tuple[int, int]]:
    """Pairs of recordings of ``people`` with the same content: equally long, equally wide, correlation about 1."""
    alike: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, run in enumerate(dataset.runs):
        if run.subject in people:
            alike[run.num_rows, dataset.num_voxels[run.subject]].append(index)
    for (num_rows, num_voxels), indices in alike.items():
        if len(indices) < 2:
            continue
        rows = np.unique(np.linspace(0, min(num_rows, PROBE_ROWS * 8) - 1, PROBE_ROWS).astype(np.int64))
        voxels = np.unique(np.linspace(0, num_voxels - 1, PROBE_VOXELS).astype(np.int64))
        if rows.size * voxels.size < PROBE_MIN:
            continue
        x = np.stack([_probe(dataset, dataset.runs[i].first_row + rows, voxels) for i in indices])
        for a, b in np.argwhere(np.triu(x @ x.T > SAME_RECORDING, 1)).tolist():
            yield indices[a], indices[b]


def _probe(dataset: Dataset, rows: NDArray[np.int64], voxels: NDArray[np.int64]) -> NDArray[np.float32]:
    """(rows x voxels,) of unit length, each voxel's mean removed: what is left is the recording, not the anatomy."""
    x = dataset.gather_samples(rows)[:, voxels].astype(np.float32)
    x = (x - x.mean(0)).ravel()
    return x / max(float(np.linalg.norm(x)), np.finfo(np.float32).tiny)


def _cut_recordings(dataset: Dataset, sets: Mapping[str, Examples]) -> list[str]:
    """A recording in two sets, if its scaling or the removal of its drift used all of it."""
    if (done := _done_to_whole_runs(dataset)) is None:
        return []
    _, recordings = _members(dataset, sets)
    notes = set()
    for index, names in recordings.items():
        run = dataset.runs[index]
        if {"train", "test"} <= names:
            raise LeakError(
                f"run '{run.run}' of subject '{run.subject}' is cut into train and test but was {done} over the "
                "whole run; keep a run on one side or ingest with zscore=none and without detrend and high_pass_s"
            )
        if len(names) > 1:
            notes.add(f"{' and '.join(sorted(names))} share runs that were {done} as a whole")
    return sorted(notes)


def _done_to_whole_runs(dataset: Dataset) -> str | None:
    """What mixed scans of a run: the ingest notes its own, the source what came before (`SignalConfig.notes`).

    Causal scaling counts too: test scans that were measured first are in the scale of training scans after them.
    """
    signal = dataset.manifest.signal
    if {"run", "causal"} & {signal.get("norm"), dataset.manifest.notes.get("norm")}:
        return "z-scored"
    filtered = signal.get("detrend") is not None or signal.get("high_pass_s") is not None
    return "freed of drift" if filtered else None


def _shared_stimuli(seen: Mapping[str, Mapping[str | None, NDArray[np.bool_]]]) -> list[str]:
    train, test = (np.any(list(seen[name].values()), axis=0) for name in ("train", "test"))
    share = (train & test).sum() / test.sum()
    return [f"{share:.0%} of the test stimuli were seen in training by other subjects"] if share else []
