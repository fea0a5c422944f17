"""NeuroClips (arXiv 2410.19452; specs/neuroclips.md) on the source ``cc2017``, one person a run as published.

The data set needs the image tokens of one picture of each clip and the embedding of its caption::

    cineray ingest cc2017 layout=released folder=DATA/cc2017-tensors captions=DATA/cc2017-tensors out=runs/data/cc2017
    cineray features runs/data/cc2017 open_clip part.folder=BIGG frame=2 image_range=mindeye2
    cineray features runs/data/cc2017 open_clip_text part.folder=BIGG
    cineray features runs/data/cc2017 vae part.folder=VAE

BIGG is a folder with OpenCLIP's ViT-bigG-14, VAE one with Stable Diffusion's autoencoder; smaller networks make smaller
runs of the same recipes, for all sizes come from the data. Segments 1 to 16 train, 17 and 18 choose the checkpoint, and
the five test films are read by ``cineray eval`` alone (the released code chooses on the test films). Settings are the
paper's (appendix A) where its code has others.
"""

from collections.abc import Sequence

from cineray.core.errors import ConfigError
from cineray.core.storage import Store
from cineray.datasets.split import Selection, SplitConfig
from cineray.datasets.view import ViewConfig
from cineray.training.losses import (
    BiMixCoConfig,
    FrameContrastConfig,
    InfoNCEConfig,
    L1Config,
    LossConfig,
    MSEConfig,
    SoftCLIPConfig,
)
from cineray.training.models.perception import PerceptionConfig
from cineray.training.models.prior import PriorConfig
from cineray.training.models.semantic import SemanticConfig
from cineray.training.optim import OptimConfig
from cineray.training.predict import read_run
from cineray.training.run import EvaluationConfig, Run, StartConfig
from cineray.training.strategies import StrategyConfig

__all__ = ["perception", "prior", "semantic"]

DATASET = "runs/data/cc2017"
TOKENS, TEXT, LATENTS = "clip_tokens", "clip_text", "latents"
SPLIT = SplitConfig(
    train=Selection(films=tuple(f"seg{number}" for number in range(1, 17))),
    val=Selection(films=("seg17", "seg18")),
    test=Selection(films=tuple(f"test{number}" for number in range(1, 6))),
)
ONE_CLIP = EvaluationConfig(clip_s=2.0)
HALF = StrategyConfig(precision="bf16")
"""Published: fp16."""
SEED = 42
NO_CLIPPING = 1e9
PRIOR_WEIGHT = 30.0
"""As published; alone it scales nothing under AdamW, beside other losses it does."""


def semantic(*, dataset: str = DATASET, subjects: Sequence[str] = ("subj01",), mixco: float = 1.0) -> Run:
    """The semantic reconstructor: retrieval among 300 clips of .207 / .198 / .159 (published, subjects 1 / 2 / 3).

    Contrastive on blended brains for the first part ``mixco`` of the epochs (NeuroClips all of them, MindEye2 .33),
    then with soft targets; beside it the caption's embedding. A published epoch has one of a clip's two showings, one
    of ours both, so 30 become 15. Published runs begin with MindEye2's backbone and keep a text matrix learned on COCO:
    ``model.published=[{file: last.pth, parts: [backbone], selected_on_test: false}, {file: coco_tokens_avg_proj.pth,
    parts: [text], selected_on_test: false}] model.train_text=false``; by default both are learned.

    Hardware: 1.8 billion parameters, 30 GB of weights, gradients and moments, one GPU of 80 GB as in the paper;
    ``model.head=low_rank model.dim=1024`` fits 24 GB. The released command is ``optim.batch_size=720 optim.lr=1e-4``.
    Hours are not published, and the scores above are not reproduced here.
    ``cineray train neuroclips:semantic subjects=[subj01]``
    """
    view = ViewConfig(
        dataset=dataset, subjects=tuple(subjects), targets=(TOKENS, TEXT), raw_targets=(TOKENS, TEXT), split=SPLIT
    )
    return Run(
        name="neuroclips-semantic",
        seed=SEED,
        view=view,
        model=SemanticConfig(target=TOKENS, text_target=TEXT),
        losses=(*_contrastive(mixco), InfoNCEConfig(target=TEXT, temperature=0.1, weight=0.25)),
        optim=_optim(epochs=15, batch_size=240),
        strategy=HALF,
        evaluation=ONE_CLIP,
    )


