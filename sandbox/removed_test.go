package sandbox

import (
	"testing"

	"github.com/containerd/errdefs"
	runtime "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Who waited for the removal of a container must not bring its record back.
func TestUpdateOfRemovedContainer(t *testing.T) {
	_, m := start(t)
	podID := readyPod(t, m)
	id, err := m.CreateContainer(t.Context(), containerRequest(podID, "c"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := m.findContainer(id)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.RemoveContainer(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := m.updateContainer(t.Context(), c, &runtime.LinuxContainerResources{CpuShares: 300}, nil); !errdefs.IsNotFound(err) {
		t.Errorf("update: %v", err)
	}
	if ids, err := m.containerRecords.IDs(); len(ids) > 0 || err != nil {
		t.Errorf("records %v, %v", ids, err)
	}
}

// A pod that is being removed is not revived, nor is its record.
func TestReviveOfRemovedPod(t *testing.T) {
	w, m := start(t)
	id := personsPod(t, m)
	before := w.count("UnmountShm")
	release := w.setBlock("UnmountShm")
	defer release()
	removed, revived := make(chan error, 1), make(chan error, 1)
	go func() { removed <- m.RemovePod(t.Context(), id) }()
	eventually(t, "the removal is under way", func() bool { return w.count("UnmountShm") > before })
	go func() { revived <- m.RevivePod(t.Context(), id) }()
	eventually(t, "the revival has begun", func() bool { return len(m.Operations(false)) == 2 })
	release()
	if err := <-removed; err != nil {
		t.Error(err)
	}
	if err := <-revived; !errdefs.IsNotFound(err) {
		t.Errorf("revive: %v", err)
	}
	clean(t, w, m)
}
