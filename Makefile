# One verb per check, the same that continuous integration runs. `make help` lists them.
PYTHON ?= python3
BIN := .venv/bin
# Two worker processes of one thread each use two cores better than one process of two threads.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format lock bench notebook docs clean

help: ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1	\2/'

setup: .venv/ready ## build .venv from requirements.lock, then the package itself

.venv/ready: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "botvision needs Python 3.11 or newer: say which with make PYTHON=/path/to/python3.11"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@test -x $(BIN)/uv || $(BIN)/python -m pip install -q "uv>=0.5"
	@echo "installing into .venv (torch is large: minutes on a first run, seconds from a warm cache)"
	@$(BIN)/uv pip install -q --python $(BIN)/python --require-hashes -r requirements.lock
	@$(BIN)/uv pip install -q --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

demo: .venv/ready ## train a small BoTNet Mask R-CNN on drawn shapes, evaluate, write pictures
	@rm -rf demo
	@$(BIN)/botvision train shapes_botnet14_nano --out demo/botnet14_nano
	@$(BIN)/botvision eval demo/botnet14_nano
	@$(BIN)/botvision predict demo/botnet14_nano --out demo/predictions
	@echo
	@echo "made: a detector that was never shown the images it was measured on, in demo/botnet14_nano/"
	@echo "look: demo/predictions/sheet.png (ground truth | prediction), demo/predictions/pictures/,"
	@echo "      demo/botnet14_nano/precision_recall.png and curves.png"
	@echo "next, with images of your own in data/ and their COCO JSON in data/annotations/:"
	@echo "  $(BIN)/botvision check data/"
	@echo "  $(BIN)/botvision train objects_botnet50 --data.root data/ --out runs/objects"
	@echo "and for whole images by class, in photos/train/<class>/ and photos/val/<class>/:"
	@echo "  $(BIN)/botvision train photos_botnet50 --data.root photos/ --out runs/photos"

test: .venv/ready ## run the whole test suite
	@$(PYTEST)

check: .venv/ready ## lint, format and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyrefly check

format: .venv/ready ## rewrite the code in the house format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

lock: ## pin all dependencies with hashes, naming no download address
	@$(BIN)/uv pip compile -q pyproject.toml --extra train --group dev --group bench --group docs \
	  --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" -o requirements.lock

# One after the other and each a process of its own: what one leaves in memory is not the next one's business.
bench: .venv/ready ## measure speed and memory on this machine (more than an hour), into results/
	@failed=; for name in attention alternatives bounds backbones sam mask_rcnn input_pipeline evaluation; do \
	  echo "benchmarks/$$name.py"; $(BIN)/python benchmarks/$$name.py || failed="$$failed $$name"; done; \
	  test -z "$$failed" || { echo "failed:$$failed"; exit 1; }

notebook: .venv/ready ## run docs/architecture.ipynb from top to bottom (minutes) and keep its outputs
	@$(BIN)/python docs/run_notebook.py docs/architecture.ipynb

docs: .venv/ready ## build the pages as a site in build/site/, every warning an error
	@docs/build.sh $(BIN)
	@echo "made: build/site/index.html"

clean: ## remove what the targets made
	rm -rf .venv demo .pytest_cache .ruff_cache .hypothesis
