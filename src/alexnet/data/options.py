"""How images are prepared, as a value."""

from dataclasses import dataclass

from alexnet.errors import DataError


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    """How images are prepared."""

    size: int = 256  # pixels on a side, after scaling the shorter side and cropping (section 2)
    quality: int = 95  # of the JPEG, as in cuda-convnet2 (facts 4)
    raw: bool = False  # keep the pixels themselves, six times the size, nothing to decode
    exif: bool = True  # turn images upright as their EXIF orientation says
    shard_images: int = 512  # images in a file: one task, some 17 MB

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 4096:
            raise DataError(f"The prepared size is {self.size}.", "It must be 8 to 4096 pixels.")
        if not 1 <= self.quality <= 100:
            raise DataError(f"The JPEG quality is {self.quality}.", "It must be 1 to 100.")
        if self.raw and self.shard_images * self.size**2 * 3 >= 1 << 31:
            raise DataError(
                f"{self.shard_images} raw images of {self.size} pixels do not fit into a shard.",
                "Prepare JPEGs, or a smaller size.",
            )

    @property
    def typical_bytes(self) -> float:
        """What an image takes on the disk, as a rule: 36 kB at 256 pixels, quality 95."""
        return 3.0 * self.size**2 if self.raw else 0.55 * self.size**2 * self.quality / 95
