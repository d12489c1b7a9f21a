package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	embedlog "github.com/x/embedlog"
	iscram "github.com/x/embedlog/internal/scram"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// secured is a server with users root, who may do everything, and alice and bob.
func secured(t *testing.T) (*embedlog.DB, *Server) {
	t.Helper()
	db := openMemory(t, nil)
	setUsers(t, db, "root", "r", "alice", "a", "bob", "b")
	root := Principal{Type: "User", Name: "root"}
	return db, serve(t, db, Options{
		Authorizer: db.Authorizer(&embedlog.AuthorizerOptions{SuperUsers: []Principal{root}}),
		Listeners:  []Listener{{Address: "127.0.0.1:0", SASL: &SASL{}}},
	})
}

func as(t *testing.T, s *Server, user string, opts ...kgo.Opt) *kgo.Client {
	by := scram.Auth{User: user, Pass: user[:1]}.AsSha256Mechanism()
	return client(t, s, append([]kgo.Opt{kgo.SASL(by), kgo.RequestRetries(0), kgo.RecordRetries(0), kgo.DisableClientMetrics()}, opts...)...)
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// ACLs that a client makes are in force for the next request of everybody.
func TestACLsAreInForce(t *testing.T) {
	db, s := secured(t)
	ctx := soon(t)
	for _, name := range []string{"orders", "orders-secret", "payments"} {
		if _, err := db.CreateTopic(ctx, name, nil); err != nil {
			t.Fatal(err)
		}
	}
	root := kadm.NewClient(as(t, s, "root"))
	alice := as(t, s, "alice")
	produce := func(topic string) error {
		return alice.ProduceSync(ctx, &kgo.Record{Topic: topic, Value: []byte("v")}).FirstErr()
	}
	if err := produce("orders"); !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Fatalf("before: %v", err)
	}
	b := kadm.NewACLs().Allow("User:alice").AllowHosts("*").Topics("orders").ResourcePatternType(kadm.ACLPatternPrefixed).Operations(kadm.OpWrite)
	created, err := root.CreateACLs(ctx, b)
	if err != nil || len(created) != 1 || created[0].Err != nil {
		t.Fatal(err, created)
	}
	b = kadm.NewACLs().Deny("User:*").DenyHosts("*").Topics("orders-secret").ResourcePatternType(kadm.ACLPatternLiteral).Operations(kadm.OpAll)
	if created, err := root.CreateACLs(ctx, b); err != nil || created[0].Err != nil {
		t.Fatal(err, created)
	}
	for topic, want := range map[string]error{"orders": nil, "orders-secret": kerr.TopicAuthorizationFailed, "payments": kerr.TopicAuthorizationFailed} {
		if err := produce(topic); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", topic, err, want)
		}
	}
	topics, err := kadm.NewClient(alice).ListTopics(ctx)
	if err != nil || strings.Join(topics.Names(), " ") != "orders" {
		t.Errorf("alice sees %v, %v", topics.Names(), err)
	}

	match := kadm.NewACLs().AnyResource("orders").ResourcePatternType(kadm.ACLPatternMatch).Operations().Allow().AllowHosts().Deny().DenyHosts()
	described, err := root.DescribeACLs(ctx, match)
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, d := range described {
		for _, a := range d.Described {
			found = append(found, fmt.Sprintf("%s %s %s", a.Principal, a.Name, a.Operation))
		}
	}
	if want := "User:alice orders WRITE"; !slices.Contains(found, want) || slices.Contains(found, "User:* orders-secret ALL") {
		t.Errorf("found %q, want %q", found, want)
	}
	deleted, err := root.DeleteACLs(ctx, kadm.NewACLs().Topics("orders").ResourcePatternType(kadm.ACLPatternPrefixed).Operations(kadm.OpWrite).Allow("User:alice").AllowHosts("*"))
	if err != nil || len(deleted) != 1 || len(deleted[0].Deleted) != 1 || deleted[0].Err != nil {
		t.Fatal(err, deleted)
	}
	if err := produce("orders"); !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Errorf("after: %v", err)
	}
	if left := db.ACLs(embedlog.ACLFilter{}); len(left) != 1 || left[0].Permission != embedlog.Deny {
		t.Errorf("left: %v", left)
	}
}

