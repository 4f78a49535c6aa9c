"""ONNX graphs in, against ONNX Runtime: the zoo's networks, and this project's own files again."""

from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from alexnet.api import load
from alexnet.errors import ConfigError, RunError
from alexnet.interop.export import build_onnx
from alexnet.interop.imports import PEEKED, detect_format, import_file
from alexnet.interop.portable import insert_stored, store_weights
from alexnet.variants import NETWORKS
from tests.interop.onnx_files import by_onnxruntime, exported, pool_before_norm, with_view, zoo
from tests.interop.test_weights import by_torchvision

CPU = torch.device("cpu")


def compared(model, folder):
    """Import a graph and see that all its blobs, LRN and logits are those of ONNX Runtime."""
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    assert detect_format(path) == "onnx"
    made = import_file(path, folder / "run")
    draws = np.random.default_rng(1)
    pixels = draws.uniform(-120, 130, (1, 3, 224, 224)).astype(np.float32)
    theirs = by_onnxruntime(model, pixels)
    network = load(folder / "run", device=CPU).network
    members = [name for name, _ in network.named_children() if not name.startswith("pad")]
    with torch.inference_mode():
        ours = network.activations(torch.from_numpy(pixels), members)
    nodes = [node for node in model.graph.node if node.op_type not in ("Softmax", "Constant")]
    assert len(nodes) == len(members)
    for node, name in zip(nodes, members, strict=True):
        mine = ours[name].numpy()
        other = theirs[node.output[0]].reshape(mine.shape)
        apart = np.abs(mine - other).max() / np.abs(other).max()
        print(f"{name}: {apart:.1e}")  # shown by pytest -rP
        assert apart < 1e-4, (node.op_type, name)
    last = theirs[nodes[-1].output[0]]
    assert 0.3 < last.std() < 10
    return made


def test_the_zoos_bvlcalexnet_of_real_size_computes_what_onnxruntime_does(tmp_path):
    spec = compared(zoo(), tmp_path).run.config.spec
    assert spec.image_size == 224
    assert [conv.grouped for conv in spec.convs] == [False, True, False, True, True]
    last = spec.convs[-1].pool
    assert last.ceil_mode  # its padding below and on the right alone
    assert (spec.pixels.channel_order, spec.convs[0].norm.k, spec.convs[0].norm.span) == (
        "BGR", 1.0, "layer",
    )  # fmt: skip


def test_the_zoos_caffenet_has_its_pools_before_its_norms(tmp_path):
    made = compared(pool_before_norm(zoo(divisor=8, classes=10)), tmp_path)
    orders = [conv.order for conv in made.run.config.spec.convs[:2]]
    assert orders == [("activation", "pool", "norm")] * 2


@pytest.mark.parametrize(
    ("name", "kind", "form"),
    [
        ("paper", "pixels", "without its spec"), ("as_run", "images", "without its spec"),
        ("caffe", "images", None), ("torchvision", "images", "without its spec"),
        ("cifar_quick", "pixels", "without its spec"), ("as_run", "images", "onnxruntime"),
        ("cifar_local", "pixels", None),
        pytest.param("cifar_local", "images", "openvino", marks=pytest.mark.slow),  # to be traced
    ],
)  # fmt: skip
def test_own_files_come_back_bit_for_bit_with_their_preprocessing(
    models, name, kind, form, tmp_path
):
    model, before = models[name], form == "without its spec"  # as files of 0.1 were
    proto = build_onnx(model, kind, None if before else form)
    if before:
        (spec,) = [one for one in proto.metadata_props if one.key == "spec"]
        proto.metadata_props.remove(spec)
    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    made = import_file(tmp_path / "net.onnx", tmp_path / "run")
    again = load(tmp_path / "run", device=CPU)
    state, other = model.network.state_dict(), again.network.state_dict()
    if before:  # layers have the names of their places
        state = {k.replace("fc64", "fc4").replace("fc10", "fc5"): v for k, v in state.items()}
    else:
        assert replace(made.run.config.spec, pixels=model.spec.pixels) == model.spec
    assert [*other] == [*state]
    assert all(torch.equal(a, b) for a, b in zip(state.values(), other.values(), strict=True))
    assert (again.classes, again.resize_to) == (model.classes, model.resize_to)
    pixels = torch.rand(2, 3, model.spec.image_size, model.spec.image_size) * 255
    torch.testing.assert_close(again.normalise(pixels), model.normalise(pixels), rtol=0, atol=1e-4)
    pixels = model.normalise(pixels)
    with torch.inference_mode():
        ours, theirs = model.network(pixels), again.network(pixels)
    assert (ours - theirs).abs().max() <= 1e-5 * ours.abs().max()


