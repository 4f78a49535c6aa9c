"""Weights in and out: other programs' files, and files for other programs."""

from typing import Literal, get_args

WeightsFormat = Literal[
    "caffe",
    "torchvision",
    "onnx",
    "cuda-convnet",
    "keras",
    "tfjs",
    "npy",
    "safetensors",
    "huggingface",
]
Runtime = Literal["onnxruntime", "openvino", "opencv", "web"]  # that portable files are for
WeightType = Literal["float32", "float16", "int8"]  # of the numbers in a file
FORMATS: tuple[WeightsFormat, ...] = get_args(WeightsFormat)
