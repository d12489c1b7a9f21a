package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/x/embedlog/internal/acl"
	"github.com/x/embedlog/internal/scram"
	"github.com/x/embedlog/internal/testcount"
	"github.com/x/embedlog/internal/vfs"
	"github.com/x/embedlog/log"
)

// testCredential is one whose keys are letters, so that its bytes can be read.
func testCredential(m scram.Mechanism, letter string) *scram.Credential {
	return &scram.Credential{Mechanism: m, Iterations: 4096, Salt: []byte("na" + letter), StoredKey: []byte(strings.Repeat("s", m.KeyBytes())), ServerKey: []byte(strings.Repeat("t", m.KeyBytes()))}
}

func testUser(name string, list ...*scram.Credential) userMeta {
	u := userMeta{name: name}
	for _, c := range list {
		u.credentials[c.Mechanism] = c
	}
	return u
}

var (
	key32 = strings.Repeat("s", 32) + strings.Repeat("t", 32)
	key64 = strings.Repeat("s", 64) + strings.Repeat("t", 64)
	aclA  = &acl.ACL{Resource: acl.ResourceTopic, Pattern: acl.PatternLiteral, Name: "orders", Principal: "User:a", Host: "*", Operation: acl.OpRead, Permission: acl.Allow}
	aclB  = &acl.ACL{Resource: acl.ResourceGroup, Pattern: acl.PatternPrefixed, Name: "g", Principal: "User:*", Host: "::1", Operation: acl.OpAll, Permission: acl.Deny}
)

func init() {
	bytesA, bytesB := "\x02\x03\x03\x03\x06orders\x06User:a\x01*", "\x03\x04\x02\x02\x01g\x06User:*\x03::1"
	commandTable = append(commandTable, []struct {
		name string
		c    command
		want string
	}{
		{"alter user", command{kind: alterUserCommand, users: []userMeta{testUser("al", testCredential(scram.SHA256, "c"))}, mechanisms: []scram.Mechanism{scram.SHA512}},
			"\x01\x08\x02al\x01\x01\x80 \x03nac" + key32 + "\x01\x02"},
		{"both mechanisms", command{kind: alterUserCommand, users: []userMeta{testUser("al", testCredential(scram.SHA256, "c"), testCredential(scram.SHA512, "d"))}},
			"\x01\x08\x02al\x02\x01\x80 \x03nac" + key32 + "\x02\x80 \x03nad" + key64 + "\x00"},
		{"create ACLs", command{kind: createACLsCommand, acls: []*acl.ACL{aclA, aclB}}, "\x01\x09\x02" + bytesA + bytesB},
		{"delete ACLs", command{kind: deleteACLsCommand, acls: []*acl.ACL{aclA}}, "\x01\x0a\x01" + bytesA},
		{"alter quota", command{kind: alterQuotaCommand, quotas: []Quota{{QuotaEntity{User: "al", DefaultClientID: true}, map[string]float64{"a": 1, "b": 0.5}}}, unset: []string{"c"}},
			"\x01\x0b\x06\x02al\x02\x01a\x3f\xf0\x00\x00\x00\x00\x00\x00\x01b\x3f\xe0\x00\x00\x00\x00\x00\x00\x01\x01c"},
		{"quota of an address", command{kind: alterQuotaCommand, quotas: []Quota{{QuotaEntity{IP: "::1"}, map[string]float64{}}}, unset: []string{"c"}},
			"\x01\x0b\x20\x03::1\x00\x01\x01c"},
		{"snapshot of users", command{kind: securitySnapshotCommand, flags: snapshotLast, users: []userMeta{testUser("al", testCredential(scram.SHA256, "c"))}, acls: []*acl.ACL{aclA}, quotas: []Quota{{QuotaEntity{DefaultIP: true}, map[string]float64{"a": 1}}}},
			"\x01\x0c\x02\x01\x02al\x01\x01\x80 \x03nac" + key32 + "\x01" + bytesA + "\x01\x10\x01\x01a\x3f\xf0\x00\x00\x00\x00\x00\x00"},
		{"empty snapshot of users", command{kind: securitySnapshotCommand}, "\x01\x0c\x00\x00\x00\x00"},
	}...)
}

