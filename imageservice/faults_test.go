package imageservice

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/nodeagent/nodeagent/internal/testenv"
)

// faultImage is an image with one layer that is big enough to be cut.
func faultImage(t *testing.T, size int) *testImage {
	t.Helper()
	noise := make([]byte, 0, size)
	for n := range size / 8 {
		noise = fmt.Appendf(noise, "%08x", uint32(n)*2654435761)
	}
	return newTestImage(asPlain, tarOf("a="+string(noise)))
}

// What a broken registry does to a pull: the words, the time, the number of
// requests, and that nothing is left behind.
func TestFaults(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	reg := testenv.EmptyRegistry(t)
	i := faultImage(t, 100_000)
	push(t, reg.URL, "x", "latest", i)
	layer := i.manifest.Layers[0].Digest
	manifest := i.descriptor().Digest
	const stall = time.Second
	for name, c := range map[string]struct {
		rule testenv.Rule
		is   func(error) bool
		// text is the whole message, with HOST, LAYER and MANIFEST in place.
		text string
		most int
	}{
		"unauthorized for ever": {
			testenv.Rule{Fault: testenv.Status(401, `WWW-Authenticate: Basic realm="x"`)}, errdefs.IsUnauthorized,
			"HEAD http://HOST/v2/x/manifests/latest: authorization failed: no basic auth credentials: unauthorized", 1,
		},
		"too many requests": {
			testenv.Rule{Fault: testenv.Status(429, "Retry-After: 0")}, errdefs.IsUnavailable,
			"HEAD http://HOST/v2/x/manifests/latest: 429 Too Many Requests (Retry-After: 0): unavailable", 4,
		},
		"too many requests, come back in an hour": {
			testenv.Rule{Fault: testenv.Status(429, "Retry-After: 3600")}, errdefs.IsUnavailable,
			"HEAD http://HOST/v2/x/manifests/latest: 429 Too Many Requests (Retry-After: 3600): unavailable", 1,
		},
		"internal error": {
			testenv.Rule{Path: "/blobs/", Fault: testenv.Status(500)}, errdefs.IsUnavailable,
			"fetch blob CONFIG: GET http://HOST/v2/x/blobs/CONFIG: 500 Internal Server Error: FAULT: status 500: unavailable", 6,
		},
		"forbidden": {
			testenv.Rule{Path: "/blobs/" + layer.String(), Fault: testenv.Status(403)}, errdefs.IsPermissionDenied,
			"layer LAYER: fetch blob LAYER: GET http://HOST/v2/x/blobs/LAYER: 403 Forbidden: FAULT: status 403: permission denied", 4,
		},
		"blob gone": {
			testenv.Rule{Path: "/blobs/" + layer.String(), Fault: testenv.Status(404)}, errdefs.IsNotFound,
			"layer LAYER: fetch blob LAYER: GET http://HOST/v2/x/blobs/LAYER: 404 Not Found: FAULT: status 404: not found", 4,
		},
		"a web page": {
			testenv.Rule{Fault: testenv.Page()}, errdefs.IsUnavailable,
			"HOST: it answers with a web page: is it a registry, or a proxy's or network's login page?: unavailable", 2,
		},
		"a web page for a manifest": {
			testenv.Rule{Method: http.MethodGet, Path: "/manifests/", Fault: testenv.Page()}, errdefs.IsUnavailable,
			"fetch blob MANIFEST: HOST: it answers with a web page: is it a registry, or a proxy's or network's login page?: unavailable", 2,
		},
		"flipped manifest": {
			testenv.Rule{Method: http.MethodGet, Path: "/manifests/", Fault: testenv.Flip()}, errdefs.IsDataLoss, "", 2,
		},
		"flipped layer": {
			testenv.Rule{Path: layer.String(), Fault: testenv.Flip()}, errdefs.IsDataLoss, "", 4,
		},
		"longer layer": {
			testenv.Rule{Path: layer.String(), Fault: testenv.Longer(5)}, errdefs.IsDataLoss,
			"layer LAYER: fetch blob LAYER: HOST: it has 101893 bytes of LAYER in place of 101888: data loss", 4,
		},
		"shorter layer": {
			testenv.Rule{Path: layer.String(), Fault: testenv.Longer(-5)}, errdefs.IsDataLoss,
			"layer LAYER: fetch blob LAYER: HOST: it has 101883 bytes of LAYER in place of 101888: data loss", 4,
		},
		"wrong digest": {
			testenv.Rule{Method: http.MethodHead, Fault: testenv.Header("Docker-Content-Digest", "sha256:../../etc")}, errdefs.IsInvalidArgument,
			`HOST: it answers with digest "sha256:../../etc": invalid argument`, 1,
		},
		"always cut": {
			testenv.Rule{Path: layer.String(), Fault: testenv.Cut(1000)}, errdefs.IsUnavailable, "", 7,
		},
		"trickle": {
			testenv.Rule{Path: layer.String(), Fault: testenv.Trickle(10, 50*time.Millisecond)}, errdefs.IsUnavailable,
			"", 5,
		},
		"half-open": {
			testenv.Rule{Path: layer.String(), Fault: testenv.Hang()}, errdefs.IsUnavailable,
			"layer LAYER: fetch blob LAYER: GET https://HOST/v2/x/blobs/LAYER: no answer within 1s: unavailable", 4,
		},
		"redirected in a circle": {
			testenv.Rule{Path: layer.String(), Fault: func(p *testenv.FaultProxy, w http.ResponseWriter, r *http.Request, _ http.Handler) {
				http.Redirect(w, r, p.URL+r.URL.Path, http.StatusTemporaryRedirect)
			}}, errdefs.IsUnavailable,
			"layer LAYER: fetch blob LAYER: GET http://HOST/v2/x/blobs/LAYER: redirection: more than 10: unavailable", 14,
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := testenv.Faults(t, reg.URL, c.rule)
			s := openStore(t, Config{StallTimeout: stall})
			began := time.Now()
			_, err := s.Pull(t.Context(), PullRequest{Ref: p.Host + "/x"})
			if !c.is(err) {
				t.Errorf("%v", err)
			}
			want := strings.NewReplacer("HOST", p.Host, "LAYER", layer.String(), "MANIFEST", manifest.String(), "CONFIG", i.id()).Replace(c.text)
			if got := fmt.Sprint(err); c.text != "" && got != "pull: pull "+p.Host+"/x:latest: "+want && got != "pull "+p.Host+"/x:latest: "+want {
				t.Errorf("it says\n%s\nwant\n%s", got, want)
			}
			if n := p.Count("", ""); n > c.most {
				t.Errorf("%d requests, at most %d are right", n, c.most)
			}
			if took := time.Since(began); took > 20*time.Second {
				t.Errorf("it took %s", took)
			}
			s.clean(t)
		})
	}
}

