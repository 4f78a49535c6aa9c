#!/usr/bin/env bash
# torch 2.13.0 (Python 3.11): making an optimizer loads PyTorch's compiler, though nothing is compiled.
#
# One would expect a program that never calls torch.compile to pay nothing for it: `import torch`
# leaves torch._dynamo out on purpose. A forward and a backward pass do without it too. But
# `Optimizer.add_param_group`, which the constructor of each optimizer calls, is one of the functions
# that the compiler is told to leave alone, and being told loads it: some thousand modules, sympy
# among them, for as long as `import torch` itself takes. Two cores of an AMD EPYC, Zen 3: 2.7 s for
# `import torch`, 2.6 s for the first torch.optim.SGD, 0.004 s for the first step. A subclass or a
# decorator of one's own with `torch.compiler.disable` does the same when it is defined, and so does
# the first call of an operator made by `torch.library.custom_op`, whose definition does not. What
# the optimizer computes does without: `torch._fused_sgd_` is the same update.
#
# Output:
#   after import torch: False
#   after forward and backward: False
#   after torch.optim.SGD([parameter], lr=0.1): True
#   sympy too: True
#   more than 500 modules more: True
#   after defining an operator: False
#   after its first call: True
#   after torch._fused_sgd_: False
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.13.0 numpy==2.4.6
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import sys

import torch


def is_loaded() -> bool:
    return "torch._dynamo" in sys.modules


imported = is_loaded()
parameter = torch.zeros(1, requires_grad=True)
(parameter * 2).sum().backward()
trained = is_loaded()
before = len(sys.modules)
torch.optim.SGD([parameter], lr=0.1)
made, more = is_loaded(), len(sys.modules) - before > 500
print("after import torch:", imported)
print("after forward and backward:", trained)
print("after torch.optim.SGD([parameter], lr=0.1):", made)
print("sympy too:", "sympy" in sys.modules)
print("more than 500 modules more:", more)
assert (imported, trained, made, "sympy" in sys.modules, more) == (False, False, True, True, True)
PY
"$folder/venv/bin/python" - <<'PY'
import sys

import torch

loaded = []


@torch.library.custom_op("findings::double", mutates_args=())
def double(x: torch.Tensor) -> torch.Tensor:
    return 2 * x


loaded.append("torch._dynamo" in sys.modules)
double(torch.ones(1))
loaded.append("torch._dynamo" in sys.modules)
print("after defining an operator:", loaded[0])
print("after its first call:", loaded[1])
assert loaded == [False, True]
PY
"$folder/venv/bin/python" - <<'PY'
import sys

import torch

weight, gradient, velocity = torch.ones(3).unbind()
torch._fused_sgd_(
    [weight], [gradient], [velocity], weight_decay=0.0, momentum=0.5, lr=0.5, dampening=0.0,
    nesterov=False, maximize=False, is_first_step=False,
)
print("after torch._fused_sgd_:", "torch._dynamo" in sys.modules)
assert "torch._dynamo" not in sys.modules and weight.item() == 1 - 0.5 * (0.5 + 1)
PY
