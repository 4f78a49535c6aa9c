"""What tests do in a process of its own, to be killed."""

from dataclasses import replace

from alexnet.data.shards import open_prepared
from alexnet.features import JoinedSplits, extract, extraction
from alexnet.variants import CIFAR_QUICK
from tests.features.conftest import model_of


def extracted(root, out, form, seed=1, layers=("pool1", "relu64")):
    """Extract 720 images, noting each batch; in a process of its own."""
    extraction.PART = 1 << 23  # several Parquet files
    data = open_prepared(root)
    model = model_of(replace(CIFAR_QUICK.with_layers("conv1", std=0.01), num_classes=2), data, seed)
    extract(model, JoinedSplits([data.splits["train"]] * 20), layers, out, form=form, every=0)
