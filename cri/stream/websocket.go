package stream

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream/wsstream"
	utilexec "k8s.io/utils/exec"
)

// The channels of a command over WebSocket, by number.
const (
	stdinChannel = iota
	stdoutChannel
	stderrChannel
	errorChannel
	resizeChannel
)

// offers tells whether a request is one for WebSocket with a subprotocol.
func offers(r *http.Request, protocol string) bool {
	if !wsstream.IsWebSocketRequest(r) {
		return false
	}
	for _, header := range r.Header.Values("Sec-WebSocket-Protocol") {
		for name := range strings.SplitSeq(header, ",") {
			if strings.TrimSpace(name) == protocol {
				return true
			}
		}
	}
	return false
}

// serveV5 runs exec or attach over v5.channel.k8s.io, in which a client can end
// its input without ending the rest. crictl's WebSocket speaks nothing else, and
// the streaming library does not serve it. run runs it.
func (s *Server) serveV5(w http.ResponseWriter, r *http.Request, session *session, run func(v5) error) {
	wanted := session.ticket.wanted
	channel := func(on bool, kind wsstream.ChannelType) wsstream.ChannelType {
		if on {
			return kind
		}
		return wsstream.IgnoreChannel
	}
	ws := wsstream.NewConn(map[string]wsstream.ChannelProtocolConfig{
		remotecommand.StreamProtocolV5Name: {Binary: true, Channels: []wsstream.ChannelType{
			stdinChannel:  channel(wanted.Stdin, wsstream.ReadChannel),
			stdoutChannel: channel(wanted.Stdout, wsstream.WriteChannel),
			stderrChannel: channel(wanted.Stderr, wsstream.WriteChannel),
			errorChannel:  wsstream.WriteChannel,
			resizeChannel: wsstream.ReadChannel,
		}},
	})
	ws.SetIdleTimeout(s.config.IdleTimeout)
	_, streams, err := ws.Open(w, r)
	if err != nil {
		s.config.Log.WithError(err).Debug("upgrade to WebSocket")
		return
	}
	defer ws.Close()
	c := v5{session: session, streams: streams, sizes: make(chan remotecommand.TerminalSize)}
	session.work.Go(c.readSizes)
	err = run(c)
	if _, err := c.streams[errorChannel].Write(outcomeOf(err)); err != nil {
		session.log.WithError(err).Debug("tell how it ended")
	}
}

// v5 is the streams of one command.
type v5 struct {
	*session
	streams []io.ReadWriteCloser
	sizes   chan remotecommand.TerminalSize
}

func (c v5) exec() error {
	return c.ExecInContainer(c.ctx, "", "", c.ticket.id, c.ticket.cmd, c.streams[stdinChannel], c.streams[stdoutChannel],
		c.streams[stderrChannel], c.ticket.wanted.TTY, c.sizes, 0)
}

func (c v5) attach() error {
	return c.AttachContainer(c.ctx, "", "", c.ticket.id, c.streams[stdinChannel], c.streams[stdoutChannel],
		c.streams[stderrChannel], c.ticket.wanted.TTY, c.sizes)
}

// readSizes passes on the terminal's sizes until the connection is closed.
func (c v5) readSizes() {
	// The connection stands still when nobody takes what comes.
	defer func() { _, _ = io.Copy(io.Discard, c.streams[resizeChannel]) }()
	defer close(c.sizes)
	sizes := json.NewDecoder(c.streams[resizeChannel])
	for {
		var size remotecommand.TerminalSize
		if err := sizes.Decode(&size); err != nil {
			return
		}
		select {
		case c.sizes <- size:
		case <-c.ctx.Done():
			return
		}
	}
}

// outcomeStatus is what clients are told of the end (metav1.Status).
type outcomeStatus struct {
	Status  string          `json:"status"`
	Message string          `json:"message,omitempty"`
	Reason  string          `json:"reason,omitempty"`
	Details *outcomeDetails `json:"details,omitempty"`
	Code    int             `json:"code,omitempty"`
}

type outcomeDetails struct {
	Causes []outcomeCause `json:"causes"`
}

type outcomeCause struct {
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// outcomeOf words the end as the other protocols of the library do.
func outcomeOf(err error) []byte {
	status := outcomeStatus{Status: "Success"}
	var exit utilexec.ExitError
	switch {
	case errors.As(err, &exit) && exit.Exited():
		status = outcomeStatus{
			Status: "Failure", Reason: remotecommand.NonZeroExitCodeReason,
			Message: fmt.Sprintf("command terminated with non-zero exit code: %v", exit),
			Details: &outcomeDetails{Causes: []outcomeCause{{
				Reason: remotecommand.ExitCodeCauseType, Message: strconv.Itoa(exit.ExitStatus()),
			}}},
		}
	case err != nil:
		status = outcomeStatus{
			Status: "Failure", Reason: "InternalError", Code: http.StatusInternalServerError,
			Message: fmt.Sprintf("Internal error occurred: %v", err),
		}
	}
	data, err := json.Marshal(status)
	if err != nil {
		return nil
	}
	return data
}
