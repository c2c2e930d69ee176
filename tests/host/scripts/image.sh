#!/bin/bash
# image.sh OUT INIT: from root.sh's OUT/root and OUT/kernel.deb to what QEMU boots: OUT/vmlinuz, OUT/initrd,
# OUT/root.ext4; QEMU itself: OUT/qemu; and OUT/versions, one `name version` a line. INIT becomes the initrd's /init.
set -euo pipefail
out=$1 init=$2
root=$out/root

# Debian 13's kernel packages hold usr/lib/modules; lib is a link in the root.
dpkg-deb --fsys-tarfile "$out/kernel.deb" | tar -x -C "$root" --keep-directory-symlink ./boot ./usr/lib/modules
version=$(ls "$root/usr/lib/modules")
depmod -b "$root" "$version"
mv "$root/boot/vmlinuz-$version" "$out/vmlinuz"

{
    echo "debian $(cat "$root/etc/debian_version")"
    echo "kernel $version $(dpkg-deb -f "$out/kernel.deb" Version)"
    dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${Package} ${Version}\n' \
        docker.io containerd runc qemu-system-x86
} > "$out/versions"

# The initrd: busybox, /init and the modules that reach the disk, in the order of loading.
initrd=$out/initrd.d
mkdir -p "$initrd"/{bin,dev,root,modules}
cp "$root/bin/busybox" "$initrd/bin/"
install -m 755 "$init" "$initrd/init"
modprobe -d "$root" -S "$version" --show-depends virtio_blk | sed -n 's/^insmod \([^ ]*\).*/\1/p' |
    while read -r module; do
        name=$(basename "$module" .xz)
        xz -dc "$module" > "$initrd/modules/$name"
        echo "$name" >> "$initrd/modules/order"
    done
(cd "$initrd" && find . | cpio --quiet -o -H newc | gzip -1) > "$out/initrd"

# The image's own QEMU runs it, with its own libraries: under Debian 12's 7.2 hosts died of code that had just been patched
# far more often, and guests took half as long again to boot.
qemu=$out/qemu
lib=$root/usr/lib/x86_64-linux-gnu
mkdir "$qemu"
cp "$root/usr/bin/qemu-system-x86_64" "$lib/ld-linux-x86-64.so.2" "$qemu/"
cp "$root"/usr/share/seabios/bios-256k.bin "$root"/usr/share/qemu/{kvmvapic,linuxboot_dma}.bin "$qemu/"
"$qemu/ld-linux-x86-64.so.2" --library-path "$lib" --list "$qemu/qemu-system-x86_64" |
    sed -n "s|.* => \($lib/.*\) (.*|\1|p" | xargs -d '\n' cp -t "$qemu"
cat > "$qemu/run" << 'END'
#!/bin/sh
dir=${0%/*}
exec "$dir/ld-linux-x86-64.so.2" --library-path "$dir" "$dir/qemu-system-x86_64" -L "$dir" "$@"
END
chmod +x "$qemu/run"
sync "$qemu"/*

# Sparse: 8 GB is room for tests, not what it takes. No journal: the disk is thrown away anyway.
truncate -s 8G "$out/root.ext4"
mke2fs -q -t ext4 -O ^has_journal -E lazy_itable_init=1,nodiscard -d "$root" "$out/root.ext4"
rm -rf "$root" "$initrd" "$out/kernel.deb"
