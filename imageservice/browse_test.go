package imageservice

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/internal/testenv"
)

func TestLogin(t *testing.T) {
	testenv.Root(t)
	reg := testenv.PrivateRegistry(t)
	s := openStore(t, Config{})
	auth := Auth{Username: testenv.PrivateUser, Password: testenv.PrivatePassword, ServerAddress: reg.Host}
	if token, err := s.Login(t.Context(), auth); err != nil || token != "" {
		t.Errorf("%q, %v", token, err)
	}
	auth.Password = "wrong"
	if _, err := s.Login(t.Context(), auth); !errdefs.IsUnauthorized(err) || strings.Contains(err.Error(), "wrong") {
		t.Errorf("wrong password: %v", err)
	}
	if _, err := s.Login(t.Context(), Auth{Username: "me", Password: "x"}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("no registry: %v", err)
	}
	if _, err := s.Login(t.Context(), Auth{Username: "me", Password: "x", ServerAddress: "127.0.0.1:1"}); !errdefs.IsUnavailable(err) {
		t.Errorf("nobody there: %v", err)
	}
}

// A registry that wants tokens gives one to keep in place of the password.
func TestLoginForAToken(t *testing.T) {
	testenv.Root(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		if r.Form.Get("username") != "me" || r.Form.Get("password") != "secret" || r.Form.Get("access_type") != "offline" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_ = json.NewEncoder(w).Encode(map[string]string{"access_token": "abc", "refresh_token": "keep me"})
	}))
	defer server.Close()
	reg := testenv.EmptyRegistry(t)
	door := newProxy(t, reg.URL, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Header.Get("Authorization") == "Bearer abc" {
			return false
		}
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="test"`, server.URL+"/token"))
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	s := openStore(t, Config{})
	auth := Auth{Username: "me", Password: "secret", ServerAddress: door.host}
	if token, err := s.Login(t.Context(), auth); err != nil || token != "keep me" {
		t.Errorf("%q, %v", token, err)
	}
	auth.Password = "wrong"
	if _, err := s.Login(t.Context(), auth); !errdefs.IsUnauthorized(err) {
		t.Errorf("wrong password: %v", err)
	}
}

func TestTagsAndCatalogue(t *testing.T) {
	reg := testenv.EmptyRegistry(t)
	i := newTestImage(asGzip, tarOf("a=1"))
	for _, name := range []string{"library/nginx", "other/nginx", "library/nginx-more", "redis"} {
		push(t, reg.URL, name, "1", i)
	}
	push(t, reg.URL, "redis", "2", i)
	// Pages of one name each.
	door := newProxy(t, reg.URL, func(w http.ResponseWriter, r *http.Request) bool {
		if q := r.URL.Query(); q.Get("n") != "" {
			q.Set("n", "1")
			r.URL.RawQuery = q.Encode()
		}
		return false
	})
	certs := t.TempDir()
	hostsToml(t, certs, "docker.io", fmt.Sprintf("server = %q\n", door.URL))
	s := openStore(t, Config{CertsDirs: []string{certs}})
	tags, err := s.Tags(t.Context(), door.host+"/redis", Auth{})
	slices.Sort(tags)
	if err != nil || !slices.Equal(tags, []string{"1", "2"}) {
		t.Errorf("%q, %v", tags, err)
	}
	if _, err := s.Tags(t.Context(), door.host+"/nosuch", Auth{}); !errdefs.IsNotFound(err) {
		t.Errorf("no such repository: %v", err)
	}
	for term, want := range map[string]string{
		"nginx": "nginx true, nginx-more true, other/nginx false", "library/nginx": "nginx true, nginx-more true, other/nginx false",
		door.host + "/redis": door.host + "/redis false", "nosuch": "",
	} {
		found, err := s.Search(t.Context(), term, 0, Auth{})
		var got []string
		for _, f := range found {
			got = append(got, fmt.Sprint(f.Name, " ", f.Official))
		}
		if err != nil || strings.Join(got, ", ") != want {
			t.Errorf("%s: %q, %v", term, got, err)
		}
	}
	if found, err := s.Search(t.Context(), "nginx", 1, Auth{}); err != nil || len(found) != 1 {
		t.Errorf("limit: %v, %v", found, err)
	}
	for _, bad := range []string{"", door.host + "/"} {
		if _, err := s.Search(t.Context(), bad, 0, Auth{}); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// A registry with a search is asked for no catalogue, and answers are bounded.
func TestSearchAtAnIndex(t *testing.T) {
	testenv.Root(t)
	big := false
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/v1/search" && big:
			_, _ = w.Write(make([]byte, 9<<20))
		case r.URL.Path == "/v1/search" && r.URL.Query().Get("q") == "nginx" && r.URL.Query().Get("n") == "25":
			fmt.Fprint(w, `{"results":[{"name":"nginx","description":"d","star_count":5,"is_official":true}]}`)
		default:
			w.WriteHeader(http.StatusTeapot)
		}
	}))
	defer server.Close()
	s := openStore(t, Config{})
	term := strings.TrimPrefix(server.URL, "http://") + "/nginx"
	if found, err := s.Search(t.Context(), term, 0, Auth{}); err != nil || len(found) != 1 || found[0] != (Found{Name: "nginx", Description: "d", Stars: 5, Official: true}) {
		t.Errorf("%+v, %v", found, err)
	}
	big = true
	if _, err := s.Search(t.Context(), term, 0, Auth{}); err == nil {
		t.Error("an answer of 9 MB is taken")
	}
}

// A push goes on past failures of the registry, and says so when they last.
func TestPushFailures(t *testing.T) {
	reg := testenv.EmptyRegistry(t)
	i := newTestImage(asGzip, tarOf("a=1"))
	push(t, reg.URL, "x", "v1", i)
	var left atomic.Int32
	var how atomic.Pointer[func(w http.ResponseWriter, r *http.Request)]
	door := newProxy(t, reg.URL, func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method != http.MethodPut || left.Add(-1) < 0 {
			return false
		}
		(*how.Load())(w, r)
		return true
	})
	s := openStore(t, Config{})
	img := s.mustPull(t, reg.Host+"/x:v1").Image
	answers := func(code int) func(w http.ResponseWriter, r *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(code)
			_, _ = io.WriteString(w, `{"errors":[{"code":"DENIED","message":"not for you"}]}`)
		}
	}
	hangsUp := func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }
	for n, c := range []struct {
		name  string
		how   func(http.ResponseWriter, *http.Request)
		times int32
		fails func(error) bool
	}{
		{"busy twice", answers(503), 2, nil},
		{"hangs up twice", hangsUp, 2, nil},
		{"busy for ever", answers(503), 100, errdefs.IsUnavailable},
		{"hangs up for ever", hangsUp, 100, errdefs.IsUnavailable},
		{"forbidden", answers(403), 1, errdefs.IsPermissionDenied},
	} {
		t.Run(c.name, func(t *testing.T) {
			how.Store(&c.how)
			left.Store(c.times)
			tag := fmt.Sprintf("%s/repo%d:v1", door.host, n)
			if err := s.Tag(t.Context(), img.ID, tag); err != nil {
				t.Fatal(err)
			}
			_, err := s.Push(t.Context(), PushRequest{Ref: tag})
			left.Store(0)
			if c.fails == nil && err != nil || c.fails != nil && !c.fails(err) {
				t.Errorf("got %v", err)
			}
			if c.name == "forbidden" && !strings.Contains(err.Error(), "not for you") {
				t.Errorf("it does not say why: %v", err)
			}
		})
	}
}

// Where a registry sends an upload to gets no credentials.
func TestPushCredentialsStayHome(t *testing.T) {
	reg := testenv.EmptyRegistry(t)
	i := newTestImage(asGzip, tarOf("a=1"))
	push(t, reg.URL, "x", "v1", i)
	storage := newProxy(t, reg.URL, nil)
	var home *proxy
	home = newProxy(t, reg.URL, func(w http.ResponseWriter, r *http.Request) bool {
		if basicAuth(w, r) {
			return true
		}
		if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/uploads/") {
			req, err := http.NewRequestWithContext(r.Context(), http.MethodPost, reg.URL+r.URL.RequestURI(), nil)
			if err != nil {
				t.Error(err)
				return true
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Error(err)
				return true
			}
			defer resp.Body.Close()
			w.Header().Set("Location", strings.Replace(resp.Header.Get("Location"), reg.URL, storage.URL, 1))
			w.WriteHeader(resp.StatusCode)
			return true
		}
		return false
	})
	s := openStore(t, Config{})
	img := s.mustPull(t, reg.Host+"/x:v1").Image
	tag := home.host + "/y:v1"
	if err := s.Tag(t.Context(), img.ID, tag); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Push(t.Context(), PushRequest{Ref: tag, Auth: Auth{Username: "me", Password: "secret", ServerAddress: home.host}}); err != nil {
		t.Fatal(err)
	}
	if storage.authorized() {
		t.Error("the storage got credentials")
	}
	storage.mu.Lock()
	defer storage.mu.Unlock()
	if len(storage.seen) == 0 {
		t.Error("nothing was sent to the storage")
	}
}
