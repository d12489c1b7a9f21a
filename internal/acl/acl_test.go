package acl

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/x/embedlog/internal/testcount"
)

// parseACL reads "User:a allow READ topic:orders from 10.0.0.1"; a name that ends in
// ".." is a prefix.
func parseACL(t *testing.T, s string) *ACL {
	t.Helper()
	f := strings.Fields(s)
	host := Wildcard
	if len(f) == 6 && f[4] == "from" {
		host = f[5]
	} else if len(f) != 4 {
		t.Fatalf("%q is no ACL", s)
	}
	permission, err1 := ParsePermission(f[1])
	op, err2 := ParseOperation(f[2])
	kind, name, _ := strings.Cut(f[3], ":")
	resource, err3 := ParseResourceType(kind)
	if err1 != nil || err2 != nil || err3 != nil {
		t.Fatal(s, err1, err2, err3)
	}
	a := &ACL{Resource: resource, Pattern: PatternLiteral, Name: name, Principal: f[0], Host: host, Operation: op, Permission: permission}
	if prefix, ok := strings.CutSuffix(name, ".."); ok {
		a.Name, a.Pattern = prefix, PatternPrefixed
	}
	if why := a.Reason(); why != "" {
		t.Fatal(s, why)
	}
	return a
}

func parseSet(t *testing.T, text string) *Set {
	s := &Set{}
	for _, line := range strings.Split(text, ";") {
		if line = strings.TrimSpace(line); line != "" {
			s.Insert(parseACL(t, line))
		}
	}
	return s
}

func TestRules(t *testing.T) {
	for _, row := range []struct {
		name, acls string
		ask        string // principal, host, operation, topic
		want       bool
	}{
		{"nothing", "", "alice 1.1.1.1 READ orders", false},
		{"allowed", "User:alice allow READ topic:orders", "alice 1.1.1.1 READ orders", true},
		{"another operation", "User:alice allow READ topic:orders", "alice 1.1.1.1 WRITE orders", false},
		{"another topic", "User:alice allow READ topic:orders", "alice 1.1.1.1 READ orders2", false},
		{"another principal", "User:alice allow READ topic:orders", "alic 1.1.1.1 READ orders", false},
		{"a principal that begins alike", "User:alice allow READ topic:orders", "alice2 1.1.1.1 READ orders", false},
		{"another type", "User:alice allow READ group:orders", "alice 1.1.1.1 READ orders", false},
		{"everybody", "User:* allow READ topic:orders", "bob 1.1.1.1 READ orders", true},
		{"a user called * has no more than everybody", "User:* allow READ topic:orders", "* 1.1.1.1 WRITE orders", false},
		{"every topic", "User:alice allow READ topic:*", "alice 1.1.1.1 READ x", true},
		{"all operations", "User:alice allow ALL topic:orders", "alice 1.1.1.1 ALTER orders", true},
		{"prefix", "User:alice allow READ topic:ord..", "alice 1.1.1.1 READ orders", true},
		{"prefix as a whole", "User:alice allow READ topic:orders..", "alice 1.1.1.1 READ orders", true},
		{"prefix that is longer", "User:alice allow READ topic:orders-..", "alice 1.1.1.1 READ orders", false},
		{"a star in a prefix is a letter", "User:alice allow READ topic:*..", "alice 1.1.1.1 READ orders", false},
		{"host", "User:alice allow READ topic:orders from 1.1.1.1", "alice 1.1.1.1 READ orders", true},
		{"another host", "User:alice allow READ topic:orders from 1.1.1.1", "alice 1.1.1.2 READ orders", false},
		{"read is describe", "User:alice allow READ topic:orders", "alice 1.1.1.1 DESCRIBE orders", true},
		{"write is describe", "User:alice allow WRITE topic:orders", "alice 1.1.1.1 DESCRIBE orders", true},
		{"delete is describe", "User:alice allow DELETE topic:orders", "alice 1.1.1.1 DESCRIBE orders", true},
		{"alter is describe", "User:alice allow ALTER topic:orders", "alice 1.1.1.1 DESCRIBE orders", true},
		{"create is not", "User:alice allow CREATE topic:orders", "alice 1.1.1.1 DESCRIBE orders", false},
		{"alter configs is describe configs", "User:alice allow ALTER_CONFIGS topic:orders", "alice 1.1.1.1 DESCRIBE_CONFIGS orders", true},
		{"alter is not describe configs", "User:alice allow ALTER topic:orders", "alice 1.1.1.1 DESCRIBE_CONFIGS orders", false},
		{"deny wins", "User:alice allow READ topic:orders; User:alice deny READ topic:orders", "alice 1.1.1.1 READ orders", false},
		{"deny for everybody wins", "User:alice allow READ topic:orders; User:* deny READ topic:orders", "alice 1.1.1.1 READ orders", false},
		{"deny by prefix wins", "User:alice allow READ topic:orders; User:alice deny ALL topic:o..", "alice 1.1.1.1 READ orders", false},
		{"deny of every topic wins", "User:alice allow READ topic:orders; User:alice deny READ topic:*", "alice 1.1.1.1 READ orders", false},
		{"deny from another host", "User:alice allow READ topic:orders; User:alice deny READ topic:orders from 2.2.2.2", "alice 1.1.1.1 READ orders", true},
		{"deny read leaves describe", "User:alice allow DESCRIBE topic:orders; User:alice deny READ topic:orders", "alice 1.1.1.1 DESCRIBE orders", true},
		{"a prefix between others", "User:a allow READ topic:o..; User:a allow READ topic:ob..; User:a allow READ topic:orange..; User:a allow READ topic:order..", "a 1.1.1.1 READ ordinary", true},
	} {
		f := strings.Fields(row.ask)
		op, err := ParseOperation(f[2])
		if err != nil {
			t.Fatal(err)
		}
		set := parseSet(t, row.acls)
		r := &Rules{Set: func() *Set { return set }}
		if got := r.Authorize(context.Background(), User(f[0]), f[1], op, ResourceTopic, f[3]); got != row.want {
			t.Errorf("%s: %q with %q: %t, want %t", row.name, row.ask, row.acls, got, row.want)
		}
	}
}

