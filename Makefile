# Every target works on a fresh clone with Python 3.11 or newer and make; the environment is made once, in .venv.
# People with an environment of their own: pip install -e '.[dev]', then `jupyter lab nbs` and `nbdev_test`.
PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
OTHER := .venv-bench-pyctcdecode
ROOT := $(filter 0,$(shell id -u))

.PHONY: help setup lab test train docs book runs bench soak export check clean

help:            ## what there is
	@sed -n 's/^\([a-z]*\): .*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

setup: $(READY)  ## make .venv with everything in it
	@echo "ready: $(VENV) ($$($(BIN)/python --version))"

# The environment is renewed when a dependency changes.
$(READY): settings.ini setup.py constraints.txt .ci/system.sh
	@echo "setting up $(VENV): about two minutes and 2 GB the first time"
	@$(PYTHON) -c 'import sys; v = sys.version_info; v >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is %d.%d: make PYTHON=python3.11 ..." % v[:2])'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@bash .ci/system.sh $(BIN)/python
	@touch $(READY)

lab: setup       ## open JupyterLab on the first chapter (ARGS= is passed on)
	$(BIN)/jupyter lab $(if $(ROOT),--allow-root) $(ARGS) nbs/00_alphabet.ipynb

test: setup      ## pass everything: export, stored outputs, notebooks, doctests, tests
	@$(BIN)/python -m crnn_nb.book check
	@$(BIN)/python -m crnn_nb.book exported
	$(BIN)/nbdev_test --n_workers 2 --do_print --timing
	@$(BIN)/python -m crnn_nb.book skipped
	$(BIN)/python -m pytest -n 2 --dist loadfile --doctest-modules crnn_nb tests $(ARGS)

train: setup     ## the main job: draw words, train on them, read words never seen
	$(BIN)/crnn-nb train $(ARGS)

docs: setup      ## build the site into _docs/
	$(BIN)/nbdev_export
	$(BIN)/python -m crnn_nb.book docs

book: setup      ## export, execute every notebook top to bottom, store outputs, write README and social picture
	$(BIN)/nbdev_export
	$(BIN)/python -m crnn_nb.book run $(ARGS)
	$(BIN)/nbdev_export # running numbers the cells anew, and the modules name them
	$(BIN)/python -m crnn_nb.book social
	$(BIN)/python -m crnn_nb.book readme

runs: setup      ## the long recordings that chapters draw from (hours)
	$(BIN)/python -m crnn_nb.runs $(ARGS)

bench: setup     ## the speed appendix, measured beside what others install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,bench]'
	@test -x $(OTHER)/bin/python || $(PYTHON) -m venv $(OTHER)
	$(OTHER)/bin/python -m pip install --quiet --disable-pip-version-check 'pyctcdecode>=0.5,<0.6' 'numpy<2'
	$(BIN)/nbdev_test --flags slow --path nbs/appendix/speed.ipynb --n_workers 0 --do_print
	$(BIN)/python -m crnn_nb.book run nbs/appendix/speed.ipynb

soak: setup      ## the long tests: two hundred kills, millions of annotations
	CRNN_NB_SOAK=1 $(BIN)/python -m pytest tests $(ARGS)

clean:           ## remove what was built, keep .venv
	rm -rf _docs _proc .pytest_cache .hypothesis build *.egg-info
