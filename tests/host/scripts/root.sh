#!/bin/bash
# root.sh OUT SUITE PACKAGES: the test host's root file system in OUT/root, and its kernel package in OUT/kernel.deb.
#
# The kernel is unpacked by image.sh instead of being installed: that leaves out initramfs-tools and its triggers.
set -euo pipefail
out=$1 suite=$2 packages=$3
kernel=linux-image-cloud-amd64
# The mirror of the machine we run on; only Debian's own archive will do.
mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' 'Label: Debian' 2>/dev/null | head -n 1 || true)
mirror=${mirror:-http://deb.debian.org/debian}

# The hook below runs while apt still knows the suite. The meta package names the current kernel package.
export out kernel
download='cd "$out"
    export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
    image=$(apt-cache depends "$kernel" | sed -n "s/.*Depends: \(linux-image-[^ ]*\)/\1/p")
    apt-get -q -o APT::Sandbox::User=root download "$image"
    mv linux-image-*.deb kernel.deb'

# essential: no init system, no apt. Documentation and translations would be a quarter of the image.
mmdebstrap --quiet --mode=root --variant=essential --format=directory \
    --include="$packages" \
    --aptopt='APT::Install-Recommends "false"' \
    --aptopt='Acquire::Languages "none"' \
    --dpkgopt='force-unsafe-io' \
    --dpkgopt='path-exclude=/usr/share/doc/*' \
    --dpkgopt='path-exclude=/usr/share/man/*' \
    --dpkgopt='path-exclude=/usr/share/info/*' \
    --dpkgopt='path-exclude=/usr/share/locale/*' \
    --dpkgopt='path-exclude=/usr/share/i18n/*' \
    --dpkgopt='path-exclude=/usr/share/zoneinfo/*' \
    --customize-hook="$download" \
    "$suite" "$out/root" "$mirror"
