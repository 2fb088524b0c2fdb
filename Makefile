# Everything runs in .venv, which `make` sets up by itself with python3 -m venv and pip.
export LC_ALL := C.UTF-8
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
DEMO   ?=
PORT   ?= 8080

.PHONY: setup demo test lint bench up format protos clean

setup: $(STAMP)

$(STAMP): pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

# The main job on real pictures; DEMO=folder takes yours.
demo: $(STAMP)
	$(BIN)/python demo.py $(if $(DEMO),"$(DEMO)")

test: $(STAMP)
	$(BIN)/python -m pytest -n 3 --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# What src/relens/rpc loads; after a change of a .proto.
protos: $(STAMP)
	cd src/relens/rpc/protos && $(abspath $(BIN)/python) -m grpc_tools.protoc -I . --include_imports \
		--descriptor_set_out=descriptors.binpb *.proto

bench: $(STAMP)
	$(BIN)/python -m bench

# A home in ./relens with the default models, served.
up: $(STAMP)
	$(BIN)/relens init
	$(BIN)/relens model fetch imagenet
	$(BIN)/relens up --port $(PORT)

clean:
	rm -rf $(VENV) build dist demo
