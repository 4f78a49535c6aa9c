"""What a server serves, as `/v1/model` tells it."""

from dataclasses import asdict
from typing import Any

from alexnet.data.imagenet import describe_classes
from alexnet.serve.service import Service
from alexnet.version import __version__


def about(service: Service) -> dict[str, Any]:
    """Return the network, its arithmetic and what can be asked about it."""
    model, spec, settings = service.model, service.model.spec, service.settings
    return {
        "name": spec.name,
        "step": model.step,
        "classes": {
            "count": len(model.classes),
            "names": list(describe_classes(model.classes)),
            "labels": list(model.classes),
        },
        "spec": asdict(spec),
        "layers": [asdict(layer) | {"outputs": layer.outputs} for layer in spec.layers()],
        "towers": spec.towers,
        "prepared": model.resize_to,
        "parameters": spec.parameters,
        "neurons": spec.neurons,
        "macs": spec.macs,
        "outputs": list(service.networks.shapes),
        "shapes": {name: list(shape) for name, shape in service.networks.shapes.items()},
        "receptive_fields": {
            name: {"size": field.size, "stride": field.stride, "start": field.start}
            for name, field in service.networks.fields.items()
        },
        "has_training_images": service.gallery.has_images,
        "has_run_curves": (service.run.folder / "metrics.jsonl").is_file(),
        "limits": {
            "max_bytes": settings.max_bytes,
            "max_pixels": settings.max_pixels,
            "max_images": settings.max_images,
        },
        "version": __version__,
    }
