package engine

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/x/embedlog/internal/acl"
	"github.com/x/embedlog/internal/scram"
)

// security is the part of the metadata that says who may come in, do what, and how
// much of it: users, ACLs and quotas. It changes by metadata.apply only. What its
// maps and its set hold is never changed, so that a view needs the outermost copied.
type security struct {
	users  map[string]credentials
	acls   *acl.Set
	quotas map[QuotaEntity]map[string]float64
	bytes  int // about what it takes in a snapshot
}

// credentials are those of one user, by mechanism; nil is none.
type credentials [scram.SHA512 + 1]*scram.Credential

// How much of it there may be: all of it is in memory.
const (
	maxUsers       = 10_000
	maxACLs        = 100_000
	maxQuotas      = 10_000
	maxUserName    = 255
	maxQuotaName   = 64
	maxQuotaValues = 16 // of one entity
)

func newSecurity() security {
	return security{users: make(map[string]credentials), acls: &acl.Set{}, quotas: make(map[QuotaEntity]map[string]float64)}
}

func (s *security) empty() bool { return len(s.users) == 0 && s.acls.Len() == 0 && len(s.quotas) == 0 }

// securityView is what readers see of it: it is replaced, never changed.
type securityView struct {
	users  map[string]credentials
	acls   *acl.Set
	quotas map[QuotaEntity]map[string]float64

	kinds   uint64                        // bit n: there is an entity whose flags are n
	forms   [scram.SHA512 + 1][]formCount // by mechanism: the most frequent ones, at least one
	only256 float64                       // the part of the users that has SCRAM-SHA-256 alone
}

// after is the view after a command of that kind; old is the one before.
func (s *security) after(kind commandKind, old *securityView) *securityView {
	v := &securityView{}
	if old != nil {
		*v = *old
	}
	all := old == nil || kind == snapshotCommand || kind == securitySnapshotCommand || kind == clusterSnapshotCommand
	if all || kind == alterUserCommand {
		v.users = maps.Clone(s.users)
		v.summarize()
	}
	if all || kind == createACLsCommand || kind == deleteACLsCommand {
		v.acls = s.acls.Clone()
	}
	if all || kind == alterQuotaCommand {
		v.quotas, v.kinds = maps.Clone(s.quotas), 0
		for e := range v.quotas {
			v.kinds |= 1 << e.flags()
		}
	}
	return v
}

// changesSecurity says whether a command of the kind changes what views show.
func (k commandKind) changesSecurity() bool {
	return k >= alterUserCommand && k <= securitySnapshotCommand || k == snapshotCommand || k == clusterSnapshotCommand
}

// check says why a command about users, ACLs or quotas does not hold.
func (s *security) check(c *command) error {
	switch c.kind {
	case alterUserCommand:
		u := &c.users[0]
		for _, m := range c.mechanisms {
			if s.users[u.name][m] == nil {
				return &UnknownUserError{Name: u.name, Mechanism: m}
			}
		}
		if _, has := s.users[u.name]; !has && len(s.users) >= maxUsers {
			return &InvalidUserError{Name: u.name, Reason: fmt.Sprintf("there are %d users, no more can be made", maxUsers)}
		}
	case createACLsCommand:
		fresh := 0
		for _, a := range c.acls {
			if !s.acls.Has(a) {
				fresh++
			}
		}
		if s.acls.Len()+fresh > maxACLs {
			return &InvalidACLError{ACL: *c.acls[0], Reason: fmt.Sprintf("there are %d ACLs, no more than %d can be made", s.acls.Len(), maxACLs)}
		}
	case alterQuotaCommand:
		q := &c.quotas[0]
		if _, has := s.quotas[q.Entity]; !has && len(q.Values) > 0 && len(s.quotas) >= maxQuotas {
			return &InvalidQuotaError{Entity: q.Entity, Reason: fmt.Sprintf("there are quotas of %d entities, no more can be made", maxQuotas)}
		}
		if n := len(alteredQuota(s.quotas[q.Entity], q.Values, c.unset)); n > maxQuotaValues {
			return &InvalidQuotaError{Entity: q.Entity, Reason: fmt.Sprintf("%d quotas, %d can be set", n, maxQuotaValues)}
		}
	}
	return nil
}

