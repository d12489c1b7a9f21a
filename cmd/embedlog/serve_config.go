package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/x/embedlog"
	"github.com/x/embedlog/kafka"
)

// serveConfig is what serve is told, by flags and a file.
type serveConfig struct {
	data          string
	http, unix    string
	allowInsecure bool
	lockTimeout   time.Duration
	stopTimeout   time.Duration
	kafka         []*listenerConfig

	cluster clusterConfig
	peer    string // where peers find this node: options says it

	authorize       bool
	superUsers      []string
	everyoneIfNoACL bool

	autoCreate       bool
	maxBytes         int64
	openFiles        int64
	offsetsRetention time.Duration
	maintenance      time.Duration
	partitions       int64
	topicDefaults    map[string]string

	connections, connectionsPerIP int64
	frameBytes, memoryBytes       int64
	handshakeBytes, fetchBytes    int64
	connectionMemory              int64
	idleTimeout, frameTimeout     time.Duration
}

// listenerConfig is one address for Kafka's clients.
type listenerConfig struct {
	listen, advertise string
	cert, key, ca     string
	certUser          string // dn or cn; empty is dn

	sasl            bool
	mechanisms      []string
	plainWithoutTLS bool
	sessionLifetime time.Duration
}

// configKey is one thing that can be said: in the file under its name, which has its
// section before a dot, and where it has a flag, there.
type configKey struct {
	name, flag string
	doc        string
	value      configValue
}

// configValue is where a value goes.
type configValue interface {
	// set takes what a TOML file has for it: a string, int64, float64 or bool.
	set(v any) error
	// text is the value as TOML.
	text() string
}

func (c *serveConfig) keys() []configKey {
	return slices.Concat(c.ownKeys(), c.cluster.keys(), c.boundKeys())
}

func (c *serveConfig) ownKeys() []configKey {
	return []configKey{
		{"data", "", "the database's directory", (*textValue)(&c.data)},
		{"http", "http", "HOST:PORT of metrics and health: /metrics, /healthz, /readyz", (*textValue)(&c.http)},
		{"unix", "unix", "PATH of another socket that takes commands, besides DIR/sock", (*textValue)(&c.unix)},
		{"allow-insecure", "allow-insecure", "listen outside of loopback without TLS and authentication", (*boolValue)(&c.allowInsecure)},
		{"lock-timeout", "lock-timeout", "how long to wait for whoever has the directory open", (*durationValue)(&c.lockTimeout)},
		{"shutdown-timeout", "shutdown-timeout", "how long clients may take to hear their answers when it ends", (*durationValue)(&c.stopTimeout)},
		{"authorize", "authorize", "hold Kafka's clients to ACLs: what none allows is denied", (*boolValue)(&c.authorize)},
		{"super-users", "super-users", "who may do everything, such as User:admin; several with ; between", &listValue{&c.superUsers, ";"}},
		{"everyone-if-no-acl", "", "what no ACL is about is allowed to everybody", (*boolValue)(&c.everyoneIfNoACL)},
	}
}

func (c *serveConfig) boundKeys() []configKey {
	return []configKey{
		{"database.auto-create-topics", "", "make topics that clients ask for by name", (*boolValue)(&c.autoCreate)},
		{"database.max-bytes", "", "the most that everything may take on the disk, in bytes; 0 is no bound", (*intValue)(&c.maxBytes)},
		{"database.open-files", "", "the most files that are open at once; 0 is 256", (*intValue)(&c.openFiles)},
		{"database.offsets-retention", "", "how long offsets of a group without members are kept; 0s is 7 days", (*durationValue)(&c.offsetsRetention)},
		{"database.maintenance-interval", "", "how often retention and compaction are looked after; 0s is 30s", (*durationValue)(&c.maintenance)},
		{"limits.connections", "", "connections of clients; 0 is 1000, -1 is no bound", (*intValue)(&c.connections)},
		{"limits.connections-per-ip", "", "those from one address; 0 is 256, -1 is no bound", (*intValue)(&c.connectionsPerIP)},
		{"limits.frame-bytes", "", "the largest request; 0 is 100 MiB", (*intValue)(&c.frameBytes)},
		{"limits.memory-bytes", "", "the memory of all requests together; 0 is 256 MiB", (*intValue)(&c.memoryBytes)},
		{"limits.connection-memory-bytes", "", "the memory of one connection's requests; 0 is frame-bytes, or 16 MiB where that is more", (*intValue)(&c.connectionMemory)},
		{"limits.handshake-frame-bytes", "", "the largest request before a client has said who it is; 0 is 1 MiB", (*intValue)(&c.handshakeBytes)},
		{"limits.fetch-bytes", "", "the most records of one fetch; 0 is 55 MiB", (*intValue)(&c.fetchBytes)},
		{"limits.frame-timeout", "", "how long a peer may take for a request that has begun, or an answer; 0s is 30s", (*durationValue)(&c.frameTimeout)},
		{"limits.idle-timeout", "", "after what time without a request a connection is closed; 0s is 10m", (*durationValue)(&c.idleTimeout)},
	}
}

