# shellcheck shell=bash disable=SC2034,SC2154
# The machine that the scripts here work for, of the name that is in ARCH, or else this one: source it, behind tests/env.sh.

machine=${ARCH:-$(uname -m)}
kernel=$root/target/kernel/lean
case $machine in
"$(uname -m)") ;;
s390x)
    # Where tests/s390x/root.sh has it compiled.
    release=$root/target/s390x/s390x-unknown-linux-gnu/release
    kernel=$root/target/kernel/s390x-lean ;;
*)
    echo "$0: ARCH=$machine: unknown; x86_64 and s390x are known" >&2
    exit 1 ;;
esac
