#!/usr/bin/env bash
# The table "Top-5" of docs/elsewhere.md: what each library counts as right where classes are equal,
# or are no number. Python 3.11 and Node, x86-64; versions below.
#
# Asked for, with 1,000 classes and an image of each:
#   sure     the share that is right among five, of a network that gives class 500 a probability of 1
#            and all others 0 (as float32 does from a difference of 104 between logits on, and 8 bits
#            much sooner): 0.005 if five classes are taken, 1 if all equals of the fifth are
#   NaN      the same of a network whose outputs are all NaN
#   first    the share that is right at k = 1, of a network whose outputs are all equal: 0.001 or 1
#   edge     which of three classes that are equal in the fifth place counts, of 10 and of 1,000
#   stray    whether the class ranked first counts among five where another class's output is NaN
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.13.0 tensorflow-cpu==2.21.0 \
    paddlepaddle==3.3.1 jax==0.10.2 torchmetrics==1.9.0 torcheval==0.0.7 pytorch-ignite==0.5.5 \
    scikit-learn==1.9.1 onnx==1.23.2 onnxruntime==1.32.0 openvino==2026.4.1
cd "$folder"
npm install --silent --no-audit --no-fund @tensorflow/tfjs@4.22.0 >/dev/null
export TF_CPP_MIN_LOG_LEVEL=3 TF_ENABLE_ONEDNN_OPTS=0 GLOG_minloglevel=3 PYTHONWARNINGS=ignore
export JAX_PLATFORMS=cpu CUDA_VISIBLE_DEVICES=
cat > top.js <<'JS'
const tf = require('@tensorflow/tfjs');
const {rows, labels, k} = JSON.parse(require('fs').readFileSync(0));
const numbers = rows.map(row => row.map(one => one === null ? NaN : one));
tf.inTopKAsync(tf.tensor2d(numbers), tf.tensor1d(labels, 'int32'), k).then(
  right => console.log('ANSWER' + JSON.stringify(Array.from(right.dataSync()))));
JS
cat > top.py <<'PY'
import json
import os
import subprocess
import sys

import numpy as np

# Each takes outputs (N, classes), labels (N,) and k; returns the share of the images that is right.


def torch_topk(rows, labels, k):
    import torch

    named = torch.from_numpy(rows).topk(k, dim=1).indices
    return (named == torch.from_numpy(labels)[:, None]).any(1).double().mean()


def torchmetrics(rows, labels, k):
    import torch
    from torchmetrics.functional.classification import multiclass_accuracy

    return multiclass_accuracy(
        torch.from_numpy(rows), torch.from_numpy(labels), rows.shape[1], average="micro", top_k=k
    )


def torcheval(rows, labels, k):
    import torch
    from torcheval.metrics import MulticlassAccuracy

    metric = MulticlassAccuracy(k=k)
    return metric.update(torch.from_numpy(rows), torch.from_numpy(labels)).compute()


def ignite(rows, labels, k):
    import torch
    from ignite.metrics import TopKCategoricalAccuracy

    metric = TopKCategoricalAccuracy(k)
    metric.update((torch.from_numpy(rows), torch.from_numpy(labels)))
    return metric.compute()


def sklearn(rows, labels, k):
    from sklearn.metrics import top_k_accuracy_score

    return top_k_accuracy_score(labels, rows, k=k, labels=range(rows.shape[1]))


def tensorflow(rows, labels, k):
    import tensorflow as tf

    return tf.math.in_top_k(labels.astype(np.int32), rows, k).numpy().mean()


def keras(rows, labels, k):
    from keras.metrics import SparseTopKCategoricalAccuracy

    metric = SparseTopKCategoricalAccuracy(k)
    metric.update_state(labels, rows)
    return metric.result()


keras_tensorflow = keras_torch = keras_jax = keras


def paddle_op(rows, labels, k):
    import paddle

    return paddle.metric.accuracy(paddle.to_tensor(rows), paddle.to_tensor(labels[:, None]), k)


def paddle_metric(rows, labels, k):
    import paddle

    metric = paddle.metric.Accuracy(topk=(k,))
    metric.update(metric.compute(paddle.to_tensor(rows), paddle.to_tensor(labels[:, None])))
    return metric.accumulate()


