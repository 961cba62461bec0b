package stdio

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/supervisor/server/logfile"
)

// buffers holds what is read into: half of a pipe's default capacity.
var buffers = sync.Pool{New: func() any {
	b := make([]byte, 32<<10)
	return &b
}}

// readWhenReady waits until file can be read, takes a buffer only then, reads
// once, and hands over what came. An error is the end of the file: io.EOF has
// no meaning of its own here, so EOF is zero bytes.
func readWhenReady(raw syscall.RawConn, use func([]byte)) (n int, err error) {
	var bp *[]byte
	var rerr error
	err = raw.Read(func(fd uintptr) bool {
		if !readable(int(fd)) {
			return false
		}
		bp = buffers.Get().(*[]byte)
		n, rerr = retryRead(int(fd), *bp)
		if rerr == unix.EAGAIN {
			buffers.Put(bp)
			bp = nil
			return false
		}
		return true
	})
	if bp != nil {
		defer buffers.Put(bp)
	}
	if err == nil {
		err = rerr
	}
	if err != nil || n <= 0 {
		return 0, err
	}
	use((*bp)[:n])
	return n, nil
}

// readable asks whether a read would return at once, with data or the end.
func readable(fd int) bool {
	fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err != nil || n > 0
}

func retryRead(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// reader carries one output stream of a container.
type reader struct {
	name    string
	file    *os.File
	log     *logfile.Stream
	started bool
	// stopping tells run to take what lies in the pipe and end.
	stopping atomic.Bool
	done     chan struct{}
}

func newReader(f *os.File, cfg Config, name string) *reader {
	return &reader{
		name: name,
		file: f,
		log:  logfile.NewStream(cfg.Log, name, cfg.MaxLine),
		done: make(chan struct{}),
	}
}

// run reads until nobody can write any more, or until stop.
func (r *reader) run(broadcast func([]byte)) {
	defer func() { r.log.Flush(time.Now()) }()
	raw, err := r.file.SyscallConn()
	if err != nil {
		return
	}
	use := func(data []byte) {
		r.log.Feed(data, time.Now())
		broadcast(data)
	}
	for {
		n, err := readWhenReady(raw, use)
		if errors.Is(err, os.ErrDeadlineExceeded) && r.stopping.Load() {
			r.sweep(raw, use)
			return
		}
		// A terminal whose last user is gone reads as EIO.
		if err != nil || n == 0 {
			return
		}
	}
}

// sweepLimit bounds what is read after stop: the largest capacity of a pipe.
const sweepLimit = 1 << 20

// sweep takes what lies in the pipe without waiting for more.
func (r *reader) sweep(raw syscall.RawConn, use func([]byte)) {
	bp := buffers.Get().(*[]byte)
	defer buffers.Put(bp)
	for total := 0; total < sweepLimit; {
		var n int
		var rerr error
		if err := raw.Control(func(fd uintptr) { n, rerr = retryRead(int(fd), *bp) }); err != nil || rerr != nil || n <= 0 {
			return
		}
		use((*bp)[:n])
		total += n
	}
}

// stop makes run end soon; waiting for done is the caller's.
func (r *reader) stop() {
	r.stopping.Store(true)
	r.file.SetReadDeadline(time.Unix(1, 0))
}
