"""The scene link of a semantic run: trained on that run's own predictions, and kept in its folder.

All pairs are predictions of validation rows: those of training rows look better than what unseen brains give. The first
half of every recording teaches the link, the threshold is chosen on the second, so that its precision is one of pairs
that the link has not seen.
"""

import torch

from cineray.core.errors import DataError
from cineray.datasets.examples import Examples
from cineray.datasets.split import make_split
from cineray.serving.clips import by_recording, clips_of
from cineray.serving.link import Link, LinkConfig, Pairs, embedding, fit_link
from cineray.serving.outputs import Output
from cineray.serving.repeats import Repeats, brain_of, mean_clips

__all__ = ["link_of"]


def link_of(config: LinkConfig, semantic: Output, repeats: Repeats = "each") -> Link:
    """The link of these settings, read if it was trained before; it learns from the brains it is to judge.

    Raises:
        DataError: nothing is held out for validation, or the films have no scenes of several clips, or only one.
    """
    pipeline = semantic.pipeline
    store = pipeline.weights.store
    card = pipeline.card
    of = f"{semantic.target}-{card.fingerprint}-{card.step:08d}"
    key = f"links/{of}-{config.fingerprint()}{'-mean' if repeats == 'mean' else ''}.safetensors"
    if store.exists(key):
        return Link.loads(store.get(key), store.path(key))
    view = pipeline.run.view
    split = make_split(pipeline.dataset, view.split, view.subjects, view.window)
    if not len(split.val):
        raise DataError(
            f"the split of {store.url} holds nothing out for validation, expected clips there to teach the scene link; "
            "train with view.split.val, or leave the link out (link=null)"
        )
    link = fit_link(config, *_pairs(semantic, split.val, repeats))
    store.put(key, link.dumps())
    return link


def _pairs(semantic: Output, examples: Examples, repeats: Repeats) -> tuple[Pairs, Pairs]:
    """Neighbouring clips of a set, from the two halves of every recording; no showing is in both.

    Two clips are of one scene where their stimuli are of one group.
    """
    halves: tuple[list[Pairs], list[Pairs]] = ([], [])
    shown = clips_of(semantic.dataset, examples)
    for clips in by_recording(mean_clips(shown) if repeats == "mean" else shown).values():
        brain = brain_of(semantic.dataset, clips, semantic.pipeline.run.view.window)
        values = embedding(semantic.tokens(*brain))
        follows = [i for i, clip in enumerate(clips) if clip.follows]
        middle = len(clips) // 2
        parts = ([i for i in follows if i < middle], [i for i in follows if i > middle])
        for found, second in zip(halves, parts, strict=True):
            first = [i - 1 for i in second]
            same = [clips[a].group == clips[b].group for a, b in zip(first, second, strict=True)]
            found.append(Pairs(values[first], values[second], torch.tensor(same, dtype=torch.bool)))
    return _joined(halves[0]), _joined(halves[1])


def _joined(pairs: list[Pairs]) -> Pairs:
    return Pairs(
        torch.cat([p.first for p in pairs]), torch.cat([p.second for p in pairs]), torch.cat([p.same for p in pairs])
    )
