package testenv

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// FaultProxy stands before a registry, and breaks what goes through it as its rules say.
type FaultProxy struct {
	*httptest.Server
	// Host is address and port, as it stands in an image reference.
	Host string

	mu    sync.Mutex
	rules []*Rule
	seen  []*http.Request
	sent  int64
	// over ends what hangs.
	over chan struct{}
}

// Rule says which requests a fault is for.
type Rule struct {
	// Method and Path, a part of the path, choose requests; empty ones choose all.
	Method, Path string
	// Times is how many requests the fault is for; zero means all.
	Times int
	Fault Fault

	used int
}

// Fault answers a request; pass has the registry answer it.
type Fault func(p *FaultProxy, w http.ResponseWriter, r *http.Request, pass http.Handler)

// Faults starts a proxy before the registry at a URL. The first rule that chooses a request is taken.
func Faults(t testing.TB, target string, rules ...Rule) *FaultProxy {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	p := &FaultProxy{over: make(chan struct{})}
	for _, rule := range rules {
		p.rules = append(p.rules, &rule)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	back := httputil.NewSingleHostReverseProxy(u)
	back.Transport = transport
	back.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { p.serve(w, r, back) }))
	t.Cleanup(func() {
		close(p.over)
		p.CloseClientConnections()
		p.Close()
		transport.CloseIdleConnections()
	})
	p.Host = strings.TrimPrefix(p.URL, "http://")
	return p
}

func (p *FaultProxy) serve(w http.ResponseWriter, r *http.Request, back http.Handler) {
	p.mu.Lock()
	p.seen = append(p.seen, r.Clone(r.Context()))
	var fault Fault
	for _, rule := range p.rules {
		if (rule.Method == "" || rule.Method == r.Method) && strings.Contains(r.URL.Path, rule.Path) && (rule.Times == 0 || rule.used < rule.Times) {
			rule.used++
			fault = rule.Fault
			break
		}
	}
	p.mu.Unlock()
	w = &countingWriter{w, p}
	if fault == nil {
		back.ServeHTTP(w, r)
		return
	}
	fault(p, w, r, back)
}

// Count counts the requests of a method, or of all, whose path has a part.
func (p *FaultProxy) Count(method, path string) (n int) {
	for _, r := range p.Requests() {
		if (method == "" || r.Method == method) && strings.Contains(r.URL.Path, path) {
			n++
		}
	}
	return n
}

// Requests are those that came so far.
func (p *FaultProxy) Requests() []*http.Request {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]*http.Request(nil), p.seen...)
}

// Sent is how many bytes of bodies went out.
func (p *FaultProxy) Sent() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.sent
}

type countingWriter struct {
	http.ResponseWriter
	p *FaultProxy
}

// Write counts.
func (w *countingWriter) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	w.p.mu.Lock()
	defer w.p.mu.Unlock()
	w.p.sent += int64(n)
	return n, err
}

// Unwrap is for http.ResponseController.
func (w *countingWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// answer has the registry answer and returns that.
func answer(r *http.Request, pass http.Handler) *httptest.ResponseRecorder {
	rec := httptest.NewRecorder()
	pass.ServeHTTP(rec, r)
	return rec
}

func sendHeader(w http.ResponseWriter, rec *httptest.ResponseRecorder) {
	for name, values := range rec.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(rec.Code)
}

// Cut resets the connection after so many bytes of the body.
func Cut(after int) Fault {
	return func(_ *FaultProxy, w http.ResponseWriter, r *http.Request, pass http.Handler) {
		rec := answer(r, pass)
		sendHeader(w, rec)
		body := rec.Body.Bytes()
		_, _ = w.Write(body[:min(after, len(body))])
		_ = http.NewResponseController(w).Flush()
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0) // RST
		}
		conn.Close()
	}
}

