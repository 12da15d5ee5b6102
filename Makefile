# make run: the shipped example, from its captures to its report. make test: every check but the slow, the live, the remote, the cluster, the kills and the cuts in thousands.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# What `make live-captures` leaves: a folder OUT/NAME of captures of so many SECONDS, over a network whose round trips take DELAY longer.
OUT ?= live-captures
NAME ?= trial
DELAY ?= 0ms
SECONDS ?= 60

.PHONY: env env-docs env-slurm run test test-slow test-cuts test-remote test-live test-cluster test-cluster-reruns test-kills live live-captures lint docs lock clean

env: $(VENV)/.made

# Made anew only when the pinned packages change. Compiling the kernels ahead is a favour to the first run, so its failure is not one.
$(VENV)/.made: requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0])'
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
	-PYTHONPATH=workflow/scripts $(BIN)/python -c 'from brokerlens import job; job.compile_kernels_once()'
	touch $@

# What a SLURM cluster needs beside that: docs/cluster.md.
env-slurm: $(VENV)/.made-slurm

$(VENV)/.made-slurm: $(VENV)/.made requirements-slurm.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-slurm.txt
	touch $@

run: env
	$(BIN)/snakemake --cores all
	@echo 'Open results/report/index.html in a browser.'

test: lint
	$(BIN)/pytest -n auto --dist loadfile

test-slow: env
	$(BIN)/pytest -m slow

test-cuts: env
	$(BIN)/pytest -m cuts

# The storage plugin and a server, beside the environment instead of in it: Snakemake would import them at every start.
test-remote: env
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --upgrade --target $(VENV)/remote -r tests/remote/requirements.txt
	PYTHONPATH=$(CURDIR)/$(VENV)/remote $(BIN)/pytest -m remote

test-live: env
	$(BIN)/pytest -m live

test-cluster: env-slurm
	$(BIN)/pytest -m cluster

# What it runs again after each change: every test of tests/workflow/test_reruns.py once more.
test-cluster-reruns: env-slurm
	$(BIN)/pytest -m cluster_reruns

# Kills runs at random moments, fills the disk, takes the right to write away; KILLS and SEED change how often and when.
test-kills: env
	$(BIN)/pytest -m kills -s

# A real broker and real clients, captured at both ends and taken through the whole pipeline.
live: env
	rm -rf results-live
	$(BIN)/python tests/live/recording.py results-live
	$(BIN)/snakemake --cores all --configfile results-live/config.yaml --directory results-live
	@echo 'Open results-live/results/report/index.html in a browser.'

# Captures to try things on: a broker, a producer and a consumer, tcpdump beside the clients.
live-captures: env
	$(BIN)/python tests/live/demo.py '$(OUT)/$(NAME)' --delay '$(DELAY)' --seconds '$(SECONDS)'

# .pre-commit-config.yaml has the same list.
lint: env
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile workflow/rules
	$(BIN)/snakemake --lint
	$(BIN)/pytest --quiet tests/unit/test_tables.py tests/unit/test_config_documentation.py tests/unit/test_pages.py

# The pages that are made from the code (tests hold them equal), and the site of all pages.
docs: env env-docs
	PYTHONPATH=workflow/scripts $(BIN)/python -m brokerlens.tables > docs/data-sets.md
	PYTHONPATH=workflow/scripts $(BIN)/python -m brokerlens.config config/README.md
	rm -rf site
	$(VENV)/docs/bin/sphinx-build --quiet --fail-on-warning --keep-going --jobs auto -d $(VENV)/docs/doctrees -c docs . site
	@echo 'Open site/docs/index.html in a browser.'

# Beside the pipeline's environment, which stays small.
env-docs: $(VENV)/docs/.made

$(VENV)/docs/.made: $(VENV)/.made requirements-docs.txt
	rm -rf $(VENV)/docs
	$(PYTHON) -m venv $(VENV)/docs
	$(VENV)/docs/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-docs.txt
	touch $@

# The pins for every supported Python, with hashes; needs uv. Without an index's address: which one to use is the machine's business.
lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --quiet requirements.in -o requirements.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --quiet -c requirements.txt requirements-s3.in -o requirements-s3.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --quiet -c requirements.txt tests/remote/requirements.in -o tests/remote/requirements.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --quiet requirements-slurm.in -o requirements-slurm.txt
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --quiet requirements-docs.in -o requirements-docs.txt

clean:
	rm -rf results/[!R]* site .snakemake
