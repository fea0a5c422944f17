"""The command line, one grammar: ``cineray VERB WHAT [key=value …]``. Imports stand inside each verb: help is quick."""

import inspect
import sys
from collections.abc import Callable
from typing import Any

from cineray.cluster.words import changes_of, first, nested, settings_of
from cineray.core.config import parse_overrides
from cineray.core.errors import CinerayError, ConfigError

__all__ = ["VERBS", "main"]


def ingest(words: list[str]) -> None:
    """Publish a source as a data set: ``ingest SOURCE out=FOLDER [key=value …] [signal.key=value …]``."""
    from cineray.core.records import progress
    from cineray.datasets.ingest import ingest as publish
    from cineray.datasets.signal import SignalConfig
    from cineray.datasets.sources import SOURCES

    known: dict[str, Any] = {source.model_fields["name"].default: source for source in SOURCES}
    name, changes = first(words, "a source", known), parse_overrides(words[1:])
    if "out" not in changes:
        raise ConfigError("found no out=, expected the folder or s3:// prefix to publish to; add out=runs/data")
    out = changes.pop("out")
    signal = {k.removeprefix("signal."): changes.pop(k) for k in list(changes) if k.startswith("signal.")}
    source = known[name].parse({k: v for k, v in changes.items() if "." not in k})
    source = source.override({k: v for k, v in changes.items() if "." in k})
    manifest = publish(source, str(out), signal=SignalConfig.suiting(name).override(signal), progress=progress)
    print(f"published {len(manifest.runs)} runs of {len(manifest.subjects)} subjects at {out}")


def check(words: list[str]) -> None:
    """Verify a data set byte by byte: ``check DATASET``."""
    from cineray.core.records import progress
    from cineray.datasets.check import check as verify
    from cineray.datasets.check import show

    report = verify(first(words, "a data set"), progress=progress)
    show(report)
    if not report.good:
        raise SystemExit(1)


def features(words: list[str]) -> None:
    """Compute a target of every stimulus: ``features DATASET ENCODER [num_actors=N] [replace=true] [key=value …]``.

    Run again after a crash, it goes on with the row groups that are left.
    """
    from functools import partial

    from cineray.cluster.connect import connected
    from cineray.core.records import progress
    from cineray.datasets.dataset import Dataset
    from cineray.datasets.encoders import ENCODERS
    from cineray.datasets.extraction import Job, complete

    known: dict[str, Any] = {encoder.model_fields["name"].default: encoder for encoder in ENCODERS}
    url, name = first(words, "a data set"), first(words[1:], "an encoder", known)
    changes = parse_overrides(words[2:])
    num_actors = changes.pop("num_actors", None)
    if num_actors is not None and (type(num_actors) is not int or num_actors < 1):
        raise ConfigError(f"found num_actors={num_actors}, expected a whole number from 1 on")
    if type(replace := changes.pop("replace", False)) is not bool:
        raise ConfigError(f"found replace={replace}, expected true or false")
    encoder = known[name].parse(nested(changes))
    job = Job.of(Dataset.open(url), encoder, replace=replace)  # what is wrong is told before Ray starts
    with connected():
        from cineray.datasets.features import on_ray

        complete(job, workers=partial(on_ray, num_actors=num_actors), progress=progress)
    spec = job.spec
    print(f"'{encoder.target}' of {url}: {spec.dtype} {spec.shape} ({spec.axes})")


def train(words: list[str]) -> None:
    """Train a recipe or a run.yaml on Ray: ``train RECIPE|run.yaml [out=FOLDER] [key=value …] [--dry-run]``."""
    from cineray.cluster.connect import connected
    from cineray.cluster.resolve import resolve
    from cineray.cluster.watch import watched
    from cineray.core.claim import claimed
    from cineray.core.storage import Store

    changes, dry = changes_of(words)
    out = changes.pop("out", None)
    run = resolve(first(words, "a recipe or a run.yaml"), changes)
    store = Store.at(str(out or f"runs/{run.name}"))
    if dry:
        print(run.dump(), end="")
        return
    from cineray.training.feed import open_schedule

    num_steps = run.optim.epochs * open_schedule(run).num_steps
    with claimed(store), connected(), watched(store, run.name, num_steps):
        from cineray.training.launch import launch

        trained = launch(run, store.url)
    best = "" if trained.position.best_step is None else f", best at step {trained.position.best_step}"
    losses = ", ".join(f"{k} {v:.4f}" for k, v in trained.metrics.items() if k in ("loss", "val/loss"))
    print(f"trained {run.name}: {trained.position.step} steps{best}{f' ({losses})' if losses else ''}")
    print(f"{store.url}  (score it: cineray eval {store.url})")


