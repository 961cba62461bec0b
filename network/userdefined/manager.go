// Package userdefined keeps people's networks: bridges, macvlan and ipvlan
// networks that are made by name, and that containers join and leave while
// they run.
//
// A glossary. A network is a record with a driver, subnets and options; one of
// the bridge driver has a bridge on the host as long as it exists. A member is
// a pod that is on such networks. An endpoint is a member's place on one
// network: an interface in the pod, addresses, aliases. The node's own network,
// which CNI configures, is none of these; a member may be on it as well.
//
// Bridges, addresses, published ports and masquerading are those of package
// builtin: an endpoint is an ADD of its bridge plugin with a configuration
// made of the network's record. Names are answered by a server of package dns
// for each member, which listens inside the pod's network namespace.
//
// Records are written before what they are about is done, and deleted after it
// is undone. Those of networks outlast a reboot; those of members do not, since
// nothing that they are about does. A killed agent's successor undoes what was
// half made (Recover) and serves names again (Serve).
//
// Errors are of the kinds of containerd/errdefs: ErrNotFound for an unknown
// network, ErrAlreadyExists for a name in use, ErrInvalidArgument for what
// cannot be, ErrFailedPrecondition for a network in use, ErrResourceExhausted
// when no address or subnet is left. Their words are docker's where docker has
// words for it.
package userdefined

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"sync"

	"github.com/sirupsen/logrus"

	"github.com/nodeagent/nodeagent/internal/turns"
	"github.com/nodeagent/nodeagent/network"
	"github.com/nodeagent/nodeagent/network/builtin"
	"github.com/nodeagent/nodeagent/network/nat"
)

// Records keeps a checksummed file for each object; package record has it.
type Records interface {
	Put(id string, v any) error
	// PutSync is Put that a power cut does not undo.
	PutSync(id string, v any) error
	Get(id string, v any) error
	// Delete of what is not there is no error.
	Delete(id string) error
	IDs() ([]string, error)
	// SetAside puts a record away that cannot be used.
	SetAside(id string) (string, error)
}

// Node is the network that is configured on the node, which members may be on
// as well; network.Manager has it.
type Node interface {
	Add(ctx context.Context, a network.Attachment) (*network.Result, error)
	Del(ctx context.Context, a network.Attachment) error
}

// Config is what a Manager works with. All fields must be set.
type Config struct {
	// StateDir is emptied by a reboot: addresses are kept in it.
	StateDir string
	// Instance tells agents on one machine apart.
	Instance string
	// Networks outlast a reboot, Members do not.
	Networks, Members Records
	Plugins           *builtin.Plugins
	Table             *nat.Table
	Node              Node
	// ResolvConf is the node's, such as /etc/resolv.conf.
	ResolvConf string
}

// NamesOf gives a pod's names, which its networks answer for it, in lower
// case, the container's own first; none when nothing runs in it.
type NamesOf func(podID string) []string

// Manager keeps networks and who is on them. Its methods may be called side by
// side; those that change one pod wait for each other, and so do those that
// make or remove networks.
type Manager struct {
	cfg Config
	log *logrus.Entry
	// making has a token while a network is made or removed.
	making chan struct{}
	pods   turns.Turns

	// mu guards what follows. Networks and members are replaced, never
	// changed.
	mu       sync.RWMutex
	networks map[string]*Network
	members  map[string]*member
	// names is nil until Serve.
	names   NamesOf
	servers map[string]*resolver
	closed  bool
	// recovered says that Recover was called.
	recovered bool
}

// New reads the records. Call Recover before anything else, and Close in the
// end.
func New(cfg Config) (*Manager, error) {
	m := &Manager{
		cfg: cfg, log: logrus.WithField("part", "networks"), making: make(chan struct{}, 1),
		networks: map[string]*Network{}, members: map[string]*member{}, servers: map[string]*resolver{},
	}
	err := load(m.log, cfg.Networks, func(n *Network) { m.networks[n.ID] = n })
	if err == nil {
		err = load(m.log, cfg.Members, func(p *member) { m.members[p.PodID] = p })
	}
	if err != nil {
		return nil, fmt.Errorf("networks: %w", err)
	}
	return m, nil
}

// load reads all records of one kind; one that cannot be read is set aside.
func load[T any](log *logrus.Entry, records Records, add func(*T)) error {
	ids, err := records.IDs()
	if err != nil {
		return err
	}
	for _, id := range ids {
		v := new(T)
		if err := records.Get(id, v); err != nil {
			path, failed := records.SetAside(id)
			log.WithError(errors.Join(err, failed)).Warnf("record %s cannot be used, and is now %s", id, path)
			continue
		}
		add(v)
	}
	return nil
}

// Serve begins to answer names, which names knows, for all members, and for
// those to come.
func (m *Manager) Serve(names NamesOf) {
	m.mu.Lock()
	m.names = names
	var pods []string
	for id := range m.members {
		pods = append(pods, id)
	}
	m.mu.Unlock()
	for _, id := range pods {
		if err := m.serveAgain(id); err != nil {
			m.log.WithError(err).WithField("pod", id).Warn("names are not answered")
		}
	}
}

// Close stops answering names. Networks and members stay as they are.
func (m *Manager) Close() {
	m.mu.Lock()
	servers := m.servers
	m.servers, m.closed = nil, true
	m.mu.Unlock()
	for _, s := range servers {
		s.close()
	}
}

// newID makes 64 hexadecimal digits, which no other agent on the machine makes:
// their beginning is part of the names of links.
func (m *Manager) newID() string {
	var b [32]byte
	rand.Read(b[:])
	sum := sha256.Sum256(append([]byte(m.cfg.Instance+"\x00"), b[:]...))
	return hex.EncodeToString(sum[:])
}

// ipamDir is where addresses of all networks are kept.
func (m *Manager) ipamDir() string { return filepath.Join(m.cfg.StateDir, "ipam") }

// lockPod waits for the turn at a pod; the caller calls unlock when done.
func (m *Manager) lockPod(ctx context.Context, podID string) (unlock func(), err error) {
	unlock, err = m.pods.Wait(ctx, podID)
	if err != nil {
		return nil, fmt.Errorf("networks of pod %s: another operation is under way: %w", podID, err)
	}
	return unlock, nil
}

// addrs are those of prefixes.
func addrs(prefixes ...netip.Prefix) []netip.Addr {
	var list []netip.Addr
	for _, p := range prefixes {
		if p.IsValid() {
			list = append(list, p.Addr())
		}
	}
	return list
}
