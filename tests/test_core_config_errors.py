"""What is said of settings that are wrong: one sentence that names the key as it is given, and how to give it."""

from typing import Annotated, Literal

import pytest
from pydantic import Field

from cineray.core.config import Config
from cineray.core.errors import ConfigError
from cineray.core.pretrained import Part


class Near(Config):
    name: Literal["near"] = "near"
    steps: int = 3


class Far(Config):
    name: Literal["far", "farther"] = "far"
    part: Part


class Outer(Config):
    maker: Annotated[Near | Far, Field(discriminator="name")] = Near()
    makers: tuple[Annotated[Near | Far, Field(discriminator="name")], ...] = ()
    part: Part | None = None


class Wanting(Config):
    size: int
    outer: Outer = Outer()


class Deep(Config):
    far: Far


class Pair(Config):
    both: tuple[Wanting, Outer]


class Above(Config):
    wanting: Wanting
    maker: Annotated[Near | Far, Field(discriminator="name")]


PART = "folder=… or {key}.hub_id=…, as `cineray models list` names known parts"
SENTENCES = [
    (Wanting, {}, "setting 'size' of Wanting is missing; give size=…"),
    (Above, {"maker": {"name": "near"}}, "setting 'wanting' of Above is missing; give wanting.size=…"),
    (
        Above,
        {"wanting": {"size": 1}},
        "setting 'maker' of Above is missing; give maker.name=…, one of near, far, farther",
    ),
    (Far, {}, f"setting 'part' of Far is missing; give part.{PART.format(key='part')}"),
    (
        Outer,
        {"maker": {"name": "far"}},
        f"setting 'maker.part' of Outer is missing; give maker.part.{PART.format(key='maker.part')}",
    ),
    (
        Outer,
        {"maker": {"name": "foo"}},
        "setting 'maker.name' of Outer: found 'foo', expected one of near, far, farther; choose one",
    ),
    (
        Outer,
        {"makers": [{}, {"name": "near"}]},
        "setting 'makers.0.name' of Outer is missing; give makers.0.name=…, one of near, far, farther",
    ),
    (
        Wanting,
        {"size": 1, "outer": {"maker": "near"}},
        "setting 'outer.maker' of Wanting: found 'near', expected settings below it; "
        "give outer.maker.name=…, one of near, far, farther",
    ),
    (
        Outer,
        {"part": 3},
        f"setting 'part' of Outer: found 3, expected settings below it; give part.{PART.format(key='part')}",
    ),
    (Deep, {}, f"setting 'far' of Deep is missing; give far.part.{PART.format(key='far.part')}"),
    (Pair, {}, "setting 'both' of Pair is missing; give both=…"),
    (Above, {}, "setting 'wanting' of Above is missing; give wanting.size=… (and 1 more)"),
]


@pytest.mark.parametrize(("owner", "values", "said"), SENTENCES, ids=[said[:40] for *_, said in SENTENCES])
def test_a_sentence_names_the_key_and_how_to_give_it(owner, values, said):
    with pytest.raises(ConfigError) as caught:
        owner.parse(values)
    assert str(caught.value) == said


def test_keys_are_those_that_are_given_not_pydantics_places():
    """Pydantic puts the name of the union's member in between."""
    with pytest.raises(ConfigError, match=r"^setting 'maker\.steps' of Outer: .*, found 'many'$"):
        Outer.parse({"maker": {"name": "near", "steps": "many"}})
    with pytest.raises(ConfigError, match=r"^setting 'makers\.1\.stepss' of Outer: .*, found 2$"):
        Outer.parse({"makers": [{"name": "near"}, {"name": "near", "stepss": 2}]})


def test_what_the_sentence_says_to_give_is_taken():
    with pytest.raises(ConfigError) as caught:
        Outer().override({"maker.name": "far"})
    key = str(caught.value).partition("give ")[2].partition("=")[0]
    assert key == "maker.part.folder"
    assert Outer().override({"maker.name": "far", key: "x"}).maker.part.folder is not None


def test_a_member_just_chosen_can_be_given_what_it_must_have():
    changed = Outer().override({"maker.part.folder": "/x", "maker.name": "far"})
    assert changed.maker == Far(part=Part(folder="/x"))
    for key in ("maker.pard.folder", "nothing.here"):
        with pytest.raises(ConfigError, match=f"there is no setting '{key.rpartition('.')[0]}'"):
            Outer().override({"maker.name": "far", key: "/x"})
