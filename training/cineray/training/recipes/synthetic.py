"""Runs on the synthetic source: films with known content, brains with a known code.

`shared`, `scratch`, `ridge` and `adapt` expect a data set in which everybody watches films of their own::

    cineray ingest synthetic out=runs/data/own films=own num_subjects=5 minutes=480 frame_px=16 frames=false

Scores are top-1 among 50 scenes of the test film (metric ``retrieve_image@50``, chance .02; the known-parameter
decoder of benchmarks reaches .89), means over 5 seeds; docs/results/synthetic.md has them with their intervals.
"""

from collections.abc import Sequence

from cineray.datasets.split import Blocks, Selection, SplitConfig
from cineray.datasets.view import ViewConfig, Window
from cineray.training.losses import BiMixCoConfig, InfoNCEConfig, LossConfig, MSEConfig, SoftCLIPConfig
from cineray.training.models import ModelConfig
from cineray.training.models.perception import PerceptionConfig
from cineray.training.models.ridge import RidgeConfig
from cineray.training.models.semantic import SemanticConfig
from cineray.training.models.shared import SharedConfig
from cineray.training.models.video_diffusion import VideoDiffusionConfig
from cineray.training.optim import OptimConfig
from cineray.training.recipes.adapt import adapted
from cineray.training.run import EvaluationConfig, Run

__all__ = ["adapt", "motion", "perception", "ridge", "scratch", "semantic", "shared", "tiny", "video_diffusion"]

OWN = "runs/data/own"
WORDS, LATENTS, MOTION = "words", "latents", "motion"
"""Targets that `cineray features` computes, with the encoders ``words``, ``pool`` and ``motion``."""
WINDOW = Window(first=-1, last=4)
"""Scans of 4 s: the response to a scene peaks in the second after its onset; the one before tells what earlier scenes
still add."""
DECODER = SharedConfig(read_in="scan", dim=48, expansion=4, dropout=0.3, embedding_dim=0)
LOSSES = (MSEConfig(), InfoNCEConfig(weight=3.0, temperature=0.07))
ONE_SCAN = EvaluationConfig(clip_s=4.0)
"""A scene lasts one scan."""
FEW = OptimConfig(lr=2e-3, epochs=40, batch_size=16)
"""For one subject with minutes of data."""


def tiny(*, dataset: str = "runs/data/synthetic") -> Run:
    """A small shared decoder, to see that everything works: seconds on one core."""
    split = SplitConfig(
        train=Selection(films=("train",), blocks=Blocks(num=5, take=(0, 1, 2, 3))),
        val=Selection(films=("train",), blocks=Blocks(num=5, take=(4,))),
        test=Selection(films=("test",)),
    )
    return Run(
        name="synthetic-tiny",
        view=ViewConfig(dataset=dataset, window=WINDOW, split=split),
        model=DECODER,
        losses=LOSSES,
        optim=OptimConfig(lr=2e-3, epochs=30, batch_size=32),
        evaluation=ONE_SCAN,
    )


def shared(*, subjects: Sequence[str], dataset: str = OWN, minutes: float | None = None) -> Run:
    """One decoder for several subjects, after MindEye2 (arXiv 2403.11207): .81 with 4 subjects and 480 minutes of each.

    All of their films but the last twentieth, which is for validation; or just the first ``minutes`` of each, of
    which nothing is held out: .41 with 16 subjects and 10 minutes. Half a minute on one core.
    ``cineray train synthetic:shared subjects=[sub-01,sub-02,sub-03,sub-04]``
    """
    optim = OptimConfig(lr=2e-3, epochs=15, batch_size=256)
    if minutes is not None:
        optim = optim.override({"epochs": 40, "batch_size": 64})
    return _run("shared", DECODER, optim, dataset, subjects, minutes)


def scratch(*, subject: str, dataset: str = OWN, minutes: float | None = None) -> Run:
    """The same decoder for one subject alone: .17 with 10 minutes. Seconds on one core.

    ``cineray train synthetic:scratch subject=sub-05 minutes=10``
    """
    return _run("scratch", DECODER, FEW, dataset, (subject,), minutes)


def ridge(*, subjects: Sequence[str], dataset: str = OWN, minutes: float | None = None) -> Run:
    """Ridge for each subject, penalty chosen on blocks of the training rows: .14 with 10 minutes. Seconds on one core.

    ``cineray train synthetic:ridge subjects=[sub-05] minutes=10``
    """
    penalties = RidgeConfig(penalties=(3e2, 3e3, 3e4))
    return _run("ridge", penalties, OptimConfig(epochs=0), dataset, subjects, minutes)


