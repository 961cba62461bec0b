package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/containernetworking/cni/pkg/utils"

	"github.com/nodeagent/nodeagent/internal/atomicfile"
)

const (
	intentSuffix = ".json"
	// maxIntent bounds an intent's file: a configuration and a pod's ports.
	maxIntent = 4 << 20
	// maxPodID bounds a pod's ID, which becomes part of names elsewhere.
	maxPodID = 80
)

// intent is written before the first plugin runs for a pod, and removed after
// the last one took everything back: what Del needs to do so, with the
// configuration that Add used, whatever the folder holds by then.
//
// It is written without waiting for the disk, and without a temporary file: one
// that is torn was not followed by any plugin. A crash of the agent loses
// nothing of it. After a power cut the links and rules of the pod are gone
// anyway, and what is left are address files, which were made after the intent
// and so are not on the disk without its name; an intent whose name is there
// but whose content is lost is carried out with the configuration of the day.
// Those of the embedded network are below StateDir, since all that such a pod
// has, its addresses too, is gone after a reboot.
type intent struct {
	Attachment Attachment `json:"attachment"`
	// Network is the configuration's name.
	Network string `json:"network"`
	// Config is the whole configuration, a list.
	Config json.RawMessage `json:"config"`
	// Builtin are the types of plugins that were carried out in process.
	Builtin []string `json:"builtin"`
	// Volatile says that a reboot takes all of it away.
	Volatile bool `json:"volatile,omitempty"`
}

func newIntent(a Attachment, n *network) *intent {
	in := &intent{Attachment: a, Network: n.list.Name, Config: n.list.Bytes, Volatile: n.volatile}
	for name := range n.builtin {
		in.Builtin = append(in.Builtin, name)
	}
	slices.Sort(in.Builtin)
	return in
}

// network is the network as it was when the intent was written.
func (in *intent) network() (*network, error) {
	list, err := parseConfig(in.Config)
	if err != nil {
		return nil, fmt.Errorf("recorded configuration of network %s: %w", in.Network, err)
	}
	n := &network{list: list, builtin: map[string]bool{}, volatile: in.Volatile}
	for _, name := range in.Builtin {
		n.builtin[name] = true
	}
	return n, nil
}

// intentDirs are where intents are: those that a reboot voids, and the others.
func (m *Manager) intentDirs() []string {
	return []string{filepath.Join(m.cfg.StateDir, "intents"), filepath.Join(m.cfg.RootDir, "intents")}
}

// checkPodID keeps an ID from being a path, and names made of it short.
func checkPodID(id string) error {
	if err := utils.ValidateContainerID(id); err != nil || len(id) > maxPodID {
		return fmt.Errorf("pod ID %q: %w", id, errdefs.ErrInvalidArgument)
	}
	return nil
}

func (m *Manager) writeIntent(in *intent) error {
	dir := m.intentDirs()[1]
	if in.Volatile {
		dir = m.intentDirs()[0]
	}
	data, err := json.Marshal(in)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, in.Attachment.PodID+intentSuffix), data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("record the intent: %w", err)
	}
	return nil
}

// readIntent returns nil when there is none. One that cannot be read has only
// the pod's ID.
func (m *Manager) readIntent(podID string) (*intent, error) {
	for _, dir := range m.intentDirs() {
		data, err := atomicfile.Read(filepath.Join(dir, podID+intentSuffix), maxIntent)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the intent of pod %s: %w", podID, err)
		}
		in := &intent{}
		if json.Unmarshal(data, in) != nil || in.Attachment.PodID != podID {
			return &intent{Attachment: Attachment{PodID: podID}}, nil
		}
		return in, nil
	}
	return nil, nil
}

func (m *Manager) removeIntent(podID string) error {
	for _, dir := range m.intentDirs() {
		if err := os.Remove(filepath.Join(dir, podID+intentSuffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the intent of pod %s: %w", podID, err)
		}
	}
	return nil
}

// Wired lists the IDs of the pods that have something of a network, or may:
// those that are being added or deleted are among them.
func (m *Manager) Wired() ([]string, error) {
	ids, err := m.listIntents()
	if err != nil {
		return nil, fmt.Errorf("list wired pods: %w", err)
	}
	return ids, nil
}

// listIntents lists the IDs of pods with an intent.
func (m *Manager) listIntents() ([]string, error) {
	var ids []string
	for _, dir := range m.intentDirs() {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return nil, fmt.Errorf("list intents: %w", err)
		}
		for _, entry := range entries {
			if id, ok := strings.CutSuffix(entry.Name(), intentSuffix); ok && checkPodID(id) == nil {
				ids = append(ids, id)
			}
		}
	}
	return ids, nil
}
