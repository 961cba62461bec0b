package command

import (
	"bytes"
	"encoding/base64"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

const archive = "hello archive\n"

// bzipped is the archive as bzip2 wrote it.
const bzipped = "QlpoOTFBWSZTWQ7wVuYAAANRgAAQQAAqZJEAIAAxANNNBABiWKKGieTFeLuSKcKEgHeCtzA="

// compressed is the archive in each compression.
func compressed(t testing.TB) map[string]string {
	t.Helper()
	out := map[string]string{"plain": archive, "empty": "", "short": "B"}
	bz, err := base64.StdEncoding.DecodeString(bzipped)
	if err != nil {
		t.Fatal(err)
	}
	out["bzip2"] = string(bz)
	for name, open := range map[string]func(io.Writer) (io.WriteCloser, error){
		"gzip": func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil },
		"zstd": func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) },
		"xz":   func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) },
	} {
		var b bytes.Buffer
		w, err := open(&b)
		if err == nil {
			_, err = io.WriteString(w, archive)
		}
		if err == nil {
			err = w.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
		out[name] = b.String()
	}
	return out
}

func TestPlain(t *testing.T) {
	for name, data := range compressed(t) {
		want := archive
		if name == "empty" || name == "short" {
			want = data
		}
		r, err := Plain(iotest.OneByteReader(strings.NewReader(data)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != want {
			t.Errorf("%s: %q %v", name, got, err)
		}
		// The agent takes what images are compressed by.
		if name == "gzip" || name == "zstd" {
			want = data
		}
		if r, err = ForImages(strings.NewReader(data)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != want {
			t.Errorf("for images %s: %q %v", name, got, err)
		}
		if len(data) < 20 {
			continue
		}
		r, err = Plain(strings.NewReader(data[:len(data)-9]))
		if err == nil {
			_, err = io.ReadAll(r)
		}
		if err == nil || !strings.HasPrefix(err.Error(), "decompress "+name+": ") {
			t.Errorf("%s that is cut: %v", name, err)
		}
	}
}

// Whatever is in it, an archive is read or refused, and never more than is asked for.
func FuzzPlain(f *testing.F) {
	for _, data := range compressed(f) {
		f.Add([]byte(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Plain(bytes.NewReader(data))
		if err == nil {
			_, _ = io.CopyN(io.Discard, r, 1<<20)
		}
	})
}
