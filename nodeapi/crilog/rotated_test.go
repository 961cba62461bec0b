package crilog

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// rotate moves the files of a log on, of which older are kept, and begins a new one.
func rotate(t *testing.T, path string, older int, content string) {
	t.Helper()
	for n := older; n > 0; n-- {
		from := path
		if n > 1 {
			from = Rotated(path, n-1)
		}
		if err := os.Rename(from, Rotated(path, n)); err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTailOverRotatedFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	for file := range 3 {
		rotate(t, path, 3, line(2*file, "stdout", "F", fmt.Sprint(2*file))+line(2*file+1, "stdout", "F", fmt.Sprint(2*file+1)))
	}
	for tail, want := range map[int64]string{-1: "0 1 2 3 4 5", 0: "", 1: "5", 2: "4 5", 3: "3 4 5", 5: "1 2 3 4 5", 6: "0 1 2 3 4 5", 99: "0 1 2 3 4 5"} {
		var got []string
		if err := Read(t.Context(), path, Options{Tail: tail, Older: 3}, func(e Entry) error {
			got = append(got, describe(e))
			return nil
		}, nil); err != nil {
			t.Fatal(err)
		}
		if strings.Join(got, " ") != want {
			t.Errorf("tail %d: %q", tail, got)
		}
	}
	// A rotation that was cut leaves a gap.
	if err := os.Remove(Rotated(path, 1)); err != nil {
		t.Fatal(err)
	}
	files, err := openAll(path, 3)
	if err != nil || len(files) != 2 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		_ = f.Close()
	}
	if err := os.Link(path, Rotated(path, 1)); err != nil {
		t.Fatal(err)
	}
	if files, err := openAll(path, 3); err == nil {
		t.Errorf("a file that is there twice: %d files", len(files))
	}
}

// A reader that is slow misses nothing, however often the log is rotated, and
// gets nothing twice.
func TestFollowOverManyRotations(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	path := filepath.Join(t.TempDir(), "log")
	rotate(t, path, 4, line(0, "stdout", "F", "0"))
	end, begun, goOn, finished := make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan error, 1)
	var got []string
	go func() {
		finished <- Read(ctx, path, Options{Tail: -1, Follow: end, Older: 4}, func(e Entry) error {
			if got = append(got, describe(e)); len(got) == 1 {
				close(begun)
				<-goOn
			}
			return nil
		}, nil)
	}()
	<-begun
	for n := 1; n < 5; n++ {
		rotate(t, path, 4, line(n, "stdout", "F", fmt.Sprint(n)))
	}
	close(goOn)
	close(end)
	if err := <-finished; err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, []string{"0", "1", "2", "3", "4"}) {
		t.Errorf("got %q", got)
	}
}
