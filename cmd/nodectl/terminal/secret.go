package terminal

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

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
	if restore, err = keep(f, false); err != nil {
		return nil, err
	}
	mode, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err == nil {
		mode.Lflag &^= unix.ECHO
		mode.Lflag |= unix.ICANON | unix.ISIG
		err = unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, mode)
	}
	if err != nil {
		restore()
		return nil, fmt.Errorf("turn off the terminal's echo: %w", err)
	}
	return restore, nil
}
