// Package stdio carries the standard streams of one container: from the
// container to its log and to any number of attached clients, and from the
// clients to the container.
//
// Without a terminal the streams are FIFOs with names, so that another
// supervisor finds them when this one dies. The container holds its output
// FIFOs open for reading too and therefore never gets SIGPIPE. Its standard
// input is open for reading only: there, the supervisor closing its end must
// be EOF. With a terminal the supervisor holds the master.
//
// An idle container costs a parked goroutine for each output and no buffer:
// one is taken only once there is something to read.
package stdio

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/supervisor/server/logfile"
)

// Config says what streams a container has.
type Config struct {
	// Dir is the directory of the FIFOs; it is made, and removed by Close.
	Dir string
	// Terminal makes one stream of them all, a terminal's master.
	Terminal bool
	// Stdin keeps the standard input open for clients; without it the
	// container reads from /dev/null. StdinOnce closes it once the first
	// client's input ended.
	Stdin, StdinOnce bool
	// UID and GID own the FIFOs: the container's root on the host.
	UID, GID int
	// Log receives all output; nil means none. Close closes it.
	Log *logfile.Writer
	// MaxLine is the longest log line in bytes; zero means the default.
	MaxLine int
}

// Child is the container's side of the streams. Its owner closes it once the
// container was started. Nil files stand for /dev/null.
type Child struct {
	Stdin, Stdout, Stderr *os.File
	// Console is the socket the terminal's master is sent over.
	Console *os.File
}

// Close closes every file of the child's side.
func (c *Child) Close() {
	for _, f := range []*os.File{c.Stdin, c.Stdout, c.Stderr, c.Console} {
		if f != nil {
			f.Close()
		}
	}
}

// IO is the supervisor's side of one container's streams.
type IO struct {
	cfg     Config
	readers []*reader
	// console is our end of the socket the master comes over.
	console *os.File

	mu      sync.Mutex // guards the fields below
	input   *os.File   // what clients' input is written to
	master  *os.File
	clients map[*client]struct{}
	once    bool // the client whose end closes the input has been chosen
	closed  bool
}

const (
	stdinName  = "stdin"
	stdoutName = "stdout"
	stderrName = "stderr"
)

// Create makes the streams of a container about to be started. Nothing is
// read before Run.
func Create(cfg Config) (_ *IO, _ *Child, err error) {
	o := &IO{cfg: cfg}
	child := &Child{}
	defer func() {
		if err != nil {
			child.Close()
			o.Close()
		}
	}()
	if cfg.Terminal {
		o.console, child.Console, err = consolePair()
		return o, child, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, nil, fmt.Errorf("make stdio: %w", err)
	}
	if cfg.Stdin {
		if child.Stdin, err = o.fifo(stdinName, unix.O_RDONLY|unix.O_NONBLOCK); err != nil {
			return nil, nil, err
		}
		if o.input, err = openFIFO(o.path(stdinName), unix.O_WRONLY); err != nil {
			return nil, nil, err
		}
		if err := setBlocking(child.Stdin); err != nil {
			return nil, nil, err
		}
	}
	for _, s := range []struct {
		name  string
		child **os.File
	}{{stdoutName, &child.Stdout}, {stderrName, &child.Stderr}} {
		if *s.child, err = o.fifo(s.name, unix.O_RDWR); err != nil {
			return nil, nil, err
		}
		if err := o.addReader(s.name); err != nil {
			return nil, nil, err
		}
	}
	return o, child, nil
}

// Adopt opens the streams of a container that another supervisor started and
// begins to read. A terminal's master died with that supervisor.
func Adopt(cfg Config) (*IO, error) {
	o := &IO{cfg: cfg}
	if cfg.Terminal {
		return o, nil
	}
	for _, name := range []string{stdoutName, stderrName} {
		if err := o.addReader(name); err != nil {
			o.Close()
			return nil, err
		}
	}
	if cfg.Stdin {
		// ENXIO: the container has closed its standard input.
		in, err := openFIFO(o.path(stdinName), unix.O_WRONLY)
		if err != nil && !errors.Is(err, unix.ENXIO) && !errors.Is(err, os.ErrNotExist) {
			o.Close()
			return nil, err
		}
		o.input = in
	}
	return o, o.Run()
}

// Run begins to carry the output. With a terminal, the container's init must
// have sent the master by then.
func (o *IO) Run() error {
	if o.console != nil {
		master, err := receiveMaster(o.console)
		o.console.Close()
		o.console = nil
		if err != nil {
			return fmt.Errorf("receive terminal: %w", err)
		}
		o.mu.Lock()
		o.master, o.input = master, master
		o.mu.Unlock()
		o.readers = append(o.readers, newReader(master, o.cfg, stdoutName))
		for c := range o.snapshot() {
			o.startInput(c)
		}
	}
	for _, r := range o.readers {
		r.started = true
		go func() {
			defer close(r.done)
			r.run(func(data []byte) { o.broadcast(r.name, data) })
		}()
	}
	return nil
}

