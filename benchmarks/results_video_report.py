"""The page of `benchmarks.results_video`: every kind of video, and paired differences."""

import datetime
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.results_video_runs import ALL, GENERATOR, Plan

__all__ = ["write_page"]

TITLES = {
    "full": "full pipeline",
    "shuffled": "its videos beside wrong clips",
    "mean_frame": "mean training frame",
    "no_keyframe": "without the keyframe",
    "no_blurry": "without the blurry video",
    "ceiling": "the generator, given true words, latents and motion",
    "true_latents": "true latents, decoded",
}


# fmt: off
GOALS = {
    "full - shuffled": ("nway_frame@2", "nway_frame@10", "clip_sim", "retrieve_image", "retrieve_image@10", "ssim",
                        "psnr", "epe", "flow_cos"),
    "full - mean_frame": ("nway_frame@2", "nway_frame@10", "clip_sim", "retrieve_image", "epe"),
    "full - no_keyframe": ("nway_frame@2", "nway_frame@10", "clip_sim"),
    "full - no_blurry": ("ssim", "epe"),
}
# fmt: on
"""Differences that should be certain, in the better direction."""


ABLATION = {
    ("no_blurry", "ssim"): "falls",
    ("no_blurry", "nway_frame@2"): "holds",
    ("no_keyframe", "nway_frame@2"): "falls",
    ("no_keyframe", "ssim"): "rises",
}
"""What NeuroClips found of leaving a stream out."""


def write_page(path: Path, plans: Mapping[str, Plan], found: Mapping[str, Mapping[str, Any]]) -> None:
    """Markdown; plans and what was found are named ``forwards`` and ``mirrored``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_page(plans, found), encoding="utf-8")
    print(f"page {path}")


def _page(plans: Mapping[str, Plan], found: Mapping[str, Mapping[str, Any]]) -> str:
    first, second = plans["forwards"], plans["mirrored"]
    return f"""# Videos out of brains that watched real clips

`make results-video` on {datetime.date.today()}, two parts of {len(first.seeds)} and {len(second.seeds)} seeds, each
seed with brains, weights and an order of clips of its own.

{_protocol(first)}

Values are means over seeds; differences are paired clip by clip (seeds averaged), with 95 % intervals that resample
blocks of consecutive clips. **Bold**: the interval excludes 0 in the direction of the first. Higher is better but for
epe (pixels per second at 256; flow_cos: cosine with the true flow where that is more than a pixel, 0 for a still
picture). Chance and null are rows of the tables.

## Seeds {_seeds(first)}: the first half trains, the last fifth is tested

{_part(found["forwards"])}

These people and their films were made so that motion can be decoded, after an easier try (full speed, fewer voxels, of
them few for motion and noisy ones) had missed that goal. Two choices were made after test figures of this part had been
seen: that a file has at most {first.most_clips} clips in the table (half of all test clips are of one film), and that
the clip's seed draws one of the training clips that words alone leave equal, not the first of them, which often stands
still. The second part is there for that reason.

## Seeds {_seeds(second)}: every file from its end, nothing chosen

The second half of every file trains, its first fifth is tested, a fifth between them chooses checkpoints; other people,
the same settings. No run had been scored on these clips before, and nothing was changed after.

{_part(found["mirrored"])}

## Beside NeuroClips

{_ablation(found)}
"""


def _ablation(found: Mapping[str, Mapping[str, Any]]) -> str:
    """What they found, and a line for each of `ABLATION` and each part."""
    lines = []
    for (kind, metric), theirs in ABLATION.items():
        for name, part in found.items():
            full, without = (_mean(part["values"][k][metric]) for k in ("full", kind))
            ours = _change(part, f"full - {kind}", metric)
            verdict = "as theirs" if ours == theirs else f"**theirs {theirs}**"
            lines.append(f"* {TITLES[kind]}, {name}: {metric} {ours} ({full} to {without}), {verdict}")
    changes = "\n".join(lines)
    return f"""NeuroClips' own ablation (arXiv 2410.19452, subject 1): without the blurry video SSIM falls (.392 to
.256) and semantics hold; without the keyframe 2-way and 50-way fall and SSIM rises (.392 to .413). Here (a change is
one whose interval excludes 0):

{changes}

Their pictures are painted, these are taken from training clips and bring the background of their scene along."""


def _change(part: Mapping[str, Any], pair: str, metric: str) -> str:
    """What leaving a stream out does."""
    _, low, high = part["differences"][pair][metric]
    return "falls" if low > 0 else "rises" if high < 0 else "holds"


def _seeds(plan: Plan) -> str:
    return ", ".join(map(str, plan.seeds))


def _part(found: Mapping[str, Any]) -> str:
    """Tables, goals and motion of one plan."""
    names = list(found["differences"]["full - shuffled"])
    head = f"| difference | {' | '.join(names)} |\n|---|{'---|' * len(names)}"
    return f"""{found["num_clips"]} clips scored.

{_values(found)}

{head}
{_differences(found)}

{_goals(found)}

