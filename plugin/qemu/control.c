/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One thread that waits for a monitor on a Unix socket, takes its program, and takes everything out again when the monitor
 * is gone, however it went.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "plugin.h"

#define MAX_FILES (OS_MAX_RANGES + 1)

static struct os_hello hello;
static int listener;

static bool send_all(int s, const void *bytes, size_t n)
{
	const uint8_t *at = bytes;
	while (n > 0) {
		ssize_t k = send(s, at, n, MSG_NOSIGNAL);
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return false;
		at += k;
		n -= (size_t)k;
	}
	return true;
}

static bool say(int s, uint32_t type, const void *payload, size_t n)
{
	struct os_message m = {OS_MAGIC, type, (uint32_t)n, 0};
	return send_all(s, &m, sizeof m) && send_all(s, payload, n);
}

static bool greet(int s)
{
	char names[8192];
	struct {
		struct os_hello hello;
		char names[sizeof names];
	} m;
	m.hello = hello;
	size_t n = register_names(m.names, sizeof m.names, &m.hello.registers);
	if (m.hello.registers > 0)
		m.hello.features |= OS_CAN_READ_REGISTERS;
	return say(s, OS_HELLO, &m, sizeof m.hello + n);
}

/* receive reads n bytes, and the descriptors that come with them. */
static bool receive(int s, void *to, size_t n, int *files, unsigned int *n_files)
{
	uint8_t *at = to;
	while (n > 0) {
		union {
			char bytes[CMSG_SPACE(MAX_FILES * sizeof(int))];
			struct cmsghdr align;
		} control;
		struct iovec v = {at, n};
		struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
		ssize_t k = recvmsg(s, &m, MSG_CMSG_CLOEXEC);
		if (k < 0 && errno == EINTR)
			continue;
		if (k <= 0)
			return false;
		for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
			if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
				continue;
			size_t count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
			for (size_t i = 0; i < count; i++) {
				int fd;
				memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
				if (*n_files < MAX_FILES)
					files[(*n_files)++] = fd;
				else
					close(fd);
			}
		}
		at += k;
		n -= (size_t)k;
	}
	return true;
}

/* take installs the program of one message. */
static bool take(int s, const struct os_message *m)
{
	int files[MAX_FILES];
	unsigned int n_files = 0;
	char why[256] = "out of memory";
	void *image = malloc(m->length + 1);
	bool ok = image && receive(s, image, m->length, files, &n_files);
	struct program *p = ok ? program_load(image, m->length, files, n_files, why, sizeof why) : NULL;
	for (unsigned int i = 0; i < n_files; i++)
		close(files[i]);
	free(image);
	if (!ok)
		return false;
	if (!p)
		return say(s, OS_ERROR, why, strlen(why));
	ring_clock(p);
	p->header->first_ticks = p->header->ticks;
	p->header->first_nanoseconds = p->header->nanoseconds;
	usleep(10000); /* two moments, from which the length of a tick follows */
	ring_clock(p);
	program_want(p);
	while (!program_runs(50)) { /* a paused machine changes nothing */
		struct pollfd gone = {.fd = s, .events = POLLRDHUP};
		if (poll(&gone, 1, 0) != 0)
			return false;
	}
	return say(s, OS_READY, NULL, 0);
}

/* serve talks with one monitor until it is gone. */
static void serve(int s)
{
	if (!greet(s))
		return;
	for (;;) {
		struct pollfd fds[2] = {{.fd = s, .events = POLLIN}, {.fd = listener, .events = POLLIN}};
		int n = poll(fds, 2, 100);
		if (n < 0 && errno != EINTR)
			return;
		program_clock();
		/* One who has just ended is taken note of first: the other is served then. */
		if (fds[0].revents == 0 && fds[1].revents & POLLIN) {
			int other = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
			static const char busy[] = "another monitor has the plugin: end it first";
			if (other >= 0) {
				say(other, OS_ERROR, busy, sizeof busy - 1);
				close(other);
			}
		}
		if (fds[0].revents == 0)
			continue;
		struct os_message m;
		int none[MAX_FILES];
		unsigned int n_none = 0;
		bool ok = receive(s, &m, sizeof m, none, &n_none);
		if (n_none > 0)
			ok = false; /* descriptors belong to the payload */
		for (unsigned int i = 0; i < n_none; i++)
			close(none[i]);
		if (!ok || m.magic != OS_MAGIC || m.type != OS_PROGRAM || m.length > OS_MAX_PROGRAM || !take(s, &m))
			return;
	}
}

static bool allowed(int s)
{
	struct ucred peer;
	socklen_t n = sizeof peer;
	return getsockopt(s, SOL_SOCKET, SO_PEERCRED, &peer, &n) == 0 && (peer.uid == 0 || peer.uid == geteuid());
}

static void *loop(void *unused)
{
	(void)unused;
	for (;;) {
		int s = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (s < 0) {
			if (errno == EINTR || errno == ECONNABORTED)
				continue;
			return NULL;
		}
		if (allowed(s))
			serve(s);
		program_want(NULL);
		close(s);
	}
}

static void fail(const char *what, const char *path)
{
	char text[512];
	snprintf(text, sizeof text, "outsight: %s %s: %s\n", what, path, strerror(errno));
	fputs(text, stderr);
	qemu_plugin_outs(text);
}

bool control_start(const char *path, const struct os_hello *h)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	pthread_t thread;
	struct stat old;
	hello = *h;
	if (strlen(path) >= sizeof a.sun_path) {
		errno = ENAMETOOLONG;
		fail("socket", path);
		return false;
	}
	strcpy(a.sun_path, path);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (lstat(path, &old) == 0 && S_ISSOCK(old.st_mode))
		unlink(path); /* of a QEMU that has ended */
	mode_t mask = umask(0177);
	int bound = listener < 0 ? -1 : bind(listener, (struct sockaddr *)&a, sizeof a);
	umask(mask);
	if (bound != 0 || listen(listener, 4) != 0) {
		fail("cannot listen on", path);
		return false;
	}
	if ((errno = pthread_create(&thread, NULL, loop, NULL)) != 0) {
		fail("cannot start a thread for", path);
		return false;
	}
	pthread_detach(thread);
	return true;
}