// Who may not see or change them is told so, and changes nothing.
func TestSecurityNeedsAuthorization(t *testing.T) {
	db, s := secured(t)
	ctx := soon(t)
	alice := kadm.NewClient(as(t, s, "alice"))
	acl := kadm.NewACLs().Allow("User:alice").AllowHosts("*").Clusters().Operations(kadm.OpAll).ResourcePatternType(kadm.ACLPatternLiteral)
	created, err := alice.CreateACLs(ctx, acl)
	if err != nil || !errors.Is(created[0].Err, kerr.ClusterAuthorizationFailed) {
		t.Error(err, created)
	}
	deleted, err := alice.DeleteACLs(ctx, acl)
	if err != nil || !errors.Is(deleted[0].Err, kerr.ClusterAuthorizationFailed) {
		t.Error(err, deleted)
	}
	described, err := alice.DescribeACLs(ctx, acl)
	if err == nil && (len(described) == 0 || !errors.Is(described[0].Err, kerr.ClusterAuthorizationFailed)) {
		t.Error(err, described)
	}
	altered, err := alice.AlterUserSCRAMs(ctx, nil, []kadm.UpsertSCRAM{{User: "root", Mechanism: kadm.ScramSha256, Iterations: 4096, Password: "mine"}})
	if !errors.Is(err, kerr.ClusterAuthorizationFailed) { // kadm makes one error of all
		t.Error(err, altered)
	}
	if _, err := alice.DescribeUserSCRAMs(ctx); !errors.Is(err, kerr.ClusterAuthorizationFailed) {
		t.Error(err)
	}
	everybody := kadm.ClientQuotaEntity{{Type: "user"}}
	quotas, err := alice.AlterClientQuotas(ctx, []kadm.AlterClientQuotaEntry{{Entity: everybody, Ops: []kadm.AlterClientQuotaOp{{Key: "producer_byte_rate", Value: 1}}}})
	if err != nil || !errors.Is(quotas[0].Err, kerr.ClusterAuthorizationFailed) {
		t.Error(err, quotas)
	}
	if _, err := alice.DescribeClientQuotas(ctx, false, nil); !errors.Is(err, kerr.ClusterAuthorizationFailed) {
		t.Error(err)
	}
	if len(db.ACLs(embedlog.ACLFilter{})) != 0 || len(db.Quotas()) != 0 || db.CheckPassword("root", "mine") {
		t.Error("something was changed")
	}
}

// Without an authorizer ACLs would not be looked at, and clients hear so.
func TestACLsWithoutAuthorizer(t *testing.T) {
	s := pipeServer(t, openMemory(t, nil), Options{})
	x := dial(t, s, nil)
	d := kmsg.NewPtrDescribeACLsRequest()
	d.Version, d.ResourceType, d.ResourcePatternType, d.Operation, d.PermissionType = 3, 1, 1, 1, 1
	if r := do[*kmsg.DescribeACLsResponse](x, d); r.ErrorCode != codeSecurityDisabled {
		t.Errorf("%+v", r)
	}
	c := kmsg.NewPtrCreateACLsRequest()
	c.Version, c.Creations = 2, []kmsg.CreateACLsRequestCreation{kmsg.NewCreateACLsRequestCreation()}
	if r := do[*kmsg.CreateACLsResponse](x, c); len(r.Results) != 1 || r.Results[0].ErrorCode != codeSecurityDisabled {
		t.Errorf("%+v", r)
	}
}

// What is not valid is refused by itself: the others are done.
func TestACLRequestsInParts(t *testing.T) {
	db := openMemory(t, nil)
	s := pipeServer(t, db, Options{Authorizer: &witness{}})
	x := dial(t, s, nil)
	q := kmsg.NewPtrCreateACLsRequest()
	for _, c := range []struct {
		principal  string
		resource   kmsg.ACLResourceType
		pattern    kmsg.ACLResourcePatternType
		permission kmsg.ACLPermissionType
		host       string
	}{
		{"User:a", 2, 3, 3, "*"}, {"a", 2, 3, 3, "*"}, {"User:a", 2, 0, 3, "*"}, {"User:a", 4, 3, 3, "*"}, {"User:a", 2, 3, 0, "*"}, {"User:a", 2, 3, 3, ""}, {"User:b", 2, 4, 2, "::1"},
	} {
		a := kmsg.NewCreateACLsRequestCreation()
		a.Principal, a.ResourceType, a.ResourceName, a.ResourcePatternType, a.Host, a.Operation, a.PermissionType = c.principal, c.resource, "x", c.pattern, c.host, 3, c.permission
		q.Creations = append(q.Creations, a)
	}
	q.Version = 3
	var codes []int16
	for _, r := range do[*kmsg.CreateACLsResponse](x, q).Results {
		codes = append(codes, r.ErrorCode)
	}
	bad := codeInvalidRequest
	if want := []int16{0, bad, bad, bad, bad, bad, 0}; !slices.Equal(codes, want) || len(db.ACLs(embedlog.ACLFilter{})) != 2 {
		t.Errorf("%v, want %v; %v", codes, want, db.ACLs(embedlog.ACLFilter{}))
	}
	del := kmsg.NewPtrDeleteACLsRequest()
	for _, resource := range []kmsg.ACLResourceType{0, 2, 9} {
		f := kmsg.NewDeleteACLsRequestFilter()
		f.ResourceType, f.ResourcePatternType, f.Operation, f.PermissionType = resource, 1, 1, 1
		del.Filters = append(del.Filters, f)
	}
	del.Version = 2
	r := do[*kmsg.DeleteACLsResponse](x, del).Results
	if r[0].ErrorCode != bad || r[1].ErrorCode != codeNone || len(r[1].MatchingACLs) != 2 || r[2].ErrorCode != bad {
		t.Errorf("%+v", r)
	}
}