// What no ACL is about can be allowed to all, and super users need none.
func TestWithoutACL(t *testing.T) {
	set := parseSet(t, "User:alice allow READ topic:orders; User:alice deny ALL group:*")
	open := &Rules{Set: func() *Set { return set }, EveryoneIfNoACL: true, SuperUsers: []Principal{User("root")}}
	ctx := context.Background()
	for _, row := range []struct {
		user     string
		resource ResourceType
		name     string
		want     bool
	}{
		{"bob", ResourceTopic, "other", true},
		{"bob", ResourceTopic, "orders", false}, // there are some, for others
		{"bob", ResourceGroup, "g", false},
		{"root", ResourceGroup, "g", true},
		{"root", ResourceTopic, "orders", true},
	} {
		if got := open.Authorize(ctx, User(row.user), "h", OpRead, row.resource, row.name); got != row.want {
			t.Errorf("%s: %s %s: %t, want %t", row.user, row.resource, row.name, got, row.want)
		}
	}
	open.SuperUsers = []Principal{{Type: "Group", Name: "root"}}
	if open.Authorize(ctx, User("root"), "h", OpRead, ResourceTopic, "orders") {
		t.Error("a super user of another type")
	}
}

func TestAny(t *testing.T) {
	for _, row := range []struct {
		name, acls string
		want       bool
	}{
		{"nothing", "", false},
		{"one", "User:a allow WRITE topic:x", true},
		{"another's", "User:b allow WRITE topic:x", false},
		{"another operation", "User:a allow READ topic:x", false},
		{"denied", "User:a allow WRITE topic:x; User:a deny WRITE topic:x", false},
		{"denied by prefix", "User:a allow WRITE topic:x; User:* deny WRITE topic:x..", false},
		{"prefix, one of its names denied", "User:a allow WRITE topic:x..; User:a deny WRITE topic:x", true},
		{"prefix denied by a shorter one", "User:a allow WRITE topic:xy..; User:a deny WRITE topic:x..", false},
		{"prefix, a longer one denied", "User:a allow WRITE topic:x..; User:a deny WRITE topic:xy..", true},
		{"all, some denied", "User:a allow WRITE topic:*; User:a deny WRITE topic:x..", true},
		{"all denied", "User:a allow WRITE topic:x; User:a deny ALL topic:*", false},
	} {
		set := parseSet(t, row.acls)
		r := &Rules{Set: func() *Set { return set }}
		if got := r.AuthorizeAny(context.Background(), User("a"), "h", OpWrite, ResourceTopic); got != row.want {
			t.Errorf("%s: %t, want %t", row.name, got, row.want)
		}
	}
}

