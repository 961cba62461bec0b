// Package fdpass moves open descriptors from the agent to the supervisor. A
// sender connects to the supervisor's second Unix socket, sends one message of
// a random token, a mask and the descriptors (SCM_RIGHTS), and gets one byte
// back. A request on the first socket then names the token. Every received
// descriptor is close-on-exec from the start, and in blocking mode, as programs
// expect of their standard streams; the other end of a pipe keeps its own.
package fdpass

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// TokenSize is the length of a token in bytes.
const TokenSize = 16

// ack is what the receiver answers once the token can be named.
const ack = 'k'

// sendTimeout bounds one sending when the caller's context has no deadline.
const sendTimeout = 10 * time.Second

// Set is what one token stands for. Any of the files may be nil; whoever holds
// the Set closes them.
type Set struct {
	Stdin, Stdout, Stderr *os.File
	// Console is a Unix socket that takes a terminal's master.
	Console *os.File
}

// Empty reports whether s holds no file.
func (s *Set) Empty() bool {
	return s == nil || s.Stdin == nil && s.Stdout == nil && s.Stderr == nil && s.Console == nil
}

// Close closes every file of s. A nil Set may be closed.
func (s *Set) Close() {
	if s == nil {
		return
	}
	for _, f := range s.slots() {
		if *f != nil {
			(*f).Close()
			*f = nil
		}
	}
}

func (s *Set) slots() []**os.File {
	return []**os.File{&s.Stdin, &s.Stdout, &s.Stderr, &s.Console}
}

// RequireRoot fails unless the process at the other end of a Unix socket has,
// or had when it listened or connected, user ID 0.
func RequireRoot(conn *net.UnixConn) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if credErr != nil {
		return fmt.Errorf("get peer credentials: %w", credErr)
	}
	if cred.Uid != 0 {
		return fmt.Errorf("peer has user ID %d, not 0", cred.Uid)
	}
	return nil
}

// Send hands the files of set to the supervisor that listens on socket and
// returns the token they are known by. A nil error means that the supervisor
// holds its duplicates; the caller keeps its own files. When ctx ends the error
// is its end.
func Send(ctx context.Context, socket string, set *Set) ([]byte, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	conn := c.(*net.UnixConn)
	defer conn.Close()
	if err := RequireRoot(conn); err != nil {
		return nil, err
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, sendTimeout)
		defer cancel()
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	token, err := exchange(conn, set)
	if ctx.Err() != nil && err != nil {
		err = ctx.Err()
	}
	if err != nil {
		return nil, fmt.Errorf("send descriptors: %w", err)
	}
	return token, nil
}

// exchange sends the files, and waits until the supervisor has them.
func exchange(conn *net.UnixConn, set *Set) ([]byte, error) {
	token := make([]byte, TokenSize)
	if _, err := rand.Read(token); err != nil {
		return nil, err
	}
	if err := sendFiles(conn, token, set); err != nil {
		return nil, err
	}
	answer := make([]byte, 1)
	if _, err := conn.Read(answer); err != nil {
		return nil, err
	}
	if answer[0] != ack {
		return nil, errors.New("refused")
	}
	return token, nil
}

func sendFiles(conn *net.UnixConn, token []byte, set *Set) error {
	var mask byte
	var fds []int
	var raws []func(func(uintptr)) error
	for i, f := range set.slots() {
		if *f == nil {
			continue
		}
		raw, err := (*f).SyscallConn()
		if err != nil {
			return err
		}
		raws = append(raws, raw.Control)
		mask |= 1 << i
	}
	return withDescriptors(raws, &fds, func() error {
		_, _, err := conn.WriteMsgUnix(append(token, mask), unix.UnixRights(fds...), nil)
		return err
	})
}

// withDescriptors runs do while every file's descriptor is held open. Fd()
// would do the same but puts the caller's files into blocking mode.
func withDescriptors(controls []func(func(uintptr)) error, fds *[]int, do func() error) error {
	if len(controls) == 0 {
		return do()
	}
	var inner error
	err := controls[0](func(fd uintptr) {
		*fds = append(*fds, int(fd))
		inner = withDescriptors(controls[1:], fds, do)
	})
	return errors.Join(err, inner)
}

// Receive takes one message from conn. The caller stores the set under the
// token and then calls Acknowledge.
func Receive(conn *net.UnixConn) (token []byte, set *Set, err error) {
	buf := make([]byte, TokenSize+1)
	oob := make([]byte, unix.CmsgSpace(4*8))
	n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, nil, err
	}
	files, err := parseRights(oob[:oobn])
	set = &Set{}
	slots := set.slots()
	mask := buf[TokenSize]
	if err == nil && n != len(buf) {
		err = errors.New("short message")
	}
	next := 0
	for i := range slots {
		if mask&(1<<i) != 0 && next < len(files) {
			*slots[i] = files[next]
			next++
			mask &^= 1 << i
		}
	}
	if err == nil && (mask != 0 || next != len(files)) {
		err = errors.New("mask and descriptors disagree")
	}
	if err != nil {
		set.Close()
		for _, f := range files[next:] {
			f.Close()
		}
		return nil, nil, fmt.Errorf("receive descriptors: %w", err)
	}
	return buf[:TokenSize], set, nil
}

// Acknowledge tells the sender that its token may be named from now on.
func Acknowledge(conn *net.UnixConn) error {
	_, err := conn.Write([]byte{ack})
	return err
}

func parseRights(oob []byte) ([]*os.File, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			return files, err
		}
		for _, fd := range fds {
			// Before it is a file, which would be polled otherwise.
			_ = unix.SetNonblock(fd, false)
			files = append(files, os.NewFile(uintptr(fd), "passed"))
		}
	}
	return files, nil
}
