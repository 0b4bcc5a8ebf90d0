# Two commands are the whole set-up: `make demo`, `make test`. Both make .venv and install what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test test-pauses test-long hil deb image bench lint setup peers image-tools clean

demo: $(STAMP)
	$(BIN)/dicom-gateway demo

# Three at once for two processors: half of the time a story waits for a deadline or a peer. What has nothing left to do
# takes from the others, so that what waits runs beside what computes.
test: $(STAMP) peers image-tools lint
	$(BIN)/pytest -n 3 --dist worksteal -m "not long"

# The same on a machine that seems to pause: see tests/pauses.py; SEED chooses where. An emulated box is left out, since a
# second that its emulator stands still is none for it.
test-pauses: $(STAMP) peers
	$(BIN)/python -m tests.pauses -n 5 --dist worksteal -m "not long" --ignore tests/image

# First what Hypothesis has not tried yet; then hours. Each row that passes is written to tests/crash/REPORT.md and not run
# again for the same commit, so that an interrupted run goes on; SOAK is in seconds, tests/crash/campaign.py names what else can be set.
test-long: export SOAK ?= 600
test-long: $(STAMP) peers image-tools
	$(BIN)/pytest -m hypothesis --hypothesis-profile=new
	$(BIN)/pytest -m long

# TARGET is process, qemu, or HOST:PORT of a box with RIG=rig.toml; CASE, SEED, SPEED_UP, DAY_SPEED, OUT, SHORT=1 and RECORD=1 as in
# tests/hil/README.md.
hil: TARGET ?= process
hil: $(STAMP) peers $(if $(filter qemu,$(TARGET)),image-tools)
	$(BIN)/python -m tests.hil --target $(TARGET) $(RIG:%=--rig %) $(CASE:%=--case '%') $(SEED:%=--seed %) \
	    $(SPEED_UP:%=--speed-up %) $(DAY_SPEED:%=--day-speed %) $(OUT:%=--out %) $(if $(SHORT),--short) $(if $(RECORD),--record)

# ARCH=arm64 for a Raspberry Pi, TARGET_PYTHON=3.13 for Debian 13; any machine builds for any other. See systemd/deb.py.
deb: ARCH ?= amd64
deb: TARGET_PYTHON ?= 3.11
deb: $(STAMP)
	$(BIN)/python systemd/deb.py --arch $(ARCH) --python $(TARGET_PYTHON)

# ARCH=arm64 for a Raspberry Pi; VERSION, KEYS and OUT as in image/README.md.
image: ARCH ?= amd64
image: $(STAMP) image-tools
	$(BIN)/python -m image.build --arch $(ARCH) $(VERSION:%=--version %) $(KEYS:%=--keys %) $(OUT:%=--out %)

bench: $(STAMP) peers
	$(BIN)/python tests/bench/run.py

lint: $(STAMP)
	$(BIN)/ruff format --check gateway tests systemd image
	$(BIN)/ruff check gateway tests systemd image
	$(BIN)/mypy --strict -p gateway

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml .ci/setup
	.ci/setup python
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $(STAMP)

peers:
	.ci/setup peers

image-tools:
	.ci/setup $(if $(filter arm64,$(ARCH)),image-arm64,image)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
