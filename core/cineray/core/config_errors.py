"""What is wrong with settings, in one sentence: which of them, what was found, what was expected and how to give it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

__all__ = ["models_at", "sentence"]

NO_MAPPING = ("model_type", "model_attributes_type", "dict_type")


def sentence(owner: type[BaseModel], values: Any, error: ValidationError) -> str:
    """The first of the errors that ``values`` have as settings of ``owner``, and how many more there are."""
    first = error.errors()[0]
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return _sentence(owner, _key(values, first), first) + more


def _sentence(owner: type[BaseModel], key: Sequence[str], error: ErrorDetails) -> str:
    where, kind, ctx = ".".join(key), error["type"], error.get("ctx", {})
    tag = ctx.get("discriminator", "").strip("'")
    message = error["msg"].removeprefix("Value error, ")
    if not key:  # settings that contradict each other: the validator's own sentence names them
        return f"{owner.__name__}: {message}"
    of = f"of {owner.__name__}"
    if kind == "missing":
        return f"setting '{where}' {of} is missing; give {_how(owner, key)}"
    if kind == "union_tag_invalid":
        expected = ctx["expected_tags"].replace("'", "")
        return f"setting '{where}.{tag}' {of}: found '{ctx['tag']}', expected one of {expected}; choose one"
    if kind == "union_tag_not_found":
        return f"setting '{where}.{tag}' {of} is missing; give {_how(owner, key)}"
    found = f"{error['input']!r:.80}"
    if kind in NO_MAPPING and models_at(owner, key):
        return f"setting '{where}' {of}: found {found}, expected settings below it; give {_how(owner, key)}"
    return f"setting '{where}' {of}: {message}, found {found}"


def _key(values: Any, error: ErrorDetails) -> list[str]:
    """The dotted key as it is given: pydantic's place has names of union members in between."""
    key: list[str] = []
    place: Any
    for place in error["loc"]:
        listed = isinstance(values, list | tuple) and isinstance(place, int)
        if listed or (isinstance(values, Mapping) and place in values):
            values = values[place]
            key.append(str(place))
    return [*key, str(error["loc"][-1])] if error["type"] == "missing" else key


def _how(owner: type[BaseModel], key: Sequence[str]) -> str:
    """Words of a command line that give a setting."""
    where, models = ".".join(key), models_at(owner, key)
    if not models:
        return f"{where}=…"
    if example := getattr(models[0], "example", ""):
        return example.format(key=where)
    fields = models[0].model_fields
    tags = (name for name, field in fields.items() if get_origin(field.annotation) is Literal)
    tag = next((tag for tag in tags if all(tag in model.model_fields for model in models)), None)
    if len(models) > 1:  # a union, told apart by a field of constants
        if tag is None:
            return f"{where}=…"
        names = [str(name) for model in models for name in get_args(model.model_fields[tag].annotation)]
        return f"{where}.{tag}=…, one of {', '.join(names)}"
    needed = [_how(owner, [*key, name]) for name, field in fields.items() if field.is_required()]
    return ", ".join(needed or [f"{where}.{name}=…" for name in fields])


def models_at(owner: type[BaseModel], key: Sequence[str]) -> list[type[BaseModel]]:
    """The settings that may stand at a key; none where a plain value stands."""
    models = [owner]
    for name in key:
        if not name.isdigit():  # a place in a list has what the list has
            found = [m.model_fields[name].annotation for m in models if name in m.model_fields]
            models = list(dict.fromkeys(model for annotation in found for model in _models(annotation)))
    return models


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
