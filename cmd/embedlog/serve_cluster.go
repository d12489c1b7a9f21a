package main

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/x/embedlog/raftrepl"
)

// clusterConfig is what serve is told of the cluster that the directory is a part of.
type clusterConfig struct {
	node              int64
	name              string
	peers             []string // NODE=HOST:PORT each
	join              string
	token             string
	listen, advertise string
	ca, cert, key     string
	timing            string // fast or default; empty is default
	factor            int64
	preferred         time.Duration
}

func (c *clusterConfig) keys() []configKey {
	return []configKey{
		{"cluster.node", "node", "this node's number in a cluster, from 1 on; 0 is no cluster", (*intValue)(&c.node)},
		{"cluster.name", "cluster", "the cluster's name, the same on all nodes", (*textValue)(&c.name)},
		{"cluster.peers", "peers", "nodes that begin the cluster together, 1=HOST:PORT,2=HOST:PORT, the same on all", &listValue{&c.peers, ","}},
		{"cluster.join", "join", "HOST:PORT of a node whose cluster this one, which is empty, joins", (*textValue)(&c.join)},
		{"cluster.token", "token", "a word that nodes must have in common when they meet for the first time", (*textValue)(&c.token)},
		{"cluster.peer-listen", "peer-listen", "HOST:PORT for peers; without: this node's among the peers", (*textValue)(&c.listen)},
		{"cluster.peer-advertise", "peer-advertise", "HOST:PORT that peers are told, where it is another one", (*textValue)(&c.advertise)},
		{"cluster.peer-ca", "peer-ca", "PEM file with the cluster's CA: see embedlog cluster certs", (*textValue)(&c.ca)},
		{"cluster.peer-cert", "peer-cert", "PEM file with this node's certificate", (*textValue)(&c.cert)},
		{"cluster.peer-key", "peer-key", "PEM file with the certificate's key", (*textValue)(&c.key)},
		{"cluster.timing", "timing", "how soon a lost leader is replaced: default (3s) or fast (1s); the same on all", (*textValue)(&c.timing)},
		{"cluster.replication-factor", "replication-factor", "replicas of topics that say nothing; 0 is 3, or as many as there are nodes", (*intValue)(&c.factor)},
		{"cluster.preferred-leaders", "preferred-leaders", "for how long a preferred leader is in sync before it is given its partitions back; 0s is 30s, less is never", (*durationValue)(&c.preferred)},
	}
}

// said says that there is to be a cluster.
func (c *clusterConfig) said() bool {
	return c.node != 0 || c.factor != 0 || c.preferred != 0 || len(c.peers) > 0 ||
		c.name+c.join+c.token+c.listen+c.advertise+c.ca+c.cert+c.key+c.timing != ""
}

// replication is the configuration of the node; nil where none was said.
func (c *clusterConfig) replication(allowInsecure bool) (*raftrepl.Config, error) {
	if !c.said() {
		return nil, nil
	}
	var bad []error
	no := func(format string, args ...any) { bad = append(bad, fmt.Errorf(format, args...)) }
	switch {
	case c.node == 0:
		no("cluster.node is missing: without --node there is no cluster, and nothing else of it counts")
	case c.node < 1 || c.node > maxNode:
		no("cluster.node is %d: nodes are numbered from 1 on", c.node)
	}
	if c.name == "" {
		no("cluster.name is missing: --cluster NAME, the same on all nodes")
	}
	peers, err := parsePeers(c.peers)
	if err != nil {
		bad = append(bad, err)
	}
	listen := c.listen
	if listen == "" {
		listen = peers[int32(c.node)]
	}
	switch host, port, err := net.SplitHostPort(listen); {
	case listen == "" && len(peers) > 0 && c.node > 0:
		no("cluster.peer-listen is missing, and node %d is not among the peers", c.node)
	case listen == "":
		no("cluster.peer-listen is missing: --peer-listen HOST:PORT is where other nodes come to")
	case err == nil && host == "":
		listen = net.JoinHostPort("127.0.0.1", port)
	}
	advertise := c.advertise
	if advertise == "" && c.listen != "" {
		advertise = peers[int32(c.node)]
	}
	timing := raftrepl.DefaultTiming
	switch c.timing {
	case "", "default":
	case "fast":
		timing = raftrepl.FastTiming
	default:
		no("cluster.timing is default or fast, not %q", c.timing)
	}
	if n := len(c.ca) * len(c.cert) * len(c.key); n == 0 && c.ca+c.cert+c.key != "" {
		no("cluster.peer-ca, cluster.peer-cert and cluster.peer-key belong together")
	}
	if c.factor < 0 || c.factor > maxFactor {
		no("cluster.replication-factor is %d: it is between 0 and %d", c.factor, maxFactor)
	}
	if len(bad) > 0 {
		return nil, errors.Join(bad...)
	}
	return &raftrepl.Config{
		Node: int32(c.node), Cluster: c.name, Listen: listen, Advertise: advertise, Peers: peers, Join: c.join, Token: c.token,
		TLS:           raftrepl.TLS{CAFile: c.ca, CertFile: c.cert, KeyFile: c.key},
		AllowInsecure: allowInsecure, Timing: timing,
	}, nil
}

const (
	maxNode   = 1<<31 - 1
	maxFactor = 15
)

// parsePeers reads NODE=HOST:PORT, each node once.
func parsePeers(list []string) (map[int32]string, error) {
	peers := make(map[int32]string)
	for _, s := range list {
		number, address, ok := strings.Cut(s, "=")
		n, err := strconv.ParseInt(number, 10, 32)
		switch {
		case !ok || err != nil || n < 1 || address == "":
			return nil, fmt.Errorf("cluster.peers has %q: a peer is NODE=HOST:PORT, such as 1=log1.example.com:9192", s)
		case peers[int32(n)] != "":
			return nil, fmt.Errorf("cluster.peers has node %d twice", n)
		}
		peers[int32(n)] = address
	}
	return peers, nil
}

// newNode makes the node, which opens nothing yet. The error names all that is wrong.
func (c *clusterConfig) newNode(allowInsecure bool) (*raftrepl.Node, string, error) {
	cfg, err := c.replication(allowInsecure)
	if err != nil || cfg == nil {
		return nil, "", err
	}
	node, err := raftrepl.New(*cfg)
	if err != nil {
		return nil, "", errors.New(clusterNames.Replace(err.Error()))
	}
	where := cfg.Advertise
	if where == "" {
		where = cfg.Listen
	}
	return node, where, nil
}

// clusterNames are the names that things of a node have here, for those they have in Go.
var clusterNames = strings.NewReplacer(
	"raftrepl: Node ", "cluster.node ", "raftrepl: Cluster ", "cluster.name: ", "raftrepl: Listen ", "cluster.peer-listen ",
	"raftrepl: Advertise ", "cluster.peer-advertise ", "raftrepl: Peers[", "cluster.peers[", "raftrepl: Join ", "cluster.join ", "raftrepl: Token ", "cluster.token ",
	"raftrepl: TLS.CAFile ", "cluster.peer-ca ", "raftrepl: TLS.CertFile ", "cluster.peer-cert ", "raftrepl: TLS.KeyFile ", "cluster.peer-key ",
	"raftrepl: TLS ", "cluster.peer-cert: ", "it needs TLS, or AllowInsecure",
	"it needs --peer-ca, --peer-cert and --peer-key (embedlog cluster certs makes them), or --allow-insecure",
)