// naiveAuthorize is Kafka's rule, said over a list: of all ACLs that are about the
// resource, one that denies decides, then one that allows.
func naiveAuthorize(list []*ACL, p, host string, op Operation, resource ResourceType, name string) Decision {
	implied := map[Operation][]Operation{
		OpDescribe:        {OpDescribe, OpRead, OpWrite, OpDelete, OpAlter},
		OpDescribeConfigs: {OpDescribeConfigs, OpAlterConfigs},
	}
	decision := Unknown
	for _, a := range list {
		about := a.Name == name || a.Name == "*"
		if a.Pattern == PatternPrefixed {
			about = len(name) >= len(a.Name) && name[:len(a.Name)] == a.Name
		}
		if a.Resource != resource || !about {
			continue
		}
		if decision == Unknown {
			decision = NoneMatch
		}
		if a.Principal != p && a.Principal != "User:*" || a.Host != "*" && a.Host != host {
			continue
		}
		ops := []Operation{op}
		if a.Permission == Allow && implied[op] != nil {
			ops = implied[op]
		}
		if a.Operation != OpAll && !slices.Contains(ops, a.Operation) {
			continue
		}
		if a.Permission == Deny {
			return Denied
		}
		decision = Allowed
	}
	return decision
}

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

func randomName(r *rand.Rand) string {
	if r.IntN(8) == 0 {
		return Wildcard
	}
	b := make([]byte, 1+r.IntN(4))
	for i := range b {
		b[i] = byte('a' + r.IntN(2))
	}
	return string(b)
}

func randomACL(r *rand.Rand) *ACL {
	return &ACL{
		Resource: pick(r, ResourceTopic, ResourceTopic, ResourceGroup, ResourceUser), Pattern: pick(r, PatternLiteral, PatternPrefixed), Name: randomName(r),
		Principal: pick(r, "User:a", "User:b", "User:*", "User:ab", "Usera:b", "U:a"), Host: pick(r, "*", "*", "h", "i"),
		Operation: Operation(2 + r.IntN(10)), Permission: pick(r, Deny, Allow, Allow, Allow),
	}
}

// A set decides as the rule over a list does, whatever was put in and taken out, and
// holds what a list would.
func TestSetAgainstAList(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 1))
	decisions := map[Decision]int{}
	rounds := max(testcount.N(150), 50) // fewer do not meet every decision
	for range rounds {
		s, list := &Set{}, []*ACL{}
		for range 1 + r.IntN(30) {
			a := randomACL(r)
			at := slices.IndexFunc(list, func(b *ACL) bool { return *a == *b })
			if s.Has(a) != (at >= 0) {
				t.Fatalf("seed %d: has %s: %t", seed, a, at < 0)
			}
			if r.IntN(5) > 0 {
				if s.Insert(a) != (at < 0) {
					t.Fatalf("seed %d: insert %s", seed, a)
				}
				if at < 0 {
					list = append(list, a)
				}
			} else if s.Remove(a) != (at >= 0) {
				t.Fatalf("seed %d: remove %s", seed, a)
			} else if at >= 0 {
				list = slices.Delete(list, at, at+1)
			}
		}
		slices.SortFunc(list, (*ACL).Compare)
		if got := slices.Collect(s.All()); !slices.EqualFunc(got, list, func(a, b *ACL) bool { return *a == *b }) || s.Len() != len(list) {
			t.Fatalf("seed %d:\ngot  %v\nwant %v", seed, got, list)
		}
		for range 300 {
			p, host := pick(r, User("a"), User("b"), User("c"), Principal{"Usera", "b"}, Principal{"U", "a"}), pick(r, "h", "i", "j")
			op, resource, name := Operation(3+r.IntN(9)), pick(r, ResourceTopic, ResourceGroup, ResourceUser), randomName(r)
			want := naiveAuthorize(list, p.String(), host, op, resource, name)
			if got := s.Decide(p, host, op, resource, name); got != want {
				t.Fatalf("seed %d: %s from %s, %s %s %s: %d, want %d of %v", seed, p, host, op, resource, name, got, want, list)
			}
			decisions[want]++
		}
	}
	for d := Unknown; d <= Denied; d++ {
		if decisions[d] < rounds/10 {
			t.Errorf("decision %d came %d times only", d, decisions[d])
		}
	}
}

