// The guest's /init in which monitors are measured side by side. Its first act
// writes INIT-UP to the console; words of the kernel command line ask for more:
// blk=1 measures /dev/vda (its content is lost), dm=1 prints the kernel's log,
// off=1 reboots in the end instead of staying idle.
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 4096, MIB = 1 << 20, DEPTH = 32 };
static const double SECONDS = 0.3;

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec * 1e-9;
}

// xorshift64 with a fixed seed: every run reads the same blocks.
static off_t random_block(unsigned long long device_size)
{
	static unsigned long long state = 88172645463325252ull;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state % (device_size / BLOCK) * BLOCK;
}

static void sequential(int fd, char *buffer, size_t step, size_t total, int write, const char *name)
{
	double start = now(), seconds;

	for (size_t done = 0; done < total; done += step) {
		ssize_t n = write ? pwrite(fd, buffer, step, done) : pread(fd, buffer, step, done);

		if (n != (ssize_t)step) {
			printf("ERR %s %zd\n", name, n);
			return;
		}
	}
	seconds = now() - start;
	printf("BLK %s bs=%zu %.1f MiB/s %.0f IOPS\n", name, step, total / seconds / MIB, total / step / seconds);
}

static void random_one(int fd, char *buffer, unsigned long long size, int write, const char *name)
{
	double start = now(), seconds;
	long count = 0;

	do {
		off_t at = random_block(size);
		ssize_t n = write ? pwrite(fd, buffer, BLOCK, at) : pread(fd, buffer, BLOCK, at);

		if (n != BLOCK) {
			printf("ERR %s\n", name);
			return;
		}
		count++;
	} while ((seconds = now() - start) < SECONDS);
	printf("BLK %s %.0f IOPS\n", name, count / seconds);
}

static void random_many(int fd, char *buffer, unsigned long long size, const char *name)
{
	aio_context_t context = 0;
	struct iocb requests[DEPTH], *batch[DEPTH];
	struct io_event done[DEPTH];
	double start, seconds;
	long count = 0, n;

	if (syscall(SYS_io_setup, DEPTH, &context)) {
		printf("ERR io_setup\n");
		return;
	}
	memset(requests, 0, sizeof(requests));
	for (int i = 0; i < DEPTH; i++) {
		requests[i].aio_fildes = fd;
		requests[i].aio_lio_opcode = IOCB_CMD_PREAD;
		requests[i].aio_buf = (unsigned long)(buffer + i * BLOCK);
		requests[i].aio_nbytes = BLOCK;
		requests[i].aio_offset = random_block(size);
		requests[i].aio_data = i;
		batch[i] = &requests[i];
	}
	syscall(SYS_io_submit, context, DEPTH, batch);
	start = now();
	do {
		n = syscall(SYS_io_getevents, context, 1, DEPTH, done, NULL);
		if (n < 1) {
			printf("ERR io_getevents\n");
			return;
		}
		for (long i = 0; i < n; i++) {
			struct iocb *request = &requests[done[i].data];

			if (done[i].res != BLOCK) {
				printf("ERR aio\n");
				return;
			}
			request->aio_offset = random_block(size);
			batch[i] = request;
		}
		count += n;
		syscall(SYS_io_submit, context, n, batch);
	} while ((seconds = now() - start) < SECONDS);
	printf("BLK %s qd=%d %.0f IOPS\n", name, DEPTH, count / seconds);
}

static void measure_disk(void)
{
	unsigned long long size = 0;
	char *buffer = aligned_alloc(MIB, MIB);
	int fd = open("/dev/vda", O_RDWR | O_DIRECT);

	if (fd < 0 || !buffer || ioctl(fd, BLKGETSIZE64, &size) || size < MIB) {
		printf("ERR no vda\n");
		return;
	}
	memset(buffer, 0x5a, MIB);
	printf("BLK size %llu\n", size);
	size_t total = size < 32 * MIB ? size : 32 * MIB;

	sequential(fd, buffer, MIB, total, 1, "seqwrite1m");
	sequential(fd, buffer, MIB, total, 0, "seqread1m");
	sequential(fd, buffer, 128 << 10, total, 0, "seqread128k");
	random_one(fd, buffer, size, 0, "randread4k-qd1");
	random_one(fd, buffer, size, 1, "randwrite4k-qd1");
	random_many(fd, buffer, size, "randread4k");
}

static void print_log(void)
{
	static char text[1 << 18];
	int fd = open("/proc/uptime", O_RDONLY);
	int n = read(fd, text, 63);

	close(fd);
	printf("UPTIME %.*s", n > 0 ? n : 0, text);
	n = syscall(SYS_syslog, 3 /* SYSLOG_ACTION_READ_ALL */, text, sizeof(text));
	fwrite(text, 1, n > 0 ? n : 0, stdout);
}

int main(void)
{
	char line[4096] = { 0 };
	int fd;

	(void)!write(1, "INIT-UP\n", 8);
	setvbuf(stdout, NULL, _IOLBF, 0);
	mount("proc", "/proc", "proc", 0, NULL);
	mount("dev", "/dev", "devtmpfs", 0, NULL);
	fd = open("/proc/cmdline", O_RDONLY);
	(void)!read(fd, line, sizeof(line) - 1);
	close(fd);
	if (strstr(line, "blk=1"))
		measure_disk();
	if (strstr(line, "dm=1"))
		print_log();
	printf("DONE\n");
	if (strstr(line, "off=1")) {
		sync();
		reboot(RB_AUTOBOOT);
	}
	for (;;)
		pause();
}
