package network

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// TestHandlers: pods of a runtime handler get the network that is configured
// for it, by folder or by name; others get the first.
func TestHandlers(t *testing.T) {
	rooted(t)
	cfg := testConfig(t)
	other := t.TempDir()
	cfg.Handlers = map[string]string{"named": "second", "foldered": other, "nowhere": "third"}
	list := func(name, subnet string) string { return bridgeList(t, name, subnet, `"hairpinMode": true`) }
	t.Cleanup(func() { dropLinks("cnitest0", "cnitest1", "cnitest2") })
	writeConf(t, cfg, "10-first.conflist", list("first", "10.77.0.0/24"))
	writeConf(t, cfg, "20-second.conflist", strings.ReplaceAll(list("second", "10.78.0.0/24"), "cnitest0", "cnitest1"))
	if err := os.WriteFile(filepath.Join(other, "10-apart.conflist"), []byte(strings.ReplaceAll(list("apart", "10.79.0.0/24"), "cnitest0", "cnitest2")), 0o600); err != nil {
		t.Fatal(err)
	}
	m := newManager(t, cfg)
	for handler, want := range map[string]string{"": "10.77.0.2/24", "unheard": "10.77.0.3/24", "named": "10.78.0.2/24", "foldered": "10.79.0.2/24"} {
		a := newPod(t)
		a.Handler = handler
		// The order of a map is any.
		result := mustAdd(t, m, a)
		if got := result.Addresses[0].String(); got != want && got[:6] != want[:6] {
			t.Errorf("handler %q: got %s, want %s", handler, got, want)
		}
		if err := m.Check(context.Background(), a); err != nil {
			t.Error(err)
		}
		defer mustDel(t, m, a)
	}
	a := newPod(t)
	a.Handler = "nowhere"
	if err := addError(m, a); !errdefs.IsUnavailable(err) || !strings.Contains(err.Error(), "runtime handler nowhere: no usable network configuration named third in "+cfg.ConfDir) {
		t.Errorf("got %v", err)
	}
	if err := m.Status(context.Background()); err != nil {
		t.Errorf("the ordinary network is not ready: %v", err)
	}
	if problems := strings.Join(m.Info().Problems, "\n"); !strings.Contains(problems, "runtime handler nowhere") {
		t.Errorf("problems: %s", problems)
	}
	// It is noticed when it comes, by another name's file.
	writeConf(t, cfg, "30-third.conflist", strings.ReplaceAll(list("third", "10.77.3.0/24"), "cnitest0", "cnitest3"))
	t.Cleanup(func() { dropLinks("cnitest3") })
	mustAdd(t, m, a)
	mustDel(t, m, a)
}
