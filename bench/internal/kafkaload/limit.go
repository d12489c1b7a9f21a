package kafkaload

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

// The limit: the least that a server does which keeps the same guarantee, over the same
// loopback, with requests of the same size. A produce request is read and answered;
// with Durable its bytes are written into a file of zeros and synced first, those
// that arrive meanwhile together. A fetch is answered from memory. A record that
// somebody waits for is handed from the one connection to the other.
//
//	client to server   kind (1 byte), client (4); then for each request: size (4), size bytes
//	server to client   for each request: size (4), size bytes

const (
	answerBytes  = 60       // of a produce request, about
	requestBytes = 90       // of a fetch, about
	inFlight     = 5        // requests, as Kafka's clients have them
	limitFile    = 64 << 20 // bytes that are written over and over
)

// limitServer is the server's side.
type limitServer struct {
	load  *Load
	group *syncGroup
	mu    sync.Mutex
	pairs map[uint32]chan net.Conn // where a record is to go, by client
}

// ServeLimit serves the limit until the parent wants no more.
func ServeLimit(dir string, l *Load) error {
	s := &limitServer{load: l, pairs: map[uint32]chan net.Conn{}}
	if l.Durable {
		var err error
		if s.group, err = newSyncGroup(filepath.Join(dir, "limit")); err != nil {
			return err
		}
		defer s.group.file.Close()
	}
	n, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer n.Close()
	go func() {
		for {
			c, err := n.Accept()
			if err != nil {
				return
			}
			go s.serve(c)
		}
	}()
	return Serve(n.Addr().String())
}

func (s *limitServer) pair(i uint32) chan net.Conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pairs[i] == nil {
		s.pairs[i] = make(chan net.Conn, 1)
	}
	return s.pairs[i]
}

// serve ends when the client has gone: there is nobody to tell.
func (s *limitServer) serve(c net.Conn) {
	var hello [5]byte
	if _, err := io.ReadFull(c, hello[:]); err != nil {
		c.Close()
		return
	}
	i := binary.BigEndian.Uint32(hello[1:])
	if hello[0] == 'r' { // it takes the records of its client, whose other connection closes it
		s.pair(i) <- c
		return
	}
	defer c.Close()
	out := c
	if hello[0] == 'w' {
		out = <-s.pair(i)
		defer out.Close()
	}
	answer := make([]byte, 4+answerBytes)
	if s.load.Kind == Consume {
		answer = make([]byte, 4+s.load.FetchBytes())
	}
	binary.BigEndian.PutUint32(answer, uint32(len(answer)-4))
	in := bufio.NewReaderSize(c, 16<<10)
	var body []byte
	for {
		body = body[:0]
		size, err := in.Peek(4)
		if err != nil {
			return
		}
		n := 4 + int(binary.BigEndian.Uint32(size))
		if n > 64<<20 {
			return
		}
		if cap(body) < n {
			body = make([]byte, n)
		}
		body = body[:n]
		if _, err := io.ReadFull(in, body); err != nil {
			return
		}
		if s.group != nil {
			if err := s.group.append(body); err != nil {
				return
			}
		}
		if s.load.Kind == Latency {
			answer = body
		}
		if _, err := out.Write(answer); err != nil {
			return
		}
	}
}

// syncGroup is a file of zeros, and the group of requests that is written next.
type syncGroup struct {
	file *os.File
	mu   sync.Mutex
	open *syncing
	turn sync.Mutex
	at   int64
}

type syncing struct {
	bytes []byte
	done  chan struct{}
	err   error
}

func newSyncGroup(path string) (*syncGroup, error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	zeros := make([]byte, 1<<20)
	for at := int64(0); at < limitFile; at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros, at); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return &syncGroup{file: f, open: &syncing{done: make(chan struct{})}}, f.Sync()
}

func (g *syncGroup) append(b []byte) error {
	g.mu.Lock()
	mine := g.open
	first := len(mine.bytes) == 0
	mine.bytes = append(mine.bytes, b...)
	g.mu.Unlock()
	if !first {
		<-mine.done
		return mine.err
	}
	g.turn.Lock()
	defer g.turn.Unlock()
	g.mu.Lock()
	g.open = &syncing{done: make(chan struct{})}
	g.mu.Unlock()
	if g.at+int64(len(mine.bytes)) > limitFile {
		g.at = 0
	}
	if _, mine.err = g.file.WriteAt(mine.bytes, g.at); mine.err == nil {
		mine.err = datasync(g.file)
	}
	g.at += int64(len(mine.bytes))
	close(mine.done)
	return mine.err
}

// Limit runs the load against the limit's server.
func Limit(ctx context.Context, c *Child, l *Load) (Result, error) {
	if l.Kind == Latency {
		return limitLatency(c, l)
	}
	request, answer, deep := l.Chunk, answerBytes, inFlight
	if l.Kind == Consume {
		request, answer, deep = requestBytes, l.FetchBytes(), 2 // a client asks for more while it has some
	}
	var moved atomic.Int64
	elapsed, cpu, err := Each(c, l, func(i int, ready func()) error {
		nc, err := dial(ctx, c, 'p', i)
		if err != nil {
			return err
		}
		defer nc.Close()
		ready()
		requests, err := l.pipeline(nc, request, answer, deep)
		if l.Kind == Consume {
			moved.Add(requests * int64(answer))
		} else {
			moved.Add(requests * int64(request))
		}
		return err
	})
	return Result{Records: moved.Load() / int64(l.Bytes), Bytes: moved.Load(), Elapsed: elapsed, CPU: cpu}, err
}

func dial(ctx context.Context, c *Child, kind byte, i int) (net.Conn, error) {
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", c.Addr)
	if err != nil {
		return nil, err
	}
	_, err = nc.Write(binary.BigEndian.AppendUint32([]byte{kind}, uint32(i)))
	return nc, err
}

// pipeline sends requests, so many before the first is answered, until the time is over.
func (l *Load) pipeline(nc net.Conn, request, answer, deep int) (n int64, err error) {
	body := make([]byte, 4+request)
	binary.BigEndian.PutUint32(body, uint32(request))
	window := make(chan struct{}, deep)
	wrote := make(chan error, 1)
	go func() {
		defer close(window)
		for began := time.Now(); time.Since(began) < l.Time; {
			window <- struct{}{}
			if _, err := nc.Write(body); err != nil {
				wrote <- err
				return
			}
		}
		wrote <- nil
	}()
	in := make([]byte, 4+answer)
	for range window {
		if _, err := io.ReadFull(nc, in); err != nil {
			nc.Close()
			for range window { // who writes must not wait for us
			}
			return n, errors.Join(err, <-wrote)
		}
		n++
	}
	return n, <-wrote
}

func limitLatency(c *Child, l *Load) (Result, error) {
	return Latencies(c, l, func(i int, ready func()) ([]time.Duration, error) {
		in, err := dial(context.Background(), c, 'r', i)
		if err != nil {
			return nil, err
		}
		defer in.Close()
		out, err := dial(context.Background(), c, 'w', i)
		if err != nil {
			return nil, err
		}
		defer out.Close()
		body := make([]byte, 4+recordOverhead+l.Bytes)
		binary.BigEndian.PutUint32(body, uint32(len(body)-4))
		got := make([]byte, len(body))
		return l.RoundTrips(ready, func(int) error {
			if _, err := out.Write(body); err != nil {
				return err
			}
			if _, err := io.ReadFull(in, got); err != nil {
				return fmt.Errorf("the record did not come back: %w", err)
			}
			return nil
		})
	})
}

// recordOverhead is what a request with one record has besides it, about.
const recordOverhead = 140