// apply makes a command so that holds.
func (s *security) apply(c *command) {
	switch c.kind {
	case alterUserCommand:
		u := &c.users[0]
		after := s.users[u.name]
		for _, m := range c.mechanisms {
			after[m] = nil
		}
		for _, cred := range u.credentials {
			if cred != nil {
				after[cred.Mechanism] = cred
			}
		}
		s.setUser(u.name, after)
	case createACLsCommand:
		for _, a := range c.acls {
			if s.acls.Insert(a) {
				s.bytes += a.Bytes()
			}
		}
	case deleteACLsCommand:
		for _, a := range c.acls {
			if s.acls.Remove(a) {
				s.bytes -= a.Bytes()
			}
		}
	case alterQuotaCommand:
		q := &c.quotas[0]
		s.setQuota(q.Entity, alteredQuota(s.quotas[q.Entity], q.Values, c.unset))
	}
}

func (s *security) setUser(name string, after credentials) {
	if before, has := s.users[name]; has {
		s.bytes -= userBytes(name, before)
		delete(s.users, name)
	}
	if after != (credentials{}) {
		s.users[name] = after
		s.bytes += userBytes(name, after)
	}
}

func (s *security) setQuota(e QuotaEntity, values map[string]float64) {
	if before, has := s.quotas[e]; has {
		s.bytes -= quotaBytes(e, before)
		delete(s.quotas, e)
	}
	if len(values) > 0 {
		s.quotas[e] = values
		s.bytes += quotaBytes(e, values)
	}
}

func alteredQuota(values, set map[string]float64, unset []string) map[string]float64 {
	out := make(map[string]float64, len(values)+len(set))
	maps.Copy(out, values)
	for _, name := range unset {
		delete(out, name)
	}
	maps.Copy(out, set)
	return out
}

func userBytes(name string, list credentials) int {
	n := 4 + len(name)
	for _, c := range list {
		if c != nil {
			n += 8 + len(c.Salt) + len(c.StoredKey) + len(c.ServerKey)
		}
	}
	return n
}

func quotaBytes(e QuotaEntity, values map[string]float64) int {
	n := 8 + len(e.User) + len(e.ClientID) + len(e.IP)
	for name := range values {
		n += 10 + len(name)
	}
	return n
}

// checkSnapshotPart looks at one part against the parts before it: nothing may be
// there twice, or too much. Within a part the decoder has seen to the order.
func (s *security) checkSnapshotPart(c *command) error {
	twice := func(what string) error { return fmt.Errorf("%w: snapshot: %s is there twice", errCommand, what) }
	for i := range c.users {
		if _, has := s.users[c.users[i].name]; has {
			return twice("user " + c.users[i].name)
		}
	}
	for _, a := range c.acls {
		if s.acls.Has(a) {
			return twice("an ACL")
		}
	}
	for i := range c.quotas {
		if _, has := s.quotas[c.quotas[i].Entity]; has {
			return twice("quotas of " + c.quotas[i].Entity.String())
		}
	}
	if len(s.users)+len(c.users) > maxUsers || s.acls.Len()+len(c.acls) > maxACLs || len(s.quotas)+len(c.quotas) > maxQuotas {
		return fmt.Errorf("%w: snapshot: more users, ACLs or quotas than there can be", errCommand)
	}
	return nil
}

// addSnapshotPart takes what a part holds.
func (s *security) addSnapshotPart(c *command) {
	for i := range c.users {
		s.setUser(c.users[i].name, c.users[i].credentials)
	}
	for _, a := range c.acls {
		if s.acls.Insert(a) {
			s.bytes += a.Bytes()
		}
	}
	for i := range c.quotas {
		s.setQuota(c.quotas[i].Entity, c.quotas[i].Values)
	}
}

// snapshot is the state as parts that follow those of the topics. Equal states give
// equal bytes.
func (s *security) snapshot() (parts []*command) {
	c, size := &command{kind: securitySnapshotCommand}, 0
	place := func(bytes int) {
		if size += bytes; size > snapshotPartBytes {
			parts = append(parts, c)
			c, size = &command{kind: securitySnapshotCommand}, bytes
		}
	}
	for _, name := range slices.Sorted(maps.Keys(s.users)) {
		place(userBytes(name, s.users[name]))
		c.users = append(c.users, userMeta{name, s.users[name]})
	}
	for a := range s.acls.All() {
		place(a.Bytes())
		c.acls = append(c.acls, a)
	}
	for _, e := range slices.SortedFunc(maps.Keys(s.quotas), QuotaEntity.compare) {
		place(quotaBytes(e, s.quotas[e]))
		c.quotas = append(c.quotas, Quota{e, s.quotas[e]})
	}
	return append(parts, c)
}

// compare orders entities.
func (e QuotaEntity) compare(f QuotaEntity) int {
	return cmp.Or(
		cmp.Compare(e.flags(), f.flags()), strings.Compare(e.User, f.User),
		strings.Compare(e.ClientID, f.ClientID), strings.Compare(e.IP, f.IP),
	)
}