// Whatever a mirror does, the pull goes on at the registry.
func TestNextMirror(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	reg := testenv.EmptyRegistry(t)
	i := faultImage(t, 3<<20)
	push(t, reg.URL, "x", "latest", i)
	layer := i.manifest.Layers[0].Digest.String()
	for name, rule := range map[string]testenv.Rule{
		"down":              {Fault: testenv.Cut(0)},
		"overloaded":        {Fault: testenv.Status(429, "Retry-After: 3600")},
		"broken":            {Fault: testenv.Status(503)},
		"forbids":           {Fault: testenv.Status(403)},
		"asks who we are":   {Fault: testenv.Status(401, `WWW-Authenticate: Basic realm="x"`)},
		"has not the image": {Fault: testenv.Status(404)},
		"has not the layer": {Path: layer, Fault: testenv.Status(404)},
		"a web page":        {Fault: testenv.Page()},
		"wrong manifest":    {Method: http.MethodGet, Path: "/manifests/", Fault: testenv.Flip()},
		"wrong layer":       {Path: layer, Fault: testenv.Flip()},
		"longer layer":      {Path: layer, Fault: testenv.Longer(1)},
		"cuts":              {Path: layer, Fault: testenv.Cut(1500 << 10)},
		"trickles":          {Path: layer, Fault: testenv.Trickle(1500<<10, 50*time.Millisecond)},
		"hangs":             {Path: layer, Fault: testenv.Hang()},
	} {
		t.Run(name, func(t *testing.T) {
			mirror, home := testenv.Faults(t, reg.URL, rule), testenv.Faults(t, reg.URL)
			certs := t.TempDir()
			hostsToml(t, certs, "r.test", fmt.Sprintf("server = %q\n[host.%q]\n", home.URL, mirror.URL))
			s := openStore(t, Config{CertsDirs: []string{certs}, StallTimeout: time.Second})
			res, err := s.Pull(t.Context(), PullRequest{Ref: "r.test/x"})
			if err != nil {
				t.Fatal(err)
			}
			if len(s.files(t, res.Image)["a"]) != 3<<20 {
				t.Error("the file is another")
			}
			if n := mirror.Count("", ""); n > 8 {
				t.Errorf("the mirror was asked %d times", n)
			}
			// What the mirror sent of the layer is not fetched again.
			if name == "trickles" && home.Sent() > 5<<19 {
				t.Errorf("%d bytes came from the registry", home.Sent())
			}
			s.clean(t)
		})
	}
}

