package raftload

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"
)

// The limit: the least that three nodes do which keep the same guarantee. Each is a process
// with a file of zeros; the leader, which is node 1, has a connection to each of the others.
//
//	leader     group of records: to both connections, and meanwhile write, fdatasync here;
//	           committed when two of the three have it
//	follower   read a group, write, fdatasync; answer with its number
//
// There is nothing else: no TLS, no checksums, no terms, no offsets, no record that is
// acknowledged by itself. Groups that a follower finds waiting when it is about to sync share
// that sync. A record is its value and a header of 16 bytes, copied into the group.
//
//	leader to follower: size of what follows (4), number of the group (8), records
//	follower to leader: number of the last group that is on its disk (8)

const (
	limitFile      = 64 << 20 // bytes that are written over and over
	limitHeader    = 16       // of a record
	limitGroups    = 4        // that are under way when pipelined; the window is shared among them
	limitGroupMax  = 32 << 20
	limitGroupHead = 4 + 8
)

type limitNode struct {
	c    *NodeConfig
	file *os.File
	at   int64
	l    net.Listener

	mu    sync.Mutex
	conns []net.Conn
}

// OpenLimit opens one node of the limit.
func OpenLimit(c *NodeConfig) (Server, error) {
	f, err := zeroFile(filepath.Join(c.Dir, "limit"))
	if err != nil {
		return nil, err
	}
	n := &limitNode{c: c, file: f}
	if n.l, err = net.Listen("tcp", c.Addresses[strconv.Itoa(int(c.Node))]); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	go n.accept()
	return n, nil
}

