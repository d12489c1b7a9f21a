package log

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/x/embedlog/internal/vfs"
)

var installConfig = Config{SegmentBytes: 1 << 10, IndexIntervalBytes: 128, NoZeroing: true}

// fillTest appends n batches and, now and then, an entry without offsets.
func fillTest(t testing.TB, l *Log, epoch uint64, n int, what string) {
	t.Helper()
	for i := range n {
		appendTest(t, l, epoch, fmt.Sprintf("%s %d", what, i))
		if i%5 == 4 {
			l.Lock()
			if err := errors.Join(l.StageEntry(KindNoop, 0, epoch, nil), l.Write(), l.Sync()); err != nil {
				t.Fatal(err)
			}
			l.Unlock()
		}
	}
}

// listTest is all entries of a log as text, and the state that Open found.
func listTest(t testing.TB, l *Log) string {
	t.Helper()
	var out bytes.Buffer
	r, err := l.ReadFrom(l.StartOffset())
	if err != nil {
		t.Fatal(err)
	}
	for {
		f, err := r.Next()
		if err == io.EOF {
			return out.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%d %d %v %d %x\n", f.Index, f.Epoch, f.Kind, f.Offset, f.Payload)
	}
}

// openKeeping opens a log whose owner wants back what it had.
func openKeeping(fs vfs.FS) (l *Log, err error) {
	l, err = Open("", &Options{FS: fs, Config: installConfig, Snapshot: func(dst []byte) []byte { return append(dst, l.Recovered().State...) }})
	return l, err
}

// sendTest has to receive what a capture describes.
func sendTest(c *Capture, to *Log) (*Incoming, error) {
	in, err := to.Receive(c.Checkpoint(), c.Segments)
	if err != nil {
		return nil, err
	}
	for i := range c.Segments {
		var b bytes.Buffer
		if err := c.CopySegment(context.Background(), i, &b); err != nil {
			return nil, err
		}
		if err := in.Write(i, &b); err != nil {
			return nil, err
		}
	}
	return in, nil
}

func captureAtTest(t testing.TB, l *Log, index uint64) *Capture {
	t.Helper()
	t.Cleanup(l.Hold())
	l.Lock()
	defer l.Unlock()
	c, err := l.CaptureAt(index, []byte(fmt.Sprintf("as of %d", index)))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// At every entry where a log may be cut: the copy ends there, takes appends, and a
// reader that waits at the old one's end goes on.
func TestInstallAtEveryEntry(t *testing.T) {
	from := openTest(t, vfs.NewMem(), installConfig)
	fillTest(t, from, 3, 40, "leader")
	from.Lock()
	if err := from.TruncateTo(9); err != nil {
		t.Fatal(err)
	}
	last := from.NextIndex() - 1
	from.Unlock()
	for index := uint64(10); index <= last; index++ { // below are entries before the log start offset
		fs := vfs.NewMem()
		to := openTest(t, fs, installConfig)
		fillTest(t, to, 2, 25, "follower")
		reader, err := to.ReadFrom(12)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if _, err := reader.Next(); err != nil {
				t.Fatal(err)
			}
		}
		next := reader.Offset()
		in, err := sendTest(captureAtTest(t, from, index), to)
		if err != nil {
			t.Fatal(err)
		}
		called := false
		if err := to.Install(in, func() { called = true }); err != nil || !called {
			t.Fatalf("install at %d: %v", index, err)
		}
		want := listUpTo(t, from, index)
		if got := listTest(t, to); got != want {
			t.Fatalf("installed at %d:\n%s\nwant\n%s", index, got, want)
		}
		if next < to.EndOffset() {
			if f, err := reader.Next(); err != nil || f.NextOffset <= next || f.Epoch != 3 {
				t.Fatalf("at %d: the reader at offset %d goes on with %+v, %v", index, next, f, err)
			}
		}
		fillTest(t, to, 4, 12, "after")
		got := listTest(t, to)
		if err := to.Close(); err != nil {
			t.Fatal(err)
		}
		to = openTest(t, fs, installConfig)
		if !to.Recovered().Clean || listTest(t, to) != got || to.StartOffset() != from.StartOffset() {
			t.Fatalf("reopened after an install at %d: %+v", index, to.Recovered())
		}
		if report, err := to.Verify(context.Background()); err != nil || len(report.Problems) > 0 {
			t.Fatalf("after an install at %d: %v %+v", index, err, report)
		}
		to.Close()
	}
}

func listUpTo(t testing.TB, l *Log, index uint64) string {
	t.Helper()
	var out bytes.Buffer
	for i := l.Boundary().Index + 1; i <= index; i++ {
		f, err := l.Entry(i)
		if err != nil {
			t.Fatal(err)
		}
		if f.NextOffset > l.StartOffset() || f.Kind != KindData && f.Offset >= l.StartOffset() {
			fmt.Fprintf(&out, "%d %d %v %d %x\n", f.Index, f.Epoch, f.Kind, f.Offset, f.Payload)
		}
	}
	return out.String()
}

// A crash at any operation of an install, and at any of the open after it, leaves the
// old log or the new one.
func TestInstallCrash(t *testing.T) {
	from := openTest(t, vfs.NewMem(), installConfig)
	fillTest(t, from, 3, 30, "leader")
	const index = 23
	want := listUpTo(t, from, index)
	c := captureAtTest(t, from, index)

	base := vfs.NewMem()
	l := openTest(t, base, installConfig)
	fillTest(t, l, 2, 25, "follower")
	old := listTest(t, l)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	seen := map[string]int{}
	check := func(fs *vfs.Mem, decided bool, when string) {
		t.Helper()
		// What an open finishes is no damage to who looks before.
		if r, err := Repair("", &Options{FS: fs.AfterKill(), Config: installConfig}); err != nil || len(r.Damage) > 0 {
			t.Fatalf("%s: a repair finds %v: %v", when, r.Damage, err)
		}
		fs = fs.AfterKill()
		l, err := openKeeping(fs)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		defer l.Close()
		got := listTest(t, l)
		switch {
		case got == want && string(l.Recovered().State) == "as of 23":
			seen["new"]++
		case got == old && !decided:
			seen["old"]++
		default:
			t.Fatalf("%s: the log is neither the old one nor the new one (installed: %t):\n%s", when, decided, got)
		}
		infos, _ := fs.List(".")
		for _, info := range infos {
			if _, in := incomingName(info.Name); in || info.Name == installName {
				t.Fatalf("%s: %s is left over", when, info.Name)
			}
		}
	}
	for k := 0; ; k++ {
		m := base.AfterKill(vfs.CrashAt(k))
		done := false
		l, err := openKeeping(m)
		if err == nil {
			var in *Incoming
			if in, err = sendTest(c, l); err == nil {
				err = l.Install(in, func() {})
			}
			done = err == nil
		}
		crashed := m.Crashed()
		for i, choice := range []vfs.Choice{nil, vfs.KeepAll, vfs.Random(rnd.Uint64())} {
			when := fmt.Sprintf("crash at operation %d, choice %d", k, i)
			if i == 0 {
				// The open after it may crash, too.
				for j := 0; ; j += 3 {
					again := m.AfterCrash(vfs.KeepAll, vfs.CrashAt(j))
					if l, err := openKeeping(again); err == nil {
						l.Close()
					}
					if !again.Crashed() {
						break
					}
					check(again.AfterCrash(vfs.Random(rnd.Uint64())), done, fmt.Sprintf("%s, again at %d", when, j))
				}
			}
			check(m.AfterCrash(choice), done, when)
		}
		check(m.AfterKill(), done, fmt.Sprintf("kill at operation %d", k))
		if !crashed {
			break
		}
	}
	if seen["old"] == 0 || seen["new"] == 0 {
		t.Errorf("outcomes: %v", seen)
	}
}

// What is received is not believed.
func TestInstallRefuses(t *testing.T) {
	from := openTest(t, vfs.NewMem(), installConfig)
	fillTest(t, from, 3, 20, "leader")
	c := captureAtTest(t, from, 11)
	fs := vfs.NewMem()
	to := openTest(t, fs, installConfig)
	fillTest(t, to, 2, 5, "follower")
	old := listTest(t, to)
	ckpt := c.Checkpoint()
	damaged := bytes.Clone(ckpt)
	for i := range damaged {
		damaged[i] ^= 1
	}
	for name, refused := range map[string]func() error{
		"no checkpoint":      func() error { _, err := to.Receive(nil, c.Segments); return err },
		"damaged checkpoint": func() error { _, err := to.Receive(damaged, c.Segments); return err },
		"no segments":        func() error { _, err := to.Receive(ckpt, nil); return err },
		"missing segment":    func() error { _, err := to.Receive(ckpt, c.Segments[:len(c.Segments)-1]); return err },
		"huge segment": func() error {
			segs := append([]CapturedSegment(nil), c.Segments...)
			segs[0].Bytes = 1 << 50
			_, err := to.Receive(ckpt, segs)
			return err
		},
		"short": func() error {
			in, err := to.Receive(ckpt, c.Segments)
			if err != nil {
				t.Fatal(err)
			}
			return in.Write(0, bytes.NewReader(make([]byte, 5)))
		},
		"not a segment": func() error {
			in, err := to.Receive(ckpt, c.Segments)
			if err != nil {
				t.Fatal(err)
			}
			return in.Write(0, bytes.NewReader(make([]byte, c.Segments[0].Bytes)))
		},
	} {
		if err := refused(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	in, err := to.Receive(ckpt, c.Segments)
	if err != nil || in.Abort() != nil || listTest(t, to) != old {
		t.Errorf("after refusals: %v", err)
	}
}

func FuzzInstallPlan(f *testing.F) {
	plan := installPlan{segments: []CapturedSegment{{BaseOffset: 7, Tag: 9, Bytes: 200}}, ckpt: []byte("checkpoint")}
	f.Add(plan.encode())
	f.Add([]byte(installMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := decodeInstallPlan(b); err == nil && !bytes.Equal(p.encode(), b) {
			t.Fatalf("accepted %x and encoded %x", b, p.encode())
		}
	})
}
