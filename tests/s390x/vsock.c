// A program of the guest's that listens at its socket device, and one of the host's that comes to it:
//   vsock            in the guest: hears a line, and answers it
//   vsock CID|PATH   on the host, by the address of a guest that the kernel serves, or by the socket of one that runq-vmm
//                    serves; fails if nobody listens
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
#include <linux/vm_sockets.h>

enum { PORT = 7000 };

static char line[64];

// A line, without its end; an empty one if the other side is gone.
static const char *hear(int peer)
{
	size_t length = 0;
	while (length < sizeof(line) - 1 && read(peer, line + length, 1) == 1 && line[length] != '\n')
		length++;
	line[length] = 0;
	return line;
}

static int listen_in_guest(void)
{
	struct sockaddr_vm here = { .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = PORT };
	int listener = socket(AF_VSOCK, SOCK_STREAM, 0);
	int peer;

	if (bind(listener, (struct sockaddr *)&here, sizeof(here)) || listen(listener, 1)) {
		perror("guest: vsock");
		return 1;
	}
	dprintf(1, "guest: listens\n");
	peer = accept(listener, NULL, NULL);
	printf("guest: the host says: %s\n", hear(peer));
	dprintf(peer, "welcome\n");
	// Until the host has read it.
	hear(peer);
	return 0;
}

static int by_kernel(unsigned int cid)
{
	struct sockaddr_vm guest = { .svm_family = AF_VSOCK, .svm_cid = cid, .svm_port = PORT };
	int peer = socket(AF_VSOCK, SOCK_STREAM, 0);

	return connect(peer, (struct sockaddr *)&guest, sizeof(guest)) ? -1 : peer;
}

static int by_socket(const char *path)
{
	struct sockaddr_un monitor = { .sun_family = AF_UNIX };
	int peer = socket(AF_UNIX, SOCK_STREAM, 0);

	strncpy(monitor.sun_path, path, sizeof(monitor.sun_path) - 1);
	if (connect(peer, (struct sockaddr *)&monitor, sizeof(monitor)))
		return -1;
	dprintf(peer, "CONNECT %d\n", PORT);
	return strncmp(hear(peer), "OK", 2) ? -1 : peer;
}

int main(int argc, char **argv)
{
	int peer;

	if (argc < 2)
		return listen_in_guest();
	peer = argv[1][0] == '/' ? by_socket(argv[1]) : by_kernel(atoi(argv[1]));
	if (peer < 0)
		return 1;
	dprintf(peer, "hello, %s\n", argv[1]);
	printf("host: the guest says: %s, %s\n", hear(peer), argv[1]);
	return 0;
}