func TestFilter(t *testing.T) {
	text := func(s string) *string { return &s }
	set := parseSet(t, "User:a allow READ topic:orders; User:b deny WRITE topic:*; User:a allow READ topic:ord..; User:a allow READ group:orders; User:c allow READ topic:pay from 1.1.1.1")
	for _, row := range []struct {
		name string
		f    Filter
		want string // the principals and names
	}{
		{"all", Filter{}, "b * a orders c pay a orders a ord"},
		{"all, by number", Filter{Resource: ResourceAny, Pattern: PatternAny, Operation: OpAny, Permission: PermissionAny}, "b * a orders c pay a orders a ord"},
		{"topics", Filter{Resource: ResourceTopic}, "b * a orders c pay a ord"},
		{"literal", Filter{Resource: ResourceTopic, Pattern: PatternLiteral, Name: text("orders")}, "a orders"},
		{"prefixed", Filter{Resource: ResourceTopic, Pattern: PatternPrefixed}, "a ord"},
		{"any of that name", Filter{Name: text("ord")}, "a ord"},
		{"match", Filter{Resource: ResourceTopic, Pattern: PatternMatch, Name: text("orders")}, "b * a orders a ord"},
		{"match of a name that is longer", Filter{Resource: ResourceTopic, Pattern: PatternMatch, Name: text("orders2")}, "b * a ord"},
		{"match all", Filter{Pattern: PatternMatch}, "b * a orders c pay a orders a ord"},
		{"principal", Filter{Principal: text("User:c")}, "c pay"},
		{"host", Filter{Host: text("1.1.1.1")}, "c pay"},
		{"every host is no wildcard here", Filter{Host: text("*"), Resource: ResourceGroup}, "a orders"},
		{"operation", Filter{Operation: OpWrite}, "b *"},
		{"permission", Filter{Permission: Deny}, "b *"},
		{"nothing", Filter{Permission: Deny, Operation: OpRead}, ""},
	} {
		var got []string
		for _, a := range set.Match(&row.f) {
			got = append(got, strings.TrimPrefix(a.Principal, "User:"), a.Name)
		}
		if s := strings.Join(got, " "); s != row.want {
			t.Errorf("%s: %q, want %q", row.name, s, row.want)
		}
	}
}

func TestReason(t *testing.T) {
	good := ACL{Resource: ResourceTopic, Name: "x", Principal: "User:a", Operation: OpRead}.WithDefaults()
	if why := good.Reason(); why != "" {
		t.Fatal(why)
	}
	for i, change := range []func(*ACL){
		func(a *ACL) { a.Resource = 0 }, func(a *ACL) { a.Resource = ResourceAny }, func(a *ACL) { a.Resource = 8 },
		func(a *ACL) { a.Pattern = PatternMatch }, func(a *ACL) { a.Pattern = PatternAny }, func(a *ACL) { a.Operation = OpAny }, func(a *ACL) { a.Operation = 16 },
		func(a *ACL) { a.Permission = PermissionAny }, func(a *ACL) { a.Name = "" }, func(a *ACL) { a.Host = "" },
		func(a *ACL) { a.Principal = "alice" }, func(a *ACL) { a.Principal = "User:" }, func(a *ACL) { a.Principal = ":a" },
		func(a *ACL) { a.Resource = ResourceCluster }, func(a *ACL) { a.Name = strings.Repeat("x", MaxNameBytes+1) }, func(a *ACL) { a.Host = "\xff" },
	} {
		a := good
		change(&a)
		if a.Reason() == "" {
			t.Errorf("change %d passes: %s", i, a)
		}
	}
}

func TestWords(t *testing.T) {
	for o := OpAny; o <= OpTwoPhaseCommit; o++ {
		if back, err := ParseOperation(o.String()); err != nil || back != o {
			t.Errorf("%s: %v, %v", o, back, err)
		}
	}
	for r := ResourceAny; r <= ResourceUser; r++ {
		if back, err := ParseResourceType(r.String()); err != nil || back != r {
			t.Errorf("%s: %v, %v", r, back, err)
		}
	}
	if o, err := ParseOperation("describeConfigs"); err != nil || o != OpDescribeConfigs {
		t.Error(o, err)
	}
	if _, err := ParseOperation("readwrite"); err == nil {
		t.Error("readwrite is an operation")
	}
	if s := Operation(99).String(); s != "UNKNOWN(99)" {
		t.Error(s)
	}
	if p, err := ParsePrincipal("User:CN=a:b"); err != nil || p != User("CN=a:b") {
		t.Error(p, err)
	}
	if got := fmt.Sprint(PatternMatch, Deny, ResourceTransactionalID); got != "MATCH DENY TRANSACTIONAL_ID" {
		t.Error(got)
	}
}

func BenchmarkDecide(b *testing.B) {
	for _, n := range []int{10, 10_000} {
		b.Run(fmt.Sprintf("acls=%d", n), func(b *testing.B) {
			s := &Set{}
			for i := range n {
				s.Insert(&ACL{Resource: ResourceTopic, Pattern: PatternType(3 + i%2), Name: fmt.Sprintf("topic-%d", i), Principal: fmt.Sprintf("User:u%d", i%7), Host: "*", Operation: OpRead, Permission: Allow})
			}
			b.ReportAllocs()
			for b.Loop() {
				if s.Decide(User("u3"), "127.0.0.1", OpRead, ResourceTopic, "topic-3") != Allowed {
					b.Fatal("denied")
				}
			}
		})
	}
}
