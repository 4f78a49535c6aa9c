"""Which AlexNet a file is: every known network names itself, and a changed one what changed."""

import json
from dataclasses import replace

import pytest
import torch

from alexnet.cli.identify import _sentences
from alexnet.cli.main import run
from alexnet.interop.identify import KNOWN, identify
from alexnet.interop.imports import import_file
from alexnet.interop.model_folder import write
from alexnet.network import build
from alexnet.variants import CAFFE, CAFFENET, PAPER, SINGLE, TORCHVISION, narrow, with_lrn
from tests.interop.tensorflow_files import dictionary
from tests.interop.test_tensorflow import pairs


def test_no_two_known_networks_compute_the_same():
    for known in KNOWN:
        found = identify(known.spec, {})
        assert found.known is known
        assert found.is_exact


@pytest.mark.parametrize(
    ("spec", "known", "apart"),
    [
        (with_lrn(CAFFE, k=2.0), CAFFE, {"conv1.norm.k", "conv2.norm.k"}),
        (replace(TORCHVISION, image_size=227), TORCHVISION, {"image_size"}),
        (CAFFE.with_layers("conv4", out_channels=380), CAFFE, {"conv4.out_channels"}),
    ],
)
def test_the_nearest_is_named_and_what_differs(spec, known, apart):
    found = identify(spec, {})
    assert found.known.spec is known
    assert found.apart.keys() == apart


def test_ten_classes_are_still_caffenet():
    assert identify(replace(CAFFENET, num_classes=10), {}).known.spec is CAFFENET


def test_biases_tell_their_start_and_a_network_that_was_never_trained():
    spec = narrow(CAFFENET, 16)
    untrained = build(spec).state_dict()
    assert identify(spec, untrained).evidence == (
        "Every layer's biases are all alike: the network was never trained.",
    )
    trained = {
        name: one + 0.02 * torch.randn(one.shape) if name.endswith("bias") else one
        for name, one in untrained.items()
    }
    (said,) = identify(spec, trained).evidence
    assert "began near 1, as in 2012" in said
    trained["fc8.bias"] = trained["fc8.bias"] - 7
    trained["conv1.weight"] = trained["conv1.weight"].clone()
    trained["conv1.weight"][0] = 0
    said = identify(spec, trained).evidence
    assert "cuda-convnet2's start" in said[1]
    assert said[2].startswith("1 of 6 filters")


@pytest.mark.parametrize(
    ("spec", "groups"), [(SINGLE, "none"), (PAPER, "conv2, conv4, conv5"), (TORCHVISION, "none")]
)
def test_groups_are_those_that_the_network_has(spec, groups):
    """Layers of `single` can be in groups, and it has one tower."""
    said = _sentences(spec, identify(spec, {}), ())
    assert any(f", {groups} in two groups, " in line for line in said)


def test_the_command_says_network_results_and_source(capsys, tmp_path):
    def here(*arguments):
        status = run([str(argument) for argument in arguments])
        return status, capsys.readouterr().out

    _, layers = pairs(narrow(CAFFE, 16))
    (tmp_path / "net.npy").write_bytes(dictionary(layers))
    status, printed = here("identify", tmp_path / "net.npy", "--json")
    found = json.loads(printed)
    assert (status, found["network"], found["exact"]) == (0, "Caffe's bvlc_alexnet", False)
    assert found["accuracies"][0]["top1"] == 57.1
    assert found["differences"]["conv1.out_channels"] == [96, 6]
    import_file(tmp_path / "net.npy", tmp_path / "run")
    status, printed = here("identify", tmp_path / "run")
    assert status == 0
    assert "Nearest is Caffe's bvlc_alexnet." in printed
    assert "57.1 % top-1, 80.2 % top-5: centre crop" in printed
    folder = write(tmp_path / "run", tmp_path / "folder")
    again = printed.replace("a run", "a model folder of alexnet")
    assert here("identify", folder) == (0, again)
    assert here("identify", folder, "--as", "huggingface") == (0, again)
