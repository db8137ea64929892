# Every target makes what it needs, inside $(VENV): no root, nothing outside this folder.
PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
BENCH_ARGS ?=
SOAK_ARGS ?=

bin := $(VENV)/bin
python := $(bin)/python
light := $(VENV)/.stamp-plain
full := $(VENV)/.stamp-dev-train

.PHONY: help demo test check format bench soak clean
.DELETE_ON_ERROR:

help:
	@echo "make demo    watch icewatch work on a pretend microscope (no root, no GPU, two minutes)"
	@echo "make test    run the tests"
	@echo "make check   lint, formatting and types"
	@echo "make bench   latency, CPU time and memory on 4096 x 4096 tilts"
	@echo "make soak    an hour at ten times the real rate: memory, scrapes, nothing lost"
	@echo "make format  format the code and sort its imports"
	@echo "make clean   remove the environment and all caches"

demo: $(light)
	@$(bin)/icewatch demo

test: $(full)
	@$(python) -m pytest -n 2 --dist loadfile $(PYTEST_ARGS)

check: $(full)
	@$(python) -m ruff check .
	@$(python) -m ruff format --check .
	@$(python) -m mypy

format: $(full)
	@$(python) -m ruff check --fix .
	@$(python) -m ruff format .

bench: $(full)
	@$(python) -m tests.bench $(BENCH_ARGS)

soak: $(full)
	@$(python) -m tests.bench.soak $(SOAK_ARGS)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment whose Python went away, or that was moved along with its tree, is made anew.
ifneq ($(wildcard $(VENV)/.stamp-venv),)
ifneq ($(shell cat $(VENV)/.stamp-venv; $(python) -c "import pip" 2>&1),$(CURDIR))
$(shell rm -f $(VENV)/.stamp-*)
endif
endif

$(VENV)/.stamp-venv:
	@sh .ci/venv.sh "$(PYTHON)" "$(VENV)"
	@echo "$(CURDIR)" > $@

# A stamp for each set of extras: what `make demo` left is completed by `make test`.
$(light): pyproject.toml constraints.txt | $(VENV)/.stamp-venv
	@$(python) .ci/install.py "icewatch" -c constraints.txt -e .
	@touch $@

$(full): pyproject.toml constraints.txt | $(VENV)/.stamp-venv
	@$(python) .ci/install.py "icewatch with its tests and training (PyTorch: the first time a download of some gigabytes)" \
		-c constraints.txt -e ".[dev,train,gpu,openvino]"
	@touch $(light) $@
