package acl

import (
	"cmp"
	"fmt"
	"strings"
	"unicode/utf8"
)

// ACL allows or denies a principal something. It is comparable: equal ones are one.
type ACL struct {
	Resource   ResourceType
	Pattern    PatternType // zero means PatternLiteral
	Name       string      // of the resource, or what its name begins with; "*" in a literal pattern is all
	Principal  string      // User:alice, or User:* for everybody
	Host       string      // the client's address without its port; empty means "*", all
	Operation  Operation
	Permission Permission // zero means Allow
}

// What an ACL may hold.
const (
	MaxNameBytes      = 1024
	MaxPrincipalBytes = 1024
	MaxHostBytes      = 255
)

// WithDefaults is the ACL with what is zero filled in.
func (a ACL) WithDefaults() ACL {
	if a.Pattern == 0 {
		a.Pattern = PatternLiteral
	}
	if a.Host == "" {
		a.Host = Wildcard
	}
	if a.Permission == 0 {
		a.Permission = Allow
	}
	return a
}

// Reason says why there can be no such ACL; "" is that there can.
func (a *ACL) Reason() string {
	switch {
	case a.Resource < ResourceTopic || a.Resource > ResourceUser:
		return "its resource type is none of TOPIC, GROUP, CLUSTER, TRANSACTIONAL_ID, DELEGATION_TOKEN and USER"
	case a.Pattern != PatternLiteral && a.Pattern != PatternPrefixed:
		return "its pattern type is neither LITERAL nor PREFIXED"
	case a.Operation < OpAll || a.Operation > OpTwoPhaseCommit:
		return "its operation is not one that can be allowed"
	case a.Permission != Allow && a.Permission != Deny:
		return "its permission is neither ALLOW nor DENY"
	case a.Name == "":
		return "the resource has no name"
	case a.Resource == ResourceCluster && a.Name != ClusterName:
		return "the cluster's name is " + ClusterName
	case a.Host == "":
		return `it has no host: "*" is all of them`
	}
	if _, err := ParsePrincipal(a.Principal); err != nil {
		return err.Error()
	}
	for _, f := range []struct {
		what, value string
		max         int
	}{{"the resource's name", a.Name, MaxNameBytes}, {"the principal", a.Principal, MaxPrincipalBytes}, {"the host", a.Host, MaxHostBytes}} {
		if len(f.value) > f.max || !utf8.ValidString(f.value) {
			return fmt.Sprintf("%s is not UTF-8 text of at most %d bytes", f.what, f.max)
		}
	}
	return ""
}

// String is the ACL in words.
func (a ACL) String() string {
	return fmt.Sprintf("%s may%s %s %s %q (%s) from %s", a.Principal, map[Permission]string{Deny: " not"}[a.Permission],
		a.Operation, a.Resource, a.Name, a.Pattern, a.Host)
}

// Bytes is about what the ACL takes in a snapshot.
func (a *ACL) Bytes() int { return 12 + len(a.Name) + len(a.Principal) + len(a.Host) }

// Compare orders ACLs: those of one resource lie together, and there those of one
// principal.
func (a *ACL) Compare(b *ACL) int {
	return cmp.Or(
		cmp.Compare(a.Pattern, b.Pattern), cmp.Compare(a.Resource, b.Resource), strings.Compare(a.Name, b.Name),
		strings.Compare(a.Principal, b.Principal), strings.Compare(a.Host, b.Host),
		cmp.Compare(a.Operation, b.Operation), cmp.Compare(a.Permission, b.Permission),
	)
}

// Filter chooses ACLs. A zero field is any; so is a field that is Any.
type Filter struct {
	Resource ResourceType
	// Pattern chooses by the ACL's pattern type. With PatternMatch, Name is the name of
	// a resource, and the ACLs are chosen that are about it: those of that very name, of
	// "*", and of what it begins with.
	Pattern    PatternType
	Name       *string // of the ACL, but for PatternMatch
	Principal  *string
	Host       *string
	Operation  Operation
	Permission Permission
}

// Matches says whether the filter chooses a. (AclBindingFilter)
func (f *Filter) Matches(a *ACL) bool {
	return (f.Resource == 0 || f.Resource == ResourceAny || f.Resource == a.Resource) &&
		f.matchesName(a) &&
		(f.Principal == nil || *f.Principal == a.Principal) &&
		(f.Host == nil || *f.Host == a.Host) &&
		(f.Operation == 0 || f.Operation == OpAny || f.Operation == a.Operation) &&
		(f.Permission == 0 || f.Permission == PermissionAny || f.Permission == a.Permission)
}

func (f *Filter) matchesName(a *ACL) bool {
	switch f.Pattern {
	case 0, PatternAny:
		return f.Name == nil || *f.Name == a.Name
	case PatternMatch:
		return f.Name == nil || a.about(*f.Name)
	default:
		return f.Pattern == a.Pattern && (f.Name == nil || *f.Name == a.Name)
	}
}

// about says whether the ACL is about a resource, of its type, with that name.
func (a *ACL) about(name string) bool {
	if a.Pattern == PatternPrefixed {
		return strings.HasPrefix(name, a.Name)
	}
	return a.Name == name || a.Name == Wildcard
}