def adapt(*, from_: str, subject: str, minutes: float, dataset: str = "") -> Run:
    """A new subject for a run of `shared`, whose shared layers stay: .53 with 5 minutes. Seconds on one core.

    The warm start of MindEye2 (arXiv 2403.11207, section 3), with only the read-in trained.
    ``cineray train synthetic:adapt from=runs/shared subject=sub-05 minutes=5``
    """
    return adapted(from_, subject, minutes, optim=FEW, films=(f"train-{subject}",), dataset=dataset)


def semantic(*, subjects: Sequence[str], dataset: str = OWN) -> Run:
    """Words of the captions, after NeuroClips' semantic reconstructor (arXiv 2410.19452, section 3.2), in small.

    The data set needs its words: ``cineray features runs/data/own words``. Seconds on one core.
    ``cineray train synthetic:semantic subjects=[sub-01,sub-02]``
    """
    model = SemanticConfig(
        target=WORDS, read_in="scan", dim=96, mixer="residual-mlp", depth=1, dropout=0.3, head_dropout=0.3
    )
    losses = (
        BiMixCoConfig(target=WORDS, temperature=0.07, phase=(0, 0.33)),
        SoftCLIPConfig(target=WORDS, temperature=0.07, phase=(0.33, 1)),
        MSEConfig(target=WORDS, weight=30.0),
    )
    optim = OptimConfig(lr=2e-3, epochs=15, batch_size=64)
    run = _run("semantic", model, optim, dataset, subjects, None)
    view = run.view.model_copy(update={"targets": (WORDS,), "raw_targets": (WORDS,)})
    return run.model_copy(update={"view": view, "losses": losses})


def perception(*, subjects: Sequence[str], dataset: str = OWN) -> Run:
    """Pictures in small, after NeuroClips' perception reconstructor (arXiv 2410.19452, section 3.3).

    The data set needs its pictures in small: ``cineray features runs/data/own pool factor=4``. A minute on one core.
    ``cineray train synthetic:perception subjects=[sub-01,sub-02]``
    """
    model = PerceptionConfig(read_in="scan", dim=64, hidden=256, channels=16, widths=(16, 32), map_dropout=0.1)
    losses: tuple[LossConfig, ...] = (MSEConfig(target=LATENTS), InfoNCEConfig(target=LATENTS, temperature=0.07))
    optim = OptimConfig(lr=2e-3, epochs=12, batch_size=64)
    run = _run("perception", model, optim, dataset, subjects, None)
    return run.model_copy(update={"view": run.view.model_copy(update={"targets": (LATENTS,)}), "losses": losses})


def motion(*, subjects: Sequence[str], dataset: str = OWN) -> Run:
    """Which way things move, coarsely: what ``generator.moves=flow`` moves pictures by. Ridge for each subject.

    The data set needs its motion: ``cineray features runs/data/own motion``. Seconds on one core.
    ``cineray train synthetic:motion subjects=[sub-01,sub-02]``
    """
    run = _run("motion", RidgeConfig(penalties=(3e2, 3e3, 3e4)), OptimConfig(epochs=0), dataset, subjects, None)
    view = run.view.model_copy(update={"targets": (MOTION,), "raw_targets": (MOTION,)})
    return run.model_copy(update={"view": view, "losses": (MSEConfig(target=MOTION),)})


def video_diffusion(*, subjects: Sequence[str], dataset: str = OWN) -> Run:
    """The films themselves, as latents given their words: what ``generator.name=latent_diffusion`` samples from.

    The data set needs its words and its pictures in small, as for `semantic` and `perception`. Minutes on one core.
    ``cineray train synthetic:video_diffusion subjects=[sub-01,sub-02]``
    """
    model = VideoDiffusionConfig(target=LATENTS, condition=WORDS, dim=96)
    optim = OptimConfig(lr=1e-3, epochs=20, batch_size=64)
    run = _run("video-diffusion", model, optim, dataset, subjects, None)
    view = run.view.model_copy(update={"targets": (LATENTS, WORDS), "raw_targets": (WORDS,)})
    return run.model_copy(update={"view": view, "losses": (MSEConfig(target=LATENTS),)})


def _run(
    name: str,
    model: ModelConfig,
    optim: OptimConfig,
    dataset: str,
    subjects: Sequence[str],
    minutes: float | None,
) -> Run:
    films = tuple(f"train-{subject}" for subject in subjects)
    train, val = Selection(films=films, minutes=minutes), None
    if minutes is None:
        train = Selection(films=films, blocks=Blocks(num=20, take=tuple(range(19))))
        val = Selection(films=films, blocks=Blocks(num=20, take=(19,)))
    split = SplitConfig(train=train, val=val, test=Selection(films=("test",)))
    return Run(
        name=f"synthetic-{name}",
        view=ViewConfig(dataset=dataset, subjects=tuple(subjects), window=WINDOW, split=split),
        model=model,
        losses=LOSSES,
        optim=optim,
        evaluation=ONE_SCAN,
    )
