package registry

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/nodeagent/nodeagent/internal/testenv"
)

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	// dir holds ca.pem.
	dir string
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	a := &authority{dir: t.TempDir()}
	a.cert, a.key = a.sign(t, "ca", true)
	return a
}

// sign makes a certificate, for 127.0.0.1 and ::1, and writes NAME.pem and
// NAME.key.
func (a *authority) sign(t *testing.T, name string, isCA bool) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, IsCA: isCA, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	parent, signer := template, key
	if !isCA {
		parent, signer = a.cert, a.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for file, block := range map[string]*pem.Block{
		name + ".pem": {Type: "CERTIFICATE", Bytes: der}, name + ".key": {Type: "EC PRIVATE KEY", Bytes: raw},
	} {
		if err := os.WriteFile(filepath.Join(a.dir, file), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

// serve puts TLS before a registry, and wants client certificates if asked to.
func (a *authority) serve(t *testing.T, target, address string, clients bool) *httptest.Server {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Skip(err)
	}
	server := httptest.NewUnstartedServer(httputil.NewSingleHostReverseProxy(u))
	server.Config.ErrorLog = nil
	server.Listener.Close()
	server.Listener = listener
	cert, err := tls.LoadX509KeyPair(filepath.Join(a.dir, "server.pem"), filepath.Join(a.dir, "server.key"))
	if err != nil {
		t.Fatal(err)
	}
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}}
	if clients {
		server.TLS.ClientAuth, server.TLS.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
		server.TLS.ClientCAs.AddCert(a.cert)
	}
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

// Certificates of authorities and clients, by hosts.toml and by the files that
// docker has, also of a registry that is an IPv6 address.
func TestCertificates(t *testing.T) {
	reg := testenv.EmptyRegistry(t)
	a := newAuthority(t)
	a.sign(t, "server", false)
	a.sign(t, "client", false)
	putManifest(t, reg.URL)
	plain, mutual := a.serve(t, reg.URL, "127.0.0.1:0", false), a.serve(t, reg.URL, "[::1]:0", true)
	read := func(name string) string {
		raw, err := os.ReadFile(filepath.Join(a.dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(raw)
	}
	for name, c := range map[string]struct {
		server *httptest.Server
		files  map[string]string
		fails  string
	}{
		"ca":              {plain, map[string]string{"hosts.toml": fmt.Sprintf("server = %q\nca = %q\n", plain.URL, filepath.Join(a.dir, "ca.pem"))}, ""},
		"ca, relative":    {plain, map[string]string{"hosts.toml": fmt.Sprintf("server = %q\nca = [\"my.pem\"]\n", plain.URL), "my.pem": read("ca.pem")}, ""},
		"docker's ca":     {plain, map[string]string{"ca.crt": read("ca.pem")}, ""},
		"no ca":           {plain, map[string]string{"hosts.toml": fmt.Sprintf("server = %q\n", plain.URL)}, `name the authority's certificate as "ca"`},
		"skip_verify":     {plain, map[string]string{"hosts.toml": fmt.Sprintf("server = %q\nskip_verify = true\n", plain.URL)}, ""},
		"missing ca":      {plain, map[string]string{"hosts.toml": fmt.Sprintf("server = %q\nca = \"gone.pem\"\n", plain.URL)}, "gone.pem"},
		"client":          {mutual, map[string]string{"hosts.toml": fmt.Sprintf("server = %q\nca = \"ca.pem\"\nclient = [[\"client.pem\", \"client.key\"]]\n", mutual.URL), "ca.pem": read("ca.pem"), "client.pem": read("client.pem"), "client.key": read("client.key")}, ""},
		"docker's client": {mutual, map[string]string{"x.crt": read("ca.pem"), "x.cert": read("client.pem"), "x.key": read("client.key")}, ""},
		"no client":       {mutual, map[string]string{"x.crt": read("ca.pem")}, "tls"},
	} {
		t.Run(name, func(t *testing.T) {
			host := strings.TrimPrefix(c.server.URL, "https://")
			certs := t.TempDir()
			if err := os.Mkdir(filepath.Join(certs, host), 0o755); err != nil {
				t.Fatal(err)
			}
			for file, text := range c.files {
				if err := os.WriteFile(filepath.Join(certs, host, file), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			ref, err := reference.ParseDockerRef(host + "/x")
			if err != nil {
				t.Fatal(err)
			}
			src, err := New(Config{CertsDirs: []string{certs}}).Resolve(t.Context(), ref, Credentials{})
			if err == nil {
				src.Close()
			}
			if (err == nil) != (c.fails == "") || err != nil && !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%v", err)
			}
			if err != nil && !errdefs.IsUnavailable(err) && !errdefs.IsInvalidArgument(err) {
				t.Errorf("kind of %v", err)
			}
		})
	}
}

// putManifest gives a registry an image without layers.
func putManifest(t *testing.T, base string) {
	t.Helper()
	send := func(method, target, mediaType, body string) *http.Response {
		req, err := http.NewRequest(method, target, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", mediaType)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode >= 300 {
			t.Fatal(method, target, resp.Status)
		}
		return resp
	}
	const empty = "sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a" // of {}
	at := send(http.MethodPost, base+"/v2/x/blobs/uploads/", "", "").Header.Get("Location")
	send(http.MethodPut, at+"&digest="+empty, "application/octet-stream", "{}")
	send(http.MethodPut, base+"/v2/x/manifests/latest", "application/vnd.oci.image.manifest.v1+json",
		`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"`+empty+`","size":2},"layers":[]}`)
}
