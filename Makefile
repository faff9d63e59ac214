# farthing: every target sets up what it needs in .venv, and does nothing twice. Start with `make demo`.

VENV := .venv
BIN := $(VENV)/bin
LOCKED := $(VENV)/.locked
WHEEL := $(VENV)/.wheel
BUILD_LOG := $(VENV)/build.log
LOCK_VENV := .venv-lock
# SDKs that cannot live beside those of the main environment, and frameworks: .venv-NAME of requirements/NAME.lock, in
# which tests/compat/NAME runs against the same wheel.
COMPAT := httpx frameworks
COMPAT_WHEELS := $(COMPAT:%=.venv-%/.wheel)
# Twice quiet: errors still show, remarks on this machine's pip configuration do not.
PIP_INSTALL := python -m pip install --quiet --quiet --disable-pip-version-check
PIP_CHECK = problems=$$($(BIN)/python -m pip check --disable-pip-version-check) || { echo "$$problems"; exit 1; }

# Folders count as sources too: their time changes when a file in them is deleted.
SOURCES := $(shell find src -name __pycache__ -prune -o -print) pyproject.toml README.md LICENSE
TYPED := src bench $(wildcard tests/typing)

.PHONY: help run demo test test-compat check bench bench-quick format lock reference changelog clean
.DELETE_ON_ERROR:
.SECONDARY:

help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 20

run: $(WHEEL)  ## start the proxy: before OpenAI if OPENAI_API_KEY is set, else before a fake provider (ARGS="--port 0")
	@$(BIN)/farthing serve $(if $(OPENAI_API_KEY),,--fake) $(ARGS)

demo: $(WHEEL)  ## see budgets hold: offline, under a minute
	@$(BIN)/farthing demo

# Two at a time: nearly half of the suite waits, for timeouts, processes and disks.
IN_PARALLEL := -n 2 --dist worksteal

# Chosen tests are looked for among those of the main environment only.
test: $(WHEEL) $(if $(ARGS),,test-compat)  ## run every test against the built wheel (ARGS="-k name" to choose)
	@FARTHING_TEST_WHEEL=1 $(BIN)/python -m pytest -q $(or $(ARGS),$(IN_PARALLEL))

# Exit code 5: no test of that name there, which is no failure where tests were chosen by name.
test-compat: $(COMPAT_WHEELS)
	@for name in $(COMPAT); do \
		echo "tests/compat/$$name, in .venv-$$name"; code=0; \
		FARTHING_TEST_WHEEL=1 .venv-$$name/bin/python -m pytest -q -p no:cacheprovider tests/compat/$$name $(ARGS) || code=$$?; \
		[ $$code = 0 ] || { [ $$code = 5 ] && [ -n '$(subst ','"'"',$(ARGS))' ]; } || exit $$code; \
	done

check: $(LOCKED)  ## formatting, lint, strict types, import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy $(TYPED)
	@PYTHONPATH=src $(BIN)/lint-imports --no-cache --no-logo

bench: $(WHEEL)  ## measure the bars (ARGS="name" to choose)
	@$(BIN)/python -m bench $(ARGS)

bench-quick: $(WHEEL)  ## has a call grown, through the proxy or in an SDK? Counts, in under a minute
	@$(BIN)/python -m bench.guard

format: $(LOCKED)  ## format, and mend what ruff can mend by itself
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

lock:  ## resolve requirements/*.lock anew (ARGS="--upgrade" for newer versions)
	@scripts/make-venv $(LOCK_VENV)
	@$(LOCK_VENV)/bin/$(PIP_INSTALL) pip-tools==7.6.2
	@for name in dev $(COMPAT); do \
		CUSTOM_COMPILE_COMMAND="make lock" $(LOCK_VENV)/bin/pip-compile --quiet --strip-extras --generate-hashes \
			--no-emit-index-url --no-emit-find-links --no-emit-trusted-host \
			--output-file requirements/$$name.lock pyproject.toml requirements/$$name.in $(ARGS) 2>$(LOCK_VENV)/log \
			|| { cat $(LOCK_VENV)/log; exit 1; }; \
	done

reference: $(WHEEL)  ## write docs/reference from models, commands and docstrings
	@$(BIN)/python scripts/make-reference

changelog: $(LOCKED)  ## show what the next release will say
	@$(BIN)/towncrier build --draft --version Unreleased --date "" 2>/dev/null

clean:  ## remove the environments, the wheel and all caches
	rm -rf $(VENV) $(COMPAT:%=.venv-%) .venv-npm-* $(LOCK_VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage
	find src tests -name __pycache__ -prune -exec rm -rf {} +

# The lock is complete, so nothing is resolved here; `pip check` says so if it ever is not.
$(LOCKED): requirements/dev.lock scripts/make-venv
	@scripts/make-venv $(VENV)
	@echo "installing the locked environment into $(VENV)"
	@$(BIN)/$(PIP_INSTALL) --no-deps --require-hashes -r requirements/dev.lock
	@$(PIP_CHECK)
	@touch $@

# What is tested, shown and measured is the wheel: a file that was not packaged is missed here, not by a user.
$(WHEEL): $(LOCKED) $(SOURCES)
	@rm -rf dist
	@$(BIN)/python -m build --wheel --no-isolation --outdir dist . >$(BUILD_LOG) 2>&1 || { cat $(BUILD_LOG); exit 1; }
	@$(BIN)/$(PIP_INSTALL) --no-deps --force-reinstall dist/*.whl
	@$(PIP_CHECK)
	@touch $@

.venv-%/.locked: requirements/%.lock scripts/make-venv
	@scripts/make-venv .venv-$*
	@echo "installing requirements/$*.lock into .venv-$*"
	@.venv-$*/bin/$(PIP_INSTALL) --no-deps --require-hashes -r requirements/$*.lock
	@touch $@

.venv-%/.wheel: .venv-%/.locked $(WHEEL)
	@.venv-$*/bin/$(PIP_INSTALL) --no-deps --force-reinstall dist/*.whl
	@touch $@
