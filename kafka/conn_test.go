package kafka

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	embedlog "github.com/x/embedlog"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// gate is an authenticator that lets ApiVersions through, and everything once it was
// asked for that often enough.
type gate struct{ asked, enough int }

func (g *gate) admits(key int16) bool {
	if key == apiVersionsKey {
		g.asked++
		return true
	}
	return g.asked >= g.enough
}

func (g *gate) principal() (Principal, bool) {
	return Principal{Type: "User", Name: "ann"}, g.asked >= g.enough
}

// apiVersionsRequest is a request that every connection may send.
func apiVersionsRequest(version int16) *kmsg.ApiVersionsRequest {
	q := kmsg.NewPtrApiVersionsRequest()
	q.Version, q.ClientSoftwareName, q.ClientSoftwareVersion = version, "raw", "1.0"
	return q
}

// header is the beginning of a request.
func header(key, version int16, correlation int32) []byte {
	b := binary.BigEndian.AppendUint16(nil, uint16(key))
	b = binary.BigEndian.AppendUint16(b, uint16(version))
	b = binary.BigEndian.AppendUint32(b, uint32(correlation))
	return append(b, 0xff, 0xff) // no client id
}

func framed(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
}

// What closes a connection, before and after authentication.
func TestConnRefuses(t *testing.T) {
	size := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	for _, row := range []struct {
		name   string
		locked bool // not authenticated
		bytes  []byte
		why    string
	}{
		{"no size", false, size(0), "a frame of 0 bytes"},
		{"less than a header", false, size(7), "a frame of 7 bytes"},
		{"negative size", false, size(1 << 31), "a frame of -2147483648 bytes"},
		{"more than the limit", false, size(1<<20 + 1), "at most 1048576"},
		{"more than the limit before authentication", true, size(10_001), "at most 10000"},
		{"an API that there is not", false, framed(header(99, 0, 1)), "API key 99"},
		{"a negative API", false, framed(header(-1, 0, 1)), "API key -1"},
		{"an API of brokers", false, framed(header(4, 0, 1)), "API key 4"},
		{"a version that there is not", false, framed(header(3, 99, 1)), "Metadata version 99"},
		{"a negative version", false, framed(header(3, -1, 1)), "Metadata version -1"},
		{"a version that is only named", false, framed(header(0, 2, 1)), "Produce version 2"},
		{"half a client id", false, framed([]byte{0, 3, 0, 0, 0, 0, 0, 1, 0x7f, 0xff, 'a'}), "middle of a field"},
		{"no body", false, framed(header(3, 1, 1)), "middle of a field"},
		{"an array of anything", false, framed(append(header(3, 1, 1), 0x7f, 0xff, 0xff, 0xff)), "an array of 2147483647"},
		{"tags without end", false, framed(append(header(3, 9, 1), 0xff, 0xff, 0xff, 0xff, 0x0f)), "tagged fields"},
		{"before authentication", true, framed(append(header(3, 1, 1), 0xff, 0xff, 0xff, 0xff)), "not authenticated: Metadata"},
		{"what there is not, before authentication", true, framed(header(99, 0, 1)), "API key 99"},
	} {
		t.Run(row.name, func(t *testing.T) {
			var logged bytes.Buffer
			db := openMemory(t, nil)
			s := pipeServer(t, db, Options{
				Limits: Limits{FrameBytes: 1 << 20, HandshakeFrameBytes: 10_000}, Logger: slog.New(slog.NewTextHandler(&logged, nil)),
			})
			var auth authenticator
			if row.locked {
				auth = &gate{enough: 1}
			}
			x := dial(t, s, auth)
			go x.c.Write(row.bytes) // the server may close before it has taken them all
			x.gone()
			s.running.Wait()
			if !strings.Contains(logged.String(), row.why) {
				t.Errorf("logged %q, want %q", logged.String(), row.why)
			}
			if s.memory.used() != 0 || s.handshakes.used() != 0 {
				t.Errorf("%d and %d bytes are reserved when all is done", s.memory.used(), s.handshakes.used())
			}
		})
	}
}

