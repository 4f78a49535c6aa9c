"""AlexNet in one file: the network of 2012, its training and its test, in plain PyTorch.

    python examples/alexnet.py FOLDER

FOLDER has one folder of photographs for each class, FOLDER/CLASS/*.jpg; or train/ and test/ with
such folders in them. Sections are those of the paper: Krizhevsky, Sutskever, Hinton, "ImageNet
Classification with Deep Convolutional Neural Networks", NIPS 2012. Where the program with which it
was made, "the source", did otherwise, docstrings say so; docs/facts.md has all such differences.

Read from top to bottom: the network, the images, the training, the test. It computes in float32,
on an NVIDIA GPU where there is one, and keeps all images in its memory, 192 KiB each.
"""

import time
from argparse import ArgumentParser
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn

SIDE = 256  # pixels on a side of an image in memory
CROP = 227  # and of what the network sees; the paper's 224 do not fit conv1's kernel and stride
MARGIN = SIDE - CROP  # a crop begins 0 to 29 pixels from the top and from the left


def local_response_norm(x: Tensor, towers: int) -> Tensor:
    """Divide each activation by a power of the energy of its neighbouring channels (section 3.3).

    b_i = a_i / (k + alpha * sum of a_j ** 2 over the n channels around i) ** beta

    Channels beyond the first and the last of a tower count as zero. `torch.nn.LocalResponseNorm`
    divides alpha by n, the paper does not: its alpha of 1e-4 would be 5e-4 there.
    """
    k, n, alpha, beta = 2, 5, 1e-4, 0.75
    a = x.unflatten(1, (towers, -1))  # (N, towers, C, H, W)
    squares = F.pad(a.square(), (0, 0, 0, 0, n // 2, n // 2))  # (N, towers, C + 4, H, W)
    energy = sum(squares[:, :, shift : shift + a.shape[2]] for shift in range(n))
    return (a / (k + alpha * energy) ** beta).flatten(1, 2)


def dropout(x: Tensor, training: bool) -> Tensor:
    """Set half of the outputs to zero in training, and halve all of them at test (section 4.2)."""
    # torch.nn.Dropout doubles the outputs that it keeps instead, and with them their gradients.
    return x * (torch.rand(x.shape, device=x.device) >= 0.5) if training else x * 0.5


class AlexNet(nn.Module):
    """Five convolutions and three fully-connected layers (section 3.5 and Figure 2).

    It maps pixels of 0-255 less the mean image, (N, 3, 227, 227), to logits, (N, num_classes).
    "paper" is in two towers, one for each GPU of 2012: in conv2, conv4 and conv5 a channel sees
    those of its own tower only (section 3.2). "single" is the same network undivided.
    """

    def __init__(self, num_classes: int, network: str = "single") -> None:
        super().__init__()
        self.towers = towers = {"single": 1, "paper": 2}[network]
        self.conv1 = nn.Conv2d(3, 96, kernel_size=11, stride=4)
        self.conv2 = nn.Conv2d(96, 256, kernel_size=5, padding=2, groups=towers)
        self.conv3 = nn.Conv2d(256, 384, kernel_size=3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, kernel_size=3, padding=1, groups=towers)
        self.conv5 = nn.Conv2d(384, 256, kernel_size=3, padding=1, groups=towers)
        self.fc6 = nn.Linear(256 * 6 * 6, 4096)
        self.fc7 = nn.Linear(4096, 4096)
        self.fc8 = nn.Linear(4096, num_classes)
        self.initialize()

    def initialize(self) -> None:
        """Draw the weights and set the biases (section 5).

        In conv3 to conv5 "paper" has the printed standard deviation, "single" that of the source,
        from which logits start ten times as strong. Biases of 1 let ReLUs see positive inputs.
        """
        for name, layer in self.named_children():
            wide = self.towers == 1 and name in ("conv3", "conv4", "conv5")
            nn.init.normal_(layer.weight, std=0.03 if wide else 0.01)
            nn.init.constant_(layer.bias, name in ("conv2", "conv4", "conv5", "fc6", "fc7"))

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits. The windows of pooling, 3 wide and 2 apart, overlap (section 3.4)."""
        x = F.relu(self.conv1(x))  # (N, 96, 55, 55)
        x = F.max_pool2d(local_response_norm(x, self.towers), 3, stride=2)  # (N, 96, 27, 27)
        x = F.relu(self.conv2(x))  # (N, 256, 27, 27)
        x = F.max_pool2d(local_response_norm(x, self.towers), 3, stride=2)  # (N, 256, 13, 13)
        x = F.relu(self.conv3(x))  # (N, 384, 13, 13)
        x = F.relu(self.conv4(x))  # (N, 384, 13, 13)
        x = F.max_pool2d(F.relu(self.conv5(x)), 3, stride=2)  # (N, 256, 6, 6)
        x = dropout(F.relu(self.fc6(x.flatten(1))), self.training)  # (N, 4096)
        x = dropout(F.relu(self.fc7(x)), self.training)  # (N, 4096)
        return self.fc8(x)


def list_photographs(folder: Path, seed: int) -> tuple[list[Path], list[Path]]:
    """List the photographs to train on and to test: test/, or else a quarter of each class."""
    jpegs = "*/*.[jJ][pP]*[gG]"
    root = folder / "train" if (folder / "train").is_dir() else folder
    train, test = sorted(root.glob(jpegs)), sorted((folder / "test").glob(jpegs))
    shuffle = np.random.default_rng(seed).shuffle
    shuffle(train)
    if not test:
        train.sort(key=lambda path: path.parent)  # by class, and still at random within each
        test = train[::4]
        del train[::4]
        shuffle(train)
    shuffle(test)
    return train, test


def read_image(path: Path) -> Tensor:
    """Scale the shorter side to 256 and keep the centre (section 2): (3, 256, 256) uint8."""
    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file).convert("RGB")
    method = Image.Resampling.BOX if min(image.size) >= SIDE else Image.Resampling.BICUBIC
    square = ImageOps.fit(image, (SIDE, SIDE), method)  # BOX is the average over an area
    return torch.from_numpy(np.array(square)).permute(2, 0, 1)


def crop(images: Tensor, top: int, left: int) -> Tensor:
    """Cut 227x227 pixels out of (..., 256, 256)."""
    return images[..., top : top + CROP, left : left + CROP]


class PixelStatistics(NamedTuple):
    """What is subtracted from pixels, and how their colours vary, over the training images."""

    mean: Tensor  # (3, 227, 227): the centre of the mean image
    stdevs: Tensor  # (3,): standard deviations along the principal axes of RGB
    axes: Tensor  # (3, 3): these axes, as columns


def measure_pixels(images: Tensor) -> PixelStatistics:
    """Compute the mean image (section 2) and the principal axes of RGB (section 4.1)."""
    mean = images.sum(0, dtype=torch.float64) / len(images)  # (3, 256, 256)
    colours = (image.flatten(1).double() for image in images)  # (3, 65536) each
    products = sum(rgb @ rgb.T for rgb in colours) / images[:, 0].numel()
    mean_colour = mean.mean((1, 2))
    variances, axes = torch.linalg.eigh(products - mean_colour.outer(mean_colour))
    centre = crop(mean, MARGIN // 2, MARGIN // 2)
    return PixelStatistics(centre.float(), variances.clamp(min=0).sqrt().float(), axes.float())


def pca_shift(alphas: Tensor, pixels: PixelStatistics) -> Tensor:
    """Turn normal draws, (N, 3), into one RGB shift an image, (N, 3, 1, 1) (section 4.1).

    The paper multiplies draws of standard deviation 0.1 by eigenvalues, its source by their roots:
    eigenvalues would shift pixels of 0-255 by more than a thousand.
    """
    return ((alphas * pixels.stdevs * 0.1) @ pixels.axes.T)[:, :, None, None]


def augment(images: Tensor, pixels: PixelStatistics) -> Tensor:
    """Crop at random, mirror half and shift the colours (section 4.1), and subtract the mean.

    (N, 3, 256, 256) uint8 to (N, 3, 227, 227) float32.
    """
    corners = torch.randint(0, MARGIN + 1, (len(images), 2)).tolist()
    mirrored = (torch.rand(len(images)) < 0.5).tolist()
    alphas = torch.randn(len(images), 3).to(images.device)
    crops = [crop(image, *corner) for image, corner in zip(images, corners, strict=True)]
    views = [one.flip(2) if flip else one for one, flip in zip(crops, mirrored, strict=True)]
    return torch.stack(views).float() + pca_shift(alphas, pixels) - pixels.mean


def ten_crops(images: Tensor) -> Tensor:
    """Cut the centre and the corners, and mirror each (section 4.1): (10, N, 3, 227, 227)."""
    corners = [(MARGIN // 2, MARGIN // 2), (0, 0), (0, MARGIN), (MARGIN, 0), (MARGIN, MARGIN)]
    crops = [crop(images, *corner).float() for corner in corners]
    return torch.stack([view for one in crops for view in (one, one.flip(3))])


def train_step(network: AlexNet, velocity: list[Tensor], x: Tensor, y: Tensor, lr: float) -> float:
    """Update the weights by one batch, and return the loss that it had (section 5).

    v <- 0.9 v - 0.0005 lr w - lr gradient;  w <- w + v

    The rate is inside the velocity: after a drop, the old velocity dies away at its old scale.
    `torch.optim.SGD` multiplies by the rate last. As in the source, biases have no weight decay.
    """
    loss = F.cross_entropy(network.train()(x), y)
    loss.backward()
    with torch.no_grad():
        for w, v in zip(network.parameters(), velocity, strict=True):
            decay = 0.0005 if w.dim() > 1 else 0
            w += v.mul_(0.9).sub_(w, alpha=decay * lr).sub_(w.grad, alpha=lr)
            w.grad = None
    return loss.item()


@torch.no_grad()
def predict(network: AlexNet, images: Tensor, pixels: PixelStatistics) -> Tensor:
    """Return class probabilities, (N, classes): the mean over ten crops (section 4.1)."""
    x = ten_crops(images) - pixels.mean
    return network.eval()(x.flatten(0, 1)).softmax(1).unflatten(0, x.shape[:2]).mean(0)


def main() -> None:
    """Train on a folder of photographs, and test on those that were held out."""
    parser = ArgumentParser(description="Train AlexNet on a folder of photographs and test it.")
    parser.add_argument("folder", type=Path, help="CLASS/*.jpg, or {train,test}/CLASS/*.jpg in it")
    parser.add_argument("--network", choices=("single", "paper"), default="single")
    parser.add_argument("--epochs", type=int, default=16, help="the paper's: 90")
    parser.add_argument("--batch-size", type=int, default=64, help="the paper's: 128")
    parser.add_argument("--lr", type=float, default=0.01, help="the highest learning rate")
    parser.add_argument("--limit", type=int, help="train, and test, on so many images at most")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    device = "cuda" if torch.cuda.is_available() else "cpu"

    train, test = (paths[: args.limit] for paths in list_photographs(args.folder, args.seed))
    if not train or not test:
        parser.error(f"{args.folder} has too few photographs: it should hold CLASS/*.jpg.")
    names, labels = np.unique([path.parent.name for path in train + test], return_inverse=True)
    print(f"{len(names)} classes, {len(train)} images to train, {len(test)} to test, on {device}")
    parts = [len(train), len(test)]
    images, test_images = torch.stack([*map(read_image, train + test)]).to(device).split(parts)
    labels, test_labels = torch.from_numpy(labels).to(device).split(parts)
    pixels = measure_pixels(images)

    network = AlexNet(len(names), args.network).to(device)
    velocity = [torch.zeros_like(w) for w in network.parameters()]
    orders = [torch.randperm(len(images)) for _ in range(args.epochs)]
    batches = [batch for order in orders for batch in order.split(args.batch_size)]
    losses, start = [], time.perf_counter()
    for step, batch in enumerate(batches, start=1):
        # The paper divides the rate by 10 when the validation error stalls, three times in 90
        # epochs. A short training cannot wait for that: here the rate rises to its highest in a
        # straight line for 15 % of the steps, and falls to 0 in another until the end.
        progress = (step - 0.5) / len(batches)
        lr = args.lr * min(progress / 0.15, (1 - progress) / 0.85)
        x = augment(images[batch], pixels)
        losses.append(train_step(network, velocity, x, labels[batch], lr))
        if step % 10 == 0 or step == len(batches):
            loss, minutes = np.mean(losses[-10:]), (time.perf_counter() - start) / 60
            done = f"step {step} of {len(batches)}, {minutes:.1f} min"
            print(f"{done}: rate {lr:.4f}, loss {loss:.3f}", flush=True)

    answers = [predict(network, some, pixels).argmax(1) for some in test_images.split(16)]
    top1 = (torch.cat(answers) == test_labels).float().mean()
    largest = test_labels.bincount().max() / len(test)
    print(f"top-1 {top1:.3f} with ten crops; the largest class has {largest:.3f} of the images")


if __name__ == "__main__":
    main()
