# make run, make test: see README.md; the others: see CONTRIBUTING.md.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := build

CMD ?= echo "Hello from Linux $$(uname -r) in a virtual machine of its own"

# Programs of guest and container are static: nothing there is for them to link with.
TRIPLE := x86_64-unknown-linux-gnu
STATIC := RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --target $(TRIPLE)
STATIC_DIR := target/$(TRIPLE)/release

# What runs in the emulated host, or directly: the same files at the same relative places.
PAYLOAD := target/payload
TESTHOST := target/release/testhost
TEST_BINARIES := boot assembly

.PHONY: build run test check test-unit test-boot test-host bench shell clean packages binaries \
	kernel payload payload-tests testhost

build: payload

## What the build needs of Debian
packages:
	@tests/packages

binaries: packages
	$(STATIC) -p vmm -p guest-init

kernel: packages
	kernel-config/build >/dev/null

## A directory that has everything to run a command
payload: binaries kernel
	tests/payload $(PAYLOAD)

testhost: packages
	cargo build --release -p tests --bin testhost

run: payload testhost
	@tests/run '$(CMD)'

## Tests
test: packages
	@tests/all

check: packages
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	cargo test --workspace

shell: payload testhost
	$(TESTHOST) run --payload $(PAYLOAD) -- true
clean:
	[ ! -x $(TESTHOST) ] || $(TESTHOST) clean
	cargo clean
