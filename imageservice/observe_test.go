package imageservice

import (
	"bytes"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// Each change is told of once, with the name it is about.
func TestObserve(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	reg := testenv.EmptyRegistry(t)
	push(t, reg.URL, "one", "v1", newTestImage(asGzip, tarOf("a=1")))
	s := openStore(t, Config{})
	var mu sync.Mutex
	var told []string
	s.Observe(func(c Change) {
		mu.Lock()
		defer mu.Unlock()
		name, _, digest := strings.Cut(strings.ReplaceAll(c.Ref, reg.Host, "HOST"), "@")
		if digest {
			name += "@DIGEST"
		}
		told = append(told, strings.TrimSpace(string(c.Action)+" "+name))
	})
	expect := func(want ...string) {
		t.Helper()
		mu.Lock()
		defer mu.Unlock()
		if !slices.Equal(told, want) {
			t.Errorf("told of %q in place of %q", told, want)
		}
		told = nil
	}
	img := s.mustPull(t, reg.Host+"/one:v1").Image
	expect("pull HOST/one:v1")
	if err := s.Tag(t.Context(), img.ID, reg.Host+"/two:v2"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Push(t.Context(), PushRequest{Ref: reg.Host + "/two:v2"}); err != nil {
		t.Fatal(err)
	}
	expect("tag HOST/two:v2", "push HOST/two:v2")
	data := s.mustSave(t, reg.Host+"/two:v2")
	if _, _, err := s.Untag(t.Context(), reg.Host+"/two:v2", false); err != nil {
		t.Fatal(err)
	}
	s.mustLoad(t, data)
	expect("save", "untag HOST/two:v2", "untag HOST/two@DIGEST", "load")
	if _, err := s.ImportRoot(t.Context(), bytes.NewReader(tarOf("x=1")), ImportRequest{Ref: "made:1"}); err != nil {
		t.Fatal(err)
	}
	expect("tag docker.io/library/made:1", "import")
	// As kubelet removes an image: by one of its names, and all go.
	if err := s.Remove(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove(t.Context(), img.ID); err != nil {
		t.Fatal(err)
	}
	expect("untag HOST/one:v1", "untag HOST/one@DIGEST", "untag HOST/two:v2", "untag HOST/two@DIGEST", "delete")
	if _, _, err := s.Prune(t.Context(), true, nil); err != nil {
		t.Fatal(err)
	}
	expect("untag docker.io/library/made:1", "delete")
}
