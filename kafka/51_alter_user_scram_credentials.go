package kafka

import (
	"bytes"
	"fmt"

	"github.com/x/embedlog/internal/scram"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// AlterUserScramCredentials, version 0: the client salts and hashes passwords itself.
// What is asked of one user is done as a whole. (KIP-554)

func init() { register(0, 0, alterUserSCRAM) }

// scramChange is what is asked of one user.
type scramChange struct {
	name  string
	set   []*scram.Credential
	unset []scram.Mechanism
	seen  map[scram.Mechanism]bool
	code  int16
	why   string
}

func (c *scramChange) refuse(code int16, why string) {
	if c.code == codeNone {
		c.code, c.why = code, why
	}
}

// about notes that a mechanism is changed.
func (c *scramChange) about(m scram.Mechanism) {
	if !m.Known() {
		c.refuse(codeUnsupportedSaslMechanism, fmt.Sprintf("there is no SCRAM mechanism %d", m))
	}
	if c.seen[m] {
		c.refuse(codeDuplicateResource, fmt.Sprintf("%s is to be changed twice at once", m))
	}
	c.seen[m] = true
}

func alterUserSCRAM(r *request, q *kmsg.AlterUserSCRAMCredentialsRequest) (kmsg.Response, error) {
	resp := q.ResponseKind().(*kmsg.AlterUserSCRAMCredentialsResponse)
	allowed := r.authorize(OpAlter, ResourceCluster, ClusterName)
	if !allowed {
		q = withoutSecrets(q) // nothing is hashed for who may not change anything
	}
	for _, c := range scramChanges(q) {
		result := kmsg.NewAlterUserSCRAMCredentialsResponseResult()
		result.User = c.name
		switch {
		case !allowed:
			result.ErrorCode = codeClusterAuthorizationFailed
		case c.code != codeNone:
			result.ErrorCode, result.ErrorMessage = c.code, nullable(c.why)
		default:
			err := r.engine.AlterUser(r.life, c.name, c.set, c.unset...)
			result.ErrorCode, result.ErrorMessage = codeOf(err), errorText(err)
		}
		resp.Results = append(resp.Results, result)
	}
	return resp, nil
}

// withoutSecrets is the request as far as it says which users it is about.
func withoutSecrets(q *kmsg.AlterUserSCRAMCredentialsRequest) *kmsg.AlterUserSCRAMCredentialsRequest {
	names := kmsg.NewPtrAlterUserSCRAMCredentialsRequest()
	names.Deletions = q.Deletions
	for i := range q.Upsertions {
		u := kmsg.NewAlterUserSCRAMCredentialsRequestUpsertion()
		u.Name, u.Mechanism = q.Upsertions[i].Name, q.Upsertions[i].Mechanism
		names.Upsertions = append(names.Upsertions, u)
	}
	return names
}

// scramChanges gathers what is asked by user, in the order in which they come.
func scramChanges(q *kmsg.AlterUserSCRAMCredentialsRequest) (list []*scramChange) {
	byName := make(map[string]*scramChange)
	of := func(name string) *scramChange {
		c := byName[name]
		if c == nil {
			c = &scramChange{name: name, seen: make(map[scram.Mechanism]bool)}
			byName[name], list = c, append(list, c)
		}
		return c
	}
	for i := range q.Deletions {
		d := &q.Deletions[i]
		c, m := of(d.Name), scram.Mechanism(d.Mechanism)
		c.about(m)
		c.unset = append(c.unset, m)
	}
	for i := range q.Upsertions {
		u := &q.Upsertions[i]
		c, m := of(u.Name), scram.Mechanism(u.Mechanism)
		if c.about(m); !m.Known() {
			continue
		}
		if len(u.SaltedPassword) != m.KeyBytes() {
			c.refuse(codeUnacceptableCredential, fmt.Sprintf("a salted password of %d bytes: want %d", len(u.SaltedPassword), m.KeyBytes()))
			continue
		}
		c.set = append(c.set, scram.FromSalted(m, int(u.Iterations), bytes.Clone(u.Salt), u.SaltedPassword))
	}
	return list
}