// Resize sets the terminal's size in characters.
func (o *IO) Resize(width, height uint16) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.master == nil {
		return fmt.Errorf("no terminal: %w", errdefs.ErrFailedPrecondition)
	}
	raw, err := o.master.SyscallConn()
	if err != nil {
		return err
	}
	var ierr error
	if err := raw.Control(func(fd uintptr) {
		ierr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: height, Col: width})
	}); err != nil {
		return err
	}
	return ierr
}

// ReopenLog switches to a new file at the log's path.
func (o *IO) ReopenLog() error { return o.cfg.Log.Reopen() }

// Drain carries what the container's processes have written, after its init
// ended. Processes that live on and keep an output open are waited for until
// patience is over; then what they wrote by then is carried.
func (o *IO) Drain(patience time.Duration) {
	for c := range o.snapshot() {
		c.release()
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	late := false
	for _, r := range o.readers {
		if !r.started {
			continue
		}
		if !late {
			select {
			case <-r.done:
				continue
			case <-timer.C:
				late = true
			}
		}
		r.stop()
		<-r.done
	}
}

// Suspend ends the reading and writes what was read into the log, the beginning
// of a line too. What comes later is for the next supervisor.
func (o *IO) Suspend() {
	for c := range o.snapshot() {
		c.release()
	}
	for _, r := range o.readers {
		if r.started {
			r.stop()
		}
	}
	for _, r := range o.readers {
		if r.started {
			<-r.done
		}
	}
}

// Close closes the streams, gives the clients EOF once they took what is
// queued for them, and removes the FIFOs. Readers that still run end first.
func (o *IO) Close() {
	o.mu.Lock()
	if o.closed {
		o.mu.Unlock()
		return
	}
	o.closed = true
	clients := o.clients
	o.clients = nil
	input, master := o.input, o.master
	o.input, o.master = nil, nil
	o.mu.Unlock()

	for c := range clients {
		c.release()
	}
	for _, r := range o.readers {
		if r.started {
			r.stop()
			<-r.done
		}
		r.file.Close()
	}
	for _, f := range []*os.File{input, master, o.console} {
		if f != nil {
			f.Close()
		}
	}
	for c := range clients {
		c.finish()
	}
	o.cfg.Log.Close()
	if o.cfg.Dir != "" {
		os.RemoveAll(o.cfg.Dir)
	}
}

func (o *IO) path(name string) string { return filepath.Join(o.cfg.Dir, name) }

// fifo makes a FIFO and opens the container's side of it.
func (o *IO) fifo(name string, flags int) (*os.File, error) {
	path := o.path(name)
	if err := unix.Mkfifo(path, 0o600); err != nil {
		return nil, fmt.Errorf("make stdio %s: %w", path, err)
	}
	if err := os.Lchown(path, o.cfg.UID, o.cfg.GID); err != nil {
		return nil, fmt.Errorf("make stdio: %w", err)
	}
	// Without O_NOFOLLOW, which the open file would keep, and which CRIU
	// cannot restore. Nobody else writes to the folder.
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open stdio %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

func (o *IO) addReader(name string) error {
	f, err := openFIFO(o.path(name), unix.O_RDONLY)
	if err != nil {
		return err
	}
	o.readers = append(o.readers, newReader(f, o.cfg, name))
	return nil
}

// openFIFO opens our side of a FIFO for Go's poller.
func openFIFO(path string, flags int) (*os.File, error) {
	fd, err := unix.Open(path, flags|unix.O_NONBLOCK|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("open stdio %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

func setBlocking(f *os.File) error {
	// Fd puts a file that Go polls into blocking mode.
	return unix.SetNonblock(int(f.Fd()), false)
}

// consolePair makes the socket that a terminal's master is sent over.
func consolePair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make terminal socket: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "console"), os.NewFile(uintptr(fds[1]), "console"), nil
}

// receiveMaster takes the master that lies in the socket already.
func receiveMaster(socket *os.File) (*os.File, error) {
	name := make([]byte, 4096)
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := unix.Recvmsg(int(socket.Fd()), name, oob, unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
	if err != nil {
		return nil, err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return nil, err
	}
	if len(msgs) != 1 {
		return nil, io.ErrUnexpectedEOF
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil {
		return nil, err
	}
	if err := unix.SetNonblock(fds[0], true); err != nil {
		unix.Close(fds[0])
		return nil, err
	}
	return os.NewFile(uintptr(fds[0]), "terminal"), nil
}