func TestSecurityCommandRefuses(t *testing.T) {
	a := "\x02\x03\x03\x03\x01a\x06User:a\x01*"
	one := "\x3f\xf0\x00\x00\x00\x00\x00\x00"
	for _, row := range []struct{ name, b string }{
		{"a user without a name", "\x01\x08\x00\x01\x01\x80 \x03nac" + key32 + "\x00"},
		{"a name above the limit", "\x01\x08\x80\x02" + strings.Repeat("n", 256) + "\x01\x01\x80 \x03nac" + key32 + "\x00"},
		{"nothing to change", "\x01\x08\x02al\x00\x00"},
		{"an unknown mechanism", "\x01\x08\x02al\x01\x03\x80 \x03nac" + key32 + "\x00"},
		{"mechanism 0", "\x01\x08\x02al\x01\x00\x80 \x03nac" + key32 + "\x00"},
		{"a negative mechanism", "\x01\x08\x02al\x00\x01\xff"},
		{"mechanisms out of order", "\x01\x08\x02al\x02\x02\x80 \x03nad" + key64 + "\x01\x80 \x03nac" + key32 + "\x00"},
		{"a mechanism twice", "\x01\x08\x02al\x02\x01\x80 \x03nac" + key32 + "\x01\x80 \x03nac" + key32 + "\x00"},
		{"set and taken away", "\x01\x08\x02al\x01\x01\x80 \x03nac" + key32 + "\x01\x01"},
		{"three mechanisms", "\x01\x08\x02al\x00\x03\x01\x02\x02"},
		{"no iterations", "\x01\x08\x02al\x01\x01\x00\x03nac" + key32 + "\x00"},
		{"no salt", "\x01\x08\x02al\x01\x01\x80 \x00" + key32 + "\x00"},
		{"short keys", "\x01\x08\x02al\x01\x02\x80 \x03nac" + key32 + "\x00"},
		{"no ACLs", "\x01\x09\x00"},
		{"more ACLs than there are", "\x01\x09\x90\x4e" + a},
		{"ACLs out of order", "\x01\x09\x02" + "\x02\x03\x03\x03\x01b\x06User:a\x01*" + a},
		{"an ACL twice", "\x01\x09\x02" + a + a},
		{"resource type any", "\x01\x09\x01\x01\x03\x03\x03\x01a\x06User:a\x01*"},
		{"pattern type match", "\x01\x09\x01\x02\x02\x03\x03\x01a\x06User:a\x01*"},
		{"operation any", "\x01\x09\x01\x02\x03\x01\x03\x01a\x06User:a\x01*"},
		{"permission any", "\x01\x09\x01\x02\x03\x03\x01\x01a\x06User:a\x01*"},
		{"a negative operation", "\x01\x09\x01\x02\x03\x80\x03\x01a\x06User:a\x01*"},
		{"no resource name", "\x01\x09\x01\x02\x03\x03\x03\x00\x06User:a\x01*"},
		{"no principal", "\x01\x09\x01\x02\x03\x03\x03\x01a\x00\x01*"},
		{"no host", "\x01\x09\x01\x02\x03\x03\x03\x01a\x06User:a\x00"},
		{"an entity of nobody", "\x01\x0b\x00\x01\x01a" + one + "\x00"},
		{"an entity's flags", "\x01\x0b\x40\x01\x01a" + one + "\x00"},
		{"named and default", "\x01\x0b\x03\x02al\x01\x01a" + one + "\x00"},
		{"an empty name", "\x01\x0b\x02\x00\x01\x01a" + one + "\x00"},
		{"a quota of nothing", "\x01\x0b\x01\x01\x01a\x00\x00\x00\x00\x00\x00\x00\x00\x00"},
		{"a negative quota", "\x01\x0b\x01\x01\x01a\xbf\xf0\x00\x00\x00\x00\x00\x00\x00"},
		{"infinity", "\x01\x0b\x01\x01\x01a\x7f\xf0\x00\x00\x00\x00\x00\x00\x00"},
		{"no number", "\x01\x0b\x01\x01\x01a\x7f\xf8\x00\x00\x00\x00\x00\x00\x00"},
		{"a quota without a name", "\x01\x0b\x01\x01\x00" + one + "\x00"},
		{"quotas out of order", "\x01\x0b\x01\x02\x01b" + one + "\x01a" + one + "\x00"},
		{"quota set and unset", "\x01\x0b\x01\x01\x01a" + one + "\x01\x01a"},
		{"no quota", "\x01\x0b\x01\x00\x00"},
		{"seventeen quotas", "\x01\x0b\x01\x11"},
		{"a snapshot that is first", "\x01\x0c\x01\x00\x00\x00"},
		{"a snapshot's flags", "\x01\x0c\x04\x00\x00\x00"},
		{"a user without credentials", "\x01\x0c\x00\x01\x02al\x00\x00\x00"},
		{"users out of order", "\x01\x0c\x00\x02\x02al\x01\x01\x80 \x03nac" + key32 + "\x02al\x01\x01\x80 \x03nac" + key32 + "\x00\x00"},
		{"an entity without quotas", "\x01\x0c\x00\x00\x00\x01\x01\x00"},
		{"an entity twice", "\x01\x0c\x00\x00\x00\x02\x01\x01\x01a" + one + "\x01\x01\x01a" + one},
	} {
		if c, err := decodeCommand([]byte(row.b)); !errors.Is(err, errCommand) {
			t.Errorf("%s: got %+v, %v", row.name, c, err)
		}
	}
}

// naiveSecurity is users, ACLs and quotas as lists of text.
type naiveSecurity struct{ users, acls, quotas map[string]string }

func newNaiveSecurity() *naiveSecurity {
	return &naiveSecurity{map[string]string{}, map[string]string{}, map[string]string{}}
}