def tune(words: list[str]) -> None:
    """Search settings on Ray: ``tune RECIPE|run.yaml search.KEY=RANGE … [num_trials=8] [key=value …] [--dry-run]``.

    RANGE is low..high, log:low..high or a,b,c.
    """
    from cineray.cluster.connect import connected
    from cineray.cluster.resolve import resolve
    from cineray.core.claim import claimed
    from cineray.core.storage import Store
    from cineray.training.space import SearchConfig, parse_space

    changes, dry = changes_of(words)
    varied = {key.removeprefix("search."): changes.pop(key) for key in list(changes) if key.startswith("search.")}
    settings = {key: changes.pop(key) for key in SearchConfig.model_fields if key in changes}
    out = changes.pop("out", None)
    run = resolve(first(words, "a recipe or a run.yaml"), changes)
    how = SearchConfig.parse(settings)
    space = parse_space(varied, run, how)
    store = Store.at(str(out or f"runs/{run.name}-search"))
    if dry:
        print(run.dump(), end="")
        print("\n".join(f"search.{key}: {dimension}" for key, dimension in space.items()))
        return
    with claimed(store), connected(searching=True):
        from cineray.training.tune import Search, format_trials, search

        found = search(
            Search(run=run, space=space, search=how), store.url, on_trial=lambda t: print(format_trials([t]))
        )
    print(format_trials(found))
    print(f"best: {store.path('best/run.yaml')}  (its run folder: {store.path('trials')}/{found[0].trial})")


def evaluate(words: list[str]) -> None:
    """Predict, score and draw a split of a run: ``eval RUN_DIR [split=test] [beside=[RUN_DIR,…]]``.

    ``beside`` names evaluated runs of the same kind with other amounts of data: the page shows score against minutes.
    A folder of `cineray reconstruct` is scored as videos, through the networks that are named, and gets a gallery:
    ``eval FOLDER [networks.clip.name=trained networks.clip.folder=…] [metrics=[ssim,epe]] [paper=neuroclips] …``.
    """
    from cineray.core.storage import Store
    from cineray.serving.jobs import SETTINGS
    from cineray.training.evaluate import evaluate as score
    from cineray.training.evaluate import format_table
    from cineray.training.predict import predict
    from cineray.training.report import report

    run_dir = first(words, "a run folder")
    if Store.at(run_dir).exists(SETTINGS):
        _evaluate_videos(run_dir, parse_overrides(words[1:]))
        return
    settings = settings_of(words, split="test", beside=())
    split, beside = str(settings["split"]), settings["beside"]
    predict(run_dir, split)
    print(format_table(score(run_dir, split)))
    print(report(run_dir, split, beside=[beside] if isinstance(beside, str) else list(beside)))


def reconstruct(words: list[str]) -> None:
    """Videos from brains: ``reconstruct PIPELINE.yaml|FOLDER [split=test | recording=FILE subject=… | folder=FOLDER]``.

    ``[out=FOLDER] [num_actors=1] [device=cpu]``, and ``key=value`` for the pipeline's own settings. A folder of
    recordings holds ``<subject>/<recording>.npy``. Run again, it does what is left.
    """
    from cineray.cluster.reconstruction import reconstruct_all

    reconstruct_all(first(words, "a pipeline's YAML, or a folder reconstructed into"), parse_overrides(words[1:]))


def _evaluate_videos(folder: str, changes: dict[str, Any]) -> None:
    from cineray.training.evaluate_video import EvaluateVideoConfig, evaluate_video, format_video_table
    from cineray.training.video_report import video_report

    split = str(changes.pop("split", "test"))
    config = EvaluateVideoConfig.parse(nested(changes))
    print(format_video_table(evaluate_video(folder, split, config)))
    print(video_report(folder, split, kind=config.kind))


