"""The built network is the spec, and the grouped form is two towers."""

from dataclasses import replace

import pytest
import torch

import alexnet
from alexnet import variants
from alexnet.errors import ConfigError
from alexnet.layers import LocalResponseNorm
from alexnet.network import build
from alexnet.spec import Spec
from alexnet.variants import AS_RUN, NETWORKS, PAPER, SINGLE


def narrow(spec: Spec, by: int = 16) -> Spec:
    """Return a network with every width divided: all geometry real, little arithmetic."""
    return replace(variants.narrow(spec, by), num_classes=10)


@pytest.mark.parametrize("spec", NETWORKS.values(), ids=NETWORKS)
def test_every_layer_has_the_size_and_parameters_that_the_spec_counts(spec):
    spec = narrow(spec, 8)
    network = build(spec)
    kept = network.activations(
        torch.zeros(2, 3, spec.image_size, spec.image_size),
        [layer.name for layer in spec.layers()][1:],
    )
    for layer in list(spec.layers())[1:]:
        assert kept[layer.name][0].numel() == layer.outputs, layer.name
        module = network.get_submodule(layer.name)
        assert sum(p.numel() for p in module.parameters()) == layer.parameters, layer.name
    assert network(torch.zeros(2, 3, spec.image_size, spec.image_size)).shape == (2, 10)


@pytest.mark.parametrize("spec", [PAPER, AS_RUN], ids=["paper", "as_run"])
def test_the_grouped_network_is_two_towers(spec):
    """Each tower run by itself, joined only where the paper joins them."""
    network = build(narrow(spec), seed=3).double().eval()
    x = torch.randn(2, 3, spec.image_size, spec.image_size, dtype=torch.float64) * 60
    together = network.activations(x, ["pool2", "pool5"])
    towers = [first_half(network, spec, x, tower) for tower in (0, 1)]
    torch.testing.assert_close(together["pool2"], torch.cat(towers, 1), rtol=1e-10, atol=1e-12)


def first_half(network, spec, x, tower):
    """Run conv1 to pool2 with one tower's filters and normalisation alone."""
    for name, module in network.named_children():
        if name in ("conv1", "conv2"):
            half = module.out_channels // 2
            mine = slice(tower * half, tower * half + half)
            x = torch.nn.functional.conv2d(
                x, module.weight[mine], module.bias[mine], module.stride, module.padding
            )
        elif isinstance(module, LocalResponseNorm):
            x = LocalResponseNorm(module.norm, towers=1)(x)
        else:
            x = module(x)
        if name == "pool2":
            return x
    raise AssertionError("no pool2")


def test_the_overhang_skips_what_is_outside():
    """Facts 1c: 224 gives 55; inside it is the plain convolution, past the edge pixels are 0."""
    network = build(narrow(AS_RUN)).eval()
    image = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(3))
    out, layer = network.activations(image, ["conv1"])["conv1"], network.conv1
    assert out.shape == (1, 6, 55, 55)
    plain = torch.nn.functional.conv2d(image, layer.weight, layer.bias, stride=4)
    torch.testing.assert_close(out[..., :54, :54], plain)
    corner = image[..., 216:, 216:]  # 8x8 of the last window's 11x11
    expected = torch.einsum("nchw,mchw->nm", corner, layer.weight[..., :8, :8]) + layer.bias
    torch.testing.assert_close(out[..., 54, 54], expected, rtol=1e-4, atol=1e-5)


def test_initial_weights_are_those_of_the_spec():
    network = build(replace(SINGLE, num_classes=10), seed=5)
    for name, std, bias in [
        ("conv1", 0.01, 0), ("conv2", 0.01, 1), ("conv3", 0.03, 0), ("conv4", 0.03, 1),
        ("conv5", 0.03, 1), ("fc6", 0.01, 1), ("fc7", 0.01, 1), ("fc8", 0.01, 0),
    ]:  # fmt: skip
        layer = network.get_submodule(name)
        assert layer.weight.std().item() == pytest.approx(std, rel=0.02), name
        assert abs(layer.weight.mean().item()) < 4 * std / layer.weight.numel() ** 0.5, name
        assert (layer.bias == bias).all(), name


def test_pytorchs_default_weights_where_the_spec_names_none():
    network = build(narrow(NETWORKS["torchvision"]), seed=5)
    bound = (network.conv2.in_channels * 25) ** -0.5
    assert network.conv2.weight.abs().max().item() == pytest.approx(bound, rel=0.01)


