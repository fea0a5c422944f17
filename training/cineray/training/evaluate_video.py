"""Score reconstructed videos: reads the clips on disk and the data set's true frames, never a pipeline.

``evaluation/<split>-<kind>.json`` holds the table, every clip's values (which paired comparisons and the gallery
read), and every metric that could not be computed, with the reason: nothing is estimated without its network.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cineray.core.errors import ConfigError, DataError, IntegrityError
from cineray.core.storage import Store
from cineray.datasets.dataset import Dataset
from cineray.datasets.manifest import require_data
from cineray.training.bootstrap import interval, of_values
from cineray.training.pictures import VIDEO_METRICS
from cineray.training.pictures.base import Networks
from cineray.training.reconstructions import Reconstructions
from cineray.training.row_labels import num_scored
from cineray.training.video_absent import why_absent
from cineray.training.video_brains import read_brain
from cineray.training.video_clips import SubjectClips, Truths, mean_training_frame, wrong_clips
from cineray.training.video_scores import clip_draws, fvd_line, line, measure
from cineray.training.video_settings import FVD, EvaluateVideoConfig

__all__ = ["Difference", "EvaluateVideoConfig", "compare_videos", "evaluate_video", "format_video_table"]

UNDEFINED = "it is not defined for any clip of a subject"


@dataclass(frozen=True)
class Difference:
    """A paired difference, its 95 % interval over clips, and each subject's own."""

    value: float
    low: float
    high: float
    per_subject: dict[str, float]

    @property
    def same_sign(self) -> int:
        """Subjects whose own difference has the sign of the whole."""
        return sum(np.sign(own) == np.sign(self.value) for own in self.per_subject.values())


def evaluate_video(
    run_dir: str | Path,
    split: str = "test",
    config: EvaluateVideoConfig | None = None,
    *,
    progress: Callable[[str], None] = lambda metric: None,
) -> dict[str, Any]:
    """Score the reconstructions of a split and write ``evaluation/<split>-<kind>.json``; returns what was written.

    ``progress`` is told the name of each metric before it is computed.
    """
    config = config or EvaluateVideoConfig()
    store = Store.at(run_dir)
    folder = Reconstructions.open(store, split)
    dataset = Dataset.open(folder.origin.dataset)
    require_data(dataset.fingerprint, folder.origin.data, url=dataset.store.url, user=store.url)
    truths = Truths.read(dataset, [entry.stimulus_id for entry in folder.entries], config)
    people = _people(folder, dataset, truths, config)
    networks = _networks(config)
    absent = {name: why for name in config.names if (why := why_absent(name, people, truths, networks))}
    baselines = truths.baselines(mean_training_frame(store, folder, dataset))
    names = [name for name in config.names if name not in absent]
    scored = _scores(names, people, truths, baselines, networks, config, progress)
    found = {
        "run": Path(store.url).name,
        "split": split,
        "part": config.part,
        "blend": config.mixed,
        "dataset": dataset.store.url,
        "settings": folder.origin.settings,
        "notes": list(folder.origin.notes),
        "labels": [*folder.origin.labels, num_scored(split, len(truths.ids))],
        "config": config.model_dump(mode="json"),
        "config_fingerprint": config.fingerprint(),
        "networks": {role: network.name for role, network in networks.items()},
        "encoding": {p.subject: p.brain.encoder.name for p in people if p.brain},
        "num_clips": len(folder.entries),
        "subjects": [person.subject for person in people],
        "stimuli": truths.ids,
        **scored,
        "absent": absent | {name: UNDEFINED for name in names if name not in scored["metrics"]},
    }
    store.put(f"evaluation/{split}-{config.kind}.json", json.dumps(found, indent=1, allow_nan=False).encode())
    return found


def compare_videos(
    first: str | Path | Sequence[str | Path],
    second: str | Path | Sequence[str | Path],
    split: str = "test",
    kind: str = "video",
) -> dict[str, Difference]:
    """Metric -> paired difference, first minus second, over the clips that both reconstructed.

    Each side is an evaluated folder, or several (seeds), whose values are averaged clip by clip. Scores of sets (fvd)
    have no clips and are left out.

    Raises:
        DataError: other subjects or clips on one side, or other settings of the evaluation.
    """
    ours, theirs = (_sides(side, split, kind) for side in (first, second))
    one = ours[0]
    for other in (*ours, *theirs):
        for what in ("config_fingerprint", "subjects", "stimuli"):
            if other[what] != one[what]:
                raise DataError(
                    f"the evaluations of {one['run']} and {other['run']} differ in their {what}; "
                    "evaluate the same clips with the same settings"
                )
    config = EvaluateVideoConfig.parse(one["config"])
    draws = clip_draws(len(one["subjects"]), one["blocks"], num=config.num_bootstrap, seed=config.seed)
    found = {}
    for name in (n for n in one["values"] if all(n in side["values"] for side in (*ours, *theirs))):
        difference = _mean(ours, name) - _mean(theirs, name)
        scores = of_values(difference, draws.weights)
        own = dict(zip(one["subjects"], scores[0].tolist(), strict=True))
        found[name] = Difference(*interval(scores, draws), per_subject=own)
    return found


