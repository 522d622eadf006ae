# `make tune` and `make test` are all that a newcomer needs: Python 3.11 or newer, make, a C compiler.
PYTHON ?= python3
SPACE ?= nmce_digits
ARGS ?=
PORT ?= 5000
# Where make was called, also by `make -C /path/to/raymc ui`: there the runs are.
HERE := $(or $(PWD),$(CURDIR))
BENCH ?= losses sinkhorn membership_clusters geometry gcml_epoch gcml_own augmentation optimisers stage1 worker_exactness trial_overhead seed_statistics scaling

VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
READY := $(VENV)/.ready
FLOOR := .venv-floor
# A process for each core, four at most; the tests of a file stay together, and what they share is made once.
JOBS ?= logical
PYTEST = -m pytest -q -n $(JOBS) --maxprocesses 4 --dist loadfile
# uv trusts the certificates that it brings along unless told otherwise; the machine's own include a proxy's.
CERTIFICATES := $(wildcard /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt /etc/ssl/cert.pem)
export UV_SYSTEM_CERTS ?= $(if $(CERTIFICATES),1,0)

.DEFAULT_GOAL := help
.PHONY: help setup tune ui test test-slow test-floor servers lint docs docs-tools bench wheel requirements clean python312

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  make %-13s %s\n", $$1, $$2}'

setup: $(READY) ## .venv with the pinned requirements and the project (PYTHON=python3.12 picks an interpreter)

$(READY): pyproject.toml requirements.txt
	@"$(PYTHON)" -c '' || { \
	  echo "raymc needs Python 3.11 or newer; '$(PYTHON)' does not run (make setup PYTHON=/path/to/python3)" >&2; exit 2; }
	@"$(PYTHON)" -c 'import sys; sys.version_info >= (3, 11) or sys.exit("raymc needs Python 3.11 or newer; $(PYTHON) is " \
	  + sys.version.split()[0] + " (make setup PYTHON=/path/to/python3)")'
	@"$(BIN)/python" -c '' 2>/dev/null || "$(PYTHON)" -m venv --clear "$(VENV)" || { \
	  echo "'$(PYTHON) -m venv' failed: its venv module is missing (Debian: apt-get install python3-venv)" >&2; exit 2; }
	@"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --constraint requirements.txt uv
	"$(UV)" pip install --python "$(BIN)/python" --compile-bytecode --no-deps -r requirements.txt -e .
	@"$(BIN)/python" -c 'import torch, torchvision' || { \
	  echo "torch and torchvision do not match: install both from the same place in one go (rm -r $(VENV); make setup)" >&2; exit 2; }
	@touch "$@"

tune: $(READY) ## search a space: make tune SPACE=nmce_coil20 ARGS="--trials 8"
	@"$(BIN)/python" -m raymc.tune $(SPACE) $(ARGS)

ui: $(READY) ## MLflow's pages on the runs of the folder where it is called (or of MLFLOW_TRACKING_URI)
	@case "$$MLFLOW_TRACKING_URI" in \
	  http*) echo "MLflow's pages are at $$MLFLOW_TRACKING_URI" | sed 's|//.*@|//|' ;; \
	  *) MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false MLFLOW_DISABLE_TELEMETRY=true "$(BIN)/mlflow" ui --host 127.0.0.1 \
	       --port $(PORT) --workers 1 --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///$(HERE)/mlflow.db}" ;; \
	esac

test: $(READY) ## the fast tests
	@"$(BIN)/python" $(PYTEST) -m "not slow" $(ARGS)

# They wait as much as they compute: for Ray, for servers, for kills. In order of their names the longest begin first.
test-slow: JOBS = 3
test-slow: $(READY) ## the slow tests
	@"$(BIN)/python" $(PYTEST) --no-loadscope-reorder -m slow $(ARGS)

servers: $(READY) ## the S3-compatible server that some of the slow tests start (150 MB)
	@"$(UV)" pip install --quiet --python "$(BIN)/python" -r tests/servers.txt

test-floor: $(FLOOR)/.ready ## the fast tests on Python 3.12 with the oldest torch, without ray, optuna and mlflow
	@"$(FLOOR)/bin/python" $(PYTEST) -m "not slow" $(ARGS)

