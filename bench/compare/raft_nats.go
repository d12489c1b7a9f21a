package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/x/embedlog/bench/internal/raftload"
)

// natsRoutePort is the port that NATS servers speak to each other on.
const natsRoutePort = "-route"

func mkdir(dir string) error { return os.MkdirAll(dir, 0o700) }

// natsNode is an embedded nats-server of a cluster.
type natsNode struct {
	srv *server.Server
	c   *raftload.NodeConfig
}

func openNATSNode(c *raftload.NodeConfig) (raftload.Server, error) {
	port := func(name string) (string, int, error) {
		host, text, err := net.SplitHostPort(c.Addresses[name])
		if err != nil {
			return "", 0, err
		}
		n, err := strconv.Atoi(text)
		return host, n, err
	}
	own := strconv.Itoa(int(c.Node))
	host, client, err := port(own)
	if err != nil {
		return nil, err
	}
	_, route, err := port(own + natsRoutePort)
	if err != nil {
		return nil, err
	}
	o := &server.Options{
		ServerName: "node-" + own, Host: host, Port: client, NoSigs: true, NoLog: true,
		JetStream: true, StoreDir: filepath.Join(c.Dir, "jetstream"), SyncAlways: true,
		Cluster: server.ClusterOpts{Name: "compare", Host: host, Port: route},
	}
	for n := 1; n <= c.Nodes; n++ {
		if n != int(c.Node) {
			o.Routes = append(o.Routes, &url.URL{Scheme: "nats", Host: c.Addresses[strconv.Itoa(n)+natsRoutePort]})
		}
	}
	srv, err := server.NewServer(o)
	if err != nil {
		return nil, err
	}
	srv.Start()
	if !srv.ReadyForConnections(20 * time.Second) {
		return nil, errors.New("the server did not get ready")
	}
	return &natsNode{srv, c}, nil
}

func (n *natsNode) Close() error {
	n.srv.Shutdown()
	n.srv.WaitForShutdown()
	return nil
}

func natsPlace(l *raftload.Load) (stream, subject string) { return l.Place(), "r." + l.Place() }

func (n *natsNode) Do(ctx context.Context, op string, in json.RawMessage) (any, error) {
	var l raftload.Load
	if err := json.Unmarshal(in, &l); err != nil {
		return nil, err
	}
	stream, subject := natsPlace(&l)
	switch op {
	case raftload.OpPrepare:
		return nil, n.prepare(ctx, stream, subject)
	case raftload.OpLeads:
		return n.leads(ctx, stream)
	case raftload.OpLoad:
		return l.Run(ctx, func() (raftload.Producer, error) { return n.producer(subject, &l) })
	}
	return nil, fmt.Errorf("unknown operation %q", op)
}

func (n *natsNode) connect(o ...jetstream.JetStreamOpt) (*nats.Conn, jetstream.JetStream, error) {
	nc, err := nats.Connect("", nats.InProcessServer(n.srv))
	if err != nil {
		return nil, nil, err
	}
	js, err := jetstream.New(nc, o...)
	if err != nil {
		nc.Close()
	}
	return nc, js, err
}

func (n *natsNode) prepare(ctx context.Context, stream, subject string) error {
	nc, js, err := n.connect()
	if err != nil {
		return err
	}
	defer nc.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err = js.CreateOrUpdateStream(ctx, jetstream.StreamConfig{Name: stream, Subjects: []string{subject}, Storage: jetstream.FileStorage, Replicas: n.c.Nodes})
	return err
}

// leads says whether this server leads the stream, and the others are up to date.
func (n *natsNode) leads(ctx context.Context, stream string) (bool, error) {
	if !n.srv.JetStreamIsStreamLeader(server.DEFAULT_GLOBAL_ACCOUNT, stream) {
		return false, nil
	}
	nc, js, err := n.connect()
	if err != nil {
		return false, err
	}
	defer nc.Close()
	s, err := js.Stream(ctx, stream)
	if err != nil {
		return false, err
	}
	info, err := s.Info(ctx)
	if err != nil || info.Cluster == nil || len(info.Cluster.Replicas) != n.c.Nodes-1 {
		return false, err
	}
	for _, r := range info.Cluster.Replicas {
		if !r.Current {
			return false, nil
		}
	}
	return true, nil
}

// natsReplicated publishes into a stream. All its Sends have the same done.
type natsReplicated struct {
	nc      *nats.Conn
	js      jetstream.JetStream
	subject string
	done    atomic.Pointer[func(error)]
}

func (n *natsNode) producer(subject string, l *raftload.Load) (raftload.Producer, error) {
	p := &natsReplicated{subject: subject}
	answered := func(err error) {
		if done := p.done.Load(); done != nil {
			(*done)(err)
		}
	}
	var err error
	p.nc, p.js, err = n.connect(jetstream.WithPublishAsyncMaxPending(max(l.Window, 1)+1),
		jetstream.WithPublishAsyncAckHandler(func(jetstream.JetStream, *nats.Msg, *jetstream.PubAck) { answered(nil) }),
		jetstream.WithPublishAsyncErrHandler(func(_ jetstream.JetStream, _ *nats.Msg, err error) { answered(err) }))
	return p, err
}

func (p *natsReplicated) Produce(ctx context.Context, value []byte) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := p.js.Publish(ctx, p.subject, value)
	return err
}

func (p *natsReplicated) Sender(done func(error)) func([]byte) error {
	p.done.Store(&done)
	return func(value []byte) error {
		_, err := p.js.PublishAsync(p.subject, value)
		return err
	}
}

func (p *natsReplicated) Close() error {
	p.nc.Close()
	return nil
}
