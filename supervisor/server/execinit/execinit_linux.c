// The C side of package execinit; see there. It runs before the Go runtime, in a process with one thread. The request
// is the supervisor's and trusted; nothing of the container is.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/keyctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

// What the supervisor passes; descriptors 0 to 2 are the process's own.
#define ANSWER 3
#define REQUEST 4
#define TARGET 5
#define UNIFIED 6
#define FIRST_UNWANTED 4

// The first page of the request is where the process's number is told; the rest is struct head and what follows it.
#define ANSWER_PAGE 4096

// Flags of a request.
#define NO_NEW_PRIVILEGES 1
#define SEARCH 2
#define JOIN_KEYRING 4
#define BORN_IN_UNIFIED 8

// Numbers of the steps that can fail; package execinit has words for each.
enum step {
	STEP_REQUEST = 1, STEP_CGROUP, STEP_OOM_SCORE, STEP_NAMESPACES, STEP_FORK, STEP_SESSION, STEP_KEYRING, STEP_LIMITS,
	STEP_NO_NEW_PRIVILEGES, STEP_SECCOMP, STEP_FOLDER, STEP_BOUNDING, STEP_STREAMS, STEP_GROUPS, STEP_GROUP, STEP_USER,
	STEP_OUTSIDE, STEP_CAPABILITIES, STEP_NOT_FOUND, STEP_STAT, STEP_ACCESS, STEP_EXECUTE,
};

struct head {
	uint64_t size, bounding, effective, permitted, inheritable, ambient;
	int32_t uid, gid, umask;
	uint32_t flags, groups, limits, filters, cgroups, programs, args, env, unused;
};

struct limit { uint64_t kind, soft, hard; };
struct filter { uint64_t flags, length; };

// request is the same with everything found: counts are head's.
struct request {
	const struct head *head;
	const struct limit *limits;
	const struct filter *filters;
	const struct sock_filter *instructions;
	const gid_t *groups;
	const char *oom_score, *keyring, *folder;
	char **cgroups, **programs, **args, **env;
};

// fail tells the supervisor what went wrong, in one write.
static void __attribute__((noreturn)) fail(enum step step)
{
	int32_t said[2] = {step, errno};

	if (write(ANSWER, said, sizeof(said)) != sizeof(said))
		_exit(2);
	_exit(1);
}

// strings makes an array of count strings, which lie behind each other at *from, and moves *from behind them.
static char **strings(char **from, uint32_t count)
{
	char **all = calloc((size_t)count + 1, sizeof(*all));
	uint32_t i;

	if (all == NULL)
		fail(STEP_REQUEST);
	for (i = 0; i < count; i++) {
		all[i] = *from;
		*from += strlen(*from) + 1;
	}
	return all;
}

// map finds the request in memory, and returns where the process's number is to be told. That page is shared with the
// supervisor and not with the child, so that nobody in the container can say another number.
static int *map(struct request *r)
{
	int *told = mmap(NULL, ANSWER_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, REQUEST, 0);
	struct stat st;
	uint64_t instructions = 0;
	char *at;
	uint32_t i;

	if (told == MAP_FAILED || madvise(told, ANSWER_PAGE, MADV_DONTFORK) != 0 || fstat(REQUEST, &st) != 0)
		fail(STEP_REQUEST);
	at = mmap(NULL, st.st_size - ANSWER_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, REQUEST, ANSWER_PAGE);
	if (at == MAP_FAILED)
		fail(STEP_REQUEST);
	r->head = (const struct head *)at;
	if (r->head->size != (uint64_t)st.st_size - ANSWER_PAGE) {
		errno = EPROTO;
		fail(STEP_REQUEST);
	}
	r->limits = (const struct limit *)(r->head + 1);
	r->filters = (const struct filter *)(r->limits + r->head->limits);
	r->instructions = (const struct sock_filter *)(r->filters + r->head->filters);
	for (i = 0; i < r->head->filters; i++)
		instructions += r->filters[i].length;
	r->groups = (const gid_t *)(r->instructions + instructions);
	at = (char *)(r->groups + r->head->groups);
	r->oom_score = *strings(&at, 1);
	r->keyring = *strings(&at, 1);
	r->folder = *strings(&at, 1);
	r->cgroups = strings(&at, r->head->cgroups);
	r->programs = strings(&at, r->head->programs);
	r->args = strings(&at, r->head->args);
	r->env = strings(&at, r->head->env);
	*told = 0;
	return told;
}

// write_file writes to an existing file of the kernel's.
static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	ssize_t want = (ssize_t)strlen(text);
	int ok;

	if (fd < 0)
		return -1;
	ok = write(fd, text, want) == want;
	close(fd);
	return ok ? 0 : -1;
}