func (n *naiveSecurity) apply(c *command) (ok bool) {
	switch c.kind {
	case alterUserCommand:
		u := c.users[0]
		for _, m := range c.mechanisms {
			if n.users[u.name+" "+m.String()] == "" {
				return false
			}
		}
		for _, m := range c.mechanisms {
			delete(n.users, u.name+" "+m.String())
		}
		for _, cred := range u.credentials {
			if cred != nil {
				n.users[u.name+" "+cred.Mechanism.String()] = string(cred.Salt)
			}
		}
	case createACLsCommand:
		for _, a := range c.acls {
			n.acls[a.String()] = ""
		}
	case deleteACLsCommand:
		for _, a := range c.acls {
			delete(n.acls, a.String())
		}
	case alterQuotaCommand:
		e := c.quotas[0].Entity.String()
		for _, name := range c.unset {
			delete(n.quotas, e+" "+name)
		}
		for name, v := range c.quotas[0].Values {
			n.quotas[e+" "+name] = fmt.Sprint(v)
		}
	}
	return true
}

// text is a state so that equal ones give equal text.
func (n *naiveSecurity) text() string {
	var b strings.Builder
	for _, m := range []map[string]string{n.users, n.acls, n.quotas} {
		for _, k := range slices.Sorted(maps.Keys(m)) {
			fmt.Fprintln(&b, k, m[k])
		}
	}
	return b.String()
}

// text is the same for what a view shows.
func (v *securityView) text() string {
	n := newNaiveSecurity()
	for name, list := range v.users {
		for _, c := range list {
			if c != nil {
				n.users[name+" "+c.Mechanism.String()] = string(c.Salt)
			}
		}
	}
	for a := range v.acls.All() {
		n.acls[a.String()] = ""
	}
	for e, values := range v.quotas {
		for name, value := range values {
			n.quotas[e.String()+" "+name] = fmt.Sprint(value)
		}
	}
	return n.text()
}

func randomSecurityCommand(r *rand.Rand) *command {
	letter := func() string { return string(rune('a' + r.IntN(4))) }
	c := &command{kind: alterUserCommand + commandKind(r.IntN(4))}
	switch c.kind {
	case alterUserCommand:
		u := testUser(letter())
		for m := scram.SHA256; m <= scram.SHA512; m++ {
			switch r.IntN(3) {
			case 0:
				u.credentials[m] = testCredential(m, letter())
			case 1:
				c.mechanisms = append(c.mechanisms, m)
			}
		}
		if len(c.mechanisms) == 0 {
			u.credentials[scram.SHA256] = testCredential(scram.SHA256, letter())
		}
		c.users = []userMeta{u}
	case createACLsCommand, deleteACLsCommand:
		set := &acl.Set{}
		for range 1 + r.IntN(3) {
			set.Insert(&acl.ACL{
				Resource: acl.ResourceTopic + acl.ResourceType(r.IntN(2)), Pattern: acl.PatternLiteral + acl.PatternType(r.IntN(2)), Name: letter(),
				Principal: "User:" + letter(), Host: "*", Operation: acl.OpRead, Permission: acl.Allow,
			})
		}
		c.acls = slices.Collect(set.All())
	case alterQuotaCommand:
		q := Quota{Entity: QuotaEntity{User: letter()}, Values: map[string]float64{}}
		if r.IntN(2) == 0 {
			q.Entity = QuotaEntity{DefaultUser: true, ClientID: letter()}
		}
		for _, name := range []string{"a", "b", "c"} {
			switch r.IntN(3) {
			case 0:
				q.Values[name] = float64(1 + r.IntN(3))
			case 1:
				c.unset = append(c.unset, name)
			}
		}
		if len(q.Values)+len(c.unset) == 0 {
			c.unset = []string{"a"}
		}
		c.quotas = []Quota{q}
	}
	return c
}

// Random commands do to users, ACLs and quotas what they do to lists; a refused one
// changes nothing; views follow and those of earlier stay; and at any time the
// snapshot is another way to the same state and the same bytes.
func TestSecurityAgainstANaiveOne(t *testing.T) {
	for seed := range uint64(testcount.N(60)) {
		r := rand.New(rand.NewPCG(seed, 2))
		m, n := newMetadata(), newNaiveSecurity()
		view := m.security.after(snapshotCommand, nil)
		var earlier *securityView
		var earlierText string
		for i := range 60 {
			c, err := decodeCommand(randomSecurityCommand(r).encode())
			if err != nil {
				t.Fatal(err)
			}
			before := n.text()
			_, err = m.apply(c)
			if ok := n.apply(c); ok != (err == nil) {
				t.Fatalf("seed %d, command %d: %+v: got %v, holds: %t\n%s", seed, i, c, err, ok, before)
			}
			if err == nil {
				view = m.security.after(c.kind, view)
			}
			if got, want := view.text(), n.text(); got != want || m.security.after(snapshotCommand, nil).text() != want {
				t.Fatalf("seed %d, command %d:\ngot  %s\nwant %s", seed, i, got, want)
			}
			if r.IntN(10) == 0 {
				if earlier != nil && earlier.text() != earlierText {
					t.Fatalf("seed %d, command %d: a view has changed from\n%s\nto\n%s", seed, i, earlierText, earlier.text())
				}
				earlier, earlierText = view, view.text()
				to := throughSnapshot(t, m)
				if got := to.security.after(snapshotCommand, nil).text(); got != n.text() || to.security.bytes != m.security.bytes {
					t.Fatalf("seed %d, command %d: %d bytes\n%s\nfrom a snapshot of %d bytes\n%s", seed, i, to.security.bytes, got, m.security.bytes, n.text())
				}
				if a, b := m.snapshot(), to.snapshot(); len(a) != len(b) || string(a[len(a)-1].encode()) != string(b[len(b)-1].encode()) {
					t.Fatalf("seed %d, command %d: another snapshot from the same state", seed, i)
				}
				m = to
			}
		}
		if n.text() == "" != m.security.empty() {
			t.Fatalf("seed %d: empty %t with\n%s", seed, m.security.empty(), n.text())
		}
	}
}