def onnx_top_k(classes, k):
    from onnx import TensorProto, helper

    def value(name, kind, width):
        return helper.make_tensor_value_info(name, kind, ["N", width])

    graph = helper.make_graph(
        [helper.make_node("TopK", ["rows", "k"], ["values", "named"], axis=1)],
        "top",
        [value("rows", TensorProto.FLOAT, classes)],
        [value("values", TensorProto.FLOAT, k), value("named", TensorProto.INT64, k)],
        [helper.make_tensor("k", TensorProto.INT64, [1], [k])],
    )
    opset = helper.make_opsetid("", 13)
    return helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()


def onnxruntime(rows, labels, k):
    from onnxruntime import InferenceSession

    named = InferenceSession(onnx_top_k(rows.shape[1], k)).run(["named"], {"rows": rows})[0]
    return (named == labels[:, None]).any(1).mean()


def openvino(rows, labels, k):
    from openvino import Core

    core = Core()
    network = core.compile_model(core.read_model(onnx_top_k(rows.shape[1], k)), "CPU")
    return (network([rows])[1] == labels[:, None]).any(1).mean()


def tfjs(rows, labels, k):
    numbers = np.where(np.isnan(rows), None, rows).tolist()
    asked = json.dumps({"rows": numbers, "labels": labels.tolist(), "k": k})
    told = subprocess.run(
        ["node", "top.js"], input=asked, text=True, check=True, capture_output=True
    ).stdout
    return np.mean(json.loads(told.split("ANSWER")[1]))


def ask(share):
    def right(rows, labels, k):
        try:
            return float(share(np.asarray(rows, np.float32), np.asarray(labels), k))
        except ValueError as error:
            assert "NaN" in str(error), error
            return None

    def write(found):
        return "refused" if found is None else f"{found:.3f}"

    def edge(classes):
        outputs = np.zeros(classes)
        outputs[:7] = 9, 8, 7, 6, 5, 5, 5
        counted = [place for place in range(3) if right([outputs], [4 + place], 5)]
        return "all" if len(counted) == 3 else "+".join(str(place + 1) for place in counted)

    every = np.arange(1000)
    sure = np.zeros((1000, 1000))
    sure[:, 500] = 1
    stray = np.arange(1000.0)
    stray[0] = np.nan
    counts = right([stray], [999], 5)
    return (
        write(right(sure, every, 5)),
        write(right(np.full_like(sure, np.nan), every, 5)),
        write(right(np.zeros_like(sure), every, 1)),
        f"{edge(10)}, {edge(1000)}",
        "refused" if counts is None else "yes" if counts else "no",
    )


EXPECTED = {
    "torch_topk": ("0.005", "0.005", "0.001", "2, 1", "yes"),
    "torchmetrics": ("0.005", "0.005", "0.001", "2, 1", "yes"),
    "torcheval": ("1.000", "1.000", "0.001", "all, all", "yes"),
    "ignite": ("0.005", "0.005", "0.001", "2, 1", "yes"),
    "sklearn": ("0.005", "refused", "0.001", "3, 3", "refused"),
    "tensorflow": ("1.000", "0.000", "1.000", "all, all", "no"),
    "keras_tensorflow": ("1.000", "0.000", "1.000", "all, all", "no"),
    "keras_torch": ("1.000", "0.000", "1.000", "all, all", "yes"),
    "keras_jax": ("1.000", "1.000", "1.000", "all, all", "yes"),
    "paddle_op": ("0.005", "0.005", "0.001", "2, 1", "yes"),
    "paddle_metric": ("0.005", "0.005", "0.001", "1, 1", "yes"),
    "onnxruntime": ("0.005", "0.005", "0.001", "1, 1", "yes"),
    "openvino": ("0.005", "0.005", "0.001", "1, 1", "yes"),
    "tfjs": ("0.005", "0.005", "0.001", "1, 1", "yes"),
}

name = sys.argv[1]
os.environ["KERAS_BACKEND"] = name.removeprefix("keras_") if "keras_" in name else "tensorflow"
found = ask(globals()[name])
print(f"{name:17}", *(f"{cell:9}" for cell in found), flush=True)
assert found == EXPECTED[name], f"expected {EXPECTED[name]}"
PY
# A process each: they bring protobuf, OpenMP and oneDNN of their own.
failed=0
for library in torch_topk torchmetrics torcheval ignite sklearn tensorflow keras_tensorflow \
    keras_torch keras_jax paddle_op paddle_metric onnxruntime openvino tfjs; do
    "$folder/venv/bin/python" top.py "$library" 2>"$library.log" || { tail -n 1 "$library.log"; failed=1; }
done
exit $failed
