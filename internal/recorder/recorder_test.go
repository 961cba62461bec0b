package recorder

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func open(t testing.TB, cfg Config) *Recorder {
	t.Helper()
	r, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	return r
}

func texts(t *testing.T, r *Recorder, text string) []string {
	t.Helper()
	var all []string
	if err := r.Scan(t.Context(), text, func(e Entry) bool { all = append(all, e.Text); return true }); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestEntriesSurviveClose(t *testing.T) {
	dir := t.TempDir()
	r := open(t, Config{Dir: dir})
	for i := range 3 {
		r.Note(Entry{Kind: KindCall, Pod: "p", Text: fmt.Sprint(i), Exit: &Exit{Code: 3, Log: []string{"\xff"}}})
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	r.Note(Entry{Text: "after the end"})
	r = open(t, Config{Dir: dir})
	r.Note(Entry{Kind: KindCall, Pod: "p", Text: "3"})
	r.Note(Entry{Kind: KindCall, Pod: "other", Text: "4"})
	entries, err := r.Of(t.Context(), 3, "p")
	if err != nil || len(entries) != 3 || entries[0].Text != "1" || entries[2].Text != "3" {
		t.Fatalf("got %v, %v", entries, err)
	}
}

// A killed agent leaves half a line, and a bad disk a wrong one.
func TestDamageCostsOnlyWhatIsDamaged(t *testing.T) {
	dir := t.TempDir()
	r := open(t, Config{Dir: dir})
	for i := range 3 {
		r.Note(Entry{Text: fmt.Sprint("n", i)})
	}
	_ = r.Close()
	path := segmentPath(dir, 1)
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for end := range raw {
		if err := os.WriteFile(path, raw[:end], 0o600); err != nil {
			t.Fatal(err)
		}
		r := open(t, Config{Dir: dir})
		r.Note(Entry{Text: "next"})
		want := bytes.Count(raw[:end], []byte("\n")) + 1
		if got := texts(t, r, ""); len(got) != want || got[len(got)-1] != "next" {
			t.Fatalf("cut at %d: got %v, want %d", end, got, want)
		}
		_ = r.Close()
	}
	raw[bytes.IndexByte(raw, '\n')+20] ^= 1
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	r = open(t, Config{Dir: dir})
	if got := strings.Join(texts(t, r, ""), " "); got != "n0 n2" {
		t.Fatalf("got %s", got)
	}
}

func TestDiskIsBounded(t *testing.T) {
	dir := t.TempDir()
	r := open(t, Config{Dir: dir, SegmentBytes: 10_000, Segments: 3, Queue: 1 << 16})
	for i := range 2000 {
		r.Note(Entry{Text: fmt.Sprint(i)})
		if i%50 == 0 {
			if err := r.flush(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := texts(t, r, "")
	if got[len(got)-1] != "1999" || len(got) > 700 {
		t.Errorf("%d entries up to %s", len(got), got[len(got)-1])
	}
	files, _ := filepath.Glob(filepath.Join(dir, "*"))
	total := int64(0)
	for _, f := range files {
		info, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		total += info.Size()
	}
	if len(files) != 3 || total > 30_000 {
		t.Errorf("%d files of %d bytes", len(files), total)
	}
	if r.Dropped() != 0 {
		t.Errorf("dropped %d", r.Dropped())
	}
}

// Who notes something never waits, whatever the disk does.
func TestFullQueueDrops(t *testing.T) {
	r := &Recorder{queue: make(chan item, 2), done: make(chan struct{})}
	for range 5 {
		r.Note(Entry{})
	}
	if r.Dropped() != 3 {
		t.Errorf("dropped %d", r.Dropped())
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if r.flush(ctx) == nil {
		t.Error("a recorder that does not write was flushed")
	}
}

func TestUnwritableFolderDropsAndCounts(t *testing.T) {
	dir := t.TempDir()
	r := open(t, Config{Dir: dir, SegmentBytes: 1})
	r.Note(Entry{Text: "kept"})
	if err := r.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Where the next segment belongs there is a folder.
	if err := os.Mkdir(segmentPath(dir, 2), 0o700); err != nil {
		t.Fatal(err)
	}
	r.Note(Entry{Text: "lost"})
	if got := texts(t, r, ""); len(got) != 1 || r.Dropped() != 1 {
		t.Errorf("%v, dropped %d", got, r.Dropped())
	}
}

func TestNilRecordsNothing(t *testing.T) {
	var r *Recorder
	r.Note(Entry{})
	if err := r.Scan(t.Context(), "", nil); err != nil || r.Dropped() != 0 || r.Close() != nil {
		t.Error("a nil recorder does something")
	}
}

func TestEntriesAreBounded(t *testing.T) {
	long := strings.Repeat("é", 1<<20)
	log := make([]string, 1000)
	steps := make([]Step, 1000)
	for i := range log {
		log[i] = long
	}
	var b bytes.Buffer
	err := encode(&b, Entry{What: long, By: long, Text: long, Error: long, Steps: steps, Names: &Names{Image: long}, Exit: &Exit{Log: log}})
	if err != nil || b.Len() > maxEntry {
		t.Fatalf("%d bytes, %v", b.Len(), err)
	}
	if _, ok := decode(bytes.TrimSpace(b.Bytes())); !ok {
		t.Error("does not decode")
	}
}

func FuzzDecode(f *testing.F) {
	var b bytes.Buffer
	_ = encode(&b, Entry{Kind: KindExit, Text: "x", Exit: &Exit{Log: []string{"a"}}})
	f.Add(b.Bytes())
	f.Add([]byte("00000000 {}\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(segmentPath(dir, 7), raw, 0o600); err != nil {
			t.Fatal(err)
		}
		r := open(t, Config{Dir: dir})
		r.Note(Entry{Text: "whole"})
		found := false
		if err := r.Scan(t.Context(), "whole", func(e Entry) bool { found = found || e.Text == "whole"; return true }); err != nil || !found {
			t.Fatalf("found %v, %v", found, err)
		}
	})
}

func BenchmarkNote(b *testing.B) {
	r := open(b, Config{Dir: b.TempDir()})
	for b.Loop() {
		r.Note(Entry{Kind: KindOperation, Pod: strings.Repeat("a", 64), What: "run pod", Steps: make([]Step, 7)})
	}
}
