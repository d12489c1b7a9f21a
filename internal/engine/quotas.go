package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"unicode/utf8"
)

// The names of quotas, which are Kafka's.
const (
	// QuotaProducerByteRate is how many bytes of records a second may come in.
	QuotaProducerByteRate = "producer_byte_rate"
	// QuotaConsumerByteRate is how many bytes of records a second may go out.
	QuotaConsumerByteRate = "consumer_byte_rate"
	// QuotaRequestPercentage is how much of the time of one CPU requests may take.
	QuotaRequestPercentage = "request_percentage"
	// QuotaControllerMutationRate is how many partitions a second may be made or deleted
	// by clients of the Kafka listener.
	QuotaControllerMutationRate = "controller_mutation_rate"
	// QuotaConnectionCreationRate is how many connections a second an address may open.
	QuotaConnectionCreationRate = "connection_creation_rate"
)

// ErrInvalidQuota is matched by *InvalidQuotaError. Nothing was changed.
var ErrInvalidQuota = errors.New("embedlog: invalid quota")

// InvalidQuotaError is a quota that there cannot be.
type InvalidQuotaError struct {
	Entity QuotaEntity
	Name   string // of the quota; empty when the entity is what is wrong
	Reason string
}

func (e *InvalidQuotaError) Error() string {
	if e.Name == "" {
		return fmt.Sprintf("quotas of %s: %s", e.Entity, e.Reason)
	}
	return fmt.Sprintf("quota %.64s of %s: %s", e.Name, e.Entity, e.Reason)
}

// Is matches ErrInvalidQuota.
func (e *InvalidQuotaError) Is(target error) bool { return target == ErrInvalidQuota }

// QuotaEntity is who a quota is for: a user, a client id, both, or an address. A
// default is for each of those that have no quota of their own. It is comparable.
type QuotaEntity struct {
	User, ClientID, IP                      string // empty: none
	DefaultUser, DefaultClientID, DefaultIP bool   // the default, instead of a name
}

type entityPart struct {
	kind      string
	name      string
	isDefault bool
}

func (e QuotaEntity) parts() [3]entityPart {
	return [3]entityPart{{"user", e.User, e.DefaultUser}, {"client-id", e.ClientID, e.DefaultClientID}, {"ip", e.IP, e.DefaultIP}}
}

// String is the entity in words: user "alice", default client-id.
func (e QuotaEntity) String() string {
	var words []string
	for _, p := range e.parts() {
		switch {
		case p.isDefault:
			words = append(words, "default "+p.kind)
		case p.name != "":
			words = append(words, fmt.Sprintf("%s %.64q", p.kind, p.name))
		}
	}
	if words == nil {
		return "nobody"
	}
	return strings.Join(words, ", ")
}

// reason says why there can be no quotas of the entity; "" is that there can.
func (e QuotaEntity) reason() string {
	if e == (QuotaEntity{}) {
		return "a user, a client id or an address has to be named"
	}
	for _, p := range e.parts() {
		switch {
		case p.isDefault && p.name != "":
			return fmt.Sprintf("the %s is named, and is the default", p.kind)
		case len(p.name) > maxUserName || !utf8.ValidString(p.name):
			return fmt.Sprintf("the %s is not UTF-8 text of at most %d bytes", p.kind, maxUserName)
		}
	}
	if e.IP != "" || e.DefaultIP {
		if e.User != "" || e.DefaultUser || e.ClientID != "" || e.DefaultClientID {
			return "an address has quotas of its own, not together with a user or client id"
		}
		if a, err := netip.ParseAddr(e.IP); !e.DefaultIP {
			if err != nil {
				return "it is no address"
			}
			if s := a.Unmap().String(); s != e.IP {
				return "the address is written " + s // as those of connections are
			}
		}
	}
	return ""
}

// Quota is what an entity may take. It must not be changed.
type Quota struct {
	Entity QuotaEntity
	Values map[string]float64 // by name: see QuotaProducerByteRate and the others
}

// quotaReason says why an entity cannot have that quota.
func (e QuotaEntity) quotaReason(name string, value float64) string {
	whole := false
	switch name {
	case QuotaProducerByteRate, QuotaConsumerByteRate:
		whole = true
	case QuotaRequestPercentage, QuotaControllerMutationRate:
	case QuotaConnectionCreationRate:
		if e.IP == "" && !e.DefaultIP {
			return "it is for addresses"
		}
		whole = true
	default:
		return "there is no quota of that name"
	}
	switch {
	case name != QuotaConnectionCreationRate && (e.IP != "" || e.DefaultIP):
		return "it is not for addresses"
	case !(value > 0) || value > math.MaxInt64:
		return fmt.Sprintf("%v: want a number above zero", value)
	case whole && value != math.Trunc(value):
		return fmt.Sprintf("%v: want a whole number", value)
	}
	return ""
}

