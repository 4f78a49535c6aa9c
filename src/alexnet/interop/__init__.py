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
FORMATS: tuple[WeightsFormat, ...] = get_args(WeightsFormat)
