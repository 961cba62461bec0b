package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"
)

// maxSyncOutput is how much ExecSync keeps of each stream, in bytes.
const maxSyncOutput = 16 << 20

// ExecSync runs a process in a running container and gives its output. When
// timeout passes, the process and all it started are killed, and the error is
// context.DeadlineExceeded.
func (m *Manager) ExecSync(ctx context.Context, containerID string, cmd []string, timeout time.Duration) (ExecResult, error) {
	if timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	var stdout, stderr capped
	code, err := m.Exec(ctx, ExecRequest{
		ContainerID: containerID, Cmd: cmd, IO: IO{Stdout: &stdout, Stderr: &stderr},
	})
	if errors.Is(err, context.DeadlineExceeded) && timeout > 0 {
		return ExecResult{}, fmt.Errorf("timed out after %s: %w", timeout, err)
	}
	if err != nil {
		return ExecResult{}, err
	}
	return ExecResult{Stdout: stdout.buf.Bytes(), Stderr: stderr.buf.Bytes(), ExitCode: code}, nil
}

// capped keeps the first maxSyncOutput bytes and swallows the rest, so that
// the process is not held up.
type capped struct{ buf bytes.Buffer }

func (c *capped) Write(p []byte) (int, error) {
	c.buf.Write(p[:min(len(p), maxSyncOutput-c.buf.Len())])
	return len(p), nil
}

func (c *capped) Close() error { return nil }