func (l *listenerConfig) keys() []configKey {
	return []configKey{
		{"listen", "kafka", "HOST:PORT for Kafka's clients; port 0 is any that is free", (*textValue)(&l.listen)},
		{"advertise", "advertise", "HOST:PORT that clients are told, where it is another one", (*textValue)(&l.advertise)},
		{"tls-cert", "tls-cert", "PEM file with the server's certificate: TLS", (*textValue)(&l.cert)},
		{"tls-key", "tls-key", "PEM file with the certificate's key", (*textValue)(&l.key)},
		{"tls-client-ca", "tls-client-ca", "PEM file with the CA of clients, which must have a certificate", (*textValue)(&l.ca)},
		{"tls-user", "tls-user", "who a client's certificate is: dn, User:CN=alice,O=x, or cn, User:alice", (*textValue)(&l.certUser)},
		{"sasl", "sasl", "clients have a name and a password: users of the database", (*boolValue)(&l.sasl)},
		{"sasl-mechanisms", "sasl-mechanisms", "SCRAM-SHA-512, SCRAM-SHA-256, PLAIN; without: PLAIN with TLS only", &listValue{&l.mechanisms, ","}},
		{"sasl-plain-without-tls", "", "PLAIN may be among them without TLS: passwords are to be read by all", (*boolValue)(&l.plainWithoutTLS)},
		{"sasl-session-lifetime", "", "after what time clients have to say it again; 0s is never", (*durationValue)(&l.sessionLifetime)},
	}
}

type (
	textValue     string
	boolValue     bool
	intValue      int64
	durationValue time.Duration
)

func (v *textValue) set(x any) error {
	s, ok := x.(string)
	if !ok {
		return errors.New("must be a text in quotes")
	}
	*v = textValue(s)
	return nil
}

func (v *textValue) text() string { return tomlText(string(*v)) }

func (v *boolValue) set(x any) error {
	b, ok := x.(bool)
	if !ok {
		return errors.New("must be true or false")
	}
	*v = boolValue(b)
	return nil
}

func (v *boolValue) text() string { return strconv.FormatBool(bool(*v)) }

func (v *intValue) set(x any) error {
	n, ok := x.(int64)
	if !ok {
		return errors.New("must be a whole number")
	}
	*v = intValue(n)
	return nil
}

func (v *intValue) text() string { return strconv.FormatInt(int64(*v), 10) }

func (v *durationValue) set(x any) error {
	s, _ := x.(string)
	d, err := time.ParseDuration(s)
	if err != nil {
		return errors.New(`must be a duration in quotes, such as "30s" or "-1s"`)
	}
	*v = durationValue(d)
	return nil
}

func (v *durationValue) text() string { return tomlText(time.Duration(*v).String()) }

// listValue is texts: an array in the file, one text with a separator as a flag.
type listValue struct {
	to        *[]string
	separator string
}

func (v *listValue) set(x any) error {
	var list []string
	switch x := x.(type) {
	case string:
		for _, s := range strings.Split(x, v.separator) {
			if s = strings.TrimSpace(s); s != "" {
				list = append(list, s)
			}
		}
	case []any:
		for _, e := range x {
			s, ok := e.(string)
			if !ok {
				return errors.New(`must be texts, such as ["a", "b"]`)
			}
			list = append(list, s)
		}
	default:
		return errors.New(`must be texts, such as ["a", "b"]`)
	}
	*v.to = list
	return nil
}

