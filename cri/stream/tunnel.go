package stream

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync/atomic"

	"golang.org/x/net/websocket"
	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// tunnelProtocol is the WebSocket subprotocol whose messages are the bytes of a
// SPDY connection for port-forward.
const tunnelProtocol = portforward.WebsocketsSPDYTunnelingPortForwardV1

// tunnel serves SPDY inside of WebSocket: handler sees an upgrade to SPDY, and
// gets the WebSocket for its connection.
func tunnel(w http.ResponseWriter, r *http.Request, handler http.HandlerFunc) {
	server := websocket.Server{
		Handshake: func(config *websocket.Config, _ *http.Request) error {
			if !slices.Contains(config.Protocol, tunnelProtocol) {
				return fmt.Errorf("no %s among %v", tunnelProtocol, config.Protocol)
			}
			config.Protocol = []string{tunnelProtocol}
			return nil
		},
		Handler: func(ws *websocket.Conn) {
			ws.PayloadType = websocket.BinaryFrame
			inner := r.Clone(r.Context())
			inner.Header = http.Header{}
			inner.Header.Set(httpstream.HeaderConnection, httpstream.HeaderUpgrade)
			inner.Header.Set(httpstream.HeaderUpgrade, spdy.HeaderSpdy31)
			inner.Header.Set(httpstream.HeaderProtocolVersion, portforward.ProtocolV1Name)
			handler(&tunneled{conn: &tunnelConn{Conn: ws}, header: http.Header{}}, inner)
		},
	}
	server.ServeHTTP(w, r)
}

// tunnelConn may be closed again without an error, which spdystream would wait
// a second to tell.
type tunnelConn struct {
	*websocket.Conn
	closed atomic.Bool
}

func (c *tunnelConn) Close() error {
	if !c.closed.Swap(true) {
		// It says goodbye, for which it may be too late.
		_ = c.Conn.Close()
	}
	return nil
}

// tunneled is the answer to an upgrade that has been made already.
type tunneled struct {
	conn   *tunnelConn
	header http.Header
}

func (t *tunneled) Header() http.Header { return t.header }

func (t *tunneled) WriteHeader(int) {}

// Write takes the text of an error, which there is nobody to read.
func (t *tunneled) Write(p []byte) (int, error) { return len(p), nil }

// Hijack gives the connection.
func (t *tunneled) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return t.conn, bufio.NewReadWriter(bufio.NewReader(t.conn), bufio.NewWriter(t.conn)), nil
}