// A connection is let in when its authenticator says so, and no frame is read by the
// rules of the state before.
func TestConnAuthenticates(t *testing.T) {
	db := openMemory(t, nil)
	createTopic(t, db, "orders", nil)
	s := pipeServer(t, db, Options{Limits: Limits{FrameBytes: 1 << 20, HandshakeFrameBytes: 1000}})
	x := dial(t, s, &gate{enough: 2})
	q := kmsg.NewPtrMetadataRequest()
	q.Version = 5
	for i := range 100 {
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = kmsg.StringPtr(fmt.Sprintf("a-topic-with-a-long-name-%d", i))
		q.Topics = append(q.Topics, rt)
	}
	// All at once: the third is larger than what is allowed before the second.
	f := kmsg.NewRequestFormatter()
	b := f.AppendRequest(nil, apiVersionsRequest(3), 1)
	b = append(b, f.AppendRequest(nil, apiVersionsRequest(0), 2)...)
	b = append(b, f.AppendRequest(nil, q, 3)...)
	go x.c.Write(b)
	x.recv(apiVersionsRequest(3), 1)
	x.recv(apiVersionsRequest(0), 2)
	if resp := x.recv(q, 3).(*kmsg.MetadataResponse); len(resp.Topics) != 100 {
		t.Errorf("%d topics", len(resp.Topics))
	}
}

// Answers come in the order of requests, whatever they take.
func TestConnAnswersInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := openMemory(t, nil)
		topic := createTopic(t, db, "orders", nil)
		x := dial(t, pipeServer(t, db, Options{}), nil)
		slow := fetchRequest(12, topic, 0, 0)
		slow.MaxWaitMillis = 1000
		fast := kmsg.NewPtrMetadataRequest()
		go func() {
			for range 3 {
				x.send(slow)
				x.send(fast)
			}
		}()
		for i := range int32(3) {
			x.recv(slow, 2*i+1)
			x.recv(fast, 2*i+2)
		}
	})
}

// A frame that was begun has to come, an answer has to be taken, and a connection
// that nobody uses is closed; all in their time.
func TestConnTimeouts(t *testing.T) {
	limits := Limits{FrameTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	for _, row := range []struct {
		name string
		do   func(x *raw, topic *embedlog.Topic)
		want time.Duration
	}{
		{"nothing", func(x *raw, topic *embedlog.Topic) {}, time.Minute},
		{"half a size", func(x *raw, topic *embedlog.Topic) { x.c.Write([]byte{0, 0}) }, 10 * time.Second},
		{"half a small frame", func(x *raw, topic *embedlog.Topic) { x.c.Write([]byte{0, 0, 1, 0, 1}) }, 10 * time.Second},
		{"half a large frame", func(x *raw, topic *embedlog.Topic) { x.c.Write([]byte{1, 0, 0, 0, 1}) }, 26 * time.Second},
		{"a byte now and then", func(x *raw, topic *embedlog.Topic) {
			go func() {
				x.c.Write([]byte{0, 0, 1, 0})
				for {
					time.Sleep(time.Second)
					if _, err := x.c.Write([]byte{0}); err != nil {
						return
					}
				}
			}()
		}, 10 * time.Second},
		{"does not read", func(x *raw, topic *embedlog.Topic) { x.send(apiVersionsRequest(3)) }, 10 * time.Second},
		{"waits for records longer than it may be idle", func(x *raw, topic *embedlog.Topic) {
			q := fetchRequest(12, topic, 0, 0)
			q.MaxWaitMillis = 50_000
			x.send(q)
			x.recv(q, 1)
		}, 110 * time.Second},
	} {
		t.Run(row.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				db := openMemory(t, nil)
				topic := createTopic(t, db, "orders", nil)
				s := pipeServer(t, db, Options{Limits: limits})
				began := time.Now()
				x := dial(t, s, nil)
				row.do(x, topic)
				s.running.Wait()
				defer time.Sleep(2 * time.Second) // a writer of the row's notices
				if got := time.Since(began); got != row.want {
					t.Errorf("closed after %v, want %v", got, row.want)
				}
				if s.memory.used() != 0 {
					t.Errorf("%d bytes are reserved when all is done", s.memory.used())
				}
			})
		})
	}
}

