# make run, make test: see README.md; the others: see CONTRIBUTING.md.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

# What `make run` runs in the container.
CMD ?= echo "Hello from Linux $$(uname -r) in a container of its own machine"
export CMD

PAYLOAD := target/payload
TESTHOST := target/x86_64-unknown-linux-gnu/debug/testhost

.PHONY: build install release deb run test test-unit test-host test-boot test-docker lint check bench shell clean packages testhost

# An installed runq, and what tests need: below $(PAYLOAD).
build: packages
	cargo build --release -p vmm -p guest-init -p runtime --bin runq-vmm --bin init --bin runq --bin proxy
	kernel-config/build >/dev/null
	tests/payload $(PAYLOAD)

install: build
	@packaging/install

release deb: build
	@packaging/$@

run: build
	@tests/run

test: packages
	@tests/all

test-unit test-host test-boot test-docker: packages
	@tests/all $(@:test-%=%)

lint: packages
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --features devices/testing -- -D warnings
	shellcheck -S warning kernel-config/{build,check,fetch-deb,initrd,stock} tests/{all,docker-packages,packages,payload,private-docker,reload-docker,run,shell,with-runq} \
		tests/bench/{build-initrd,docker,run} tests/host/*.sh \
		packaging/{install,version,release,deb} .ci/run

check: lint test-unit

bench: packages
	@tests/bench/run

testhost: packages
	cargo build -p tests --bin testhost

shell: build testhost
	@tests/shell

packages:
	@tests/packages

clean:
	[ ! -x $(TESTHOST) ] || $(TESTHOST) clean
	cargo clean
