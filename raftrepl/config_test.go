package raftrepl

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/x/embedlog/internal/engine"
)

func TestConfigIsChecked(t *testing.T) {
	ca, err := NewCA("shop")
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := ca.Issue(1)
	if err != nil {
		t.Fatal(err)
	}
	full := TLS{CA: ca.CertPEM(), Cert: cert, Key: key}
	dir := t.TempDir()
	write := func(name string, b []byte) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	files := TLS{CAFile: write("ca", ca.CertPEM()), CertFile: write("cert", cert), KeyFile: write("key", key)}
	for _, row := range []struct {
		name   string
		change func(c *Config)
		want   string // fields and words, in their order; empty is valid
	}{
		{"loopback without TLS", func(c *Config) {}, ""},
		{"loopback by name", func(c *Config) { c.Listen = "localhost:7001" }, ""},
		{"IPv6 loopback", func(c *Config) { c.Listen = "[::1]:7001" }, ""},
		{"TLS", func(c *Config) { c.Listen, c.Advertise, c.TLS = ":7001", "host:7001", full }, ""},
		{"TLS from files", func(c *Config) { c.Listen, c.TLS = "10.0.0.1:7001", files }, ""},
		{"outside without TLS", func(c *Config) { c.Listen = "10.0.0.1:7001" }, "Listen not loopback"},
		{"outside, allowed", func(c *Config) { c.Listen, c.AllowInsecure = "10.0.0.1:7001", true }, ""},
		{"everywhere without Advertise", func(c *Config) { c.Listen, c.TLS = ":7001", full }, "Advertise no host"},
		{"all at once", func(c *Config) { c.Node, c.Cluster, c.Listen, c.Token = 0, "", "x", strings.Repeat("x", 256) }, "Node Cluster Listen Advertise Token"},
		{"name of a cluster", func(c *Config) { c.Cluster = "a/b" }, "Cluster"},
		{"part of TLS", func(c *Config) { c.TLS = TLS{CA: full.CA} }, "TLS.Cert missing"},
		{"TLS twice", func(c *Config) { c.TLS = full; c.TLS.CAFile = files.CAFile }, "TLS.CA twice"},
		{"no such file", func(c *Config) { c.TLS = files; c.TLS.KeyFile = dir + "/none" }, "TLS.KeyFile none"},
		{"certificate of another node", func(c *Config) { c.Node, c.TLS = 2, full }, "TLS node 1"},
		{"certificate of another cluster", func(c *Config) { c.Cluster, c.TLS = "other", full }, "TLS cluster"},
		{"key of another certificate", func(c *Config) {
			_, other, _ := ca.Issue(1)
			c.TLS = TLS{CA: full.CA, Cert: full.Cert, Key: other}
		}, "TLS key"},
		{"certificate of another authority", func(c *Config) {
			other, _ := NewCA("shop")
			c.TLS = TLS{CA: other.CertPEM(), Cert: full.Cert, Key: full.Key}
		}, "TLS unknown authority"},
		{"peers", func(c *Config) { c.Peers = map[int32]string{1: "a:1", 2: "b:1", 3: "c:1"} }, ""},
		{"peers at one place", func(c *Config) { c.Peers = map[int32]string{2: "b:1", 3: "b:1"} }, "Peers[3] node 2"},
		{"peer 0", func(c *Config) { c.Peers = map[int32]string{0: "b:1"} }, "Peers[0]"},
		{"peer without a port", func(c *Config) { c.Peers = map[int32]string{2: "b"} }, "Peers[2] host:port"},
		{"join", func(c *Config) { c.Join, c.Token = "a:1", "word" }, ""},
		{"join and peers", func(c *Config) { c.Join, c.Peers = "a:1", map[int32]string{2: "b:1"} }, "Join exclude"},
		{"lease longer than the timeout", func(c *Config) {
			c.Timing = Timing{Heartbeat: time.Second, Election: time.Second, LeaderLease: 2 * time.Second, CommitTimeout: time.Second}
		}, "Timing"},
	} {
		c := Config{Node: 1, Cluster: "shop", Listen: "127.0.0.1:7001"}
		row.change(&c)
		_, err := New(c)
		if row.want == "" {
			if err != nil {
				t.Errorf("%s: %v", row.name, err)
			}
			continue
		}
		var bad *ConfigError
		if !errors.As(err, &bad) {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		rest := err.Error()
		for word := range strings.FieldsSeq(row.want) {
			_, behind, ok := strings.Cut(rest, word)
			if !ok {
				t.Errorf("%s: %q is not in %q", row.name, word, rest)
				break
			}
			rest = behind
		}
	}
}

// Nodes that begin a cluster together come to the same id, and others to another.
func TestClusterIDIsTheSameOnAllNodes(t *testing.T) {
	ca, err := NewCA("shop")
	if err != nil {
		t.Fatal(err)
	}
	other, err := NewCA("shop")
	if err != nil {
		t.Fatal(err)
	}
	of := func(node int32, ca *CA, peers map[int32]string) engine.Bootstrap {
		cert, key, err := ca.Issue(node)
		if err != nil {
			t.Fatal(err)
		}
		n, err := New(Config{Node: node, Cluster: "shop", Listen: "127.0.0.1:7001", TLS: TLS{CA: ca.CertPEM(), Cert: cert, Key: key}, Peers: peers})
		if err != nil {
			t.Fatal(err)
		}
		return n.Bootstrap()
	}
	peers := map[int32]string{1: "a:1", 2: "b:1", 3: "c:1"}
	one, two := of(1, ca, peers), of(2, ca, map[int32]string{1: "a:1", 3: "c:1"})
	if one.Cluster.IsZero() || one.Cluster != two.Cluster || !slices.Equal(one.Initial, two.Initial) || len(one.Initial) != 3 {
		t.Errorf("node 1 begins %+v, node 2 %+v", one, two)
	}
	if of(1, other, peers).Cluster == one.Cluster {
		t.Error("clusters of two authorities have the same id")
	}
	if alone := of(1, ca, nil); !alone.Cluster.IsZero() || !slices.Equal(alone.Initial, []int32{1}) {
		t.Errorf("a node alone begins %+v", alone)
	}
}

func TestAuthorityIsLoaded(t *testing.T) {
	ca, err := NewCA("shop")
	if err != nil {
		t.Fatal(err)
	}
	key, err := ca.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	again, err := LoadCA(ca.CertPEM(), key)
	if err != nil || again.Cluster() != "shop" {
		t.Fatalf("%v, %v", again, err)
	}
	cert, nodeKey, err := again.Issue(7)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newTLS(ca.CertPEM(), cert, nodeKey, "shop", 7); err != nil {
		t.Error(err)
	}
	if _, err := LoadCA(cert, nodeKey); err == nil {
		t.Error("a node's certificate is an authority")
	}
	if _, _, err := ca.Issue(0); err == nil {
		t.Error("node 0 has a certificate")
	}
	for _, name := range []string{"", "a b", "a/b", "ü", strings.Repeat("x", 64)} {
		if _, err := NewCA(name); err == nil {
			t.Errorf("a cluster is named %q", name)
		}
	}
}
