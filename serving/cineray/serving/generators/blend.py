"""Pictures put together by frequency: place and motion from a blurry video, outline and colour from a sharp picture."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.special import softmax

__all__ = ["blend", "placed", "places", "recoloured", "resized"]

Pixels = NDArray[np.float32]

SMOOTH_FRAMES = 1.0
"""Standard deviation, in frames, over which matches are smoothed."""

EMPTY = 1e-6
"""A picture with less contrast than this stands everywhere alike."""


def blend(
    picture: NDArray[np.uint8], blurry: Pixels, cutoff: float, doubt: float, light: float = 1.0
) -> NDArray[np.uint8]:
    """The picture moved along a blurry video, with the video's low frequencies (Burt & Adelson 1983, one level).

    Args:
        picture: (height, width, 3).
        blurry: (frames, height, width, 3), 0 to 255.
        cutoff: standard deviation of the Gaussian that parts low from high frequencies, in frame widths.
        doubt: see `places`; the picture stands at several places at once, each as strongly as it is likely.
        light: share of the low frequencies that come from the video.
    """
    sharp, sigma = picture.astype(np.float32), cutoff * picture.shape[1]
    return _with_lows(placed(sharp, places(sharp, blurry, sigma, doubt), _low(blurry, sigma)), blurry, sigma, light)


def recoloured(picture: NDArray[np.uint8], blurry: Pixels, cutoff: float, light: float = 1.0) -> NDArray[np.uint8]:
    """The picture where it stands, or a video as it is, with the low frequencies of a blurry one; see `blend`."""
    still = np.broadcast_to(picture.astype(np.float32), blurry.shape)
    return _with_lows(still, blurry, cutoff * picture.shape[-2], light)


def places(picture: Pixels, video: Pixels, sigma: float, doubt: float) -> Pixels:
    """(frames, 2 · height, 2 · width) how likely each shift of ``picture`` is in each frame; sums to 1.

    Shifts are down and right in whole pixels, negative ones from the end. How well one matches is the cross-correlation
    of low frequencies (no wrapping), summed over colours; each image without its median, which is the background where
    something stands before one. It is smoothed over neighbouring frames, for things do not jump. A shift whose match is
    worse by ``doubt`` times that of the picture with itself is e times less likely: a faint or ambiguous video spreads
    the picture out.
    """
    size = (2 * picture.shape[0], 2 * picture.shape[1])
    still, moving = _low(picture[None], sigma), _low(video, sigma)
    still, moving = (x - np.median(x, axis=(1, 2), keepdims=True) for x in (still, moving))
    spectrum = np.fft.rfft2(moving, size, axes=(1, 2)) * np.conj(np.fft.rfft2(still, size, axes=(1, 2)))
    match = ndimage.gaussian_filter1d(
        np.fft.irfft2(spectrum.sum(-1), size, axes=(1, 2)), SMOOTH_FRAMES, axis=0, mode="nearest"
    )
    logit = match / max(doubt * float(np.square(still).sum()), EMPTY)
    return softmax(logit, axis=(1, 2)).astype(np.float32)


def placed(picture: Pixels, places: Pixels, beyond: Pixels) -> Pixels:
    """(frames, height, width, 3): the mean of the picture over its ``places``; ``beyond`` where it does not reach."""
    height, width = picture.shape[:2]
    spectrum = np.fft.rfft2(places, axes=(1, 2))[..., None]

    def mean(x: Pixels) -> Pixels:
        moved = np.fft.irfft2(spectrum * np.fft.rfft2(x, places.shape[1:], axes=(0, 1)), places.shape[1:], axes=(1, 2))
        return moved[:, :height, :width].astype(np.float32)

    covered = mean(np.ones_like(picture[..., :1]))
    return (mean(picture) + (1 - covered) * beyond).astype(np.float32)


def resized(video: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """(frames, height, width, 3) at another size: bilinear, anti-aliased where it gets smaller."""
    if video.shape[1:3] == (height, width):
        return video
    pixels = torch.from_numpy(np.ascontiguousarray(video)).movedim(-1, 1).float()
    new = torch.nn.functional.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    return new.round().clamp(0, 255).to(torch.uint8).movedim(1, -1).numpy()


def _with_lows(sharp: Pixels, blurry: Pixels, sigma: float, light: float) -> NDArray[np.uint8]:
    return np.rint(np.clip(sharp + light * _low(blurry - sharp, sigma), 0, 255)).astype(np.uint8)


def _low(video: Pixels, sigma: float) -> Pixels:
    """Gaussian low-pass of every frame and colour."""
    return np.asarray(ndimage.gaussian_filter(video, (0, sigma, sigma, 0), mode="nearest"), np.float32)