// A snapshot without users, ACLs and quotas is what versions that have none read; one
// with them has another kind of command, which they refuse as newer.
func TestSecuritySnapshotForm(t *testing.T) {
	m := newMetadata()
	if parts := m.snapshot(); len(parts) != 1 || string(parts[0].encode()) != "\x01\x07\x03\x00\x00\x00" {
		t.Fatalf("%d parts, the first %q", len(parts), parts[0].encode())
	}
	alter := &command{kind: alterUserCommand, users: []userMeta{testUser("al", testCredential(scram.SHA256, "c"))}}
	if _, err := m.apply(alter); err != nil {
		t.Fatal(err)
	}
	parts := m.snapshot()
	if len(parts) != 2 || string(parts[0].encode()) != "\x01\x07\x01\x00\x00\x00" || parts[1].encode()[1] != byte(securitySnapshotCommand) {
		t.Fatalf("%d parts, the first %q", len(parts), parts[0].encode())
	}
	if _, err := m.apply(&command{kind: alterUserCommand, users: []userMeta{testUser("al")}, mechanisms: []scram.Mechanism{scram.SHA256}}); err != nil {
		t.Fatal(err)
	}
	if parts := m.snapshot(); len(parts) != 1 || m.security.bytes != 0 {
		t.Fatalf("%d parts, %d bytes when the last user is gone", len(parts), m.security.bytes)
	}
}

// What does not fit together is refused, and nothing of it counts before its end.
func TestHalfASecuritySnapshot(t *testing.T) {
	m := newMetadata()
	users := func(flags byte, names ...string) *command {
		c := &command{kind: securitySnapshotCommand, flags: flags}
		for _, name := range names {
			c.users = append(c.users, testUser(name, testCredential(scram.SHA256, "c")))
		}
		return c
	}
	first := &command{kind: snapshotCommand, flags: snapshotFirst, nextID: 7}
	if err := m.replay(users(snapshotLast, "a").encode()); !errors.Is(err, errCommand) {
		t.Fatalf("a part of users without a first part: %v", err)
	}
	for _, c := range []*command{first, users(0, "a", "b")} {
		if err := m.replay(c.encode()); err != nil || len(m.security.users) != 0 {
			t.Fatal(err, m.security.users)
		}
	}
	if err := m.replay(users(snapshotLast, "b").encode()); !errors.Is(err, errCommand) {
		t.Fatalf("a user twice: %v", err)
	}
	for _, c := range []*command{first, users(0, "a", "b"), users(snapshotLast, "c")} {
		if err := m.replay(c.encode()); err != nil {
			t.Fatal(err)
		}
	}
	if len(m.security.users) != 3 || m.nextID != 7 {
		t.Fatalf("%d users, next id %d", len(m.security.users), m.nextID)
	}
	acls := &command{kind: securitySnapshotCommand, acls: []*acl.ACL{aclA}}
	quotas := &command{kind: securitySnapshotCommand, quotas: []Quota{{QuotaEntity{DefaultUser: true}, map[string]float64{"a": 1}}}}
	for _, c := range []*command{acls, quotas} {
		for _, part := range []*command{first, c} {
			if err := m.replay(part.encode()); err != nil {
				t.Fatal(err)
			}
		}
		if err := m.replay(c.encode()); !errors.Is(err, errCommand) {
			t.Fatalf("%+v twice: %v", c, err)
		}
	}
	if len(m.security.users) != 3 {
		t.Fatalf("%d users after half a snapshot", len(m.security.users))
	}
}

