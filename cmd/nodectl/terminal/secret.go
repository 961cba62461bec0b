package terminal

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// ReadLine reads a line from a terminal, or what else in is, byte by byte, so
// that what follows stays for the next reader.
func ReadLine(in io.Reader) (string, error) {
	line, err := bufio.NewReaderSize(oneByOne{in}, 16).ReadString('\n')
	if err != nil && (!errors.Is(err, io.EOF) || line == "") {
		return "", err
	}
	return strings.TrimRight(line, "\r\n"), nil
}

// oneByOne never reads ahead.
type oneByOne struct{ io.Reader }

// Read reads one byte.
func (o oneByOne) Read(p []byte) (int, error) { return o.Reader.Read(p[:min(len(p), 1)]) }

// ReadSecret asks on out, and reads a line from a terminal that does not show
// what is typed from there on, and is put back whatever ends this process.
func ReadSecret(f *os.File, out io.Writer, question string) (string, error) {
	restore, err := silence(f)
	if err != nil {
		return "", err
	}
	defer restore()
	fmt.Fprint(out, question)
	defer fmt.Fprintln(out) // the person's own was not shown
	return ReadLine(f)
}

// silence turns echo off.
func silence(f *os.File) (restore func(), err error) {
	fd := int(f.Fd())
	old, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("turn off the terminal's echo: %w", err)
	}
	silent := *old
	silent.Lflag &^= unix.ECHO
	silent.Lflag |= unix.ICANON | unix.ISIG
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &silent); err != nil {
		return nil, fmt.Errorf("turn off the terminal's echo: %w", err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGINT)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		select {
		case <-stop:
		case s := <-signals:
			_ = unix.IoctlSetTermios(fd, unix.TCSETS, old)
			os.Exit(128 + int(s.(unix.Signal)))
		}
	}()
	return sync.OnceFunc(func() {
		signal.Stop(signals)
		close(stop)
		<-stopped
		_ = unix.IoctlSetTermios(fd, unix.TCSETS, old)
	}), nil
}
