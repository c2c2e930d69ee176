// The /init of kernel-config/check: loads /modules in order, then tries what a
// container may need of the guest's kernel. One line for each failure, and at
// last CHECK-OK or CHECK-FAILED.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/bpf.h>
#include <linux/if_alg.h>
#include <linux/if_tun.h>
#include <linux/netfilter_ipv4/ip_tables.h>
#include <linux/netfilter_ipv6/ip6_tables.h>
#include <linux/rtnetlink.h>
#include <linux/seccomp.h>
#include <linux/vm_sockets.h>
#include <mqueue.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/msg.h>
#include <sys/reboot.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#ifndef CLONE_NEWTIME
#define CLONE_NEWTIME 0x80
#endif

static int failures;

// Counts a failure unless `ok`; errno tells why.
static void expect(int ok, const char *format, ...)
{
	int error = errno;
	va_list args;

	if (ok)
		return;
	failures++;
	printf("CHECK: no ");
	va_start(args, format);
	vprintf(format, args);
	va_end(args);
	printf(" (%s)\n", strerror(error));
}

static int contains(const char *path, const char *word)
{
	static char text[65536];
	int fd = open(path, O_RDONLY), got, all = 0;
	char *at;

	errno = ENOENT;
	if (fd < 0)
		return 0;
	while ((got = read(fd, text + all, sizeof(text) - 1 - all)) > 0)
		all += got;
	close(fd);
	text[all] = 0;
	for (at = text; (at = strstr(at, word)); at++) {
		char before = at == text ? ' ' : at[-1], after = at[strlen(word)];

		if (strchr(" \t\n", before) && (!after || strchr(" \t\n", after)))
			return 1;
	}
	return 0;
}

static int load_module(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int error = fd < 0 ? -1 : syscall(SYS_finit_module, fd, "", 0);

	if (fd >= 0)
		close(fd);
	// ENODEV: the module serves a CPU feature that this CPU lacks.
	return error == 0 || errno == EEXIST || errno == ENODEV;
}

// Loads what the file `order` in a folder lists, dependencies first; how many that are.
static int load_modules(const char *folder)
{
	char name[128], path[160];
	FILE *order;
	int count = 0;

	snprintf(path, sizeof(path), "%s/order", folder);
	order = fopen(path, "r");
	while (order && fscanf(order, "%127s", name) == 1) {
		snprintf(path, sizeof(path), "%s/%s", folder, name);
		expect(load_module(path), "%s", path);
		count++;
	}
	return count;
}

static void mount_all(void)
{
	static const char *const mounts[][3] = {
		{ "proc", "/proc", "" },
		{ "sysfs", "/sys", "" },
		{ "devtmpfs", "/dev", "" },
		{ "devpts", "/dev/pts", "newinstance,ptmxmode=0666" },
		{ "mqueue", "/dev/mqueue", "" },
		{ "cgroup2", "/sys/fs/cgroup", "" },
		{ "tmpfs", "/tmp", "size=8m,mode=1777" },
	};

	for (unsigned int i = 0; i < sizeof(mounts) / sizeof(*mounts); i++) {
		mkdir(mounts[i][1], 0755);
		expect(!mount("none", mounts[i][1], mounts[i][0], 0, mounts[i][2]),
		       "%s on %s", mounts[i][0], mounts[i][1]);
	}
}

static void check_devices(void)
{
	static const char *const paths[] = {
		"/dev/vda", "/dev/hwrng", "/dev/hvc0", "/dev/vsock", "/dev/fuse", "/dev/net/tun",
		"/sys/class/net/eth0", "/sys/class/net/lo",
	};

	for (unsigned int i = 0; i < sizeof(paths) / sizeof(*paths); i++)
		expect(!access(paths[i], F_OK), "%s", paths[i]);
}

