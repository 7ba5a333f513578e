// A server with threads, and its clients: each connection has a thread of its own, and another that it works for.
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { CLIENTS = 6, ROUNDS = 5 };

static struct sockaddr_in address;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int served, bell;

static void fail(const char *what)
{
	perror(what);
	exit(1);
}

static void *serve(void *arg)
{
	int fd = (long)arg;
	char b[64];
	struct sockaddr_in peer;
	socklen_t n = sizeof(peer);
	int one = 1;
	getpeername(fd, (void *)&peer, &n);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	for (;;) {
		ssize_t got = recv(fd, b, sizeof(b), 0);
		if (got <= 0)
			break;
		struct iovec v[2] = { { "you said ", 9 }, { b, got } };
		struct msghdr m = { .msg_iov = v, .msg_iovlen = 2 };
		if (sendmsg(fd, &m, MSG_NOSIGNAL) < 0)
			fail("sendmsg");
	}
	shutdown(fd, SHUT_RDWR);
	close(fd);
	pthread_mutex_lock(&lock);
	served++;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
	unsigned long long more = 1;
	if (write(bell, &more, sizeof(more)) != sizeof(more))
		fail("write");
	return 0;
}

static void *ask(void *arg)
{
	char text[64], answer[128];
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || connect(fd, (void *)&address, sizeof(address)))
		fail("connect");
	for (int i = 0; i < ROUNDS; i++) {
		int n = snprintf(text, sizeof(text), "client %ld, round %d", (long)arg, i);
		if (send(fd, text, n, MSG_NOSIGNAL) != n)
			fail("send");
		struct pollfd p = { fd, POLLIN, 0 };
		if (poll(&p, 1, 10000) != 1 || recvfrom(fd, answer, sizeof(answer), 0, 0, 0) <= 0)
			fail("recv");
		struct timespec t = { 0, 1000000 * (1 + (long)arg) };
		nanosleep(&t, 0);
	}
	close(fd);
	return 0;
}

static void *wait_for(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&lock);
	while (served < CLIENTS)
		pthread_cond_wait(&changed, &lock);
	pthread_mutex_unlock(&lock);
	return 0;
}

int main(void)
{
	pthread_t clients[CLIENTS], servers[CLIENTS], waits[2];
	int one = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	address.sin_family = AF_INET, address.sin_addr.s_addr = htonl(INADDR_LOOPBACK), address.sin_port = htons(4321);
	if (bind(fd, (void *)&address, sizeof(address)) || listen(fd, 16))
		fail("listen");
	bell = eventfd(0, EFD_CLOEXEC);
	int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC), e = epoll_create1(EPOLL_CLOEXEC);
	struct itimerspec when = { { 0, 0 }, { 0, 5000000 } };
	timerfd_settime(timer, 0, &when, 0);
	struct epoll_event ev = { EPOLLIN, { .u64 = 7 } };
	epoll_ctl(e, EPOLL_CTL_ADD, timer, &ev);
	ev.data.u64 = 8;
	epoll_ctl(e, EPOLL_CTL_ADD, bell, &ev);
	for (int i = 0; i < 2; i++)
		pthread_create(&waits[i], 0, wait_for, 0);
	for (long i = 0; i < CLIENTS; i++)
		pthread_create(&clients[i], 0, ask, (void *)i);
	for (long i = 0; i < CLIENTS; i++) {
		struct sockaddr_in peer;
		socklen_t n = sizeof(peer);
		long c = accept4(fd, (void *)&peer, &n, SOCK_CLOEXEC);
		if (c < 0)
			fail("accept");
		pthread_create(&servers[i], 0, serve, (void *)c);
	}
	for (int i = 0; i < CLIENTS; i++)
		pthread_join(clients[i], 0), pthread_join(servers[i], 0);
	for (int i = 0; i < 2; i++)
		pthread_join(waits[i], 0);
	struct epoll_event got[4];
	unsigned long long count;
	int n = epoll_wait(e, got, 4, 10000);
	while (n-- > 0)
		if (read(got[n].data.u64 == 7 ? timer : bell, &count, sizeof(count)) != sizeof(count))
			fail("read");
	syscall(511, 1, 2, 3, 0, 5, 6); // what no call has
	printf("%d served\n", served);
	return 0;
}