func zeroFile(name string) (*os.File, error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	zeros := make([]byte, 1<<20)
	for at := int64(0); at < limitFile; at += int64(len(zeros)) {
		if _, err := f.WriteAt(zeros, at); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return f, f.Sync()
}

func (n *limitNode) Close() error {
	n.l.Close()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, c := range n.conns {
		c.Close()
	}
	return n.file.Close()
}

// write puts a group on the disk.
func (n *limitNode) write(b []byte) error {
	if n.at+int64(len(b)) > limitFile {
		n.at = 0
	}
	_, err := n.file.WriteAt(b, n.at)
	n.at += int64(len(b))
	return err
}

func (n *limitNode) accept() {
	for {
		c, err := n.l.Accept()
		if err != nil {
			return
		}
		n.mu.Lock()
		n.conns = append(n.conns, c)
		n.mu.Unlock()
		go n.follow(c)
	}
}

// follow ends when the leader has gone: there is nobody to tell.
func (n *limitNode) follow(c net.Conn) {
	defer c.Close()
	in := bufio.NewReaderSize(c, 1<<20)
	var head [limitGroupHead]byte
	var body, answer []byte
	for unsynced := false; ; {
		if _, err := io.ReadFull(in, head[:]); err != nil {
			return
		}
		size := int(binary.BigEndian.Uint32(head[:])) - 8
		if size < 0 || size > limitGroupMax {
			return
		}
		body = slices.Grow(body[:0], size)[:size]
		if _, err := io.ReadFull(in, body); err != nil {
			return
		}
		if err := n.write(body); err != nil {
			return
		}
		unsynced = true
		if more, err := in.Peek(min(limitGroupHead, in.Buffered())); err == nil && len(more) == limitGroupHead && int(binary.BigEndian.Uint32(more))+4 <= in.Buffered() {
			continue // a whole group is here already: it shares the sync
		}
		if unsynced {
			if err := datasync(n.file); err != nil {
				return
			}
			unsynced = false
		}
		answer = append(answer[:0], head[4:]...)
		if _, err := c.Write(answer); err != nil {
			return
		}
	}
}

func (n *limitNode) Do(ctx context.Context, op string, in json.RawMessage) (any, error) {
	switch op {
	case OpPrepare:
		return nil, nil
	case OpLeads:
		return n.c.Node == 1, nil
	case OpLoad:
		l, err := decode[Load](in)
		if err != nil {
			return nil, err
		}
		return n.lead(&l)
	}
	return nil, fmt.Errorf("unknown operation %q", op)
}

// lead runs a load.
func (n *limitNode) lead(l *Load) (Result, error) {
	lead := &limitLeader{n: n, have: make([]uint64, n.c.Nodes)}
	lead.moved.L = &lead.mu
	defer func() {
		for _, c := range lead.followers {
			c.Close()
		}
	}()
	for i := 2; i <= n.c.Nodes; i++ {
		c, err := net.Dial("tcp", n.c.Addresses[strconv.Itoa(i)])
		if err != nil {
			return Result{}, err
		}
		lead.followers = append(lead.followers, c)
		go lead.answers(i-1, c)
	}
	if l.Kind == Single {
		return lead.single(l)
	}
	return lead.pipeline(l)
}

type limitLeader struct {
	n         *limitNode
	followers []net.Conn

	mu    sync.Mutex
	moved sync.Cond
	have  []uint64 // number of the last group that each node has on its disk; this one is 0
	err   error
}

func (l *limitLeader) has(node int, group uint64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.have[node] = max(l.have[node], group); err != nil {
		l.err = errors.Join(l.err, err)
	}
	l.moved.Broadcast()
}

func (l *limitLeader) answers(node int, c net.Conn) {
	var b [8]byte
	for {
		if _, err := io.ReadFull(c, b[:]); err != nil {
			l.has(node, 0, fmt.Errorf("follower %d: %w", node+1, err))
			return
		}
		l.has(node, binary.BigEndian.Uint64(b[:]), nil)
	}
}

// committed waits until a majority has a group.
func (l *limitLeader) committed(group uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for {
		n := 0
		for _, have := range l.have {
			if have >= group {
				n++
			}
		}
		if n > len(l.have)/2 {
			return nil
		}
		if l.err != nil {
			return l.err
		}
		l.moved.Wait()
	}
}

// fill puts records into a group's buffer, behind the head.
func fill(b []byte, number uint64, pool [][]byte, from, records int) []byte {
	b = b[:limitGroupHead]
	for i := range records {
		v := pool[(from+i)%len(pool)]
		at := len(b)
		b = b[:at+limitHeader+len(v)]
		binary.BigEndian.PutUint64(b[at:], number)
		binary.BigEndian.PutUint64(b[at+8:], uint64(len(v)))
		copy(b[at+limitHeader:], v)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	binary.BigEndian.PutUint64(b[4:], number)
	return b
}

func (l *limitLeader) single(load *Load) (res Result, err error) {
	pool := Values(load.Bytes)
	buf := make([]byte, limitGroupHead+limitHeader+load.Bytes)
	var all []time.Duration
	for began, at, i := time.Now(), time.Now(), 0; ; i++ {
		buf = fill(buf, uint64(i+1), pool, i, 1)
		for _, c := range l.followers {
			if _, err := c.Write(buf); err != nil {
				return res, err
			}
		}
		if err := l.own(buf); err != nil {
			return res, err
		}
		l.has(0, uint64(i+1), nil)
		if err := l.committed(uint64(i + 1)); err != nil {
			return res, err
		}
		now := time.Now()
		if i >= 20 {
			all = append(all, now.Sub(at))
		} else {
			began = now
		}
		if at = now; at.Sub(began) > load.Time {
			break
		}
	}
	n := int64(len(all))
	for _, d := range all {
		res.Elapsed += d
	}
	res.Records, res.Bytes, res.Groups = n, n*int64(load.Bytes), n
	res.P50, res.P99 = percentiles(all)
	return res, nil
}

// own puts a group on this node's disk.
func (l *limitLeader) own(group []byte) error {
	if err := l.n.write(group[limitGroupHead:]); err != nil {
		return err
	}
	return datasync(l.n.file)
}

// pipeline keeps limitGroups groups under way, each of which has its part of the window.
func (l *limitLeader) pipeline(load *Load) (res Result, err error) {
	pool := Values(load.Bytes)
	records := max(load.Window/limitGroups, 1)
	type group struct {
		number uint64
		bytes  []byte
	}
	// A buffer is used again when its group is committed and everybody has sent it.
	free := make(chan []byte, limitGroups)
	for range limitGroups {
		free <- make([]byte, limitGroupHead+records*(limitHeader+load.Bytes))
	}
	sinks := make([]chan group, 1+len(l.followers))
	var sent [limitGroups]sync.WaitGroup
	var workers sync.WaitGroup
	for i := range sinks {
		sinks[i] = make(chan group, limitGroups)
		workers.Go(func() {
			for g := range sinks[i] {
				var err error
				if i == 0 {
					if err = l.own(g.bytes); err == nil {
						l.has(0, g.number, nil)
					}
				} else {
					_, err = l.followers[i-1].Write(g.bytes)
				}
				if err != nil {
					l.has(i, 0, err)
				}
				sent[g.number%limitGroups].Done()
			}
		})
	}
	inOrder := make(chan group, limitGroups)
	ended := make(chan error, 1)
	go func() {
		var failed error
		for g := range inOrder {
			if err := l.committed(g.number); err != nil && failed == nil {
				failed = err
			}
			sent[g.number%limitGroups].Wait()
			if failed == nil {
				res.Groups++
			}
			free <- g.bytes
		}
		ended <- failed
	}()
	began := time.Now()
	for number := uint64(1); time.Since(began) < load.Time; number++ {
		g := group{number, fill(<-free, number, pool, int(number)*records, records)}
		sent[number%limitGroups].Add(len(sinks))
		for _, s := range sinks {
			s <- g
		}
		inOrder <- g
	}
	close(inOrder)
	err = <-ended
	res.Elapsed = time.Since(began)
	for _, s := range sinks {
		close(s)
	}
	workers.Wait()
	res.Records = res.Groups * int64(records)
	res.Bytes = res.Records * int64(load.Bytes)
	return res, err
}
