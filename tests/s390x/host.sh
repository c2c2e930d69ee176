# shellcheck shell=dash
# What an init of the emulated host begins with. What it writes to /run/output is on the disk at its end.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /run
mount -t tmpfs run /run
mount -t cgroup2 cgroup /sys/fs/cgroup

for module in /modules/*; do insmod "$module"; done
for disk in /sys/bus/ccw/drivers/dasd-fba/*/online; do echo 1 >"$disk"; done

save() { dd if=/run/output of=/dev/dasda bs=4096 conv=fsync 2>/dev/null; }

# Whoever gives up waiting has at least what there was.
while sleep 10; do save; done &
