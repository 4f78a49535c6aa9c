"""Model folders: what goes out comes back bit for bit, and strangers' folders are refused.

The mutations here are the short form; ``ALEXNET_MUTATIONS=1000 pytest tests/interop -k mutated``
is the long one.
"""

import dataclasses
import json
import os
import random
import shutil
import struct

import pytest
import safetensors.torch
import torch
from huggingface_hub import ModelCard

import alexnet
from alexnet.api import load
from alexnet.errors import AlexNetError, RunError
from alexnet.interop import model_folder
from alexnet.interop.imports import import_file
from alexnet.interop.model_folder import fetch
from alexnet.training.run import Run
from tests.interop.conftest import CPU, config_of, narrow, statistics

MUTATIONS = int(os.environ.get("ALEXNET_MUTATIONS", "60"))


@pytest.fixture(scope="module")
def folder(run, tmp_path_factory):
    return model_folder.write(run, tmp_path_factory.mktemp("folders") / "model")


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def change_config(folder, change, *, checksums=False):
    path = folder / "config.json"
    content = json.loads(path.read_text())
    if not checksums:
        del content["checksums"]
    change(content)
    path.write_text(json.dumps(content))


def test_the_folder_is_the_run_bit_for_bit(run, folder):
    assert sorted(file.name for file in folder.iterdir()) == [
        "README.md", "config.json", "model.safetensors", "statistics.safetensors",
    ]  # fmt: skip
    ours, theirs = load(run, device=CPU), alexnet.from_pretrained(folder)
    assert theirs.classes == ours.classes
    assert theirs.spec == ours.spec
    assert theirs.step == 7
    for name, tensor in ours.network.state_dict().items():
        assert torch.equal(theirs.network.state_dict()[name].cpu(), tensor)
    assert torch.equal(theirs.normalise.mean.cpu(), ours.normalise.mean)


def test_a_run_made_of_a_folder_makes_the_same_folder(run, folder, tmp_path):
    again = model_folder.to_run(folder, tmp_path / "run")
    second = model_folder.write(again.folder, tmp_path / "second")
    for file in folder.iterdir():
        assert (second / file.name).read_bytes() == file.read_bytes()
    with pytest.raises(RunError, match="already a run"):
        model_folder.to_run(folder, tmp_path / "run")


def test_nothing_of_the_machine_goes_along(folder):
    for name in ("config.json", "README.md"):
        assert "/home" not in (folder / name).read_text()
        assert "someone" not in (folder / name).read_text()


def test_the_hub_reads_the_card(folder):
    card = ModelCard.load(folder / "README.md")
    assert card.data.pipeline_tag == "image-classification"
    result = card.data.eval_results[0]
    assert (result.metric_type, result.metric_value) == ("accuracy", 0.5)
    assert result.dataset_name == "photographs"
    for heading in ("Use", "Data", "Training", "Results", "Limits"):
        assert f"\n## {heading}\n" in card.text


def test_names_in_the_card_are_text(tmp_path):
    from alexnet.interop.model_folder import write_card

    config = config_of(narrow("single"), 236)
    names = ("<script>alert(1)</script>", "a|b\n# c", *config.classes[2:])
    config = dataclasses.replace(config, classes=names, data='x": [\n---')
    rows = [{"name": name, "images": 1, "top1": None} for name in names]
    test = {"split": "test", "top1": 0, "top5": 0, "majority": 0, "images": 1, "views": 1}
    text = write_card(config, 1, {**test, "by_class": rows})
    assert "<script>" not in text
    assert "\n# c" not in text
    assert ModelCard(text).data.eval_results[0].dataset_name == 'x": [\n---'


def test_an_untested_run_says_so(tmp_path, models):
    from alexnet.training.checkpoint import Checkpoint, save_checkpoint

    model = models["cifar_quick"]
    opened = Run.start(
        tmp_path / "run", config_of(model.spec, model.resize_to), statistics(model.resize_to)
    )
    save_checkpoint(opened.checkpoints, Checkpoint(7, model.network.state_dict()))
    text = (model_folder.write(opened.folder, tmp_path / "out") / "README.md").read_text()
    assert "The run was not tested." in text
    assert "model-index" not in text


def lie_about_offsets(folder):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    header["conv1.weight"]["data_offsets"] = [0, 2**40]
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])