// A registry that says when to come back is left alone until then.
func TestRetryAfter(t *testing.T) {
	testenv.Root(t)
	reg := testenv.EmptyRegistry(t)
	push(t, reg.URL, "x", "latest", faultImage(t, 1000))
	p := testenv.Faults(t, reg.URL, testenv.Rule{Times: 2, Fault: testenv.Status(429, "Retry-After: 1")})
	s := openStore(t, Config{})
	began := time.Now()
	s.mustPull(t, p.Host+"/x")
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("it came back twice within %s", took)
	}
}

// A pull that was cut off goes on where it was: when it is asked for again, and
// by another process, also where the registry has no ranges.
func TestInterruptedPull(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	reg := testenv.EmptyRegistry(t)
	i := faultImage(t, 12<<20)
	push(t, reg.URL, "x", "latest", i)
	layer := i.manifest.Layers[0].Digest.String()
	for _, ranges := range []bool{true, false} {
		t.Run(fmt.Sprintf("ranges %v", ranges), func(t *testing.T) {
			root := t.TempDir()
			broken := testenv.Faults(t, reg.URL,
				testenv.Rule{Path: layer, Times: 1, Fault: testenv.Stop(6 << 20)}, testenv.Rule{Path: layer, Fault: testenv.Status(404)})
			s := reopenStore(t, root, Config{})
			if _, err := s.Pull(t.Context(), PullRequest{Ref: broken.Host + "/x"}); err == nil {
				t.Fatal("it was not cut")
			}
			s.close()
			var rules []testenv.Rule
			if !ranges {
				rules = []testenv.Rule{{Fault: testenv.WithoutRanges()}}
			}
			whole := testenv.Faults(t, reg.URL, rules...)
			s = reopenStore(t, root, Config{})
			res := s.mustPull(t, whole.Host+"/x")
			if len(s.files(t, res.Image)["a"]) != 12<<20 {
				t.Error("the file is another")
			}
			if sent := whole.Sent(); ranges && sent > 8<<20 {
				t.Errorf("%d bytes came after the cut", sent)
			}
			s.clean(t)
		})
	}
}

// A registry that has ranges and is slow is asked for several at once.
func TestRanges(t *testing.T) {
	testenv.Root(t)
	testenv.Leaks(t)
	reg := testenv.EmptyRegistry(t)
	i := faultImage(t, 36<<20)
	push(t, reg.URL, "x", "latest", i)
	layer := i.manifest.Layers[0].Digest.String()
	p := testenv.Faults(t, reg.URL, testenv.Rule{Path: layer, Fault: testenv.Slow(256<<10, 10*time.Millisecond)})
	s := openStore(t, Config{})
	res := s.mustPull(t, p.Host+"/x")
	if len(s.files(t, res.Image)["a"]) != 36<<20 {
		t.Error("the file is another")
	}
	ranges := 0
	for _, r := range p.Requests() {
		if r.Header.Get("Range") != "" {
			ranges++
		}
	}
	if ranges < 2 {
		t.Errorf("%d ranges were asked for", ranges)
	}
	s.clean(t)
}