@pytest.mark.parametrize("weights", ["float16", "int8"])
def test_own_weights_of_fewer_bytes_come_back_as_readers_compute_with_them(
    models, weights, tmp_path
):
    model, path = models["single"], tmp_path / "net.onnx"
    stored, proto = store_weights(model.network, weights), build_onnx(model, "pixels", "web")
    insert_stored(proto.graph, stored)
    path.write_bytes(proto.SerializeToString())
    made = import_file(path, tmp_path / "run")
    assert f"{weights}, made float32" in made.found
    network = load(tmp_path / "run", device=CPU).network
    for name, weight in stored.items():
        assert torch.equal(network.get_parameter(name), weight.restore())
    for part in (".stored", ".scale")[: 1 + (weights == "int8")]:
        damaged = onnx.load_from_string(path.read_bytes())
        (tensor,) = [t for t in damaged.graph.initializer if t.name == f"network.fc8.weight{part}"]
        tensor.CopyFrom(numpy_helper.from_array(np.ones((3, 1), np.float32), tensor.name))
        (tmp_path / "other.onnx").write_bytes(damaged.SerializeToString())
        with pytest.raises(RunError, match=rf"fc8.weight{part}' is \(3, 1\)"):
            import_file(tmp_path / "other.onnx", tmp_path / "other")


@pytest.mark.parametrize("name", ["caffe", "torchvision", "paper"])
def test_pixels_that_the_file_does_not_tell_can_be_told(name, tmp_path):
    (tmp_path / "model.onnx").write_bytes(small().SerializeToString())
    made = import_file(tmp_path / "model.onnx", tmp_path / "run", pixels=name)
    pixels = made.run.config.spec.pixels
    assert (pixels.channel_order, pixels.scale) == (
        NETWORKS[name].pixels.channel_order, NETWORKS[name].pixels.scale,
    )  # fmt: skip
    wanted = {"torchvision": (0.485, 0.456, 0.406)}.get(name, (122.679, 116.669, 104.007))
    assert pixels.mean == pytest.approx(wanted, abs=1e-3)
    with pytest.raises(ConfigError, match="Did you mean 'paper'"):
        import_file(tmp_path / "model.onnx", tmp_path / "other", pixels="papr")


@pytest.fixture(scope="module")
def theirs():
    """Return torchvision's network, narrow, and what PyTorch's exporter writes of it."""
    torch.manual_seed(3)
    network = by_torchvision((8, 12, 24, 16, 16), 40, 13).eval()
    return network, exported(network)


def by_constants(data):
    """Write every array as a node."""
    model = onnx.load_from_string(data)
    nodes = [
        helper.make_node("Constant", [], [one.name], value=one) for one in model.graph.initializer
    ] + list(model.graph.node)
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(nodes)
    return model


def joined(data):
    """Write one of two equal arrays as the other, twice over."""
    model = onnx.load_from_string(data)
    arrays = {one.name: one for one in model.graph.initializer}
    arrays["classifier.1.bias"].raw_data = arrays["classifier.4.bias"].raw_data
    model.graph.initializer.remove(arrays["classifier.4.bias"])
    for first, second in (("again", "classifier.4.bias"), ("classifier.1.bias", "again")):
        model.graph.node.insert(0, helper.make_node("Identity", [first], [second]))
    return model


def in_float16(data):
    """Turn the arrays into float16, between casts."""
    model = onnx.load_from_string(data)
    for one in model.graph.initializer:
        values = numpy_helper.to_array(one).astype(np.float16)
        one.CopyFrom(numpy_helper.from_array(values, one.name))
    start, first = model.graph.input[0].name, model.graph.node[0]
    first.input[0] = "half"
    model.graph.node.insert(0, helper.make_node("Cast", [start], ["half"], to=TensorProto.FLOAT16))
    return model


def padded_by_nothing(data):
    """Put a pad of nothing before the average pool, as PyTorch 1.0 did."""
    model = onnx.load_from_string(data)
    place, pool = next((n, o) for n, o in enumerate(model.graph.node) if o.op_type == "AveragePool")
    pad = helper.make_node("Pad", [pool.input[0]], ["padded"], pads=[0] * 8)
    pool.input[0] = "padded"
    model.graph.node.insert(place, pad)
    return model


def with_shape(data, shape, *, as_node=False):
    """Reshape, to a shape that is in the file, instead of flattening."""
    model = onnx.load_from_string(data)
    if as_node:
        model.graph.node.insert(0, helper.make_node("Constant", [], ["shape"], value_ints=shape))
    else:
        model.graph.initializer.append(numpy_helper.from_array(np.array(shape), "shape"))
    flatten = next(node for node in model.graph.node if node.op_type == "Flatten")
    flatten.CopyFrom(
        helper.make_node("Reshape", [flatten.input[0], "shape"], [*flatten.output], name="view")
    )
    return model


BY_PYTORCH = {
    "as it is": onnx.load_from_string,
    "view, Gather": lambda data: with_view(data, "Gather"),
    "view, Slice": lambda data: with_view(data, "Slice"),
    "view, a shape in the file": lambda data: with_shape(data, [-1, 576]),
    "view, a shape of plain numbers": lambda data: with_shape(data, [1, 576], as_node=True),
    "equal arrays joined": joined,
    "arrays as nodes": by_constants,
    "float16": in_float16,
    "a pad of nothing": padded_by_nothing,
}


