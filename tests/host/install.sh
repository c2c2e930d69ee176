#!/bin/sh
# Installs the Debian packages that `testhost` needs on the machine that runs it (Debian 12 or 13, root).
set -eu
packages='qemu-utils mmdebstrap e2fsprogs cpio kmod xz-utils'
missing=
for package in $packages; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
export DEBIAN_FRONTEND=noninteractive
apt-get -q -o DPkg::Lock::Timeout=600 update
# shellcheck disable=SC2086 # a list of words on purpose
apt-get -q -o DPkg::Lock::Timeout=600 install -y --no-install-recommends $missing
