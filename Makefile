# Everything runs on a bare machine with Python 3.11: each target installs what it needs first.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test test-cluster cluster cluster-down lint image bench locks clean

VENV := .venv/bin
SOURCES := platform/sunup functions features examples tests
COMPILE := $(VENV)/uv pip compile --quiet --python-version 3.11 --no-emit-index-url --generate-hashes --no-header

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## make .venv and install what Sunup needs
	@infra/setup.sh cpu

setup-dev:
	@infra/setup.sh dev

demo: setup ## the whole story on this machine: train, register, deploy, score, to zero and back
	@$(VENV)/python -m examples.demo

test: setup-dev ## every check and every test
	@infra/redis.sh
	@infra/postgres.sh
	@infra/nginx.sh
	@infra/systemd.sh
	@infra/registry.sh
	@infra/kafka.sh fetch --install >/dev/null
	@$(MAKE) --no-print-directory lint
	@$(VENV)/python -m pytest -n 2 --dist loadfile

test-cluster: setup-dev ## the tests on a real Kubernetes with Knative and KEDA (as root, with Go)
	@infra/redis.sh
	@infra/kafka.sh fetch --install >/dev/null
	@infra/cluster/build.sh >/dev/null || [ "$$CI" != true ] # without it the tests skip, and say why
	@$(VENV)/python -m pytest tests/cluster

cluster: setup-dev ## start that Kubernetes, and say where it is; enter it with infra/cluster/enter.sh
	@infra/cluster/up.sh

cluster-down: ## end it
	@infra/cluster/down.sh

lint: setup-dev ## style and types
	@$(VENV)/ruff check $(SOURCES)
	@$(VENV)/ruff format --check $(SOURCES)
	@$(VENV)/mypy

image: setup ## the container image that worker pods run: make image ARGS="--push registry.example.com/ml"
	@$(VENV)/platform image build $(ARGS)

bench: setup-dev ## one benchmark: make bench BENCH=warm-rest
	@infra/redis.sh
	@infra/postgres.sh
	@infra/bench.sh
	@$(VENV)/python -m tests.bench $(BENCH)

locks: setup-dev ## resolve infra/requirements again from pyproject.toml
	@$(COMPILE) infra/requirements/uv.in -o infra/requirements/uv.txt
	@$(COMPILE) --extra cpu --extra deploy --extra kubernetes --extra postgres --extra kafka-fast --extra avro --extra dev --extra catboost --extra otel pyproject.toml -o infra/requirements/dev.txt
	@$(COMPILE) --extra cpu --extra deploy --extra kubernetes --extra postgres -c infra/requirements/dev.txt pyproject.toml -o infra/requirements/cpu.txt
	@$(COMPILE) --extra gpu --extra deploy --extra kubernetes --extra postgres -c infra/requirements/dev.txt pyproject.toml -o infra/requirements/gpu.txt
	@$(COMPILE) -c infra/requirements/dev.txt pyproject.toml -o infra/requirements/base.txt
	@$(COMPILE) --extra cpu --extra kafka-fast --extra avro --extra postgres --extra otel -c infra/requirements/dev.txt pyproject.toml -o infra/requirements/image.txt

clean: ## remove .venv, the project's state and caches (a running engine is stopped first)
	@if [ -x $(VENV)/platform ] && [ -d .sunup ]; then $(VENV)/platform down; fi
	@rm -rf .venv .sunup .mypy_cache .ruff_cache .pytest_cache
