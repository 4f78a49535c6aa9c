# make train      set up, then train AlexNet on real photographs and test it   (a quarter of an hour)
# make test       set up, then run the tests that take minutes together
# make test-all   the long ones too: kills, races, servers, browsers, whole trainings
# make check      lint, format, types and the import contract
# make bench      side by side with the usual ways to run the same network
# make findings   what other libraries do that one would not expect   (some minutes; not in CI)

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ALEXNET := $(BIN)/alexnet
RUN ?= runs/elpv
BUDGET ?= 15m

# A solar cell fills its photograph, so the paper's own crops, with no zoom, suit it; and where few epochs
# fit, small batches at a low rate do (docs/log.md).
ELPV := --epochs 36 --batch-size 32 --lr 0.002 --set crop_area=none --set label_smoothing=0

# torch alone first, within the tested range: asked for without a bound, pip takes the newest build,
# which brings gigabytes of CUDA. Where there is an NVIDIA GPU that is what is wanted.
TORCH := $(if $(shell command -v nvidia-smi 2>/dev/null),torch>=2.11,torch>=2.11,<2.14)

.PHONY: setup train test test-slow test-long test-all check bench figures findings clean

setup: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV); the first time takes some minutes."
	@$(BIN)/python -c 'import torch' 2>/dev/null || $(BIN)/pip install --quiet "$(TORCH)"
	@$(BIN)/pip install --quiet --editable '.[dev]'
	@touch $@

train: setup
	$(ALEXNET) train elpv --out $(RUN) $(ELPV) --budget $(BUDGET)

test: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -q -m "not slow"

test-slow: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -q -m "slow and not long"

test-long: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -q -m "slow and long"

test-all: test test-slow test-long

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup
	$(ALEXNET) bench

figures: setup
	$(ALEXNET) figures $(RUN)

# Each installs what it needs in a folder of its own; one that fails does not keep back the others.
findings:
	@failed=0; for script in findings/*.sh; do \
		echo "== $$script"; $$script || { echo "$$script: no longer so"; failed=1; }; \
	done; exit $$failed

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
