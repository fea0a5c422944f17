"""The published full sizes, on the meta device: they can be put together, and they have the published counts."""

import torch

from cineray.serving.generators.shapes import CONTEXT, full_size_autoencoder, full_size_control, full_size_unet

META = torch.device("meta")


def count(model):
    return sum(p.numel() for p in model.parameters())


def motion_parameters(width):
    """GroupNorm, in and out, two attentions without bias but for their output, three norms, GEGLU times four."""
    attention = 4 * width**2 + width
    feed_forward = width * 8 * width + 8 * width + 4 * width * width + width
    return 2 * width + 2 * (width**2 + width) + 2 * attention + 3 * 2 * width + feed_forward


def test_the_unet_has_the_published_counts():
    """859,520,964 of Stable Diffusion 1.5, and 2 + 3 motion layers at each of the widths 320, 640, 1280, 1280."""
    with META:
        unet = full_size_unet()
    assert count(unet) == 859_520_964 + 5 * sum(map(motion_parameters, (320, 640, 1280, 1280)))


def test_the_autoencoders_have_the_published_counts():
    with META:
        full, tiny = full_size_autoencoder(tiny=False), full_size_autoencoder(tiny=True)
    assert count(full.model) == 83_653_863
    assert count(tiny.model) < count(full.model) / 30
    for autoencoder in (full, tiny):
        assert (autoencoder.factor, autoencoder.channels) == (8, 4)


def test_a_step_of_sixteen_frames_has_the_right_shapes():
    """UNet and SparseCtrl of the full size fit together, at 256 pixels and with guidance."""
    with META, torch.inference_mode():
        unet, control = full_size_unet().eval(), full_size_control().eval()
        sample, t = torch.zeros(2, 4, 16, 32, 32), torch.zeros((), dtype=torch.int64)
        context = torch.zeros(2 * 16, *CONTEXT)
        down, mid = control(
            sample, t, context, controlnet_cond=sample, conditioning_mask=sample[:, :1], return_dict=False
        )
        out = unet(sample, t, context, down_block_additional_residuals=down, mid_block_additional_residual=mid).sample
    assert out.shape == sample.shape
