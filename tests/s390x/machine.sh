# shellcheck shell=bash disable=SC2154
# An s390x machine with KVM, which the Debian package hercules emulates, with Debian's own kernel in it: source it, behind root.sh.
# What it takes and says is in the directory $run.

# Debian with a kernel whose KVM runs there. Older ones are packed with xz, which takes minutes to unpack there.
suite=trixie
# How long it may run at most, in seconds, where other programs take most of the processor.
patience=${RUNQ_S390X_PATIENCE:-1200}
# Where the machine finds its initrd, above its kernel.
initrd_address=$((64 << 20))

# fetch: Debian's kernel, unpacked, as $kernel.
fetch() {
    local apt=$out/apt-$suite package
    mkdir -p "$apt"/{lists,archives}/partial
    : >"$apt/status"
    echo "deb $(mirror) $suite main" >"$apt/sources.list"
    cat >"$apt/apt.conf" <<CONF
APT { Architecture "s390x"; Architectures { "s390x"; }; Sandbox::User "root"; };
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
Dir {
    State "$apt"; State::lists "lists"; State::status "$apt/status";
    Cache "$apt"; Cache::archives "archives";
    Etc { SourceList "$apt/sources.list"; SourceParts "/dev/null"; };
};
CONF
    # Beside the apt of this machine.
    local -x APT_CONFIG=$apt/apt.conf
    if [ -z "$(find "$apt/updated" -mtime -7 2>/dev/null)" ]; then
        logged "$run/apt.log" apt-get update -o APT::Update::Error-Mode=any || return 75 # EX_TEMPFAIL of sysexits.h
        touch "$apt/updated"
    fi
    # The newest that is to be had: a mirror may have one in its list alone.
    for package in $(apt-cache pkgnames linux-image- | grep -E '^linux-image-[0-9].*-s390x$' | sort -rV); do
        kernel=$(kernel-config/stock --flavour s390x --package "$package") && return
    done
    echo "$0: this machine's mirror of Debian has no kernel of $suite for s390x: s390x is not tested: try later, or with another mirror" >&2
    return 75
}

# modules NAME...: the files of these modules of the kernel, and of those that they need, in the order of loading.
modules() {
    modprobe --dirname "$kernel" --set-version "$(<"$kernel/version")" --show-depends --all "$@" |
        sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++'
}

# tree DIRECTORY INIT MODULE...: what an initrd has: busybox, this init, and modules, which it finds in order in /modules.
tree() {
    local directory=$1 init=$2 file files='' number=10
    shift 2
    [ $# = 0 ] || files=$(modules "$@")
    mkdir -p "$directory"/{bin,dev,mnt,modules,proc,sys}
    cp "$chroot/usr/bin/busybox" "$directory/bin/busybox"
    install -m 755 "$init" "$directory/init"
    for file in $files; do
        xz -dcf "$file" >"$directory/modules/$number-$(basename "$file" .xz)"
        number=$((number + 1))
    done
}

# with_libraries PROGRAM DIRECTORY: a program of that Debian, and the libraries that its loader finds there.
with_libraries() {
    { echo "$1"; inside env LD_TRACE_LOADED_OBJECTS=1 qemu-s390x "$1" | grep -o '/[^ ]*'; } | sed 's,^/,,' |
        tar -C "$chroot" -hcT - | tar -C "$2" -x
}

pack() { (cd "$1" && find . -print0 | cpio -0 -o -H newc --quiet) >"$2"; }

# number N: 8 bytes.
number() { printf '%016x' "$1" | xxd -r -p; }

# The emulated machine: its kernel with an initrd and a command line, and a disk that its init writes to.
machine() {
    cp "$kernel/vmlinuz" "$run/kernel"
    number "$initrd_address" >"$run/initrd.address"
    number "$(stat -c %s "$run/initrd")" >"$run/initrd.size"
    # Tests of ciphers and signatures, and the keys that modules are signed by, would take half of each boot.
    printf 'console=sclp0 nokaslr quiet loglevel=4 cryptomgr.notests initcall_blacklist=%s\0' \
        load_system_certificate_list,fips_signature_selftest_init >"$run/parameters"
    rm -f "$run/disk"
    truncate -s 4M "$run/disk"
    cat >"$run/machine.conf" <<'CONF'
CPUMODEL 2097
MAINSIZE 1024
NUMCPU 1
ARCHMODE ESAME
OSTAILOR LINUX
PANRATE SLOW
0009 3215-C
0200 9336 disk
CONF
    # With a file system, where one was made.
    [ ! -f "$run/files" ] || echo '0201 9336 files' >>"$run/machine.conf"
    cat >"$run/kernel.ins" <<CONF
* from this directory
kernel 0x00000000
initrd.address 0x00010408
initrd.size 0x00010410
parameters 0x00010480
initrd $(printf '0x%08x' "$initrd_address")
CONF
    # A probe of an instruction is no news.
    printf 'pgmtrace -%s\n' 1 6 10 11 >"$run/start"
    echo 'ipl kernel.ins' >>"$run/start"
}

# emulate: runs it until its init says that it is done. It does not end by itself.
emulate() {
    local pid status=1 deadline=$((SECONDS + patience))
    rm -f "$run/input"
    mkfifo "$run/input"
    (cd "$run" && HERCULES_RC=start exec hercules -d -f machine.conf) <>"$run/input" >"$run/console" 2>&1 &
    pid=$!
    # shellcheck disable=SC2064
    trap "kill -9 $pid" EXIT
    while kill -0 "$pid" 2>/dev/null && ((SECONDS < deadline)); do
        if grep -qa '^host: done' "$run/disk"; then
            status=0
            break
        fi
        sleep 1
    done
    trap - EXIT
    kill -9 "$pid" 2>/dev/null
    wait "$pid" 2>/dev/null
    return "$status"
}

# boot_machine: boots it with what is in $run/host, and has what its init wrote in $run/output.
boot_machine() {
    pack "$run/host" "$run/initrd"
    machine
    echo "s390x: booting ($SECONDS s)" >&2
    # One at a time.
    exec 8>"$out/run-lock"
    flock 8
    emulate || { tail -n 20 "$run/console"; echo "$0: the emulated host came to no end, see $run/console" >&2; return 1; }
    flock -u 8
    tr -d '\0' <"$run/disk" >"$run/output"
}

packages hercules cpio xxd xz-utils kmod
mkdir -p "$run"
