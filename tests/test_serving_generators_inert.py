"""A setting of a generator that cannot act beside the others is refused, for each by its own reason."""

import pytest

from cineray.core.errors import ConfigError
from cineray.serving.generators.animatediff import AnimateDiffConfig
from cineray.serving.generators.ip_adapter import IPAdapterConfig
from cineray.serving.generators.unclip import UnclipConfig
from cineray.serving.generators.video_dit import VideoDitConfig

ADAPTER = {"folder": "adapter"}


@pytest.mark.parametrize(
    ("kind", "idle", "acting", "sentence"),
    [
        (
            AnimateDiffConfig,
            {"alpha_mode": "released", "strength": 0.9},
            {"alpha_mode": "paper", "strength": 0.9},
            r"found strength=0\.9 beside alpha_mode=released, where it does nothing; leave it at 0\.3",
        ),
        (
            AnimateDiffConfig,
            {"adapter_scale": 0.5},
            {"adapter_scale": 0.5, "adapter": ADAPTER},
            r"found adapter_scale=0\.5 beside adapter=null, where it does nothing; leave it at 1\.0",
        ),
        (
            UnclipConfig,
            {"strength": 0.4},
            {"strength": 0.4, "keyframe_init": "blurry"},
            r"found strength=0\.4 beside keyframe_init=noise, where it does nothing; leave it at 1\.0",
        ),
        *[
            (
                kind,
                {"guidance": 1, "negative_prompt": "cartoon"},
                {"guidance": 1.5, "negative_prompt": "cartoon"},
                r"found negative_prompt=cartoon beside guidance=1, where it does nothing; leave it at \w",
            )
            for kind in (AnimateDiffConfig, VideoDitConfig, IPAdapterConfig)
        ],
    ],
)
def test_a_setting_that_does_nothing_is_refused(kind, idle, acting, sentence):
    with pytest.raises(ConfigError, match=sentence):
        kind.parse(idle)
    assert kind.loads(kind.parse(acting).dump()) == kind.parse(acting)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (AnimateDiffConfig, {"alpha_mode": "released", "guidance": 1}),
        (VideoDitConfig, {"guidance": 1}),
        (IPAdapterConfig, {"guidance": 1}),
        (UnclipConfig, {"keyframe_init": "noise"}),
    ],
)
def test_a_default_beside_which_something_is_idle_is_no_error(kind, settings):
    made = kind.parse(settings)
    assert kind.loads(made.dump()) == made