// use_all_processors undoes the affinity that came down from the supervisor; the kernel keeps to the cpuset.
static void use_all_processors(void)
{
	static unsigned char all[8192];

	memset(all, 0xff, sizeof(all));
	(void)syscall(SYS_sched_setaffinity, 0, sizeof(all), all);
}

// enter is what happens on the host: cgroups are joined by whom it concerns, before it has a second thread or a child,
// since that does not make the kernel wait (see package cgroupjoin).
static void enter(const struct request *r)
{
	int namespaces = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS;
	uint32_t i;

	for (i = 0; i < r->head->cgroups; i++)
		if (write_file(r->cgroups[i], "0") != 0)
			fail(STEP_CGROUP);
	use_all_processors();
	// Before we cannot be looked into, as the file is root's afterwards.
	if (r->oom_score[0] != '\0' && write_file("/proc/self/oom_score_adj", r->oom_score) != 0)
		fail(STEP_OOM_SCORE);
	if (!(r->head->flags & BORN_IN_UNIFIED))
		namespaces |= CLONE_NEWCGROUP;
	if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0 || setns(TARGET, namespaces) != 0)
		fail(STEP_NAMESPACES);
	if (namespaces & CLONE_NEWCGROUP)
		close(TARGET);
}

// load_filters loads what the container's first process has, the oldest first.
static void load_filters(const struct request *r)
{
	const struct sock_filter *at = r->instructions;
	uint32_t i;

	for (i = 0; i < r->head->filters; i++) {
		struct sock_fprog program = {(unsigned short)r->filters[i].length, (struct sock_filter *)at};

		if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, r->filters[i].flags, &program) != 0)
			fail(STEP_SECCOMP);
		at += r->filters[i].length;
	}
}

static void set_limits(const struct request *r)
{
	uint32_t i;

	for (i = 0; i < r->head->limits; i++) {
		struct rlimit limit = {r->limits[i].soft, r->limits[i].hard};

		if (setrlimit((int)r->limits[i].kind, &limit) != 0)
			fail(STEP_LIMITS);
	}
}

// own_streams gives the streams to the user, who could not open a pipe through /proc/self/fd otherwise.
static void own_streams(uid_t uid)
{
	int fd;

	for (fd = 0; fd <= 2; fd++) {
		struct stat st;

		if (fstat(fd, &st) != 0)
			fail(STEP_STREAMS);
		if (st.st_uid == uid || (S_ISCHR(st.st_mode) && st.st_rdev == makedev(1, 3)))
			continue;
		if (fchown(fd, uid, -1) != 0 && errno != EPERM && errno != EROFS)
			fail(STEP_STREAMS);
	}
}

static void limit_bounding(uint64_t keep)
{
	int cap;

	for (cap = 0; cap < 64; cap++) {
		if (keep & (1ULL << cap))
			continue;
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) != 0) {
			// The kernel knows no such capability, nor any after it.
			if (errno == EINVAL)
				return;
			fail(STEP_BOUNDING);
		}
	}
}

static void set_capabilities(const struct head *h)
{
	struct __user_cap_header_struct version = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2];
	int i;

	for (i = 0; i < 2; i++) {
		data[i].effective = (uint32_t)(h->effective >> (32 * i));
		data[i].permitted = (uint32_t)(h->permitted >> (32 * i));
		data[i].inheritable = (uint32_t)(h->inheritable >> (32 * i));
	}
	if (prctl(PR_SET_KEEPCAPS, 0, 0, 0, 0) != 0 || syscall(SYS_capset, &version, data) != 0 ||
	    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) != 0)
		fail(STEP_CAPABILITIES);
	// One that cannot be raised is not there, which a process finds out.
	for (i = 0; i < 64; i++)
		if (h->ambient & (1ULL << i))
			(void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i, 0, 0);
}

// check_folder makes sure that the working directory is below the container's root: the kernel marks one that is not
// (CVE-2024-21626).
static void check_folder(void)
{
	char path[PATH_MAX];
	long length = syscall(SYS_getcwd, path, sizeof(path));

	if (length < 0 || path[0] != '/') {
		if (length >= 0)
			errno = 0;
		fail(STEP_OUTSIDE);
	}
}

