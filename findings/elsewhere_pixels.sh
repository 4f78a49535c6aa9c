#!/usr/bin/env bash
# The tables "From a file to pixels" and "Resizing" of docs/elsewhere.md. Python 3.11 and Node,
# x86-64; versions below. The photograph is made here: noise whose power falls with frequency as
# that of photographs does, in correlated colours, 500 x 375, a JPEG of quality 90 with 4:2:0.
#
# Asked for: the order of channels and the largest difference from Pillow after decoding; the mean
# and largest difference, in levels of 0-255, of a shorter side of 256 from Pillow's BILINEAR, by
# each library's default and by the setting that is nearest; and what ready-made preprocessing makes
# of the pixel (200, 100, 50), RGB.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.13.0 onnx==1.23.2 onnxruntime==1.32.0 \
    openvino==2026.4.1 opencv-python-headless==4.14.0.94 tensorflow-cpu==2.21.0 \
    paddlepaddle==3.3.1 ncnn==1.0.20261020 pillow==13.0.0
cd "$folder"
npm install --silent --no-audit --no-fund @tensorflow/tfjs@4.22.0 >/dev/null
export TF_CPP_MIN_LOG_LEVEL=3 TF_ENABLE_ONEDNN_OPTS=0 GLOG_minloglevel=3 PYTHONWARNINGS=ignore
cat > resize.js <<'JS'
const tf = require('@tensorflow/tfjs'), fs = require('fs');
const image = tf.tensor(new Uint8Array(fs.readFileSync('photograph.raw')), [375, 500, 3]).toFloat();
for (const half of [false, true]) {
  const y = tf.image.resizeBilinear(image, [256, 341], false, half);
  fs.writeFileSync(`tfjs-${half}.raw`, Buffer.from(new Float32Array(y.dataSync()).buffer));
}
JS
cat > pixels.py <<'PY'
import io
import subprocess
import sys

import numpy as np
from PIL import Image

ROWS, COLUMNS = SIZE = (256, 341)
PIXEL = np.array([[[200, 100, 50]]], np.uint8)


def make_photograph():
    """Write an image with the spectrum of photographs as a JPEG."""
    draws = np.random.default_rng(0)
    rows, columns = np.fft.fftfreq(375)[:, None], np.fft.fftfreq(500)[None]
    power = 1 / np.maximum(np.hypot(rows, columns), 1 / 500)
    noise = draws.standard_normal((3, 375, 500))
    light, warm, green = (np.fft.ifft2(power * np.fft.fft2(one)).real for one in noise)
    light, warm, green = (one / one.std() for one in (light, warm, green))
    colours = (48 * light + 14 * warm, 48 * light + 5 * green, 48 * light - 14 * warm)
    image = np.stack(colours, -1) + 118
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(
        "photograph.jpg", quality=90, subsampling=2
    )


# Each yields a name, and what was decoded, resized, or made of the pixel (200, 100, 50).


def pillow(image, data):
    one = Image.fromarray(image)
    for name in ("BICUBIC", "BOX"):
        yield f"Pillow {name}", "resized", one.resize((COLUMNS, ROWS), Image.Resampling[name])


def opencv(image, data):
    import cv2

    yield "cv2.imdecode", "decoded", cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    yield "cv2.resize", "resized", cv2.resize(image, (COLUMNS, ROWS))
    area = cv2.resize(image, (COLUMNS, ROWS), interpolation=cv2.INTER_AREA)
    yield "cv2.resize, INTER_AREA", "resized", area
    yield "cv2.dnn.blobFromImage", "pixel", cv2.dnn.blobFromImage(PIXEL)


def tensorflow(image, data):
    import tensorflow as tf

    yield "tf.io.decode_jpeg", "decoded", tf.io.decode_jpeg(data)
    accurate = tf.io.decode_jpeg(data, dct_method="INTEGER_ACCURATE")
    yield "tf.io.decode_jpeg, INTEGER_ACCURATE", "decoded", accurate
    for antialias in (False, True):
        y = tf.image.resize(image, SIZE, antialias=antialias)
        yield f"tf.image.resize, antialias={antialias}", "resized", y


def keras(image, data):
    import keras
    from keras.src.applications.imagenet_utils import preprocess_input

    yield "keras.utils.load_img", "decoded", keras.utils.load_img("photograph.jpg")
    yield "keras.layers.Resizing", "resized", keras.layers.Resizing(*SIZE)(image.astype(np.float32))
    for mode in ("caffe", "tf", "torch"):
        y = preprocess_input(PIXEL.astype(np.float32), mode=mode)
        yield f"keras preprocess_input, mode={mode!r}", "pixel", y


def pytorch(image, data):
    import torch

    nchw = torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()
    for antialias in (False, True):
        y = torch.nn.functional.interpolate(nchw, SIZE, mode="bilinear", antialias=antialias)
        yield f"torch interpolate bilinear, antialias={antialias}", "resized", y[0].permute(1, 2, 0)


def paddle(image, data):
    from paddle.vision import image_load, transforms

    yield "paddle.vision.image_load", "decoded", image_load("photograph.jpg")
    yield "paddle resize of an array", "resized", transforms.resize(image, SIZE)
    yield "paddle resize of a Pillow image", "resized", transforms.resize(Image.fromarray(image), SIZE)


