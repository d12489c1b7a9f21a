package acl

import (
	"context"
	"fmt"
	"strings"
)

// Operation is what somebody wants to do to a resource, by Kafka's number.
// (AclOperation)
type Operation int8

// The operations, with Kafka's numbers.
const (
	OpAny             Operation = 1 // in a Filter only
	OpAll             Operation = 2
	OpRead            Operation = 3
	OpWrite           Operation = 4
	OpCreate          Operation = 5
	OpDelete          Operation = 6
	OpAlter           Operation = 7
	OpDescribe        Operation = 8
	OpClusterAction   Operation = 9
	OpDescribeConfigs Operation = 10
	OpAlterConfigs    Operation = 11
	OpIdempotentWrite Operation = 12
	OpCreateTokens    Operation = 13
	OpDescribeTokens  Operation = 14
	OpTwoPhaseCommit  Operation = 15
)

// ResourceType is the kind of a resource, by Kafka's number. (ResourceType)
type ResourceType int8

// The resource types, with Kafka's numbers.
const (
	ResourceAny             ResourceType = 1 // in a Filter only
	ResourceTopic           ResourceType = 2
	ResourceGroup           ResourceType = 3
	ResourceCluster         ResourceType = 4
	ResourceTransactionalID ResourceType = 5
	ResourceDelegationToken ResourceType = 6
	ResourceUser            ResourceType = 7
)

// PatternType is how the name of an ACL is compared with the name of a resource, by
// Kafka's number. (PatternType)
type PatternType int8

// The pattern types, with Kafka's numbers.
const (
	PatternAny      PatternType = 1 // in a Filter only
	PatternMatch    PatternType = 2 // in a Filter only: what counts for a resource of the name
	PatternLiteral  PatternType = 3
	PatternPrefixed PatternType = 4
)

// Permission is whether an ACL allows or denies, by Kafka's number.
// (AclPermissionType)
type Permission int8

// The permissions, with Kafka's numbers.
const (
	PermissionAny Permission = 1 // in a Filter only
	Deny          Permission = 2
	Allow         Permission = 3
)

// Wildcard is every name of a literal pattern, and every host.
const Wildcard = "*"

// ClusterName is the name of the one resource of type ResourceCluster.
const ClusterName = "kafka-cluster"

// Principal is who a connection belongs to.
type Principal struct {
	Type string // "User"
	Name string
}

// Anonymous is who has not authenticated.
var Anonymous = Principal{Type: "User", Name: "ANONYMOUS"}

// User is the principal of a user with that name.
func User(name string) Principal { return Principal{Type: "User", Name: name} }

// String is the principal as Kafka writes it: User:alice.
func (p Principal) String() string { return p.Type + ":" + p.Name }

// ParsePrincipal reads what String wrote.
func ParsePrincipal(s string) (Principal, error) {
	kind, name, ok := strings.Cut(s, ":")
	if !ok || kind == "" || name == "" {
		return Principal{}, fmt.Errorf("%q is no principal: want one such as User:alice", s)
	}
	return Principal{kind, name}, nil
}

// everyone is the principal of an ACL that counts for all.
const everyone = "User:*"

// Authorizer decides what a principal may do. It is asked in each request for each
// resource, by several goroutines at once, and must be quick.
type Authorizer interface {
	// Authorize says whether the principal, from that host, may do op to the resource.
	Authorize(ctx context.Context, p Principal, host string, op Operation, resource ResourceType, name string) bool
	// AuthorizeAny says whether there may be a resource of the type to which the
	// principal may do op. (KIP-679)
	AuthorizeAny(ctx context.Context, p Principal, host string, op Operation, resource ResourceType) bool
}

// The words as Kafka's tools write them.
var (
	operationNames = map[Operation]string{
		OpAny: "ANY", OpAll: "ALL", OpRead: "READ", OpWrite: "WRITE", OpCreate: "CREATE", OpDelete: "DELETE", OpAlter: "ALTER",
		OpDescribe: "DESCRIBE", OpClusterAction: "CLUSTER_ACTION", OpDescribeConfigs: "DESCRIBE_CONFIGS",
		OpAlterConfigs: "ALTER_CONFIGS", OpIdempotentWrite: "IDEMPOTENT_WRITE", OpCreateTokens: "CREATE_TOKENS",
		OpDescribeTokens: "DESCRIBE_TOKENS", OpTwoPhaseCommit: "TWO_PHASE_COMMIT",
	}
	resourceNames = map[ResourceType]string{
		ResourceAny: "ANY", ResourceTopic: "TOPIC", ResourceGroup: "GROUP", ResourceCluster: "CLUSTER",
		ResourceTransactionalID: "TRANSACTIONAL_ID", ResourceDelegationToken: "DELEGATION_TOKEN", ResourceUser: "USER",
	}
	patternNames    = map[PatternType]string{PatternAny: "ANY", PatternMatch: "MATCH", PatternLiteral: "LITERAL", PatternPrefixed: "PREFIXED"}
	permissionNames = map[Permission]string{PermissionAny: "ANY", Deny: "DENY", Allow: "ALLOW"}
)

func nameOf[W ~int8](names map[W]string, w W) string {
	if s, ok := names[w]; ok {
		return s
	}
	return fmt.Sprintf("UNKNOWN(%d)", w)
}

// parse finds a word whatever its case, and with or without its underscores.
func parse[W ~int8](names map[W]string, what, s string) (W, error) {
	plain := func(s string) string { return strings.ToUpper(strings.NewReplacer("_", "", "-", "").Replace(s)) }
	for w, name := range names {
		if plain(name) == plain(s) {
			return w, nil
		}
	}
	return 0, fmt.Errorf("%q is no %s", s, what)
}

// String is the operation as Kafka writes it: DESCRIBE_CONFIGS.
func (o Operation) String() string { return nameOf(operationNames, o) }

// String is the resource type as Kafka writes it: TRANSACTIONAL_ID.
func (r ResourceType) String() string { return nameOf(resourceNames, r) }

// String is the pattern type as Kafka writes it: PREFIXED.
func (p PatternType) String() string { return nameOf(patternNames, p) }

// String is the permission as Kafka writes it: ALLOW.
func (p Permission) String() string { return nameOf(permissionNames, p) }

// ParseOperation reads the name of an operation in any case: READ, DescribeConfigs.
func ParseOperation(s string) (Operation, error) { return parse(operationNames, "operation", s) }

// ParseResourceType reads the name of a resource type in any case.
func ParseResourceType(s string) (ResourceType, error) {
	return parse(resourceNames, "resource type", s)
}

// ParsePatternType reads the name of a pattern type in any case.
func ParsePatternType(s string) (PatternType, error) { return parse(patternNames, "pattern type", s) }

// ParsePermission reads ALLOW or DENY in any case.
func ParsePermission(s string) (Permission, error) { return parse(permissionNames, "permission", s) }
