package sock

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
)

func TestFramesComeBack(t *testing.T) {
	var b bytes.Buffer
	payloads := [][]byte{{}, []byte("x"), bytes.Repeat([]byte("long "), 50_000)}
	for i, p := range payloads {
		if err := WriteFrame(&b, uint8(i), p); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range payloads {
		kind, got, err := ReadFrame(&b, MaxRequestBytes)
		if err != nil || kind != uint8(i) || !bytes.Equal(got, want) {
			t.Fatalf("frame %d: kind %d, %d bytes, %v; want %d bytes", i, kind, len(got), err, len(want))
		}
	}
	if _, _, err := ReadFrame(&b, 1); err != io.EOF {
		t.Fatalf("at the end: %v, want io.EOF", err)
	}
}

func TestFrameLimits(t *testing.T) {
	for _, row := range []struct {
		name string
		b    []byte
		want error
	}{
		{"above the limit", []byte{0, 0, 0, 11, 1}, ErrProtocol},
		{"as large as can be", []byte{0xff, 0xff, 0xff, 0xff, 1}, ErrProtocol},
		{"head cut off", []byte{0, 0}, io.ErrUnexpectedEOF},
		{"nothing behind the head", []byte{0, 0, 0, 5, 1}, io.ErrUnexpectedEOF},
		{"payload cut off", []byte{0, 0, 0, 5, 1, 'a'}, io.ErrUnexpectedEOF},
	} {
		if _, _, err := ReadFrame(bytes.NewReader(row.b), 10); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
	}
}

// asked remembers the most that was asked for at once.
type asked struct {
	r    io.Reader
	most int
}

func (a *asked) Read(p []byte) (int, error) {
	a.most = max(a.most, len(p))
	return a.r.Read(p)
}

// A length costs its sender nothing; memory is taken as bytes come.
func TestALengthAloneTakesNoMemory(t *testing.T) {
	for _, row := range []struct{ come, most int }{{100, 64 << 10}, {1 << 20, 2 << 20}} {
		claim := append([]byte{1, 0, 0, 0, 1}, make([]byte, row.come)...) // of 16 MiB
		r := &asked{r: bytes.NewReader(claim)}
		if _, _, err := ReadFrame(r, MaxRequestBytes); err != io.ErrUnexpectedEOF {
			t.Fatalf("%d bytes of a frame: %v", row.come, err)
		}
		if r.most > row.most {
			t.Errorf("when %d bytes come, %d are made ready for, want at most %d", row.come, r.most, row.most)
		}
	}
}

func TestHello(t *testing.T) {
	for _, row := range []struct {
		name, peer string
		want       error
	}{
		{"ours", "ELSK\x01", nil},
		{"a newer version", "ELSK\x09", nil},
		{"another protocol", "GET / HTTP/1.1\r\n", ErrProtocol},
		{"version 0", "ELSK\x00", ErrProtocol},
		{"hung up", "EL", io.ErrUnexpectedEOF},
	} {
		var answer bytes.Buffer
		err := AnswerHello(struct {
			io.Reader
			io.Writer
		}{bytes.NewReader([]byte(row.peer)), &answer})
		if !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
		if told := answer.String(); (told != "") != (row.want == nil) {
			t.Errorf("%s: it was told %q", row.name, told)
		}
	}
	here, there := net.Pipe()
	answered := make(chan error, 1)
	go func() { answered <- AnswerHello(there) }()
	if err := errors.Join(Hello(here), <-answered, here.Close(), there.Close()); err != nil {
		t.Errorf("both sides: %v", err)
	}
}

func FuzzFrame(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 2, 'x', 0, 0, 0, 0, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		for {
			before := r.Len()
			kind, payload, err := ReadFrame(r, 1<<16)
			if err != nil {
				return
			}
			var again bytes.Buffer
			if err := WriteFrame(&again, kind, payload); err != nil {
				t.Fatal(err)
			}
			start := len(b) - before
			if !bytes.Equal(again.Bytes(), b[start:len(b)-r.Len()]) {
				t.Fatalf("frame at %d: written again it is %x", start, again.Bytes())
			}
		}
	})
}
