package e2e

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/nodeagent/nodeagent/internal/testenv"
	"github.com/nodeagent/nodeagent/internal/testenv/images"
	"github.com/nodeagent/nodeagent/internal/testenv/pods"
	"github.com/nodeagent/nodeagent/sandbox/record"
)

const (
	// manyRecords are more exited containers than kubelet can be told of in one message, with what it writes on each.
	manyRecords = 20_000
	// kubeletReads is the longest message that kubelet reads, in bytes.
	kubeletReads = 16 << 20
	// manyLimit bounds what is done with all of them.
	manyLimit = 2 * time.Minute
)

// A node on which 20,000 containers of a crash loop were left by a kubelet that could not list them any more comes back:
// the agent removes those that have later ones, until kubelet can read the list, and remove the others itself.
func TestManyExitedRecords(t *testing.T) {
	n := newNode(t, testenv.AgentOptions{})
	n.Pull(images.Busybox)
	config := n.podConfig("loop")
	pod := n.RunPod(config)
	container := pods.Shell("loop", "exit 1")
	container.Annotations = map[string]string{"io.kubernetes.container.terminationMessagePath": strings.Repeat("x", 700)}
	first := n.Started(pod, config, container)
	n.Ended(first)
	n.Stop()
	multiply(t, filepath.Join(n.Root, "containers"), first, manyRecords)

	begun := time.Now()
	n.Start()
	t.Logf("the agent was ready %v after its start", time.Since(begun))
	var list []*runtimeapi.Container
	testenv.Eventually(t, manyLimit, "kubelet can list containers", func() (err error) {
		list, err = n.listAsKubelet()
		return err
	})
	t.Logf("kubelet could list %d after %v", len(list), time.Since(begun))

	begun = time.Now()
	for _, c := range list {
		if int(c.Metadata.Attempt) == manyRecords {
			continue
		}
		ctx, cancel := n.Context()
		_, err := n.Runtime().RemoveContainer(ctx, &runtimeapi.RemoveContainerRequest{ContainerId: c.Id})
		cancel()
		n.Must("remove container", err)
	}
	t.Logf("%d were removed in %v", len(list), time.Since(begun))
	testenv.Eventually(t, manyLimit, "only the last one is left", func() error {
		list, err := n.listAsKubelet()
		if err == nil && (len(list) != 1 || int(list[0].Metadata.Attempt) != manyRecords) {
			err = fmt.Errorf("%d are left", len(list))
		}
		return err
	})
	n.RemovePod(pod)
}

// listAsKubelet lists containers as kubelet does, which reads no longer message.
func (n *node) listAsKubelet() ([]*runtimeapi.Container, error) {
	ctx, cancel := n.Context()
	defer cancel()
	list, err := n.Runtime().ListContainers(ctx, &runtimeapi.ListContainersRequest{}, grpc.MaxCallRecvMsgSize(kubeletReads))
	return list.GetContainers(), err
}

// multiply gives a container of the records in dir count later attempts, as if it had been started again and again.
func multiply(t *testing.T, dir, id string, count int) {
	t.Helper()
	store, err := record.Open(dir, "container", 1)
	if err != nil {
		t.Fatal(err)
	}
	var fields map[string]json.RawMessage
	if err := store.Get(id, &fields); err != nil {
		t.Fatal(err)
	}
	var encoded []byte
	var config runtimeapi.ContainerConfig
	if err := json.Unmarshal(fields["Config"], &encoded); err == nil {
		err = proto.Unmarshal(encoded, &config)
	}
	if err != nil || config.Metadata == nil {
		t.Fatalf("configuration in the record: %v", err)
	}
	set := func(name string, value any) {
		if _, ok := fields[name]; !ok {
			t.Fatalf("a record has no %s", name)
		}
		if fields[name], err = json.Marshal(value); err != nil {
			t.Fatal(err)
		}
	}
	begun := time.Now().Add(-time.Duration(count) * time.Second)
	for i := range count {
		other := make([]byte, len(id)/2)
		rand.Read(other)
		config.Metadata.Attempt = uint32(i + 1)
		if encoded, err = proto.Marshal(&config); err != nil {
			t.Fatal(err)
		}
		set("ID", hex.EncodeToString(other))
		set("Config", encoded)
		set("CreatedAt", begun.Add(time.Duration(i)*time.Second))
		set("FinishedAt", begun.Add(time.Duration(i)*time.Second))
		if err := store.Put(hex.EncodeToString(other), fields); err != nil {
			t.Fatal(err)
		}
	}
}
