package imageservice

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/internal/testenv"
)

// user is an InUse of one image.
type user struct {
	mu    sync.Mutex
	image string
}

func (u *user) ImagesInUse() map[string]bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return map[string]bool{u.image: true}
}

func (u *user) leave() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.image = ""
}

// finder looks for an image when it is asked which are in use.
type finder struct {
	s     *testStore
	id    string
	found atomic.Bool
}

func (f *finder) ImagesInUse() map[string]bool {
	if _, err := f.s.Image(context.Background(), f.id); err == nil {
		f.found.Store(true)
	}
	return nil
}

// TestRemoveHidesFirst: a container that is being made either counts, or does
// not find its image any more.
func TestRemoveHidesFirst(t *testing.T) {
	testenv.Root(t)
	reg := testenv.EmptyRegistry(t)
	push(t, reg.URL, "x", "latest", newTestImage(asGzip, tarOf("a=1")))
	s := openStore(t, Config{})
	f := &finder{s: s, id: s.mustPull(t, reg.Host+"/x").Image.ID}
	s.SetInUse(f)
	if err := s.Remove(t.Context(), f.id); err != nil {
		t.Fatal(err)
	}
	if f.found.Load() {
		t.Error("it could be found when it was asked who needs it")
	}
}

func TestRemove(t *testing.T) {
	reg := testenv.EmptyRegistry(t)
	base, other := tarOf("base=1"), tarOf("other=1")
	one, two := newTestImage(asGzip, base, tarOf("one=1")), newTestImage(asGzip, base, other)
	push(t, reg.URL, "pause", "3.9", one)
	push(t, reg.URL, "alias/pause", "3.9", one)
	push(t, reg.URL, "two", "latest", two)
	ctx := t.Context()
	for name, by := range map[string]func(PullResult) string{
		"tag":       func(PullResult) string { return reg.Host + "/pause:3.9" },
		"other tag": func(PullResult) string { return reg.Host + "/alias/pause:3.9" },
		"digest":    func(r PullResult) string { return reg.Host + "/pause@" + r.Digest },
		"ID":        func(r PullResult) string { return r.Image.ID },
		"prefix":    func(r PullResult) string { return r.Image.ID[7:19] },
	} {
		t.Run(name, func(t *testing.T) {
			s := openStore(t, Config{})
			s.mustPull(t, reg.Host+"/pause:3.9")
			second := s.mustPull(t, reg.Host+"/alias/pause:3.9")
			if second.New || len(second.Image.Tags) != 2 || len(second.Image.Digests) != 2 {
				t.Errorf("%+v", second)
			}
			kept := s.mustPull(t, reg.Host+"/two").Image
			if err := s.Remove(ctx, by(second)); err != nil {
				t.Fatal(err)
			}
			if list, err := s.Images(ctx); err != nil || len(list) != 1 || list[0].ID != kept.ID {
				t.Errorf("left %+v, %v", list, err)
			}
			if _, err := s.Image(ctx, by(second)); !errdefs.IsNotFound(err) {
				t.Errorf("find: %v", err)
			}
			if err := s.Remove(ctx, by(second)); err != nil {
				t.Errorf("again: %v", err)
			}
			if err := s.Collect(ctx); err != nil {
				t.Fatal(err)
			}
			// Manifest, configuration and two layers of the other.
			if _, n := s.content.Usage(); n != 4 {
				t.Errorf("%d blobs are left", n)
			}
			if files := s.files(t, kept); len(files) != 2 {
				t.Errorf("the other image has %v", files)
			}
			if err := s.Remove(ctx, kept.ID); err != nil {
				t.Fatal(err)
			}
			if err := s.Collect(ctx); err != nil {
				t.Fatal(err)
			}
			if u, err := s.FilesystemUsage(ctx); err != nil || u.Bytes != 0 || u.Inodes != 0 || u.Mountpoint != s.snapshots.Root() {
				t.Errorf("usage %+v, %v", u, err)
			}
		})
	}
	s := openStore(t, Config{})
	if err := s.Remove(ctx, ""); !errdefs.IsInvalidArgument(err) {
		t.Errorf("empty: %v", err)
	}
}

