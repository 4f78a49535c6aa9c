"""State dicts in: torchvision's published layer list, and its own network where it is installed."""

import collections
import io
import pickle
import zipfile

import pytest
import safetensors.torch
import torch

from alexnet.api import load
from alexnet.errors import RunError
from alexnet.interop.imports import detect_format, import_file
from alexnet.interop.weights import export_safetensors, export_torchvision
from alexnet.variants import NETWORKS
from tests.interop.test_weights import as_wide_as, by_torchvision

CPU = torch.device("cpu")
MAPS, UNITS, CLASSES = (8, 12, 24, 16, 16), 40, 13


@pytest.fixture
def theirs():
    """Return torchvision's network, narrow, with weights that carry the signal."""
    torch.manual_seed(4)
    return by_torchvision(MAPS, UNITS, CLASSES).eval()


def check(theirs, path, folder) -> None:
    import_file(path, folder / "run")
    model = load(folder / "run", device=CPU)
    pixels = torch.randn(3, 3, 224, 224)
    with torch.inference_mode():
        mine, other = model.network(pixels), theirs(pixels)
    apart = (mine - other).abs().max() / other.abs().max()
    print(f"logits: {apart:.1e}")  # shown by pytest -rP
    assert apart < 1e-5
    assert model.spec.name == "torchvision"
    assert model.spec.num_classes == CLASSES


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pth_computes_what_torchvision_does(theirs, zipped, tmp_path):
    path = tmp_path / "net.pth"
    torch.save(theirs.state_dict(), path, _use_new_zipfile_serialization=zipped)
    assert detect_format(path) == "torchvision"
    check(theirs, path, tmp_path)


def test_a_trainings_checkpoint_and_names_of_wrappers_are_understood(theirs, tmp_path):
    wrapped = {
        name.replace("features.", "features.module."): value
        for name, value in theirs.state_dict().items()
    }
    optimizer = torch.optim.SGD(theirs.parameters(), 0.1, momentum=0.9)
    content = {"epoch": 3, "arch": "alexnet", "state_dict": wrapped, "best": torch.tensor(0.5)}
    torch.save(content | {"optimizer": optimizer.state_dict()}, tmp_path / "checkpoint.pth.tar")
    check(theirs, tmp_path / "checkpoint.pth.tar", tmp_path)


def test_safetensors_with_torchvisions_names_are_the_same(theirs, tmp_path):
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    check(theirs, tmp_path / "model.safetensors", tmp_path)


def test_torchvisions_own_network_of_real_size(tmp_path):
    torchvision = pytest.importorskip("torchvision", reason="there is none for this PyTorch")
    theirs = torchvision.models.alexnet(weights=None).eval()
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    import_file(tmp_path / "net.pth", tmp_path / "run")
    pixels = torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        ours = load(tmp_path / "run", device=CPU).network(pixels)
        torch.testing.assert_close(ours, theirs(pixels), rtol=1e-5, atol=1e-6)


def test_its_pixels_are_torchvisions(theirs, tmp_path):
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    import_file(tmp_path / "net.pth", tmp_path / "run")
    model = load(tmp_path / "run", device=CPU)
    photograph = torch.randint(0, 256, (256, 256, 3), dtype=torch.uint8)
    centre = photograph[16:240, 16:240].permute(2, 0, 1) / 255  # as torchvision's presets have it
    mean, stdev = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = (centre - mean[:, None, None]) / stdev[:, None, None]
    with torch.inference_mode():
        wanted = theirs(pixels[None]).softmax(1)
    torch.testing.assert_close(model.probabilities(photograph[None]), wanted, rtol=0, atol=1e-6)