static void check_filesystems(int full)
{
	static const char *const all[] = {
		"ext4", "overlay", "fuse", "virtiofs", "9p", "ext2", "ext3", "autofs",
		"hugetlbfs", "binfmt_misc",
	};

	for (unsigned int i = 0; i < (full ? sizeof(all) / sizeof(*all) : 4); i++)
		expect(contains("/proc/filesystems", all[i]), "file system %s", all[i]);
	mkdir("/tmp/disk", 0755);
	expect(!mount("/dev/vda", "/tmp/disk", "ext4", 0, ""), "ext4 on /dev/vda");
	mkdir("/tmp/share", 0755);
	if (full)
		expect(!mount("check", "/tmp/share", "9p", 0,
			      "trans=virtio,version=9p2000.L,posixacl,cache=fscache"),
		       "9p with ACL and fscache");
	mkdir("/tmp/a", 0755);
	mkdir("/tmp/b", 0755);
	mkdir("/tmp/c", 0755);
	expect(!mount("overlay", "/tmp/c", "overlay", 0, "lowerdir=/tmp/disk,upperdir=/tmp/a,workdir=/tmp/b"),
	       "overlay mount");
	expect(!setxattr("/tmp/a", "trusted.check", "1", 1, 0), "extended attributes on tmpfs");
	// posix_acl_xattr: version 2, then user::rwx group::rwx other::rwx.
	expect(!setxattr("/tmp/a", "system.posix_acl_access",
			 "\2\0\0\0\1\0\7\0\377\377\377\377\4\0\7\0\377\377\377\377 \0\7\0\377\377\377\377", 28, 0),
	       "ACL on tmpfs");
}

static void check_namespaces(void)
{
	static const struct {
		const char *name;
		int flag;
	} spaces[] = {
		{ "mnt", CLONE_NEWNS },	  { "pid", CLONE_NEWPID },   { "ipc", CLONE_NEWIPC },
		{ "uts", CLONE_NEWUTS },  { "net", CLONE_NEWNET },   { "user", CLONE_NEWUSER },
		{ "time", CLONE_NEWTIME }, { "cgroup", CLONE_NEWCGROUP },
	};

	for (unsigned int i = 0; i < sizeof(spaces) / sizeof(*spaces); i++) {
		int status = -1, pid = fork();

		if (!pid)
			_exit(unshare(spaces[i].flag) ? errno : 0);
		waitpid(pid, &status, 0);
		errno = WEXITSTATUS(status);
		expect(!status, "%s name space", spaces[i].name);
	}
}

// A program that allows every device, as cgroup v2 wants it in place of devices.allow.
static int device_program(void)
{
	struct bpf_insn code[] = {
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = 1 },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	union bpf_attr attr = {
		.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE,
		.insns = (unsigned long)code,
		.insn_cnt = 2,
		.license = (unsigned long)"GPL",
	};
	int program = syscall(SYS_bpf, BPF_PROG_LOAD, &attr, sizeof(attr));

	if (program < 0)
		return 0;
	memset(&attr, 0, sizeof(attr));
	attr.target_fd = open("/sys/fs/cgroup/check", O_RDONLY | O_DIRECTORY);
	attr.attach_bpf_fd = program;
	attr.attach_type = BPF_CGROUP_DEVICE;
	return !syscall(SYS_bpf, BPF_PROG_ATTACH, &attr, sizeof(attr));
}

static void check_cgroups(void)
{
	static const char *const controllers[] = { "cpuset", "cpu", "io", "memory", "hugetlb", "pids" };
	static const char *const files[] = { "cgroup.freeze", "cgroup.kill", "cpu.max", "cpu.weight",
		"memory.max", "memory.swap.max", "pids.max", "io.max", "cpuset.cpus" };
	char path[64];
	int fd = open("/sys/fs/cgroup/cgroup.subtree_control", O_WRONLY);

	for (unsigned int i = 0; i < sizeof(controllers) / sizeof(*controllers); i++)
		expect(contains("/sys/fs/cgroup/cgroup.controllers", controllers[i]), "controller %s", controllers[i]);
	expect(write(fd, "+cpuset +cpu +io +memory +pids", 30) == 30, "controllers for children");
	mkdir("/sys/fs/cgroup/check", 0755);
	for (unsigned int i = 0; i < sizeof(files) / sizeof(*files); i++) {
		snprintf(path, sizeof(path), "/sys/fs/cgroup/check/%s", files[i]);
		expect(!access(path, W_OK), "%s", path);
	}
	expect(device_program(), "device program of a cgroup");
}

