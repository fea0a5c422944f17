"""What stands beside every score of a run: how its test rows were made, how many they are, and what was chosen by them.

``single`` has every showing of a stimulus by itself, ``test_average@input`` the mean brain of all its showings, decoded
once. ``testset@N`` counts the stimuli that were scored. ``selected_on_test`` says that weights of others are in the run
which their publishers chose by test scores: they have seen the answer. Runs of our own choose on validation data.
``selection_unknown`` says that a run which this one starts from is not where it was.
"""

from cineray.core.storage import Store
from cineray.training.predict import read_run
from cineray.training.run import Run

__all__ = ["AVERAGED", "SELECTED", "SINGLE", "UNKNOWN", "num_scored", "selection"]

SINGLE, AVERAGED = "single", "test_average@input"
SELECTED, UNKNOWN = "selected_on_test", "selection_unknown"


def num_scored(split: str, num_stimuli: int) -> str:
    """``testset@982``."""
    return f"{split}set@{num_stimuli}"


def selection(run: Run) -> tuple[str, ...]:
    """``selected_on_test``, if weights of this run or of one that it starts from are; nothing if none is."""
    if any(weights.selected_on_test for weights in getattr(run.model, "published", ())):
        return (SELECTED,)
    if run.start is None:
        return ()
    store = Store.at(run.start.run_dir)
    return selection(read_run(store)) if store.exists("run.yaml") else (UNKNOWN,)