$(FLOOR)/.ready: pyproject.toml tests/floor.txt | $(READY)
	@python=$$($(MAKE) -s python312) && "$(UV)" venv --clear --python "$$python" "$(FLOOR)"
	"$(UV)" pip install --python "$(FLOOR)/bin/python" --compile-bytecode --no-deps -r tests/floor.txt -e .
	@touch "$@"

# A python3.12 on PATH may be a version manager's stand-in that does not run: the first that does is taken.
python312:
	@for python in "$(PYTHON312)" python3.12 "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.12.*/bin/python3.12; do \
	  "$$python" -c 'import sys; print(sys.executable) if sys.version_info[:2] == (3, 12) else sys.exit(1)' 2>/dev/null && exit; \
	done; \
	echo "make test-floor needs Python 3.12: put python3.12 on PATH, or name it (make test-floor PYTHON312=/path/to/it)" >&2; \
	exit 2

lint: $(READY) ## ruff and mypy
	@"$(BIN)/ruff" check .
	@"$(BIN)/ruff" format --check .
	@"$(BIN)/mypy" --strict raymc benchmarks

docs-tools: $(VENV)/.docs

$(VENV)/.docs: docs/requirements.txt | $(READY)
	@"$(UV)" pip install --quiet --python "$(BIN)/python" -r docs/requirements.txt
	@touch "$@"

docs: $(VENV)/.docs ## the documentation as a site, in site/; a broken link or a page outside the navigation fails
	@NO_MKDOCS_2_WARNING=1 "$(BIN)/mkdocs" build --strict

bench: $(READY) ## the benchmarks, or one of them: make bench BENCH=losses ARGS="--device cuda"
	@for name in $(BENCH); do echo "== $$name"; "$(BIN)/python" -m "benchmarks.$$name" $(ARGS) || exit $$?; done

wheel: $(READY) ## dist/: the wheel and the pins of a run and of a head, which the machines of a cluster install
	@rm -rf dist && "$(UV)" build --quiet --wheel --out-dir dist && cp requirements-run.txt clusters/head.txt dist/ && ls dist/*

# Of Ray raymc uses names that any version may drop (raymc/execution/ray_internals.py): the bound in pyproject.toml is
# lifted, and put behind the version that the tests will run on.
requirements: $(READY) ## resolve the pins anew: requirements.txt, requirements-run.txt, tests/floor.txt, clusters/head.txt, docs/requirements.txt
	@sed -i.bak -E 's/("ray\[[a-z,]+\]>=[0-9.]+),<[0-9.]+"/\1"/' pyproject.toml && rm pyproject.toml.bak
	@"$(UV)" pip compile --quiet --upgrade --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links \
	  --extra dev --custom-compile-command "make requirements" -o requirements.txt pyproject.toml
	@"$(UV)" pip compile --quiet --upgrade --universal --python-version 3.12 --no-emit-index-url --no-emit-find-links \
	  --extra test --override tests/floor.in --custom-compile-command "make requirements" -o tests/floor.txt pyproject.toml
	@"$(UV)" pip compile --quiet --upgrade --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links \
	  --constraint requirements.txt --override clusters/machine.overrides --custom-compile-command "make requirements" \
	  -o requirements-run.txt pyproject.toml clusters/machine.in
	@"$(UV)" pip compile --quiet --upgrade --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links \
	  --constraint requirements.txt --custom-compile-command "make requirements" -o clusters/head.txt clusters/head.in
	@"$(UV)" pip compile --quiet --upgrade --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links \
	  --constraint requirements.txt --custom-compile-command "make requirements" -o docs/requirements.txt --group docs
	@bound=$$(awk -F '==|[.]' '$$1 == "ray" {print $$2 "." $$3 + 1}' requirements.txt) && \
	  sed -i.bak -E "s/(\"ray\[[a-z,]+\]>=[0-9.]+)\"/\1,<$$bound\"/" pyproject.toml && rm pyproject.toml.bak
	@! grep -nE '^--|https?://|==[^ ]*\+' requirements.txt requirements-run.txt tests/floor.txt clusters/head.txt docs/requirements.txt

clean: ## remove environments, caches and build results; studies and reports stay
	rm -rf "$(VENV)" "$(FLOOR)" build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