static void check_calls(void)
{
	unsigned int action = SECCOMP_RET_USER_NOTIF;
	char page[4096], params[256] = { 0 };
	aio_context_t context = 0;
	sigset_t set;

	sigemptyset(&set);
	expect(!syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action), "seccomp filters");
	expect(syscall(SYS_io_uring_setup, 1, params) >= 0, "io_uring");
	expect(!syscall(SYS_io_setup, 1, &context), "aio");
	expect(syscall(SYS_userfaultfd, 1) >= 0, "userfaultfd");
	expect(memfd_create("check", 0) >= 0, "memfd");
	expect(fanotify_init(0, 0) >= 0, "fanotify");
	expect(inotify_init1(0) >= 0, "inotify");
	expect(eventfd(0, 0) >= 0, "eventfd");
	expect(timerfd_create(CLOCK_BOOTTIME, 0) >= 0, "timerfd");
	expect(signalfd(-1, &set, 0) >= 0, "signalfd");
	expect(msgget(IPC_PRIVATE, 0600) >= 0, "System V messages");
	expect(semget(IPC_PRIVATE, 1, 0600) >= 0, "System V semaphores");
	expect(shmget(IPC_PRIVATE, 4096, 0600) >= 0, "System V memory");
	expect(mq_open("/check", O_RDWR | O_CREAT, 0600, NULL) >= 0, "POSIX message queues");
	expect(syscall(SYS_pidfd_open, getpid(), 0) >= 0, "pidfd");
	expect(syscall(SYS_add_key, "user", "check", "x", 1, -3) >= 0, "keys");
	expect(syscall(SYS_kcmp, getpid(), getpid(), 0, 0, 0) == 0, "kcmp");
	expect(syscall(SYS_membarrier, 0, 0, 0) > 0, "membarrier");
	expect(syscall(SYS_rseq, 0, 0, 0, 0) < 0 && errno != ENOSYS, "rseq");
	expect(syscall(SYS_mincore, (unsigned long)page & ~4095ul, 4096, params) == 0, "mincore");
	expect(posix_openpt(O_RDWR) >= 0, "pseudo terminals");
	expect(!access("/proc/config.gz", R_OK), "/proc/config.gz");
	expect(!access("/proc/1/io", R_OK), "/proc/<pid>/io");
	expect(!access("/proc/sys/fs/binfmt_misc", F_OK), "binfmt_misc");
#ifdef __x86_64__
	long pid = 20; // getpid of the 32-bit table

	__asm__ volatile("int $0x80" : "+a"(pid) : : "memory", "r8", "r9", "r10", "r11");
	expect(pid == getpid(), "32-bit system calls");
#endif
}

static void check_sockets(void)
{
	static const int kinds[][3] = {
		{ AF_UNIX, SOCK_SEQPACKET, 0 },	 { AF_INET, SOCK_STREAM, 0 },
		{ AF_INET6, SOCK_DGRAM, 0 },	 { AF_PACKET, SOCK_RAW, 0 },
		{ AF_VSOCK, SOCK_STREAM, 0 },	 { AF_NETLINK, SOCK_RAW, 4 /* sock_diag */ },
		{ AF_NETLINK, SOCK_RAW, 12 /* netfilter */ }, { AF_INET, SOCK_RAW, IPPROTO_ICMP },
	};
	struct sockaddr_alg hash = { .salg_family = AF_ALG, .salg_type = "hash", .salg_name = "hmac(sha256)" };

	for (unsigned int i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		expect(socket(kinds[i][0], kinds[i][1], kinds[i][2]) >= 0, "socket %d/%d", kinds[i][0], kinds[i][2]);
	int fd = socket(AF_ALG, SOCK_SEQPACKET, 0);

	expect(!bind(fd, (struct sockaddr *)&hash, sizeof(hash)), "AF_ALG hmac(sha256)");
}

// `ip link add type KIND`; only whether the kernel knows the kind: macvlan and
// vlan then miss their lower device (EINVAL), an unknown kind is EOPNOTSUPP.
static int link_kind(const char *kind)
{
	struct {
		struct nlmsghdr header;
		struct ifinfomsg info;
		struct rtattr linkinfo, name;
		char kind[16];
	} ask = {
		.header = { sizeof(ask), RTM_NEWLINK, NLM_F_REQUEST | NLM_F_CREATE | NLM_F_EXCL | NLM_F_ACK, 1, 0 },
		.linkinfo = { sizeof(struct rtattr) * 2 + 16, IFLA_LINKINFO },
		.name = { sizeof(struct rtattr) + 16, 1 /* IFLA_INFO_KIND */ },
	};
	struct {
		struct nlmsghdr header;
		struct nlmsgerr error;
		char rest[512];
	} answer;
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);

	strcpy(ask.kind, kind);
	send(fd, &ask, sizeof(ask), 0);
	if (recv(fd, &answer, sizeof(answer), 0) < (int)sizeof(struct nlmsghdr) + 4)
		answer.error.error = -EIO;
	close(fd);
	errno = -answer.error.error;
	return errno != EOPNOTSUPP && errno != EIO;
}

