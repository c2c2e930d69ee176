# shellcheck shell=bash disable=SC2034
# What scripts share: source it. Paths are absolute, so that a script may run anywhere.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# The target that .cargo/config.toml chooses: below its name are the programs, those that are released and those for tests.
triple=$(sed -n 's/^target = "\(.*\)"$/\1/p' "$root/.cargo/config.toml")
release=$root/target/$triple/release
testhost=$root/target/$triple/debug/testhost
# What cargo builds of what is released.
programs=(--release -p vmm -p guest-init -p runtime --bin runq-vmm --bin init --bin runq --bin proxy --bin runq-exec)
# What takes long to build, for all clones on this machine. tests/host/src/cache.rs has the same place and rules.
cache=$(realpath -m "${RUNQ_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/runq}")

# Whether this machine runs Linux guests itself. Some /dev/kvm have no processor behind them: the flags count.
hardware_kvm() { grep -qwE 'vmx|svm' /proc/cpuinfo && [ -w /dev/kvm ]; }

# logged FILE COMMAND...: runs a command with its output in a file, whose end is shown if the command fails.
logged() {
    local log=$1 status=0
    mkdir -p "${log%/*}"
    "${@:2}" >"$log" 2>&1 || status=$?
    [ "$status" = 0 ] || { tail -n 20 "$log"; echo "$0: $2 failed (exit code $status), the whole output: $log"; } >&2
    return "$status"
}

# packages PACKAGE...: installs those of these Debian packages that are missing.
packages() {
    local package missing=()
    for package; do
        dpkg-query -W -f '${db:Status-Status}\n' "$package" 2>&1 | grep -qx installed || missing+=("$package")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    [ "$(id -u)" = 0 ] || { echo "$0: please install, as root: ${missing[*]}" >&2; return 1; }
    echo "Installing Debian packages: ${missing[*]}" >&2
    apt update && apt install -y --no-install-recommends "${missing[@]}"
}

apt() { DEBIAN_FRONTEND=noninteractive logged "$root/target/apt-$1.log" apt-get -o DPkg::Lock::Timeout=600 "$@"; }

# What kernel-config/build needs.
kernel_packages=(gcc make patch flex bison bc libelf-dev libc6-dev xz-utils kmod)

# evict KEPT DIRECTORY PATTERN: removes entries of a cache, those of one kind: what was not used for 30 days, and all but
# the last used few; but nothing that was used within the hour, because somebody may be about to read it.
evict() {
    local rank=0 unused time path
    while IFS=' ' read -r -d '' time path; do
        unused=$((EPOCHSECONDS - ${time%.*}))
        if ((unused > 30 * 86400 || (rank >= $1 && unused > 3600))); then rm -rf "$path"; fi
        rank=$((rank + 1))
    done < <(find "$2" -maxdepth 1 -name "$3" -printf '%T@ %p\0' | sort -zrn)
}

# use ENTRY NAME: notes that a kernel of the cache is used, links it as target/kernel/NAME of this clone, and prints it.
use() {
    touch "$1"
    mkdir -p "$root/target/kernel"
    ln -sfn "$1" "$root/target/kernel/.$2.$$" && mv -T "$root/target/kernel/.$2.$$" "$root/target/kernel/$2"
    echo "$1"
}