@pytest.mark.parametrize("kind", BY_PYTORCH)
def test_what_pytorch_exports_of_torchvisions_network_is_that_network(theirs, kind, tmp_path):
    network, data = theirs
    (tmp_path / "net.onnx").write_bytes(BY_PYTORCH[kind](data).SerializeToString())
    made = import_file(tmp_path / "net.onnx", tmp_path / "run")
    spec = made.run.config.spec
    assert spec.pixels == NETWORKS["torchvision"].pixels
    assert ("float16, made float32" in made.found) == (kind == "float16")
    state = network.state_dict()
    if kind == "equal arrays joined":
        state["classifier.1.bias"] = state["classifier.4.bias"]
    ours = load(tmp_path / "run", device=CPU).network.state_dict()
    for mine, wanted in zip(ours.values(), state.values(), strict=True):
        assert torch.equal(mine, wanted.half().float() if kind == "float16" else wanted)
    if kind == "as it is":
        pixels = torch.randn(2, 3, 224, 224)
        with torch.inference_mode():
            mine, wanted = load(tmp_path / "run", device=CPU).network(pixels), network(pixels)
        torch.testing.assert_close(mine, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [[-1, 16, 36], [-1], [2, 2, 12, 12]])
def test_a_reshape_to_anything_but_rows_is_refused(theirs, shape, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(with_shape(theirs[1], shape).SerializeToString())
    with pytest.raises(RunError, match=rf"Reshape 'view' makes {len(shape)} axes. Expected 2"):
        import_file(path, tmp_path / "run")


def small() -> onnx.ModelProto:
    return zoo(divisor=16, classes=10)


def with_node(kind: str, **settings) -> onnx.ModelProto:
    """Put an operator between the first convolution and what follows it."""
    model = small()
    first, after = model.graph.node[0], model.graph.node[1]
    model.graph.node.insert(1, helper.make_node(kind, [first.output[0]], ["more"], **settings))
    after.input[0] = "more"
    return model


def with_setting(place: int, **settings) -> onnx.ModelProto:
    model = small()
    node = model.graph.node[place]
    kept = [setting for setting in node.attribute if setting.name not in settings]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.extend(helper.make_attribute(*pair) for pair in settings.items())
    return model


def without(kind: str) -> onnx.ModelProto:
    """Take out an operator; what took its output takes its input."""
    model = small()
    gone = next(node for node in model.graph.node if node.op_type == kind)
    after = next(node for node in model.graph.node if gone.output[0] in node.input)
    after.input[0] = gone.input[0]
    model.graph.node.remove(gone)
    return model


def without_weights() -> onnx.ModelProto:
    model = small()
    del model.graph.initializer[0]
    return model


def elsewhere() -> onnx.ModelProto:
    model = small()
    tensor = model.graph.initializer[1]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")
    return model


def declared_larger() -> onnx.ModelProto:
    model = small()
    model.graph.initializer[1].dims[0] = 10**9
    return model


def not_finite() -> onnx.ModelProto:
    model = small()
    tensor = model.graph.initializer[1]
    values = numpy_helper.to_array(tensor) * np.float32(np.inf)
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model


WRONG = {
    r"LRN '.*' comes after the maps are flattened": lambda: with_node("Flatten"),
    r"Gemm '.*' comes before the maps are flattened": lambda: without("Reshape"),
    r"has a BatchNormalization, 'number": lambda: with_node("BatchNormalization"),
    r"has a Sin": lambda: with_node("Sin"),
    r"is padded by \(1, 0, 0, 0\)": lambda: with_setting(0, pads=[1, 0, 0, 0]),
    r"is padded by \(0, 0, 0, 0\), SAME_UPPER": lambda: with_setting(0, auto_pad="SAME_UPPER"),
    r"has strides of \(4, 2\)": lambda: with_setting(0, strides=[4, 2]),
    r"has a kernel of .*or holes": lambda: with_setting(0, dilations=[2, 2]),
    r"has a window of 4": lambda: with_setting(2, size=4),
    r"has 3 groups|takes 72 maps": lambda: with_setting(4, group=3),
    r"is no array in the file": without_weights,
    r"lies in another file": elsewhere,
    r"numbers in the file": declared_larger,
    r"numbers that are not finite": not_finite,
    r"has no graph": lambda: onnx.ModelProto(ir_version=8),
}


@pytest.mark.parametrize("sentence", WRONG)
def test_other_graphs_are_refused_with_what_was_expected(sentence, tmp_path):
    (tmp_path / "model.onnx").write_bytes(WRONG[sentence]().SerializeToString())
    with pytest.raises(RunError, match=sentence):
        import_file(tmp_path / "model.onnx", tmp_path / "run", form="onnx")
    assert not (tmp_path / "run").exists()


def test_a_file_that_begins_with_its_graph_is_recognised(tmp_path):
    model = zoo(divisor=16, classes=5)
    graph = ModelProto()
    graph.graph.CopyFrom(model.graph)
    model.ClearField("graph")
    first = graph.SerializeToString()
    assert len(first) > 2 * PEEKED
    (tmp_path / "some file").write_bytes(first + model.SerializeToString())
    assert detect_format(tmp_path / "some file") == "onnx"