// Stop ends the connection after so many bytes of the body, which all arrive.
func Stop(after int) Fault {
	return func(_ *FaultProxy, w http.ResponseWriter, r *http.Request, pass http.Handler) {
		rec := answer(r, pass)
		sendHeader(w, rec)
		body := rec.Body.Bytes()
		_, _ = w.Write(body[:min(after, len(body))])
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

// Trickle sends so many bytes at once and then one byte in each interval, without end.
func Trickle(first int, interval time.Duration) Fault {
	return func(p *FaultProxy, w http.ResponseWriter, r *http.Request, pass http.Handler) {
		rec := answer(r, pass)
		sendHeader(w, rec)
		body := rec.Body.Bytes()
		n := min(first, len(body))
		_, _ = w.Write(body[:n])
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for ; n < len(body); n++ {
			_ = http.NewResponseController(w).Flush()
			select {
			case <-ticker.C:
			case <-r.Context().Done():
				return
			case <-p.over:
				return
			}
			if _, err := w.Write(body[n : n+1]); err != nil {
				return
			}
		}
	}
}

// Hang never answers.
func Hang() Fault {
	return func(p *FaultProxy, _ http.ResponseWriter, r *http.Request, _ http.Handler) {
		select {
		case <-r.Context().Done():
		case <-p.over:
		}
	}
}

// Delay answers later.
func Delay(d time.Duration) Fault {
	return func(p *FaultProxy, w http.ResponseWriter, r *http.Request, pass http.Handler) {
		timer := time.NewTimer(d)
		defer timer.Stop()
		select {
		case <-timer.C:
			pass.ServeHTTP(w, r)
		case <-r.Context().Done():
		case <-p.over:
		}
	}
}

// Flip flips a bit in the middle of the body.
func Flip() Fault {
	return func(_ *FaultProxy, w http.ResponseWriter, r *http.Request, pass http.Handler) {
		rec := answer(r, pass)
		sendHeader(w, rec)
		body := bytes.Clone(rec.Body.Bytes())
		if len(body) > 0 {
			body[len(body)/2] ^= 1
		}
		_, _ = w.Write(body)
	}
}

// Longer sends so many bytes more, or for a negative number fewer, with a length that says so.
func Longer(by int) Fault {
	return func(_ *FaultProxy, w http.ResponseWriter, r *http.Request, pass http.Handler) {
		rec := answer(r, pass)
		body := bytes.Clone(rec.Body.Bytes())
		if by < 0 {
			body = body[:max(len(body)+by, 0)]
		} else {
			body = append(body, make([]byte, by)...)
		}
		rec.Header().Set("Content-Length", strconv.Itoa(len(body)))
		sendHeader(w, rec)
		_, _ = w.Write(body)
	}
}

// Header changes a header of the answer.
func Header(name, value string) Fault {
	return func(_ *FaultProxy, w http.ResponseWriter, r *http.Request, pass http.Handler) {
		rec := answer(r, pass)
		rec.Header().Set(name, value)
		sendHeader(w, rec)
		_, _ = w.Write(rec.Body.Bytes())
	}
}

// Status answers with a status, and headers given as "Name: value".
func Status(code int, headers ...string) Fault {
	return func(_ *FaultProxy, w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		for _, h := range headers {
			name, value, _ := strings.Cut(h, ": ")
			w.Header().Set(name, value)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"errors":[{"code":"FAULT","message":"status %d"}]}`, code)
	}
}

// Redirect sends to the same path at another address.
func Redirect(to string) Fault {
	return func(_ *FaultProxy, w http.ResponseWriter, r *http.Request, _ http.Handler) {
		http.Redirect(w, r, to+r.URL.Path+"?signature=hidden", http.StatusTemporaryRedirect)
	}
}

// Page answers with a web page, as hotels' networks do.
func Page() Fault {
	return func(_ *FaultProxy, w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = io.WriteString(w, "<html>log in at the hotel</html>")
	}
}

// WithoutRanges ignores what part is asked for.
func WithoutRanges() Fault {
	return func(_ *FaultProxy, w http.ResponseWriter, r *http.Request, pass http.Handler) {
		r = r.Clone(r.Context())
		r.Header.Del("Range")
		pass.ServeHTTP(w, r)
	}
}

// Slow sends a piece of the body in each interval.
func Slow(piece int, interval time.Duration) Fault {
	return func(p *FaultProxy, w http.ResponseWriter, r *http.Request, pass http.Handler) {
		rec := answer(r, pass)
		sendHeader(w, rec)
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for body := rec.Body.Bytes(); len(body) > 0; body = body[min(piece, len(body)):] {
			if _, err := w.Write(body[:min(piece, len(body))]); err != nil {
				return
			}
			_ = http.NewResponseController(w).Flush()
			select {
			case <-ticker.C:
			case <-r.Context().Done():
				return
			case <-p.over:
				return
			}
		}
	}
}
