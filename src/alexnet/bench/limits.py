"""What the machine can do at most: matrix products by type, copying, bare JPEG decoding.

Measured in a process like any contender's, in every round of every work.
"""

from functools import partial

import torch

from alexnet import device as devices
from alexnet.bench.contender import Contender, Setting, Timed, UnsuitableError, require_fast
from alexnet.data.decode import decode_jpeg
from alexnet.data.prepare import Options, prepare_image

JPEGS = 256  # images decoded in a call
COPIED = 64 << 20  # float32 numbers, 256 MB: more than caches hold, but for the largest


def limits(setting: Setting) -> tuple[Contender, ...]:
    """Return what there is to measure on the setting's device.

    Names end in their unit; GFLOP/s count a multiplication and an addition as two.
    """
    side = 8192 if setting.device.type == "cuda" else 4096  # large enough for the full rate
    found = [
        Contender(matmul_name(torch.float32), partial(matmul, torch.float32, side // 2)),
        Contender(matmul_name(torch.bfloat16), partial(matmul, torch.bfloat16, side)),
        Contender("matmul_int8_gops", partial(matmul_int8, side)),
        Contender("copy_gb_per_s", copy),
    ]
    if setting.images:
        found.append(Contender("jpeg_256_images_per_s_a_core", jpeg))
    return tuple(found)


def matmul_name(kind: torch.dtype) -> str:
    """Return the limit's name: ``matmul_bfloat16_gflops``."""
    return f"matmul_{str(kind).removeprefix('torch.')}_gflops"


def matmul(kind: torch.dtype, side: int, setting: Setting) -> Timed:
    """Return a product of square matrices; its amount is in GFLOP.

    Raises
    ------
    UnsuitableError
        When the device has no fast products of the type.
    """
    require_fast(kind, setting.device)
    a, b = (torch.randn(side, side, device=setting.device).to(kind) for _ in range(2))
    out = torch.empty_like(a)
    return Timed(lambda: torch.matmul(a, b, out=out), 2 * side**3 / 1e9)


def matmul_int8(side: int, setting: Setting) -> Timed:
    """Return a product of matrices of bytes, summed in int32; its amount is in 1e9 operations.

    Raises
    ------
    UnsuitableError
        When the device has no such products, or a processor would have to emulate them.
    """
    require_int8(setting.device)
    a, b = (
        torch.randint(-127, 128, (side, side), dtype=torch.int8, device=setting.device)
        for _ in range(2)
    )
    return Timed(lambda: torch._int_mm(a, b.t()), 2 * side**3 / 1e9)


def require_int8(device: torch.device) -> None:
    """See that PyTorch multiplies matrices of bytes on the device, in hardware on a processor.

    Raises
    ------
    UnsuitableError
        When it does not.
    """
    a = torch.ones(32, 32, dtype=torch.int8, device=device)
    try:
        if device.type != "cpu" or devices.has_int8():
            torch._int_mm(a, a.t())
            return
    except RuntimeError:
        pass
    raise UnsuitableError(f"The device {devices.device_name(device)} has no fast int8.")


def copy(setting: Setting) -> Timed:
    """Return a copy from memory to memory; its amount is GB read and written."""
    source = torch.ones(COPIED, device=setting.device)
    target = torch.empty_like(source)
    return Timed(lambda: target.copy_(source), 2 * source.nbytes / 1e9)


def jpeg(setting: Setting) -> Timed:
    """Return the decoding of the photographs as they are prepared, 256x256, in one thread."""
    from alexnet.bench.data_works import photographs, taken

    prepared = (prepare_image(item, Options()) for item in taken(photographs(setting), JPEGS))
    encoded = [one.encoded for one in prepared if not isinstance(one, str)]
    return Timed(lambda: [decode_jpeg(data) for data in encoded], len(encoded))