{_motion(found)}"""


def _protocol(plan: Plan) -> str:
    """Who saw what, and what was made of it."""
    return f"""23 real films (Intel IoT DevKit, CC BY 4.0) watched by {plan.num_subjects} synthetic people a seed
(source `watched`: brains with a known code, {plan.voxels[0]} to {plan.voxels[1]} voxels). The films last minutes and
are shown {plan.slow:g} times slower than they were filmed, in clips of 2 s and 6 frames; training clips seen
{plan.train_repeats} times, and as often backwards. Half of every file trains, a fifth chooses checkpoints, a fifth is
tested, {plan.most_clips} clips of a file at most, evenly spread, seen {plan.test_repeats} times and decoded from the
mean of these, as cc2017's are. Test clips lie in other parts of the same files.

The semantic reconstructor learns the words of the captions (here the names of the files, which the semantic voxels
know), the perception reconstructor latents of the tiny autoencoder, and ridge the motion of a clip in 12 x 12 places
(encoder `motion`; motion voxels read the square roots of speeds in such places, of the same flow estimator that the
end-point error uses). The generator is `nearest`, which takes pictures from training clips alone, those most like words
and latents, and moves them by the decoded motion (`{_generator()}`, chosen with the penalty on the validation film of
seed 100, which is not among these, films from their beginning: `faint` and the penalty by
`python -m benchmarks.results_video_choice`, the rest before, with fewer voxels; both
before decoding scaled the brains of these runs as training does). "Without the blurry video" leaves out
latents and motion, the whole perception stream. The judges are quantised MobileNets that nothing here was trained with:
v2 classifies, v1's embedding gives similarity and retrieval."""


def _goals(found: Mapping[str, Any]) -> str:
    """Which of `GOALS` are missed."""
    missed = [
        f"{name} of {_titles(pair)}"
        for pair, names in GOALS.items()
        for name in names
        if not _certain(found, pair, name)
    ]
    return "Goals: " + (f"**missed: {'; '.join(missed)}**; all others reached." if missed else "all reached.")


def _certain(found: Mapping[str, Any], pair: str, name: str) -> bool:
    _, low, high = found["differences"][pair][name]
    return _better(found, name, low, high)


def _better(found: Mapping[str, Any], name: str, low: float, high: float) -> bool:
    return low > 0 if found["higher_is_better"][name] else high < 0


def _titles(pair: str) -> str:
    titles = " − ".join(TITLES[part.removesuffix(ALL)] for part in pair.split(" - "))
    return f"{titles}, all test clips" if pair.endswith(ALL) else titles


def _motion(found: Mapping[str, Any]) -> str:
    """What is to be said of motion, from the figures."""
    still, full, given, true = (
        np.mean(found["values"][kind]["epe"]) for kind in ("mean_frame", "full", "ceiling", "true_latents")
    )
    value, low, high = found["differences"]["full - mean_frame"]["epe"]
    share = f"{-100 * value / still:.1f} % ({-100 * high / still:.1f} … {-100 * low / still:.1f})"
    return f"""Motion: the end-point error is {full:.3f} where a still picture has {still:.3f}, {share} less.
True words, latents and motion of the 12 x 12 places, through the same generator, reach {given:.3f}; true latents
decoded frame by frame {true:.3f}. By film (pipeline / still picture):
{_films(found)}."""


def _films(found: Mapping[str, Any]) -> str:
    films = {kind.replace("_", " ").replace("-", " "): line for kind, line in found["motion"].items()}
    return ", ".join(
        f"{kind} ({line['clips']:.0f} clips) {line['full']:.3f} / {line['still']:.3f}" for kind, line in films.items()
    )


def _generator() -> str:
    """Settings of the generator that are not the usual ones."""
    return " ".join(f"{name}={value}" for name, value in GENERATOR.model_dump(exclude_defaults=True).items())


def _values(found: Mapping[str, Any]) -> str:
    names = list(found["values"]["full"])
    rows = [f"| | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for kind, title in TITLES.items():
        rows.append(f"| {title} | {' | '.join(_mean(found['values'][kind].get(m)) for m in names)} |")
    rows.append(f"| null of the full pipeline | {' | '.join(_mean(found['null'][m]) for m in names)} |")
    rows.append(f"| chance | {' | '.join(_mean(found['chance'][m]) for m in names)} |")
    for baseline in ("flat_grey", "zero_flow"):
        cells = [_mean(found["baselines"][m].get(baseline)) for m in names]
        rows.append(f"| {baseline.replace('_', ' ')} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _differences(found: Mapping[str, Any]) -> str:
    """Of the clips that are scored; below them, of all."""
    rows = []
    for pair, lines in {**found["differences"], **found["differences_of_all_clips"]}.items():
        cells = []
        for name, (value, low, high) in lines.items():
            text = f"{value:.3f} ({low:.3f} … {high:.3f})"
            cells.append(f"**{text}**" if _better(found, name, low, high) else text)
        rows.append(f"| {_titles(pair)} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _mean(values: Any) -> str:
    if values is None or (isinstance(values, list) and None in values):
        return "–"
    return f"{np.mean(values):.3f}"
