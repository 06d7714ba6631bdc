# Everything runs in .venv, a link to the environment of PYTHON in .venvs. That is made when it is
# missing or was made of something else.
PYTHON ?= python3
EXTRAS ?=
CONFIG ?= experiments/configs/quickstart.py
# runs/digits of experiments/configs/digits.py:cnn
WORKDIR ?= runs/$(basename $(notdir $(firstword $(subst :, ,$(CONFIG)))))
# All tests of a file run in one process, so that they share compiled programs.
pytest := pytest -n auto --maxprocesses=8 --dist=loadfile --no-loadscope-reorder --durations=10
PYTEST_ARGS ?=
MUTATIONS ?=
# What tests marked `system` need besides Python, as Debian calls it.
SYSTEM := iproute2

# The folder itself: another call may move the link meanwhile.
run := "$$(readlink -f .venv)/bin/python" -m
environment := @sh .ci/environment "$(PYTHON)" "$(EXTRAS)"

.PHONY: help train test test-all test-short mutations system lint style clean
.NOTPARALLEL:

help:
	@echo 'make train      train CONFIG ($(CONFIG)); results go to WORKDIR ($(WORKDIR))'
	@echo 'make test       run the tests, without the slow ones'
	@echo 'make test-all   run all tests; those marked system need root, and what make system installs'
	@echo 'make test-short run the few tests that show whether this Python and its JAX work at all'
	@echo 'make mutations  mutate the library, and see which tests notice (MUTATIONS=--new draws again; hours)'
	@echo 'make system     install, with apt-get and as root, what those tests need ($(SYSTEM))'
	@echo 'make lint       check style and types (ruff, pyright)'
	@echo 'make style      check style only (ruff)'
	@echo 'make clean      remove .venv, .venvs, caches and build outputs; runs/ stays'
	@echo
	@echo 'PYTHON=python3.12    the interpreter, 3.11 or later ($(PYTHON))'
	@echo 'EXTRAS=cuda12        extras of pyproject.toml: cuda12, cuda13, tpu, digits, bench, torch ($(or $(EXTRAS),none))'
	@echo 'PYTEST_ARGS=-x       further arguments of pytest ($(or $(PYTEST_ARGS),none))'

train:
	$(environment)
	$(run) experiments.train --config=$(CONFIG) --workdir="$(WORKDIR)"

test:
	$(environment) test
	$(run) $(pytest) $(PYTEST_ARGS)

test-all:
	$(environment) test
	$(run) $(pytest) -m '' $(PYTEST_ARGS)

test-short:
	$(environment) test
	$(run) $(pytest) -m short $(PYTEST_ARGS)

mutations:
	$(environment) dev
	$(run) tests.mutations $(MUTATIONS)

system:
	apt-get update
	apt-get install --yes --no-install-recommends $(SYSTEM)

lint: style
	$(run) pyright

style:
	$(environment) dev
	$(run) ruff check .
	$(run) ruff format --check .

clean:
	rm -rf .venv .venvs .hypothesis .pytest_cache .ruff_cache build dist esenas_jax.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
