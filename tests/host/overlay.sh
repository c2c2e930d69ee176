#!/bin/bash
# overlay.sh DIR INITRD OUT: OUT = INITRD with the files of DIR behind it, as /overlay.
set -euo pipefail
dir=$1 initrd=$2 out=$3
{
    cat "$initrd"
    (cd "$dir" && find overlay | cpio --quiet -o -H newc --owner 0:0)
} > "$out"