def overlap_offsets(folder):
    path = folder / "model.safetensors"
    data = path.read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    header["conv2.bias"]["data_offsets"] = header["conv1.bias"]["data_offsets"]
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + size :])


def endless_header(folder):
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")


def a_pickle(folder):
    class Payload:
        def __reduce__(self):
            return (os.mkdir, (str(folder / "executed"),))

    torch.save({"conv1.weight": Payload()}, folder / "model.safetensors")


def with_tensors(change):
    def changed(folder):
        path = folder / "model.safetensors"
        tensors = safetensors.torch.load_file(path)
        change(tensors)
        path.write_bytes(safetensors.torch.save(tensors))

    return changed


def another_shape(tensors):
    tensors["fc8.bias"] = torch.zeros(21)


def another_type(tensors):
    tensors["fc8.bias"] = tensors["fc8.bias"].long()


def one_missing(tensors):
    del tensors["conv3.weight"]


def one_more(tensors):
    tensors["fc9.weight"] = torch.zeros(3)


def not_a_number(tensors):
    tensors["fc6.bias"][0] = torch.nan


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lie_about_offsets, "damaged or no safetensors"),
        (overlap_offsets, "damaged or no safetensors"),
        (endless_header, "damaged or no safetensors"),
        (a_pickle, "damaged or no safetensors"),
        (with_tensors(another_shape), r"'fc8.bias' in .* is \(21,\); .* needs \(20,\)"),
        (with_tensors(another_type), r"'fc8.bias' in .* is of I64. Expected float32"),
        (with_tensors(one_missing), "has no 'conv3.weight'"),
        (with_tensors(one_more), "has 'fc9.weight', which its network does not know"),
        (with_tensors(not_a_number), "not finite"),
        (lambda folder: (folder / "model.safetensors").unlink(), "There is no file"),
        (lambda folder: (folder / "statistics.safetensors").unlink(), "There is no file"),
        (lambda folder: (folder / "config.json").unlink(), "There is no file"),
    ],
)
def test_a_folder_that_lies_is_refused(copy, damage, sentence):
    change_config(copy, lambda content: None)  # with no checksums that would see it first
    damage(copy)
    with pytest.raises(RunError, match=sentence):
        alexnet.from_pretrained(copy)
    assert not (copy / "executed").exists()


def test_a_folder_in_half_precision_is_read_and_it_is_said(copy, tmp_path):
    change_config(copy, lambda content: None)

    def halve(tensors):
        tensors.update({name: tensor.half() for name, tensor in tensors.items()})

    before = safetensors.torch.load((copy / "model.safetensors").read_bytes())
    with_tensors(halve)(copy)
    made = import_file(copy, tmp_path / "run")
    assert made.found == ("model folder of alexnet", "float16, made float32")
    ours = load(tmp_path / "run", device=CPU).network.state_dict()
    assert all(torch.equal(ours[name], value.half().float()) for name, value in before.items())


def test_a_checksum_sees_what_shapes_do_not(copy):
    path = copy / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with pytest.raises(RunError, match="checksum"):
        alexnet.from_pretrained(copy)


def in_spec(**changes):
    return lambda content: content["run"]["spec"].update(changes)


