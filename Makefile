# RL in Name Only?  Type `make` for the targets.
#   PYTHON=/path/to/python3.11   the Python that .venv is made with (and used even if an environment is active)
#   PIP_ARGS="..."               more options for pip install: an extra index, for example

# An active environment is used as it is, except conda's "base" and our own .venv; else there is .venv.
CONDA := $(if $(filter-out base,$(CONDA_DEFAULT_ENV)),$(CONDA_PREFIX))
ACTIVE := $(if $(PYTHON),,$(or $(subst $(CURDIR)/.venv,,$(VIRTUAL_ENV)),$(CONDA)))
BIN := $(or $(ACTIVE),$(CURDIR)/.venv)/bin
PY := "$(BIN)/python"
export PATH := $(BIN):$(PATH)

.DEFAULT_GOAL := help
.PHONY: help book site lab test types browser test-oldest runs lock clean ready

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1	/p' Makefile

book: ready  ## run every chapter from top to bottom, and keep the outputs
	@$(PY) -m tools.book run

site: ready  ## the book as web pages, in build/site: open index.html, no server is needed
	@$(PY) -m tools.site

lab: ready  ## open the book in JupyterLab
	$(PY) -m jupyterlab --ServerApp.root_dir="$(CURDIR)" $(wildcard book/00_*.ipynb)

# Workers that steal keep the tests of a module together, and with them what these share.
test: ready  ## lint, types, unit tests, and the notebooks run again
	$(PY) -m ruff check .
	$(PY) -m mypy
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 --dist worksteal tests
	OMP_NUM_THREADS=1 $(PY) -m pytest -q -m gpu tests/gpu  # which sees a GPU; all else is held to the CPU's numbers
	CUDA_VISIBLE_DEVICES= OMP_NUM_THREADS=1 $(PY) -m pytest -q -n 2 --dist loadscope --nbval-lax --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg book

types: ready  ## check the library's annotations
	$(PY) -m mypy

# Two environments of their own, in build/. uv resolves to the lowest versions, which pip cannot.
UNIT = OMP_NUM_THREADS=1 PYTHONPATH= "$$bin/python" -m pytest -q -n 2 --dist worksteal -m "not slow and not gpu" tests

test-oldest: ready  ## unit tests with the lowest versions that are allowed, and on Python 3.12 where it is there
	$(PY) -m venv build/oldest && bin=build/oldest/bin && "$$bin/python" -m pip install -q uv \
	&& "$$bin/uv" pip install -q --python "$$bin/python" $(PIP_ARGS) --resolution lowest-direct -e '.[test,site,browser]' \
	&& $(UNIT)
	if python3.12 -c ''; then python3.12 -m venv build/python3.12 && bin=build/python3.12/bin \
	&& "$$bin/python" -m pip install -q $(PIP_ARGS) -r requirements.lock \
	&& "$$bin/python" -m pip install -q --no-deps -e . && $(UNIT); fi

browser: ready  ## install a Chromium, for the tests of the pages in tests/browser; without it they are skipped
	$(PY) -m playwright install chromium

# Chapter 09: four numbers, 256 problems, half of them with targets that no run trained on.
FOUR = --task-set n_numbers=4 --task-set new_targets=true --split test --problems 256 --samples 1024 --max-new-tokens 160

