package network

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/nodeagent/nodeagent/network/builtin"
)

// checkVersion is the first version of CNI that has CHECK.
const checkVersion = "0.4.0"

// restore writes what the pods of keep have in the packet filter anew, for
// somebody may have flushed it while no agent looked. Nothing changes where
// nothing is missing. It goes on past failures and returns all of them.
func (m *Manager) restore(ctx context.Context, keep []Attachment) error {
	if err := m.table.Rewrite(); err != nil {
		return err
	}
	var errs []error
	for _, a := range keep {
		if err := m.restorePod(ctx, a.PodID); err != nil {
			errs = append(errs, fmt.Errorf("restore the rules of pod %s: %w", a.PodID, err))
		}
	}
	return errors.Join(errs...)
}

func (m *Manager) restorePod(ctx context.Context, podID string) error {
	unlock, err := m.lockPod(ctx, podID)
	if err != nil {
		return err
	}
	defer unlock()
	in, err := m.readIntent(podID)
	if err != nil || in == nil || in.Config == nil || m.reaper.has(podID) {
		return err
	}
	n, err := in.network()
	if err != nil {
		return err
	}
	conf, err := runtimeConf(in.Attachment)
	if err != nil {
		return err
	}
	if cached, err := m.libcni(n).GetNetworkListCachedResult(n.list, conf); err != nil || cached == nil {
		return err // its Add was not finished
	}
	// A CHECK is told all that is wanted here.
	list := *n.list
	list.DisableCheck = false
	if old, err := version.GreaterThanOrEqualTo(list.CNIVersion, checkVersion); err == nil && !old {
		list.CNIVersion = checkVersion
	}
	search := &restorer{executor{m, n.builtin}}
	return libcni.NewCNIConfigWithCacheDir(m.cfg.BinDirs, m.cacheDir(n), search).CheckNetworkList(ctx, &list, conf)
}

// restorer has plugins in process write their rules anew, and leaves out those
// that are executed: CNI has no call for it.
type restorer struct{ executor }

// FindInPath finds every plugin.
func (r *restorer) FindInPath(name string, _ []string) (string, error) {
	return builtinPath + name, nil
}

// ExecPlugin restores what the plugin would check.
func (r *restorer) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	if !r.builtin[strings.TrimPrefix(path, builtinPath)] {
		return nil, nil
	}
	environ = append(slices.Clone(environ), "CNI_COMMAND="+builtin.Restore)
	return r.executor.ExecPlugin(ctx, path, stdin, environ)
}