static void check_network(void)
{
	static const char *const kinds[] = { "veth", "bridge", "macvlan", "vlan" };
	static const char *const tables[] = { "filter", "nat", "mangle", "raw" };
	static const char *const targets[] = { "MASQUERADE", "REDIRECT", "DNAT", "SNAT", "REJECT", "LOG", "MARK" };
	static const char *const matches[] = { "conntrack", "addrtype", "comment", "multiport", "owner", "state",
		"limit", "mark", "tcp", "udp" };
	int four = socket(AF_INET, SOCK_RAW, IPPROTO_RAW), six = socket(AF_INET6, SOCK_RAW, IPPROTO_RAW);

	for (unsigned int i = 0; i < sizeof(kinds) / sizeof(*kinds); i++)
		expect(link_kind(kinds[i]), "link type %s", kinds[i]);
	for (unsigned int i = 0; i < sizeof(tables) / sizeof(*tables); i++) {
		struct ipt_getinfo info = { 0 };
		struct ip6t_getinfo info6 = { 0 };
		socklen_t size = sizeof(info), size6 = sizeof(info6);

		strcpy(info.name, tables[i]);
		strcpy(info6.name, tables[i]);
		expect(!getsockopt(four, IPPROTO_IP, IPT_SO_GET_INFO, &info, &size), "iptables %s", tables[i]);
		expect(!getsockopt(six, IPPROTO_IPV6, IP6T_SO_GET_INFO, &info6, &size6), "ip6tables %s", tables[i]);
	}
	for (unsigned int i = 0; i < sizeof(targets) / sizeof(*targets); i++) {
		struct xt_get_revision name = { 0 };
		socklen_t size = sizeof(name);

		strcpy(name.name, targets[i]);
		expect(!getsockopt(four, IPPROTO_IP, IPT_SO_GET_REVISION_TARGET, &name, &size) || errno == EPROTONOSUPPORT,
		       "target %s", targets[i]);
	}
	for (unsigned int i = 0; i < sizeof(matches) / sizeof(*matches); i++) {
		struct xt_get_revision name = { 0 };
		socklen_t size = sizeof(name);

		strcpy(name.name, matches[i]);
		expect(!getsockopt(four, IPPROTO_IP, IPT_SO_GET_REVISION_MATCH, &name, &size) || errno == EPROTONOSUPPORT,
		       "match %s", matches[i]);
	}
	struct ifreq request = { .ifr_name = "tap0", .ifr_flags = IFF_TAP };

	expect(!ioctl(open("/dev/net/tun", O_RDWR), TUNSETIFF, &request), "tap");
}

// The disk carries the modules of this kernel, as the guest's share does.
static void check_module_tree(void)
{
	expect(load_modules("/tmp/disk") >= 3, "modules on the disk");
	expect(!access("/sys/module/dummy", F_OK), "module dummy");
	expect(!syscall(SYS_delete_module, "dummy", 0), "unloading of dummy");
	expect(contains("/proc/filesystems", "xfs"), "file system xfs");
	expect(contains("/proc/filesystems", "btrfs"), "file system btrfs");
}

int main(void)
{
	struct utsname system;
	struct timespec up;
	int full = getenv("full") != NULL; // "full=1" on the kernel command line

	clock_gettime(CLOCK_MONOTONIC, &up);
	setvbuf(stdout, NULL, _IOLBF, 0);
	uname(&system);
	printf("CHECK: %s, init after %ld.%02ld s\n", system.release, (long)up.tv_sec, up.tv_nsec / 10000000);
	printf("CHECK: %d modules\n", load_modules("/modules"));
	mount_all();
	check_filesystems(full);
	if (full) {
		check_devices();
		check_namespaces();
		check_cgroups();
		check_calls();
		check_sockets();
		check_network();
		check_module_tree();
	}
	printf("%s\n", failures ? "CHECK-FAILED" : "CHECK-OK");
	reboot(RB_POWER_OFF);
	return 1;
}
