/* Calls functions that a test probes, and says what it called and what they returned. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct pair {
	long number;
	const char *name;
};

__attribute__((noinline)) long weigh(const char *text, int n, const struct pair *p)
{
	if (n < 0)
		return -1;
	return (long)strlen(text) * n + p->number;
}

int main(int argc, char **argv)
{
	long (*volatile call)(const char *, int, const struct pair *) = weigh;
	for (int i = 1; i < argc; i++) {
		struct pair p = {1000 * i, argv[i]};
		printf("%s %d %s %ld\n", argv[i], i - 2, p.name, call(argv[i], i - 2, &p));
	}
	return 0;
}
