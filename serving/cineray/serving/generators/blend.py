"""Pictures put together by frequency: place and motion from a blurry video, outline and colour from a sharp picture."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["blend", "placed", "resized", "shifts"]

Pixels = NDArray[np.float32]


def blend(picture: NDArray[np.uint8], blurry: Pixels, cutoff: float) -> NDArray[np.uint8]:
    """The picture moved along a blurry video, with the video's low frequencies (Burt & Adelson 1983, one level).

    Args:
        picture: (height, width, 3).
        blurry: (frames, height, width, 3), 0 to 255.
        cutoff: standard deviation of the Gaussian that parts low from high frequencies, in frame widths.
    """
    sharp, sigma = picture.astype(np.float32), cutoff * picture.shape[1]
    moved = placed(sharp, shifts(sharp, blurry, sigma), blurry)
    return np.rint(np.clip(moved + _low(blurry - moved, sigma), 0, 255)).astype(np.uint8)


def shifts(picture: Pixels, video: Pixels, sigma: float) -> NDArray[np.int64]:
    """(frames, 2) pixels down and right that bring the low frequencies of ``picture`` closest to those of each frame.

    The peak of the cross-correlation over all shifts (no wrapping), summed over colours; each image without its median,
    which is the background where something stands before one. Correlations are smoothed over neighbouring frames, for
    things do not jump.
    """
    height, width = picture.shape[:2]
    still = _low(picture[None], sigma)[0]
    still = still - np.median(still, axis=(0, 1))
    moving = _low(video, sigma)
    moving = moving - np.median(moving, axis=(1, 2), keepdims=True)
    size = (2 * height, 2 * width)
    spectrum = np.fft.rfft2(moving, size, axes=(1, 2)) * np.conj(np.fft.rfft2(still, size, axes=(0, 1)))
    score = np.fft.irfft2(spectrum.sum(-1), size, axes=(1, 2))
    score = ndimage.gaussian_filter1d(score, 1.0, axis=0, mode="nearest")
    down, right = np.divmod(score.reshape(len(score), -1).argmax(1), 2 * width)
    return np.stack([(down + height) % size[0] - height, (right + width) % size[1] - width], 1)


def placed(picture: Pixels, moves: NDArray[np.int64], beyond: Pixels) -> Pixels:
    """(frames, height, width, 3): the picture moved by whole pixels; ``beyond``, likewise, where it does not reach."""
    height, width = picture.shape[:2]
    rows, columns = np.arange(height) - moves[:, :1], np.arange(width) - moves[:, 1:]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    moved = picture[rows.clip(0, height - 1)[:, :, None], columns.clip(0, width - 1)[:, None, :]]
    return np.where(inside[..., None], moved, beyond)


def resized(video: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """(frames, height, width, 3) at another size: bilinear, anti-aliased where it gets smaller."""
    if video.shape[1:3] == (height, width):
        return video
    pixels = torch.from_numpy(np.ascontiguousarray(video)).movedim(-1, 1).float()
    new = torch.nn.functional.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    return new.round().clamp(0, 255).to(torch.uint8).movedim(1, -1).numpy()


def _low(video: Pixels, sigma: float) -> Pixels:
    """Gaussian low-pass of every frame and colour."""
    return np.asarray(ndimage.gaussian_filter(video, (0, sigma, sigma, 0), mode="nearest"), np.float32)
