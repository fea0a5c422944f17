"""Why a metric cannot be computed here: nothing is estimated without what it takes."""

from collections.abc import Sequence

from cineray.core.errors import ConfigError
from cineray.training.pictures import VIDEO_METRICS, VideoMetric
from cineray.training.pictures.base import Networks
from cineray.training.video_clips import SubjectClips, Truths
from cineray.training.video_settings import FVD, fvd_role, reads

__all__ = ["why_absent"]

FVD_CLIPS = 4
SHOWN = 5
"""Names of classes that an error lists."""


def why_absent(name: str, people: Sequence[SubjectClips], truths: Truths, networks: Networks) -> str | None:
    """None where the metric can be computed.

    Raises:
        ConfigError: a role is filled by a network that looks at something else, or does not know the annotated classes.
    """
    if name == FVD:
        return _of_networks((fvd_role(networks),), networks) or _of_clips(True, FVD_CLIPS, people, truths)
    metric = VIDEO_METRICS[name]
    return (
        _of_networks(metric.needs, networks)
        or _of_clips(metric.moving, metric.min_clips, people, truths)
        or _of_classes(metric, truths, networks)
        or _of_frames_and_words(metric, people, truths)
        or _of_brains(metric, people)
        or metric.missing()
    )


def _of_networks(needs: Sequence[str], networks: Networks) -> str | None:
    for role in needs:
        if role not in networks:
            return f"no network is named for the role '{role}'"
        if networks[role].reads != (expected := reads(role)):
            raise ConfigError(
                f"the network of role '{role}' is {networks[role].name}, expected one that judges {expected}"
            )
    return None


def _of_clips(moving: bool, min_clips: int, people: Sequence[SubjectClips], truths: Truths) -> str | None:
    if moving and not truths.moving:
        return "pictures do not move"
    fewest = min(len(person.pool) for person in people)
    return f"a subject has {fewest} clips, it takes {min_clips}" if fewest < min_clips else None


def _of_classes(metric: VideoMetric, truths: Truths, networks: Networks) -> str | None:
    if not metric.min_classes:
        return None
    known = min(networks[role].num_classes or 0 for role in metric.needs)
    if known < metric.min_classes:
        return f"the network knows {known} classes, it takes {metric.min_classes}"
    return _of_annotations(metric, truths, networks) if metric.annotated else None


def _of_annotations(metric: VideoMetric, truths: Truths, networks: Networks) -> str | None:
    labels = sorted({label for label in truths.bank.labels if label is not None})
    if not labels:
        return "no stimulus has a class; see `annotation`"
    network = networks[metric.needs[0]]
    if not network.classes:
        raise ConfigError(f"{network.name} has no names of its classes, expected them for {metric.name}; name them")
    if unknown := [label for label in labels if label not in network.classes]:
        raise ConfigError(
            f"{network.name} knows no class {_listed(unknown)}, expected the names of its {len(network.classes)} "
            f"classes ({_listed(network.classes)}) in the annotations; change annotation.pattern or the network"
        )
    if twice := [label for label in labels if network.classes.count(label) > 1]:
        raise ConfigError(
            f"{network.name} has more than one class {_listed(twice)}, expected one for each annotation; give its "
            "classes names of their own, or leave these stimuli without a class (annotation.pattern)"
        )
    return None


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _of_frames_and_words(metric: VideoMetric, people: Sequence[SubjectClips], truths: Truths) -> str | None:
    if truths.fps < metric.min_fps:
        return f"{truths.fps:g} frames a second are compared, it takes {metric.min_fps:g} (frames.fps)"
    banks = (truths.bank, *(person.predicted for person in people))
    if metric.level == "text" and not all(bank.captions and all(bank.captions) for bank in banks):
        return "captions are missing on one side"
    return None


def _of_brains(metric: VideoMetric, people: Sequence[SubjectClips]) -> str | None:
    if metric.level != "brain":
        return None
    for person in people:
        if person.brain is None:
            return f"no encoding model is named for subject '{person.subject}'; see `encoding`"
        if metric.roi is not None and metric.roi not in person.brain.masks:
            return f"there is no mask of {metric.roi} for subject '{person.subject}'; see `encoding`"
    return None
