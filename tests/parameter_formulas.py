"""Parameters of published networks, layer by layer, as their papers and code describe the layers."""

__all__ = ["conv", "linear", "mindeye1_network", "mindeye2_backbone", "mindeye2_low_level", "prior_network"]


def linear(inputs, outputs):
    return inputs * outputs + outputs


def conv(inputs, outputs, side):
    return inputs * outputs * side**2 + outputs


def norm(width):
    """Gain and shift."""
    return 2 * width


def prior_network(dim, tokens, depth, heads, head_dim):
    """MindEye's diffusion prior: DALL-E 2's, one head of keys and values, SwiGLU, norms without shifts."""
    attention = dim + dim * heads * head_dim + dim * 2 * head_dim + 2 * head_dim + heads * head_dim * dim + dim
    forward = dim + dim * 8 * dim + 4 * dim * dim
    time = linear(dim, 2 * dim) + linear(2 * dim, 2 * dim) + linear(2 * dim, dim)
    return depth * (attention + forward) + 32 * heads + dim + dim**2 + time + 3 * tokens * dim


def mindeye1_network(voxels, hidden=4096, tokens=257, dim=768, inner=2048):
    """MindEye1's: read-in, four residual units, all tokens of CLIP ViT-L/14, and a projector per token."""
    units = 4 * (linear(hidden, hidden) + norm(hidden))
    projector = norm(dim) + linear(dim, inner) + norm(inner) + linear(inner, inner) + norm(inner) + linear(inner, dim)
    return linear(voxels, hidden) + norm(hidden) + units + linear(hidden, tokens * dim) + projector


def mindeye2_backbone(hidden, tokens=256, dim=1664):
    """MindEye2's shared network without its low-level branch: both mixers' halves, token head, projector."""
    mixers = 4 * (norm(hidden) + 2 * linear(hidden, hidden)) + 4 * (norm(1) + 2 * linear(1, 1))
    return mixers + linear(hidden, tokens * dim) + 3 * (norm(dim) + linear(dim, dim))


def residual(inputs, outputs):
    """Two convolutions with norms before them; where the width changes, a way around of one pixel."""
    around = 0 if inputs == outputs else conv(inputs, outputs, 1)
    return norm(inputs) + conv(inputs, outputs, 3) + norm(outputs) + conv(outputs, outputs, 3) + around


def decoder(inputs, outputs, widths):
    """A latent-diffusion autoencoder's decoder of one layer a block, ``widths`` from the deepest block up.

    A block has one residual unit more than layers; all but the last double the side by a convolution.
    """
    deepest, last = widths[0], widths[-1]
    attention = norm(deepest) + 4 * linear(deepest, deepest)
    middle = 2 * residual(deepest, deepest) + attention
    blocks = sum(residual(a, b) + residual(b, b) for a, b in zip((deepest, *widths), widths, strict=False))
    larger = sum(conv(width, width, 3) for width in widths[:-1])
    return conv(inputs, deepest, 3) + middle + blocks + larger + norm(last) + conv(last, outputs, 3)


def mindeye2_low_level(hidden=4096):
    """MindEye2's low-level branch: 64 x 7 x 7, decoded to latents 4 x 28 x 28, and a head of 49 tokens.

    The first two convolutions of that head have no shift, for a norm follows.
    """
    head = 64 * 512 + norm(512) + 512 * 512 + norm(512) + linear(512, 512)
    return linear(hidden, 64 * 7 * 7) + norm(64) + decoder(64, 4, (128, 64, 32)) + head