def in_conv(**changes):
    return lambda content: content["run"]["spec"]["convs"][1].update(changes)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.update(model_type="bert"),
        lambda content: content.update(format=2),
        lambda content: content.update(step=-1),
        lambda content: content.update(step="7"),
        lambda content: content.pop("run"),
        lambda content: content.update(run=[]),
        lambda content: content["id2label"].update({"0": "another"}),
        lambda content: content["run"].update(classes=["one"]),
        lambda content: content["run"].update(data_size=10**9),
        lambda content: content["run"].update(data_size=5),
        lambda content: content["run"]["recipe"].update(batch_size=0),
        lambda content: content["run"]["spec"]["convs"].append("conv6"),
        lambda content: content["run"]["spec"]["convs"].extend([{}] * 10_000),
        in_spec(image_size=10**300),
        in_spec(image_size=-1),
        in_spec(num_classes=10**12),
        in_spec(towers=3),
        in_spec(convs=[]),
        in_spec(convs=7),
        in_spec(pixels={"scale": float("nan")}),
        in_spec(activation="__import__('os')"),
        in_conv(out_channels=10**15),
        in_conv(name="conv1"),
        in_conv(name="a.b"),
        in_conv(name=""),
        in_conv(stride=0),
        in_conv(kernel_size=10**30),
        lambda content: content.update(checksums={"../../etc/passwd": "0"}),
        lambda content: content.update(checksums=["model.safetensors"]),
    ],
)
def test_a_configuration_that_lies_is_refused(copy, change):
    change_config(copy, change)
    with pytest.raises(RunError, match=r"config\.json|network needs|has no"):
        alexnet.from_pretrained(copy)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda content: content.pop("run"), r"config\.json' has no 'run'\. Export or"),
        (lambda content: content["run"].pop("spec"), r"config\.json' has no 'spec'\."),
        (lambda content: content.update(model_type="bert"), r"cannot be used: its model_type is"),
        (lambda content: content.update(run=[]), r"cannot be used: list indices"),
        (
            lambda content: content["run"]["spec"]["convs"].extend([{}] * 100),  # of no settings
            r"cannot be used: its network has more than 100 layers",
        ),
    ],
)
def test_what_is_wrong_with_a_configuration_is_said(copy, change, sentence):
    change_config(copy, change)
    with pytest.raises(RunError, match=sentence):
        alexnet.from_pretrained(copy)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, "\xff", "1e999", "7" * 10_000, "null"])
def test_a_configuration_that_is_no_json_is_refused(copy, text):
    (copy / "config.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(RunError, match=r"config\.json"):
        alexnet.from_pretrained(copy)


def mutated(data: bytes, draws: random.Random) -> bytes:
    """Return a file with some bytes changed, cut off, doubled or put elsewhere."""
    edited, head = bytearray(data), min(len(data), 4000)  # where headers are
    for _ in range(draws.randint(1, 4)):
        at = draws.randrange(head if draws.random() < 0.7 else max(1, len(edited)))
        match draws.randrange(5):
            case 0:
                edited[at : at + 1] = bytes([draws.randrange(256)])
            case 1:
                del edited[at:]
            case 2:
                del edited[at : at + draws.randint(1, 20)]
            case 3:
                edited[at:at] = edited[at : at + draws.randint(1, 200)]
            case 4:
                digits = draws.choice([b"0", b"9" * 30, b"-1", b"null", b"[]", b"1e400"])
                edited[at : at + 1] = digits
        if not edited:
            break
    return bytes(edited)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "statistics.safetensors"])
def test_mutated_folders_load_or_are_refused_with_a_sentence(run, copy, name, monkeypatch):
    """Checksums are taken out, so that the readers themselves are tried."""
    change_config(copy, lambda content: None)
    original, refused = (copy / name).read_bytes(), []
    draws = random.Random(name)
    for _ in range(MUTATIONS):
        (copy / name).write_bytes(mutated(original, draws))
        try:
            model_folder.read(copy)
        except AlexNetError as error:
            refused.append(str(error))
    assert len(refused) > MUTATIONS // 3
    assert all(20 < len(sentence) < 1500 for sentence in refused)


def test_a_repository_is_read_from_the_hubs_cache(folder, tmp_path, monkeypatch):
    """As ``snapshot_download`` left it; nothing is asked of the network."""
    import subprocess
    import sys

    repository = tmp_path / "hub" / "models--someone--cells"
    snapshot = repository / "snapshots" / ("a" * 40)
    shutil.copytree(folder, snapshot)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    asked = "import alexnet; print(alexnet.from_pretrained('someone/cells').step)"
    offline = {"HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", asked],
        env={**os.environ, **offline}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip() == "7", done.stderr


def test_a_repository_out_of_reach_is_a_sentence(tmp_path):
    import subprocess
    import sys

    asked = (
        "import alexnet\n"
        "from alexnet.errors import RunError\n"
        "try: alexnet.from_pretrained('someone/cells')\n"
        "except RunError as error: print(error)"
    )
    offline = {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", asked],
        env={**os.environ, **offline}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("The repository 'someone/cells' cannot be reached"), done.stderr


@pytest.mark.parametrize("where", ["nowhere", "/no/where", "a/b/c", "./a"])
def test_what_is_neither_folder_nor_repository_is_a_sentence(where):
    with pytest.raises(RunError, match="There is no folder"):
        fetch(where)
