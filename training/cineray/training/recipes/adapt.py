"""A new subject for a trained model: the same run once more, for one subject with a few minutes of data."""

from collections.abc import Sequence

from cineray.core.storage import Store
from cineray.training.optim import OptimConfig
from cineray.training.predict import read_run
from cineray.training.run import Run, StartConfig

__all__ = ["adapted"]


def adapted(
    from_: str, subject: str, minutes: float, *, optim: OptimConfig, films: Sequence[str] = (), dataset: str = ""
) -> Run:
    """The run that fits ``subject`` to the shared layers of the run folder ``from_``.

    View, model and losses are that run's, so the subject's test rows are those a longer training would be tested on.
    Nothing is held out of the minutes: the settings are fixed beforehand and the last step counts.

    Args:
        from_: folder of a trained run.
        subject: who joins.
        minutes: training data, from the beginning of the subject's selected rows.
        optim: how the subject's layer is trained.
        films: films to learn from; empty takes those of the run.
        dataset: where the data lies; empty takes the run's.
    """
    source = read_run(Store.at(from_))
    train = source.view.split.train.model_copy(
        update={"minutes": minutes, "subjects": (), "films": tuple(films) or source.view.split.train.films}
    )
    split = source.view.split.model_copy(update={"train": train, "val": None})
    view = source.view.model_copy(
        update={"dataset": dataset or source.view.dataset, "subjects": (subject,), "split": split}
    )
    changes = {"name": f"{source.name}-adapt", "view": view, "optim": optim, "start": StartConfig(run_dir=from_)}
    return Run.parse(source.model_copy(update=changes).model_dump())