// There is a bound to what is kept in memory, and each part of a snapshot fits a record.
func TestSecurityLimits(t *testing.T) {
	m := newMetadata()
	credential := testCredential(scram.SHA512, "c")
	user := func(i int) *command {
		return &command{kind: alterUserCommand, users: []userMeta{testUser(fmt.Sprintf("%0200d", i), credential)}}
	}
	quota := func(i int) *command {
		return &command{kind: alterQuotaCommand, quotas: []Quota{{QuotaEntity{User: fmt.Sprintf("%0200d", i)}, map[string]float64{"a": 1}}}}
	}
	for i := range maxUsers {
		for _, c := range []*command{user(i), quota(i)} {
			if _, err := m.apply(c); err != nil {
				t.Fatal(i, err)
			}
		}
	}
	if _, err := m.apply(user(maxUsers)); !errors.Is(err, ErrInvalidUser) {
		t.Errorf("one user more: %v", err)
	}
	if _, err := m.apply(quota(maxUsers)); !errors.Is(err, ErrInvalidQuota) {
		t.Errorf("one quota more: %v", err)
	}
	if _, err := m.apply(user(5)); err != nil {
		t.Errorf("a user that is there: %v", err)
	}
	many := quota(5)
	for i := range maxQuotaValues {
		many.quotas[0].Values[fmt.Sprint(i)] = 1
	}
	if _, err := m.apply(many); !errors.Is(err, ErrInvalidQuota) {
		t.Errorf("%d quotas: %v", maxQuotaValues+1, err)
	}
	full := &command{kind: createACLsCommand, acls: make([]*acl.ACL, 0, maxACLs)}
	for i := range maxACLs {
		a := *aclA
		a.Name = fmt.Sprintf("%08d", i)
		full.acls = append(full.acls, &a)
	}
	if _, err := m.apply(full); err != nil {
		t.Fatal(err)
	}
	if _, err := m.apply(&command{kind: createACLsCommand, acls: []*acl.ACL{aclB}}); !errors.Is(err, ErrInvalidACL) {
		t.Errorf("one ACL more: %v", err)
	}
	if _, err := m.apply(full); err != nil {
		t.Errorf("ACLs that are there: %v", err)
	}
	parts := m.snapshot()
	to := newMetadata()
	for i, c := range parts {
		b := c.encode()
		if len(b) > maxCommandBytes {
			t.Fatalf("part %d has %d bytes", i, len(b))
		}
		if err := to.replay(b); err != nil {
			t.Fatal(err)
		}
	}
	again := to.snapshot()
	if len(parts) < 10 || len(parts) != len(again) {
		t.Fatalf("%d parts, and %d from what they make", len(parts), len(again))
	}
	for i := range parts {
		if string(parts[i].encode()) != string(again[i].encode()) {
			t.Fatalf("another state from part %d", i)
		}
	}
}

