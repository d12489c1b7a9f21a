package kafka

import "context"

// Operation is what somebody wants to do to a resource, by Kafka's number.
// (AclOperation)
type Operation int8

// The operations, with Kafka's numbers.
const (
	OpAny             Operation = 1
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
)

// ResourceType is the kind of a resource, by Kafka's number. (ResourceType)
type ResourceType int8

// The resource types, with Kafka's numbers.
const (
	ResourceAny             ResourceType = 1
	ResourceTopic           ResourceType = 2
	ResourceGroup           ResourceType = 3
	ResourceCluster         ResourceType = 4
	ResourceTransactionalID ResourceType = 5
	ResourceUser            ResourceType = 7
)

// ClusterName is the name of the one resource of type ResourceCluster.
const ClusterName = "kafka-cluster"

// Principal is who a connection belongs to.
type Principal struct {
	Type string // "User"
	Name string
}

// Anonymous is who has not authenticated.
var Anonymous = Principal{Type: "User", Name: "ANONYMOUS"}

// String is the principal as Kafka writes it: User:alice.
func (p Principal) String() string { return p.Type + ":" + p.Name }

// Authorizer decides what a principal may do. It is asked in each request for each
// resource, by several goroutines at once, and must be quick.
type Authorizer interface {
	// Authorize says whether the principal, from that host, may do op to the resource.
	Authorize(ctx context.Context, p Principal, host string, op Operation, resource ResourceType, name string) bool
	// AuthorizeAny says whether there may be a resource of the type to which the
	// principal may do op. (KIP-679)
	AuthorizeAny(ctx context.Context, p Principal, host string, op Operation, resource ResourceType) bool
}

// authorize says whether whoever sent the request may do op to the resource.
func (r *request) authorize(op Operation, resource ResourceType, name string) bool {
	a := r.srv.authorizer
	return a == nil || a.Authorize(r.ctx, r.principal, r.host, op, resource, name)
}

// authorizeAny says whether whoever sent the request may do op to any resource of
// the type.
func (r *request) authorizeAny(op Operation, resource ResourceType) bool {
	a := r.srv.authorizer
	return a == nil || a.AuthorizeAny(r.ctx, r.principal, r.host, op, resource)
}

// operations says which of the operations are allowed, as the bits that Kafka 2.3
// to 2.8 clients ask for with IncludeAuthorizedOperations: bit n for operation n.
func (r *request) operations(resource ResourceType, name string, ops ...Operation) int32 {
	var bits int32
	for _, op := range ops {
		if r.authorize(op, resource, name) {
			bits |= 1 << op
		}
	}
	return bits
}

// What can be done to each type of resource, for operations. (AclEntry.supportedOperations)
var (
	topicOperations   = []Operation{OpRead, OpWrite, OpCreate, OpDescribe, OpDelete, OpAlter, OpDescribeConfigs, OpAlterConfigs}
	groupOperations   = []Operation{OpRead, OpDescribe, OpDelete, OpDescribeConfigs, OpAlterConfigs}
	clusterOperations = []Operation{OpCreate, OpClusterAction, OpDescribeConfigs, OpAlterConfigs, OpIdempotentWrite, OpAlter, OpDescribe}
)
