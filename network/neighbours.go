package network

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/nodeagent/nodeagent/internal/atomicfile"
)

// Other runtimes of the machine may take addresses by the same configuration:
// another agent, or containerd while a node moves from it. Neither side knows
// the other's pods, and CNI's GC takes from all that are not named. So an agent
// leaves word of itself where it may be found before it uses a configuration
// that is not its own, and names in GC also what others have.

// SharedDir is where libcni keeps results unless told otherwise, and where agents
// leave word.
const SharedDir = "/var/lib/cni"

const (
	// maxNeighbours bounds the agents and results that are looked at.
	maxNeighbours = 64 << 10
	// maxResult bounds a cached result.
	maxResult = 4 << 20
)

// announce leaves word of this agent, once.
func (m *Manager) announce() error {
	m.announceMu.Lock()
	defer m.announceMu.Unlock()
	if m.announced {
		return nil
	}
	path := m.wordPath()
	if known, err := os.Readlink(path); err != nil || known != m.cfg.RootDir {
		// Another agent may be taking its word, and the folder, away.
		for range announceAttempts {
			if err = os.MkdirAll(filepath.Dir(path), 0o755); err == nil {
				err = os.Symlink(m.cfg.RootDir, path)
			}
			if !errors.Is(err, fs.ErrNotExist) {
				break
			}
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("leave word for other agents: %w", err)
		}
	}
	m.announced = true
	return nil
}

// announceAttempts bounds the repeating of what another agent got in the way of.
const announceAttempts = 5

func (m *Manager) wordPath() string {
	sum := sha256.Sum256([]byte(m.cfg.RootDir))
	return filepath.Join(m.cfg.SharedDir, "nodeagent", hex.EncodeToString(sum[:8]))
}

// unannounce takes the word back when no pod is left that it is for.
func (m *Manager) unannounce() {
	m.announceMu.Lock()
	defer m.announceMu.Unlock()
	if left, err := readDir(m.intentDirs()[1]); err != nil || len(left) > 0 {
		return
	}
	m.announced = false
	path := m.wordPath()
	if os.Remove(path) == nil {
		// Folders that hold something else stay.
		_ = os.Remove(filepath.Dir(path))
		_ = os.Remove(m.cfg.SharedDir)
	}
}

// neighbours lists what other runtimes have of a network.
func (m *Manager) neighbours(network string) ([]types.GCAttachment, error) {
	agents, err := m.otherAgents()
	if err != nil {
		return nil, fmt.Errorf("look for other agents' pods: %w", err)
	}
	others, err := m.otherResults(network)
	if err != nil {
		return nil, fmt.Errorf("look for other runtimes' pods: %w", err)
	}
	return append(agents, others...), nil
}

// otherAgents reads the names of other agents' intents, which are there before
// any plugin runs for a pod.
func (m *Manager) otherAgents() ([]types.GCAttachment, error) {
	dir := filepath.Join(m.cfg.SharedDir, "nodeagent")
	words, err := readDir(dir)
	if err != nil {
		return nil, err
	}
	var list []types.GCAttachment
	for _, word := range words {
		path := filepath.Join(dir, word.Name())
		root, err := os.Readlink(path)
		if err != nil || root == m.cfg.RootDir {
			continue
		}
		if _, err := os.Stat(root); errors.Is(err, fs.ErrNotExist) {
			os.Remove(path) // that agent was taken away
			continue
		}
		intents, err := readDir(filepath.Join(root, "intents"))
		if err != nil {
			return nil, err
		}
		for _, entry := range intents {
			id, ok := strings.CutSuffix(entry.Name(), intentSuffix)
			if !ok || checkPodID(id) != nil {
				continue
			}
			list = append(list, types.GCAttachment{ContainerID: id, IfName: theirInterface(filepath.Join(root, "intents", entry.Name()))})
		}
	}
	return list, nil
}

// theirInterface reads an intent; what cannot be read is of a pod that has
// nothing as yet.
func theirInterface(path string) string {
	var in intent
	if data, err := atomicfile.Read(path, maxIntent); err == nil {
		_ = json.Unmarshal(data, &in)
	}
	return in.Attachment.interfaceName()
}

// otherResults reads what runtimes that leave libcni its own folder keep there.
func (m *Manager) otherResults(network string) ([]types.GCAttachment, error) {
	dir := filepath.Join(m.cfg.SharedDir, "results")
	entries, err := readDir(dir)
	if err != nil {
		return nil, err
	}
	var list []types.GCAttachment
	for _, entry := range entries {
		if !strings.HasPrefix(entry.Name(), network+"-") {
			continue
		}
		data, err := atomicfile.Read(filepath.Join(dir, entry.Name()), maxResult)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var result struct {
			ContainerID string `json:"containerId"`
			IfName      string `json:"ifName"`
		}
		if json.Unmarshal(data, &result) == nil && result.ContainerID != "" {
			list = append(list, types.GCAttachment{ContainerID: result.ContainerID, IfName: result.IfName})
		}
	}
	return list, nil
}

// readDir lists a folder that need not be there.
func readDir(dir string) ([]fs.DirEntry, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil && len(entries) > maxNeighbours {
		err = fmt.Errorf("%s holds more than %d files", dir, maxNeighbours)
	}
	return entries, err
}