def prior(*, from_: str, dataset: str = "") -> Run:
    """The diffusion prior on a trained ``neuroclips:semantic``, which stays as it is.

    Retrieval among 300 clips, by the pictures made of its tokens: .231 / .263 / .173 (published, subjects 1 / 2 / 3).
    The checkpoint is chosen by the denoising error on the held-out segments (published: the last one). 150 published
    epochs are 75 of ours, as above. The published caption loss is left out: it reads the estimate made of *noised
    true* tokens, in which the answer shows through.

    Hardware: 260 million parameters to train, 4.2 GB with their moments, beside the frozen reconstructor; one GPU.
    ``cineray train neuroclips:prior from=runs/neuroclips-semantic``
    """
    source = read_run(Store.at(from_))
    if not isinstance(source.model, SemanticConfig):
        raise ConfigError(
            f"{from_} is a run of the model '{source.model.name}', a prior stands on 'semantic'; "
            "train neuroclips:semantic first"
        )
    view = source.view.model_copy(update={"dataset": dataset or source.view.dataset})
    return Run(
        name="neuroclips-prior",
        seed=source.seed,
        view=view,
        model=PriorConfig(semantic=source.model.model_copy(update={"published": ()})),
        losses=(MSEConfig(target=source.model.target, weight=PRIOR_WEIGHT),),
        optim=_optim(epochs=75, batch_size=64),
        strategy=source.strategy,
        evaluation=source.evaluation,
        start=StartConfig(run_dir=from_, part="semantic"),
    )


def perception(*, dataset: str = DATASET, subjects: Sequence[str] = ("subj01",)) -> Run:
    """The perception reconstructor: latents of all frames of a clip, which decode to a blurry video.

    L1 and, a tenth of it, the frames of a clip told apart (equation 1). Three things are not as released: frames attend
    to those of their own clip (released: to whatever stands in the batch, ``model.grouping=released-batch``), subjects
    share all but one layer (``model.expansion=released`` has 203.6 to 237.3 million parameters, 134 of them without
    use), and the checkpoint is chosen on validation films. The released contrast over tokens of a ConvNeXt needs those
    as a target (`SoftContrastConfig`). 150 published epochs are 75 of ours, as above.

    Hardware: 20 million parameters, one GPU. Neither hours nor scores of the blurry video alone are published.
    ``cineray train neuroclips:perception subjects=[subj01]``
    """
    view = ViewConfig(
        dataset=dataset, subjects=tuple(subjects), targets=(LATENTS,), raw_targets=(LATENTS,), split=SPLIT
    )
    return Run(
        name="neuroclips-perception",
        seed=SEED,
        view=view,
        model=PerceptionConfig(target=LATENTS, hidden=4096),
        losses=(
            L1Config(target=LATENTS, weight=0.5),
            FrameContrastConfig(target=LATENTS, temperature=0.2, weight=0.05),
        ),
        optim=_optim(epochs=75, batch_size=40),
        strategy=HALF,
        evaluation=ONE_CLIP,
    )


def _contrastive(mixco: float) -> tuple[LossConfig, ...]:
    if not 0 <= mixco <= 1:
        raise ConfigError(f"found mixco={mixco}, expected a fraction of the epochs, 0 to 1")
    blended = BiMixCoConfig(target=TOKENS, temperature=0.006, phase=(0.0, mixco)) if mixco > 0 else None
    soft = SoftCLIPConfig(target=TOKENS, last_temperature=0.0075, phase=(mixco, 1.0)) if mixco < 1 else None
    return tuple(loss for loss in (blended, soft) if loss is not None)


def _optim(*, epochs: int, batch_size: int) -> OptimConfig:
    """One cycle that rises for two published epochs, one of ours."""
    return OptimConfig(
        lr=3e-4,
        weight_decay=1e-2,
        clip_norm=NO_CLIPPING,
        epochs=epochs,
        batch_size=batch_size,
        warmup_fraction=1 / epochs,
        initial_divisor=25.0,
        final_divisor=1000.0,
    )