runs: ready  ## make the recorded runs again (hours)
	"$(BIN)/rlino" grid data/runs/countdown-lr.json
	"$(BIN)/rlino" grid data/runs/countdown.json
	"$(BIN)/rlino" grid data/runs/staleness.json
	"$(BIN)/rlino" grid data/runs/head-to-head-lr.json
	"$(BIN)/rlino" grid data/runs/head-to-head.json
	"$(BIN)/rlino" grid data/runs/head-to-head-more.json --out data/runs/head-to-head
	"$(BIN)/rlino" grid data/runs/sgd-to-batch.json
	"$(BIN)/rlino" grid data/runs/length.json
	"$(BIN)/rlino" grid data/runs/length-more.json --out data/runs/length
	"$(BIN)/rlino" grid data/runs/length-cap.json
	"$(BIN)/rlino" grid data/runs/giving-up.json
	"$(BIN)/rlino" grid data/runs/length-rates.json
	"$(BIN)/rlino" grid data/runs/length-remedies.json
	"$(BIN)/rlino" grid data/runs/clean-room.json
	"$(BIN)/rlino" grid data/runs/clean-room-sgd.json
	"$(BIN)/rlino" grid data/runs/clean-room-dial.json
	"$(BIN)/rlino" grid data/runs/sharpening-lr.json
	"$(BIN)/rlino" grid data/runs/sharpening.json
	"$(BIN)/rlino" grid data/runs/sharpening-more.json
	"$(BIN)/rlino" grid data/runs/direct.json
	"$(BIN)/rlino" grid data/runs/equivalence.json
	"$(BIN)/rlino" grid data/runs/rejection.json
	"$(BIN)/rlino" grid data/runs/credit-lr.json
	"$(BIN)/rlino" grid data/runs/credit-word_problems.json
	for seed in 40 41 42 43 44 45 46 47; do "$(BIN)/rlino" values data/runs/credit-word_problems/vc_ppo-s$$seed; done
	"$(BIN)/rlino" grid data/runs/credit-countdown.json
	for task in word_problems countdown; do "$(BIN)/rlino" gradients --threads 1 data/base/$$task --out data/base/$$task/credit-sd || exit; done
	"$(BIN)/rlino" grid data/runs/credit-more.json
	"$(BIN)/rlino" grid data/runs/environment.json
	"$(BIN)/rlino" grid data/runs/restarts.json
	for run in data/runs/restarts/*/; do for k in 1 2; do "$(BIN)/rlino" evaluate --task-set restart_held_out=$$k --split test --problems 256 --samples 16 --model "$${run}model" --out "$${run}repair-$$k" || exit; done; done
	"$(BIN)/rlino" evaluate $(FOUR) --out data/base/countdown/four/t1
	"$(BIN)/rlino" evaluate $(FOUR) --seed 1 --out data/base/countdown/four/t1-again
	for t in 0.6 0.3 0.1; do "$(BIN)/rlino" evaluate $(FOUR) --split validation --samples 16 --temperature $$t --out data/base/countdown/four/validation-t$$t || exit; done
	"$(BIN)/rlino" evaluate $(FOUR) --split validation --samples 1 --temperature 0 --out data/base/countdown/four/validation-t0
	"$(BIN)/rlino" evaluate $(FOUR) --temperature 0.3 --out data/base/countdown/four/cold
	"$(BIN)/rlino" evaluate $(FOUR) --samples 256 --temperature 0.1 --out data/base/countdown/four/colder
	"$(BIN)/rlino" evaluate $(FOUR) --samples 256 --temperature 0.6 --top-p 0.95 --out data/base/countdown/four/t0.6
	"$(BIN)/rlino" evaluate $(FOUR) --problems 128 --max-new-tokens 320 --out data/base/countdown/four/t1-cap320
	"$(BIN)/rlino" evaluate $(FOUR) --problems 128 --samples 256 --temperature 0.6 --top-p 0.95 --model data/runs/sharpening/grpo_no_kl-s0/model --out data/runs/sharpening/grpo_no_kl-s0/t0.6
	"$(BIN)/rlino" evaluate $(FOUR) --problems 128 --samples 256 --max-new-tokens 320 --model data/runs/sharpening/grpo_no_kl-s0/model --out data/runs/sharpening/grpo_no_kl-s0/t1-cap320
	"$(BIN)/rlino" evaluate $(FOUR) --samples 3072 --seed 2 --unsolved-by data/base/countdown/four/t1 --out data/base/countdown/four/t1-unsolved
	for run in data/runs/sharpening/*/; do "$(BIN)/rlino" evaluate $(FOUR) --model "$${run}model" --out "$${run}t1" || exit; done
	for run in data/runs/sharpening-more/*/; do "$(BIN)/rlino" evaluate $(FOUR) --samples 256 --model "$${run}model" --out "$${run}t1" || exit; done
	for run in data/runs/direct/*/; do "$(BIN)/rlino" evaluate --task-set thinking=false --split test --problems 256 --samples 64 --max-new-tokens 32 --model "$${run}model" --out "$${run}t1" || exit; done
	"$(BIN)/rlino" chains --out data/base/countdown/four/chains
	for run in data/runs/sharpening/grpo_no_kl-*/; do "$(BIN)/rlino" chains --model "$${run}model" --out "$${run}chains" || exit; done

lock: ready  ## pin what is installed now, in requirements.lock and environment.yml
	$(PY) -m tools.book lock

clean:  ## remove .venv, the site, caches and the checkpoints of your own runs; data/ stays
	rm -rf .venv build *.egg-info .pytest_cache .hypothesis .ruff_cache .mypy_cache
	find . \( -path ./.git -o -path ./data \) -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints -o -name checkpoint.pt \) -prune -exec rm -rf {} +

# Notebooks load torch before rlino_lib, which sets this too, and says why.
book site lab test: export OMP_WAIT_POLICY ?= PASSIVE

# The models and the data ship with the book: nothing may go to the net once it is installed.
book test: export HF_HUB_OFFLINE := 1
book test: export TRANSFORMERS_OFFLINE := 1
book test: export HF_DATASETS_OFFLINE := 1

# ---- the environment -------------------------------------------------------------------------------------------------
find_python = for p in $(if $(ACTIVE),$(PY),$(if $(PYTHON),"$(PYTHON)",python3 python3.13 python3.12 python3.11)); do \
	v=$$("$$p" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3]); sys.exit(sys.version_info < (3, 11))' 2>/dev/null) \
	&& echo "$$p" && exit; seen="$$seen $$v"; done; echo "none: $$seen"
need_python = $(eval FOUND := $(shell $(find_python)))$(if $(filter none:,$(FOUND)),$(error RL in Name Only? needs \
	Python 3.11 or newer; found $(or $(word 2,$(FOUND)),none). Set PYTHON=/path/to/python3.11))
install = $(PY) -m pip install $(PIP_ARGS) -r requirements.lock && $(PY) -m pip install $(PIP_ARGS) --no-deps -e .

ifneq ($(ACTIVE),)
ready:
	$(need_python)
	@$(PY) -I -c 'import os, rlino_lib as r; assert os.path.samefile(os.path.dirname(r.__path__[0]), ".")' 2>/dev/null \
		|| { $(install); }
else
ready: .venv/.installed
endif

.venv/.installed: requirements.lock pyproject.toml | .venv/bin/python
	$(install)
	@touch $@

.venv/bin/python:
	$(need_python)
	"$(FOUND)" -m venv --clear .venv
