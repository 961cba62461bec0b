package failpoint

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestErrorTimes(t *testing.T) {
	disable, err := Enable("a=error:2,b=error")
	if err != nil {
		t.Fatal(err)
	}
	defer disable()
	for i, want := range []error{ErrInjected, ErrInjected, nil, nil} {
		if err := Inject(t.Context(), "a"); !errors.Is(err, want) {
			t.Errorf("call %d: %v", i, err)
		}
	}
	if err := Inject(t.Context(), "b"); !errors.Is(err, ErrInjected) {
		t.Errorf("b: %v", err)
	}
	if err := Inject(t.Context(), "c"); err != nil {
		t.Errorf("c: %v", err)
	}
}

func TestWait(t *testing.T) {
	path := filepath.Join(t.TempDir(), "go")
	disable, err := Enable("a=wait:" + path)
	if err != nil {
		t.Fatal(err)
	}
	defer disable()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Inject(ctx, "a"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled wait: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Inject(t.Context(), "a"); err != nil {
		t.Errorf("wait for a file that is there: %v", err)
	}
}

func TestBadSpecs(t *testing.T) {
	for _, spec := range []string{"", "a", "=error", "a=crash", "a=wait", "a=error:0", "a=error:x"} {
		if _, err := Enable(spec); err == nil {
			t.Errorf("%q: no error", spec)
		}
	}
}