def read_evaluation(store: Store, split: str, kind: str = "video") -> dict[str, Any]:
    """What `evaluate_video` wrote; ``kind`` is `EvaluateVideoConfig.kind`."""
    if not store.exists(key := f"evaluation/{split}-{kind}.json"):
        part, _, more = kind.partition("-")
        words = {"": "", "blend": " blend=mindeye2"}.get(more, f" paper={more}")
        raise ConfigError(
            f"{store.url} holds no {key}; write it with `cineray eval {store.url} split={split} part={part}{words}`"
        )
    try:
        return json.loads(store.get(key))
    except ValueError:
        raise IntegrityError(f"{store.path(key)} is damaged; evaluate this split again") from None


def format_video_table(evaluation: Mapping[str, Any]) -> str:
    """The table in plain text."""
    columns = ("mean_training_frame", "flat_grey", "first_frame", "zero_flow")
    heads = (
        "metric",
        "value",
        "95 % interval",
        "chance",
        "null",
        "mean frame",
        "grey",
        "1st frame",
        "zero flow",
        "truth",
    )
    lines = [", ".join(evaluation["labels"])]
    lines += ["{:<24}{:>9}{:>20}{:>9}{:>9}{:>12}{:>9}{:>11}{:>11}{:>9}".format(*heads)]
    for s in evaluation["metrics"].values():
        others = [s["chance"], s["null"], *(s["baselines"].get(name) for name in columns), s["truth"]]
        cells = [f"{x:.3f}" if x is not None else "–" for x in others]
        between = f"{s['low']:.3f} … {s['high']:.3f}"
        form = "{:<24}{:>9.3f}{:>20}{:>9}{:>9}{:>12}{:>9}{:>11}{:>11}{:>9}"
        lines.append(form.format(s["metric"], s["value"], between, *cells))
    for s in evaluation["metrics"].values():
        if best := s["baselines"].get("captioner"):
            lines += [f"{s['metric']:<24} {s['value'] / best:.3f} of a captioner's {best:.3f} on the true stimulus"]
    lines += [f"blend: {evaluation['blend']}"]
    lines += [f"{name:<24} absent: {why}" for name, why in evaluation["absent"].items()]
    return "\n".join(lines)


def _scores(
    names: Sequence[str],
    people: list[SubjectClips],
    truths: Truths,
    baselines: Mapping[str, Any],
    networks: Networks,
    config: EvaluateVideoConfig,
    progress: Callable[[str], None],
) -> dict[str, Any]:
    """``metrics``: name -> line of the table; ``values``: name -> (subjects, stimuli), None where not defined;
    ``blocks``: which stimuli are resampled together.
    """
    rng = np.random.default_rng(config.seed)
    wrong = [[wrong_clips(truths, p.own, config.min_gap_s, rng) for _ in range(config.num_null)] for p in people]
    blocks = truths.blocks(config.block_clips)
    draws = clip_draws(len(people), blocks, num=config.num_bootstrap, seed=config.seed)
    lines: dict[str, Any] = {}
    values: dict[str, Any] = {}
    for name in names:
        progress(name)
        if name == FVD:
            lines[name] = fvd_line(people, truths, blocks, baselines, networks)
            continue
        found = measure(VIDEO_METRICS[name], people, truths, wrong, baselines, networks)
        if np.isnan(found.own).all(1).any():
            continue
        lines[name] = line(VIDEO_METRICS[name], found, [p.subject for p in people], draws, networks)
        values[name] = [[None if np.isnan(v) else float(v) for v in row] for row in found.own]
    return {"metrics": lines, "values": values, "blocks": blocks}


def _networks(config: EvaluateVideoConfig) -> Networks:
    """Role -> network; one that has several roles is built once."""
    built = {network: network.build() for network in set(config.networks.values())}
    return {role: built[network] for role, network in config.networks.items()}


def _people(
    folder: Reconstructions, dataset: Dataset, truths: Truths, config: EvaluateVideoConfig
) -> list[SubjectClips]:
    """In the order of their names."""
    people = []
    for subject in sorted({entry.subject for entry in folder.entries}):
        clips = SubjectClips.read(folder, subject, truths, config)
        people.append(replace(clips, brain=read_brain(dataset, subject, truths.ids, config.encoding.get(subject))))
    return people


def _sides(side: str | Path | Sequence[str | Path], split: str, kind: str) -> list[dict[str, Any]]:
    folders = [side] if isinstance(side, str | Path) else side
    return [read_evaluation(Store.at(folder), split, kind) for folder in folders]


def _mean(sides: Sequence[dict[str, Any]], name: str) -> NDArray[np.float64]:
    """(subjects, stimuli) over the seeds of one side."""
    return np.mean([np.array(side["values"][name], np.float64) for side in sides], axis=0)
