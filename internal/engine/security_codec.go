package engine

import (
	"encoding/binary"
	"maps"
	"math"
	"slices"

	"github.com/x/embedlog/internal/acl"
	"github.com/x/embedlog/internal/scram"
)

// The fields of commands about users, ACLs and quotas:
//
//	credential  1 mechanism, uvarint iterations, string salt, stored key, server key
//	            (keys have the size of the mechanism's hash: 32 or 64 bytes)
//	user        string name, uvarint count, credentials, mechanisms ascending
//	acl         1 resource type, 1 pattern type, 1 operation, 1 permission (Kafka's numbers),
//	            string name, string principal, string host
//	acls        uvarint count, acls in the order of acl.ACL.Compare
//	entity      1 flags: bits 0-1 user, 2-3 client id, 4-5 address: 0 none, 1 the default,
//	            2 named; then a string for each that is named
//	quota       entity, uvarint count, then string name and 8 bytes value of each, names
//	            ascending; a value is an IEEE 754 double above zero, big-endian
//
// Numbers that are not known are no newer format but damage, except for operations,
// resource types and names of quotas, which are carried whatever they are: what needs
// another form gets another kind of command.

// userMeta is a user in a command.
type userMeta struct {
	name        string
	credentials credentials
}

func appendCredential(b []byte, c *scram.Credential) []byte {
	b = binary.AppendUvarint(append(b, byte(c.Mechanism)), uint64(c.Iterations))
	b = appendString(b, string(c.Salt))
	return append(append(b, c.StoredKey...), c.ServerKey...)
}

func (u *userMeta) appendTo(b []byte) []byte {
	n := 0
	for _, c := range u.credentials {
		if c != nil {
			n++
		}
	}
	b = binary.AppendUvarint(appendString(b, u.name), uint64(n))
	for _, c := range u.credentials {
		if c != nil {
			b = appendCredential(b, c)
		}
	}
	return b
}

func appendACL(b []byte, a *acl.ACL) []byte {
	b = append(b, byte(a.Resource), byte(a.Pattern), byte(a.Operation), byte(a.Permission))
	return appendString(appendString(appendString(b, a.Name), a.Principal), a.Host)
}

func appendACLs(b []byte, list []*acl.ACL) []byte {
	b = binary.AppendUvarint(b, uint64(len(list)))
	for _, a := range list {
		b = appendACL(b, a)
	}
	return b
}

// flags says which parts the entity has.
func (e QuotaEntity) flags() (flags byte) {
	for i, p := range e.parts() {
		switch {
		case p.isDefault:
			flags |= 1 << (2 * i)
		case p.name != "":
			flags |= 2 << (2 * i)
		}
	}
	return flags
}

func (q *Quota) appendTo(b []byte) []byte {
	b = append(b, q.Entity.flags())
	for _, p := range q.Entity.parts() {
		if !p.isDefault && p.name != "" {
			b = appendString(b, p.name)
		}
	}
	b = binary.AppendUvarint(b, uint64(len(q.Values)))
	for _, name := range slices.Sorted(maps.Keys(q.Values)) {
		b = binary.BigEndian.AppendUint64(appendString(b, name), math.Float64bits(q.Values[name]))
	}
	return b
}

// encodeSecurity appends the fields of a command about users, ACLs or quotas.
func (c *command) encodeSecurity(b []byte) []byte {
	switch c.kind {
	case alterUserCommand:
		b = c.users[0].appendTo(b)
		b = binary.AppendUvarint(b, uint64(len(c.mechanisms)))
		for _, m := range c.mechanisms {
			b = append(b, byte(m))
		}
	case createACLsCommand, deleteACLsCommand:
		b = appendACLs(b, c.acls)
	case alterQuotaCommand:
		b = c.quotas[0].appendTo(b)
		b = binary.AppendUvarint(b, uint64(len(c.unset)))
		for _, name := range c.unset {
			b = appendString(b, name)
		}
	case securitySnapshotCommand:
		b = binary.AppendUvarint(append(b, c.flags), uint64(len(c.users)))
		for i := range c.users {
			b = c.users[i].appendTo(b)
		}
		b = appendACLs(b, c.acls)
		b = binary.AppendUvarint(b, uint64(len(c.quotas)))
		for i := range c.quotas {
			b = c.quotas[i].appendTo(b)
		}
	}
	return b
}