func (v *listValue) text() string {
	quoted := make([]string, len(*v.to))
	for i, s := range *v.to {
		quoted[i] = tomlText(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

// tomlText is a string in TOML, whose escapes are those of JSON.
func tomlText(s string) string {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string always encodes
	return strings.ReplaceAll(strings.TrimSuffix(b.String(), "\n"), "\x7f", `\u007f`)
}

// maxConfigBytes bounds the file: one that is larger is something else.
const maxConfigBytes = 1 << 20

// readConfig puts what a file says into c. Its error names everything that is wrong.
func (c *serveConfig) readConfig(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return usagef("--config: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxConfigBytes+1))
	if err != nil {
		return usagef("--config: %w", err)
	}
	if len(text) > maxConfigBytes {
		return usagef("--config: %s has more than %d bytes", path, maxConfigBytes)
	}
	if err := c.parse(text); err != nil {
		return usagef("%s: %w", path, err)
	}
	return nil
}

func (c *serveConfig) parse(text []byte) error {
	var file map[string]any
	if err := toml.Unmarshal(text, &file); err != nil {
		var at *toml.DecodeError
		if errors.As(err, &at) {
			row, column := at.Position()
			return fmt.Errorf("line %d, column %d: %w", row, column, err)
		}
		return err
	}
	var bad []error
	if list, ok := file["kafka"]; ok {
		bad = append(bad, c.parseListeners(list)...)
		delete(file, "kafka")
	}
	if defaults, ok := file["topic-defaults"]; ok {
		bad = append(bad, c.parseDefaults(defaults)...)
		delete(file, "topic-defaults")
	}
	flat := make(map[string]any)
	sections := []string{"cluster", "database", "limits"}
	for name, v := range file {
		table, ok := v.(map[string]any)
		if !ok || !slices.Contains(sections, name) {
			flat[name] = v
			continue
		}
		for key, v := range table {
			flat[name+"."+key] = v
		}
	}
	return errors.Join(append(bad, assign(c.keys(), "", flat)...)...)
}

// assign gives keys their values, and returns an error for each that is not known or
// has another kind of value.
func assign(keys []configKey, prefix string, values map[string]any) (bad []error) {
	for _, name := range slices.Sorted(maps.Keys(values)) {
		i := slices.IndexFunc(keys, func(k configKey) bool { return k.name == name })
		if i < 0 {
			bad = append(bad, fmt.Errorf("%s%s is not known%s", prefix, name, nearestKey(keys, name)))
		} else if err := keys[i].value.set(values[name]); err != nil {
			bad = append(bad, fmt.Errorf("%s%s %w", prefix, name, err))
		}
	}
	return bad
}

// nearestKey suggests a key for one that is not known: the same without its section,
// its dashes and its case.
func nearestKey(keys []configKey, name string) string {
	plain := func(s string) string {
		s = s[strings.LastIndex(s, ".")+1:]
		return strings.ToLower(strings.NewReplacer("-", "", "_", "").Replace(s))
	}
	for _, k := range keys {
		if plain(k.name) == plain(name) {
			return ": did you mean " + k.name + "?"
		}
	}
	return ""
}

// parseListeners reads the [[kafka]] tables.
func (c *serveConfig) parseListeners(v any) (bad []error) {
	list, ok := v.([]any)
	if !ok {
		return []error{errors.New("kafka must be tables, [[kafka]], with listen in each")}
	}
	for i, v := range list {
		table, ok := v.(map[string]any)
		if !ok {
			return []error{errors.New("kafka must be tables, [[kafka]], with listen in each")}
		}
		l := &listenerConfig{}
		bad = append(bad, assign(l.keys(), fmt.Sprintf("kafka[%d].", i), table)...)
		c.kafka = append(c.kafka, l)
	}
	return bad
}

// parseDefaults reads [topic-defaults]: partitions, and settings under Kafka's names,
// in quotes or not.
func (c *serveConfig) parseDefaults(v any) (bad []error) {
	table, ok := v.(map[string]any)
	if !ok {
		return []error{errors.New("topic-defaults must be a table, [topic-defaults]")}
	}
	if n, ok := table["partitions"]; ok {
		delete(table, "partitions")
		if err := (*intValue)(&c.partitions).set(n); err != nil {
			bad = append(bad, fmt.Errorf("topic-defaults.partitions %w", err))
		}
	}
	c.topicDefaults = make(map[string]string)
	var walk func(prefix string, table map[string]any)
	walk = func(prefix string, table map[string]any) {
		for name, v := range table {
			// retention.ms without quotes is a table with ms in it.
			if inner, ok := v.(map[string]any); ok {
				walk(prefix+name+".", inner)
				continue
			}
			switch v.(type) {
			case string, bool, int64, float64:
				c.topicDefaults[prefix+name] = fmt.Sprint(v)
			default:
				bad = append(bad, fmt.Errorf("topic-defaults.%s%s must be a text, a number, true or false", prefix, name))
			}
		}
	}
	walk("", table)
	return bad
}

// print writes the configuration as a file that says the same.
func (c *serveConfig) print(w io.Writer) error {
	var b strings.Builder
	section := ""
	for _, k := range c.keys() {
		name := k.name
		if s, rest, ok := strings.Cut(name, "."); ok {
			if name = rest; s != section {
				fmt.Fprintf(&b, "\n[%s]\n", s)
				section = s
			}
		}
		fmt.Fprintf(&b, "# %s\n%s = %s\n", k.doc, name, k.value.text())
	}
	fmt.Fprintf(&b, "\n[topic-defaults]\n# how many partitions a topic gets; 0 is 1\npartitions = %d\n", c.partitions)
	for _, name := range slices.Sorted(maps.Keys(c.topicDefaults)) {
		fmt.Fprintf(&b, "%s = %s\n", tomlText(name), tomlText(c.topicDefaults[name]))
	}
	for _, l := range c.kafka {
		b.WriteString("\n[[kafka]]\n")
		for _, k := range l.keys() {
			fmt.Fprintf(&b, "# %s\n%s = %s\n", k.doc, k.name, k.value.text())
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// options are the configuration for the packages that do the work. The error names
// everything that is wrong.
func (c *serveConfig) options() (*embedlog.Options, *kafka.Options, error) {
	o := &embedlog.Options{
		TopicDefaults:    embedlog.TopicConfig{Partitions: int(c.partitions), Settings: c.topicDefaults},
		AutoCreateTopics: c.autoCreate, LockTimeout: c.lockTimeout, OpenFiles: int(c.openFiles), MaxBytes: c.maxBytes,
		OffsetsRetention: c.offsetsRetention, MaintenanceInterval: c.maintenance, Socket: true,
	}
	k := &kafka.Options{AllowInsecure: c.allowInsecure, Limits: kafka.Limits{
		FrameBytes: int(c.frameBytes), Connections: int(c.connections), ConnectionsPerIP: int(c.connectionsPerIP),
		MemoryBytes: c.memoryBytes, IdleTimeout: c.idleTimeout, ConnectionMemoryBytes: c.connectionMemory,
		HandshakeFrameBytes: int(c.handshakeBytes), FetchBytes: int(c.fetchBytes), FrameTimeout: c.frameTimeout,
	}}
	var bad []error
	for _, k := range c.keys() {
		if n, ok := k.value.(*intValue); ok && int64(int(*n)) != int64(*n) && k.name != "database.max-bytes" && k.name != "limits.memory-bytes" && k.name != "limits.connection-memory-bytes" {
			bad = append(bad, fmt.Errorf("%s is too large", k.name))
		}
	}
	bad = append(bad, o.Validate())
	if c.stopTimeout < 0 {
		bad = append(bad, errors.New("shutdown-timeout must not be negative"))
	}
	if c.http != "" {
		if _, err := httpAddress(c.http, c.allowInsecure); err != nil {
			bad = append(bad, err)
		}
	}
	for i, l := range c.kafka {
		t, err := l.tls()
		if err != nil {
			bad = append(bad, fmt.Errorf("kafka[%d]: %w", i, err))
		}
		if l.listen == "" {
			bad = append(bad, fmt.Errorf("kafka[%d].listen is missing", i))
		}
		listener := kafka.Listener{Address: l.listen, Advertise: l.advertise, TLS: t}
		if err := l.identify(&listener); err != nil {
			bad = append(bad, fmt.Errorf("kafka[%d]: %w", i, err))
		}
		k.Listeners = append(k.Listeners, listener)
	}
	if len(k.Listeners) > 0 {
		bad = append(bad, k.Validate())
	}
	if _, err := c.rules(); err != nil {
		bad = append(bad, err)
	}
	node, peer, err := c.cluster.newNode(c.allowInsecure)
	switch {
	case err != nil:
		bad = append(bad, err)
	case node != nil:
		o.Replication, o.ReplicationFactor, o.PreferredLeaders, c.peer = node, int(c.cluster.factor), c.cluster.preferred, peer
	}
	if err := errors.Join(bad...); err != nil {
		return nil, nil, errors.New(fileNames.Replace(err.Error()))
	}
	return o, k, nil
}

// fileNames are the names that things have here, for those they have in Go.
var fileNames = strings.NewReplacer(
	"Listeners[", "kafka[", "].Address", "].listen", "].Advertise", "].advertise", "AllowInsecure", "--allow-insecure",
	"Options.MaxBytes", "database.max-bytes", "Options.OpenFiles", "database.open-files", "Options.LockTimeout", "lock-timeout",
	"].SASL.Mechanisms", "].sasl-mechanisms", "].SASL.SessionLifetime", "].sasl-session-lifetime", "or PlainWithoutTLS", "or sasl-plain-without-tls",
	"Limits.ConnectionMemoryBytes", "limits.connection-memory-bytes", "Limits.HandshakeFrameBytes", "limits.handshake-frame-bytes",
	"Limits.FetchBytes", "limits.fetch-bytes", "Limits.FrameTimeout", "limits.frame-timeout",
	"Limits.FrameBytes", "limits.frame-bytes", "Limits.MemoryBytes", "limits.memory-bytes", "Limits.IdleTimeout", "limits.idle-timeout",
)
