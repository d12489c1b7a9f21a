package embedlog

import (
	"context"
	"slices"

	"github.com/x/embedlog/internal/acl"
)

// ACL allows or denies a principal an operation on a resource, as Kafka's ACLs do. It
// needs Resource, Name, Principal and Operation. It is comparable: equal ones are one.
type ACL = acl.ACL

// ACLFilter chooses ACLs; a zero field is any.
type ACLFilter = acl.Filter

// Principal is who somebody is: {"User", "alice"}.
type Principal = acl.Principal

// Operation is what somebody does to a resource, by Kafka's number.
type Operation = acl.Operation

// ResourceType is the kind of a resource, by Kafka's number.
type ResourceType = acl.ResourceType

// PatternType is how the name of an ACL is compared with that of a resource, by
// Kafka's number.
type PatternType = acl.PatternType

// Permission is whether an ACL allows or denies, by Kafka's number.
type Permission = acl.Permission

// The operations.
const (
	OpAll             = acl.OpAll
	OpRead            = acl.OpRead
	OpWrite           = acl.OpWrite
	OpCreate          = acl.OpCreate
	OpDelete          = acl.OpDelete
	OpAlter           = acl.OpAlter
	OpDescribe        = acl.OpDescribe
	OpClusterAction   = acl.OpClusterAction
	OpDescribeConfigs = acl.OpDescribeConfigs
	OpAlterConfigs    = acl.OpAlterConfigs
	OpIdempotentWrite = acl.OpIdempotentWrite
)

// The resource types.
const (
	ResourceTopic           = acl.ResourceTopic
	ResourceGroup           = acl.ResourceGroup
	ResourceCluster         = acl.ResourceCluster // its name is ClusterName
	ResourceTransactionalID = acl.ResourceTransactionalID
	ResourceUser            = acl.ResourceUser
)

// The pattern types: PatternMatch is for filters.
const (
	PatternMatch    = acl.PatternMatch
	PatternLiteral  = acl.PatternLiteral
	PatternPrefixed = acl.PatternPrefixed
)

// The permissions.
const (
	Deny  = acl.Deny
	Allow = acl.Allow
)

// ClusterName is the name of the one resource of type ResourceCluster.
const ClusterName = acl.ClusterName

// Authorizer decides what a principal may do. Every door for other processes asks
// one. DB.Authorizer is the one that decides by the database's ACLs.
type Authorizer = acl.Authorizer

// AuthorizerOptions are what DB.Authorizer takes. Nil is all defaults.
type AuthorizerOptions struct {
	// SuperUsers may do everything: with ACLs alone, nobody could make the first one
	// but by DB.CreateACLs. (super.users)
	SuperUsers []Principal
	// EveryoneIfNoACL allows everybody what no ACL is about.
	// (allow.everyone.if.no.acl.found)
	EveryoneIfNoACL bool
}

// Authorizer decides by the database's ACLs, as they are when it is asked: what
// denies wins, and what nothing allows is denied.
func (db *DB) Authorizer(o *AuthorizerOptions) Authorizer {
	r := &acl.Rules{Set: db.engine.ACLSet}
	if o != nil {
		r.SuperUsers, r.EveryoneIfNoACL = slices.Clone(o.SuperUsers), o.EveryoneIfNoACL
	}
	return r
}

// CreateACLs adds ACLs. Those that are there stay. They are in force for all who ask
// DB.Authorizer, and on the disk, when it returns nil; an *InvalidACLError, joined,
// says which cannot be, and then none was added.
func (db *DB) CreateACLs(ctx context.Context, acls ...ACL) error {
	return db.engine.CreateACLs(ctx, acls)
}

// DeleteACLs takes the ACLs away that the filter chooses, and returns them.
func (db *DB) DeleteACLs(ctx context.Context, filter ACLFilter) ([]ACL, error) {
	deleted, err := db.engine.DeleteACLs(ctx, filter)
	if err != nil {
		return nil, err
	}
	return deleted[0], nil
}

// ACLs are those that the filter chooses, in order.
func (db *DB) ACLs(filter ACLFilter) []ACL { return db.engine.ACLs(filter) }
