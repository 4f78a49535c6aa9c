"""State dicts in: torchvision's published layer list, and its own network where it is installed."""

import argparse
import collections
import io
import pickle
import zipfile

import pytest
import safetensors.torch
import torch
from safetensors import safe_open

from alexnet.api import load
from alexnet.errors import RunError
from alexnet.interop.imports import detect_format, import_file
from alexnet.interop.torch_files import read_torch_file
from alexnet.interop.weights import export_safetensors, export_torchvision
from alexnet.variants import NETWORKS
from tests.interop.conftest import model_of, narrow
from tests.interop.samples import Python2, saved
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
    made = []
    monkeypatch.setattr(torch, "frombuffer", lambda *arguments, **options: made.append(arguments))
    state = theirs.state_dict()
    for more, sentence in (({"bn.weight": torch.ones(1)}, "has 'bn.weight', which"),
                           ({"module.features.0.bias": torch.ones(8)}, "twice"),
                           ({"classifier.6.bias": torch.ones(1).expand(13)}, "on a memory of 1 "),
                           ({"features.0.bias": torch.ones(9)}, r"is \(9,\)")):  # fmt: skip
        torch.save(state | more, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
        with pytest.raises(RunError, match=sentence):
            import_file(tmp_path / "net.pth", tmp_path / "run")
    assert not made


@pytest.mark.parametrize(
    "how", [{}, {"zipped": False}, {"zipped": False, "pickle_module": Python2}]
)
def test_tensors_are_those_that_pytorch_reads(how, tmp_path):
    """Parts of one memory, turned and repeated ones, every type, nothing at all."""
    many = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    tensors = {
        "whole": many, "turned": many.t(), "part": many[1:3, ::2], "one, many times": many[0, :1],
        "scalar": torch.tensor(2.5), "empty": torch.empty(0, 3), "parameter": many[2].clone(),
        **{str(dtype): many.to(dtype) for dtype in (
            torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool)},
    }  # fmt: skip
    tensors["one, many times"] = tensors["one, many times"].expand(3)
    path = tmp_path / "net.pth"
    path.write_bytes(saved(collections.OrderedDict(tensors), **how))
    theirs, ours = torch.load(path, weights_only=True), read_torch_file(path)
    assert [name if isinstance(name, str) else name.decode() for name in ours] == [*tensors]
    for stored, wanted in zip(ours.values(), theirs.values(), strict=True):
        assert (stored.dtype, stored.shape) == (wanted.dtype, tuple(wanted.shape))
        assert torch.equal(stored.load(), wanted)


def same_network(path, folder, state) -> tuple[str, ...]:
    """Import a file and see that its weights are `state`'s; return what was said."""
    said = import_file(path, folder / "run").found
    ours = load(folder / "run", device=CPU).network.state_dict()
    assert len(ours) == len(state)
    assert all(torch.equal(a, b) for a, b in zip(ours.values(), state.values(), strict=True))
    return said


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float32])
@pytest.mark.parametrize("kind", ["pth", "pth, before 1.6", "safetensors"])
def test_numbers_of_other_sizes_become_float32_and_it_is_said(theirs, kind, dtype, tmp_path):
    state = {name: value.to(dtype) for name, value in theirs.state_dict().items()}
    data = saved(state, zipped=kind == "pth")
    path = tmp_path / "net"
    path.write_bytes(safetensors.torch.save(state) if kind == "safetensors" else data)
    said = same_network(path, tmp_path, {name: value.float() for name, value in state.items()})
    name = str(dtype).removeprefix("torch.")
    assert [f"{name}, made float32"] * (name != "float32") == [*said[1:]]


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
@pytest.mark.parametrize("dtype", [torch.int8, torch.int64])
def test_whole_numbers_are_no_weights(theirs, kind, dtype, tmp_path):
    state = theirs.state_dict()
    state["classifier.6.weight"] = state["classifier.6.weight"].to(dtype)
    data = safetensors.torch.save(state) if kind == "safetensors" else saved(state)
    (tmp_path / "net").write_bytes(data)
    with pytest.raises(RunError, match=r"classifier.6.weight is of (int|I)\d+.*Expected float32"):
        import_file(tmp_path / "net", tmp_path / "run")


