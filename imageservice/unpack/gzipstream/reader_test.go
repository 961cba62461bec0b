package gzipstream

import (
	"bytes"
	stdgzip "compress/gzip"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/gzip"
)

// samples are texts that compress in different ways.
func samples(t testing.TB) map[string][]byte {
	t.Helper()
	random := rand.NewChaCha8([32]byte{1})
	noise := make([]byte, 1<<20)
	random.Read(noise)
	few := make([]byte, 1<<20)
	for i := range few {
		few[i] = noise[i] & 3
	}
	runs := []byte{}
	for i := range 4000 {
		runs = append(runs, bytes.Repeat([]byte{byte(i), byte(i >> 3)}[:1+i%2], int(noise[i])*2)...)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]byte{
		"empty": nil, "byte": {7}, "noise": noise, "few": few, "runs": runs, "zeros": make([]byte, 1<<20), "program": program[:min(len(program), 1<<20)],
	}
}

func compress(t testing.TB, data []byte, level int) []byte {
	t.Helper()
	var buf bytes.Buffer
	w, err := stdgzip.NewWriterLevel(&buf, level)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func decompress(r io.Reader) ([]byte, error) {
	z, err := NewReader(r)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(z)
}

func TestRoundTrip(t *testing.T) {
	for name, data := range samples(t) {
		for _, level := range []int{stdgzip.HuffmanOnly, stdgzip.NoCompression, 1, 6, 9} {
			packed := compress(t, data, level)
			for how, r := range map[string]io.Reader{
				"whole": bytes.NewReader(packed), "halves": iotest.HalfReader(bytes.NewReader(packed)), "with its end": iotest.DataErrReader(bytes.NewReader(packed)),
			} {
				got, err := decompress(r)
				if err != nil || !bytes.Equal(got, data) {
					t.Errorf("%s, level %d, read %s: %d bytes in place of %d, %v", name, level, how, len(got), len(data), err)
				}
			}
		}
	}
	small := []byte("a text that is read byte by byte, byte by byte, byte by byte")
	got, err := decompress(iotest.OneByteReader(bytes.NewReader(compress(t, small, 9))))
	if err != nil || !bytes.Equal(got, small) {
		t.Errorf("%q, %v", got, err)
	}
}

func TestMembersAndHeaders(t *testing.T) {
	var buf bytes.Buffer
	for range 3 {
		w := stdgzip.NewWriter(&buf)
		w.Name, w.Comment, w.Extra = "layer.tar", "a comment", []byte("extra")
		w.Write([]byte("part;"))
		w.Close()
	}
	got, err := decompress(&buf)
	if err != nil || string(got) != "part;part;part;" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestBadInput(t *testing.T) {
	text := bytes.Repeat([]byte("something to compress"), 1000)
	good := compress(t, text, 6)
	for n := range len(good) {
		got, err := decompress(bytes.NewReader(good[:n]))
		if !errors.Is(err, io.ErrUnexpectedEOF) || !bytes.HasPrefix(text, got) {
			t.Errorf("cut at %d: %v", n, err)
		}
	}
	for n, want := range map[int]error{0: ErrHeader, 2: ErrHeader, len(good) - 8: ErrChecksum, len(good) - 1: ErrChecksum} {
		bad := bytes.Clone(good)
		bad[n] ^= 0xff
		if _, err := decompress(bytes.NewReader(bad)); !errors.Is(err, want) {
			t.Errorf("byte %d: %v, want %v", n, err, want)
		}
	}
	if _, err := decompress(bytes.NewReader(append(bytes.Clone(good), "garbage behind"...))); !errors.Is(err, ErrHeader) {
		t.Errorf("garbage behind: %v", err)
	}
	boom := errors.New("boom")
	if _, err := decompress(io.MultiReader(bytes.NewReader(good[:50]), iotest.ErrReader(boom))); !errors.Is(err, boom) {
		t.Errorf("the source's error: %v", err)
	}
}

// Flipped bits neither hang nor crash it, and another decoder says the same.
func TestFlippedBits(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for name, data := range samples(t) {
		good := compress(t, data[:min(len(data), 20000)], 6)
		for range 300 {
			bad := bytes.Clone(good)
			for range 1 + random.IntN(3) {
				bad[random.IntN(len(bad))] ^= 1 << random.IntN(8)
			}
			same(t, name, bad)
		}
	}
}

// same compares with another decoder.
func same(t *testing.T, name string, data []byte) {
	t.Helper()
	const limit = 8 << 20
	want, wantErr := []byte(nil), error(nil)
	if z, err := stdgzip.NewReader(bytes.NewReader(data)); err != nil {
		wantErr = err
	} else {
		want, wantErr = io.ReadAll(io.LimitReader(z, limit))
	}
	got, err := []byte(nil), error(nil)
	if z, zerr := NewReader(bytes.NewReader(data)); zerr != nil {
		err = zerr
	} else {
		got, err = io.ReadAll(io.LimitReader(z, limit))
	}
	if (err == nil) != (wantErr == nil) || err == nil && !bytes.Equal(got, want) {
		t.Errorf("%s: %d bytes, %v; the other decoder: %d bytes, %v", name, len(got), err, len(want), wantErr)
	}
}

// What another decoder takes, this one takes, with the same result; what that
// refuses, this one refuses.
func FuzzReader(f *testing.F) {
	for _, data := range samples(f) {
		data = data[:min(len(data), 3000)]
		for _, level := range []int{stdgzip.HuffmanOnly, 0, 1, 9} {
			f.Add(compress(f, data, level))
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) { same(t, "input", data) })
}

func benchmark(b *testing.B, read func(io.Reader) (io.Reader, error)) {
	var data []byte
	for _, path := range []string{runtime.GOROOT() + "/bin/go"} {
		one, err := os.ReadFile(path)
		if err != nil {
			b.Skip(err)
		}
		data = append(data, one...)
	}
	packed := compress(b, data, 6)
	b.SetBytes(int64(len(data)))
	buf := make([]byte, 256<<10)
	for b.Loop() {
		r, err := read(bytes.NewReader(packed))
		if err != nil {
			b.Fatal(err)
		}
		if n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, r, buf); err != nil || n != int64(len(data)) {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkReader(b *testing.B) {
	benchmark(b, func(r io.Reader) (io.Reader, error) { return NewReader(r) })
}

// BenchmarkKlauspost is for comparison.
func BenchmarkKlauspost(b *testing.B) {
	benchmark(b, func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) })
}
