# One-line wrappers; without make: python3.11 tools/dev.py demo (or test, lint, bench, docs, wheel, mutation).
# Options for the job: make test ARGS="tests/fl -x"
PYTHON ?= $(or $(shell command -v python3.11),python3)

.PHONY: demo test lint bench docs wheel mutation
demo test lint bench docs wheel mutation:
	$(PYTHON) tools/dev.py $@ $(ARGS)
