package nodeapi

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	nodev1 "github.com/nodeagent/nodeagent/api/node/v1"
	"github.com/nodeagent/nodeagent/sandbox"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// wantFailure checks an error's kind and words.
func wantFailure(t *testing.T, err error, code codes.Code, words string) {
	t.Helper()
	if status.Code(err) != code || !strings.Contains(status.Convert(err).Message(), words) {
		t.Errorf("got %v, want %v: %s", err, code, words)
	}
}

func TestPause(t *testing.T) {
	n := newNode(t)
	id := n.create("web", box("sleep"))
	_, err := n.containers.Pause(n.ctx, &nodev1.PauseRequest{Container: "web"})
	wantFailure(t, err, codes.FailedPrecondition, "container "+id+" is not running")
	if _, err := n.containers.Start(n.ctx, &nodev1.StartRequest{Container: "web"}); err != nil {
		t.Fatal(err)
	}
	_, err = n.containers.Unpause(n.ctx, &nodev1.UnpauseRequest{Container: "web"})
	wantFailure(t, err, codes.FailedPrecondition, "container "+id+" is not paused")
	if _, err := n.containers.Pause(n.ctx, &nodev1.PauseRequest{Container: "web"}); err != nil {
		t.Fatal(err)
	}
	_, err = n.containers.Pause(n.ctx, &nodev1.PauseRequest{Container: "web"})
	wantFailure(t, err, codes.FailedPrecondition, "container "+id+" is already paused")
	if _, err := n.containers.Unpause(n.ctx, &nodev1.UnpauseRequest{Container: "web"}); err != nil {
		t.Fatal(err)
	}
	if c, err := n.sandboxes.Container(id); err != nil || c.State != sandbox.ContainerRunning {
		t.Errorf("%s %v", c.State, err)
	}
}

func TestRename(t *testing.T) {
	n := newNode(t)
	id := n.create("old", box("sleep"))
	other := n.create("other", box("sleep"))
	for _, bad := range []struct {
		name, words string
		code        codes.Code
	}{
		{"other", `Conflict. The container name "/other" is already in use by container "` + other + `"`, codes.AlreadyExists},
		{"old", "Renaming a container with the same name as its current name", codes.InvalidArgument},
		{"", "Neither old nor new names may be empty", codes.InvalidArgument},
		{"a b", "Invalid container name (a b)", codes.InvalidArgument},
	} {
		_, err := n.containers.Rename(n.ctx, &nodev1.RenameRequest{Container: "old", Name: bad.name})
		wantFailure(t, err, bad.code, bad.words)
	}
	if _, err := n.containers.Rename(n.ctx, &nodev1.RenameRequest{Container: "old", Name: "new"}); err != nil {
		t.Fatal(err)
	}
	if resp, err := n.containers.Inspect(n.ctx, &nodev1.InspectRequest{Container: "new"}); err != nil || resp.GetContainer().GetId() != id {
		t.Errorf("%v %v", resp, err)
	}
	// The old name is free, though the pod was made with it.
	n.create("old", box("sleep"))
}

func TestTop(t *testing.T) {
	n := newNode(t)
	id := n.create("web", box("sleep"))
	_, err := n.containers.Top(n.ctx, &nodev1.TopRequest{Container: "web"})
	wantFailure(t, err, codes.FailedPrecondition, "container "+id+" is not running")
	if _, err := n.containers.Start(n.ctx, &nodev1.StartRequest{Container: "web"}); err != nil {
		t.Fatal(err)
	}
	resp, err := n.containers.Top(n.ctx, &nodev1.TopRequest{Container: "web", Args: []string{"-eo", "pid,comm"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.GetProcesses()) != 1 || resp.GetProcesses()[0].GetFields()[0] != strconv.Itoa(os.Getpid()) {
		t.Errorf("%v", resp)
	}
	_, err = n.containers.Top(n.ctx, &nodev1.TopRequest{Container: "web", Args: []string{"-eo", "comm"}})
	wantFailure(t, err, codes.InvalidArgument, "Couldn't find PID field in ps output")
	_, err = n.containers.Top(n.ctx, &nodev1.TopRequest{Container: "web", Args: []string{"--nonsense"}})
	wantFailure(t, err, codes.InvalidArgument, "ps: ")
}

func TestPsColumns(t *testing.T) {
	resp, err := parsePs([]byte("UID        PID  CMD\nroot        42  sh -c  a  b\nroot       142  other\nroot        43\n"), []int{42, 43})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range resp.GetProcesses() {
		got = append(got, strings.Join(p.GetFields(), "|"))
	}
	if want := []string{"root|42|sh -c  a  b", "root|43"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func FuzzParsePs(f *testing.F) {
	f.Add([]byte("PID CMD\n1 x\n"))
	f.Add([]byte("CMD PID\n\n a\n"))
	f.Fuzz(func(t *testing.T, out []byte) {
		resp, err := parsePs(out, []int{1})
		if err != nil {
			return
		}
		for _, p := range resp.GetProcesses() {
			if len(p.GetFields()) > len(resp.GetTitles()) || !slices.Contains(p.GetFields(), "1") {
				t.Errorf("%q: %q", resp.GetTitles(), p.GetFields())
			}
		}
	})
}

func TestStats(t *testing.T) {
	n := newNode(t)
	n.create("still", box("sleep"))
	n.create("web", box("sleep"))
	if _, err := n.containers.Start(n.ctx, &nodev1.StartRequest{Container: "web"}); err != nil {
		t.Fatal(err)
	}
	resp, err := n.containers.Stats(n.ctx, &nodev1.StatsRequest{Containers: []string{"web", "still"}})
	if err != nil {
		t.Fatal(err)
	}
	web, still := resp.GetStats()[0], resp.GetStats()[1]
	if web.GetCpuNanos() != 11 || web.GetMemoryBytes() != 12 || web.GetMemoryLimit() != 13 || web.GetPids() != 14 ||
		web.GetBlockRead() != 16 || web.GetBlockWritten() != 18 || web.GetNetworkReceived() != 17 || web.GetNetworkSent() != 18 {
		t.Errorf("%v", web)
	}
	if still.GetState() != "created" || still.GetCpuNanos() != 0 || still.GetMemoryLimit() != 0 {
		t.Errorf("%v", still)
	}
	if resp, err = n.containers.Stats(n.ctx, &nodev1.StatsRequest{}); err != nil || len(resp.GetStats()) != 2 {
		t.Errorf("%v %v", resp, err)
	}
	_, err = n.containers.Stats(n.ctx, &nodev1.StatsRequest{Containers: []string{"nobody"}})
	wantFailure(t, err, codes.NotFound, "No such container: nobody")
}

func TestChanges(t *testing.T) {
	n := newNode(t)
	n.create("web", box("sleep"))
	upper, lower := t.TempDir(), t.TempDir()
	for _, file := range []string{filepath.Join(upper, "new"), filepath.Join(upper, "same"), filepath.Join(lower, "same")} {
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	n.layers.dirs = map[string]string{"": upper, "image": lower}
	n.layers.parents = map[string]string{"": "image"}
	resp, err := n.containers.Changes(n.ctx, &nodev1.ChangesRequest{Container: "web"})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, c := range resp.GetChanges() {
		got = append(got, c.GetKind().String()+" "+c.GetPath())
	}
	if want := []string{"ADDED /new", "MODIFIED /same"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
