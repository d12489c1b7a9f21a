package acl

import (
	"context"
	"slices"
	"strings"
)

// Rules is the Authorizer that decides by ACLs.
type Rules struct {
	// Set is asked for the ACLs of the moment.
	Set func() *Set
	// SuperUsers may do everything. (super.users)
	SuperUsers []Principal
	// EveryoneIfNoACL allows everybody what no ACL is about.
	// (allow.everyone.if.no.acl.found)
	EveryoneIfNoACL bool
}

// Authorize says whether the principal may do op to the resource.
func (r *Rules) Authorize(_ context.Context, p Principal, host string, op Operation, resource ResourceType, name string) bool {
	if slices.Contains(r.SuperUsers, p) {
		return true
	}
	switch r.Set().Decide(p, host, op, resource, name) {
	case Allowed:
		return true
	case Unknown:
		return r.EveryoneIfNoACL
	}
	return false
}

// AuthorizeAny says whether there is a name so that the principal may do op to the
// resource of that type and name: whether something is allowed that is not denied as
// a whole. It looks at every ACL.
func (r *Rules) AuthorizeAny(_ context.Context, p Principal, host string, op Operation, resource ResourceType) bool {
	if slices.Contains(r.SuperUsers, p) {
		return true
	}
	set := r.Set()
	var allows, denies []*ACL
	for a := range set.All() {
		if a.Resource != resource || a.Principal != everyone && comparePrincipal(a.Principal, p) != 0 || !a.counts(host, op) {
			continue
		}
		if a.Permission == Allow {
			allows = append(allows, a)
			continue
		}
		if a.Pattern == PatternLiteral && a.Name == Wildcard {
			return false
		}
		denies = append(denies, a)
	}
	if r.EveryoneIfNoACL {
		return true // of names that no ACL is about there are always some
	}
	return slices.ContainsFunc(allows, func(a *ACL) bool {
		return !slices.ContainsFunc(denies, func(d *ACL) bool { return d.covers(a) })
	})
}

// covers says whether d is about every name that a is about.
func (d *ACL) covers(a *ACL) bool {
	if a.Pattern == PatternLiteral && a.Name == Wildcard {
		return false // d is about less than everything
	}
	if d.Pattern == PatternPrefixed {
		return strings.HasPrefix(a.Name, d.Name)
	}
	return a.Pattern == PatternLiteral && a.Name == d.Name
}
