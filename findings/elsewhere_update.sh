#!/usr/bin/env bash
# The table "The update rule" of docs/elsewhere.md: what momentum and weight decay mean in each
# library. Python 3.11 and Node, x86-64; versions below.
#
# Asked for, of one weight of 1 and momentum 0.9: the first step for a gradient of 1 at rate 0.1,
# by the library's defaults and with Nesterov's form switched on; the step after the rate has fallen
# from 0.1 to 0.01 and the gradient to nothing, over the step before it (0.9: the velocity holds the
# rate, as the paper writes it; 0.09: the rate is outside); and what is left of the weight after 100
# steps without a gradient, at rate 0.1 with a decay of 0.01 (0.37: the decay enters the velocity, as
# in the paper; 0.90: it is taken off beside it).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet numpy==2.4.6 torch==2.13.0 tensorflow-cpu==2.21.0 \
    paddlepaddle==3.3.1 optax==0.2.8 jax==0.10.2
cd "$folder"
npm install --silent --no-audit --no-fund @tensorflow/tfjs@4.22.0 >/dev/null
export TF_CPP_MIN_LOG_LEVEL=3 TF_ENABLE_ONEDNN_OPTS=0 GLOG_minloglevel=3 PYTHONWARNINGS=ignore
export JAX_PLATFORMS=cpu CUDA_VISIBLE_DEVICES=
cat > update.js <<'JS'
const tf = require('@tensorflow/tfjs');
const {gradients, rates, nesterov} = JSON.parse(require('fs').readFileSync(0));
const weight = tf.variable(tf.tensor1d([1]), true, 'w');
const optimizer = tf.train.momentum(rates[0], 0.9, nesterov);
console.log('ANSWER' + JSON.stringify(gradients.map((gradient, step) => {
  optimizer.setLearningRate(rates[step]);
  optimizer.applyGradients({w: tf.tensor1d([gradient])});
  return weight.arraySync()[0];
})));
JS
cat > update.py <<'PY'
import json
import subprocess
import sys

import numpy as np


class NoWord(ValueError):
    """The call cannot say it."""


# Each takes a gradient and a rate a step, a decay, and whether Nesterov's form is asked for; returns
# the weight after every step.


def pytorch(gradients, rates, decay, nesterov):
    import torch

    weight, seen = torch.nn.Parameter(torch.ones(1)), []
    rule = torch.optim.SGD([weight], rates[0], momentum=0.9, weight_decay=decay, nesterov=nesterov)
    for gradient, rate in zip(gradients, rates, strict=True):
        rule.param_groups[0]["lr"] = rate
        weight.grad = torch.full((1,), float(gradient))
        rule.step()
        seen.append(weight.item())
    return seen


def tensorflow(gradients, rates, decay, nesterov):
    import tensorflow as tf

    if decay:
        raise NoWord
    weight, seen, now = tf.Variable([1.0]), [], [rates[0]]
    rule = tf.compat.v1.train.MomentumOptimizer(lambda: now[0], 0.9, use_nesterov=nesterov)
    for gradient, now[0] in zip(gradients, rates, strict=True):
        rule.apply_gradients([(tf.constant([float(gradient)]), weight)])
        seen.append(float(weight.numpy()[0]))
    return seen


def keras(gradients, rates, decay, nesterov):
    import keras

    weight, seen = keras.Variable(np.ones(1, np.float32)), []
    rule = keras.optimizers.SGD(rates[0], 0.9, nesterov=nesterov, weight_decay=decay or None)
    rule.build([weight])
    for gradient, rate in zip(gradients, rates, strict=True):
        rule.learning_rate = rate
        rule.apply([keras.ops.full((1,), float(gradient))])
        seen.append(float(keras.ops.convert_to_numpy(weight.value)[0]))
    return seen


def paddle(gradients, rates, decay, nesterov):
    import paddle

    one, seen = paddle.nn.initializer.Constant(1.0), []
    weight = paddle.create_parameter([1], "float32", default_initializer=one)
    rule = paddle.optimizer.Momentum(
        rates[0], 0.9, [weight], use_nesterov=nesterov, weight_decay=decay or None
    )
    for gradient, rate in zip(gradients, rates, strict=True):
        rule.set_lr(rate)
        (weight * float(gradient)).sum().backward()
        rule.step()
        rule.clear_grad()
        seen.append(float(weight.numpy()[0]))
    return seen


def optax(gradients, rates, decay, nesterov):
    import jax.numpy as jnp
    import optax

    table = jnp.asarray(rates)
    rule = optax.sgd(lambda step: table[step], momentum=0.9, nesterov=nesterov)
    if decay:
        rule = optax.chain(optax.add_decayed_weights(decay), rule)
    weight, seen = jnp.ones(1), []
    state = rule.init(weight)
    for gradient in gradients:
        change, state = rule.update(jnp.full(1, float(gradient)), state, weight)
        weight = optax.apply_updates(weight, change)
        seen.append(float(weight[0]))
    return seen


def tfjs(gradients, rates, decay, nesterov):
    if decay:
        raise NoWord
    asked = json.dumps({"gradients": gradients, "rates": rates, "nesterov": nesterov})
    told = subprocess.run(
        ["node", "update.js"], input=asked, text=True, check=True, capture_output=True
    ).stdout
    return json.loads(told.split("ANSWER")[1])


def ask(rule):
    def first(nesterov):
        return f"{1 - rule([1], [0.1], 0, nesterov)[0]:.2f}"

    *_, before, last, fallen = rule([1, 1, 1, 0], [0.1, 0.1, 0.1, 0.01], 0, False)
    try:
        left = f"{rule([0] * 100, [0.1] * 100, 0.01, False)[-1]:.2f}"
    except NoWord:
        left = "-"
    return first(False), first(True), f"{(fallen - last) / (last - before):.2f}", left


EXPECTED = {
    "pytorch": ("0.10", "0.19", "0.09", "0.37"),
    "tensorflow": ("0.10", "0.19", "0.09", "-"),
    "keras": ("0.10", "0.19", "0.90", "0.90"),
    "paddle": ("0.10", "0.19", "0.09", "0.37"),
    "optax": ("0.10", "0.19", "0.09", "0.37"),
    "tfjs": ("0.10", "0.19", "0.09", "-"),
}

name = sys.argv[1]
found = ask(globals()[name])
print(f"{name:13}", *(f"{cell:6}" for cell in found), flush=True)
assert found == EXPECTED[name], f"expected {EXPECTED[name]}"
PY
# A process each: they bring protobuf, OpenMP and oneDNN of their own.
failed=0
for library in pytorch tensorflow keras paddle optax tfjs; do
    "$folder/venv/bin/python" update.py "$library" 2>"$library.log" || { tail -n 1 "$library.log"; failed=1; }
done
exit $failed
