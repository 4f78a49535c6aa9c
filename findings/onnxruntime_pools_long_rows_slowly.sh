#!/usr/bin/env bash
# ONNX Runtime 1.32.0 on the processor (with onnx 1.23.2, numpy 2.4.6, Python 3.11, x86-64): a pool
# over rows of more than some 2,040 numbers takes several times as long for each number.
#
# An average over neighbouring channels, as in a local response normalisation, is a pool of (5, 1)
# once channels are rows and each map is laid out as one row: 55 x 55 gives rows of 3,025 numbers,
# 27 x 27 of 729. One would expect the time for a number to be the same for both, or a little more
# where the rows leave a cache.
#
# Seen: ONNX Runtime's vectorised pool keeps one row in a buffer on the stack, of 2,048 numbers with
# its margins. A longer row is pooled number by number instead, by a loop that is not vectorised:
# average and maximum, with no word of it. The same numbers with the two axes of the map kept apart
# and averaged by (5, 1, 1) are nearly as fast as short rows.
#
# Output (two cores of an AMD EPYC, Zen 3, with other work; nanoseconds vary, the last line is stated):
#   AveragePool  rows of 2025:  1.3 ns   rows of 2116: 11.2 ns
#   MaxPool      rows of 2025:  0.7 ns   rows of 2116:  4.5 ns
#   AveragePool  46 x 46:       1.7 ns
#   long rows more than twice as slow as short ones, and as the same in two axes: True
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import time

import numpy as np
import onnxruntime as ort
from onnx import TensorProto, helper


def measure(kind: str, shape: tuple[int, ...]) -> float:
    """Return the least nanoseconds for a number, of a window of 5 along the third axis."""
    window = [5, *[1] * (len(shape) - 3)]
    node = helper.make_node(kind, ["x"], ["y"], kernel_shape=window, strides=[1] * len(window))
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, [f"d{n}" for n in range(len(shape))])]
    graph = helper.make_graph([node], "pool", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    x = np.random.default_rng(0).random(shape, np.float32)
    seconds = []
    for _ in range(30):
        start = time.process_time()
        session.run(None, {"x": x})
        seconds.append(time.process_time() - start)
    return min(seconds) / x.size * 1e9


def measure_rows(kind: str) -> tuple[float, float]:
    """Return the nanoseconds for a number of short rows and of long ones."""
    short, long = (measure(kind, (1, 1, 100, pixels)) for pixels in (2025, 2116))
    print(f"{kind:12} rows of 2025: {short:4.1f} ns   rows of 2116: {long:4.1f} ns")
    return short, long


(short, long), (short_max, long_max) = measure_rows("AveragePool"), measure_rows("MaxPool")
apart = measure("AveragePool", (1, 1, 100, 46, 46))
print(f"AveragePool  46 x 46:      {apart:4.1f} ns")
slower = long > 2 * short and long > 2 * apart and long_max > 2 * short_max
print("long rows more than twice as slow as short ones, and as the same in two axes:", slower)
assert slower
PY
