// Command replicated makes three copies of a database that began alone, and loses the
// leader.
//
//	go run ./examples/replicated
//
// A directory is used without a cluster first. Then a program opens it as node 1, and two
// others join; each is a process of its own. The topic gets three replicas, records are produced
// through every node, the node that leads is killed (SIGKILL) in the middle of it, and comes back. In
// the end every record that was acknowledged is there once, and the three copies are the same.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/x/embedlog"
	"github.com/x/embedlog/raftrepl"
)

const (
	clusterName = "example"
	topic       = "orders"
	partitions  = 2
	alone       = 100 // records before there was a cluster
	each        = 60  // records through each node
	patience    = 15 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	var err error
	if config := os.Getenv(nodeEnv); config != "" {
		err = serveNode(ctx, config, os.Stdin, os.Stdout)
	} else {
		err = run(ctx, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "replicated:", err)
		os.Exit(1)
	}
}

// story is what run has got to.
type story struct {
	out   io.Writer
	dir   string
	ca    *raftrepl.CA // of the certificates by which nodes know each other
	ports [4]string    // of the nodes, by number
	nodes [4]*process
	next  int          // the number in the next record's value
	acked map[int]bool // numbers of records that were acknowledged
	lost  int          // records of which nobody can say whether they were written
}

func run(ctx context.Context, out io.Writer) (err error) {
	dir, err := os.MkdirTemp("", "embedlog-replicated-")
	if err != nil {
		return err
	}
	ca, err := raftrepl.NewCA(clusterName)
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	s := &story{out: out, dir: dir, ca: ca, acked: make(map[int]bool)}
	defer func() {
		for _, p := range s.nodes {
			if p != nil {
				err = errors.Join(err, p.end())
			}
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	for _, step := range []func(context.Context) error{s.begin, s.becomeFirst, s.join, s.replicate, s.produceEverywhere, s.loseLeader, s.comeBack, s.check} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *story) say(format string, args ...any) { fmt.Fprintf(s.out, format+"\n", args...) }

// begin uses the directory without a cluster.
func (s *story) begin(ctx context.Context) (err error) {
	db, err := embedlog.Open(s.home(1), nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	t, err := db.EnsureTopic(ctx, topic, &embedlog.TopicConfig{Partitions: partitions})
	if err != nil {
		return err
	}
	for range alone {
		n := s.number()
		if _, err := t.Produce(ctx, record(n)); err != nil {
			return err
		}
		s.acked[n] = true
	}
	s.say("a database that is alone has %d records in topic %s", alone, topic)
	return nil
}

// becomeFirst opens the same directory as the first node of a cluster.
func (s *story) becomeFirst(ctx context.Context) error {
	if err := s.start(ctx, 1, ""); err != nil {
		return err
	}
	if err := s.inSync(ctx, 1); err != nil {
		return err
	}
	s.say("node 1 has opened it as a cluster of one, with what it holds")
	return nil
}

// join adds two nodes with empty directories.
func (s *story) join(ctx context.Context) error {
	for node := int32(2); node <= 3; node++ {
		if err := s.start(ctx, node, s.ports[1]); err != nil {
			return err
		}
		if _, err := s.ask(ctx, request{Do: doAdd, Node: node, Address: s.ports[node]}, 1); err != nil {
			return err
		}
		err := s.until(ctx, fmt.Sprintf("node %d takes part", node), func(ctx context.Context) (bool, error) {
			r, err := s.ask(ctx, request{Do: doStatus}, node)
			return len(r.Alive) == int(node), err
		})
		if err != nil {
			return err
		}
		s.say("node %d has joined", node)
	}
	return nil
}

// replicate gives each partition three replicas.
func (s *story) replicate(ctx context.Context) error {
	if _, err := s.ask(ctx, request{Do: doFactor, Factor: 3}, 1, 2, 3); err != nil {
		return err
	}
	if err := s.inSync(ctx, 3); err != nil {
		return err
	}
	s.say("topic %s has three replicas of each partition, all in sync", topic)
	return nil
}

func (s *story) produceEverywhere(ctx context.Context) error {
	for node := int32(1); node <= 3; node++ {
		before := len(s.acked)
		for len(s.acked) < before+each {
			if err := s.produce(ctx, node); err != nil {
				return err
			}
		}
		s.say("node %d was given %d records: all were acknowledged", node, each)
	}
	return nil
}

// loseLeader kills the node that leads while others are given records.
func (s *story) loseLeader(ctx context.Context) error {
	leader, err := s.leader(ctx)
	if err != nil {
		return err
	}
	before := len(s.acked)
	var killed time.Time
	for i := 0; len(s.acked) < before+2*each; i++ {
		if i == 5 {
			// On purpose without a chance to tidy up, and with a request under way.
			time.AfterFunc(2*time.Millisecond, func() { _ = s.nodes[leader].kill() })
			killed = time.Now()
		}
		node := int32(i%3) + 1
		if node == leader {
			continue
		}
		if err := s.produce(ctx, node); err != nil {
			return err
		}
	}
	s.nodes[leader].wait()
	s.nodes[leader] = nil
	now, err := s.leader(ctx)
	if err != nil {
		return err
	}
	s.say("node %d, which led, was killed: node %d leads, and %d more records were acknowledged after %v at most",
		leader, now, len(s.acked)-before, time.Since(killed).Round(100*time.Millisecond))
	if s.lost > 0 {
		s.say("of %d records nobody can say whether they were written: their answer did not come", s.lost)
	}
	return nil
}

// comeBack starts the node again that was killed.
func (s *story) comeBack(ctx context.Context) error {
	for node := int32(1); node <= 3; node++ {
		if s.nodes[node] == nil {
			join := ""
			if node != 1 {
				join = s.ports[1]
			}
			if err := s.start(ctx, node, join); err != nil {
				return err
			}
			if err := s.inSync(ctx, 3); err != nil {
				return err
			}
			s.say("node %d is back, and in sync", node)
		}
	}
	return nil
}

// check compares the copies.
func (s *story) check(ctx context.Context) error {
	var copies [4][]string
	err := s.until(ctx, "the replicas agree", func(ctx context.Context) (bool, error) {
		for node := int32(1); node <= 3; node++ {
			r, err := s.ask(ctx, request{Do: doScan}, node)
			if err != nil {
				return false, err
			}
			copies[node] = r.Records
		}
		return slices.Equal(copies[1], copies[2]) && slices.Equal(copies[2], copies[3]), nil
	})
	if err != nil {
		return err
	}
	times := make(map[int]int)
	for _, line := range copies[1] {
		var at string
		var n int
		if _, err := fmt.Sscan(line, &at, &n); err != nil {
			return fmt.Errorf("%q: %w", line, err)
		}
		times[n]++
	}
	for n := range s.acked {
		if times[n] != 1 {
			return fmt.Errorf("record %d was acknowledged and is there %d times", n, times[n])
		}
	}
	if extra := len(copies[1]) - len(s.acked); extra < 0 || extra > s.lost {
		return fmt.Errorf("%d records, %d acknowledged, %d unknown", len(copies[1]), len(s.acked), s.lost)
	}
	s.say("all %d acknowledged records are there once, and the three replicas are the same", len(s.acked))
	return nil
}

// number is that of the next record: each is sent with one number, once.
func (s *story) number() int {
	s.next++
	return s.next
}

func record(n int) embedlog.Record {
	return embedlog.Record{Value: strconv.AppendInt(nil, int64(n), 10)}
}

// produce has a node take one record. When the node says that nothing was written, it is given
// to another; when nobody can say that, it counts as lost.
func (s *story) produce(ctx context.Context, node int32) error {
	n := s.number()
	r, err := s.ask(ctx, request{Do: doProduce, Number: n}, node, node%3+1, (node+1)%3+1)
	switch {
	case err != nil:
		return err
	case r.Unknown:
		s.lost++
	default:
		s.acked[n] = true
	}
	return nil
}

// leader is who leads partition 0.
func (s *story) leader(ctx context.Context) (leader int32, err error) {
	err = s.until(ctx, "somebody leads", func(ctx context.Context) (bool, error) {
		r, err := s.ask(ctx, request{Do: doStatus}, 3, 2, 1)
		leader = r.Leaders[0]
		return leader > 0 && s.nodes[leader] != nil, err
	})
	return leader, err
}

// inSync waits until each partition has so many replicas in sync. Who leads it knows.
func (s *story) inSync(ctx context.Context, replicas int) error {
	var why []string
	err := s.until(ctx, fmt.Sprintf("%d replicas are in sync", replicas), func(ctx context.Context) (bool, error) {
		good := make(map[int32]bool)
		why = nil
		for node := int32(1); node <= 3; node++ {
			if s.nodes[node] == nil {
				continue
			}
			r, err := s.ask(ctx, request{Do: doStatus}, node)
			if err != nil {
				return false, err
			}
			why = append(why, r.Why...)
			for p, n := range r.InSync {
				good[p] = good[p] || n == replicas
			}
		}
		return good[0] && good[1], nil
	})
	if err != nil {
		err = fmt.Errorf("%w: %s", err, strings.Join(why, "; "))
	}
	return err
}

// until asks again until it is so.
func (s *story) until(ctx context.Context, what string, so func(context.Context) (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("waited %v until %s", patience, what))
	defer cancel()
	for {
		ok, err := so(ctx)
		if err != nil || ok {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// ask has the first of the nodes do something that can.
func (s *story) ask(ctx context.Context, q request, nodes ...int32) (r reply, err error) {
	err = s.until(ctx, "a node does it: "+q.Do, func(context.Context) (bool, error) {
		for _, node := range nodes {
			p := s.nodes[node]
			if p == nil || p.gone {
				continue
			}
			sent := false
			if r, sent, err = p.ask(q); err != nil {
				if sent && q.Do == doProduce {
					return true, nil // r says that nobody knows
				}
				continue
			}
			if !r.Again {
				return true, nil
			}
		}
		return false, nil
	})
	if err != nil && r.Error != "" {
		err = fmt.Errorf("%w: %s", err, r.Error)
	}
	return r, err
}

func (s *story) home(node int32) string { return filepath.Join(s.dir, "node-"+strconv.Itoa(int(node))) }

// start runs a node. Its port is one that was free a moment ago, and stays its own.
func (s *story) start(ctx context.Context, node int32, join string) (err error) {
	if s.ports[node] == "" {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		s.ports[node] = l.Addr().String()
		if err := l.Close(); err != nil {
			return err
		}
	}
	c := nodeConfig{Node: node, Dir: s.home(node), Listen: s.ports[node], Join: join, CA: s.ca.CertPEM()}
	if c.Cert, c.Key, err = s.ca.Issue(node); err == nil {
		s.nodes[node], err = startProcess(ctx, c)
	}
	return err
}
