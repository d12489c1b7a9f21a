package raftrepl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/x/embedlog/internal/engine"
)

func TestCalls(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		w.serve = func(ctx context.Context, from int32, service string, request []byte) ([]byte, error) {
			switch service {
			case "fail":
				return nil, errors.New("no luck")
			case "deadline":
				d, ok := ctx.Deadline()
				return fmt.Appendf(nil, "%t %v", ok, time.Until(d).Round(time.Second)), nil
			}
			return fmt.Appendf(nil, "%d %s %d", from, service, len(request)), nil
		}
		a := w.node(1)
		w.node(2)
		for _, row := range []struct {
			node    int32
			service string
			request []byte
			timeout time.Duration
			want    string
		}{
			{2, "echo", []byte("x"), 0, "1 echo 1"},
			{2, "echo", nil, 0, "1 echo 0"},
			{2, "echo", make([]byte, 40<<20), 0, "1 echo 41943040"},
			{1, "echo", []byte("self"), 0, "1 echo 4"},
			{2, "deadline", nil, 7 * time.Second, "true 7s"},
		} {
			ctx, cancel := t.Context(), context.CancelFunc(func() {})
			if row.timeout > 0 {
				ctx, cancel = context.WithTimeout(ctx, row.timeout)
			}
			got, err := a.call(ctx, row.node, row.service, row.request)
			cancel()
			if err != nil || string(got) != row.want {
				t.Errorf("%s: %q, %v, want %q", row.service, got, err, row.want)
			}
		}
		_, err := a.call(t.Context(), 2, "fail", nil)
		var remote *RemoteError
		if !errors.As(err, &remote) || remote.Text != "no luck" || errors.Is(err, engine.ErrPeerUnreachable) {
			t.Errorf("a service that fails: %v", err)
		}
		if _, err := a.call(t.Context(), 2, "echo", make([]byte, MaxCallBytes+1)); !errors.Is(err, engine.ErrPeerUnreachable) {
			t.Errorf("a request that is too large: %v", err)
		}
	})
}

// What a caller may do next hangs on whether the request can have been served.
func TestCallsThatMayOrMayNotHaveBeenServed(t *testing.T) {
	for _, row := range []struct {
		name   string
		do     func(t *testing.T, w *world, call func(context.Context) error) error
		unsent bool
		served int32
	}{
		{"nobody there", func(t *testing.T, w *world, call func(context.Context) error) error {
			w.nodes[2].Close()
			return call(t.Context())
		}, true, 0},
		{"cut off, and given up", func(t *testing.T, w *world, call func(context.Context) error) error {
			w.net.CutBoth("n1", "n2")
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			err := call(ctx)
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("failed with %v", err)
			}
			return err
		}, true, 0},
		{"connection lost before the answer", func(t *testing.T, w *world, call func(context.Context) error) error {
			time.AfterFunc(time.Second, func() { w.net.Reset("n1", "n2") })
			return call(t.Context())
		}, false, 1},
		{"cancelled while it is served", func(t *testing.T, w *world, call func(context.Context) error) error {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			err := call(ctx)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("failed with %v", err)
			}
			return err
		}, false, 1},
		{"connection lost in the middle of the request", func(t *testing.T, w *world, call func(context.Context) error) error {
			w.nodes[1].peer(2).get(t.Context(), flavourMain)
			w.net.Rate("n1", "n2", 1<<20)
			time.AfterFunc(time.Second, func() { w.net.Reset("n1", "n2") })
			return call(t.Context())
		}, true, 0},
		{"this node leaves", func(t *testing.T, w *world, call func(context.Context) error) error {
			time.AfterFunc(time.Second, func() { w.nodes[1].Close() })
			return call(t.Context())
		}, false, 1},
	} {
		t.Run(row.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				var served, ended atomic.Int32
				w.serve = func(ctx context.Context, _ int32, _ string, _ []byte) ([]byte, error) {
					served.Add(1)
					<-ctx.Done()
					ended.Add(1)
					return nil, ctx.Err()
				}
				a := w.node(1)
				w.node(2)
				err := row.do(t, w, func(ctx context.Context) error {
					_, err := a.call(ctx, 2, "s", make([]byte, 4<<20))
					return err
				})
				if err == nil || errors.Is(err, engine.ErrPeerUnreachable) != row.unsent || errors.Is(err, ErrCallLost) == row.unsent {
					t.Errorf("failed with %v, want unsent %t", err, row.unsent)
				}
				synctest.Wait()
				if served.Load() != row.served || ended.Load() != row.served {
					t.Errorf("served %d times, ended %d times, want %d", served.Load(), ended.Load(), row.served)
				}
			})
		})
	}
}