def serve(words: list[str]) -> None:
    """Serve a run over HTTP: ``serve RUN_DIR [port=8000] [host=127.0.0.1]``; the key comes from CINERAY_API_KEY."""
    from cineray.serving.app import serve_run
    from cineray.serving.keys import find_key

    settings = settings_of(words, port=8000, host="127.0.0.1")
    run_dir, port = first(words, "a run folder"), settings["port"]
    if not isinstance(port, int) or not 0 < port < 65536:
        raise ConfigError(f"found port '{port}', expected a number from 1 to 65535")
    serve_run(run_dir, key=find_key(None), host=str(settings["host"]), port=port)


def demo(words: list[str]) -> None:
    """The whole way on made data, a few minutes on two cores: ``demo [out=runs/demo]``."""
    from cineray.cluster.demo import demonstrate

    demonstrate(str(settings_of(["", *words], out="runs/demo")["out"]))


def doctor(words: list[str]) -> None:
    """Examine this machine: ``doctor [where=FOLDER|s3://…] [dataset=URL] [ray=true] [json=false]``."""
    from cineray.cluster.doctor import as_json, healthy, show
    from cineray.cluster.doctor import doctor as examine
    from cineray.core.records import progress

    settings = settings_of(["", *words], where=None, dataset=None, ray=True, json=False)
    findings = examine(settings["where"], settings["dataset"], bool(settings["ray"]), progress=progress)
    if settings["json"]:
        print(as_json(findings))
    else:
        show(findings)
    if not healthy(findings):
        raise SystemExit(1)


def models(words: list[str]) -> None:
    """Pretrained parts, below CINERAY_MODELS: ``models list``, ``models pull NAME …``, ``models verify [NAME …]``."""
    from cineray.cluster.models import listing, pull, show, verify
    from cineray.core.pretrained import CatalogueEntry, folder_of, parts_folder

    what, names, root = first(words, "what to do", {"list": 0, "pull": 0, "verify": 0}), words[1:], parts_folder()
    if what == "list":
        show(listing(root))
    elif what == "pull":
        if not names:
            raise ConfigError("found no part to pull, expected names of `cineray models list` or owner/name@revision")
        for name in names:
            record = pull(name, root)
            where = folder_of(CatalogueEntry.named(name).part, root)
            print(f"{name}: {len(record.files)} files at commit {record.commit}, licence {record.licence}, in {where}")
    elif not (found := [_told(name, wrong) for name, wrong in verify(names, root)]):
        print(f"nothing to verify: no pretrained part was pulled to {root}; `cineray models list` names them")
    elif any(found):
        raise SystemExit(1)


def _told(name: str, wrong: list[str]) -> bool:
    """Say what is wrong with a part, and whether anything is."""
    again = f"; pull it again: cineray models pull {name}"
    print(f"{name}: {', '.join(wrong) + again if wrong else 'as it was pulled'}")
    return bool(wrong)


VERBS: dict[str, Callable[[list[str]], None]] = {
    "demo": demo,
    "ingest": ingest,
    "check": check,
    "features": features,
    "train": train,
    "tune": tune,
    "eval": evaluate,
    "reconstruct": reconstruct,
    "serve": serve,
    "doctor": doctor,
    "models": models,
}


def main() -> None:
    """Run one verb; an error meant for people is one sentence and exit code 2."""
    verb, *words = sys.argv[1:] or ["--help"]
    if verb in ("-h", "--help"):
        print("cineray VERB WHAT [key=value …]\n")
        print("\n".join(f"  {name:12}{_summary(found)}" for name, found in VERBS.items()))
        return
    if {"-h", "--help"} & set(words) and verb in VERBS:
        print(inspect.getdoc(VERBS[verb]))
        return
    try:
        if verb not in VERBS:
            raise ConfigError(f"found verb '{verb}', expected one of {', '.join(VERBS)}")
        VERBS[verb](words)
    except CinerayError as error:
        print(f"cineray: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("cineray: interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
        sys.exit(130)


def _summary(verb: Callable[[list[str]], None]) -> str:
    return (inspect.getdoc(verb) or "").partition("\n")[0]


if __name__ == "__main__":
    main()
