"""The scene link of a semantic run: trained on that run's own predictions, and kept in its folder.

Training pairs are predictions of training rows, which look better than those of unseen brains; the threshold is chosen
on predictions of validation rows, so that its precision is one of unseen brains.
"""

import torch
from torch import Tensor

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
        DataError: the films have no scenes of several clips, or only one.
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
    link = fit_link(config, _pairs(semantic, split.train, repeats), _pairs(semantic, split.val, repeats))
    store.put(key, link.dumps())
    return link


def _pairs(semantic: Output, examples: Examples, repeats: Repeats) -> Pairs:
    """Neighbouring clips of a set; two are of one scene where their stimuli are of one group."""
    first: list[Tensor] = []
    second: list[Tensor] = []
    same: list[bool] = []
    shown = clips_of(semantic.dataset, examples)
    for clips in by_recording(mean_clips(shown) if repeats == "mean" else shown).values():
        brain = brain_of(semantic.dataset, clips, semantic.pipeline.run.view.window)
        values = embedding(semantic.tokens(*brain))
        follows = [i for i, clip in enumerate(clips) if clip.follows]
        first.append(values[[i - 1 for i in follows]])
        second.append(values[follows])
        same += [clips[i].group == clips[i - 1].group for i in follows]
    return Pairs(torch.cat(first), torch.cat(second), torch.tensor(same, dtype=torch.bool))