// Calls in flight are bounded: the others wait for their turn, or leave.
func TestCallsInFlightAreBounded(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		var now, most atomic.Int32
		w.serve = func(ctx context.Context, _ int32, _ string, _ []byte) ([]byte, error) {
			most.Store(max(most.Load(), now.Add(1)))
			defer now.Add(-1)
			time.Sleep(time.Second)
			return nil, nil
		}
		a := w.node(1)
		w.node(2)
		var wg sync.WaitGroup
		for range maxCallsInFlight + 100 {
			wg.Go(func() {
				if _, err := a.call(t.Context(), 2, "s", nil); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if _, err := a.call(ctx, 2, "s", nil); !errors.Is(err, engine.ErrPeerUnreachable) {
			t.Errorf("one too many: %v", err)
		}
		wg.Wait()
		if most.Load() > maxCallsInFlight {
			t.Errorf("%d at once", most.Load())
		}
	})
}

func installHooks(f func(data io.Reader) error) groupHooks {
	return groupHooks{install: func(from int32, r *raft.InstallSnapshotRequest, data io.Reader) (*raft.InstallSnapshotResponse, error) {
		if from != 1 || r.LastLogIndex != 77 || string(r.Configuration) != "members" || string(r.ID) != "1" {
			return nil, fmt.Errorf("got %+v", r)
		}
		return &raft.InstallSnapshotResponse{Term: r.Term, Success: true}, f(data)
	}}
}

func pourInstall(g *groupTransport, data io.Reader) error {
	var resp raft.InstallSnapshotResponse
	err := g.InstallSnapshot("2", "", &raft.InstallSnapshotRequest{SnapshotVersion: 1, Term: 5, LastLogIndex: 77, LastLogTerm: 4,
		Configuration: []byte("members"), ConfigurationIndex: 3, Size: 10}, &resp, data)
	if err == nil && (!resp.Success || resp.Term != 5) {
		return fmt.Errorf("answer %+v", resp)
	}
	return err
}

func TestInstallGoesToTheGroup(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		sent := bytes.Repeat([]byte("0123456789abcdef"), 1<<17) // 2 MiB: more than the credit
		hooks := installHooks(func(data io.Reader) error {
			got, err := io.ReadAll(data)
			if !bytes.Equal(got, sent) {
				t.Errorf("%d bytes arrived, %d were sent", len(got), len(sent))
			}
			return err
		})
		ga := w.group(w.node(1), groupA, groupHooks{})
		w.group(w.node(2), groupA, hooks)
		for range 3 {
			if err := pourInstall(ga, bytes.NewReader(sent)); err != nil {
				t.Fatal(err)
			}
		}
		if n := w.net.Conns("n1", "n2"); n != 1 {
			t.Errorf("%d connections", n)
		}
		time.Sleep((installIdlePings + 2) * w.nodes[1].pingEvery())
		if n := w.net.Conns("n1", "n2"); n != 0 {
			t.Errorf("%d connections when all is quiet", n)
		}
	})
}

