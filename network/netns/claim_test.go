package netns

import (
	"context"
	"errors"
	"testing"
)

func TestClaim(t *testing.T) {
	release, err := Claim(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	why := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := Claim(ctx); !errors.Is(err, why) {
		t.Errorf("a second claim: %v", err)
	}
	got := make(chan error)
	go func() {
		second, err := Claim(t.Context())
		if err == nil {
			second()
		}
		got <- err
	}()
	release()
	if err := <-got; err != nil {
		t.Errorf("a claim after the first: %v", err)
	}
}
