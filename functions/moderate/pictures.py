"""Labelled pictures for `moderate`, made from the two photographs and the handwritten digits that scikit-learn bundles.

A seller's picture is `fine`, or has a number written over it (`text`: a telephone number that leads buyers off the
market), or shows next to nothing (`blank`: out of focus, a lens cap, a wall). A picture here is a crop of a photograph,
scaled to SIZE, mirrored and changed in brightness and contrast at random. Over a `text` one, three to eight digits of
one person's hand are laid in a row at any angle, in any colour, at any opacity, sharp or a little blurred.

Training and held-out pictures share no pixel and no digit: crops come from the left or from the right part of the
photographs, which do not overlap, and digits from the first two thirds of the data set or from the last one.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageEnhance, ImageFilter
from sklearn.datasets import load_digits, load_sample_images

LABELS: Final = ("fine", "text", "blank")
SIZE: Final = 64  # pixels; height and width of what the model sees
SEED: Final = 40
PARTS: Final = {"train": (0.0, 0.62), "heldout": (0.62, 1.0)}  # of a photograph's width
DIGITS: Final = {"train": (0, 1200), "heldout": (1200, 1797)}  # of load_digits
DETAIL_MIN: Final = 7.0  # mean difference of neighbouring pixels, in levels of 256
CROP_MIN: Final = 48  # pixels of a photograph; a smaller crop has too little in it

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Pictures:
    """`images` uint8 [n, SIZE, SIZE, 3], RGB; `labels` int64 [n], places in LABELS."""

    images: Pixels
    labels: NDArray[np.int64]


class Studio:
    """Makes pictures of one part ("train" or "heldout"). The same seed gives the same pictures."""

    def __init__(self, part: str, seed: int = SEED) -> None:
        self._random = np.random.default_rng([seed, list(PARTS).index(part)])
        left, right = PARTS[part]
        photographs = [Image.fromarray(photograph) for photograph in load_sample_images().images]
        self._photographs = [p.crop((round(left * p.width), 0, round(right * p.width), p.height)) for p in photographs]
        first, last = DIGITS[part]
        self._digits = load_digits().images[first:last] / 16.0

    def make(self, count: int) -> Pictures:
        """`count` pictures, of each label as many as of the others (but for one)."""
        labels = self._random.permutation(np.arange(count) % len(LABELS))
        images = [np.asarray(self.picture(LABELS[label], SIZE)) for label in labels]
        return Pictures(np.stack(images), labels.astype(np.int64))

    def picture(self, label: str, size: int) -> Image.Image:
        """One picture [size, size]."""
        made = self._scene(size)
        if label == "text":
            return self._written_over(made)
        return self._blank(made) if label == "blank" else made

    def _scene(self, size: int) -> Image.Image:
        """A random square of a photograph that shows something: neither sky nor what is out of focus."""
        random = self._random
        while True:
            photograph = self._photographs[random.integers(len(self._photographs))]
            side = int(random.integers(CROP_MIN, min(photograph.size) + 1))
            x, y = (int(random.integers(extent - side + 1)) for extent in photograph.size)
            scene = photograph.resize((size, size), Image.Resampling.BILINEAR, (x, y, x + side, y + side))
            if _detail(scene) > DETAIL_MIN:
                break
        if random.random() < 0.5:
            scene = scene.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        scene = ImageEnhance.Brightness(scene).enhance(random.uniform(0.6, 1.4))
        return ImageEnhance.Contrast(scene).enhance(random.uniform(0.7, 1.3))

    def _written_over(self, scene: Image.Image) -> Image.Image:
        """The scene with a number over it."""
        random, size = self._random, scene.width
        high = size * random.uniform(0.16, 0.34)  # of a digit
        count = int(np.clip(random.integers(3, 9), 1, 1.25 * size // (0.75 * high)))
        line = np.hstack([self._digit() for _ in range(count)])
        written = Image.fromarray((255 * line).astype(np.uint8))
        written = written.resize((max(1, round(0.75 * high * count)), round(high)), Image.Resampling.BICUBIC)
        written = written.rotate(random.uniform(-35, 35), Image.Resampling.BICUBIC, expand=True)
        if random.random() < 0.4:
            written = written.filter(ImageFilter.GaussianBlur(size * random.uniform(0.004, 0.012)))
        mask = Image.new("L", scene.size)
        x, y = (self._within(s - w) for s, w in zip(mask.size, written.size, strict=True))
        mask.paste(written, (x, y))
        mask = mask.point([round(level * random.uniform(0.75, 1.0)) for level in range(256)])
        return Image.composite(Image.new("RGB", scene.size, self._ink(scene, mask)), scene, mask)

    def _within(self, room: int) -> int:
        """Where something begins that has so much room; what is too large (less than 0) is cut off somewhere."""
        return int(self._random.integers(min(0, room), max(0, room) + 1))

    def _digit(self) -> NDArray[np.float64]:
        """One digit [8, 8], its strokes as dark as ink is."""
        digit: NDArray[np.float64] = self._digits[self._random.integers(len(self._digits))]
        return np.clip(1.6 * digit, 0, 1)

    def _ink(self, scene: Image.Image, mask: Image.Image) -> tuple[int, ...]:
        """A colour that can be read against what is behind it."""
        weight = np.asarray(mask, np.float64)[..., None]
        behind = (np.asarray(scene) * weight).sum((0, 1)) / max(1.0, weight.sum())
        while True:
            ink = self._random.integers(0, 256, 3)
            if np.abs(ink - behind).mean() > 70:
                return tuple(int(level) for level in ink)

    def _blank(self, scene: Image.Image) -> Image.Image:
        """The scene far out of focus, or nearly one colour, with a sensor's noise."""
        random, size = self._random, scene.width
        blurred = scene.filter(ImageFilter.GaussianBlur(size * random.uniform(0.08, 0.3)))
        flat = Image.new("RGB", scene.size, tuple(int(level) for level in random.integers(0, 256, 3)))
        made = np.asarray(Image.blend(blurred, flat, random.choice([0.0, random.uniform(0.3, 1.0)])), np.float64)
        noise = random.normal(0, random.uniform(0, 6), made.shape)
        return Image.fromarray(np.clip(made + noise, 0, 255).astype(np.uint8))


def _detail(scene: Image.Image) -> float:
    grey = np.asarray(scene.convert("L").resize((SIZE, SIZE)), np.float64)
    return float(np.abs(np.diff(grey, axis=0)).mean() + np.abs(np.diff(grey, axis=1)).mean()) / 2
