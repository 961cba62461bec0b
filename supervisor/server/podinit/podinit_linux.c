// The C side of package podinit; see there. It runs before the Go runtime, in
// a process with one thread.
#define _GNU_SOURCE
#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ANSWER_PIPE 3
#define FIRST_FILE 4
#define MAX_FILES 64
// What the kernel calls a signal set: one bit for each of 64 signals.
#define KERNEL_SIGSET_SIZE 8

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#endif

// fail tells the supervisor what went wrong.
static void fail(const char *what)
{
	dprintf(ANSWER_PIPE, "%s: %s\n", what, strerror(errno));
	_exit(1);
}

// leave_host gives this process an empty root, an earlier one's where empty is a descriptor of its mount namespace.
// Containers that share its PID namespace see it, and one that may look into other processes (CAP_SYS_PTRACE) would find
// the host's files in /proc/1/root.
static void leave_host(int empty)
{
	const unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;

	if (empty >= 0) {
		if (setns(empty, CLONE_NEWNS) != 0)
			fail("enter empty root");
		return;
	}
	if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0)
		fail("make mount namespace");
	// Any folder will do, and this one is there.
	if (mount("none", "/proc", "tmpfs", flags, "mode=0555") != 0 || chdir("/proc") != 0)
		fail("make root");
	if (syscall(SYS_pivot_root, ".", ".") == 0) {
		if (umount2(".", MNT_DETACH) != 0)
			fail("leave the host's root");
	} else if (mount(".", "/", NULL, MS_MOVE, NULL) != 0 || chroot(".") != 0) {
		// The root is the kernel's own (initramfs), which cannot be left, but covered.
		fail("cover the host's root");
	}
	if (chdir("/") != 0)
		fail("enter root");
}

#ifdef ARCH
// calls lets through what run does from there on.
static const struct sock_filter calls[] = {
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ARCH, 0, 5),
	BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigtimedwait, 4, 0),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_exit_group, 3, 0),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigreturn, 2, 0),
	BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_restart_syscall, 1, 0),
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
	BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
};
#endif

// renounce gives up all that this process may do: whoever makes it run code of theirs has won nothing. A kernel without
// seccomp leaves the rest. Nothing here may use the C library's state, as that is gone: see shrink.
static void renounce(void)
{
	static const struct __user_cap_data_struct none[2];
	struct __user_cap_header_struct version = {_LINUX_CAPABILITY_VERSION_3, 0};

	syscall(SYS_setgroups, 0, NULL);
	syscall(SYS_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0);
	syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	if (syscall(SYS_capset, &version, none) != 0)
		syscall(SYS_exit_group, 1);
#ifdef ARCH
	{
		const struct sock_fprog filter = {sizeof(calls) / sizeof(calls[0]), (struct sock_filter *)calls};

		syscall(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0);
	}
#endif
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
	renounce();
	for (;;)
		if (syscall(SYS_rt_sigtimedwait, &set, NULL, NULL, KERNEL_SIGSET_SIZE) > 0)
			syscall(SYS_exit_group, 0);
}

void nodeagent_podinit(void)
{
	const char *value = getenv("_NODEAGENT_PODINIT");
	int i, cgroups, namespaces, empty;
	long pid;

	if (value == NULL)
		return;
	if (sscanf(value, "%d %d %d", &cgroups, &namespaces, &empty) != 3 || cgroups < 0 || namespaces < 0 ||
	    cgroups > MAX_FILES || namespaces > MAX_FILES || empty < 0 || empty > 1) {
		errno = EINVAL;
		fail("counts of files");
	}
	// A thread that moves itself, and only itself, does not have the kernel
	// wait for all others, which takes ten milliseconds or more.
	for (i = 0; i < cgroups; i++)
		if (write(FIRST_FILE + i, "0", 1) != 1)
			fail("enter cgroup");
	// As the host's root: the namespace is not of the user namespace that may be joined.
	leave_host(empty ? FIRST_FILE + cgroups + namespaces : -1);
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