def test_a_seed_draws_the_same_weights_and_another_seed_others():
    one, same, other = (build(narrow(PAPER), seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["fc6.weight"], other["fc6.weight"])


def test_building_leaves_the_global_generator_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    build(narrow(PAPER), seed=1)
    assert torch.equal(before, torch.get_rng_state())


def test_the_state_dict_has_the_papers_names():
    names = [f"{layer}.{kind}" for layer in
             ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
             for kind in ("weight", "bias")]  # fmt: skip
    assert list(build(PAPER, None).state_dict()) == names


def test_images_of_another_size_are_refused():
    with pytest.raises(ConfigError, match=r"takes images of \(3, 227, 227\)"):
        build(narrow(PAPER))(torch.zeros(1, 3, 224, 224))


def test_an_unknown_layer_is_answered_with_the_nearest():
    network = build(narrow(PAPER))
    with pytest.raises(ConfigError, match="Did you mean 'conv5'"):
        network.activations(torch.zeros(1, 3, 227, 227), ["conv55"])


def test_as_run_orders_its_first_layers_as_the_source_did():
    """Facts 1a: conv1, norm, pool, ReLU; conv2, ReLU, norm, same-map norm, pool."""
    names = [name for name, _ in build(AS_RUN, None).named_children()][:10]
    assert names == [
        "pad1", "conv1", "norm1", "pool1", "relu1",
        "conv2", "relu2", "norm2", "within_channel_lrn2", "pool2",
    ]  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("spec", NETWORKS.values(), ids=NETWORKS)
def test_the_two_halves_are_the_network_bit_for_bit(spec, training):
    """timm's convention: maps of the last block, and what the last layer sees."""
    network = build(narrow(spec, 8)).train(training)
    x = (
        torch.randn(
            2, 3, spec.image_size, spec.image_size, generator=torch.Generator().manual_seed(0)
        )
        * 60
    )
    with torch.random.fork_rng():  # dropout draws the same masks thrice
        logits, maps, hidden = (
            torch.manual_seed(3) and of(x)
            for of in (
                network,
                network.forward_features,
                lambda x: network.forward_head(network.forward_features(x), pre_logits=True),
            )
        )
        torch.manual_seed(3)
        assert torch.equal(logits, network.forward_head(maps))
    assert maps.shape[1] == network.num_features
    assert hidden.shape == (2, network.head_hidden_size)
    assert torch.equal(logits, network.get_classifier()(hidden))
    assert logits.shape == (2, network.num_classes)


def test_the_halves_meet_where_the_paper_flattens():
    network = build(PAPER, None)
    assert (network.num_features, network.head_hidden_size, network.num_classes) == (
        256,
        4096,
        1000,
    )
    assert network.get_classifier() is network.fc8


@pytest.mark.parametrize("name", ["paper", "torchvision", "cifar_local"])
def test_a_reset_classifier_is_drawn_as_the_spec_says_and_nothing_else_changes(name):
    network = build(narrow(NETWORKS[name], 2)).double()
    before = network.state_dict()
    network.reset_classifier(50, seed=7)
    after, last = network.state_dict(), network.get_classifier()
    assert list(after) == list(before)  # sixteen names of the paper's, in their order
    changed = {key for key in after if not torch.equal(after[key], before[key])}
    assert changed == {f"{network.spec.output_name}.{part}" for part in ("weight", "bias")}
    assert network.spec == replace(narrow(NETWORKS[name], 2), num_classes=50)
    assert last.weight.shape == (50, network.head_hidden_size)
    assert last.weight.dtype == torch.float64
    std, bias = network.spec.output_std, network.spec.output_bias
    bound = network.head_hidden_size**-0.5
    expected = bound / 3**0.5 if std is None else std  # of PyTorch's uniform, or the spec's
    assert last.weight.std().item() == pytest.approx(expected, rel=0.03)
    assert (last.bias.abs() < bound).all() if bias is None else (last.bias == bias).all()


def test_a_seed_draws_the_same_classifier_and_another_seed_another():
    network, drawn = build(narrow(PAPER)), []
    for seed in (1, 1, 2):
        network.reset_classifier(5, seed=seed)
        drawn.append(network.fc8.weight)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])


def test_without_classes_the_features_come_out():
    network = build(narrow(PAPER)).eval()
    x = torch.randn(2, 3, 227, 227) * 60
    features = network.forward_head(network.forward_features(x), pre_logits=True)
    network.reset_classifier(0)
    assert torch.equal(network(x), features)
    assert len(network.state_dict()) == 14
    bare = alexnet.build(narrow(PAPER), 0).eval()
    bare.load_state_dict(network.state_dict())
    assert torch.equal(bare(x), features)
    bare.reset_classifier(3)
    assert bare(x).shape == (2, 3)
    with pytest.raises(ConfigError, match="num_classes is -1"):
        bare.reset_classifier(-1)


@pytest.mark.slow  # whole graphs are captured, and exported
def test_captured_and_exported_it_computes_the_same_after_a_reset():
    """One whole graph each time; the compiler's own kernels are the business of other tests."""
    network = build(narrow(PAPER)).eval()
    x = torch.randn(2, 3, 227, 227) * 60
    captured = torch.compile(network, backend="aot_eager", fullgraph=True)
    for classes in (10, 4):
        network.reset_classifier(classes, seed=classes)
        assert torch.equal(captured(x), network(x))
        program = torch.export.export(network, (x,))
        assert list(program.state_dict) == list(network.state_dict())
        assert torch.equal(program.module()(x), network(x))


def test_build_takes_the_classes_second_and_no_switches_for_a_spec():
    assert alexnet.build("cifar_quick", 7).num_classes == 7
    assert alexnet.build(narrow(PAPER), num_classes=7).num_classes == 7
    with pytest.raises(ConfigError, match="lrn is for a network that is named"):
        alexnet.build(narrow(PAPER), lrn=False)