// Frames of all connections together are bounded: who comes later waits.
func TestConnMemoryIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := openMemory(t, nil)
		s := pipeServer(t, db, Options{Limits: Limits{FrameBytes: 1000, MemoryBytes: 1500, FrameTimeout: 10 * time.Second}})
		first, second := dial(t, s, nil), dial(t, s, nil)
		first.c.Write([]byte{0, 0, 3, 232, 0, 3}) // says 1000, and stops
		synctest.Wait()
		if got := s.memory.used(); got != 1000 {
			t.Fatalf("%d bytes are reserved, want 1000", got)
		}
		began := time.Now()
		q := kmsg.NewPtrMetadataRequest()
		for range 100 {
			rt := kmsg.NewMetadataRequestTopic()
			rt.Topic = kmsg.StringPtr("orders")
			q.Topics = append(q.Topics, rt)
		}
		second.send(q)
		second.recv(q, 1)
		if got := time.Since(began); got != 10*time.Second {
			t.Errorf("answered after %v, want when the first is cut off", got)
		}
	})
}

func TestServerLimitsConnections(t *testing.T) {
	db := openMemory(t, nil)
	connect := func(s *Server) *raw {
		c, err := net.Dial("tcp", s.Addrs()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(20 * time.Second))
		return &raw{t: t, c: c}
	}
	for name, limits := range map[string]Limits{"in all": {Connections: 2}, "from an address": {ConnectionsPerIP: 2}} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, db, Options{Limits: limits})
			first, second := connect(s), connect(s)
			do[*kmsg.ApiVersionsResponse](first, apiVersionsRequest(3))
			do[*kmsg.ApiVersionsResponse](second, apiVersionsRequest(3))
			connect(s).gone()
			first.c.Close()
			for { // until the server has noticed
				x := connect(s)
				x.c.Write(kmsg.NewRequestFormatter().AppendRequest(nil, apiVersionsRequest(3), 7))
				if _, err := x.tryRecv(apiVersionsRequest(3), 7); err == nil {
					break
				}
			}
			do[*kmsg.ApiVersionsResponse](second, apiVersionsRequest(3))
		})
	}
}

// When Shutdown, Close, or Close of the database returns, no goroutine is left.
func TestServerLeavesNothing(t *testing.T) {
	for name, end := range map[string]func(s *Server, db *embedlog.DB) error{
		"shutdown":    func(s *Server, db *embedlog.DB) error { return s.Shutdown(t.Context()) },
		"close":       func(s *Server, db *embedlog.DB) error { return s.Close() },
		"database":    func(s *Server, db *embedlog.DB) error { return db.Close() },
		"close twice": func(s *Server, db *embedlog.DB) error { return errors.Join(s.Close(), s.Close()) },
		"all": func(s *Server, db *embedlog.DB) error {
			return errors.Join(s.Shutdown(t.Context()), s.Close(), db.Close())
		},
		"close at once":  func(s *Server, db *embedlog.DB) error { go s.Close(); return s.Close() },
		"shutdown twice": func(s *Server, db *embedlog.DB) error { go s.Shutdown(t.Context()); return s.Shutdown(t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			db := openMemory(t, nil)
			topic := createTopic(t, db, "orders", nil)
			s := serve(t, db, Options{})
			for i := range 4 {
				c, err := net.Dial("tcp", s.Addrs()[0].String())
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				x := &raw{t: t, c: c}
				do[*kmsg.ApiVersionsResponse](x, apiVersionsRequest(3))
				switch i {
				case 1: // waits for records
					q := fetchRequest(12, topic, 0, 0)
					q.MaxWaitMillis = 60_000
					x.send(q)
				case 2: // is in the middle of a frame
					c.Write([]byte{0, 0, 1, 0, 0})
				}
			}
			if err := end(s, db); err != nil {
				t.Fatal(err)
			}
			stacks := make([]byte, 1<<20)
			stacks = stacks[:runtime.Stack(stacks, true)]
			for _, g := range bytes.Split(stacks, []byte("\n\n")) {
				if bytes.Contains(g, []byte("kafka.(*conn)")) || bytes.Contains(g, []byte("kafka.(*Server).accept")) {
					t.Errorf("left:\n%s", g)
				}
			}
			if c, err := net.Dial("tcp", s.Addrs()[0].String()); err == nil {
				c.Close()
				t.Error("something still listens")
			}
		})
	}
}

