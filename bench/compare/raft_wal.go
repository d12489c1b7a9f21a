package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"

	"github.com/x/embedlog/bench/internal/raftload"
)

// raftNode is a node of hashicorp/raft on raft-wal. All loads share the one log.
type raftNode struct {
	raft *raft.Raft
	log  *wal.WAL
	net  *raft.NetworkTransport
	of   int // nodes
}

// nothing is an FSM that keeps nothing: what counts here is the log.
type nothing struct{}

func (nothing) Apply(*raft.Log) any                 { return nil }
func (nothing) ApplyBatch(logs []*raft.Log) []any   { return make([]any, len(logs)) }
func (nothing) Snapshot() (raft.FSMSnapshot, error) { return nil, errors.New("none is made") }
func (nothing) Restore(r io.ReadCloser) error       { return r.Close() }

func openRaftNode(c *raftload.NodeConfig) (raftload.Server, error) {
	if err := mkdir(filepath.Join(c.Dir, "wal")); err != nil {
		return nil, err
	}
	l, err := wal.Open(filepath.Join(c.Dir, "wal"))
	if err != nil {
		return nil, err
	}
	own := c.Addresses[strconv.Itoa(int(c.Node))]
	addr, err := net.ResolveTCPAddr("tcp", own)
	if err != nil {
		return nil, err
	}
	silent := hclog.NewNullLogger()
	t, err := raft.NewTCPTransportWithLogger(own, addr, 3, 10*time.Second, silent)
	if err != nil {
		return nil, err
	}
	config := raft.DefaultConfig()
	config.LocalID, config.Logger, config.NoLegacyTelemetry = raft.ServerID(strconv.Itoa(int(c.Node))), silent, true
	config.MaxAppendEntries, config.BatchApplyCh = 1024, true
	config.SnapshotThreshold, config.SnapshotInterval = 1<<60, 24*time.Hour
	r, err := raft.NewRaft(config, nothing{}, l, l, raft.NewInmemSnapshotStore(), t)
	if err != nil {
		return nil, err
	}
	if c.Node == 1 {
		var all raft.Configuration
		for n := 1; n <= c.Nodes; n++ {
			all.Servers = append(all.Servers, raft.Server{ID: raft.ServerID(strconv.Itoa(n)), Address: raft.ServerAddress(c.Addresses[strconv.Itoa(n)])})
		}
		if err := r.BootstrapCluster(all).Error(); err != nil {
			return nil, err
		}
	}
	return &raftNode{raft: r, log: l, net: t, of: c.Nodes}, nil
}

func (n *raftNode) Close() error {
	return errors.Join(n.raft.Shutdown().Error(), n.net.Close(), n.log.Close())
}

func (n *raftNode) Do(ctx context.Context, op string, in json.RawMessage) (any, error) {
	switch op {
	case raftload.OpPrepare:
		return nil, nil
	case raftload.OpLeads:
		return n.raft.State() == raft.Leader, nil
	case raftload.OpLoad:
		var l raftload.Load
		if err := json.Unmarshal(in, &l); err != nil {
			return nil, err
		}
		return l.Run(ctx, func() (raftload.Producer, error) { return newRaftProducer(n.raft, &l), nil })
	}
	return nil, fmt.Errorf("unknown operation %q", op)
}

// raftProducer waits for its futures in their order.
type raftProducer struct {
	raft  *raft.Raft
	sent  chan raftSent
	ended sync.WaitGroup
}

type raftSent struct {
	future raft.ApplyFuture
	done   func(error)
}

func newRaftProducer(r *raft.Raft, l *raftload.Load) *raftProducer {
	p := &raftProducer{raft: r, sent: make(chan raftSent, max(l.Window, 1))}
	p.ended.Go(func() {
		for s := range p.sent {
			s.done(s.future.Error())
		}
	})
	return p
}

func (p *raftProducer) Produce(_ context.Context, value []byte) error {
	return p.raft.Apply(value, 0).Error()
}

func (p *raftProducer) Sender(done func(error)) func([]byte) error {
	return func(value []byte) error {
		p.sent <- raftSent{p.raft.Apply(value, 0), done}
		return nil
	}
}

func (p *raftProducer) Close() error {
	close(p.sent)
	p.ended.Wait()
	return nil
}
