# SPDX-License-Identifier: Apache-2.0
# Everything a newcomer types. `make help` lists it. What is missing is installed: Debian packages
# by apt-get where root or sudo allows, Python packages into .venv.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
STAMP := $(VENV)/.complete
# Tests that do not measure run in two processes.
BESIDE := -n 2 --dist loadfile

.DEFAULT_GOAL := help

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: run
run: venv ## run the server in the foreground (ARGS="--help" shows its options)
	@exec $(RUN) -m app $(ARGS)

.PHONY: run-qemu
run-qemu: image ## the server without an operating system, in QEMU (ARGS="--help" shows its options)
	@tools/setup.sh packages qemu-system-x86
	@exec tools/xsqemu $(ARGS)

.PHONY: image
image: venv ## build the bootable image, build/image/kernel.elf and initrd.cpio (BASE=unikraft: that)
ifeq ($(BASE),unikraft)
	@$(MAKE) --no-print-directory -C image/unikraft
else
	@tools/setup.sh packages gcc libc6-dev libxen-dev libpython3.11-dev zlib1g-dev python3.11-minimal
	@$(MAKE) --no-print-directory -C image/kernel OUT=$(CURDIR)/build/image
	@$(MAKE) --no-print-directory -C image/python OUT=$(CURDIR)/build/image
endif

.PHONY: demo
demo: venv ## kill the server in the middle of its work, ten times, and look what is there
	@mkdir -p run
	@$(RUN) -m tests.crash.kill9 --kills 10 --region run/demo.region
	@echo; echo "the log's own account of the last life (tools/xsdump run/demo.region log):"
	@tools/xsdump run/demo.region log -n 6 | cut -c 1-150
	@tools/xsdump run/demo.region verify

.PHONY: venv
venv: $(STAMP) ## make the Python environment
$(STAMP): pyproject.toml tools/setup.sh
	@tools/setup.sh venv $(PYTHON) $(VENV)
	@touch $@

.PHONY: test
test: test-setup lint ## run the tests (under 15 minutes)
	$(RUN) -m pytest $(BESIDE) -m "not slow and not full"
	$(RUN) -m pytest -m "slow and not full"

.PHONY: test-all
test-all: test-setup lint ## run everything: crashes at every store of all sequences, too
	$(RUN) -m pytest

.PHONY: test-quick
test-quick: test-setup ## run the tests that take under 2 minutes together
	$(RUN) -m pytest $(BESIDE) -m "not slow and not full"

.PHONY: test-xen
test-xen: test-setup ## the server in dom0 of a real Xen, or its stub domain, with guests (15 minutes)
	$(RUN) -m pytest tests/xen -k "not hundred and not thousand"

.PHONY: test-setup
test-setup: image
	@tools/setup.sh packages gcc libc6-dev git libxen-dev qemu-system-x86 chromium fonts-dejavu-core
	@$(RUN) -m tests.oracle.oracle fetch

.PHONY: bench
bench: test-setup ## this server, C xenstored and oxenstored side by side, as ratios
	@tools/setup.sh packages util-linux
	@$(RUN) -m tests.bench.suite $(ARGS)

.PHONY: lint
lint: venv ## ruff and mypy --strict
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

.PHONY: clean
clean: ## remove what was built (regions in /dev/shm stay)
	rm -rf $(VENV) build .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
