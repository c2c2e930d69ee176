#!/bin/bash
# Brings the test host up; run once by init, before the host is saved. Kernel option testhost.docker=0: without Docker.
set -euo pipefail
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
exec < /dev/null > /dev/console 2>&1
trap 'echo "testhost: boot failed at line $LINENO: $BASH_COMMAND"' ERR

mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm /opt/runq
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=755 run /run
mount -t tmpfs -o mode=1777 tmp /tmp
mount -t cgroup2 cgroup /sys/fs/cgroup
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
ln -sfn /proc/self/fd /dev/fd
ln -sfn /proc/self/fd/0 /dev/stdin
ln -sfn /proc/self/fd/1 /dev/stdout
ln -sfn /proc/self/fd/2 /dev/stderr

# Docker asks its own group what the kernel can limit; the root group has no files for that.
mkdir /sys/fs/cgroup/init
echo $$ > /sys/fs/cgroup/init/cgroup.procs
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control
done

hostname testhost
echo "127.0.0.1 localhost testhost" > /etc/hosts
ulimit -n 65536
modprobe -a virtio_net vhost_vsock vhost_net macvtap tun overlay veth bridge
modprobe kvm_amd nested=1
# A VM that stays. For the first VM KVM patches the scheduler, and back after the last (the static key of its preempt
# notifiers); QEMU's other CPU may still run the patch's breakpoint then, and the host dies of an unexpected int3.
perl -e 'open($kvm, "+<", "/dev/kvm") && ioctl($kvm, 0xae01, 0) or die "KVM_CREATE_VM: $!"; exit if fork; sleep'
ip link set lo up
ip addr add 10.0.2.15/24 dev eth0
ip link set eth0 up
ip route add default via 10.0.2.2
echo 1 > /proc/sys/net/ipv4/ip_forward

# `start` waits for sd_notify(3)'s READY=1: each of these answers when the next line runs.
hostagent start /var/log/hostagent.log hostagent serve 7000
if ! grep -qw testhost.docker=0 /proc/cmdline; then
    hostagent start /var/log/containerd.log containerd
    hostagent start /var/log/dockerd.log dockerd --containerd=/run/containerd/containerd.sock
    # The image for tests: busybox with a link for each of its commands. One run warms what every run reads.
    mkdir -p /run/busybox/bin
    cp /bin/busybox /run/busybox/bin/
    chroot /run/busybox /bin/busybox --install -s /bin
    tar -c -C /run/busybox . | docker import --change 'CMD ["sh"]' - busybox
    docker run --rm busybox true
    rm -rf /run/busybox
fi
sync
# `testhost` waits for this line.
echo "testhost: ready after $(cut -d' ' -f1 /proc/uptime) s"
