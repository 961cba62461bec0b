package imageservice

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// cutVariable makes TestPowerCutWorker the process whose power is cut: it names
// a folder, a registry, and the form of layers.
const cutVariable = "NODEAGENT_TEST_POWER_CUT"

// TestPowerCutWorker pulls, removes and collects until it is killed.
func TestPowerCutWorker(t *testing.T) {
	args := strings.Split(os.Getenv(cutVariable), ",")
	if len(args) != 3 {
		t.Skip("part of TestPowerCut")
	}
	dir, host := args[0], args[1]
	asErofs = args[2] == "images"
	s := reopenStore(t, dir, Config{})
	for n := 0; ; n++ {
		for _, name := range []string{"a", "b"} {
			if _, err := s.Pull(t.Context(), PullRequest{Ref: host + "/" + name}); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.Tag(t.Context(), host+"/a", fmt.Sprintf("%s/tag:%d", host, n%3)); err != nil {
			t.Fatal(err)
		}
		images, err := s.Images(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(s.Remove(t.Context(), images[n%len(images)].ID), s.Collect(t.Context())); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPowerCut cuts the power at random points of pulling and removing: what
// is listed afterwards is whole, and the store works on.
func TestPowerCut(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	for _, form := range []string{"directories", "images"} {
		t.Run(form, func(t *testing.T) {
			asErofs = form == "images"
			defer func() { asErofs = false }()
			testPowerCut(t)
		})
	}
}

// cuts is how often the power is cut for each form of layers.
const cuts = 12

func testPowerCut(t *testing.T) {
	reg := testenv.EmptyRegistry(t)
	big := strings.Repeat("0123456789abcdef", 20_000)
	push(t, reg.URL, "a", "latest", newTestImage(asGzip, tarOf("common="+big), tarOf("a=1", "aa="+big), tarOf("aaa=1")))
	push(t, reg.URL, "b", "latest", newTestImage(asGzip, tarOf("common="+big), tarOf("b=1", "bb="+big)))
	d := testenv.NewDisk(t, 64<<20)
	worker := exec.Command(os.Args[0], "-test.run=^TestPowerCutWorker$")
	worker.Env = append(os.Environ(), cutVariable+"="+filepath.Join(d.Dir, "store")+","+reg.Host+","+map[bool]string{true: "images"}[asErofs])
	var out strings.Builder
	worker.Stdout, worker.Stderr = &out, &out
	if err := worker.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- worker.Wait() }()
	defer func() {
		_ = worker.Process.Kill()
		<-exited
	}()
	seen := 0
	for range cuts {
		select {
		case err := <-exited:
			exited <- err
			t.Fatalf("the worker ended: %v\n%s", err, out.String())
		case <-time.After(time.Duration(20+rand.IntN(230)) * time.Millisecond):
		}
		// It does nothing while the disk is copied.
		if err := worker.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		crash := d.Cut()
		if err := worker.Process.Signal(syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		seen += afterCut(t, d, crash)
	}
	if seen == 0 {
		t.Error("no image outlived any of the cuts")
	}
}

// afterCut starts on what a power cut left, and returns how many images are
// there.
func afterCut(t *testing.T, d *testenv.Disk, crash string) int {
	t.Helper()
	dir := d.Mount(crash)
	defer func() {
		d.Unmount(dir)
		os.Remove(crash)
	}()
	began := time.Now()
	s := reopenStore(t, filepath.Join(dir, "store"), Config{})
	defer s.close()
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("the start took %v", took)
	}
	images, err := s.Images(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range s.verify(t, false) {
		t.Errorf("found %+v", f)
	}
	for _, img := range images {
		if files := s.files(t, img); files["common"] == "" || len(files) < 3 {
			t.Errorf("image %s has %d files", img.ID, len(files))
		}
	}
	return len(images)
}

// TestFlippedRecords flips a bit in each file that is neither blob nor layer:
// the store opens, and what it lists is whole.
func TestFlippedRecords(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	reg := testenv.EmptyRegistry(t)
	push(t, reg.URL, "a", "latest", newTestImage(asGzip, tarOf("a=1"), tarOf("b=1")))
	s := openStore(t, Config{})
	want := s.files(t, s.mustPull(t, reg.Host+"/a").Image)
	for _, pattern := range []string{"images/images/*.json", "snapshots/*/record", "snapshots/*/sums", "images/content/blobs/sha256/*"} {
		t.Run(strings.ReplaceAll(pattern, "/", " "), func(t *testing.T) {
			s.close()
			files, err := filepath.Glob(filepath.Join(s.root, pattern))
			if err != nil || len(files) == 0 {
				t.Fatal(files, err)
			}
			for _, file := range files {
				flipBit(t, file)
			}
			s = reopenStore(t, s.root, Config{})
			images, err := s.Images(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, img := range images {
				if err := s.Unpack(t.Context(), img.ID, ""); err != nil {
					t.Errorf("listed, and not to be had: %v", err)
				}
			}
			// It may be there already, and says so after a repair.
			img := s.mustPull(t, reg.Host+"/a").Image
			if got := s.files(t, img); !mapsEqual(got, want) {
				t.Errorf("files %v", got)
			}
			s.verify(t, true)
			if found := s.verify(t, false); len(found) > 0 {
				t.Errorf("found %+v", found)
			}
		})
	}
}

// TestDiskFull: without room for a byte or a file, images can be removed, and
// a pull leaves nothing.
func TestDiskFull(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	reg := testenv.EmptyRegistry(t)
	big := strings.Repeat("0123456789abcdef", 60_000)
	for _, name := range []string{"a", "b", "c", "d"} {
		push(t, reg.URL, name, "latest", newTestImage(asGzip, tarOf("common="+big), tarOf(name+"="+big)))
	}
	for what, fill := range map[string]func(*testenv.Disk){"bytes": (*testenv.Disk).Fill, "inodes": (*testenv.Disk).FillInodes} {
		t.Run(what, func(t *testing.T) { testDiskFull(t, reg.Host, fill) })
	}
}

func testDiskFull(t *testing.T, host string, fill func(*testenv.Disk)) {
	d := testenv.NewDisk(t, 96<<20, "-N", "2000")
	ctx := t.Context()
	s := reopenStore(t, filepath.Join(d.Dir, "store"), Config{})
	defer s.close()
	a, b, c := s.mustPull(t, host+"/a").Image, s.mustPull(t, host+"/b").Image, s.mustPull(t, host+"/c").Image
	if err := s.Tag(ctx, a.ID, "docker.io/library/other:1"); err != nil {
		t.Fatal(err)
	}
	inUse := &user{image: b.ID}
	s.SetInUse(inUse)
	fill(d)
	_, err := s.Pull(ctx, PullRequest{Ref: host + "/d"})
	if !errdefs.IsResourceExhausted(err) && !errors.Is(err, unix.ENOSPC) {
		t.Errorf("pull: %v", err)
	}
	if err != nil && !strings.Contains(err.Error(), "free") && !strings.Contains(err.Error(), "no space") && !strings.Contains(err.Error(), "room") {
		t.Errorf("pull says %q", err)
	}
	if _, _, err := s.Untag(ctx, "other:1", false); err != nil {
		t.Errorf("untag: %v", err)
	}
	if err := s.Remove(ctx, b.ID); err != nil {
		t.Errorf("remove an image in use: %v", err)
	}
	if err := s.Remove(ctx, c.ID); err != nil {
		t.Errorf("remove: %v", err)
	}
	if err := errors.Join(s.Collect(ctx), s.snapshots.Cleanup(ctx)); err != nil {
		t.Errorf("collect: %v", err)
	}
	s.close()
	s = reopenStore(t, s.root, Config{})
	s.SetInUse(inUse)
	images, err := s.Images(context.Background())
	if err != nil || len(images) != 1 || images[0].ID != a.ID || !slices.Equal(images[0].Tags, []string{host + "/a:latest"}) {
		t.Errorf("%+v, %v", images, err)
	}
	s.close()
}
