# shellcheck shell=bash disable=SC2034,SC2154
# What the scripts for s390x share: source it, behind tests/env.sh. A Debian of its own, which stays in the cache: compiler
# and standard library have to be of one release, and Debian has such a pair for s390x.

# Those with Rust of our edition, in the order of choice: a mirror may have one of them in halves.
suites=(trixie-backports forky sid)
# libcap-ng is for the crate capng; the last three are what runs in the emulated host.
toolchain=(rustc cargo rust-clippy gcc libc6-dev gcc-s390x-linux-gnu libc6-dev-s390x-cross qemu-user
    libstd-rust-dev:s390x libcap-ng-dev:s390x busybox-static:s390x crun:s390x iptables:s390x)

s390x='s390x-unknown-linux-gnu'
out=$cache/s390x
log=$root/target/s390x-root.log

# Only Debian's own archive will do: the mirror of the machine we run on.
mirror() { apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Label: Debian' | sort -u | head -n 1; }

# make_root SUITE DIRECTORY: a Debian with the toolchain.
make_root() {
    local release=${1%-backports} sources=() options=()
    sources+=("deb $mirror $release main")
    if [ "$release" != "$1" ]; then
        sources+=("deb $mirror $1 main")
        options+=(--aptopt="APT::Default-Release \"$1\"")
    else
        # A mirror that stands still for weeks serves what has run out by date; what is signed is checked all the same.
        options+=(--aptopt='Acquire::Check-Valid-Until "false"')
    fi
    # A root that was left half-made has no mounts either: those of mmdebstrap are seen by nobody else.
    rm -rf --one-file-system "$2"
    unshare -m --propagation private mmdebstrap --mode=root --variant=apt --format=directory --architectures=amd64,s390x \
        --include="${toolchain[*]}" \
        --aptopt='APT::Install-Recommends "false"' \
        --aptopt='Acquire::Languages "none"' \
        --dpkgopt='force-unsafe-io' \
        --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --dpkgopt='path-exclude=/usr/share/man/*' \
        "${options[@]}" "$release" "$2" "${sources[@]}" &&
        mkdir "$2/src" "$2/cargo" "$2/cargo/registry"
}

# The first suite that this machine's mirror has whole.
make_any_root() {
    local suite
    packages mmdebstrap || return
    mirror=$(mirror)
    [ -n "$mirror" ] || { echo "$0: apt knows no mirror of Debian: add one to its sources" >&2; return 1; }
    for suite in "${suites[@]}"; do
        echo "s390x: building the Debian $suite that it is compiled in ($SECONDS s)" >&2
        if logged "$log" make_root "$suite" "$out/unfinished"; then
            mv -T "$out/unfinished" "$chroot"
            evict 2 "$out" 'root-*'
            return
        fi
    done
    echo "$0: this machine's mirror of Debian has none of ${suites[*]}: s390x is not tested: try later, or with another mirror" >&2
    return 75 # EX_TEMPFAIL of sysexits.h
}

# inside COMMAND...: in that Debian, with this clone as /src, in mount namespaces of its own, so that no mount is left.
inside() {
    # shellcheck disable=SC2016
    unshare -m --propagation private bash -c '
        set -euo pipefail
        chroot=$1 root=$2 registry=$3
        shift 3
        mount -t proc proc "$chroot/proc"
        mount --rbind /dev "$chroot/dev"
        mount --rbind /sys "$chroot/sys"
        mount -t tmpfs -o mode=1777 tmp "$chroot/tmp"
        mount --bind "$root" "$chroot/src"
        mount --bind "$registry" "$chroot/cargo/registry"
        exec env -i -C / PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root CARGO_HOME=/cargo CARGO_NET_OFFLINE=true \
            CARGO_TARGET_DIR=/src/target/s390x chroot "$chroot" sh -c "cd /src && exec \"\$@\"" sh "$@"
    ' bash "$chroot" "$root" "${CARGO_HOME:-$HOME/.cargo}/registry" "$@"
}

[ "$(id -u)" = 0 ] || { echo "$0: chroot(2) and mount(2) are for root: run this as root" >&2; exit 1; }
hash=$(declare -p suites toolchain | cat - <(declare -f make_root) | sha256sum | cut -c1-12)
chroot=$out/root-$hash
mkdir -p "$out"
# One is built at a time, and none goes while it is used; who waited for an equal one finds it.
exec 9>"$out/lock"
if [ ! -d "$chroot" ]; then
    flock 9
    [ -d "$chroot" ] || make_any_root || exit
fi
flock -s 9
touch "$chroot"

