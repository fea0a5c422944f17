"""The command line, one grammar: ``cineray VERB WHAT [key=value …]``. Imports stand inside each verb: help is quick."""

import argparse
import sys
from collections.abc import Callable
from typing import Any

from cineray.core.config import parse_overrides
from cineray.core.errors import CinerayError, ConfigError

__all__ = ["main"]


def ingest(words: list[str]) -> None:
    """Publish a source as a data set: ``ingest SOURCE out=FOLDER [key=value …] [signal.key=value …]``."""
    from cineray.core.records import progress
    from cineray.datasets.ingest import ingest as publish
    from cineray.datasets.signal import SignalConfig
    from cineray.datasets.sources import SOURCES

    known: dict[str, Any] = {source.model_fields["name"].default: source for source in SOURCES}
    name, changes = _first(words, "a source", known), parse_overrides(words[1:])
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

    report = verify(_first(words, "a data set"), progress=progress)
    show(report)
    if not report.good:
        raise SystemExit(1)


def evaluate(words: list[str]) -> None:
    """Predict, score and draw a split of a run: ``eval RUN_DIR [split=test]``."""
    from cineray.training.evaluate import evaluate as score
    from cineray.training.evaluate import format_table
    from cineray.training.predict import predict
    from cineray.training.report import report

    run_dir, split = _first(words, "a run folder"), str(parse_overrides(words[1:]).get("split", "test"))
    predict(run_dir, split)
    print(format_table(score(run_dir, split)))
    print(report(run_dir, split))


def serve(words: list[str]) -> None:
    """Serve a run over HTTP: ``serve RUN_DIR [port=8000] [host=127.0.0.1]``; the key comes from CINERAY_API_KEY."""
    from cineray.serving.app import serve_run
    from cineray.serving.keys import find_key

    settings = parse_overrides(words[1:])
    host, port = str(settings.get("host", "127.0.0.1")), int(settings.get("port", 8000))
    serve_run(_first(words, "a run folder"), key=find_key(None), host=host, port=port)


VERBS: dict[str, Callable[[list[str]], None]] = {"ingest": ingest, "check": check, "eval": evaluate, "serve": serve}


def main() -> None:
    """Run one verb; an error meant for people is one sentence and exit code 2."""
    lines = "\n".join(f"  {name:8} {verb.__doc__}" for name, verb in VERBS.items())
    parser = argparse.ArgumentParser(prog="cineray", epilog=lines, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=sorted(VERBS))
    parser.add_argument("words", nargs="*")
    arguments = parser.parse_args()
    try:
        VERBS[arguments.verb](arguments.words)
    except CinerayError as error:
        sys.exit(_complain(error))


def _first(words: list[str], what: str, known: object = None) -> str:
    choices = f" ({', '.join(known)})" if isinstance(known, dict) else ""
    if not words or (isinstance(known, dict) and words[0] not in known):
        raise ConfigError(f"found '{words[0] if words else 'nothing'}', expected {what}{choices}")
    return words[0]


def _complain(error: CinerayError) -> int:
    print(f"cineray: {error}", file=sys.stderr)
    return 2
