#!/bin/bash
# overlay.sh DIR INITRD OUT: OUT = INITRD with the files of DIR behind it, as /overlay.
set -euo pipefail
dir=$1 initrd=$2 out=$3
{
    cat "$initrd"
    # An archive has to begin at a multiple of 4: elsewhere the kernel takes it for a compressed one
    # (Linux, early-userspace/buffer-format.rst).
    head -c $((-$(stat -Lc %s "$initrd") & 3)) /dev/zero
    (cd "$dir" && find overlay | cpio --quiet -o -H newc --owner 0:0)
} > "$out"
