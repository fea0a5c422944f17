"""A data set of a few rows, held in lists: what splits and leak checks are tried on."""

import itertools
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pyarrow as pa

__all__ = ["TR_S", "Memory", "picked", "rows_of", "two_people"]

TR_S = 2.0


@dataclass
class Memory:
    """A data set of a few rows, held in lists: what `Dataset` promises and nothing more."""

    num_voxels: dict
    tr_s: float = TR_S
    norm: str = "none"
    signal: dict = field(default_factory=dict)
    runs: list = field(default_factory=list)
    table: list = field(default_factory=list)
    brain: list = field(default_factory=list)
    stimulus_rows: list = field(default_factory=list)

    @property
    def subjects(self):
        return list(self.num_voxels)

    @property
    def manifest(self):
        return SimpleNamespace(signal=self.signal, notes={"norm": self.norm})

    def stimuli(self):
        return pa.Table.from_pylist(self.table)

    def gather_stimulus_rows(self, rows):
        return np.array(self.stimulus_rows, np.int64)[rows]

    def gather_samples(self, rows, out=None):
        return np.stack([self.brain[row] for row in rows])

    def film(self, name, num_clips, length_s=TR_S, group=None):
        for i in range(num_clips):
            self.table.append(
                {
                    "stimulus_id": f"{name}-{i}",
                    "film": name,
                    "onset_s": i * length_s,
                    "length_s": length_s,
                    "group": group(i) if group else f"{name}-{i}",
                }
            )
        return self

    def run(self, subject, run, film, repeat=0, rest=2, brain=None):
        """Rest, every clip of the film once, rest."""
        clips = [i for i, row in enumerate(self.table) if row["film"] == film]
        shown = [-1] * rest + clips + [-1] * rest
        self.runs.append(
            SimpleNamespace(
                subject=subject,
                run=run,
                film=film,
                repeat=repeat,
                first_row=len(self.stimulus_rows),
                num_rows=len(shown),
            )
        )
        rng = np.random.default_rng(len(self.stimulus_rows))
        brain = rng.standard_normal((len(shown), self.num_voxels[subject])) if brain is None else brain
        self.stimulus_rows += shown
        self.brain += list(brain.astype(np.float16))
        return self

    def row_facts(self):
        """One dict a row, by a loop: what the tests compare with."""
        for run in self.runs:
            for row in range(run.first_row, run.first_row + run.num_rows):
                clip = self.stimulus_rows[row]
                facts = {"row": row, "subject": run.subject, "run": run.run, "repeat": run.repeat, "clip": clip}
                yield facts | (self.table[clip] if clip >= 0 else {"film": None, "onset_s": np.nan})


def two_people(group=None):
    data = Memory({"a": 40, "b": 50}).film("one", 60, group=group).film("two", 60, group=group)
    for subject, (film, repeat) in itertools.product("ab", [("one", 0), ("two", 0), ("one", 1)]):
        data.run(subject, f"{film}-{repeat}", film, repeat)
    return data


def rows_of(examples):
    return examples.rows(np.arange(len(examples))).tolist()


def picked(data, wanted):
    return [facts["row"] for facts in data.row_facts() if facts["clip"] >= 0 and wanted(facts)]
