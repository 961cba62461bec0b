package testenv

import (
	"testing"
	"time"
)

// pollInterval is how often Eventually looks.
const pollInterval = 20 * time.Millisecond

// Eventually calls condition until it returns nil, and fails the test with its last error when that takes longer than
// the limit.
func Eventually(t testing.TB, limit time.Duration, what string, condition func() error) {
	t.Helper()
	if err := poll(limit, condition); err != nil {
		t.Fatalf("%s: not within %v: %v", what, limit, err)
	}
}

// poll calls condition until it returns nil or the limit is over, and returns its last error.
func poll(limit time.Duration, condition func() error) error {
	deadline := time.NewTimer(limit)
	defer deadline.Stop()
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		err := condition()
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-deadline.C:
			return err
		}
	}
}
