package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

// webPort is where the web server in the demo's pod listens.
const webPort = 8080

// Serve is the program inside the demo's pod: a web server that says hello and writes a line to w for each request. It
// returns nil once ctx is done.
func Serve(ctx context.Context, w io.Writer) error {
	listener, err := net.Listen("tcp", fmt.Sprintf(":%d", webPort))
	if err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("ask for the host name: %w", err)
	}
	handler := func(answer http.ResponseWriter, request *http.Request) {
		fmt.Fprintf(w, "%s %s from %s\n", request.Method, request.URL.Path, request.RemoteAddr)
		fmt.Fprintf(answer, "Hello from pod %s, process %d.\n", host, os.Getpid())
	}
	server := &http.Server{Handler: http.HandlerFunc(handler), ReadHeaderTimeout: 5 * time.Second}
	fmt.Fprintf(w, "listening on port %d\n", webPort)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }() // ends with Close below
	select {
	case err := <-served:
		return err
	case <-ctx.Done():
	}
	fmt.Fprintln(w, "asked to end")
	err = server.Close()
	if served := <-served; !errors.Is(served, http.ErrServerClosed) {
		return served
	}
	return err
}
