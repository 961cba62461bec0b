package stream

import (
	"encoding/json"
	"io"

	"github.com/nodeagent/nodeagent/sandbox"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// The channels of a command, numbered as WebSocket numbers them.
const (
	stdinChannel = iota
	stdoutChannel
	stderrChannel
	errorChannel
	resizeChannel
	channels
)

// maxSize bounds the text of a terminal's size, in bytes.
const maxSize = 1 << 10

// command is an exec, or an attach, whose streams are there. One that nobody
// asked for may be nil.
type command struct {
	*session
	streams []io.ReadWriteCloser
}

// run runs the command to its end, and tells how it ended as outcome words it.
func (c command) run(outcome func(error) []byte) {
	streams := c.io()
	err := c.call(func() error {
		if c.ticket.kind == kindAttach {
			return c.runtime.Attach(c.ctx, c.ticket.id, streams)
		}
		code, err := c.runtime.Exec(c.ctx, sandbox.ExecRequest{ContainerID: c.ticket.id, Cmd: c.ticket.cmd, IO: streams})
		if err == nil && code != 0 {
			err = exitCode(code)
		}
		return err
	})
	text := outcome(err)
	if len(text) == 0 {
		return
	}
	if _, err := c.streams[errorChannel].Write(text); err != nil {
		c.log.WithError(err).Debug("tell how it ended")
	}
}

// io picks the streams that were asked for: WebSocket has all of them.
func (c command) io() sandbox.IO {
	wanted := c.ticket.wanted
	streams := sandbox.IO{TTY: wanted.TTY}
	if wanted.Stdin {
		streams.Stdin = c.streams[stdinChannel]
	}
	if wanted.Stdout {
		streams.Stdout = c.streams[stdoutChannel]
	}
	if wanted.Stderr && !wanted.TTY {
		streams.Stderr = c.streams[stderrChannel]
	}
	if c.streams[resizeChannel] == nil {
		return streams
	}
	sizes := make(chan sandbox.TerminalSize, 1)
	// It ends with the connection, which is closed before the session's end is waited for.
	c.work.Go(func() { readSizes(c.streams[resizeChannel], sizes) })
	if wanted.TTY {
		streams.Resize = sizes
	}
	return streams
}

// readSizes passes on a terminal's sizes until the stream ends; then sizes,
// which has room for one, is closed. Of several that nobody took only the last
// is kept, so that what comes behind them is not held up.
func readSizes(stream io.Reader, sizes chan sandbox.TerminalSize) {
	// WebSocket's connection stands still when nobody takes what comes.
	defer func() { _, _ = io.Copy(io.Discard, stream) }()
	defer close(sizes)
	limited := &io.LimitedReader{R: stream}
	decoder := json.NewDecoder(limited)
	for {
		limited.N = maxSize
		var size remotecommand.TerminalSize
		if err := decoder.Decode(&size); err != nil {
			return
		}
		select {
		case <-sizes:
		default:
		}
		// There is room: nobody else sends.
		sizes <- sandbox.TerminalSize{Width: size.Width, Height: size.Height}
	}
}
