"""docs/data.md: its blocks run as they stand, and what they make is what they say."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cineray.core.config import parse_overrides
from cineray.datasets.dataset import Dataset
from cineray.datasets.signal import SignalConfig
from cineray.datasets.sources import SOURCES
from cineray.datasets.sources.arrays import ArraysConfig

REPOSITORY = Path(__file__).parent.parent
TEXT = (REPOSITORY / "docs" / "data.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"<!-- run -->\n```python\n(.*?)```", TEXT, re.DOTALL)
CARDS = sorted((REPOSITORY / "datasets" / "cards").glob("*.md"))
COMMANDS = [
    found
    for text in (TEXT, *(card.read_text(encoding="utf-8") for card in CARDS))
    for found in re.findall(r"^cineray ingest (\w+) (.*)$", text, re.MULTILINE)
]


def test_your_own_data_in_ten_minutes(tmp_path):
    script = tmp_path / "own.py"
    script.write_text("\n".join(BLOCKS))
    paths = [str(REPOSITORY / part) for part in ("core", "datasets", "training")]
    start = f"import sys; sys.path[:0] = {paths!r}; exec(open({str(script)!r}).read())"
    done = subprocess.run([sys.executable, "-c", start], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("['anna', 'ben'] {'anna': 120, 'ben': 90}")
    dataset = Dataset.open(tmp_path / "study-data")
    run = next(info for info in dataset.runs if (info.subject, info.run) == ("ben", "evening"))
    rows = np.arange(run.first_row, run.first_row + run.num_rows)
    x = dataset.gather_samples(rows).astype(float)
    np.testing.assert_allclose(x.std(0), 1, atol=1e-3)
    # Scan 7 starts at 14 s; 4 s earlier, at 10 s, the film and its clip 0 began.
    names = dataset.samples(["stimulus_id"])["stimulus_id"].to_pylist()
    assert [names[row] for row in rows[5:10]] == [None, None, "city-0", "city-0", "city-1"]
    features = np.load(tmp_path / "study" / "features.npy")
    found = dataset.gather_stimuli("features", dataset.gather_stimulus_rows(rows[7:10]))
    np.testing.assert_array_equal(found, features[[70, 70, 71]])


@pytest.mark.parametrize(("name", "words"), COMMANDS)
def test_commands_name_settings_that_exist(name, words):
    known = {source.model_fields["name"].default: source for source in SOURCES}
    changes = parse_overrides(words.split())
    assert changes.pop("out")
    signal = {key.removeprefix("signal."): changes.pop(key) for key in list(changes) if key.startswith("signal.")}
    SignalConfig.parse(signal)
    folder = {"folder": "x"} if "folder" in known[name].model_fields else {}
    config = known[name].parse(folder).override(changes)
    for key, value in changes.items():
        assert key.count(".") or getattr(config, key) == (tuple(value) if isinstance(value, list) else value)


def test_the_command_and_the_block_say_the_same():
    (words,) = re.findall(r"^cineray ingest arrays (.*)$", TEXT, re.MULTILINE)
    changes = parse_overrides(words.split())
    assert ArraysConfig.parse({k: changes[k] for k in ("folder", "tr_s")}) == ArraysConfig(folder="study", tr_s=2)
    assert "SignalConfig(lag_s=4, high_pass_s=128)" in BLOCKS[3]
    assert (changes["signal.lag_s"], changes["signal.high_pass_s"]) == (4, 128)


def test_every_card_is_there():
    linked = re.findall(r"\((\.\./datasets/cards/\w+\.md)\)", TEXT)
    assert sorted((REPOSITORY / "docs" / name).resolve() for name in linked) == CARDS
    assert len(CARDS) == 8
