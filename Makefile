# Two commands do everything on a bare Debian machine, as root: `make demo` and `make test`.
SALT ?= 3008
VENV := $(if $(filter 3008,$(SALT)),.venv,.venv-$(SALT))
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed-$(SALT)
APT := wireguard-tools wireguard-go nftables iproute2 iputils-ping procps conntrack python3 python3-venv
# For systemd-analyze, which checks the watcher's unit.
APT += systemd
# One of Salt's dependencies has no wheel and is compiled.
APT += gcc libc6-dev python3-dev
# The other end of BFD sessions, for the tests only.
APT_TEST := frr
# Systems that the benchmarks compare the mesh with.
APT_BENCH := nebula tinc babeld openssl
# pytest-salt-factories listens for logs and events of the daemons that it started. Only the integration tests use that, and its
# listeners have been seen to hang at the end of a run.
NO_LISTENERS := -p no:salt-factories-log-server -p no:salt-factories-event-listener

.PHONY: help demo test test-salt test-unit check format bench changelog clean tools venv

help:
	@echo 'make demo [KEEP=1]        a real mesh of nine nodes in network namespaces, built and checked (root)'
	@echo 'make test                 everything: unit, functional, integration, lab (root)'
	@echo 'make check                the quick part: format, lint, spelling, types, import contracts, unit tests, fuzzers'
	@echo 'make test-salt SALT=3006  unit, functional and one integration run on another Salt (3006, 3007, 3008)'
	@echo 'make test-unit            the unit tests alone, on the python3 that is found first'
	@echo 'make bench [NAME=...]     measure; results go to bench/results'
	@echo 'make changelog            the text that the fragments in changelog/ give the next release'
	@echo 'make clean                remove the environments and what runs have left'

demo: tools venv
	@$(PY) -m tests.lab demo $(if $(KEEP),--keep)

test: check
	@$(MAKE) --no-print-directory tools APT='$(APT) $(APT_TEST)'
	$(PY) -m pytest $(NO_LISTENERS) tests/packaging
	$(PY) -m pytest -n 2 $(NO_LISTENERS) tests/functional
	$(PY) -m pytest tests/integration
	$(PY) -m pytest $(NO_LISTENERS) tests/lab

test-salt: tools venv
	$(PY) -m pytest -q $(NO_LISTENERS) tests/unit
	$(PY) -m pytest -n 2 $(NO_LISTENERS) tests/functional
	$(PY) -m pytest tests/integration

test-unit: venv
	$(PY) -m pytest -q -n auto $(NO_LISTENERS) tests/unit

check: venv
	$(PY) -m ruff format --check src tests bench
	$(PY) -m ruff check src tests bench
	$(VENV)/bin/codespell
	$(PY) -m mypy
	$(VENV)/bin/lint-imports --config setup.cfg
	$(PY) -m pytest -q -n auto $(NO_LISTENERS) tests/unit tests/fuzz

format: venv
	$(PY) -m ruff format src tests bench
	$(PY) -m ruff check --fix src tests bench

bench: venv
	@$(MAKE) --no-print-directory tools APT='$(APT) $(APT_BENCH)'
	@$(PY) -m pip install -q -c constraints/salt-$(SALT).txt -c constraints/bench.txt -e '.[tests,check,bench]'
	$(PY) -m bench $(NAME)

changelog: venv
	@$(PY) -m pip install -q -c constraints/release.txt -e '.[release]'
	@$(PY) -m towncrier build --draft

clean:
	rm -rf .venv .venv-* .lab build dist src/*.egg-info

# Installs missing Debian packages, as root only. No package may start a daemon, neither now (policy-rc.d) nor at boot.
tools:
	@missing=$$(for p in $(APT); do dpkg-query -W -f '$${Status}' $$p 2>/dev/null | grep -q 'ok installed' || echo $$p; done); \
	[ -z "$$missing" ] || { [ "$$(id -u)" = 0 ] || { echo "run this as root: it must install" $$missing; exit 1; }; \
	echo "installing:" $$missing; policy=/usr/sbin/policy-rc.d; \
	[ -e $$policy ] || { trap "rm -f $$policy" EXIT; printf '#!/bin/sh\nexit 101\n' > $$policy; chmod +x $$policy; }; \
	apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q install -y --no-install-recommends $$missing && \
	case "$$missing" in *frr*) update-rc.d frr disable ;; esac; }

venv: $(STAMP)

$(STAMP): setup.cfg pyproject.toml constraints/salt-$(SALT).txt constraints/check.txt
	@python3 -c 'import ensurepip, venv' 2>/dev/null || $(MAKE) --no-print-directory tools
	python3 -m venv $(VENV)
	$(PY) -m pip install -q -c constraints/salt-$(SALT).txt -c constraints/check.txt -e '.[tests,check]'
	@touch $@
