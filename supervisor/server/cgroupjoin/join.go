//go:build cgo

package cgroupjoin

/*
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char variable[] = "_LIBCONTAINER_LOGLEVEL=";

// fail tells the parent why, as libcontainer's own C code does.
static void fail(void)
{
	const char *why = strerror(errno);
	const char *fd = getenv("_LIBCONTAINER_LOGPIPE");

	if (fd != NULL)
		dprintf(atoi(fd), "{\"level\":\"fatal\",\"msg\":\"join the container's cgroups: %s\"}\n", why);
	_exit(1);
}

// join comes before libcontainer's constructor, which has no priority.
static void __attribute__((constructor(101))) join(int argc, char **argv, char **envp)
{
	if (argc != 2 || strcmp(argv[1], "init") != 0)
		return;
	for (; *envp != NULL; envp++) {
		char *path, *rest;

		if (strncmp(*envp, variable, sizeof(variable) - 1) != 0)
			continue;
		rest = strchr(*envp, '\n');
		if (rest == NULL)
			return;
		*rest++ = '\0';
		while ((path = strsep(&rest, "\n")) != NULL) {
			int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);

			// Zero is who writes.
			if (fd < 0 || write(fd, "0", 1) != 1)
				fail();
			close(fd);
		}
		return;
	}
}
*/
import "C"