// A user that a client makes can come in; one that it takes away cannot.
func TestUsersByAClient(t *testing.T) {
	db, s := secured(t)
	ctx := soon(t)
	root := kadm.NewClient(as(t, s, "root"))
	altered, err := root.AlterUserSCRAMs(ctx, nil, []kadm.UpsertSCRAM{
		{User: "carol", Mechanism: kadm.ScramSha256, Iterations: 5000, Password: "c"}, {User: "carol", Mechanism: kadm.ScramSha512, Iterations: 5000, Password: "c"},
	})
	if err != nil || altered["carol"].Err != nil {
		t.Fatal(err, altered)
	}
	if err := askOnce(as(t, s, "carol")); err != nil {
		t.Errorf("carol: %v", err)
	}
	described, err := root.DescribeUserSCRAMs(ctx, "carol", "dave")
	if err != nil || len(described["carol"].CredInfos) != 2 || described["carol"].CredInfos[0].Iterations != 5000 || !errors.Is(described["dave"].Err, kerr.ResourceNotFound) {
		t.Errorf("%v, %+v", err, described)
	}
	if all, err := root.DescribeUserSCRAMs(ctx); err != nil || len(all) != 4 {
		t.Errorf("%v, %+v", err, all)
	}
	altered, err = root.AlterUserSCRAMs(ctx, []kadm.DeleteSCRAM{{User: "carol", Mechanism: kadm.ScramSha256}, {User: "dave", Mechanism: kadm.ScramSha256}}, nil)
	if err != nil || altered["carol"].Err != nil || !errors.Is(altered["dave"].Err, kerr.ResourceNotFound) {
		t.Errorf("%v, %+v", err, altered)
	}
	if err := askOnce(as(t, s, "carol")); !errors.Is(err, kerr.SaslAuthenticationFailed) {
		t.Errorf("carol by a mechanism that was taken away: %v", err)
	}
	if !db.CheckPassword("carol", "c") {
		t.Error("carol's other credential is gone")
	}
}

func TestAlterUserSCRAMRefuses(t *testing.T) {
	db := openMemory(t, nil)
	setUsers(t, db, "alice", "a")
	x := dial(t, pipeServer(t, db, Options{}), nil)
	salted := make([]byte, 32)
	up := func(name string, m int8, iterations int32, salt string, salted []byte) kmsg.AlterUserSCRAMCredentialsRequestUpsertion {
		u := kmsg.NewAlterUserSCRAMCredentialsRequestUpsertion()
		u.Name, u.Mechanism, u.Iterations, u.Salt, u.SaltedPassword = name, m, iterations, []byte(salt), salted
		return u
	}
	q := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
	q.Upsertions = []kmsg.AlterUserSCRAMCredentialsRequestUpsertion{
		up("", 1, 4096, "s", salted), up("few", 1, 4095, "s", salted), up("many", 1, 16385, "s", salted), up("what", 3, 4096, "s", salted),
		up("short", 1, 4096, "s", salted[:8]), up("saltless", 1, 4096, "", salted), up("twice", 1, 4096, "s", salted), up("twice", 1, 4096, "s", salted), up("good", 1, 4096, "s", salted),
		up("alice", 1, 4096, "s", salted),
	}
	d := kmsg.NewAlterUserSCRAMCredentialsRequestDeletion()
	d.Name, d.Mechanism = "alice", 1
	q.Deletions = append(q.Deletions, d)
	got := map[string]int16{}
	for _, r := range do[*kmsg.AlterUserSCRAMCredentialsResponse](x, q).Results {
		if _, twice := got[r.User]; twice {
			t.Errorf("%q is answered twice", r.User)
		}
		got[r.User] = r.ErrorCode
	}
	for name, want := range map[string]int16{
		"": codeUnacceptableCredential, "few": codeUnacceptableCredential, "many": codeUnacceptableCredential, "what": codeUnsupportedSaslMechanism,
		"short": codeUnacceptableCredential, "saltless": codeUnacceptableCredential, "twice": codeDuplicateResource, "good": codeNone, "alice": codeDuplicateResource,
	} {
		if code, ok := got[name]; !ok || code != want {
			t.Errorf("%q: %d, want %d", name, code, want)
		}
	}
	if c, known := db.Engine().Credential("good", iscram.SHA256); !known || c.Iterations != 4096 || len(db.Users()) != 2 || !db.CheckPassword("alice", "a") {
		t.Errorf("users %+v", db.Users())
	}
}

