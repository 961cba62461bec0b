package command

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/nodeagent/nodeagent/cmd/nodectl/interrupt"
	"github.com/nodeagent/nodeagent/cmd/nodectl/terminal"
)

// Output gives write what an archive is written to: a file, which appears
// under its name only when it is whole, or with no name standard output,
// unless that is a terminal. what stands in errors, such as "save image".
func (c *CLI) Output(name, what string, write func(io.Writer) error) error {
	if name == "" {
		if terminal.Is(c.Out) {
			return errors.New("cowardly refusing to save to a terminal. Use the -o flag or redirect")
		}
		return write(c.Out)
	}
	if fi, err := os.Stat(name); err == nil && !fi.Mode().IsRegular() {
		return c.special(name, what, fi, write)
	}
	if _, err := os.Stat(filepath.Dir(name)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("failed to %s: invalid output path: directory %q does not exist", what, filepath.Dir(name))
	}
	f, err := os.CreateTemp(filepath.Dir(name), ".tmp-"+filepath.Base(name))
	if err != nil {
		return fmt.Errorf("failed to %s: %w", what, err)
	}
	remove := func() { _ = os.Remove(f.Name()) } // what was renamed is not there any more
	defer remove()
	defer interrupt.Undo(remove)()
	err = write(f)
	if cerr := f.Close(); err == nil && cerr != nil {
		err = fmt.Errorf("failed to %s: %w", what, cerr)
	}
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), name); err != nil {
		return fmt.Errorf("failed to %s: %w", what, err)
	}
	return nil
}

// special writes to a pipe or a device such as /dev/null.
func (c *CLI) special(name, what string, fi os.FileInfo, write func(io.Writer) error) error {
	if fi.IsDir() {
		return fmt.Errorf("failed to %s: %s is a directory", what, name)
	}
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("failed to %s: %w", what, err)
	}
	if err := write(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// CopyChunks writes the data of a stream's messages, which next returns until
// io.EOF.
func CopyChunks(to io.Writer, next func() ([]byte, error)) error {
	for {
		data, err := next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := to.Write(data); err != nil {
			return err
		}
	}
}

// ChunkSize is how much of a file one message carries, in bytes.
const ChunkSize = 256 << 10

// SendChunks sends what from holds in messages. That the other end has ended
// is for it to say why.
func SendChunks(from io.Reader, send func([]byte) error) error {
	buf := make([]byte, ChunkSize)
	for {
		n, err := from.Read(buf)
		if n > 0 {
			if serr := send(buf[:n]); errors.Is(serr, io.EOF) {
				return nil
			} else if serr != nil {
				return serr
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}
