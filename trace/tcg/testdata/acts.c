// Does what a shell cannot, each by its name: see doors_guest_test.go.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

static struct sockaddr_in at(int port)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
	inet_pton(AF_INET, "127.0.0.1", &a.sin_addr);
	return a;
}

int main(int argc, char **argv)
{
	const char *act = argc > 1 ? argv[1] : "";
	if (!strcmp(act, "drop")) {
		if (setresgid(1000, 1000, 1000) || setresuid(1000, 1000, 1000))
			return 1;
		return setuid(0) ? 7 : 8; // refused: no event
	}
	if (!strcmp(act, "rise")) { // by a set-user-ID program
		if (setresuid(1000, 1000, 1000))
			return 1;
		execl("/risen", "risen", "cut", "/none", NULL);
		return 2;
	}
	if (!strcmp(act, "memfd")) {
		int from = open("/bin/busybox", O_RDONLY), to = memfd_create("payload", MFD_CLOEXEC);
		struct stat s;
		if (from < 0 || to < 0 || fstat(from, &s) || sendfile(to, from, NULL, s.st_size) != s.st_size)
			return 1;
		char *args[] = {"busybox", "true", "in memory", NULL};
		fexecve(to, args, environ);
		return 2;
	}
	if (!strcmp(act, "udp")) {
		struct sockaddr_in bound = at(5300), peer = at(53), any = at(0);
		int s = socket(AF_INET, SOCK_DGRAM, 0), c = socket(AF_INET, SOCK_DGRAM, 0);
		return bind(c, (void *)&any, sizeof any) || bind(s, (void *)&bound, sizeof bound) || connect(c, (void *)&peer, sizeof peer);
	}
	if (!strcmp(act, "packet"))
		return socket(AF_PACKET, SOCK_RAW, htons(3)) < 0 || socket(AF_INET, SOCK_RAW, 1) < 0;
	if (!strcmp(act, "cut"))
		return truncate(argv[2], 5);
	return 99;
}