func TestQuotaRequests(t *testing.T) {
	db := openMemory(t, nil)
	x := dial(t, pipeServer(t, db, Options{}), nil)
	// An entity is "user=a,client-id=", of which an empty name is the default.
	entity := func(s string) (list []kmsg.AlterClientQuotasRequestEntryEntity) {
		for part := range strings.SplitSeq(s, ",") {
			kind, name, _ := strings.Cut(part, "=")
			e := kmsg.NewAlterClientQuotasRequestEntryEntity()
			if e.Type = kind; name != "" {
				e.Name = &name
			}
			list = append(list, e)
		}
		return list
	}
	alter := func(who, key string, value float64, remove, validate bool) int16 {
		t.Helper()
		q := kmsg.NewPtrAlterClientQuotasRequest()
		e, op := kmsg.NewAlterClientQuotasRequestEntry(), kmsg.NewAlterClientQuotasRequestEntryOp()
		op.Key, op.Value, op.Remove = key, value, remove
		e.Entity, e.Ops = entity(who), append(e.Ops, op)
		q.Version, q.ValidateOnly, q.Entries = 1, validate, append(q.Entries, e)
		return do[*kmsg.AlterClientQuotasResponse](x, q).Entries[0].ErrorCode
	}
	for _, row := range []struct {
		who, key string
		value    float64
		want     int16
	}{
		{"user=a", "producer_byte_rate", 1000, codeNone}, {"user=", "producer_byte_rate", 2000, codeNone}, {"user=a,client-id=", "consumer_byte_rate", 10, codeNone},
		{"client-id=c", "request_percentage", 12.5, codeNone}, {"ip=127.0.0.1", "connection_creation_rate", 5, codeNone},
		{"ip=127.0.0.1,user=a", "connection_creation_rate", 5, codeInvalidRequest}, {"user=a", "speed", 5, codeInvalidRequest},
		{"user=a,user=b", "producer_byte_rate", 5, codeInvalidRequest}, {"group=a", "producer_byte_rate", 5, codeInvalidRequest}, {"user=a", "producer_byte_rate", -5, codeInvalidRequest},
	} {
		if code := alter(row.who, row.key, row.value, false, true); code != row.want {
			t.Errorf("validate %s %s: %d, want %d", row.who, row.key, code, row.want)
		}
		before := len(db.Quotas())
		if code := alter(row.who, row.key, row.value, false, false); code != row.want || len(db.Quotas()) > before != (row.want == codeNone) {
			t.Errorf("%s %s: %d, want %d", row.who, row.key, code, row.want)
		}
	}
	// A filter is "user=a" (exactly), "user=" (the default) or "user" (any).
	describe := func(filter string, strict bool) string {
		t.Helper()
		q := kmsg.NewPtrDescribeClientQuotasRequest()
		q.Version, q.Strict = 1, strict
		for part := range strings.SplitSeq(filter, ",") {
			if part == "" {
				continue
			}
			kind, name, named := strings.Cut(part, "=")
			c := kmsg.NewDescribeClientQuotasRequestComponent()
			c.EntityType, c.MatchType = kind, 2
			if named {
				c.MatchType = 1
				if name != "" {
					c.MatchType, c.Match = 0, &name
				}
			}
			q.Components = append(q.Components, c)
		}
		r := do[*kmsg.DescribeClientQuotasResponse](x, q)
		if r.ErrorCode != codeNone {
			return fmt.Sprint("error ", r.ErrorCode)
		}
		var list []string
		for _, e := range r.Entries {
			for _, v := range e.Values {
				list = append(list, fmt.Sprint(v.Value))
			}
		}
		slices.Sort(list)
		return strings.Join(list, " ")
	}
	for _, row := range []struct {
		filter string
		strict bool
		want   string
	}{
		{"", false, "10 1000 12.5 2000 5"}, {"", true, ""}, {"user", false, "10 1000 2000"}, {"user", true, "1000 2000"}, {"user=a", false, "10 1000"}, {"user=a", true, "1000"},
		{"user=", false, "2000"}, {"user=a,client-id=", true, "10"}, {"client-id", false, "10 12.5"}, {"ip", false, "5"},
		{"ip,user", false, "error 42"}, {"user,user=a", false, "error 42"}, {"group", false, "error 35"},
	} {
		if got := describe(row.filter, row.strict); got != row.want {
			t.Errorf("%q, strict %t: %s, want %s", row.filter, row.strict, got, row.want)
		}
	}
	if code := alter("user=a", "producer_byte_rate", 0, true, false); code != codeNone || describe("user=a", true) != "" {
		t.Errorf("remove: %d, %q", code, describe("user=a", true))
	}
}
