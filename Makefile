# make run, make test: see README.md; the others: see CONTRIBUTING.md.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := build

# What `make run` runs in the container: as it was typed, for the shell there, and not for make.
CMD ?= echo "Hello from Linux $(uname -r) in a container of its own machine"
override CMD := $(value CMD)
export CMD

.PHONY: build programs install release deb run test test-unit test-host test-boot test-docker test-crash lint check check-s390x test-s390x bench shell clean clean-cache packages

# An installed runq, and a root directory to try it on: in target/payload.
build: programs
	tests/payload target/payload

# What is handed to users, for this machine, or another: make deb ARCH=s390x.
programs install release deb: packages
	@packaging/$@

install release deb: programs

run:
	@tests/run

test:
	@tests/all

test-unit test-host test-boot test-docker test-crash:
	@tests/all $(@:test-%=%)

lint: packages
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --features devices/testing -- -D warnings
	shellcheck -S warning kernel-config/{build,check,fetch-deb,initrd,stock} tests/{all,clean-cache,docker-packages,packages,payload,private-docker,reload-docker,run,shell,with-runq} \
		tests/env.sh tests/bench/{build-initrd,disk,docker,files,network,run,start} tests/s390x/{check,exits,guest,host,host.sh,machine.sh,release,root.sh,run,unit-tests.sh,units,units-host} tests/host/scripts/*.sh \
		packaging/{deb,install,machine.sh,mkcerts.sh,programs,release,version} .ci/run

check: lint test-unit

check-s390x:
	@tests/s390x/check
	@tests/s390x/units

test-s390x:
	@tests/s390x/run
	@tests/s390x/exits
	@tests/s390x/release
	@tests/s390x/run lean

bench: packages
	@tests/bench/run

shell: build
	cargo build -p testhost
	@tests/shell

packages:
	@tests/packages

# What was built in this clone.
clean:
	@. tests/env.sh; [ ! -x "$$testhost" ] || "$$testhost" down --all
	cargo clean

# The guest kernels, emulated hosts and toolchains of all clones.
clean-cache:
	@tests/clean-cache
