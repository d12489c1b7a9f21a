package raftrepl

import (
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/x/embedlog/internal/engine"
)

// Config is one node of a cluster. New copies it.
//
// A cluster begins in one of two ways. Either some nodes with empty directories name each
// other in Peers, all of them the same; or one node without Peers begins alone, with an
// empty directory or one that was used without a cluster. Further nodes come with Join and an
// empty directory.
type Config struct {
	// Node is this node's number, from 1 on: Kafka's broker id. It stays with the directory.
	Node int32
	// Cluster is the cluster's name, the same on all nodes: letters, digits, '-' and '.'. It is in
	// the certificates.
	Cluster string
	// Listen is what peers are listened for on, host:port. Outside of loopback it needs TLS, or
	// AllowInsecure.
	Listen string
	// Advertise is where peers find this node, host:port; empty is Listen.
	Advertise string
	// Peers are the nodes that begin the cluster together, by number, and where they listen. This
	// node may be among them. Once the metadata knows where a node is, that counts.
	Peers map[int32]string
	// Join is where a node of the cluster listens that this one is to become a member of. It
	// announces this node; the cluster takes it in with AddNode.
	Join string
	// Token is a word that nodes must have in common when they meet for the first time, beside
	// their certificates. Empty asks for none.
	Token string
	// TLS is how nodes know each other.
	TLS TLS
	// AllowInsecure lets a node listen outside of loopback without TLS: whoever reaches it
	// reads and writes everything.
	AllowInsecure bool
	// Timing is how fast a lost leader is replaced; zero is DefaultTiming. The same on all nodes.
	Timing Timing
	// CacheBytes is how much of the newest entries is kept in memory for followers. Zero is 16 MiB.
	CacheBytes int64
	// Network replaces TCP. For tests.
	Network Network
	// Logger is where the node says what happens; nil is the database's.
	Logger *slog.Logger
}

// TLS is three PEM texts, each given as such or as a file's name: the certificate of the cluster's
// authority, or of several, and this node's own certificate and key. See NewCA. Files are read again when
// they have changed, if all three are files: connections that begin later use what is in them.
type TLS struct {
	CA, Cert, Key             []byte
	CAFile, CertFile, KeyFile string
}

func (t *TLS) isZero() bool {
	return len(t.CA)+len(t.Cert)+len(t.Key)+len(t.CAFile)+len(t.CertFile)+len(t.KeyFile) == 0
}

// ConfigError is one field that is not valid, and why.
type ConfigError struct {
	Field  string
	Value  string
	Reason string
}

func (e *ConfigError) Error() string {
	if e.Value == "" {
		return fmt.Sprintf("raftrepl: %s %s", e.Field, e.Reason)
	}
	return fmt.Sprintf("raftrepl: %s %q %s", e.Field, e.Value, e.Reason)
}

// validate fills in defaults, reads files and reports every bad field.
func (c *Config) validate() (*tlsPair, error) {
	var bad []error
	no := func(field, value, format string, args ...any) {
		bad = append(bad, &ConfigError{field, value, fmt.Sprintf(format, args...)})
	}
	if c.Node < 1 {
		no("Node", strconv.Itoa(int(c.Node)), "must be 1 or more")
	}
	if err := checkCluster(c.Cluster); err != nil {
		no("Cluster", "", "%v", err)
	}
	host, err := checkAddress(c.Listen, true)
	if err != nil {
		no("Listen", c.Listen, "%v", err)
	}
	if c.Advertise == "" {
		c.Advertise = c.Listen
	}
	if _, err := checkAddress(c.Advertise, false); err != nil {
		no("Advertise", c.Advertise, "%v: it is where peers find this node", err)
	}
	c.checkPeers(no)
	if c.Timing == (Timing{}) {
		c.Timing = DefaultTiming
	}
	if t := c.Timing; t.Heartbeat <= 0 || t.Election < t.Heartbeat || t.LeaderLease <= 0 || t.LeaderLease > t.Heartbeat || t.CommitTimeout <= 0 {
		no("Timing", fmt.Sprintf("%+v", t), "must have 0 < LeaderLease <= Heartbeat <= Election, and a CommitTimeout")
	}
	if len(c.Token) > 255 {
		no("Token", "", "has %d bytes, at most 255 are allowed", len(c.Token))
	}
	if len(bad) > 0 {
		return nil, errors.Join(bad...)
	}
	if c.TLS.isZero() {
		if !isLoopback(host) && !c.AllowInsecure {
			no("Listen", c.Listen, "is not loopback: it needs TLS, or AllowInsecure")
		}
		return nil, errors.Join(bad...)
	}
	files := c.TLS.names()
	stamps, _ := files.look()
	if err := c.TLS.read(); err != nil {
		return nil, err
	}
	pair, err := newTLS(c.TLS.CA, c.TLS.Cert, c.TLS.Key, c.Cluster, c.Node)
	if err != nil {
		no("TLS", "", "%v", err)
	} else {
		pair.files, pair.stamps = files, stamps
	}
	return pair, errors.Join(bad...)
}

