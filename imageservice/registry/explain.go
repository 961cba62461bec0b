package registry

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/distribution/reference"
)

// Explanation is a dry run of resolution.
type Explanation struct {
	// Files are the configuration files looked for, in order.
	Files []ConfigFile
	// Asked are the hosts, in the order a pull asks them.
	Asked []Asked
}

// Asked is what one host was asked and what it answered.
type Asked struct {
	URL string
	// Mirror is true for all but the registry itself.
	Mirror bool
	// Config is the file and line that names the host; empty for none.
	Config string
	// TLS is "verified", "not verified" or "none".
	TLS string
	// Credentials says where they come from, Proxy is its address, neither
	// with secrets; empty for none.
	Credentials, Proxy string
	// Answer is the status, or what went wrong.
	Answer string
	// Digest is what the reference names there; empty when it is not told.
	Digest string
	Took   time.Duration
}

// Explain asks all hosts that a pull might ask, whatever those before them
// answer. An error is one of the configuration.
func (c *Client) Explain(ctx context.Context, ref reference.Named, creds Credentials) (Explanation, error) {
	a := c.newAttempt(ref, creds)
	defer a.close()
	endpoints, err := a.endpoints()
	if err != nil {
		return Explanation{Files: a.looked}, err
	}
	ctx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	x := Explanation{Files: a.looked}
	for _, e := range endpoints {
		x.Asked = append(x.Asked, a.ask(ctx, e, ref))
	}
	return x, nil
}

func (a *attempt) ask(ctx context.Context, e *endpoint, ref reference.Named) Asked {
	path := "manifests/" + tagOrDigest(ref)
	one := Asked{URL: e.url(path), Mirror: e.mirror, Config: e.config, TLS: e.tls()}
	var err error
	if _, one.Credentials, err = a.credentialsFor(e.host.Host); err != nil {
		one.Credentials = "none: " + err.Error()
	}
	if proxy, err := http.ProxyFromEnvironment(&http.Request{URL: &url.URL{Scheme: e.host.Scheme, Host: e.host.Host}}); err != nil {
		one.Proxy = "wrong: " + err.Error()
	} else if proxy != nil {
		one.Proxy = proxy.Redacted()
	}
	_, digested := ref.(reference.Digested)
	if !e.host.Capabilities.Has(docker.HostCapabilityResolve) && !digested {
		one.Answer = "not asked: its capabilities do not include resolve"
		return one
	}
	began := time.Now()
	desc, err := e.resolve(ctx, ref, false)
	one.Took = time.Since(began)
	if err != nil {
		_, one.Answer = classify(err)
		return one
	}
	one.Digest = desc.Digest.String()
	one.Answer = fmt.Sprintf("%d %s: %s, %d bytes", http.StatusOK, http.StatusText(http.StatusOK), desc.MediaType, desc.Size)
	return one
}

// tls says how a host is reached.
func (e *endpoint) tls() string {
	if e.host.Scheme == "http" {
		return "none"
	}
	switch t := e.host.Client.Transport.(type) {
	case *http.Transport:
		if t.TLSClientConfig == nil || !t.TLSClientConfig.InsecureSkipVerify {
			return "verified"
		}
		return "not verified"
	}
	// A registry on loopback.
	return "not verified, or plain HTTP where it has none"
}