// become takes on the user and its capabilities. The folder is entered as root first, and as the user if root may not,
// as in a volume that is kept from it.
static void become(const struct request *r)
{
	const struct head *h = r->head;
	int entered = chdir(r->folder) == 0;

	if (!entered && errno != EACCES && errno != EPERM)
		fail(STEP_FOLDER);
	limit_bounding(h->bounding);
	if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0)
		fail(STEP_CAPABILITIES);
	own_streams((uid_t)h->uid);
	if (setgroups(h->groups, r->groups) != 0)
		fail(STEP_GROUPS);
	if (setgid((gid_t)h->gid) != 0)
		fail(STEP_GROUP);
	if (setuid((uid_t)h->uid) != 0)
		fail(STEP_USER);
	if (!entered && chdir(r->folder) != 0)
		fail(STEP_FOLDER);
	check_folder();
	set_capabilities(h);
	// The change of the user may have made us one that others of that user can look into (fs.suid_dumpable), who
	// would find a process that has no seccomp filter yet. One that has may be refused this.
	(void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
}

// execute runs the first program that is there and may be run; only a name without a slash has more than one place.
static void __attribute__((noreturn)) execute(const struct request *r, int filters_are_last)
{
	enum step step = STEP_NOT_FOUND;
	const char *program = NULL;
	uint32_t i;

	for (i = 0; i < r->head->programs && program == NULL; i++) {
		struct stat st;

		if (stat(r->programs[i], &st) != 0) {
			step = STEP_STAT;
		} else if (S_ISDIR(st.st_mode)) {
			step = STEP_ACCESS;
			errno = EISDIR;
		} else if (faccessat(AT_FDCWD, r->programs[i], X_OK, AT_EACCESS) != 0 && !(errno == EPERM && st.st_mode & 0111)) {
			// EPERM is how seccomp filters refuse a system call (faccessat2) that they do not know.
			step = STEP_ACCESS;
		} else {
			program = r->programs[i];
		}
	}
	if (program == NULL)
		fail(r->head->flags & SEARCH ? STEP_NOT_FOUND : step);
	if (filters_are_last)
		load_filters(r);
	execve(program, r->args, r->env);
	fail(STEP_EXECUTE);
}

// run is the process that becomes the program, in the container.
static void __attribute__((noreturn)) run(const struct request *r)
{
	const struct head *h = r->head;
	int privileged_filters = !(h->flags & NO_NEW_PRIVILEGES);

	// Not before, as from within its cgroup namespace nobody is let in who is outside.
	if (h->flags & BORN_IN_UNIFIED && setns(TARGET, CLONE_NEWCGROUP) != 0)
		fail(STEP_NAMESPACES);
	// Whoever came with us through a mistake must not go on into the container (CVE-2024-21626).
	if (fcntl(ANSWER, F_SETFD, FD_CLOEXEC) != 0 || syscall(SYS_close_range, FIRST_UNWANTED, ~0U, 0) != 0 || setsid() < 0)
		fail(STEP_SESSION);
	if (h->flags & JOIN_KEYRING && syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, r->keyring) < 0 && errno != ENOSYS)
		fail(STEP_KEYRING);
	set_limits(r);
	if (!privileged_filters && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
		fail(STEP_NO_NEW_PRIVILEGES);
	if (h->umask >= 0)
		umask((mode_t)h->umask);
	// Without no_new_privs loading them is a privilege, which is given up next.
	if (privileged_filters)
		load_filters(r);
	become(r);
	execute(r, !privileged_filters);
}

// fork_child makes the child, which is the supervisor's, as we are, and in the PID namespace, as we are not. The kernel
// tells its number before it runs, so that it is known even if we are killed now. It is the child that is born in the
// cgroup of v2: one that is frozen or has no processor time left would keep us from beginning, and the supervisor with us.
static long fork_child(const struct request *r, int *told)
{
	struct clone_args args = {0};

	if (!(r->head->flags & BORN_IN_UNIFIED))
		return syscall(SYS_clone, CLONE_PARENT | CLONE_PARENT_SETTID, 0L, told, 0L, 0L);
	args.flags = CLONE_PARENT | CLONE_PARENT_SETTID | CLONE_INTO_CGROUP;
	args.parent_tid = (uint64_t)(uintptr_t)told;
	args.cgroup = UNIFIED;
	return syscall(SYS_clone3, &args, sizeof(args));
}

void nodeagent_execinit(int argc, char **argv)
{
	struct request r;
	int *told;
	long pid;

	if (argc != 1 || strcmp(argv[0], "exec-init") != 0)
		return;
	prctl(PR_SET_NAME, "exec-init", 0, 0, 0);
	told = map(&r);
	close(REQUEST);
	enter(&r);
	pid = fork_child(&r, told);
	if (pid < 0)
		fail(STEP_FORK);
	if (pid == 0)
		run(&r);
	_exit(0);
}
