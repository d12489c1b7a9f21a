package kafka

import "github.com/x/embedlog/internal/acl"

// Operation is what somebody wants to do to a resource, by Kafka's number; the same
// type as embedlog.Operation. (AclOperation)
type Operation = acl.Operation

// The operations, with Kafka's numbers.
const (
	OpAny             = acl.OpAny
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

// ResourceType is the kind of a resource, by Kafka's number; the same type as
// embedlog.ResourceType. (ResourceType)
type ResourceType = acl.ResourceType

// The resource types, with Kafka's numbers.
const (
	ResourceAny             = acl.ResourceAny
	ResourceTopic           = acl.ResourceTopic
	ResourceGroup           = acl.ResourceGroup
	ResourceCluster         = acl.ResourceCluster
	ResourceTransactionalID = acl.ResourceTransactionalID
	ResourceUser            = acl.ResourceUser
)

// ClusterName is the name of the one resource of type ResourceCluster.
const ClusterName = acl.ClusterName

// Principal is who a connection belongs to; the same type as embedlog.Principal.
type Principal = acl.Principal

// Anonymous is who has not authenticated.
var Anonymous = acl.Anonymous

// Authorizer decides what a principal may do; the same type as embedlog.Authorizer.
// DB.Authorizer makes the one that decides by the database's ACLs.
type Authorizer = acl.Authorizer

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