// Without a callback an install is a request like others.
func TestInstallForTheConsumer(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		ga, gb := w.group(w.node(1), groupA, groupHooks{}), w.group(w.node(2), groupA, groupHooks{})
		go func() {
			rpc := <-gb.Consumer()
			got, err := io.ReadAll(rpc.Reader)
			if err != nil || string(got) != "data" {
				t.Errorf("%q, %v", got, err)
			}
			rpc.Respond(&raft.InstallSnapshotResponse{Term: 5, Success: true}, nil)
		}()
		if err := pourInstall(ga, bytes.NewReader([]byte("data"))); err != nil {
			t.Error(err)
		}
	})
}

type failingReader struct{ n int }

func (r *failingReader) Read(b []byte) (int, error) {
	if r.n -= len(b); r.n < 0 {
		return 0, errors.New("the disk is gone")
	}
	return len(b), nil
}

func TestInstallsThatFail(t *testing.T) {
	for _, row := range []struct {
		name  string
		take  func(io.Reader) error
		data  io.Reader
		after func(w *world, ga, gb *groupTransport)
		want  string
	}{
		{"sender cannot read", func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }, &failingReader{3 << 20}, nil, "the disk is gone"},
		{"receiver has enough", func(io.Reader) error { return errors.New("no room") }, &failingReader{1 << 30}, nil, "no room"},
		{"receiver stops", func(r io.Reader) error { _, err := io.Copy(slow{}, r); return err }, &failingReader{1 << 30},
			func(_ *world, _, gb *groupTransport) { gb.Close() }, errGroupClosed.Error()},
		{"sender stops", func(r io.Reader) error { _, err := io.Copy(slow{}, r); return err }, &failingReader{1 << 30},
			func(_ *world, ga, _ *groupTransport) { ga.Close() }, errGroupClosed.Error()},
		{"connection breaks", func(r io.Reader) error { _, err := io.Copy(slow{}, r); return err }, &failingReader{1 << 30},
			func(w *world, _, _ *groupTransport) { w.net.Reset("n1", "n2") }, "connection"},
		{"receiver stands still", func(r io.Reader) error { time.Sleep(time.Hour); return nil }, &failingReader{1 << 30}, nil, errInstallStalls.Error()},
	} {
		t.Run(row.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world) {
				received := make(chan error, 1)
				hooks := installHooks(func(data io.Reader) error {
					err := row.take(data)
					received <- err
					return err
				})
				ga, gb := w.group(w.node(1), groupA, groupHooks{}), w.group(w.node(2), groupA, hooks)
				if row.after != nil {
					time.AfterFunc(time.Second, func() { row.after(w, ga, gb) })
				}
				err := pourInstall(ga, row.data)
				if err == nil || !bytes.Contains([]byte(err.Error()), []byte(row.want)) {
					t.Errorf("failed with %v, want %q", err, row.want)
				}
				if err := <-received; err == nil && row.name != "receiver stands still" {
					t.Error("the receiver believes that it has all")
				}
			})
		})
	}
}

// slow is a disk.
type slow struct{}

func (slow) Write(b []byte) (int, error) {
	time.Sleep(100 * time.Millisecond)
	return len(b), nil
}

// An install whose receiver is slow holds up neither another one nor what goes the other way.
func TestInstallsDoNotBlockEachOther(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world) {
		a, b := w.node(1), w.node(2)
		stuck := make(chan struct{})
		ga := w.group(a, groupA, groupHooks{})
		w.group(b, groupA, installHooks(func(io.Reader) error { <-stuck; return nil }))
		gb := w.group(a, groupB, groupHooks{})
		w.group(b, groupB, installHooks(func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err }))
		var wg sync.WaitGroup
		wg.Go(func() { pourInstall(ga, bytes.NewReader(make([]byte, 8<<20))) })
		synctest.Wait()
		start := time.Now()
		if err := pourInstall(gb, bytes.NewReader(make([]byte, 8<<20))); err != nil || time.Since(start) > 0 {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		close(stuck)
		wg.Wait()
	})
}
