package stream

import (
	"io"
	"net/http"
	"strings"

	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
	"k8s.io/streaming/pkg/httpstream/wsstream"
)

// The subprotocols of commands over WebSocket from version 4 on, which tell the
// end as outcomeOf words it. In version 5 a client can end its input without
// ending the rest.
const (
	v4Protocol       = "v4." + wsstream.ChannelWebSocketProtocol
	v4Base64Protocol = "v4." + wsstream.Base64ChannelWebSocketProtocol
	v5Protocol       = remotecommand.StreamProtocolV5Name
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

// serveWebSocket runs a command over WebSocket.
func (s *Server) serveWebSocket(w http.ResponseWriter, r *http.Request, session *session) {
	ws := wsstream.NewConn(protocolsFor(session.ticket.wanted))
	ws.SetIdleTimeout(idleTimeout)
	protocol, streams, err := ws.Open(w, r)
	if err != nil {
		session.log.WithError(err).Debug("upgrade to WebSocket")
		return
	}
	defer ws.Close()
	outcome := outcomeOf
	switch protocol {
	case v5Protocol:
	case v4Protocol, v4Base64Protocol:
		announce(streams, session.ticket.wanted)
	default:
		announce(streams, session.ticket.wanted)
		outcome = plainOutcome
	}
	command{session, streams}.run(outcome)
}

// announce tells older clients by an empty message that the command begins.
func announce(streams []io.ReadWriteCloser, wanted Wanted) {
	first := errorChannel
	switch {
	case wanted.Stdout:
		first = stdoutChannel
	case wanted.Stderr:
		first = stderrChannel
	}
	_, _ = streams[first].Write(nil) // who is gone is noticed by what comes next
}

// protocolsFor are the subprotocols, each with all channels.
func protocolsFor(wanted Wanted) map[string]wsstream.ChannelProtocolConfig {
	channel := func(on bool, kind wsstream.ChannelType) wsstream.ChannelType {
		if on {
			return kind
		}
		return wsstream.IgnoreChannel
	}
	kinds := []wsstream.ChannelType{
		stdinChannel:  channel(wanted.Stdin, wsstream.ReadChannel),
		stdoutChannel: channel(wanted.Stdout, wsstream.WriteChannel),
		stderrChannel: channel(wanted.Stderr, wsstream.WriteChannel),
		errorChannel:  wsstream.WriteChannel,
		resizeChannel: wsstream.ReadChannel,
	}
	protocols := map[string]wsstream.ChannelProtocolConfig{}
	for name, binary := range map[string]bool{
		"": true, wsstream.ChannelWebSocketProtocol: true, wsstream.Base64ChannelWebSocketProtocol: false,
		v4Protocol: true, v4Base64Protocol: false, v5Protocol: true,
	} {
		protocols[name] = wsstream.ChannelProtocolConfig{Binary: binary, Channels: kinds}
	}
	return protocols
}