// security decodes what encodeSecurity wrote into c.
func (d *decoder) security(c *command) {
	switch c.kind {
	case alterUserCommand:
		u := d.user()
		for range d.number(2) {
			m := scram.Mechanism(d.byte())
			if d.check(m.Known() && (len(c.mechanisms) == 0 || m > c.mechanisms[len(c.mechanisms)-1])); d.failed {
				return
			}
			d.check(u.credentials[m] == nil) // to be set and taken away at once
			c.mechanisms = append(c.mechanisms, m)
		}
		d.check(len(c.mechanisms) > 0 || u.credentials != (credentials{}))
		c.users = []userMeta{u}
	case createACLsCommand, deleteACLsCommand:
		c.acls = d.acls()
		d.check(len(c.acls) > 0)
	case alterQuotaCommand:
		q := d.quota()
		for range d.number(maxQuotaValues) {
			name := d.string(maxQuotaName)
			_, both := q.Values[name]
			if d.check(!both && name != "" && (len(c.unset) == 0 || name > c.unset[len(c.unset)-1])); d.failed {
				return
			}
			c.unset = append(c.unset, name)
		}
		d.check(len(q.Values) > 0 || len(c.unset) > 0)
		c.quotas = []Quota{q}
	case securitySnapshotCommand:
		c.flags = d.byte()
		d.check(c.flags&^snapshotLast == 0)
		for range d.number(maxUsers) {
			u := d.user()
			if d.check(u.credentials != (credentials{}) && (len(c.users) == 0 || u.name > c.users[len(c.users)-1].name)); d.failed {
				return
			}
			c.users = append(c.users, u)
		}
		c.acls = d.acls()
		for range d.number(maxQuotas) {
			q := d.quota()
			if d.check(len(q.Values) > 0 && (len(c.quotas) == 0 || q.Entity.compare(c.quotas[len(c.quotas)-1].Entity) > 0)); d.failed {
				return
			}
			c.quotas = append(c.quotas, q)
		}
	}
}

func (d *decoder) user() (u userMeta) {
	u.name = d.string(maxUserName)
	d.check(u.name != "")
	last := scram.Mechanism(0)
	for range d.number(uint64(len(u.credentials) - 1)) {
		c := &scram.Credential{Mechanism: scram.Mechanism(d.byte())}
		if d.check(c.Mechanism.Known() && c.Mechanism > last); d.failed {
			return u
		}
		c.Iterations = int(d.number(math.MaxInt32))
		c.Salt = []byte(d.string(scram.MaxSaltBytes))
		d.check(c.Iterations > 0 && len(c.Salt) > 0)
		c.StoredKey = slices.Clone(d.take(c.Mechanism.KeyBytes()))
		c.ServerKey = slices.Clone(d.take(c.Mechanism.KeyBytes()))
		u.credentials[c.Mechanism], last = c, c.Mechanism
	}
	return u
}

func (d *decoder) acls() (list []*acl.ACL) {
	for range d.number(maxACLs) {
		a := &acl.ACL{Resource: acl.ResourceType(d.byte()), Pattern: acl.PatternType(d.byte()), Operation: acl.Operation(d.byte()), Permission: acl.Permission(d.byte())}
		a.Name, a.Principal, a.Host = d.string(acl.MaxNameBytes), d.string(acl.MaxPrincipalBytes), d.string(acl.MaxHostBytes)
		d.check(a.Resource >= acl.ResourceTopic && a.Operation >= acl.OpAll)
		d.check(a.Pattern == acl.PatternLiteral || a.Pattern == acl.PatternPrefixed)
		d.check(a.Permission == acl.Allow || a.Permission == acl.Deny)
		d.check(a.Name != "" && a.Principal != "" && a.Host != "")
		if d.check(len(list) == 0 || list[len(list)-1].Compare(a) < 0); d.failed {
			return nil
		}
		list = append(list, a)
	}
	return list
}

func (d *decoder) quota() (q Quota) {
	flags := d.byte()
	d.check(flags != 0 && flags < 1<<6)
	part := func(i int) (name string, isDefault bool) {
		switch flags >> (2 * i) & 3 {
		case 1:
			return "", true
		case 2:
			name = d.string(maxUserName)
			d.check(name != "")
		case 3:
			d.check(false)
		}
		return name, false
	}
	q.Entity.User, q.Entity.DefaultUser = part(0)
	q.Entity.ClientID, q.Entity.DefaultClientID = part(1)
	q.Entity.IP, q.Entity.DefaultIP = part(2)
	q.Values = make(map[string]float64)
	last := ""
	for range d.number(maxQuotaValues) {
		name, bits := d.string(maxQuotaName), d.take(8)
		if d.check(name > last); d.failed {
			return q
		}
		value := math.Float64frombits(binary.BigEndian.Uint64(bits))
		d.check(value > 0 && !math.IsInf(value, 0)) // which a number that is none is not
		q.Values[name], last = value, name
	}
	return q
}
