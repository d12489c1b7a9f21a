package simnet_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/x/embedlog/internal/simnet"
)

// pair is a connection from a to b.
func pair(t *testing.T, n *simnet.Net) (a, b net.Conn) {
	t.Helper()
	ln, err := n.Host("b").Listen("b:1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	if a, err = n.Host("a").Dial(t.Context(), "b:1"); err != nil {
		t.Fatal(err)
	}
	if b, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

func in(t *testing.T, f func(t *testing.T, n *simnet.Net)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := simnet.New()
		defer n.Close()
		f(t, n)
	})
}

func read(t *testing.T, c net.Conn, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v, want %q", got, err, want)
	}
}

func TestBytesArriveInOrderAndEnd(t *testing.T) {
	in(t, func(t *testing.T, n *simnet.Net) {
		a, b := pair(t, n)
		sent := bytes.Repeat([]byte("0123456789abcdef"), 100_000) // more than the buffer
		go func() {
			a.Write(sent)
			a.Close()
		}()
		got, err := io.ReadAll(b)
		if err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("read %d bytes, %v, want the %d sent", len(got), err, len(sent))
		}
		if _, err := b.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Fatalf("write to a closed end: %v", err)
		}
	})
}

func TestDelayRateAndLoss(t *testing.T) {
	for _, row := range []struct {
		name  string
		set   func(n *simnet.Net)
		bytes int
		want  time.Duration
	}{
		{"at once", func(*simnet.Net) {}, 1000, 0},
		{"delay", func(n *simnet.Net) { n.Delay("a", "b", 30*time.Millisecond) }, 1000, 30 * time.Millisecond},
		{"other direction", func(n *simnet.Net) { n.Delay("b", "a", time.Second) }, 1000, 0},
		{"rate", func(n *simnet.Net) { n.Rate("a", "b", 1000) }, 2000, 2 * time.Second},
		{"loss", func(n *simnet.Net) {
			n.Loss("a", "b", func() time.Duration { return 200 * time.Millisecond })
		}, 1000, 200 * time.Millisecond},
	} {
		t.Run(row.name, func(t *testing.T) {
			in(t, func(t *testing.T, n *simnet.Net) {
				a, b := pair(t, n)
				row.set(n)
				start := time.Now()
				if _, err := a.Write(make([]byte, row.bytes)); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(b, make([]byte, row.bytes)); err != nil {
					t.Fatal(err)
				}
				if got := time.Since(start); got != row.want {
					t.Fatalf("arrived after %v, want %v", got, row.want)
				}
			})
		})
	}
}

func TestCutHoldsBackAndHealDelivers(t *testing.T) {
	in(t, func(t *testing.T, n *simnet.Net) {
		a, b := pair(t, n)
		n.Cut("a", "b")
		a.Write([]byte("held"))
		b.Write([]byte("back"))
		read(t, a, "back") // one way only
		b.SetReadDeadline(time.Now().Add(time.Second))
		if _, err := b.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("read through a cut: %v", err)
		}
		b.SetReadDeadline(time.Time{})
		a.Close()
		time.AfterFunc(time.Minute, func() { n.Heal("a", "b") })
		read(t, b, "held")
		if _, err := b.Read(make([]byte, 1)); err != io.EOF {
			t.Fatalf("the end after the cut: %v", err)
		}
	})
}

func TestDialing(t *testing.T) {
	in(t, func(t *testing.T, n *simnet.Net) {
		a, b := n.Host("a"), n.Host("b")
		if _, err := a.Dial(t.Context(), "b:1"); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Fatalf("nobody listens: %v", err)
		}
		ln, err := b.Listen("b:1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Listen("b:1"); !errors.Is(err, syscall.EADDRINUSE) {
			t.Fatalf("listened twice: %v", err)
		}
		n.Cut("b", "a") // the answer to a dial
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := a.Dial(ctx, "b:1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("dialled through a cut: %v", err)
		}
		time.AfterFunc(time.Second, n.HealAll)
		c, err := a.Dial(t.Context(), "b:1")
		if err != nil {
			t.Fatal(err)
		}
		ln.Close()
		if _, err := c.Read(make([]byte, 1)); err != io.EOF && !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("nobody accepted: %v", err)
		}
		if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Fatalf("accept after close: %v", err)
		}
	})
}

func TestResetAndCrash(t *testing.T) {
	for name, breakIt := range map[string]func(n *simnet.Net){
		"reset":         func(n *simnet.Net) { n.Reset("b", "a") },
		"network ended": func(n *simnet.Net) { n.Close() },
		"host crashed":  func(n *simnet.Net) { n.Host("b").Crash() },
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, n *simnet.Net) {
				a, _ := pair(t, n)
				if got := n.Conns("a", "b"); got != 1 {
					t.Fatalf("%d connections", got)
				}
				failed := make(chan error, 1)
				go func() {
					_, err := a.Read(make([]byte, 1))
					failed <- err
				}()
				synctest.Wait()
				breakIt(n)
				if err := <-failed; err == nil {
					t.Fatal("read went on")
				}
				if _, err := a.Write([]byte("x")); err == nil {
					t.Fatal("write went on")
				}
			})
		})
	}
}

// A writer whose reader is slow waits, and ends at its deadline.
func TestSlowReader(t *testing.T) {
	in(t, func(t *testing.T, n *simnet.Net) {
		a, _ := pair(t, n)
		a.SetWriteDeadline(time.Now().Add(5 * time.Second))
		wrote, err := a.Write(make([]byte, 1<<20))
		if wrote != simnet.DefaultBuffer || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("wrote %d: %v", wrote, err)
		}
		var timeout net.Error
		if !errors.As(err, &timeout) || !timeout.Timeout() {
			t.Fatalf("%v is no timeout", err)
		}
	})
}