def ncnn(image, data):
    import ncnn

    kind = ncnn.Mat.PixelType.PIXEL_RGB
    y = ncnn.Mat.from_pixels_resize(image.copy(), kind, 500, 375, COLUMNS, ROWS)
    yield "ncnn.Mat.from_pixels_resize", "resized", np.array(y).transpose(1, 2, 0)


def onnxruntime(image, data):
    import onnxruntime as ort

    def run(data, x):
        return ort.InferenceSession(data, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]

    yield from onnx_resizes("ONNX Runtime", image, run)


def openvino(image, data):
    import openvino as ov

    def run(data, x):
        core = ov.Core()
        return core.compile_model(core.read_model(io.BytesIO(data)), "CPU")(x)[0]

    yield from onnx_resizes("OpenVINO", image, run)


def onnx_resizes(reader, image, run):
    from onnx import TensorProto, helper, numpy_helper

    sizes = numpy_helper.from_array(np.array([1, 3, *SIZE]), "sizes")
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 375, 500)),
            helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 3, *SIZE))]
    for antialias in (0, 1):
        told = {"mode": "linear", "antialias": antialias}
        node = helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], **told)
        graph = helper.make_graph([node], "resize", ends[:1], ends[1:], [sizes])
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        y = run(made.SerializeToString(), image.transpose(2, 0, 1)[None].astype(np.float32))
        name = f"ONNX Resize linear, antialias={antialias}, in {reader}"
        yield name, "resized", y[0].transpose(1, 2, 0)


def tfjs(image, data):
    image.tofile("photograph.raw")
    subprocess.run(["node", "resize.js"], check=True, capture_output=True)
    for half in ("false", "true"):
        y = np.fromfile(f"tfjs-{half}.raw", np.float32).reshape(*SIZE, 3)
        yield f"tfjs resizeBilinear, halfPixelCenters {half}", "resized", y


EXPECTED = {
    "Pillow BICUBIC": (2.64, 17),
    "Pillow BOX": (6.49, 64),
    "cv2.imdecode": ("BGR", 0),
    "cv2.resize": (4.3, 44),
    "cv2.resize, INTER_AREA": (1.83, 13),
    "cv2.dnn.blobFromImage": (200.0, 100.0, 50.0),
    "tfjs resizeBilinear, halfPixelCenters false": (6.31, 63),
    "tfjs resizeBilinear, halfPixelCenters true": (4.31, 44),
    "torch interpolate bilinear, antialias=False": (4.31, 44),
    "torch interpolate bilinear, antialias=True": (0.29, 1),
    "ONNX Resize linear, antialias=0, in ONNX Runtime": (4.31, 44),
    "ONNX Resize linear, antialias=1, in ONNX Runtime": (0.3, 3),
    "ONNX Resize linear, antialias=0, in OpenVINO": (4.31, 44),
    "ONNX Resize linear, antialias=1, in OpenVINO": (4.31, 44),
    "ncnn.Mat.from_pixels_resize": (4.3, 44),
    "tf.io.decode_jpeg": ("RGB", 5),
    "tf.io.decode_jpeg, INTEGER_ACCURATE": ("RGB", 0),
    "tf.image.resize, antialias=False": (4.31, 44),
    "tf.image.resize, antialias=True": (0.29, 1),
    "keras.utils.load_img": ("RGB", 0),
    "keras.layers.Resizing": (4.31, 44),
    "keras preprocess_input, mode='caffe'": (-53.939, -16.779, 76.32),
    "keras preprocess_input, mode='tf'": (0.569, -0.216, -0.608),
    "keras preprocess_input, mode='torch'": (1.307, -0.285, -0.933),
    "paddle.vision.image_load": ("RGB", 0),
    "paddle resize of an array": (4.3, 44),
    "paddle resize of a Pillow image": (0.0, 0),
}

if sys.argv[1] == "pillow":
    make_photograph()
with open("photograph.jpg", "rb") as file:
    data = file.read()
right = np.asarray(Image.open(io.BytesIO(data)))
want = np.float64(Image.fromarray(right).resize((COLUMNS, ROWS), Image.Resampling.BILINEAR))
failed = False
for name, kind, y in globals()[sys.argv[1]](right, data):
    y = np.asarray(y)
    if kind == "decoded":
        apart = [int(np.abs(np.int64(y[..., ::way]) - right).max()) for way in (1, -1)]
        found = ("RGB" if apart[0] < apart[1] else "BGR", min(apart))
    elif kind == "resized":
        apart = np.abs(np.float64(y) - want)
        found = (round(float(apart.mean()), 2), round(float(apart.max())))
    else:
        found = tuple(round(float(value), 3) for value in y.ravel())
    print(f"{name:50}", *found, flush=True)
    if found != EXPECTED.get(name):
        print(f"    expected {EXPECTED.get(name)}")
        failed = True
sys.exit(failed)
PY
# A process each: they bring protobuf, OpenMP and oneDNN of their own.
failed=0
for library in pillow opencv tensorflow keras pytorch paddle ncnn onnxruntime openvino tfjs; do
    "$folder/venv/bin/python" pixels.py "$library" 2>"$library.log" || { tail -n 1 "$library.log"; failed=1; }
done
exit $failed
