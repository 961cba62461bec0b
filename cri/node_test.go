package cri

import (
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/cgroups"
	"google.golang.org/grpc/codes"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

func TestNewRefuses(t *testing.T) {
	full := Deps{Sandboxes: &fakeSandboxes{}, Images: &fakeImages{}, Network: &fakeNetwork{}}
	for name, deps := range map[string]Deps{
		"sandboxes": {Images: full.Images, Network: full.Network},
		"images":    {Sandboxes: full.Sandboxes, Network: full.Network},
		"network":   {Sandboxes: full.Sandboxes, Images: full.Images},
	} {
		if _, err := New(Config{Version: "1.0.0"}, deps); !errdefs.IsInvalidArgument(err) {
			t.Errorf("without %s: %v", name, err)
		}
	}
	if _, err := New(Config{}, full); !errdefs.IsInvalidArgument(err) {
		t.Errorf("without version: %v", err)
	}
}

func TestVersion(t *testing.T) {
	h := newHarness().serve(t)
	v, err := h.Version(t.Context(), &runtime.VersionRequest{Version: "0.1.0"})
	if err != nil {
		t.Fatal(err)
	}
	if v.GetVersion() != "0.1.0" || v.GetRuntimeName() != "nodeagent" || v.GetRuntimeVersion() != "1.2.3" || v.GetRuntimeApiVersion() != "v1" {
		t.Errorf("got %v", v)
	}
}

func TestStatus(t *testing.T) {
	h := newHarness()
	h.config.Handlers = []Handler{{Name: "untrusted", UserNamespaces: true}}
	h.config.Features = Features{SupplementalGroupsPolicy: true, MountOptions: true}
	h.serve(t)
	resp, err := h.Status(t.Context(), &runtime.StatusRequest{Verbose: true})
	if err != nil {
		t.Fatal(err)
	}
	for i, kind := range []string{"RuntimeReady", "NetworkReady"} {
		if c := resp.GetStatus().GetConditions()[i]; c.GetType() != kind || !c.GetStatus() || c.GetReason() != "" {
			t.Errorf("condition %v", c)
		}
	}
	handlers := resp.GetRuntimeHandlers()
	if len(handlers) != 2 || handlers[0].GetName() != "" || handlers[0].GetFeatures() == nil ||
		handlers[1].GetName() != "untrusted" || !handlers[1].GetFeatures().GetUserNamespaces() {
		t.Errorf("handlers %v", handlers)
	}
	if f := resp.GetFeatures(); !f.GetSupplementalGroupsPolicy() || f.GetUserNamespacesHostNetwork() || !f.GetMountOptions() {
		t.Errorf("features %v", f)
	}
	var config map[string]any
	if err := json.Unmarshal([]byte(resp.GetInfo()["config"]), &config); err != nil {
		t.Fatal(err)
	}
	if config["stateDir"] != "/state-dir" || config["rootDir"] != "/root-dir" {
		t.Errorf("config %v", config)
	}

	h.ready, h.network.status = errors.New("supervisor is gone"), errors.New("no network configuration")
	resp, err = h.Status(t.Context(), &runtime.StatusRequest{})
	if err != nil || len(resp.GetInfo()) != 0 {
		t.Fatal(resp, err)
	}
	for i, want := range []string{"supervisor is gone", "no network configuration"} {
		if c := resp.GetStatus().GetConditions()[i]; c.GetStatus() || c.GetMessage() != want || c.GetReason() == "" {
			t.Errorf("condition %v", c)
		}
	}
}

func TestRuntimeConfig(t *testing.T) {
	for driver, want := range map[cgroups.Driver]runtime.CgroupDriver{
		"": runtime.CgroupDriver_CGROUPFS, cgroups.Cgroupfs: runtime.CgroupDriver_CGROUPFS, cgroups.Systemd: runtime.CgroupDriver_SYSTEMD,
	} {
		h := newHarness()
		h.config.CgroupDriver = driver
		h.serve(t)
		resp, err := h.RuntimeConfig(t.Context(), &runtime.RuntimeConfigRequest{})
		if err != nil || resp.GetLinux() == nil || resp.GetLinux().GetCgroupDriver() != want {
			t.Errorf("%q: %v, %v", driver, resp, err)
		}
	}
}

func TestUpdateRuntimeConfig(t *testing.T) {
	h := newHarness().serve(t)
	update := func(cidr string) error {
		_, err := h.UpdateRuntimeConfig(t.Context(), &runtime.UpdateRuntimeConfigRequest{
			RuntimeConfig: &runtime.RuntimeConfig{NetworkConfig: &runtime.NetworkConfig{PodCidr: cidr}},
		})
		return err
	}
	if err := update("10.1.2.9/16, fd00::/64"); err != nil {
		t.Fatal(err)
	}
	want := []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("fd00::/64")}
	if !slices.Equal(h.network.cidrs, want) {
		t.Errorf("got %v", h.network.cidrs)
	}
	if err := update(""); err != nil || len(h.network.cidrs) != 2 {
		t.Errorf("empty: %v, %v", h.network.cidrs, err)
	}
	wantCode(t, update("10.1.0.0/99"), codes.InvalidArgument, "pod_cidr", "10.1.0.0/99")
	if _, err := h.UpdateRuntimeConfig(t.Context(), &runtime.UpdateRuntimeConfigRequest{}); err != nil {
		t.Error(err)
	}
}