// TestRemoveInUse: names go at once, layers when the container is gone.
func TestRemoveInUse(t *testing.T) {
	reg := testenv.EmptyRegistry(t)
	push(t, reg.URL, "x", "latest", newTestImage(asGzip, tarOf("a=1"), tarOf("b=1")))
	ctx := t.Context()
	s := openStore(t, Config{})
	img := s.mustPull(t, reg.Host+"/x").Image
	inUse := &user{image: img.ID}
	s.SetInUse(inUse)
	if _, err := s.snapshots.Prepare(ctx, "container", img.ChainID); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Untag(ctx, reg.Host+"/x", false); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("untag: %v", err)
	}
	if err := s.Remove(ctx, reg.Host+"/x"); err != nil {
		t.Fatal(err)
	}
	if list, err := s.Images(ctx); err != nil || len(list) > 0 {
		t.Errorf("%v, %v", list, err)
	}
	for range 2 { // once more in the next life
		if err := s.Collect(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := s.snapshots.Mounts(ctx, "container"); err != nil {
			t.Fatal(err)
		}
		if _, n := s.content.Usage(); n == 0 {
			t.Error("the content is gone")
		}
		s.close()
		s = reopenStore(t, s.root, Config{})
		s.SetInUse(inUse)
	}
	// A pull brings it back without a transfer.
	if res := s.mustPull(t, reg.Host+"/x"); res.New || res.Image.ID != img.ID {
		t.Errorf("%+v", res)
	}
	if err := s.Remove(ctx, img.ID); err != nil {
		t.Fatal(err)
	}
	inUse.leave()
	if err := s.snapshots.Remove(ctx, "container"); err != nil {
		t.Fatal(err)
	}
	if err := s.Collect(ctx); err != nil {
		t.Fatal(err)
	}
	if u, err := s.FilesystemUsage(ctx); err != nil || u.Bytes != 0 {
		t.Errorf("usage %+v, %v", u, err)
	}
}

func TestTagAndUntag(t *testing.T) {
	reg := testenv.EmptyRegistry(t)
	push(t, reg.URL, "x", "latest", newTestImage(asGzip, tarOf("a=1")))
	push(t, reg.URL, "y", "latest", newTestImage(asGzip, tarOf("a=2")))
	ctx := t.Context()
	s := openStore(t, Config{})
	x, y := s.mustPull(t, reg.Host+"/x").Image, s.mustPull(t, reg.Host+"/y").Image
	for _, tag := range []string{"mine", "mine:2", "x/y:z"} {
		if err := s.Tag(ctx, x.ID[7:17], tag); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Tag(ctx, y.ID, "mine"); err != nil { // takes the name away
		t.Fatal(err)
	}
	for name, want := range map[string]string{"mine": y.ID, "mine:2": x.ID, "x/y:z": x.ID} {
		if img, err := s.Image(ctx, name); err != nil || img.ID != want {
			t.Errorf("%s is %s, %v", name, img.ID, err)
		}
	}
	if err := s.Tag(ctx, x.ID, "a@"+x.Manifest); !errdefs.IsInvalidArgument(err) {
		t.Errorf("tag with a digest: %v", err)
	}
	if err := s.Tag(ctx, "none", "a"); !errdefs.IsNotFound(err) {
		t.Errorf("tag nothing: %v", err)
	}
	untag := func(ref string, force bool, wantUntagged, wantDeleted int) {
		t.Helper()
		untagged, deleted, err := s.Untag(ctx, ref, force)
		if err != nil || len(untagged) != wantUntagged || len(deleted) != wantDeleted {
			t.Errorf("untag %s: %q, %q, %v", ref, untagged, deleted, err)
		}
	}
	untag("mine:2", false, 1, 0)
	if _, _, err := s.Untag(ctx, x.ID, false); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("an ID with several repositories: %v", err)
	}
	untag(reg.Host+"/x", false, 2, 0) // the tag, and the repository's digest
	untag("x/y:z", false, 1, 1)
	untag(y.ID, true, 3, 1)
	if _, _, err := s.Untag(ctx, "x/y:z", false); !errdefs.IsNotFound(err) {
		t.Errorf("unknown: %v", err)
	}
	if list, err := s.Images(ctx); err != nil || len(list) > 0 {
		t.Errorf("%v, %v", list, err)
	}
}

// TestMovedTag: the image that loses its tag stays without one.
func TestMovedTag(t *testing.T) {
	reg := testenv.EmptyRegistry(t)
	s := openStore(t, Config{})
	push(t, reg.URL, "x", "latest", newTestImage(asGzip, tarOf("a=1")))
	old := s.mustPull(t, reg.Host+"/x").Image
	push(t, reg.URL, "x", "latest", newTestImage(asGzip, tarOf("a=2")))
	fresh := s.mustPull(t, reg.Host+"/x").Image
	if old.ID == fresh.ID {
		t.Fatal("it did not change")
	}
	for range 2 {
		left, err := s.Image(t.Context(), old.ID)
		if err != nil || len(left.Tags) > 0 || len(left.Digests) != 1 {
			t.Errorf("%+v, %v", left, err)
		}
		s.close()
		s = reopenStore(t, s.root, Config{})
	}
}