def test_torchvision_out_and_in_again_is_the_same_bit_for_bit(models, tmp_path, monkeypatch):
    model = models["torchvision"]
    monkeypatch.setattr("alexnet.interop.weights.TORCHVISION", as_wide_as(model.spec))
    export_torchvision(model, tmp_path / "net.pth")
    made = import_file(tmp_path / "net.pth", tmp_path / "run")
    again = load(made.run.folder, device=CPU)
    same_weights(model, again)
    export_torchvision(again, tmp_path / "again.pth")
    first, second = (torch.load(tmp_path / f"{name}.pth") for name in ("net", "again"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def same_weights(model, again) -> None:
    state, other = model.network.state_dict(), again.network.state_dict()
    assert state.keys() == other.keys()
    assert all(torch.equal(other[name], tensor) for name, tensor in state.items())
    pixels = torch.randn(2, 3, model.spec.image_size, model.spec.image_size)
    with torch.inference_mode():
        assert torch.equal(again.network(pixels), model.network(pixels))


@pytest.mark.parametrize("name", NETWORKS)
def test_safetensors_out_and_in_again_are_the_same_bit_for_bit(models, name, tmp_path):
    model, path = models[name], tmp_path / "net.safetensors"
    export_safetensors(model, path)
    assert detect_format(path) == "safetensors"
    made = import_file(path, tmp_path / "run")
    again = load(made.run.folder, device=CPU)
    assert again.spec.convs == model.spec.convs
    assert again.classes == model.classes
    same_weights(model, again)
    ours, theirs = again.normalise.mean.mean((2, 3)), model.normalise.mean.mean((2, 3))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)  # its mean colour goes along


def test_another_network_is_refused_with_the_tensor_and_its_shape(theirs, tmp_path):
    state = theirs.state_dict()
    cases = {
        r"no 'classifier.4.bias', which": {
            k: v for k, v in state.items() if k != "classifier.4.bias"
        },
        r"has 'bn.weight', which": state | {"bn.weight": torch.ones(1)},
        r"'features.3.weight' is \(12, 7, 5, 5\); expected \(12, 8, 5, 5\)": state
        | {"features.3.weight": torch.ones(12, 7, 5, 5)},
        r"'classifier.1.weight' is \(40, 400\); expected \(40, 576\)": state
        | {"classifier.1.weight": torch.ones(40, 400)},
        r"'classifier.6.weight' is \(13,\)": state | {"classifier.6.weight": torch.ones(13)},
        r"features.6.bias has numbers that are not finite": state
        | {"features.6.bias": torch.full((24,), torch.nan)},
        r"other things than tensors": state | {"epoch": 3},
        r"no state dict": [1, 2],
        r"has 'features.0.bias' twice, once as 'module.features.0.bias'": state
        | {"module.features.0.bias": torch.ones(8)},
    }
    for sentence, content in cases.items():
        torch.save(content, tmp_path / "net.pth")
        with pytest.raises(RunError, match=sentence):
            import_file(tmp_path / "net.pth", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_declared_sizes_are_checked_before_memory_is_taken(theirs, tmp_path):
    """A tensor of a terabyte in a small file; parts that unpack to a thousand times their size."""
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    with zipfile.ZipFile(tmp_path / "net.pth") as archive:
        parts = {part.filename: archive.read(part) for part in archive.infolist()}
    pickled = next(name for name in parts if name.endswith("data.pkl"))
    size = pickle.dumps(40 * 16 * 36, 2)[2:-1]  # of fc6's weights
    huge = parts[pickled].replace(size, pickle.dumps(10**12, 2)[2:-1])
    assert huge != parts[pickled]
    with zipfile.ZipFile(tmp_path / "huge.pth", "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, huge if name == pickled else data)
    with pytest.raises(RunError, match=r"declares 1,000,000,000,000 numbers"):
        import_file(tmp_path / "huge.pth", tmp_path / "run")
    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in parts.items():
            archive.writestr(name, bytes(len(data)) if name != pickled else data)
    with pytest.raises(RunError, match="compressed"):
        import_file(tmp_path / "bomb.pth", tmp_path / "run")


@pytest.mark.parametrize("zipped", [True, False])
def test_another_network_is_refused_before_its_tensors_are_made(
    theirs, zipped, tmp_path, monkeypatch
):
    loaded = []
    monkeypatch.setattr(torch, "load", lambda *arguments, **options: loaded.append(arguments))
    state = theirs.state_dict()
    for more, sentence in (({"bn.weight": torch.ones(1)}, "has 'bn.weight', which"),
                           ({"module.features.0.bias": torch.ones(8)}, "twice"),
                           ({"classifier.6.bias": torch.ones(1).expand(13)}, "on a memory of 1 "),
                           ({"features.0.bias": torch.ones(9)}, r"is \(9,\)")):  # fmt: skip
        torch.save(state | more, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
        with pytest.raises(RunError, match=sentence):
            import_file(tmp_path / "net.pth", tmp_path / "run")
    assert not loaded


class Reaching:
    """A tensor of 8 numbers, each a million numbers after the last, on a memory of 8."""

    def __reduce__(self):
        memory = torch.ones(8)._typed_storage()
        told = (memory, 0, (8,), (1_000_000,), False, collections.OrderedDict())
        return torch._utils._rebuild_tensor_v2, told


@pytest.mark.parametrize("zipped", [True, False])
def test_a_tensor_that_reaches_beyond_its_memory_is_refused(theirs, zipped, tmp_path):
    """PyTorch enlarges an older file's memory to all that the steps between its numbers span."""
    state = theirs.state_dict() | {"features.0.bias": Reaching()}
    torch.save(state, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(RunError, match=r"tensor of \(8,\) on a memory of 8 numbers"):
        import_file(tmp_path / "net.pth", tmp_path / "run")


def test_a_run_is_never_overwritten(theirs, tmp_path):
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    import_file(tmp_path / "net.pth", tmp_path / "run")
    with pytest.raises(RunError, match="already a run"):
        import_file(tmp_path / "net.pth", tmp_path / "run")


def test_classes_are_matched_with_the_outputs(theirs, tmp_path):
    torch.save(theirs.state_dict(), buffer := io.BytesIO())
    (tmp_path / "net.pth").write_bytes(buffer.getvalue())
    for lines, sentence in ((["a", "b"], "names 2 classes and the network has 13"),
                            (["x"] * 13, "names 'x' twice")):  # fmt: skip
        (tmp_path / "classes.txt").write_text("\n".join(lines))
        with pytest.raises(RunError, match=sentence):
            import_file(tmp_path / "net.pth", tmp_path / "run", classes=tmp_path / "classes.txt")
