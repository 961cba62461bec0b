// Package blocked finds out what the goroutines and threads of a process wait
// for, to tell a person why something does not go on. It reads /proc
// (proc_pid_syscall(5), wchan, stack) and the runtime's profile of goroutines;
// nothing of it stops anything, and what cannot be read is left out.
package blocked
