package imageservice

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// verify returns what is found, as "kind path".
func (s *testStore) verify(t *testing.T, repair bool) (found []Finding) {
	t.Helper()
	_, err := s.Verify(t.Context(), VerifyOptions{Repair: repair, Found: func(f Finding) error {
		found = append(found, f)
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func flipBit(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 16
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestVerify flips bits in blobs and layers, and has them fetched again.
func TestVerify(t *testing.T) {
	testenv.Root(t)
	for _, erofs := range []bool{false, true} {
		t.Run(map[bool]string{false: "directories", true: "images"}[erofs], func(t *testing.T) {
			testenv.Leaks(t)
			asErofs = erofs
			defer func() { asErofs = false }()
			testVerify(t)
		})
	}
}

func testVerify(t *testing.T) {
	reg := testenv.EmptyRegistry(t)
	i := newTestImage(asGzip, tarOf("a=content of a", "b=content of b"), tarOf("c=content of c"))
	push(t, reg.URL, "x", "latest", i)
	p := newProxy(t, reg.URL, nil)
	s := openStore(t, Config{})
	img := s.mustPull(t, p.host+"/x").Image
	want := s.files(t, img)
	if found := s.verify(t, false); len(found) > 0 {
		t.Fatalf("found from the beginning: %+v", found)
	}

	layerBlob := i.manifest.Layers[0].Digest
	blob := filepath.Join(s.root, "images/content/blobs/sha256", layerBlob.Encoded())
	flipBit(t, blob)
	flipBit(t, s.layerFile(t, 0, "a"))
	found := s.verify(t, false)
	if len(found) != 2 || found[0].Kind != "blob" || found[0].Name != layerBlob.String() || found[1].Kind != "layer" ||
		!slices.Equal(found[1].Images, []string{img.ID}) || found[1].Repaired {
		t.Errorf("found %+v", found)
	}
	before := p.count("/blobs/")
	for _, f := range s.verify(t, true) {
		if !f.Repaired {
			t.Errorf("not repaired: %+v", f)
		}
	}
	if n := p.count("/blobs/") - before; n != 1 {
		t.Errorf("%d blobs were fetched for one that is damaged", n)
	}
	if found := s.verify(t, false); len(found) > 0 {
		t.Errorf("found after repair: %+v", found)
	}
	if got := s.files(t, img); !mapsEqual(got, want) {
		t.Errorf("files %v", got)
	}

	// With the registry gone it is told what could not be repaired.
	flipBit(t, filepath.Join(s.root, "images/content/blobs/sha256", i.manifest.Config.Digest.Encoded()))
	p.Close()
	if found := s.verify(t, true); len(found) != 1 || found[0].Repaired || found[0].RepairError == "" {
		t.Errorf("found %+v", found)
	}
}

func mapsEqual(a, b map[string]string) bool {
	if len(a) != len(b) {
		return false
	}
	for k, v := range a {
		if b[k] != v {
			return false
		}
	}
	return true
}

// layerFile is where the content of a file is on the disk.
func (s *testStore) layerFile(t *testing.T, n int, name string) string {
	t.Helper()
	images, err := s.Images(t.Context())
	if err != nil || len(images) != 1 {
		t.Fatal(images, err)
	}
	s.mu.Lock()
	chain := s.images[images[0].ID].chainIDs[n].String()
	s.mu.Unlock()
	if file, err := s.snapshots.LayerFile(chain); err != nil || file != "" {
		return file
	}
	dir, release, err := s.snapshots.HoldLayer(chain)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	return filepath.Join(dir, name)
}

// TestLostLayers: what a container needs is there when it is made, whatever
// was deleted.
func TestLostLayers(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	reg := testenv.EmptyRegistry(t)
	i := newTestImage(asGzip, tarOf("a=1", "d/b=1"), tarOf("c=1"))
	push(t, reg.URL, "x", "latest", i)
	s := openStore(t, Config{})
	img := s.mustPull(t, reg.Host+"/x").Image
	want := s.files(t, img)
	blobs := filepath.Join(s.root, "images/content/blobs/sha256")
	for name, lose := range map[string]func() error{
		"a layer's files": func() error { return os.RemoveAll(filepath.Dir(s.layerFile(t, 0, "a"))) },
		"a layer and its blob": func() error {
			if err := os.Remove(filepath.Join(blobs, i.manifest.Layers[1].Digest.Encoded())); err != nil {
				return err
			}
			return os.RemoveAll(filepath.Dir(s.layerFile(t, 1, "c")))
		},
		"everything": func() error {
			for n, file := range []string{"a", "c"} {
				if err := os.RemoveAll(filepath.Dir(s.layerFile(t, n, file))); err != nil {
					return err
				}
			}
			return os.RemoveAll(blobs)
		},
	} {
		t.Run(name, func(t *testing.T) {
			if err := lose(); err != nil {
				t.Fatal(err)
			}
			if name == "everything" {
				if err := os.MkdirAll(blobs, 0o700); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Unpack(t.Context(), img.ID, ""); err != nil {
				t.Fatal(err)
			}
			if got := s.files(t, img); !mapsEqual(got, want) {
				t.Errorf("files %v", got)
			}
			if found := s.verify(t, false); len(found) > 0 {
				t.Errorf("found %+v", found)
			}
		})
	}
	// The snapshots themselves are lost, as after a repair of the disk.
	s.close()
	if err := os.RemoveAll(filepath.Join(s.root, "snapshots")); err != nil {
		t.Fatal(err)
	}
	s = reopenStore(t, s.root, Config{})
	if err := s.Unpack(t.Context(), img.ID, ""); err != nil {
		t.Fatal(err)
	}
	if got := s.files(t, img); !mapsEqual(got, want) {
		t.Errorf("files %v", got)
	}
}
