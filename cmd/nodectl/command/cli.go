// Package command is what all commands of nodectl share: the streams, the
// connection to the agent, and how errors become words and exit codes.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"

	"github.com/docker/cli/cli/config/configfile"
	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	// DefaultHost is the agent's socket when neither --host nor the
	// environment names another.
	DefaultHost = "unix:///run/nodeagent/nodeagent.sock"
	// HostVariable is the environment variable that names another.
	HostVariable = "NODEAGENT_HOST"
	// maxMessage is the biggest message, in bytes.
	maxMessage = 64 << 20
)

// CLI is one run of nodectl. Close ends it.
type CLI struct {
	// In, Out and Err are the standard streams.
	In  *os.File
	Out io.Writer
	Err io.Writer
	// Host is the agent's socket, such as unix:///run/nodeagent.sock.
	Host string

	// mu guards the two below.
	mu      sync.Mutex
	conn    *grpc.ClientConn
	dialErr error

	// config guards the one below, which is read when it is first wanted.
	config     sync.Once
	configFile *configfile.ConfigFile
}

// New makes a CLI on the process's own streams.
func New() *CLI {
	host := os.Getenv(HostVariable)
	if host == "" {
		host = DefaultHost
	}
	return &CLI{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Host: host}
}

// Close closes the connection.
func (c *CLI) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// Containers is the agent's service of containers.
func (c *CLI) Containers() (nodev1.ContainersClient, error) {
	conn, err := c.connect()
	return nodev1.NewContainersClient(conn), err
}

// Images is the agent's service of images.
func (c *CLI) Images() (nodev1.ImagesClient, error) {
	conn, err := c.connect()
	return nodev1.NewImagesClient(conn), err
}

// Registries is the agent's service that reaches registries.
func (c *CLI) Registries() (nodev1.RegistriesClient, error) {
	conn, err := c.connect()
	return nodev1.NewRegistriesClient(conn), err
}

// Volumes is the agent's service of volumes.
func (c *CLI) Volumes() (nodev1.VolumesClient, error) {
	conn, err := c.connect()
	return nodev1.NewVolumesClient(conn), err
}

// Events is the agent's service that tells what happens.
func (c *CLI) Events() (nodev1.EventsClient, error) {
	conn, err := c.connect()
	return nodev1.NewEventsClient(conn), err
}

// System is the agent's service that tells of itself.
func (c *CLI) System() (nodev1.SystemClient, error) {
	conn, err := c.connect()
	return nodev1.NewSystemClient(conn), err
}

// Debug is the agent's service that says why something is as it is.
func (c *CLI) Debug() (nodev1.DebugClient, error) {
	conn, err := c.connect()
	return nodev1.NewDebugClient(conn), err
}

// Store is the agent's service of what is on the disk.
func (c *CLI) Store() (nodev1.StoreClient, error) {
	conn, err := c.connect()
	return nodev1.NewStoreClient(conn), err
}

// Runtime is the agent's runtime service of CRI.
func (c *CLI) Runtime() (runtime.RuntimeServiceClient, error) {
	conn, err := c.connect()
	return runtime.NewRuntimeServiceClient(conn), err
}

// Networks is the agent's service of people's networks.
func (c *CLI) Networks() (nodev1.NetworksClient, error) {
	conn, err := c.connect()
	return nodev1.NewNetworksClient(conn), err
}

// connect prepares the connection; the first call dials.
func (c *CLI) connect() (*grpc.ClientConn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil {
		return c.conn, nil
	}
	path, ok := strings.CutPrefix(c.Host, "unix://")
	if !ok || path == "" {
		return nil, fmt.Errorf("invalid host %q: it must be unix://PATH", c.Host)
	}
	conn, err := grpc.NewClient("passthrough:///nodeagent",
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return c.dial(ctx, path) }),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
	)
	c.conn = conn
	return conn, err
}

// dial connects to the socket and remembers how that ended.
func (c *CLI) dial(ctx context.Context, path string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	c.mu.Lock()
	c.dialErr = err
	c.mu.Unlock()
	return conn, err
}

// unreachable says why the agent's socket does not answer; nil when it does.
func (c *CLI) unreachable() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.dialErr == nil:
		return nil
	case errors.Is(c.dialErr, os.ErrPermission):
		return fmt.Errorf("permission denied while connecting to the nodeagent at %s: it is for root alone (sudo nodectl …)", c.Host)
	default:
		var errno syscall.Errno
		why := ""
		if errors.As(c.dialErr, &errno) {
			why = " (" + errno.Error() + ")"
		}
		return fmt.Errorf("cannot connect to the nodeagent at %s%s: is it running?", c.Host, why)
	}
}
