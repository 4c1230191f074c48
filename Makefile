# Every target does its own set-up, in .venv; nothing touches the system Python.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# The wheel that is tested lies beside the interpreter it was built for.
WHEELS := $(VENV)/dist
# PyO3's build script asks this interpreter for the ABI to build against.
export PYO3_PYTHON := $(abspath $(BIN)/python)

SOURCES := Cargo.toml Cargo.lock pyproject.toml README.md LICENSE \
	$(shell find src python -type f -not -name '*.pyc' -not -name '*.so')

.PHONY: run test test-rust test-python lint bench check clean develop format fuzz

# Start the demo: a service under load, and a page that shows it; Ctrl-C stops it.
run: $(VENV)/.installed
	$(BIN)/python -m mtaio demo

test: test-rust test-python

test-rust: $(VENV)/.ready
	cargo test --locked --no-default-features
	cargo test --locked --no-default-features --features loom --lib loom_

# Runs against the installed wheel: `python/` is not on the path.
test-python: $(VENV)/.installed
	.ci/browser
	$(BIN)/python -m pytest

lint: $(VENV)/.installed
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	cargo clippy --locked --all-targets --no-default-features -- -D warnings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest mtaio._rust \
		--allowlist tests/typing/stubtest.txt
	$(BIN)/zizmor --quiet --offline --pedantic .github
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.dependabot .github/dependabot.yml

check: lint test

# Ratios against the peers; see benches/README.md.
bench: $(VENV)/.bench
	cargo bench --locked --no-default-features
	$(BIN)/python benches/compare.py

# Random damage for what reads foreign bytes, SECONDS for each target.
SECONDS ?= 60
fuzz:
	cd tests/fuzz && for target in targets/*.rs; do \
		cargo run --release --target host-tuple --bin $$(basename $$target .rs) \
			-- -max_total_time=$(SECONDS) -max_len=4096 || exit 1; done

format: $(VENV)/.ready
	cargo fmt
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The quick loop while editing: an editable, unoptimised build.
develop: $(VENV)/.ready
	rm -f $(VENV)/.installed
	VIRTUAL_ENV=$(abspath $(VENV)) $(BIN)/maturin develop

clean:
	cargo clean
	rm -rf $(VENV) dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis

# A venv whose pip does not run (ensurepip missing, Python upgraded) is made anew.
$(VENV)/.ready: pyproject.toml .ci/extras.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python >= 3.11 is needed: make PYTHON=python3.12 ...")'
	@command -v cargo >/dev/null || { echo "cargo is needed, with Rust >= 1.95: see https://rustup.rs" >&2; exit 1; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python .ci/extras.py dev | xargs $(BIN)/python -m pip install --quiet
	touch $@

$(VENV)/.installed: $(VENV)/.ready $(SOURCES)
	rm -rf $(WHEELS)
	$(BIN)/maturin build --release --locked --quiet --out $(WHEELS) --interpreter $(BIN)/python
	$(BIN)/python -m pip install --quiet --force-reinstall --no-deps $(WHEELS)/*.whl
	touch $@

$(VENV)/.bench: $(VENV)/.installed benches/requirements.txt
	$(BIN)/python -m pip install --quiet -r benches/requirements.txt
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/mtaio-0.1.0 mtaio==0.1.0
	touch $@
