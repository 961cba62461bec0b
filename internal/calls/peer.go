package calls

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/peer"
)

// process is who made a connection.
type process struct {
	credentials.CommonAuthInfo
	name string
	pid  int32
	uid  uint32
}

// AuthType names the kind of proof, as gRPC wants it.
func (process) AuthType() string { return "SO_PEERCRED" }

func (p process) String() string {
	if p.uid != 0 {
		return fmt.Sprintf("%s (PID %d, user %d)", p.name, p.pid, p.uid)
	}
	return fmt.Sprintf("%s (PID %d)", p.name, p.pid)
}

// peers is no encryption at all, but asks who connects.
type peers struct {
	credentials.TransportCredentials
}

// PeerCredentials make a server know the process at the other end of a Unix
// socket.
func PeerCredentials() credentials.TransportCredentials {
	return peers{insecure.NewCredentials()}
}

// ServerHandshake reads the peer; one that is not told of is nobody.
func (p peers) ServerHandshake(conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := p.TransportCredentials.ServerHandshake(conn)
	if err != nil {
		return conn, info, err
	}
	if who, ok := peerOf(conn); ok {
		who.SecurityLevel = credentials.NoSecurity
		return conn, who, nil
	}
	return conn, info, nil
}

// Clone copies the credentials.
func (p peers) Clone() credentials.TransportCredentials {
	return peers{p.TransportCredentials.Clone()}
}

func peerOf(conn net.Conn) (process, bool) {
	socket, ok := conn.(*net.UnixConn)
	if !ok {
		return process{}, false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return process{}, false
	}
	var cred *unix.Ucred
	failure := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if failure != nil || err != nil {
		return process{}, false
	}
	name := "a process"
	if comm, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cred.Pid)); err == nil {
		name = strings.ToValidUTF8(strings.TrimSpace(string(comm)), "?")
	}
	return process{name: name, pid: cred.Pid, uid: cred.Uid}, true
}

// Caller says who makes the call of a server's context; "" when it is not known.
func Caller(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return ""
	}
	who, ok := p.AuthInfo.(process)
	if !ok {
		return ""
	}
	return who.String()
}
