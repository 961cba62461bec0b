package crilog

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

var base = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// line is one line of a log, at a time of n seconds after base.
func line(n int, stream, tag, text string) string {
	return fmt.Sprintf("%s %s %s %s\n", base.Add(time.Duration(n)*time.Second).Format(time.RFC3339Nano), stream, tag, text)
}

func collect(t *testing.T, content string, o Options) []string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	var got []string
	err := Read(context.Background(), path, o, func(e Entry) error {
		got = append(got, describe(e))
		return nil
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func describe(e Entry) string {
	text := string(e.Data)
	if e.Stderr {
		text = "E:" + text
	}
	if e.Partial {
		text += "+"
	}
	return text
}

func TestReadBoundsAndTail(t *testing.T) {
	content := line(0, "stdout", "F", "zero") + line(1, "stderr", "F", "one") + "rubbish\n" +
		line(2, "stdout", "P", "two-") + line(3, "stdout", "F", "three") + line(4, "stdout", "F:tag", "") + "2026-01-02T03:04:10Z stdout F unfini"
	tests := []struct {
		name string
		o    Options
		want []string
	}{
		{"all", Options{Tail: -1}, []string{"zero", "E:one", "two-+", "three", ""}},
		{"tail 0", Options{Tail: 0}, nil},
		{"tail 1", Options{Tail: 1}, []string{""}},
		{"tail 2 keeps parts together", Options{Tail: 2}, []string{"two-+", "three", ""}},
		{"tail 3", Options{Tail: 3}, []string{"E:one", "two-+", "three", ""}},
		{"tail 4", Options{Tail: 4}, []string{"zero", "E:one", "two-+", "three", ""}},
		{"tail 99", Options{Tail: 99}, []string{"zero", "E:one", "two-+", "three", ""}},
		{"since", Options{Tail: -1, Since: base.Add(3 * time.Second)}, []string{"three", ""}},
		{"until", Options{Tail: -1, Until: base.Add(time.Second)}, []string{"zero", "E:one"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got := collect(t, content, test.o); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestTailAgreesWithCounting(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for round := range 6 {
		var b strings.Builder
		var starts []int64 // where each whole line begins, with its parts
		begun := int64(-1)
		for n := range 40 {
			if begun < 0 {
				begun = int64(b.Len())
			}
			tag := "F"
			if random.IntN(4) == 0 {
				tag = "P"
			} else {
				starts = append(starts, begun)
				begun = -1
			}
			b.WriteString(line(n, "stdout", tag, strings.Repeat("x", random.IntN(2)*random.IntN(100000))))
		}
		f := strings.NewReader(b.String())
		for n := 1; n <= len(starts); n++ {
			got, _, err := tailOffset(f, int64(n))
			if err != nil {
				t.Fatal(err)
			}
			if want := starts[len(starts)-n]; got != want {
				t.Fatalf("round %d: last %d lines begin at %d, want %d", round, n, got, want)
			}
		}
	}
}

func TestTooLongLineIsSkipped(t *testing.T) {
	content := line(0, "stdout", "F", strings.Repeat("y", MaxLine)) + line(1, "stdout", "F", "after")
	if got := collect(t, content, Options{Tail: -1}); !slices.Equal(got, []string{"after"}) {
		t.Errorf("got %d entries", len(got))
	}
}

func TestFollowSeesAppendsRotationAndEnd(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	path := filepath.Join(t.TempDir(), "log")
	end, got, finished := make(chan struct{}), make(chan string, 100), make(chan error, 1)
	go func() {
		finished <- Read(ctx, path, Options{Tail: -1, Follow: end}, func(e Entry) error {
			got <- describe(e)
			return nil
		}, nil)
	}()
	expect := func(want string) {
		t.Helper()
		select {
		case text := <-got:
			if text != want {
				t.Fatalf("got %q, want %q", text, want)
			}
		case <-ctx.Done():
			t.Fatalf("%q did not come", want)
		}
	}
	write := func(text string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			t.Fatal(err)
		}
	}
	write(line(0, "stdout", "F", "first"))
	expect("first")
	whole := line(1, "stdout", "F", "second")
	write(whole[:20])
	write(whole[20:])
	expect("second")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	write(line(2, "stderr", "F", "third"))
	expect("E:third")
	write(line(3, "stdout", "F", "last"))
	close(end)
	expect("last")
	if err := <-finished; err != nil {
		t.Fatal(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("2016-10-06T00:17:09.669794202Z stdout P log content"))
	f.Add([]byte("2016-10-06T00:17:09Z stderr F:x "))
	f.Add([]byte("stdout F"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		e, err := Parse(raw)
		if err != nil {
			return
		}
		if !bytes.HasSuffix(raw, e.Data) {
			t.Errorf("data %q is not the end of %q", e.Data, raw)
		}
	})
}

func FuzzTail(f *testing.F) {
	f.Add(line(0, "stdout", "F", "a")+line(0, "stdout", "P", "b"), int64(1))
	f.Fuzz(func(t *testing.T, content string, n int64) {
		offset, _, err := tailOffset(strings.NewReader(content), n)
		if err != nil || offset < 0 || offset > int64(len(content)) {
			t.Fatalf("offset %d of %d bytes: %v", offset, len(content), err)
		}
		if offset > 0 && offset < int64(len(content)) && content[offset-1] != '\n' {
			t.Fatalf("offset %d is within a line", offset)
		}
	})
}