// When the context of Shutdown ends, what is left is cut off.
func TestShutdownCuts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		db := openMemory(t, nil)
		s := pipeServer(t, db, Options{Limits: Limits{FrameTimeout: time.Hour}})
		x := dial(t, s, nil)
		x.send(apiVersionsRequest(3)) // and does not read
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		began := time.Now()
		if err := s.Shutdown(ctx); err == nil || time.Since(began) != 5*time.Second {
			t.Errorf("shut down after %v: %v", time.Since(began), err)
		}
	})
}

// Arbitrary bytes, before and after authentication: no panic, no bytes that stay
// reserved, and no memory beyond what the bytes deserve.
func FuzzConn(f *testing.F) {
	formatter := kmsg.NewRequestFormatter(kmsg.FormatterClientID("fuzz"))
	for _, a := range apis {
		if a == nil {
			continue
		}
		for _, version := range []int16{a.min, a.max} {
			q := kmsg.RequestForKey(a.key)
			q.SetVersion(version)
			f.Add(false, formatter.AppendRequest(formatter.AppendRequest(nil, apiVersionsRequest(0), 1), q, 2))
		}
	}
	f.Add(true, framed(header(3, 9, 1)))
	f.Add(true, []byte{0, 0, 0, 8, 0, 0, 0, 0})
	db := openMemory(f, &embedlog.Options{MaintenanceInterval: -1})
	createTopic(f, db, "t", nil)
	limits := Limits{FrameBytes: 1 << 20, HandshakeFrameBytes: 1 << 16, MemoryBytes: 4 << 20, FrameTimeout: 5 * time.Second}
	s := pipeServer(f, db, Options{Limits: limits})
	f.Fuzz(func(t *testing.T, locked bool, b []byte) {
		var auth authenticator
		if locked {
			auth = &gate{enough: 3}
		}
		// A wait for records would be as long as the bytes say.
		b = withoutWaits(b)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		x := dial(t, s, auth)
		var reader sync.WaitGroup
		reader.Go(func() {
			for {
				if _, err := readFrame(x.c); err != nil {
					return
				}
			}
		})
		x.c.SetWriteDeadline(time.Now().Add(5 * time.Second))
		x.c.Write(b)
		x.c.Close()
		reader.Wait()
		s.running.Wait()
		runtime.ReadMemStats(&after)
		// A message is decoded at a few times its size; what is said of a topic is more.
		if got, most := after.TotalAlloc-before.TotalAlloc, uint64(4<<20+200*len(b)); got > most {
			t.Errorf("%d bytes were allocated for %d", got, len(b))
		}
		if s.memory.used() != 0 || s.handshakes.used() != 0 {
			t.Errorf("%d and %d bytes are reserved when all is done", s.memory.used(), s.handshakes.used())
		}
	})
}

// withoutWaits leaves out fetches: they have their own target, and wait.
func withoutWaits(b []byte) []byte {
	b = bytes.Clone(b)
	for rest := b; len(rest) >= 8; {
		size := int(binary.BigEndian.Uint32(rest))
		if binary.BigEndian.Uint16(rest[4:]) == fetchKey {
			binary.BigEndian.PutUint16(rest[4:], apiVersionsKey)
		}
		if size < 0 || size > len(rest)-4 {
			break
		}
		rest = rest[4+size:]
	}
	return b
}
