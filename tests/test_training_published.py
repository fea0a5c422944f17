"""Published checkpoints: synthetic ones of their names and shapes, loaded or refused."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.nn.functional import gelu

from cineray.core.errors import ConfigError, IntegrityError
from cineray.training.models.base import ClosedForm, Sizes
from cineray.training.models.prior import PriorConfig
from cineray.training.models.prior_sampler import betas
from cineray.training.models.published_config import PublishedConfig
from cineray.training.models.semantic import SemanticConfig
from cineray.training.published import load_published, read_published

TINY = {"voxels": (9, 5), "dim": 8, "tokens": 4, "width": 6, "text": 5, "depth": 2, "heads": 2, "head": 40}
FULL = {
    "voxels": (13447,),
    "dim": 4096,
    "tokens": 256,
    "width": 1664,
    "text": 1280,
    "depth": 6,
    "heads": 32,
    "head": 52,
}
ALL = ("ridge", "backbone", "text", "prior")


def linear(name, outputs, inputs, bias=True):
    return {f"{name}.weight": (outputs, inputs)} | ({f"{name}.bias": (outputs,)} if bias else {})


def norm(name, width):
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def published_shapes(voxels, dim, tokens, width, text, depth, heads, head):
    """Names and shapes of a state dict as the released training code makes it."""
    shapes = {"clipproj.proj": (width, text)}
    for number, size in enumerate(voxels):
        shapes |= linear(f"ridge.linears.{number}", dim, size)
    for number in range(4):
        for which, units in (("1", dim), ("2", 1)):
            block = f"backbone.mixer_blocks{which}.{number}"
            shapes |= (
                norm(f"{block}.0", units) | linear(f"{block}.1.0", units, units) | linear(f"{block}.1.3", units, units)
            )
    shapes |= linear("backbone.backbone_linear", tokens * width, dim)
    for number in (0, 3, 6):
        shapes |= norm(f"backbone.clip_proj.{number}", width)
        shapes |= linear(f"backbone.clip_proj.{number + 2}", width, width)
    return shapes | prior_shapes(tokens, width, depth, heads, head)


def prior_shapes(tokens, width, depth, heads, head):
    net, transformer = "diffusion_prior.net", "diffusion_prior.net.causal_transformer"
    shapes = {f"{net}.{name}": (tokens, width) for name in ("learned_query", "null_brain_embeds", "null_image_embed")}
    time = f"{net}.to_time_embeds.0.1.net"
    shapes |= linear(f"{time}.0.0", 2 * width, width) | linear(f"{time}.1.0", 2 * width, 2 * width)
    shapes |= linear(f"{time}.2", width, 2 * width)
    shapes[f"{transformer}.rel_pos_bias.relative_attention_bias.weight"] = (32, heads)
    for number in range(depth):
        layer = f"{transformer}.layers.{number}"
        shapes |= {f"{layer}.{name}.g": (width,) for name in ("0.norm", "0.to_out.1", "1.0")}
        shapes |= {f"{layer}.0.null_kv": (2, head), f"{layer}.0.rotary_emb.freqs": (16,)}
        shapes |= linear(f"{layer}.0.to_q", heads * head, width, bias=False)
        shapes |= linear(f"{layer}.0.to_kv", 2 * head, width, bias=False)
        shapes |= linear(f"{layer}.0.to_out.0", width, heads * head, bias=False)
        shapes |= linear(f"{layer}.1.1", 8 * width, width, bias=False)
        shapes |= linear(f"{layer}.1.5", width, 4 * width, bias=False)
    shapes |= {f"{transformer}.norm.g": (width,)} | linear(f"{transformer}.project_out", width, width, bias=False)
    tables = (
        "betas alphas_cumprod alphas_cumprod_prev sqrt_alphas_cumprod sqrt_one_minus_alphas_cumprod p2_loss_weight "
        "log_one_minus_alphas_cumprod sqrt_recip_alphas_cumprod sqrt_recipm1_alphas_cumprod posterior_variance "
        "posterior_log_variance_clipped posterior_mean_coef1 posterior_mean_coef2"
    )
    return shapes | {f"diffusion_prior.noise_scheduler.{table}": (100,) for table in tables.split()}


def checkpoint():
    """Random numbers, and the tables as they are."""
    generator = torch.Generator().manual_seed(0)
    state = {n: torch.randn(*shape, generator=generator) for n, shape in published_shapes(**TINY).items()}
    for name in state:
        if name.endswith("freqs"):
            state[name] = torch.tensor([10000 ** (-2 * pair / 32) for pair in range(16)])
    return state | {"diffusion_prior.noise_scheduler.betas": betas().float()}


def prior(size=TINY, **semantic):
    names = ("sub-a", "sub.b")[: len(size["voxels"])]
    targets = {"clip_tokens": (size["tokens"], size["width"]), "clip_text": (size["text"],)}
    below = SemanticConfig(dim=size["dim"], text_target="clip_text").override(semantic)
    config = PriorConfig(semantic=below, depth=size["depth"], heads=size["heads"], head_dim=size["head"])
    return config.build(Sizes(dict(zip(names, size["voxels"], strict=True)), 1, targets)).eval()


def written_out(state, brain):
    """Backbone tokens as the released forward pass makes them."""
    number = {"sub-a": 0, "sub.b": 1}
    x = torch.cat(
        [
            rows[:, 0] @ state[f"ridge.linears.{number[s]}.weight"].T + state[f"ridge.linears.{number[s]}.bias"]
            for s, rows in brain.items()
        ]
    )[:, None]
    first, second = x, x.mT
    for block in range(4):
        for which in ("1", "2"):
            p = {k: state[f"backbone.mixer_blocks{which}.{block}.{k}"] for k in ("0.weight", "0.bias")}
            y = nn.functional.layer_norm(x, x.shape[-1:], p["0.weight"], p["0.bias"])
            for layer in ("1.0", "1.3"):
                name = f"backbone.mixer_blocks{which}.{block}.{layer}"
                y = y @ state[f"{name}.weight"].T + state[f"{name}.bias"]
                y = gelu(y) if layer == "1.0" else y
            x = y + (first if which == "1" else second)
            if which == "1":
                first = x
            else:
                second = x
            x = x.mT
    out = x[:, 0] @ state["backbone.backbone_linear.weight"].T + state["backbone.backbone_linear.bias"]
    return out.unflatten(1, (4, 6))


@pytest.mark.parametrize("mixer", ["none", "released"])
def test_a_loaded_reconstructor_makes_the_tokens_of_the_released_forward_pass(mixer):
    state, model = checkpoint(), prior(mixer=mixer)
    load_published(model, state, ALL, ("sub-a", "sub.b"))
    brain = {"sub-a": torch.randn(3, 1, 9), "sub.b": torch.randn(2, 1, 5)}
    found = model.semantic.decode(brain)
    expected = written_out(state, brain)
    torch.testing.assert_close(found.backbone, expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())
    text = found.projected.mean(1) @ state["clipproj.proj"]
    torch.testing.assert_close(model.semantic.beside(found)["clip_text"], text)


def test_every_tensor_of_the_model_comes_from_the_checkpoint():
    state, model = checkpoint(), prior(mixer="released")
    for parameter in model.parameters():
        nn.init.constant_(parameter, torch.nan)
    load_published(model, state, ALL, ("sub-a", "sub.b"))
    assert not [name for name, p in model.named_parameters() if p.isnan().any()]
    tables = sum(x.numel() for n, x in state.items() if "noise_scheduler" in n or "freqs" in n)
    assert sum(p.numel() for p in model.parameters()) == sum(x.numel() for x in state.values()) - tables
    assert torch.equal(
        model.get_parameter("network.time.2.bias"), state["diffusion_prior.net.to_time_embeds.0.1.net.1.0.bias"]
    )
    last = "diffusion_prior.net.causal_transformer.layers.1.1.5.weight"
    assert torch.equal(model.get_parameter("network.layers.1.forward_out.weight"), state[last])


def test_names_and_shapes_fit_at_full_size():
    with torch.device("meta"):
        model = prior(FULL, mixer="released")
        state = {name: torch.empty(shape) for name, shape in published_shapes(**FULL).items()}
        load_published(model, state, ALL, ("sub-a",))
    tables = 6 * 16 + 13 * 100
    total = sum(x.numel() for x in state.values()) - tables
    assert total == 1_887_861_400 + 55_083_008 + 1664 * 1280 + 259_865_200


def test_parts_that_are_not_asked_for_stay_as_they_are():
    state, model = checkpoint(), prior()
    state |= {"backbone.blin1.weight": torch.zeros(2, 2)}  # MindEye2's low-level branch is known, and left
    before = {name: x.clone() for name, x in model.state_dict().items()}
    load_published(model, state, ("prior",))
    changed = {name.split(".")[0] for name, x in model.state_dict().items() if not torch.equal(x, before[name])}
    assert changed == {"network"}


def refused(match, state, model=None, parts=ALL, subjects=("sub-a", "sub.b")):
    model = model or prior()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    with pytest.raises(ConfigError, match=match):
        load_published(model, state, parts, subjects)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


def test_what_does_not_fit_is_refused_in_one_sentence_and_nothing_is_loaded():
    lacking = checkpoint()
    del lacking["backbone.clip_proj.5.bias"], lacking["backbone.clip_proj.8.bias"]
    refused(r"lacks 'backbone\.clip_proj\.5\.bias' and 1 more; leave the part out", lacking)
    refused(
        r"has 'ridge\.linears\.2\.weight', which this", checkpoint() | {"ridge.linears.2.weight": torch.zeros(8, 3)}
    )
    refused(r"has 'optimizer', which this model has no place for", checkpoint() | {"optimizer": torch.zeros(1)})
    misshaped = checkpoint() | {"backbone.backbone_linear.bias": torch.zeros(7)}
    refused(r"'backbone\.backbone_linear\.bias' of the checkpoint is \(7,\), the model expects \(24,\)", misshaped)
    other_schedule = checkpoint() | {"diffusion_prior.noise_scheduler.betas": torch.linspace(0, 0.02, 100)}
    refused(r"betas' of the checkpoint is not the table", other_schedule)


def test_models_of_another_kind_are_refused():
    refused(r"has 'head\.1\.weight', which published", checkpoint(), prior(head="low_rank"))
    refused(r"has 'mixer\.0\.body", checkpoint(), prior(mixer="residual-mlp"))
    refused(r"has 'join\.weight'", checkpoint(), prior(read_in="scan"))
    refused(
        r"found part 'prior', expected one that this model has: backbone, ridge, text", checkpoint(), prior().semantic
    )
    refused(r"'ridge\.linears\.1\.weight' and 1 more, which this", checkpoint(), subjects=("sub-a",))


def test_a_run_can_begin_with_published_files(tmp_path):
    state = checkpoint()
    torch.save({"model_state_dict": state}, tmp_path / "last.pth")
    torch.save({"proj": torch.ones(6, 5)}, tmp_path / "proj.pth")
    files = [
        {"file": f"{tmp_path}/last.pth", "parts": ["backbone"]},
        {"file": f"{tmp_path}/proj.pth", "parts": ["text"]},
    ]
    sizes = Sizes({"new": 7}, 1, {"clip_tokens": (4, 6), "clip_text": (5,)})
    config = SemanticConfig(dim=8, text_target="clip_text").override({"published": files})
    model = config.build(sizes)
    assert isinstance(model, ClosedForm)
    model.fit([])
    assert torch.equal(model.get_parameter("text.weight"), torch.ones(5, 6))
    assert torch.equal(model.get_parameter("head.0.weight"), state["backbone.backbone_linear.weight"])
    with pytest.raises(ConfigError, match=r"found model\.semantic\.published, expected it as model\.published"):
        PriorConfig().override({"semantic.published": files})


def test_files_are_read_without_running_them(tmp_path):
    torch.save({"epoch": 3, "model_state_dict": {"clipproj.proj": torch.ones(2, 3)}}, tmp_path / "last.pth")
    torch.save({"proj": torch.ones(2, 3)}, tmp_path / "coco_tokens_avg_proj.pth")
    for name in ("last.pth", "coco_tokens_avg_proj.pth"):
        assert {k: tuple(x.shape) for k, x in read_published(tmp_path / name).items()} == {"clipproj.proj": (2, 3)}
    torch.save({"model_state_dict": print}, tmp_path / "code.pth")
    with pytest.raises(IntegrityError, match="is not a file of plain tensors"):
        read_published(tmp_path / "code.pth")


def test_a_file_that_is_not_there_or_holds_one_tensor_is_one_sentence(tmp_path):
    with pytest.raises(ConfigError, match=r"there is no file of weights .*nowhere\.pth; correct published\.N\.file"):
        read_published(tmp_path / "nowhere.pth")
    torch.save(torch.zeros(3), tmp_path / "one.pth")
    with pytest.raises(IntegrityError, match="holds Tensor, expected names and tensors"):
        read_published(tmp_path / "one.pth")


def test_a_file_named_from_where_one_stands_is_meant_from_elsewhere(tmp_path, monkeypatch):
    """As by a worker that Ray starts in a folder of its own, out of the text of ``run.yaml``."""
    monkeypatch.chdir(tmp_path)
    text = PublishedConfig(file="weights.pth", parts=("text",)).dump()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    assert PublishedConfig.loads(text).file == str(tmp_path / "weights.pth")


def test_the_reader_may_be_imported_first():
    """Models name published weights, and their reader knows the models: neither may need the other to be there."""
    done = subprocess.run([sys.executable, "-c", "import cineray.training.published"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
