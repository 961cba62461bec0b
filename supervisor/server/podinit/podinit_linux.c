// The C side of package podinit; see there. It runs before the Go runtime, in
// a process with one thread.
#define _GNU_SOURCE
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ANSWER_PIPE 3
#define FIRST_FILE 4
#define MAX_FILES 64
// What the kernel calls a signal set: one bit for each of 64 signals.
#define KERNEL_SIGSET_SIZE 8

// fail tells the supervisor what went wrong.
static void fail(const char *what)
{
	dprintf(ANSWER_PIPE, "%s: %s\n", what, strerror(errno));
	_exit(1);
}

extern char __data_start, _end;

// shrink gives back the memory that starting up has cost. From here on nothing
// of the C library's state is used but the wrapper of the last system calls.
static void shrink(void)
{
	unsigned long page = (unsigned long)sysconf(_SC_PAGESIZE);
	unsigned long from = ((unsigned long)&__data_start + page - 1) & ~(page - 1);
	unsigned long to = (unsigned long)&_end & ~(page - 1);
	unsigned long heap = (unsigned long)sbrk(0) & ~(page - 1);

	if (heap > to)
		syscall(SYS_madvise, to, heap - to, MADV_DONTNEED);
	if (to > from)
		syscall(SYS_madvise, from, to - from, MADV_DONTNEED);
}

// run is process 1 of the new namespace. A signal that is blocked can be
// waited for even in process 1, which default actions never end.
static void __attribute__((noreturn)) run(void)
{
	sigset_t set;
	int fd;

	prctl(PR_SET_NAME, "pod-init", 0, 0, 0);
	signal(SIGCHLD, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_SETMASK, &set, NULL);
	setsid();
	if (syscall(SYS_close_range, 0, ~0U, 0) != 0)
		for (fd = 0; fd < 1024; fd++)
			close(fd);
	shrink();
	for (;;)
		if (syscall(SYS_rt_sigtimedwait, &set, NULL, NULL, KERNEL_SIGSET_SIZE) > 0)
			syscall(SYS_exit_group, 0);
}

void nodeagent_podinit(void)
{
	const char *value = getenv("_NODEAGENT_PODINIT");
	int i, cgroups, namespaces;
	long pid;

	if (value == NULL)
		return;
	if (sscanf(value, "%d %d", &cgroups, &namespaces) != 2 || cgroups < 0 || namespaces < 0 ||
	    cgroups > MAX_FILES || namespaces > MAX_FILES) {
		errno = EINVAL;
		fail("counts of cgroups and namespaces");
	}
	// A thread that moves itself, and only itself, does not have the kernel
	// wait for all others, which takes ten milliseconds or more.
	for (i = 0; i < cgroups; i++)
		if (write(FIRST_FILE + i, "0", 1) != 1)
			fail("enter cgroup");
	for (i = 0; i < namespaces; i++)
		if (setns(FIRST_FILE + cgroups + i, 0) != 0)
			fail("join namespace");
	// Become root of the user namespace joined, if one was.
	if (setresgid(0, 0, 0) != 0 || setresuid(0, 0, 0) != 0)
		fail("become root");
	// The child becomes a child of the supervisor, as we are.
	pid = syscall(SYS_clone, CLONE_NEWPID | CLONE_PARENT, 0L, 0L, 0L, 0L);
	if (pid < 0)
		fail("make PID namespace");
	if (pid == 0)
		run();
	dprintf(ANSWER_PIPE, "%ld\n", pid);
	_exit(0);
}
