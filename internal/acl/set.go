package acl

import (
	"cmp"
	"iter"
	"slices"
	"sort"
	"strings"
)

// Set is a set of ACLs, in order, so that those of a resource and a principal are
// found by a few binary searches however many there are. It may be looked up by
// several goroutines as long as none changes it. The zero value is empty.
type Set struct {
	literal, prefixed []*ACL // each in the order of ACL.Compare
}

func (s *Set) listOf(p PatternType) *[]*ACL {
	if p == PatternPrefixed {
		return &s.prefixed
	}
	return &s.literal
}

func find(list []*ACL, a *ACL) (int, bool) { return slices.BinarySearchFunc(list, a, (*ACL).Compare) }

// Has says whether a is in the set.
func (s *Set) Has(a *ACL) bool {
	_, ok := find(*s.listOf(a.Pattern), a)
	return ok
}

// Insert puts a in, and says whether it was not there. The set keeps a, which must
// not change any more.
func (s *Set) Insert(a *ACL) bool {
	list := s.listOf(a.Pattern)
	i, ok := find(*list, a)
	if !ok {
		*list = slices.Insert(*list, i, a)
	}
	return !ok
}

// Remove takes a out, and says whether it was there.
func (s *Set) Remove(a *ACL) bool {
	list := s.listOf(a.Pattern)
	i, ok := find(*list, a)
	if ok {
		*list = slices.Delete(*list, i, i+1)
	}
	return ok
}

// Clone is another set with the same ACLs.
func (s *Set) Clone() *Set {
	return &Set{literal: slices.Clone(s.literal), prefixed: slices.Clone(s.prefixed)}
}

// Len is how many ACLs there are.
func (s *Set) Len() int { return len(s.literal) + len(s.prefixed) }

// All are the ACLs in the order of ACL.Compare. They must not be changed.
func (s *Set) All() iter.Seq[*ACL] {
	return func(yield func(*ACL) bool) {
		for _, list := range [][]*ACL{s.literal, s.prefixed} {
			for _, a := range list {
				if !yield(a) {
					return
				}
			}
		}
	}
}

// Count is how many ACLs the filter chooses.
func (s *Set) Count(f *Filter) (n int) {
	for a := range s.All() {
		if f.Matches(a) {
			n++
		}
	}
	return n
}

// Match are those that the filter chooses, in order.
func (s *Set) Match(f *Filter) (list []*ACL) {
	for a := range s.All() {
		if f.Matches(a) {
			list = append(list, a)
		}
	}
	return list
}

// Decision is what a set says about an operation.
type Decision int8

// The decisions.
const (
	Unknown   Decision = iota // no ACL is about the resource
	NoneMatch                 // there are some, but none about the principal and operation
	Allowed
	Denied
)

// Decide says what the ACLs say.
func (s *Set) Decide(p Principal, host string, op Operation, resource ResourceType, name string) Decision {
	q := query{principal: p, host: host, op: op}
	for _, n := range [...]string{name, Wildcard} {
		from, to := span(s.literal, resource, n)
		if q.look(s.literal[from:to]) == Denied {
			return Denied
		}
		if name == Wildcard {
			break
		}
	}
	// Every prefix that the set has of the name, the longest first. What lies right
	// below the name in order is one of them, or tells how much of the name the next
	// that can be one has.
	list := s.prefixed
	for rest := name; rest != ""; {
		from, to := span(list, resource, rest)
		if from == to { // the greatest below it
			if from == 0 || list[from-1].Resource != resource {
				break
			}
			below := list[from-1].Name
			if n := common(rest, below); n < len(below) {
				// What is longer than what they have in common is above it.
				rest, list = rest[:n], list[:from]
				continue
			}
			rest = below
			from, to = span(list, resource, rest)
		}
		if q.look(list[from:to]) == Denied {
			return Denied
		}
		rest, list = rest[:len(rest)-1], list[:from]
	}
	return q.decision
}

// common is how many bytes a and b begin with together.
func common(a, b string) int {
	n := min(len(a), len(b))
	for i := range n {
		if a[i] != b[i] {
			return i
		}
	}
	return n
}

// span is where the ACLs of a resource lie.
func span(list []*ACL, resource ResourceType, name string) (from, to int) {
	from = sort.Search(len(list), func(i int) bool { return list[i].compareResource(resource, name) >= 0 })
	if from == len(list) || list[from].compareResource(resource, name) != 0 {
		return from, from
	}
	rest := list[from:]
	return from, from + sort.Search(len(rest), func(i int) bool { return rest[i].compareResource(resource, name) > 0 })
}

func (a *ACL) compareResource(resource ResourceType, name string) int {
	if c := cmp.Compare(a.Resource, resource); c != 0 {
		return c
	}
	return strings.Compare(a.Name, name)
}

// query is a decision while it is found.
type query struct {
	principal Principal
	host      string
	op        Operation
	decision  Decision
}

// look looks at the ACLs of one pattern, in order.
func (q *query) look(list []*ACL) Decision {
	if len(list) == 0 {
		return q.decision
	}
	q.decision = max(q.decision, NoneMatch)
	q.lookFor(list, q.principal)
	q.lookFor(list, Principal{"User", Wildcard})
	return q.decision
}

func (q *query) lookFor(list []*ACL, p Principal) {
	i := sort.Search(len(list), func(i int) bool { return comparePrincipal(list[i].Principal, p) >= 0 })
	for ; i < len(list) && comparePrincipal(list[i].Principal, p) == 0; i++ {
		switch a := list[i]; {
		case !a.counts(q.host, q.op):
		case a.Permission == Allow:
			q.decision = max(q.decision, Allowed)
		default:
			q.decision = Denied
			return
		}
	}
}

// comparePrincipal compares s with p.String(), which it does not make.
func comparePrincipal(s string, p Principal) int {
	n := min(len(s), len(p.Type))
	if c := strings.Compare(s[:n], p.Type); c != 0 {
		return c
	}
	if s = s[n:]; n < len(p.Type) || s == "" {
		return -1 // s is a part of it
	}
	if c := cmp.Compare(s[0], ':'); c != 0 {
		return c
	}
	return strings.Compare(s[1:], p.Name)
}

// counts says whether the ACL is about that host and operation.
func (a *ACL) counts(host string, op Operation) bool {
	if a.Host != Wildcard && a.Host != host {
		return false
	}
	if a.Operation == op || a.Operation == OpAll {
		return true
	}
	// To allow one thing is to allow what goes with it. To deny it denies it alone.
	if a.Permission == Allow {
		switch op {
		case OpDescribe:
			return a.Operation == OpRead || a.Operation == OpWrite || a.Operation == OpDelete || a.Operation == OpAlter
		case OpDescribeConfigs:
			return a.Operation == OpAlterConfigs
		}
	}
	return false
}