// CheckQuota says why AlterQuota would refuse the change: *InvalidQuotaError, joined.
func CheckQuota(entity QuotaEntity, set map[string]float64, unset []string) error {
	var bad []error
	invalid := func(name, why string) {
		if why != "" {
			bad = append(bad, &InvalidQuotaError{Entity: entity, Name: name, Reason: why})
		}
	}
	invalid("", entity.reason())
	for _, name := range slices.Sorted(maps.Keys(set)) {
		invalid(name, entity.quotaReason(name, set[name]))
		if slices.Contains(unset, name) {
			invalid(name, "is to be set and unset at once")
		}
	}
	for _, name := range unset {
		invalid(name, entity.quotaReason(name, 1))
	}
	if len(set)+len(unset) == 0 {
		invalid("", "nothing to change")
	}
	return errors.Join(bad...)
}

// AlterQuota sets quotas of an entity and takes others away, as a whole. They are in
// force, and on the disk, when it returns nil. It fails with *InvalidQuotaError,
// joined.
func (e *Engine) AlterQuota(ctx context.Context, entity QuotaEntity, set map[string]float64, unset ...string) error {
	err := CheckQuota(entity, set, unset)
	if err == nil {
		c := &command{kind: alterQuotaCommand, quotas: []Quota{{entity, maps.Clone(set)}}, unset: slices.Compact(slices.Sorted(slices.Values(unset)))}
		err = e.changeSecurity(ctx, c)
	}
	if err != nil {
		return fmt.Errorf("alter quota: %w", err)
	}
	return nil
}

// Quotas are all that are set, ordered by entity.
func (e *Engine) Quotas() []Quota {
	quotas := e.meta.security.Load().quotas
	list := make([]Quota, 0, len(quotas))
	for _, entity := range slices.SortedFunc(maps.Keys(quotas), QuotaEntity.compare) {
		list = append(list, Quota{entity, quotas[entity]})
	}
	return list
}

// QuotaTable is the quotas at one moment. It never changes; tables with the same
// quotas are not always the same.
type QuotaTable struct{ view *securityView }

// QuotaTable is the quotas as they are now. It takes no lock.
func (e *Engine) QuotaTable() QuotaTable { return QuotaTable{e.meta.security.Load()} }

// Same says that nothing that a table says has changed since the other.
func (t QuotaTable) Same(other QuotaTable) bool { return t.view == other.view }

// Empty says that there is no quota at all.
func (t QuotaTable) Empty() bool { return len(t.view.quotas) == 0 }

// Lookup finds the quota that counts for a client of a user; either may be empty. The
// closest counts: of the user and client id, of the user, of the client id, each
// before a default. share is who takes from it together: the user's client, all
// clients of the user, or all who have the client id. (ClientQuotaManager)
func (t QuotaTable) Lookup(name, user, clientID string) (value float64, share QuotaEntity, ok bool) {
	const named, byDefault = 2, 1
	both, userOnly, clientOnly := QuotaEntity{User: user, ClientID: clientID}, QuotaEntity{User: user}, QuotaEntity{ClientID: clientID}
	for _, c := range [...]struct {
		user, client byte // named or byDefault; 0 is none
		share        *QuotaEntity
	}{
		{named, named, &both}, {named, byDefault, &both}, {named, 0, &userOnly},
		{byDefault, named, &both}, {byDefault, byDefault, &both}, {byDefault, 0, &userOnly},
		{0, named, &clientOnly}, {0, byDefault, &clientOnly},
	} {
		// Most databases have quotas of one kind or two: only these are looked for.
		if t.view.kinds>>(c.user|c.client<<2)&1 == 0 || c.user == named && user == "" || c.client == named && clientID == "" {
			continue
		}
		e := QuotaEntity{DefaultUser: c.user == byDefault, DefaultClientID: c.client == byDefault}
		if c.user == named {
			e.User = user
		}
		if c.client == named {
			e.ClientID = clientID
		}
		if value, ok = t.view.quotas[e][name]; ok {
			return value, *c.share, true
		}
	}
	return 0, QuotaEntity{}, false
}

// LookupIP finds the quota that counts for an address.
func (t QuotaTable) LookupIP(name, ip string) (value float64, ok bool) {
	if value, ok = t.view.quotas[QuotaEntity{IP: ip}][name]; !ok {
		value, ok = t.view.quotas[QuotaEntity{DefaultIP: true}][name]
	}
	return value, ok
}
