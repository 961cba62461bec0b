package record

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

type thing struct {
	A string
	B []byte
}

func TestStore(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, ".x.json.tmp-00"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(dir, "thing", 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put("x", thing{"a", []byte{1, 2}}); err != nil {
		t.Fatal(err)
	}
	var got thing
	if err := s.Get("x", &got); err != nil || got.A != "a" || len(got.B) != 2 {
		t.Errorf("got %+v, %v", got, err)
	}
	if err := s.Get("y", &got); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: %v", err)
	}
	if ids, err := s.IDs(); err != nil || !slices.Equal(ids, []string{"x"}) {
		t.Errorf("IDs %v, %v", ids, err)
	}
	if _, err := s.SetAside("x"); err != nil {
		t.Error(err)
	}
	if ids, _ := s.IDs(); len(ids) != 0 {
		t.Errorf("IDs %v", ids)
	}
	for range 2 {
		if err := s.Delete("x"); err != nil {
			t.Error(err)
		}
	}
}

// Every single damaged byte and every truncation must be noticed.
func TestDamageIsNoticed(t *testing.T) {
	data, err := Encode("thing", 1, thing{"some text", []byte("bytes")})
	if err != nil {
		t.Fatal(err)
	}
	var got thing
	if err := Decode("thing", 1, data, &got); err != nil {
		t.Fatal(err)
	}
	body := slices.Index(data, '\n')
	for i := range data {
		if err := Decode("thing", 1, data[:i], &got); !errors.Is(err, ErrCorrupt) {
			t.Errorf("cut at %d: %v", i, err)
		}
		if i < body {
			continue
		}
		damaged := slices.Clone(data)
		damaged[i] ^= 0x20
		if err := Decode("thing", 1, damaged, &got); !errors.Is(err, ErrCorrupt) {
			t.Errorf("byte %d: %v", i, err)
		}
	}
	for _, c := range []struct {
		kind    string
		version int
	}{{"other", 1}, {"thing", 0}} {
		if err := Decode(c.kind, c.version, data, &got); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	good, _ := Encode("thing", 1, thing{A: "x"})
	f.Add(good)
	f.Add([]byte("nodeagent-record thing 1 crc32c=00000000 len=0\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var got thing
		if err := Decode("thing", 1, data, &got); err != nil && !errors.Is(err, ErrCorrupt) {
			t.Errorf("kind of %v", err)
		}
	})
}

// What could not be read again is not written.
func TestTooLargeToBeRead(t *testing.T) {
	s, err := Open(t.TempDir(), "pod", 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Put("a", "small"); err != nil {
		t.Fatal(err)
	}
	if err := s.Put("a", strings.Repeat("x", MaxSize)); !errdefs.IsResourceExhausted(err) {
		t.Errorf("put: %v", err)
	}
	var got string
	if err := s.Get("a", &got); got != "small" || err != nil {
		t.Errorf("got %.10q, %v", got, err)
	}
}
