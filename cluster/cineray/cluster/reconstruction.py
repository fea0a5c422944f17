"""What `cineray reconstruct` does: settings and words to jobs, jobs over Ray actors, and what is said of it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cineray.cluster.connect import connected
from cineray.core.errors import ConfigError
from cineray.core.pretrained import Part, PartRecord, folder_of, parts_folder, short_name
from cineray.core.records import progress
from cineray.core.storage import Store
from cineray.serving.generators.animatediff import AnimateDiffConfig
from cineray.serving.jobs import SETTINGS, Job
from cineray.serving.video_pipeline import VideoPipelineConfig

__all__ = ["missing_parts", "reconstruct_all"]

WORDS: dict[str, Any] = {
    **dict.fromkeys(("split", "recording", "subject", "folder", "out")),
    "num_actors": 1,
    "device": "cpu",
}
"""Of the command itself; every other word changes the pipeline's settings."""


def reconstruct_all(what: str, changes: Mapping[str, Any]) -> None:
    """Do everything that is not done yet, and say where it is.

    Args:
        what: a pipeline's YAML, or a folder that an earlier call has written to.
        changes: words of the command line.

    Raises:
        CinerayError: a setting, a run or a recording is not what it should be.
    """
    words = WORDS | {key: value for key, value in changes.items() if key in WORDS}
    config, out = _settings(what, words["out"])
    config = config.override({key: value for key, value in changes.items() if key not in WORDS})
    num_actors, device = words["num_actors"], str(words["device"])
    if type(num_actors) is not int or num_actors < 1:
        raise ConfigError(f"found num_actors={num_actors}, expected a whole number from 1 on")
    jobs = _jobs(config, out, words)
    for line in _told(config):
        print(line)
    todo = {job.name: job.begin() for job in jobs}
    if any(todo.values()):
        with connected():
            from cineray.serving.reconstruct import reconstruct

            for job in jobs:
                pieces = todo[job.name]
                made = reconstruct(job, pieces, num_actors=num_actors, device=device)
                for _ in progress(made, f"{job.name}, pieces", len(pieces)):
                    pass
    for job in jobs:
        job.finish()
        num_clips = sum(len(piece.clips) for piece in job.pieces)
        new = sum(len(piece.clips) for piece in todo[job.name])
        print(f"{num_clips} clips ({new} new): {job.store.path(job.folder)}")


def missing_parts(config: Any) -> Iterator[str]:
    """Names of the pretrained parts of some settings that are not on this machine, as `cineray models pull` takes them.

    A part that is named by a folder is not looked for: opening it says whether it is there.
    """
    if isinstance(config, Part):
        if config.hub_id is not None and PartRecord.of(folder_of(config, parts_folder())) is None:
            yield short_name(config)
    elif hasattr(type(config), "model_fields"):
        for name in type(config).model_fields:
            yield from missing_parts(getattr(config, name))


def _settings(what: str, out: Any) -> tuple[VideoPipelineConfig, str]:
    """The pipeline's settings, and the folder to write to."""
    if what.endswith((".yaml", ".yml")):
        if not Path(what).is_file():
            raise ConfigError(f"there is no pipeline {what}; correct the name")
        config = VideoPipelineConfig.load(what)
        return config, str(out or f"runs/{config.name}")
    store = Store.at(what)
    if not store.exists(SETTINGS):
        raise ConfigError(f"{store.url} holds no {SETTINGS}; give a pipeline's YAML, or a folder reconstructed into")
    return VideoPipelineConfig.loads(store.get(SETTINGS), origin=store.path(SETTINGS)), str(out or what)


def _jobs(config: VideoPipelineConfig, out: str, words: Mapping[str, Any]) -> list[Job]:
    """A split, a recording, or a folder of recordings; by default the test split."""
    given = [key for key in ("split", "recording", "folder") if words[key] is not None]
    if len(given) > 1:
        raise ConfigError(f"found {given[0]}= and {given[1]}=, expected one of split=, recording= and folder=")
    if (words["subject"] is None) == (given == ["recording"]):
        raise ConfigError("expected subject= with recording=, and only with it; say whose recording it is")
    if given == ["recording"]:
        return [Job.of_recording(config, out, Path(str(words["recording"])), str(words["subject"]))]
    if given == ["folder"]:
        return Job.of_folder(config, out, Path(str(words["folder"])))
    return [Job.of_split(config, out, str(words["split"] or "test"))]


def _told(config: VideoPipelineConfig) -> Iterator[str]:
    """Which generator works, and what keeps the full one from it."""
    yield f"generator {config.generator.name}, captions {config.captions.name}, codec {config.codec.name}"
    full = AnimateDiffConfig()
    lacking = list(dict.fromkeys(missing_parts(full)))
    if config.generator.name == "nearest" and lacking:
        yield (
            f"no pretrained part is used: pictures come from training clips; generator.name={full.name} needs "
            f"{', '.join(lacking)} (cineray models pull {' '.join(lacking)})"
        )