func (c *Config) checkPeers(no func(field, value, format string, args ...any)) {
	where := map[string]int32{}
	for _, node := range c.initial() {
		address, ok := c.Peers[node]
		field := fmt.Sprintf("Peers[%d]", node)
		switch _, err := checkAddress(address, false); {
		case !ok: // this node
		case node < 1:
			no(field, address, "is no node: nodes are numbered from 1")
		case err != nil:
			no(field, address, "%v", err)
		case where[address] != 0:
			no(field, address, "is node %d's, too", where[address])
		default:
			where[address] = node
		}
	}
	if c.Join == "" {
		return
	}
	if _, err := checkAddress(c.Join, false); err != nil {
		no("Join", c.Join, "%v", err)
	}
	if len(c.Peers) > 0 {
		no("Join", c.Join, "and Peers exclude each other: a node joins a cluster, or begins one")
	}
}

// initial are the nodes that begin the cluster.
func (c *Config) initial() []int32 {
	if c.Join != "" {
		return nil
	}
	list := []int32{c.Node}
	for node := range c.Peers {
		if node != c.Node {
			list = append(list, node)
		}
	}
	slices.Sort(list)
	return list
}

func (t *TLS) read() error {
	for _, f := range []struct {
		field string
		text  *[]byte
		name  string
	}{{"CA", &t.CA, t.CAFile}, {"Cert", &t.Cert, t.CertFile}, {"Key", &t.Key, t.KeyFile}} {
		switch {
		case len(*f.text) > 0 && f.name != "":
			return &ConfigError{"TLS." + f.field, "", "is given twice: as text and as a file"}
		case len(*f.text) == 0 && f.name == "":
			return &ConfigError{"TLS." + f.field, "", "is missing: authority, certificate and key belong together"}
		case f.name != "":
			b, err := os.ReadFile(f.name)
			if err != nil {
				return &ConfigError{"TLS." + f.field + "File", f.name, err.Error()}
			}
			*f.text = b
		}
	}
	return nil
}

// clusterID is the id of a cluster whose nodes begin it together: all of them come to the same.
func (c *Config) clusterID() (id engine.TopicID) {
	h := sha256.New()
	fmt.Fprintf(h, "embedlog cluster\n%s\n", c.Cluster)
	if block, _ := pem.Decode(c.TLS.CA); block != nil {
		h.Write(block.Bytes)
	}
	copy(id[:], h.Sum(nil))
	id[0] &= 0x7f // its text does not begin with '-'
	return id
}

func checkAddress(address string, listen bool) (host string, err error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", errors.New("is not host:port")
	}
	n, err := strconv.Atoi(port)
	if err != nil || n < 0 || n > 65535 || n == 0 && !listen {
		return "", fmt.Errorf("has port %q", port)
	}
	if host == "" && !listen {
		return "", errors.New("has no host")
	}
	return host, nil
}

// isLoopback judges the text, as the Kafka listener does: a name may mean another address tomorrow.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}
