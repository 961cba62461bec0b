package imageservice

import (
	"testing"

	"github.com/nodeagent/nodeagent/internal/testenv"
)

// TestDiskUsage: what images have together and alone adds up to what is there,
// and removing one frees what it has alone.
func TestDiskUsage(t *testing.T) {
	testenv.Root(t)
	for _, erofs := range []bool{false, true} {
		t.Run(map[bool]string{false: "directories", true: "images"}[erofs], func(t *testing.T) {
			asErofs = erofs
			defer func() { asErofs = false }()
			testDiskUsage(t)
		})
	}
}

func testDiskUsage(t *testing.T) {
	reg := testenv.EmptyRegistry(t)
	push(t, reg.URL, "a", "latest", newTestImage(asGzip, tarOf("base=common"), tarOf("a=1")))
	push(t, reg.URL, "b", "latest", newTestImage(asGzip, tarOf("base=common"), tarOf("b=1", "b2=2")))
	s := openStore(t, Config{})
	a, b := s.mustPull(t, reg.Host+"/a").Image, s.mustPull(t, reg.Host+"/b").Image
	s.SetInUse(&user{image: a.ID})
	before := s.usage(t)
	var exclusive, shared int64
	for _, img := range before.Images {
		exclusive += img.Exclusive
		shared = img.Shared
		if img.Shared == 0 || img.Exclusive == 0 || img.InUse != (img.ID == a.ID) {
			t.Errorf("%+v", img)
		}
		if img.ID == b.ID && before.Reclaimable != img.Exclusive {
			t.Errorf("%d bytes are reclaimable, and the unused image has %d alone", before.Reclaimable, img.Exclusive)
		}
	}
	fs, err := s.FilesystemUsage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if exclusive+shared != before.Bytes || before.Bytes != int64(fs.Bytes) || before.Unneeded != 0 {
		t.Errorf("%d alone, %d shared of %+v; %+v", exclusive, shared, before, fs)
	}
	if err := s.Remove(t.Context(), b.ID); err != nil {
		t.Fatal(err)
	}
	if err := s.Collect(t.Context()); err != nil {
		t.Fatal(err)
	}
	after := s.usage(t)
	if before.Bytes-after.Bytes != before.Reclaimable || len(after.Images) != 1 || after.Images[0].Shared != 0 {
		t.Errorf("before %+v\nafter %+v", before, after)
	}
}

func (s *testStore) usage(t *testing.T) DiskUsage {
	t.Helper()
	d, err := s.DiskUsage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return d
}
