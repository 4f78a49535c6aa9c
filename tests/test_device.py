"""What is recorded for a GPU, and left alone elsewhere."""

import pytest
import torch

from alexnet.device import MOST_RECORDED, CudaGraphRunner


def test_without_a_gpu_a_function_runs_as_it_is():
    calls = []
    replayed = CudaGraphRunner(lambda x: calls.append(x) or x + 1)
    assert replayed(torch.ones(2)).tolist() == [2, 2]
    assert replayed(torch.zeros(2)).tolist() == [1, 1]
    assert len(calls) == 2


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_on_a_gpu_each_shape_is_recorded_once_and_answers_are_kept_apart(mode):
    layer = torch.nn.Linear(8, 8).cuda().requires_grad_(False)
    calls = []
    replayed = CudaGraphRunner(lambda x: calls.append(x) or layer(x))
    with mode(), torch.autocast("cuda", torch.bfloat16):
        batches = [torch.randn(n, 8, device="cuda") for n in (1, 3, 1, 3, 3)]
        found = [replayed(batch) for batch in batches]
        wanted = [layer(batch) for batch in batches]
    assert len(calls) == 2 * 3  # each shape twice before it is recorded
    for mine, theirs in zip(found, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=0)
    layer.weight.mul_(2)  # where it lies: a graph reads it again
    torch.testing.assert_close(replayed(batches[1]), layer(batches[1]), rtol=1e-6, atol=1e-6)
    many = [torch.randn(n, 8, device="cuda") for n in range(1, MOST_RECORDED + 5)]
    for batch in many:
        torch.testing.assert_close(replayed(batch), layer(batch), rtol=1e-6, atol=1e-6)
