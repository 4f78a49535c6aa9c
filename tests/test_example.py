"""The example against the package: two programs, written apart, that compute the same numbers."""

import ast
import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from alexnet.data.augment import augment, iter_crops, make_normaliser, pca_shift
from alexnet.data.decode import inspect_image, resize_and_crop
from alexnet.data.statistics import PixelSums, Statistics
from alexnet.network import build
from alexnet.predictor import assemble
from alexnet.recipes import PAPER
from alexnet.training.optimizer import Rates, make_optimizer
from alexnet.training.randomness import make_generator, sample_params
from alexnet.training.trainer import LocalBatch, Replica, train
from alexnet.variants import NETWORKS

EXAMPLE = Path(__file__).parents[1] / "examples" / "alexnet.py"
CLASSES, BATCH, CROP = 10, 2, 227


class Package:
    """The package's side of every comparison; images are (N, 3, 256, 256) uint8, as the example's.

    All of the package's names that this file uses are used here.
    """

    @staticmethod
    def network(name, image_size=CROP, units=4096):
        """Return a network whose weights are drawn from seed 0."""
        spec = NETWORKS[name].with_layers("fc6", units=units).with_layers("fc7", units=units)
        return build(replace(spec, num_classes=CLASSES, image_size=image_size), seed=0)

    @staticmethod
    def statistics(images):
        return Statistics.from_sums(PixelSums.of(list(images.permute(0, 2, 3, 1).numpy()), 256))

    @staticmethod
    def augment(images, statistics, step):
        """Return what the network sees in a step of the recipe `paper`."""
        normalise = make_normaliser(NETWORKS["paper"].pixels, statistics, CROP)
        params = sample_params(len(images), 256, CROP, make_generator(PAPER.seed, step))
        shift = Package.pca_shift(params.noise, statistics)
        divisor, channels_last = PAPER.pca_jitter_divisor, images.permute(0, 2, 3, 1)
        return augment(channels_last, params, shift, normalise, divisor, CROP, torch.float32)

    @staticmethod
    def pca_shift(alphas, statistics):
        return pca_shift(alphas, statistics, PAPER.pca_jitter, PAPER.pca_axes)

    @staticmethod
    def train(network, batches, rates):
        """Train by the loop and the rule of the recipe `paper`, and return each step's loss.

        Dropout draws from PyTorch's generator, as it does where nobody has seeded it by image;
        here the loop seeds that generator with the number of the step.
        """
        local = [LocalBatch(pixels, labels, 0, len(labels)) for pixels, labels in batches]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                "alexnet.training.trainer.seed_dropout", lambda _, seed, __: torch.manual_seed(seed)
            )
            steps = train(
                Replica(network, network), make_optimizer(network, PAPER), local, PAPER,
                lambda step: Rates(*[rates[step - 1]] * 4), done=0, total=len(rates),
                dtype=torch.float64,
            )  # fmt: skip
            return [step.loss for step in steps]

    @staticmethod
    def ten_crops(images):
        return torch.stack(list(iter_crops(images.permute(0, 2, 3, 1), CROP, 10)))

    @staticmethod
    def predict(network, images, statistics):
        predictor = assemble(
            network.spec, network.state_dict(), statistics, tuple("abcdefghij"),
            precision="fp32", device=torch.device("cpu"),
        )  # fmt: skip
        return predictor.probabilities(images.permute(0, 2, 3, 1), 10)

    @staticmethod
    def read_image(path):
        image = resize_and_crop(inspect_image(path.read_bytes()).image, 256)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("example_alexnet", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def images():
    """Return six images of smooth colours with some grain, (6, 3, 256, 256) uint8."""
    draws = torch.Generator().manual_seed(0)
    coarse = torch.rand(6, 3, 8, 8, generator=draws) * 255
    smooth = F.interpolate(coarse, 256, mode="bilinear")
    grain = torch.randn(smooth.shape, generator=draws) * 10
    return (smooth + grain).clamp(0, 255).to(torch.uint8)


@pytest.fixture(scope="module")
def statistics(images):
    return Package.statistics(images)


@pytest.fixture(scope="module")
def pixels(example, statistics):
    """Return the package's statistics as the example keeps them."""
    mean = statistics.mean_image[:, 14 : 14 + CROP, 14 : 14 + CROP]
    stdevs, axes = statistics.colour_stdevs, statistics.colour_eigenvectors
    return example.PixelStatistics(*map(torch.from_numpy, (mean, stdevs, axes)))


def compare_training(network, theirs, example, images, pixels, statistics, rates, side):
    """Assert that both train alike on the central `side` pixels of augmented images, in float64.

    Losses are to agree to 1e-9 of themselves, and each tensor of weights to 1e-9 of its largest.
    """
    assert list(network.state_dict()) == list(theirs.state_dict())
    window = slice((CROP - side) // 2, (CROP + side) // 2)
    ours_seen, theirs_seen = [], []
    for step in range(1, len(rates) + 1):
        chosen = torch.arange(step * BATCH, (step + 1) * BATCH) % len(images)
        torch.manual_seed(step)
        x = example.augment(images[chosen], pixels)
        ours_seen.append((x[..., window, window].double(), chosen % CLASSES))
        x = Package.augment(images[chosen], statistics, step)
        theirs_seen.append((x[..., window, window].double(), chosen % CLASSES))

    expected = Package.train(theirs, theirs_seen, rates)
    velocity, losses = [torch.zeros_like(w) for w in network.parameters()], []
    for step, ((x, labels), lr) in enumerate(zip(ours_seen, rates, strict=True), start=1):
        torch.manual_seed(step)
        losses.append(example.train_step(network, velocity, x, labels, lr))

    assert max(expected) - min(expected) > 0.1  # the weights have moved
    np.testing.assert_allclose(losses, expected, rtol=1e-9, atol=0)
    for name, weight in theirs.state_dict().items():
        difference = (network.state_dict()[name] - weight).abs().max()
        assert difference <= 1e-9 * weight.abs().max(), name


@pytest.mark.parametrize("name", ["single", "paper"])
def test_twenty_steps_have_the_losses_of_the_package(example, images, pixels, statistics, name):
    """On images of 99 pixels, with convolutions as they are for 227, and a tenth of the units.

    The rate drops after ten steps, so that it matters whether it is inside the velocity.
    """
    theirs = Package.network(name, image_size=99, units=400).double()
    network = example.AlexNet(CLASSES, name)
    network.fc6, network.fc7 = nn.Linear(256 * 2 * 2, 400), nn.Linear(400, 400)
    network.fc8 = nn.Linear(400, CLASSES)
    network = network.double()
    network.load_state_dict(theirs.state_dict())
    rates = [1e-3] * 10 + [1e-4] * 10
    compare_training(network, theirs, example, images, pixels, statistics, rates, 99)


@pytest.mark.slow  # 62 million weights in float64, twice, and their gradients and velocities
@pytest.mark.parametrize("name", ["single", "paper"])
def test_networks_of_full_size_begin_and_train_alike(example, images, pixels, statistics, name):
    """From the same seed: the same initial weights bit for bit, and the same first steps."""
    theirs, network = Package.network(name), example.AlexNet(CLASSES, name)
    torch.manual_seed(0)
    network.initialize()
    for key, weight in theirs.state_dict().items():
        assert torch.equal(network.state_dict()[key], weight), key
    network, theirs = network.double(), theirs.double()
    compare_training(network, theirs, example, images, pixels, statistics, [1e-2, 1e-3], CROP)


@pytest.mark.parametrize(("name", "parameters"), [("single", 62_378_344), ("paper", 60_965_224)])
def test_it_has_the_published_number_of_parameters(example, name, parameters):
    with torch.device("meta"):
        network = example.AlexNet(1000, name)
    assert sum(weight.numel() for weight in network.parameters()) == parameters


def test_pixels_are_measured_as_by_the_package(example, images, statistics, pixels):
    measured = example.measure_pixels(images)
    assert torch.equal(measured.mean, pixels.mean)
    torch.testing.assert_close(measured.stdevs, pixels.stdevs, rtol=1e-6, atol=0)
    cosines = (measured.axes * pixels.axes).sum(0)  # an axis has two directions
    torch.testing.assert_close(cosines.abs(), torch.ones(3), rtol=0, atol=1e-6)


def test_augmented_pixels_are_those_of_the_package_bit_for_bit(example, images, pixels, statistics):
    for seed in range(4):
        torch.manual_seed(seed)
        assert torch.equal(
            example.augment(images, pixels), Package.augment(images, statistics, seed)
        )


def test_crops_begin_anywhere_and_half_are_mirrored(example):
    """Of images whose first two channels are the row and the column of each pixel."""
    row, column = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    image = torch.stack([row, column, row]).to(torch.uint8)
    nothing = example.PixelStatistics(torch.zeros(3, CROP, CROP), torch.zeros(3), torch.eye(3))
    torch.manual_seed(0)
    tops, lefts, mirrors = set(), set(), 0
    for x in example.augment(image.repeat(200, 1, 1, 1), nothing):
        top, left = int(x[0, 0, 0]), int(x[1, 0].min())
        tops, lefts, mirrored = tops | {top}, lefts | {left}, bool(x[1, 0, 0] > x[1, 0, 1])
        mirrors += mirrored
        window = image[:, top : top + CROP, left : left + CROP].float()
        assert torch.equal(x, window.flip(2) if mirrored else window)
    assert tops == lefts == set(range(30))
    assert 80 < mirrors < 120


def test_colours_are_shifted_as_by_the_package(example, statistics, pixels):
    alphas = torch.tensor([[0.3, -1.0, 2.0], [0.0, 0.0, 1.0]])
    shift = example.pca_shift(alphas, pixels)
    assert torch.equal(shift, Package.pca_shift(alphas, statistics))
    along_the_last = 0.1 * pixels.stdevs[2] * pixels.axes[:, 2]
    torch.testing.assert_close(shift[1].flatten(), along_the_last)


def test_ten_crops_are_those_of_the_package(example, images):
    assert torch.equal(example.ten_crops(images), Package.ten_crops(images))


def test_probabilities_are_those_of_the_package(example, images, pixels, statistics):
    """Dropout's factor at test included. Output weights are scaled up so that classes differ."""
    theirs, network = Package.network("paper"), example.AlexNet(CLASSES, "paper")
    with torch.no_grad():
        theirs.fc8.weight.mul_(200)
    network.load_state_dict(theirs.state_dict())
    expected = Package.predict(theirs, images[:2], statistics)
    assert expected.max() > 0.2
    torch.testing.assert_close(
        example.predict(network, images[:2], pixels), expected, rtol=1e-4, atol=1e-6
    )


def test_photographs_are_read_as_by_the_package(example, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (400, 300, 3), dtype=np.uint8)
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(noise).save(tmp_path / "upright.jpg")
    Image.fromarray(noise[:, :, 0]).save(tmp_path / "grey_and_turned.jpg", exif=turned)
    Image.fromarray(noise[:100, :90]).save(tmp_path / "small.jpg")
    for path in tmp_path.iterdir():
        found = example.read_image(path)
        assert found.shape == (3, 256, 256)
        assert torch.equal(found, Package.read_image(path)), path.name


def save_photographs(folder, count):
    """Save `count` small photographs of one colour, of a class of that name."""
    folder.mkdir(parents=True)
    for number in range(count):
        colour = (number * 10, 255 if folder.name == "green" else 0, 60)
        Image.new("RGB", (40, 30), colour).save(folder / f"{number}.jpg")


def test_a_quarter_of_each_class_is_held_out_by_the_seed(example, tmp_path):
    save_photographs(tmp_path / "green", 8)
    save_photographs(tmp_path / "red", 12)
    (tmp_path / "green" / "notes.txt").touch()
    train_on, test = example.list_photographs(tmp_path, seed=0)
    assert sorted(train_on + test) == sorted(tmp_path.glob("*/*.jpg"))
    assert sorted(path.parent.name for path in test) == ["green"] * 2 + ["red"] * 3
    assert example.list_photographs(tmp_path, seed=0) == (train_on, test)
    assert set(example.list_photographs(tmp_path, seed=1)[1]) != set(test)


def test_a_test_folder_is_what_is_tested(example, tmp_path):
    for split, images in (("train", 3), ("test", 2), ("validation", 1)):
        save_photographs(tmp_path / split / "green", images)
    for split, found in zip(("train", "test"), example.list_photographs(tmp_path, 0), strict=True):
        assert sorted(found) == sorted((tmp_path / split).glob("*/*.jpg"))


def run(*arguments):
    command = [sys.executable, "-W", "error", EXAMPLE, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


@pytest.mark.slow  # in a process of its own, with the whole network
def test_it_trains_and_says_what_it_reaches(tmp_path):
    save_photographs(tmp_path / "green", 4)
    save_photographs(tmp_path / "red", 4)
    done = run(tmp_path, "--epochs", "1", "--batch-size", "4", "--lr", "0.001")
    assert done.returncode == 0, done.stderr
    first, *_, last = done.stdout.splitlines()
    assert first.startswith("2 classes, 6 images to train, 2 to test")
    assert "step 2 of 2" in done.stdout
    assert last.startswith("top-1 ")


def test_an_empty_folder_is_named(example, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(tmp_path)])
    with pytest.raises(SystemExit, match="2"):
        example.main()
    assert f"{tmp_path} has too few photographs" in capsys.readouterr().err


def test_it_is_one_page_of_plain_pytorch():
    text = EXAMPLE.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 250
    imported = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0
            imported.add(node.module)
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
    roots = {name.split(".")[0] for name in imported}
    assert roots - set(sys.stdlib_module_names) == {"torch", "numpy", "PIL"}