func mustCredential(t *testing.T, m scram.Mechanism, password string) *scram.Credential {
	t.Helper()
	c, err := scram.New(m, password, scram.MinIterations)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func openSecurity(t *testing.T, fs vfs.FS) *Engine {
	t.Helper()
	e, err := Open("db", &Options{FS: fs, MaintenanceInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e
}

func TestUsers(t *testing.T) {
	fs := vfs.NewMem()
	e := openSecurity(t, fs)
	for _, row := range []struct {
		name  string
		user  string
		set   []*scram.Credential
		unset []scram.Mechanism
		want  error
	}{
		{"no name", "", []*scram.Credential{testCredential(scram.SHA256, "a")}, nil, ErrInvalidUser},
		{"a long name", strings.Repeat("n", 256), []*scram.Credential{testCredential(scram.SHA256, "a")}, nil, ErrInvalidUser},
		{"no text", "\xff", []*scram.Credential{testCredential(scram.SHA256, "a")}, nil, ErrInvalidUser},
		{"a NUL", "a\x00b", []*scram.Credential{testCredential(scram.SHA256, "a")}, nil, ErrInvalidUser},
		{"nothing", "alice", nil, nil, ErrInvalidUser},
		{"a mechanism twice", "alice", []*scram.Credential{testCredential(scram.SHA256, "a"), testCredential(scram.SHA256, "b")}, nil, ErrInvalidUser},
		{"set and unset", "alice", []*scram.Credential{testCredential(scram.SHA256, "a")}, []scram.Mechanism{scram.SHA256}, ErrInvalidUser},
		{"no mechanism", "alice", nil, []scram.Mechanism{9}, ErrInvalidUser},
		{"few iterations", "alice", []*scram.Credential{{Mechanism: scram.SHA256, Iterations: 4095, Salt: []byte("x"), StoredKey: make([]byte, 32), ServerKey: make([]byte, 32)}}, nil, ErrInvalidUser},
		{"nobody", "alice", nil, []scram.Mechanism{scram.SHA256}, ErrUnknownUser},
	} {
		if err := e.AlterUser(ctx, row.user, row.set, row.unset...); !errors.Is(err, row.want) {
			t.Errorf("%s: %v, want %v", row.name, err, row.want)
		}
	}
	mine := mustCredential(t, scram.SHA256, "one")
	if err := e.AlterUser(ctx, "alice", []*scram.Credential{mine, mustCredential(t, scram.SHA512, "two")}); err != nil {
		t.Fatal(err)
	}
	clear(mine.StoredKey) // the engine has its own
	if err := e.AlterUser(ctx, "bob", []*scram.Credential{mustCredential(t, scram.SHA256, "three")}); err != nil {
		t.Fatal(err)
	}
	check := func(e *Engine) {
		t.Helper()
		for _, row := range []struct {
			user, password string
			want           bool
		}{{"alice", "two", true}, {"alice", "one", false}, {"bob", "three", true}, {"bob", "", false}, {"carol", "three", false}, {"", "", false}} {
			if got := e.CheckPassword(row.user, row.password); got != row.want {
				t.Errorf("%s with password %q: %t", row.user, row.password, got)
			}
		}
		if c, known := e.Credential("alice", scram.SHA256); !known || !c.Verify("one") {
			t.Error("alice has another credential for SCRAM-SHA-256")
		}
		if users := e.Users(); len(users) != 2 || users[0].Name != "alice" || len(users[0].Credentials) != 2 || users[1].Name != "bob" {
			t.Errorf("users %+v", users)
		}
	}
	check(e)
	fake, known := e.Credential("bob", scram.SHA512)
	if known || fake.Reason() != "" || fake.Iterations != scram.MinIterations {
		t.Errorf("a credential that there is not: %+v, %t", fake, known)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if err := e.AlterUser(ctx, "x", []*scram.Credential{testCredential(scram.SHA256, "a")}); !errors.Is(err, log.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	e = openSecurity(t, fs)
	check(e)
	if again, _ := e.Credential("bob", scram.SHA512); string(again.Salt) != string(fake.Salt) {
		t.Error("the salt of a user that there is not has changed by a restart")
	}
	if err := e.AlterUser(ctx, "alice", nil, scram.SHA512); err != nil {
		t.Fatal(err)
	}
	if !e.CheckPassword("alice", "one") {
		t.Error("alice's other credential is gone")
	}
	if err := errors.Join(e.DeleteUser(ctx, "alice"), e.DeleteUser(ctx, "bob")); err != nil {
		t.Fatal(err)
	}
	if err := e.DeleteUser(ctx, "alice"); !errors.Is(err, ErrUnknownUser) {
		t.Errorf("deleted twice: %v", err)
	}
	if len(e.Users()) != 0 || e.CheckPassword("alice", "one") {
		t.Error("users are still there")
	}
}

// Users that there are not look like those that there are, each form as often, the same
// one each time, and hardly another one when users come.
func TestFakeCredentialsLookLikeOthers(t *testing.T) {
	e := openSecurity(t, vfs.NewMem())
	add := func(name string, iterations, saltBytes int, mechanisms ...scram.Mechanism) {
		t.Helper()
		var set []*scram.Credential
		for _, m := range mechanisms {
			set = append(set, scram.Fake(m, []byte("x"), name, iterations, saltBytes))
		}
		if err := e.AlterUser(ctx, name, set); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 50 {
		if i < 40 {
			add(fmt.Sprint("old-", i), 4096, 24, scram.SHA512)
		} else {
			add(fmt.Sprint("new-", i), 16384, 16, scram.SHA512, scram.SHA256)
		}
	}
	const names = 2000
	look := func() (forms [names]saltForm, count map[saltForm]int) {
		count = make(map[saltForm]int)
		for i := range forms {
			c, known := e.Credential(fmt.Sprint("nobody-", i), scram.SHA512)
			if known {
				t.Fatal("a user that there is not is known")
			}
			forms[i] = saltForm{c.Iterations, len(c.Salt)}
			count[forms[i]]++
		}
		return forms, count
	}
	before, count := look()
	// A fifth of the users, of which chance makes 18 to 22 hundredths (four standard deviations are 3.6).
	if n := count[saltForm{16384, 16}]; len(count) != 2 || n < names*16/100 || n > names*24/100 {
		t.Errorf("%v of %d names, want a fifth with 16384 iterations", count, names)
	}
	if again, _ := look(); again != before {
		t.Error("forms differ from one time to the next")
	}
	add("another", 16384, 16, scram.SHA512)
	after, _ := look()
	changed := 0
	for i := range after {
		if after[i] != before[i] {
			changed++
		}
	}
	if changed > names*4/100 {
		t.Errorf("one user more, and %d of %d names look different", changed, names)
	}
	if c, _ := e.Credential("nobody", scram.SHA256); c.Iterations != 16384 || len(c.Salt) != 16 {
		t.Errorf("of the other mechanism there is one form, and not %d iterations, %d bytes of salt", c.Iterations, len(c.Salt))
	}
	for i := range 5 * maxForms { // more forms than are told apart
		add(fmt.Sprint("odd-", i), 5000+i, 24, scram.SHA512)
	}
	if _, count := look(); len(count) > maxForms {
		t.Errorf("%d forms", len(count))
	}
}

func TestACLs(t *testing.T) {
	fs := vfs.NewMem()
	e := openSecurity(t, fs)
	orders := acl.ACL{Resource: acl.ResourceTopic, Name: "orders", Principal: "User:a", Operation: acl.OpRead}
	if err := e.CreateACLs(ctx, []acl.ACL{orders, {Resource: acl.ResourceTopic, Name: "orders", Principal: "a", Operation: acl.OpRead}}); !errors.Is(err, ErrInvalidACL) || e.ACLSet().Len() != 0 {
		t.Fatalf("%v, %d ACLs", err, e.ACLSet().Len())
	}
	var many []acl.ACL
	for i := range 3000 { // more than fit one command
		many = append(many, acl.ACL{Resource: acl.ResourceGroup, Name: fmt.Sprintf("%0200d", i), Principal: "User:b", Operation: acl.OpRead})
	}
	if err := e.CreateACLs(ctx, append(many, orders, orders)); err != nil {
		t.Fatal(err)
	}
	end := e.meta.part.LogEnd()
	if err := e.CreateACLs(ctx, many[:100]); err != nil || e.meta.part.LogEnd() != end {
		t.Fatalf("%v: ACLs that are there are written again", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = openSecurity(t, fs)
	if got := e.ACLs(acl.Filter{Resource: acl.ResourceTopic}); len(got) != 1 || got[0] != orders.WithDefaults() || e.ACLSet().Len() != 3001 {
		t.Fatalf("%v of %d", got, e.ACLSet().Len())
	}
	bob, name := "User:b", "orders"
	deleted, err := e.DeleteACLs(ctx, acl.Filter{Principal: &bob}, acl.Filter{Pattern: acl.PatternMatch, Name: &name}, acl.Filter{Name: &name}, acl.Filter{Operation: acl.OpWrite})
	if err != nil || len(deleted) != 4 || len(deleted[0]) != 3000 || len(deleted[1]) != 1 || len(deleted[2]) != 1 || len(deleted[3]) != 0 {
		t.Fatalf("%v: %d filters", err, len(deleted))
	}
	if e.ACLSet().Len() != 0 {
		t.Fatalf("%d ACLs are left", e.ACLSet().Len())
	}
}

func TestQuotas(t *testing.T) {
	fs := vfs.NewMem()
	e := openSecurity(t, fs)
	user := QuotaEntity{User: "a"}
	for _, row := range []struct {
		name   string
		entity QuotaEntity
		set    map[string]float64
		unset  []string
	}{
		{"nobody", QuotaEntity{}, map[string]float64{QuotaProducerByteRate: 1}, nil},
		{"named and default", QuotaEntity{User: "a", DefaultUser: true}, map[string]float64{QuotaProducerByteRate: 1}, nil},
		{"an address and a user", QuotaEntity{User: "a", DefaultIP: true}, map[string]float64{QuotaConnectionCreationRate: 1}, nil},
		{"no address", QuotaEntity{IP: "localhost"}, map[string]float64{QuotaConnectionCreationRate: 1}, nil},
		{"an address written otherwise", QuotaEntity{IP: "0:0::1"}, map[string]float64{QuotaConnectionCreationRate: 1}, nil},
		{"no text", QuotaEntity{ClientID: "\xff"}, map[string]float64{QuotaProducerByteRate: 1}, nil},
		{"nothing", user, nil, nil},
		{"zero", user, map[string]float64{QuotaProducerByteRate: 0}, nil},
		{"no number", user, map[string]float64{QuotaProducerByteRate: math.NaN()}, nil},
		{"infinity", user, map[string]float64{QuotaRequestPercentage: math.Inf(1)}, nil},
		{"half a byte", user, map[string]float64{QuotaProducerByteRate: 1.5}, nil},
		{"an unknown name", user, map[string]float64{"speed": 1}, nil},
		{"connections of a user", user, map[string]float64{QuotaConnectionCreationRate: 1}, nil},
		{"bytes of an address", QuotaEntity{DefaultIP: true}, map[string]float64{QuotaProducerByteRate: 1}, nil},
		{"set and unset", user, map[string]float64{QuotaProducerByteRate: 1}, []string{QuotaProducerByteRate}},
		{"unset an unknown name", user, nil, []string{"speed"}},
	} {
		if err := e.AlterQuota(ctx, row.entity, row.set, row.unset...); !errors.Is(err, ErrInvalidQuota) {
			t.Errorf("%s: %v", row.name, err)
		}
	}
	if !e.QuotaTable().Empty() {
		t.Error("there is a quota")
	}
	for i, c := range []struct {
		entity QuotaEntity
		value  float64
	}{
		{QuotaEntity{User: "u", ClientID: "c"}, 1}, {QuotaEntity{User: "u", DefaultClientID: true}, 2}, {QuotaEntity{User: "u"}, 3},
		{QuotaEntity{DefaultUser: true, ClientID: "c"}, 4}, {QuotaEntity{DefaultUser: true, DefaultClientID: true}, 5}, {QuotaEntity{DefaultUser: true}, 6},
		{QuotaEntity{ClientID: "c"}, 7}, {QuotaEntity{DefaultClientID: true}, 8},
	} {
		if err := e.AlterQuota(ctx, c.entity, map[string]float64{QuotaProducerByteRate: c.value}); err != nil {
			t.Fatal(i, err)
		}
	}
	if err := e.AlterQuota(ctx, QuotaEntity{DefaultIP: true}, map[string]float64{QuotaConnectionCreationRate: 9}); err != nil {
		t.Fatal(err)
	}
	if err := e.AlterQuota(ctx, QuotaEntity{IP: "::1"}, map[string]float64{QuotaConnectionCreationRate: 10}); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	e = openSecurity(t, fs)
	look := func(user, client string) string {
		v, share, ok := e.QuotaTable().Lookup(QuotaProducerByteRate, user, client)
		if !ok {
			return "none"
		}
		return fmt.Sprint(v, " ", share)
	}
	// Each row is asked, and then its quota taken away.
	for _, row := range []struct {
		user, client, want string
		entity             QuotaEntity
	}{
		{"u", "c", `1 user "u", client-id "c"`, QuotaEntity{User: "u", ClientID: "c"}},
		{"u", "c", `2 user "u", client-id "c"`, QuotaEntity{User: "u", DefaultClientID: true}},
		{"u", "c", `3 user "u"`, QuotaEntity{User: "u"}},
		{"u", "c", `4 user "u", client-id "c"`, QuotaEntity{DefaultUser: true, ClientID: "c"}},
		{"u", "c", `5 user "u", client-id "c"`, QuotaEntity{DefaultUser: true, DefaultClientID: true}},
		{"u", "c", `6 user "u"`, QuotaEntity{DefaultUser: true}},
		{"u", "c", `7 client-id "c"`, QuotaEntity{ClientID: "c"}},
		{"u", "c", `8 client-id "c"`, QuotaEntity{DefaultClientID: true}},
		{"u", "c", "none", QuotaEntity{}},
	} {
		if got := look(row.user, row.client); got != row.want {
			t.Errorf("%s, %s: %s, want %s", row.user, row.client, got, row.want)
		}
		if row.entity == (QuotaEntity{}) {
			continue
		}
		if err := e.AlterQuota(ctx, row.entity, nil, QuotaProducerByteRate); err != nil {
			t.Fatal(err)
		}
	}
	if v, ok := e.QuotaTable().LookupIP(QuotaConnectionCreationRate, "::1"); v != 10 || !ok {
		t.Error(v, ok)
	}
	if v, ok := e.QuotaTable().LookupIP(QuotaConnectionCreationRate, "::2"); v != 9 || !ok {
		t.Error(v, ok)
	}
	if list := e.Quotas(); len(list) != 2 || list[0].Entity != (QuotaEntity{DefaultIP: true}) {
		t.Errorf("%+v", list)
	}
}

// A client without an id, or without a user, has no quota of a part that it has not.
func TestQuotaOfHalfAnEntity(t *testing.T) {
	e := openSecurity(t, vfs.NewMem())
	for entity, value := range map[QuotaEntity]float64{{User: "u"}: 1, {ClientID: "c"}: 2, {DefaultUser: true}: 3, {DefaultClientID: true}: 4} {
		if err := e.AlterQuota(ctx, entity, map[string]float64{QuotaConsumerByteRate: value}); err != nil {
			t.Fatal(err)
		}
	}
	for _, row := range []struct {
		user, client, want string
	}{
		{"u", "", `1 user "u"`}, {"v", "", `3 user "v"`}, {"u", "c", `1 user "u"`}, {"v", "c", `3 user "v"`},
	} {
		v, share, ok := e.QuotaTable().Lookup(QuotaConsumerByteRate, row.user, row.client)
		if got := fmt.Sprint(v, " ", share); !ok || got != row.want {
			t.Errorf("%q, %q: %s, want %s", row.user, row.client, got, row.want)
		}
	}
}

// Who looks up sees each change whole, while others make them.
func TestSecurityConcurrently(t *testing.T) {
	e := openSecurity(t, vfs.NewMem())
	life, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for life.Err() == nil {
				if u, ok := e.User("a"); ok && len(u.Credentials) != 2 {
					t.Errorf("%d credentials", len(u.Credentials))
					return
				}
				if n := e.ACLSet().Len(); n%2 != 0 {
					t.Errorf("%d ACLs", n)
					return
				}
				e.QuotaTable().Lookup(QuotaProducerByteRate, "a", "b")
			}
		})
	}
	pair := []acl.ACL{{Resource: acl.ResourceTopic, Name: "x", Principal: "User:a", Operation: acl.OpRead}, {Resource: acl.ResourceTopic, Name: "y", Principal: "User:a", Operation: acl.OpRead}}
	for range testcount.N(200) {
		err := errors.Join(
			e.AlterUser(ctx, "a", []*scram.Credential{testCredential(scram.SHA256, "a"), testCredential(scram.SHA512, "b")}),
			e.CreateACLs(ctx, pair), e.AlterQuota(ctx, QuotaEntity{User: "a"}, map[string]float64{QuotaProducerByteRate: 5}),
			e.DeleteUser(ctx, "a"),
		)
		if _, derr := e.DeleteACLs(ctx, acl.Filter{}); err != nil || derr != nil {
			t.Fatal(err, derr)
		}
	}
	end()
	wg.Wait()
}
