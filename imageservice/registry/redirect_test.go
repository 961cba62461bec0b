package registry

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/distribution/reference"
)

// TestRedirects follows a redirection, and looks who gets the token.
func TestRedirects(t *testing.T) {
	for _, c := range []struct {
		from, to string
		told     bool
	}{
		{"https://registry.test/v2/", "https://registry.test/v2/x", true},
		{"https://registry.test/v2/", "https://elsewhere.test/v2/x", false},
		{"https://registry.test/v2/", "http://registry.test/v2/x", false},
		{"http://registry.test/v2/", "https://registry.test/v2/x", true},
		{"https://localhost:5000/v2/", "http://localhost:5000/v2/x", true},
	} {
		first, err := http.NewRequest(http.MethodGet, c.from, nil)
		if err != nil {
			t.Fatal(err)
		}
		next, err := http.NewRequest(http.MethodGet, c.to, nil)
		if err != nil {
			t.Fatal(err)
		}
		// As net/http leaves it.
		next.Header.Set("Authorization", "Bearer secret")
		err = checkRedirect(tokenAuthorizer{first.URL.Host, "secret"}, nil)(next, []*http.Request{first})
		if told := next.Header.Get("Authorization") != ""; err != nil || told != c.told {
			t.Errorf("%s to %s: token sent %v, %v", c.from, c.to, told, err)
		}
	}
}

// TestPushToSilence asks a registry that takes connections and says nothing.
func TestPushToSilence(t *testing.T) {
	over := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-over:
		}
	}))
	defer silent.Close()
	defer close(over)
	ref, err := reference.ParseNormalizedNamed(strings.TrimPrefix(silent.URL, "http://") + "/x:1")
	if err != nil {
		t.Fatal(err)
	}
	c := New(Config{HeaderTimeout: 10 * time.Millisecond})
	target, err := c.Push(ref.(reference.NamedTagged), Credentials{})
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if _, err := target.Has(ctx, "sha256:x"); !errors.Is(err, errNoAnswer) {
		t.Errorf("is it there: %v", err)
	}
	_, err = target.begin(ctx)
	if !errors.Is(err, errNoAnswer) {
		t.Errorf("begin: %v", err)
	}
}