func TestRestart(t *testing.T) {
	reg := testenv.EmptyRegistry(t)
	ctx := context.Background()
	s := openStore(t, Config{})
	var images []Image
	for n := range 3 {
		push(t, reg.URL, fmt.Sprintf("x%d", n), "latest", newTestImage(asGzip, tarOf("base=1"), tarOf(fmt.Sprintf("n=%d", n))))
		images = append(images, s.mustPull(t, fmt.Sprintf("%s/x%d", reg.Host, n)).Image)
	}
	// What a kill leaves: a layer being unpacked, one that no image has, a
	// blob nobody refers to, one arriving; and one record is damaged.
	if _, err := s.snapshots.Prepare(ctx, unpackPrefix+"x", ""); err != nil {
		t.Fatal(err)
	}
	stray := tarOf("stray=1")
	if err := s.content.Put(digestOfBytes(stray), stray); err != nil {
		t.Fatal(err)
	}
	s.close()
	damaged := s.recordPath(images[1].digest())
	if err := os.WriteFile(damaged, []byte("00000000 {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	temp := filepath.Join(s.recordDir(), ".x.json.tmp-0123")
	if err := os.WriteFile(temp, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s = reopenStore(t, s.root, Config{})
	list, err := s.Images(ctx)
	if err != nil || len(list) != 2 {
		t.Fatalf("%v, %v", list, err)
	}
	for _, img := range list {
		before := images[slices.IndexFunc(images, func(i Image) bool { return i.ID == img.ID })]
		if !slices.Equal(img.Tags, before.Tags) || img.Size != before.Size || img.ChainID != before.ChainID || img.Config.Config.User != "1003:1004" {
			t.Errorf("was %+v, is %+v", before, img)
		}
		if len(s.files(t, img)) != 2 {
			t.Error("files are missing")
		}
	}
	s.clean(t)
	for _, path := range []string{damaged, temp} {
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("%s is still there", path)
		}
	}
	// Two images with manifest, configuration, layer of its own; one layer
	// of both.
	if _, n := s.content.Usage(); n != 7 {
		t.Errorf("%d blobs", n)
	}
	if res := s.mustPull(t, reg.Host+"/x1"); !res.New {
		t.Error("the damaged image was there")
	}
}

// TestKilledPull closes the store in the middle of a pull.
func TestKilledPull(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	reg := testenv.EmptyRegistry(t)
	i := newTestImage(asGzip, tarOf("a=1"), tarOf("b="+strings.Repeat("x", 100_000)))
	push(t, reg.URL, "x", "latest", i)
	arrived, open := make(chan struct{}), make(chan struct{})
	release := sync.OnceFunc(func() { close(open) })
	p := newProxy(t, reg.URL, blockOn(i.manifest.Layers[1].Digest.Encoded(), arrived, open))
	t.Cleanup(release)
	s := openStore(t, Config{})
	done := make(chan error)
	go func() {
		_, err := s.Pull(context.Background(), PullRequest{Ref: p.host + "/x"})
		done <- err
	}()
	<-arrived
	s.Store.Close()
	if err := <-done; err == nil {
		t.Error("the pull succeeded")
	}
	s.clean(t)
	release()
	s.close()
	s = reopenStore(t, s.root, Config{})
	if res := s.mustPull(t, p.host+"/x"); len(s.files(t, res.Image)) != 2 {
		t.Error("files are missing")
	}
}

// TestCollectWhilePulling has the collector run all the time.
func TestCollectWhilePulling(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	reg := testenv.EmptyRegistry(t)
	for n := range 4 {
		push(t, reg.URL, fmt.Sprintf("x%d", n), "latest",
			newTestImage(asGzip, tarOf("base=1"), tarOf(fmt.Sprintf("dir/n=%d", n%2)), tarOf(fmt.Sprintf("m=%d", n))))
	}
	s := openStore(t, Config{})
	ctx, cancel := context.WithCancel(t.Context())
	var collecting, pulling sync.WaitGroup
	collecting.Go(func() {
		for ctx.Err() == nil {
			if err := s.Collect(ctx); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		}
	})
	for n := range 4 {
		pulling.Go(func() {
			for range 8 {
				ref := fmt.Sprintf("%s/x%d", reg.Host, n)
				res, err := s.Pull(ctx, PullRequest{Ref: ref})
				if err != nil {
					t.Error(err)
					return
				}
				if len(s.files(t, res.Image)) != 3 {
					t.Errorf("%s lacks files", ref)
				}
				if err := s.Remove(ctx, ref); err != nil {
					t.Error(err)
				}
			}
		})
	}
	pulling.Wait()
	cancel()
	collecting.Wait()
}

// TestFindAmbiguous: a prefix of two IDs is an error, not a guess.
func TestFindAmbiguous(t *testing.T) {
	reg := testenv.EmptyRegistry(t)
	s := openStore(t, Config{})
	seen := map[byte]bool{}
	for n := range 17 { // two of seventeen begin with the same digit
		i := newTestImage(asGzip, tarOf(fmt.Sprintf("n=%d", n)))
		push(t, reg.URL, fmt.Sprintf("x%d", n), "latest", i)
		s.mustPull(t, fmt.Sprintf("%s/x%d", reg.Host, n))
		first := i.id()[7]
		if seen[first] {
			if _, err := s.Image(t.Context(), string(first)); !errdefs.IsInvalidArgument(err) {
				t.Errorf("ambiguous: %v", err)
			}
			return
		}
		seen[first] = true
	}
}