def test_own_files_in_half_precision_are_read(tmp_path):
    path = tmp_path / "net.safetensors"
    export_safetensors(model_of(narrow("caffe")), path)
    with safe_open(path, framework="pt") as file:
        told = file.metadata()
    state = {name: value.half() for name, value in safetensors.torch.load_file(path).items()}
    path.write_bytes(safetensors.torch.save(state, told))
    state = {name: state[name].float() for name in sorted(state)}
    said = import_file(path, tmp_path / "run").found
    ours = load(tmp_path / "run", device=CPU).network.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in state.items())
    assert "float16, made float32" in said


def test_a_pth_of_python_2_is_read(theirs, tmp_path):
    state, path = theirs.state_dict(), tmp_path / "net.pth"
    path.write_bytes(saved(state, zipped=False, pickle_module=Python2))
    assert b"U\x11features.0.weight" in path.read_bytes()
    same_network(path, tmp_path, state)


LIGHTNING = {"epoch": 1, "pytorch-lightning_version": "2.5", "hyper_parameters": {"lr": 0.1}}
WRAPPED = {  # how a training keeps it: what is around it, before its names, what is said
    "plain": ({}, "", "", []),
    "Lightning": (LIGHTNING, "state_dict", "model.", ["'state_dict' in it", "'model.' taken"]),
    "net and acc": ({"acc": 93.1, "epoch": 7}, "net", "", ["from 'net' in it"]),
    "model_state": ({"optimizer_state": {}}, "model_state", "", ["from 'model_state' in it"]),
    "params": ({}, "params", "", ["from 'params' in it"]),
    "backbone": ({}, "", "backbone.", ["'backbone.' taken off"]),
    "two deep": ({}, "", "model.backbone.", ["'model.backbone.' taken off"]),
    "of processes, in a row": ({}, "", "module.0.", ["'module.' and", "'0.' taken off"]),
    "compiled": ({"args": argparse.Namespace(lr=1, tags=["a"])}, "model", "_orig_mod.",
                 ["from 'model' in it", "'_orig_mod.' taken off"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRAPPED)
def test_one_wrapper_and_one_prefix_are_taken_off_and_it_is_said(theirs, kind, tmp_path):
    around, wrapper, prefix, sentences = WRAPPED[kind]
    state = theirs.state_dict()
    named = {prefix + name: value for name, value in state.items()}
    path = tmp_path / "net.ckpt"
    path.write_bytes(saved({**around, wrapper: named} if wrapper else named))
    said = same_network(path, tmp_path, state)
    assert len(said) == 1 + len(sentences)
    assert all(part in whole for part, whole in zip(sentences, said[1:], strict=True))


def test_a_prefix_is_taken_off_the_names_of_safetensors_too(theirs, tmp_path):
    state, path = theirs.state_dict(), tmp_path / "net.safetensors"
    named = {f"backbone.{name}": value for name, value in state.items()}
    path.write_bytes(safetensors.torch.save(named))
    assert "'backbone.' taken off the names" in same_network(path, tmp_path, state)


def test_what_lies_beside_the_network_is_never_dropped_in_silence(theirs, tmp_path):
    state = theirs.state_dict()
    model = {f"model.{name}": value for name, value in state.items()}
    for content, sentence in (
        (model | {"loss.weight": torch.ones(5)}, "has 'loss.weight', which torchvision's"),
        (model | {"classifier.6.bias": torch.ones(13)}, "has 'classifier.6.bias' twice"),
        (model | {f"ema.{name}": value for name, value in state.items()},
         r"several networks, of names that begin with \['ema.', 'model.'\]"),
        ({"net_coarse": state, "step": 3}, r"other things than tensors.*net_coarse.*one of state"),
        (torch.nn.Sequential(torch.nn.Linear(2, 2)), r"a whole network.*model.state_dict\(\)"),
    ):  # fmt: skip
        (tmp_path / "net.pth").write_bytes(saved(content))
        with pytest.raises(RunError, match=sentence):
            import_file(tmp_path / "net.pth", tmp_path / "run")


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
