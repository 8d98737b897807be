# The words that developers and CI use alike. Each target does the set-up it needs.
.DELETE_ON_ERROR:
.PHONY: help quickstart unit test gpu cluster faults study benchmark golden manifests requirements check audit sbom knobs docs clean
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

help:  ## this list
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 20

# Compiled bytecode halves the start of every worker process, so it is made here and not on first use.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --compile -c constraints.txt -e ".[demo,dev]"
	$(BIN)/python -m compileall -q threephase_ray jobs
	touch $@

quickstart: $(READY)  ## train the demo: data and checkpoint come with the installation, no GPU, no hub
	$(BIN)/python jobs/train.py --config jobs/configs/demo.yaml

unit: $(READY)  ## tests without Ray
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/unit tests/test_architecture.py tests/test_security.py

# The files with the longest tests come first by their names, so that none of the two processes is left with one in the end.
test: unit  ## all tests but the slow ones
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" tests/integration

gpu: $(READY)  ## what only a GPU can show, on a machine that has one; the versions of torch in constraints.txt may be for another machine
	$(BIN)/python -m pytest tests/gpu

cluster: $(READY)  ## what needs several machines: three nodes with token authentication, made of network namespaces; needs root on Linux
	$(BIN)/python -m pytest -v -m slow tests/integration/test_cluster.py tests/integration/test_preflight.py

faults: $(READY)  ## kill, stop, damage and disturb runs in every way; more than an hour, best as root on Linux
	$(BIN)/python -m pytest -m slow tests/integration --ignore tests/integration/test_cluster.py --ignore tests/integration/test_preflight.py
	$(BIN)/python -m tests.faults

.PHONY: commands
commands: $(READY)  ## every command of README and the guides; `make test` runs them, too, but makes plans of the longest
	$(BIN)/python -m pytest tests/integration/test_documented_commands.py

study: $(READY)  ## what each phase adds, with intervals: needs texts/snips2 and texts/atis, see jobs/configs/studies/ablation.yaml
	$(BIN)/python jobs/study.py --config jobs/configs/studies/ablation.yaml

RESULTS := benchmarks/results
benchmark: $(READY)  ## CPU time against stock libraries, Ray and DeepSpeed against bare torch; an hour or more; needs texts/snips2, texts/imdb and texts/atis
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[demo,benchmark]"
	$(BIN)/python benchmarks/training.py --texts texts/snips2 --rows 96 --out $(RESULTS)/training-snips2.json
	$(BIN)/python benchmarks/training.py --texts texts/imdb --max-length 256 --rows 32 --batches 16 --rounds 3 --out $(RESULTS)/training-imdb.json
	$(BIN)/python benchmarks/contrastive.py --texts texts/atis --out $(RESULTS)/contrastive.json
	$(BIN)/python benchmarks/engine.py --texts texts/snips2 --out $(RESULTS)/engine.json
	$(BIN)/python benchmarks/demo.py --out $(RESULTS)/demo.json
	$(BIN)/python benchmarks/predict.py speed --texts texts/snips2/train.parquet texts/imdb/train.parquet --out $(RESULTS)/predict-speed.json
	$(BIN)/python benchmarks/data.py --texts texts/snips2/train.parquet --work texts/made --out $(RESULTS)/data-snips2.json
	$(BIN)/python benchmarks/cost.py --gpu $(RESULTS)/gpu-h200.json --engine $(RESULTS)/engine.json --out $(RESULTS)/cost.json

golden: $(READY)  ## write the golden losses anew, after a change that is meant to move them
	$(BIN)/python -m pytest tests/integration/test_golden.py --regenerate

manifests: $(READY)  ## render and check what is in cluster/; CRDS=FOLDER adds the schemas of the operator's CustomResourceDefinitions
	$(BIN)/python -m threephase_ray.kube.check $(if $(CRDS),--crds $(CRDS)) cluster/overlays/*

# For the image: Python 3.12 on Linux, whatever this is made on.
requirements: $(READY)  ## write cluster/requirements.txt, with hashes, from pyproject.toml and constraints.txt
	$(BIN)/uv pip compile pyproject.toml --extra demo --extra s3 --extra serve --constraints constraints.txt --generate-hashes --no-header --quiet \
		--python-version 3.12 --python-platform x86_64-manylinux_2_28 --output-file cluster/requirements.txt

check: $(READY)  ## style, types, layers, docs/knobs.md, the reference
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy --strict threephase_ray jobs
	$(BIN)/lint-imports
	$(BIN)/bandit --quiet --recursive --configfile pyproject.toml threephase_ray jobs
	$(BIN)/python -m threephase_ray.knobs --check docs/knobs.md
	$(BIN)/python docs/reference/build.py build/docs

# What looks at the packages stands apart from them: cyclonedx-bom brings a parser with it that would cost every process of Ray two seconds.
.venv/audit: constraints.txt | $(READY)
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet -c constraints.txt pip-audit cyclonedx-bom

audit: $(READY) .venv/audit  ## known weaknesses of the packages that are installed; asks a public service, so it needs a network
	.venv/audit/bin/pip-audit --path $$($(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))") --skip-editable

sbom: $(READY) .venv/audit  ## sbom.json: all packages with versions and licences (CycloneDX)
	.venv/audit/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file sbom.json $(BIN)/python

knobs: $(READY)  ## write docs/knobs.md
	$(BIN)/python -m threephase_ray.knobs docs/knobs.md

docs: $(READY)  ## the reference of the package from its docstrings: build/docs/index.html
	$(BIN)/python docs/reference/build.py build/docs

clean:  ## remove the environment and the caches; the store stays
	rm -rf .venv build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
	find threephase_ray jobs tests -name __pycache__ -type d -exec rm -rf {} +
