"""Caffe's files against OpenCV's own reader of them, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from alexnet.api import load
from alexnet.errors import RunError
from alexnet.interop.imports import PEEKED, detect_format, import_file
from tests.interop.caffe_files import Step, alexnet, blob, caffemodel, field, message, prototxt

cv2 = pytest.importorskip("cv2")
NARROW = (16, 32, 48, 48, 32, 40, 24, 12)
ORDERS = {"norm-pool": "caffe", "pool-norm": "caffenet"}


def by_opencv(folder, steps: list[Step], pixels: np.ndarray) -> dict[str, np.ndarray]:
    """Run a net by OpenCV's reader of Caffe's files; return what every layer makes."""
    cv2.setNumThreads(1)
    (folder / "net.prototxt").write_text(prototxt(steps))
    net = cv2.dnn.readNetFromCaffe(str(folder / "net.prototxt"), str(folder / "net.caffemodel"))
    net.enableFusion(False)
    net.setInput(pixels)
    names = [step.name for step in steps]
    return dict(zip(names, net.forward(names), strict=True))


def compared(folder, steps: list[Step]) -> None:
    """See that every blob of the imported network is the one that OpenCV computes."""
    draws = np.random.default_rng(5)
    pixels = draws.uniform(-120, 130, (2, 3, 227, 227)).astype(np.float32)  # BGR less the mean
    theirs = by_opencv(folder, steps, pixels)
    network = load(folder / "run", device=torch.device("cpu")).network
    names = [step.name for step in steps if step.name != "prob"]
    with torch.inference_mode():
        ours = network.activations(torch.from_numpy(pixels), names)
    for name in names:
        mine, other = ours[name].numpy(), theirs[name].reshape(ours[name].shape)
        apart = np.abs(mine - other).max() / np.abs(other).max()
        print(f"{name}: {apart:.1e}")  # shown by pytest -rP
        assert apart < 1e-4, name
    assert 0.5 < theirs["fc8"].std() < 10
    np.testing.assert_allclose(ours["fc8"].softmax(1).numpy(), theirs["prob"], atol=1e-5)


@pytest.mark.parametrize(("order", "form"), [("norm-pool", "layers"), ("pool-norm", "layer")])
def test_reference_networks_of_real_size_compute_what_opencv_does(order, form, tmp_path):
    steps = alexnet(order)
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(steps, form))
    made = import_file(tmp_path / "net.caffemodel", tmp_path / "run")
    spec = made.run.config.spec
    assert (made.form, spec.name, spec.image_size) == ("caffe", ORDERS[order], 227)
    assert (spec.parameters, spec.pixels.channel_order) == (60_965_224, "BGR")
    compared(tmp_path, steps)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("form", ["layers", "layer"])
@pytest.mark.parametrize("order", ORDERS)
def test_every_way_of_writing_them_gives_the_same_weights(order, form, packed, tmp_path):
    steps = alexnet(order, NARROW)
    (tmp_path / "net.caffemodel").write_bytes(caffemodel(steps, form, packed=packed))
    made = import_file(tmp_path / "net.caffemodel", tmp_path / "run")
    weights = made.run.load_weights().weights
    for step in steps:
        for part, values in zip(("weight", "bias"), step.blobs, strict=False):
            assert np.array_equal(weights[f"{step.name}.{part}"].numpy(), values)
    compared(tmp_path, steps)


def written(folder, steps: list[Step], **how):
    (folder / "net.caffemodel").write_bytes(caffemodel(steps, **how))
    return folder / "net.caffemodel"


def test_predictions_are_caffes_for_the_same_photograph(tmp_path):
    """From the file's own bytes on: BGR, the mean image's window, the centre crop."""
    draws = np.random.default_rng(3)
    steps, mean = alexnet("pool-norm", NARROW), draws.uniform(60, 160, (3, 256, 256))
    mean = mean.astype(np.float32)  # BGR, as Caffe's
    (tmp_path / "mean.binaryproto").write_bytes(blob(mean[None], old=True))
    lines = [f"n{number:08} word, {number}" for number in range(12)]
    (tmp_path / "words.txt").write_text("\n".join(lines) + "\n")
    path = written(tmp_path, steps)
    import_file(
        path, tmp_path / "run", mean=tmp_path / "mean.binaryproto", classes=tmp_path / "words.txt"
    )
    model = load(tmp_path / "run", device=torch.device("cpu"))
    image = draws.integers(0, 256, (256, 256, 3), np.uint8)  # RGB
    bgr = image[:, :, ::-1].transpose(2, 0, 1).astype(np.float32) - mean
    window = np.ascontiguousarray(bgr[None, :, 14:241, 14:241])
    theirs = by_opencv(tmp_path, steps, window)["prob"][0].reshape(-1)
    places = model.predict(image, top=12, crops=1)
    chances = {place.label: place.probability for place in places}
    found = [chances[f"n{number:08}"] for number in range(12)]
    np.testing.assert_allclose(found, theirs, atol=1e-5)


@pytest.mark.parametrize("kind", ["colour", "image", "window"])
def test_means_come_as_arrays_of_numpy_too(kind, tmp_path):
    draws = np.random.default_rng(0)
    shape = {"colour": (3,), "image": (3, 250, 250), "window": (3, 227, 227)}[kind]
    mean = draws.uniform(60, 160, shape).astype(np.float32)
    np.save(tmp_path / "mean.npy", mean)
    path = written(tmp_path, alexnet("norm-pool", NARROW))
    import_file(path, tmp_path / "run", mean=tmp_path / "mean.npy")
    model = load(tmp_path / "run", device=torch.device("cpu"))
    pixels = torch.rand(1, 3, 227, 227) * 255  # RGB
    seen = model.normalise(pixels)[0].numpy()
    whole = mean if kind != "colour" else np.broadcast_to(mean[:, None, None], (3, 227, 227))
    at = (whole.shape[1] - 227) // 2
    wanted = pixels[0].numpy()[::-1] - whole[:, at : at + 227, at : at + 227]
    np.testing.assert_allclose(seen, wanted, atol=1e-4)


def trained(steps: list[Step], data: list[tuple[int, object]]) -> bytes:
    """Encode a net as training leaves it: a layer of data a phase, copies, accuracy and loss."""

    def layer(number, name, bottoms, tops, *more):
        body = [(4, name), (5, number), *((2, b) for b in bottoms), *((3, t) for t in tops)]
        return field(2, message(*body, *more))

    net = caffemodel([step for step in steps if step.name != "prob"], "layers")
    return b"".join((
        layer(5, "data", [], ["data", "label"], (32, message((1, 0))), *data),
        layer(5, "data", [], ["data", "label"], (32, message((1, 1))), *data),
        layer(22, "label_data_1_split", ["label"], ["label_0", "label_1"]),
        net,
        layer(22, "fc8_fc8_0_split", ["fc8"], ["fc8_fc8_0_split_0", "fc8_fc8_0_split_1"]),
        layer(1, "accuracy", ["fc8_fc8_0_split_0", "label_0"], ["accuracy"]),
        layer(21, "loss", ["fc8_fc8_0_split_1", "label_1"], ["loss"]),
    ))  # fmt: skip


@pytest.mark.parametrize("place", ["transform", "data"])
def test_a_net_as_training_leaves_it_says_its_crop_and_mean(place, tmp_path):
    told = {
        "transform": (36, message((1, 0.5), (3, 227), (5, np.array([1.0, 2, 3])))),
        "data": (11, message((2, 0.5), (3, "/data/ilsvrc12/mean.binaryproto"), (5, 227))),
    }
    data = trained(alexnet("norm-pool", NARROW), [told[place]])
    (tmp_path / "net").write_bytes(data)
    made = import_file(tmp_path / "net", tmp_path / "run")
    pixels = made.run.config.spec.pixels
    assert (made.run.config.spec.image_size, pixels.scale) == (227, 0.5)
    if place == "transform":
        assert pixels.mean == (1.5, 1.0, 0.5)  # RGB, after scaling
    else:
        assert pixels.mean == pytest.approx((61.339, 58.334, 52.003), abs=1e-3)
        assert any("mean.binaryproto" in line for line in made.found)


def test_a_description_counts_instead_of_the_layers_in_the_file(tmp_path):
    steps = alexnet("norm-pool", NARROW)
    (tmp_path / "net.prototxt").write_text(prototxt(alexnet("pool-norm", NARROW)))
    made = import_file(
        written(tmp_path, steps), tmp_path / "run", prototxt=tmp_path / "net.prototxt"
    )
    assert made.run.config.spec.convs[0].order == ("activation", "pool", "norm")
    same = made.run.load_weights().weights["conv1.weight"].numpy()
    assert np.array_equal(same, steps[0].blobs[0])


def changed(steps: list[Step], name: str, **fields) -> list[Step]:
    return [replace(step, **fields) if step.name == name else step for step in steps]


SMALL = alexnet("norm-pool", NARROW)
CONV3 = SMALL[8]
FC6 = next(step for step in SMALL if step.name == "fc6")
WRONG = {
    r"'conv3' has weights of \(48, 32, 3, 3\); its settings say 48 maps of 5x5": changed(
        SMALL, "conv3", settings=CONV3.settings | {"kernel_size": 5}
    ),
    r"'conv3' of \(48, 30, 3, 3\) in 1 groups takes 30 maps; the layer before makes 32": changed(
        SMALL, "conv3", blobs=(CONV3.blobs[0][:, :30], CONV3.blobs[1])
    ),
    r"'fc6' of \(40, 1150\) takes 1150 numbers, which no square image": changed(
        SMALL, "fc6", blobs=(FC6.blobs[0][:, :1150], FC6.blobs[1])
    ),
    r"'conv3' has 0 arrays of weights": changed(SMALL, "conv3", blobs=()),
    r"'conv3' has 47 biases": changed(
        SMALL, "conv3", blobs=(CONV3.blobs[0], CONV3.blobs[1][:47])
    ),
    r"'conv3' is followed by nothing": [step for step in SMALL if step.name != "relu3"],
    r"'conv3' has numbers that are not finite": changed(
        SMALL, "conv3", blobs=(CONV3.blobs[0] * np.nan, CONV3.blobs[1])
    ),
    r"'conv3' has 4 groups": changed(
        SMALL, "conv3", settings=CONV3.settings | {"group": 4},
        blobs=(CONV3.blobs[0][:, :8], CONV3.blobs[1]),
    ),
    r"The norm 'norm1' has a window of 4": changed(
        SMALL, "norm1", settings={"local_size": 4}
    ),
    r"layers with weights are fc6, fc7, fc8": SMALL[SMALL.index(FC6) :],
    r"first layer is 'relu1'": SMALL[1:],
}  # fmt: skip


@pytest.mark.parametrize("sentence", WRONG)
def test_other_networks_are_refused_with_the_layer_and_what_was_expected(sentence, tmp_path):
    with pytest.raises(RunError, match=sentence):
        import_file(written(tmp_path, WRONG[sentence]), tmp_path / "run", form="caffe")
    assert not (tmp_path / "run").exists()


UNKNOWN = field(100, message((1, "bn1"), (2, "BatchNorm"), (3, "conv1"), (4, "conv1")))
FIRST_FORM = field(2, message((1, message((1, "conv1"), (2, "conv")))))
BROKEN = {
    "type 'BatchNorm'": caffemodel(SMALL[:1]) + UNKNOWN,
    "Caffe's first form": FIRST_FORM,
    "has no layers": field(1, "AlexNet"),
    "wants 1,000,000,000": field(
        100, message((1, "c"), (2, "Convolution"), (3, "data"), (4, "c"),
                     (7, message((5, np.ones(4)), (7, message((1, 10**9)))))),
    ),
    "is cut short|wants": caffemodel(SMALL)[:-1000],
    "more than 200,000 fields": field(1, "") * 200_001,
}  # fmt: skip


@pytest.mark.parametrize("sentence", BROKEN)
def test_damaged_files_are_refused_with_a_sentence(sentence, tmp_path):
    (tmp_path / "net.caffemodel").write_bytes(BROKEN[sentence])
    with pytest.raises(RunError, match=sentence):
        import_file(tmp_path / "net.caffemodel", tmp_path / "run", form="caffe")


def test_the_form_is_seen_from_the_content_alone(tmp_path):
    for form in ("layers", "layer"):
        (tmp_path / "some file").write_bytes(caffemodel(SMALL, form))
        assert detect_format(tmp_path / "some file") == "caffe"
    nameless = caffemodel(alexnet("norm-pool")[:1])[len(field(1, "AlexNet")) :]
    assert len(nameless) > 2 * PEEKED  # all of it is one field
    (tmp_path / "some file").write_bytes(nameless)
    assert detect_format(tmp_path / "some file") == "caffe"
    (tmp_path / "text").write_text("No weights are here.")
    with pytest.raises(RunError, match="Say it with --as: caffe, torchvision"):
        detect_format(tmp_path / "text")
