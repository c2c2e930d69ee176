# make run, make test: see README.md; the others: see CONTRIBUTING.md.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

# What `make run` runs in the guest.
CMD ?= echo "Hello from Linux $$(uname -r) in a virtual machine of its own"
export CMD

PAYLOAD := target/payload
TESTHOST := target/x86_64-unknown-linux-gnu/release/testhost

.PHONY: build run test test-unit test-host test-boot lint check bench shell clean packages testhost

# What a guest needs, and the monitor: below $(PAYLOAD).
build: packages
	cargo build --release -p vmm -p guest-init --bin runq-vmm --bin init
	kernel-config/build >/dev/null
	tests/payload $(PAYLOAD)

run: build
	@tests/run

test: packages
	@tests/all

test-unit test-host test-boot: packages
	@tests/all $(@:test-%=%)

lint: packages
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --features devices/testing -- -D warnings
	shellcheck -S warning kernel-config/{build,check,fetch-deb,initrd,stock} tests/{all,packages,payload,run,shell} \
		tests/bench/{build-initrd,run} tests/host/*.sh .ci/run

check: lint test-unit

bench: packages
	@tests/bench/run

testhost: packages
	cargo build --release -p tests --bin testhost

shell: build testhost
	@tests/shell

packages:
	@tests/packages

clean:
	[ ! -x $(TESTHOST) ] || $(TESTHOST) clean
	cargo clean
